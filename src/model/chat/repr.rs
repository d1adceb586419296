//! Python's `str` and `repr` of a template's values. Knows nothing of templates.
//!
//! The characters escaped by `repr` are those of the compiler's version of Unicode.

use std::fmt::{self, Write};

use minijinja::filters;
use minijinja::value::{Kwargs, ObjectRepr, Rest, StringInput, ValueKind, ValueOrKwargs};
use minijinja::{Error, ErrorKind, Output, State, Value};

use super::held;

/// minijinja's own `format` filter.
pub(super) const FORMAT: &str = "__format";

/// Writes the text of `{{ value }}`.
pub(super) fn show(out: &mut Output, state: &mut State, value: &Value) -> Result<(), Error> {
    held::walked(state, value, 0)?;
    // It is written into memory, so only the fuel can have kept it from being so.
    write_str(out, value).map_err(|_| Error::new(ErrorKind::OutOfFuel, "could not write a value"))
}

/// The `string` filter: Python's `str(value)`.
pub(super) fn string(state: &mut State, value: &Value) -> Result<Value, Error> {
    match value.as_str() {
        Some(_) => Ok(value.clone()),
        None => state.format(value.clone()).map(Value::from),
    }
}

/// The `join` filter: the items' `str`, one behind the other.
pub(super) fn join(
    state: &mut State,
    value: Value,
    joiner: Option<Value>,
    attribute: Option<Value>,
    named: Kwargs,
) -> Result<Value, Error> {
    let joiner = joiner.or(named.get::<Option<Value>>("d")?);
    let attribute = attribute.or(named.get::<Option<Value>>("attribute")?);
    named.assert_all_used()?;
    let items = match attribute.filter(|attribute| !attribute.is_none()) {
        Some(attribute) => {
            let options = Value::from(Kwargs::from_iter([("attribute", attribute)]));
            state.apply_filter("map", &[value, options])?
        }
        None => value,
    };
    let mut texts = Vec::new();
    if !items.is_undefined() {
        for item in items.try_iter()?.checked() {
            state.consume_fuel(1)?;
            texts.push(string(state, &item?)?);
        }
    }
    let joiner = joiner.map(|joiner| string(state, &joiner)).transpose()?;
    let joiner = joiner.as_ref().map(|joiner| StringInput::new(state, joiner)).transpose()?;
    filters::join(state, &Value::from(texts), joiner, None, Kwargs::from_iter(std::iter::empty::<(&str, Value)>()))
}

/// Values to format, as their `str`: minijinja has another text for objects and some floats. A
/// float stays one for a format of digits, an object for a format with its items.
pub(super) fn to_format(state: &mut State, args: &[Value], digits: bool, items: bool) -> Result<Vec<Value>, Error> {
    let mut shown = Vec::new();
    for value in args {
        let is_float = value.kind() == ValueKind::Number && !value.is_integer();
        shown.push(match value {
            value if value.is_kwargs() => {
                let mut named = Vec::new();
                for name in value.try_iter()? {
                    let value = value.get_item(&name)?;
                    let value = to_format(state, &[value], digits, items)?.pop().unwrap_or_default();
                    named.push((name.to_string(), value));
                }
                Value::from(Kwargs::from_iter(named))
            }
            value if (value.as_object().is_some() && !items) || (is_float && !digits) => string(state, value)?,
            value => value.clone(),
        });
    }
    Ok(shown)
}

/// The `format` filter, as Python's `%`.
pub(super) fn format(state: &mut State, format: &Value, args: Rest<ValueOrKwargs>) -> Result<Value, Error> {
    let has_digits = format.as_str().is_some_and(|format| format.replace("%s", "").contains('%'));
    let args = to_format(state, &args.into_values(), has_digits, false)?;
    state.apply_filter(FORMAT, &[std::slice::from_ref(format), &args].concat())
}

