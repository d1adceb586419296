//! The `tojson` filter, as Python's `json.dumps`. Knows nothing of templates.

use minijinja::value::{Kwargs, ObjectRepr, Rest, ValueKind, from_args};
use minijinja::{Error, ErrorKind, State, Value};

use super::repr::float;

/// Deeper than any value from JSON.
const DEEPEST: usize = 128;
/// Bytes for one fuel, as in the engine.
const BYTES_A_FUEL: u64 = 64;

/// How a value is written; the defaults are those of transformers, which are `json.dumps`'s but for
/// `ensure_ascii`.
struct Writer {
    ensure_ascii: bool,
    sort_keys: bool,
    indent: Option<String>,
    between_items: String,
    after_key: String,
}

/// `value | tojson(ensure_ascii=false, indent=none, separators=none, sort_keys=false)`; the last by
/// name only.
pub(super) fn tojson(state: &State, value: &Value, options: Rest<Value>, named: Kwargs) -> Result<String, Error> {
    let (ensure_ascii, indent, separators): (Option<Value>, Option<Value>, Option<Value>) = from_args(&options)?;
    let given = |name: &str, positional: Option<Value>| -> Result<Option<Value>, Error> {
        let value = named.get::<Option<Value>>(name)?.or(positional);
        Ok(value.filter(|value| !value.is_none()))
    };
    let indent = given("indent", indent)?.map(|indent| match indent.as_str() {
        Some(text) => text.to_string(),
        None => " ".repeat(usize::try_from(indent).unwrap_or(0).min(100)),
    });
    // With an indent, lines end without a space.
    let (mut between_items, mut after_key) = (if indent.is_some() { "," } else { ", " }.to_string(), ": ".to_string());
    if let Some(separators) = given("separators", separators)? {
        let pair: Vec<Value> = separators.try_iter()?.collect();
        let [Some(items), Some(keys)] = [0, 1].map(|index| pair.get(index).and_then(Value::as_str)) else {
            return Err(refused("separators: expected two texts"));
        };
        (between_items, after_key) = (items.to_string(), keys.to_string());
    }
    let is_true = |value: Option<Value>| value.is_some_and(|value| value.is_true());
    let (ensure_ascii, sort_keys) = (is_true(given("ensure_ascii", ensure_ascii)?), is_true(given("sort_keys", None)?));
    let writer = Writer { ensure_ascii, sort_keys, indent, between_items, after_key };
    named.assert_all_used()?;
    let mut out = String::new();
    writer.value(state, value, 0, &mut out)?;
    Ok(out)
}

impl Writer {
    fn value(&self, state: &State, value: &Value, depth: usize, out: &mut String) -> Result<(), Error> {
        if depth > DEEPEST {
            return Err(refused("tojson: the value is nested more than 128 deep"));
        }
        let mut before = out.len();
        match value.kind() {
            ValueKind::None => out.push_str("null"),
            ValueKind::Bool => out.push_str(if value.is_true() { "true" } else { "false" }),
            ValueKind::Number => out.push_str(&number(value)),
            ValueKind::String => self.text(value.as_str().unwrap_or_default(), out),
            ValueKind::Seq | ValueKind::Map if value.as_object().is_some() => {
                let is_map = value.as_object().is_some_and(|object| object.repr() == ObjectRepr::Map);
                let mut items: Vec<Value> = value.try_iter()?.checked().collect::<Result<_, _>>()?;
                if is_map && self.sort_keys {
                    items.sort();
                }
                out.push(if is_map { '{' } else { '[' });
                for (index, item) in items.iter().enumerate() {
                    state.consume_fuel(1 + (out.len() - before) as u64 / BYTES_A_FUEL)?;
                    before = out.len();
                    if index > 0 {
                        out.push_str(&self.between_items);
                    }
                    self.line(depth + 1, out);
                    if is_map {
                        self.text(&key(item)?, out);
                        out.push_str(&self.after_key);
                        self.value(state, &value.get_item(item)?, depth + 1, out)?;
                    } else {
                        self.value(state, item, depth + 1, out)?;
                    }
                }
                if !items.is_empty() {
                    self.line(depth, out);
                }
                out.push(if is_map { '}' } else { ']' });
            }
            kind => return Err(refused(&format!("tojson: {kind} cannot be written as JSON"))),
        }
        // Here, since the engine sees the text only when it is whole.
        state.consume_fuel(1 + (out.len() - before) as u64 / BYTES_A_FUEL)
    }

    fn line(&self, depth: usize, out: &mut String) {
        if let Some(indent) = &self.indent {
            out.push('\n');
            (0..depth).for_each(|_| out.push_str(indent));
        }
    }

    fn text(&self, text: &str, out: &mut String) {
        out.push('"');
        for character in text.chars() {
            match character {
                '"' => out.push_str("\\\""),
                '\\' => out.push_str("\\\\"),
                '\n' => out.push_str("\\n"),
                '\r' => out.push_str("\\r"),
                '\t' => out.push_str("\\t"),
                '\u{8}' => out.push_str("\\b"),
                '\u{c}' => out.push_str("\\f"),
                control if control < ' ' || (self.ensure_ascii && !control.is_ascii()) => {
                    let mut units = [0; 2];
                    control.encode_utf16(&mut units).iter().for_each(|unit| out.push_str(&format!("\\u{unit:04x}")));
                }
                // Python escapes this one only where it escapes all beyond ASCII.
                '\u{7f}' => out.push('\u{7f}'),
                other => out.push(other),
            }
        }
        out.push('"');
    }
}

fn number(value: &Value) -> String {
    if value.is_integer() {
        return value.to_string();
    }
    match f64::try_from(value.clone()) {
        Ok(number) if number.is_nan() => "NaN".to_string(),
        Ok(number) if number.is_infinite() => if number > 0.0 { "Infinity" } else { "-Infinity" }.to_string(),
        Ok(number) => float(number),
        Err(_) => value.to_string(),
    }
}

/// A key of an object. JSON has text keys only.
fn key(key: &Value) -> Result<String, Error> {
    match key.kind() {
        ValueKind::String => Ok(key.as_str().unwrap_or_default().to_string()),
        ValueKind::None => Ok("null".to_string()),
        ValueKind::Bool => Ok(if key.is_true() { "true" } else { "false" }.to_string()),
        ValueKind::Number => Ok(number(key)),
        kind => Err(refused(&format!("tojson: expected a key that is text, a number, a boolean or none, found {kind}"))),
    }
}

fn refused(problem: &str) -> Error {
    Error::new(ErrorKind::InvalidOperation, problem.to_string())
}
