//! Behaviour of Python's values without a counterpart in minijinja: white space, `dict`, methods of
//! text and lists.

use minijinja::value::{Kwargs, Serde, Tuple, ValueKind, from_args};
use minijinja::{Error, ErrorKind, State, Value};
use minijinja_contrib::pycompat::unknown_method_callback;

use super::repr;
use crate::model::{Fields, Message};

/// The names of a message's reasoning. Templates read the first one, gpt-oss's the second.
const REASONING: [&str; 3] = ["reasoning_content", "thinking", "reasoning"];

/// A message as a template sees it: a dictionary in the order of its fields. Reasoning is there
/// under both names that templates read, as transformers gives it.
pub(super) fn message(message: &Message) -> Value {
    match message.whole() {
        Some(whole) => match REASONING.iter().find_map(|name| whole.get(*name).filter(|reasoning| !reasoning.is_null())) {
            Some(reasoning) => {
                let mut aliased = Fields::from_iter([("thinking".to_string(), reasoning.clone())]);
                aliased.extend(whole.clone());
                aliased.insert("reasoning_content".to_string(), reasoning.clone());
                Value::from(Serde(aliased))
            }
            None => Value::from(Serde(whole)),
        },
        None => Value::from_pairs([("role", message.role.as_str()), ("content", message.content.as_str())]),
    }
}

/// Python's `dict(...)`.
pub(super) fn dict(items: Option<Value>, named: Kwargs) -> Result<Value, Error> {
    let mut pairs = Vec::new();
    match items {
        Some(items) if items.kind() == ValueKind::Map => {
            for key in items.try_iter()? {
                let value = items.get_item(&key)?;
                pairs.push((key, value));
            }
        }
        Some(items) => {
            for pair in items.try_iter()? {
                pairs.push((pair.get_item_by_index(0)?, pair.get_item_by_index(1)?));
            }
        }
        None => {}
    }
    for name in named.args() {
        pairs.push((Value::from(name), named.get(name)?));
    }
    Ok(Value::from_pairs(pairs))
}

/// Whether Python strips it.
fn is_space(character: char) -> bool {
    character.is_whitespace() || ('\x1c'..='\x1f').contains(&character)
}

/// The `trim` filter.
pub(super) fn trim(state: &mut State, value: &Value, characters: Option<&str>) -> Result<String, Error> {
    let text = repr::string(state, value)?;
    Ok(strip(text.as_str().unwrap_or_default(), characters, true, true).to_string())
}

/// Whether a value is a sequence to Jinja: it has a length and items, as text and dictionaries.
pub(super) fn is_sequence(value: &Value) -> bool {
    value.is_undefined() || matches!(value.kind(), ValueKind::Seq | ValueKind::Map | ValueKind::String)
}

/// Whether a value can be looped over; minijinja says so of none too.
pub(super) fn is_iterable(value: &Value) -> bool {
    !value.is_none() && value.try_iter().is_ok()
}

fn strip<'a>(text: &'a str, characters: Option<&str>, start: bool, end: bool) -> &'a str {
    let mut listed: Vec<char> = characters.unwrap_or_default().chars().collect();
    listed.sort_unstable();
    let stripped = |character: char| if characters.is_some() { listed.binary_search(&character).is_ok() } else { is_space(character) };
    let text = if start { text.trim_start_matches(stripped) } else { text };
    if end { text.trim_end_matches(stripped) } else { text }
}

/// Methods missing from minijinja's values.
pub(super) fn method(state: &mut State, value: &Value, name: &str, args: &[Value]) -> Result<Value, Error> {
    let found = match (value.kind(), value.as_str()) {
        (_, Some(text)) => text_method(text, name, args)?,
        (ValueKind::Seq, _) if name == "index" => {
            let (item,): (&Value,) = from_args(args)?;
            let at = value.try_iter()?.position(|found| found == *item);
            Some(Value::from(at.ok_or_else(|| refused("list.index: the item is not in the list"))?))
        }
        (ValueKind::Map, _) if name == "copy" => {
            let () = from_args(args)?;
            Some(value.clone())
        }
        _ => None,
    };
    match found {
        Some(value) => Ok(value),
        None if name == "format" && value.as_str().is_some() => {
            let format = value.as_str().unwrap_or_default();
            let args = repr::to_format(state, args, format.contains([':', '!']), format.contains(['[', '.']))?;
            unknown_method_callback(state, value, name, &args)
        }
        None => unknown_method_callback(state, value, name, args),
    }
}