/// Writes Python's `str(value)`.
pub(super) fn write_str(out: &mut impl Write, value: &Value) -> fmt::Result {
    match (value.kind(), value.as_str()) {
        (_, Some(text)) => out.write_str(text),
        (ValueKind::Undefined, _) => Ok(()),
        _ => write_repr(out, value),
    }
}

/// Writes Python's `repr(value)`. The caller has bounded the value's depth.
fn write_repr(out: &mut impl Write, value: &Value) -> fmt::Result {
    if let Some(text) = value.as_str() {
        return write_text(out, text);
    }
    let object = value.as_object().map(|object| object.repr());
    match (value.kind(), object) {
        (ValueKind::Undefined, _) => out.write_str("Undefined"),
        (ValueKind::Number, _) if !value.is_integer() => match f64::try_from(value.clone()) {
            Ok(number) => out.write_str(&float(number)),
            Err(_) => write!(out, "{value}"),
        },
        (ValueKind::Map, Some(ObjectRepr::Map)) if !held::is_namespace(value) => {
            out.write_char('{')?;
            for (index, key) in value.try_iter().into_iter().flatten().enumerate() {
                out.write_str(if index > 0 { ", " } else { "" })?;
                write_repr(out, &key)?;
                out.write_str(": ")?;
                write_repr(out, &value.get_item(&key).unwrap_or_default())?;
            }
            out.write_char('}')
        }
        (_, Some(ObjectRepr::Seq | ObjectRepr::Iterable)) if value.len().is_some() => {
            let is_tuple = value.is_tuple();
            out.write_char(if is_tuple { '(' } else { '[' })?;
            for (index, item) in value.try_iter().into_iter().flatten().enumerate() {
                out.write_str(if index > 0 { ", " } else { "" })?;
                write_repr(out, &item)?;
            }
            out.write_str(match (is_tuple, value.len()) {
                (true, Some(1)) => ",)",
                (true, _) => ")",
                _ => "]",
            })
        }
        _ => write!(out, "{value}"),
    }
}

/// Writes a text in quotes: single ones, unless it has only such inside.
fn write_text(out: &mut impl Write, text: &str) -> fmt::Result {
    let quote = if text.contains('\'') && !text.contains('"') { '"' } else { '\'' };
    out.write_char(quote)?;
    for character in text.chars() {
        let code = u32::from(character);
        match character {
            '\\' => out.write_str("\\\\")?,
            '\n' => out.write_str("\\n")?,
            '\r' => out.write_str("\\r")?,
            '\t' => out.write_str("\\t")?,
            same if same == quote => write!(out, "\\{quote}")?,
            other if is_printable(other) => out.write_char(other)?,
            _ if code <= 0xff => write!(out, "\\x{code:02x}")?,
            _ if code <= 0xffff => write!(out, "\\u{code:04x}")?,
            _ => write!(out, "\\U{code:08x}")?,
        }
    }
    out.write_char(quote)
}

/// Python's `str.isprintable`: no control, format, private, unassigned or separating character,
/// except the space.
fn is_printable(character: char) -> bool {
    if character.is_ascii() {
        return (' '..='~').contains(&character);
    }
    // The standard library escapes by the same categories, and marks where they come first.
    let text: String = ['a', character].into_iter().collect();
    text.escape_debug().count() == 2
}

/// A float as Python writes it: the shortest digits that give it back, with an exponent below 1e-4
/// and from 1e16 on.
pub(super) fn float(number: f64) -> String {
    let magnitude = number.abs();
    if !number.is_finite() {
        return if number.is_nan() {
            "nan"
        } else if number > 0.0 {
            "inf"
        } else {
            "-inf"
        }
        .to_string();
    }
    if magnitude == 0.0 || (1e-4..1e16).contains(&magnitude) {
        return format!("{number:?}");
    }
    let text = format!("{number:e}");
    let (digits, exponent) = text.split_once('e').unwrap_or((&text, "0"));
    let (sign, exponent) = exponent.strip_prefix('-').map_or(('+', exponent), |exponent| ('-', exponent));
    format!("{digits}e{sign}{exponent:0>2}")
}