fn text_method(text: &str, name: &str, args: &[Value]) -> Result<Option<Value>, Error> {
    let value = match name {
        "strip" | "lstrip" | "rstrip" => {
            let (characters,): (Option<Value>,) = from_args(args)?;
            let characters = some_text(characters.as_ref())?;
            Value::from(strip(text, characters, name != "rstrip", name != "lstrip"))
        }
        "split" | "rsplit" => split(text, name == "rsplit", args)?,
        "splitlines" => {
            let (keep, options): (Option<bool>, Kwargs) = from_args(args)?;
            let keep = options.get::<Option<bool>>("keepends")?.or(keep).unwrap_or(false);
            options.assert_all_used()?;
            lines(text, keep).into_iter().map(Value::from).collect()
        }
        "partition" | "rpartition" => {
            let separator = separator(args)?;
            let parts = if name == "partition" { text.split_once(separator) } else { text.rsplit_once(separator) };
            let parts = match (parts, name) {
                (Some((before, after)), _) => [before, separator, after],
                (None, "partition") => [text, "", ""],
                (None, _) => ["", "", text],
            };
            Value::from(Tuple::from(parts.map(Value::from)))
        }
        "removeprefix" | "removesuffix" => {
            let (affix,): (&str,) = from_args(args)?;
            let removed = if name == "removeprefix" { text.strip_prefix(affix) } else { text.strip_suffix(affix) };
            Value::from(removed.unwrap_or(text))
        }
        "index" | "rindex" => {
            let (part,): (&str,) = from_args(args)?;
            let at = if name == "index" { text.find(part) } else { text.rfind(part) };
            let at = at.ok_or_else(|| refused("str.index: substring not found"))?;
            Value::from(text[..at].chars().count())
        }
        "center" | "ljust" | "rjust" | "zfill" => {
            let (width, fill): (usize, Option<&str>) = from_args(args)?;
            let missing = width.saturating_sub(text.chars().count());
            if missing > 10_000 {
                return Err(refused("a text is filled up by at most 10000 characters"));
            }
            let fill = if name == "zfill" { "0" } else { fill.unwrap_or(" ") };
            if fill.chars().count() != 1 {
                return Err(refused("a text is filled up with exactly one character"));
            }
            let before = match name {
                // Python's rounding: the odd one goes to the left if the width is odd.
                "center" => missing / 2 + (missing & width & 1),
                "ljust" => 0,
                _ => missing,
            };
            let (sign, digits) = match text.strip_prefix(['+', '-']) {
                Some(digits) if name == "zfill" => text.split_at(text.len() - digits.len()),
                _ => ("", text),
            };
            Value::from(format!("{sign}{}{digits}{}", fill.repeat(before), fill.repeat(missing - before)))
        }
        // minijinja's own writes as much as it is asked to before it looks at the fuel.
        "format" if has_a_wide_field(text) => return Err(refused("a field of a format is at most 9999 characters wide")),
        "title" => {
            let () = from_args(args)?;
            Value::from(title(text))
        }
        "isspace" => {
            let () = from_args(args)?;
            Value::from(!text.is_empty() && text.chars().all(is_space))
        }
        _ => return Ok(None),
    };
    Ok(Some(value))
}

/// Whether a number of more than four digits is in the braces of a format, where widths are.
fn has_a_wide_field(format: &str) -> bool {
    let (mut depth, mut digits) = (0_usize, 0);
    format.bytes().any(|byte| {
        match byte {
            b'{' => depth += 1,
            b'}' => depth = depth.saturating_sub(1),
            _ => {}
        }
        digits = if depth > 0 && byte.is_ascii_digit() { digits + 1 } else { 0 };
        digits > 4
    })
}

fn refused(problem: &'static str) -> Error {
    Error::new(ErrorKind::InvalidOperation, problem)
}

/// A text, or nothing for none.
fn some_text(value: Option<&Value>) -> Result<Option<&str>, Error> {
    match value {
        None => Ok(None),
        Some(value) if value.is_none() => Ok(None),
        Some(value) => value.as_str().map(Some).ok_or_else(|| refused("expected a text or none")),
    }
}

fn separator(args: &[Value]) -> Result<&str, Error> {
    let (separator,): (&str,) = from_args(args)?;
    if separator.is_empty() { Err(refused("empty separator")) } else { Ok(separator) }
}

fn split(text: &str, from_right: bool, args: &[Value]) -> Result<Value, Error> {
    let (separator, most, options): (Option<Value>, Option<i64>, Kwargs) = from_args(args)?;
    let separator = options.get::<Option<Value>>("sep")?.or(separator);
    let most = options.get::<Option<i64>>("maxsplit")?.or(most).unwrap_or(-1);
    options.assert_all_used()?;
    // A negative number of splits is no limit; n splits make n + 1 parts.
    let parts = usize::try_from(most).map_or(usize::MAX, |most| most.saturating_add(1));
    let mut found: Vec<&str> = match (some_text(separator.as_ref())?, from_right) {
        (Some(""), _) => return Err(refused("empty separator")),
        (Some(separator), false) => text.splitn(parts, separator).collect(),
        (Some(separator), true) => text.rsplitn(parts, separator).collect(),
        (None, from_right) => words(text, parts, from_right),
    };
    if from_right {
        found.reverse();
    }
    Ok(found.into_iter().map(Value::from).collect())
}

/// What stands between white space, at most `parts` parts, from the right in reverse order. The
/// last part keeps its white space.
fn words(text: &str, parts: usize, from_right: bool) -> Vec<&str> {
    let (mut found, mut rest) = (Vec::new(), text);
    loop {
        rest = strip(rest, None, !from_right, from_right);
        if rest.is_empty() {
            return found;
        }
        let cut = match (found.len() + 1 >= parts, from_right) {
            (true, _) => None,
            (false, false) => rest.find(is_space),
            (false, true) => rest.rfind(is_space),
        };
        let Some(cut) = cut else {
            found.push(rest);
            return found;
        };
        let space = rest[cut..].chars().next().map_or(1, char::len_utf8);
        if from_right {
            found.push(&rest[cut + space..]);
            rest = &rest[..cut];
        } else {
            found.push(&rest[..cut]);
            rest = &rest[cut + space..];
        }
    }
}

/// The lines of a text, with or without line ends.
fn lines(text: &str, keep: bool) -> Vec<&str> {
    let ends = |c: char| matches!(c, '\n' | '\r' | '\x0b' | '\x0c' | '\x1c'..='\x1e' | '\u{85}' | '\u{2028}' | '\u{2029}');
    let (mut found, mut rest) = (Vec::new(), text);
    while let Some(at) = rest.find(ends) {
        let end = at + if rest[at..].starts_with("\r\n") { 2 } else { rest[at..].chars().next().map_or(1, char::len_utf8) };
        found.push(&rest[..if keep { end } else { at }]);
        rest = &rest[end..];
    }
    if !rest.is_empty() {
        found.push(rest);
    }
    found
}

/// A letter behind no letter is upper case, all others lower case.
fn title(text: &str) -> String {
    let (mut out, mut after_letter) = (String::with_capacity(text.len()), false);
    for character in text.chars() {
        if after_letter {
            out.extend(character.to_lowercase());
        } else {
            out.extend(character.to_uppercase());
        }
        after_letter = character.is_alphabetic();
    }
    out
}
