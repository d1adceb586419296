//! One JSON value, parsed in place: texts without escapes, numbers as they are written.
//!
//! serde_json reads texts, numbers and words. Lists and objects are read here, because each value
//! needs its place in the text: `1.50` and `1e5` stay as they are written. serde_json's `RawValue`
//! gives places too, but scans a value again at each level of nesting.
//!
//! What is accepted is what Python's `json` accepts, except for lone surrogates, keys that occur
//! twice, and the words `NaN` and `Infinity`: these are errors. Knows no column.

use std::borrow::Cow;
use std::collections::HashSet;
use std::fmt;

use serde::Deserialize;
use serde::de::IgnoredAny;

/// The deepest nesting of lists and objects.
const MOST_NESTED: usize = 100;

/// Above this number of keys, equal ones are searched with a set.
const FEW_KEYS: usize = 16;

/// Numbers of Python's `json` that JSON has not.
const NO_NUMBERS: [&str; 3] = ["NaN", "Infinity", "-Infinity"];

/// A value and where it is written.
#[derive(Debug)]
pub(super) struct Item<'a> {
    pub(super) value: Value<'a>,
    /// The value as it is written.
    pub(super) raw: &'a str,
}

/// A JSON value.
#[derive(Debug)]
pub(super) enum Value<'a> {
    Null,
    Boolean(bool),
    /// A number as it is written.
    Number(&'a str),
    Text(Cow<'a, str>),
    List(Vec<Item<'a>>),
    /// The members in their order, no key twice.
    Object(Vec<(Cow<'a, str>, Item<'a>)>),
}

impl Value<'_> {
    /// The kind of value, for an error.
    pub(super) fn kind(&self) -> &'static str {
        match self {
            Value::Null => "null",
            Value::Boolean(_) => "a Boolean",
            Value::Number(_) => "a number",
            Value::Text(_) => "text",
            Value::List(_) => "a list",
            Value::Object(_) => "an object",
        }
    }
}

/// Why a text is no JSON value.
#[derive(Debug)]
pub(super) enum Fault {
    /// The problem, with its byte from 1.
    Syntax(String),
    /// A word for a number that JSON has not, and its byte from 1.
    NoNumber(&'static str, usize),
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Syntax(problem) => f.write_str(problem),
            Self::NoNumber(word, byte) => write!(f, "expected JSON, found {word} at byte {byte}: {word} is not JSON; write null"),
        }
    }
}

/// Parses one value with nothing behind it.
pub(super) fn parse(bytes: &[u8]) -> Result<Item<'_>, Fault> {
    let text = std::str::from_utf8(bytes).map_err(|error| {
        Fault::Syntax(format!("expected text in UTF-8, found an invalid character at byte {}", error.valid_up_to() + 1))
    })?;
    let mut parser = Parser { text, at: 0, depth: 0 };
    let item = parser.item()?;
    parser.space();
    if parser.at < text.len() { Err(parser.expected("nothing behind the value")) } else { Ok(item) }
}

/// As [`parse`], for an object. The error is the problem.
pub(super) fn parse_object(bytes: &[u8]) -> Result<Item<'_>, String> {
    let item = parse(bytes).map_err(|fault| match fault {
        Fault::Syntax(problem) => format!("expected a JSON object, found none: {problem}"),
        Fault::NoNumber(..) => fault.to_string(),
    })?;
    match item.value {
        Value::Object(_) => Ok(item),
        other => Err(format!("expected a JSON object, found {}", other.kind())),
    }
}

struct Parser<'a> {
    text: &'a str,
    at: usize,
    depth: usize,
}

impl<'a> Parser<'a> {
    fn byte(&self) -> Option<u8> {
        self.text.as_bytes().get(self.at).copied()
    }

    fn space(&mut self) {
        while matches!(self.byte(), Some(b' ' | b'\t' | b'\n' | b'\r')) {
            self.at += 1;
        }
    }

    fn rest(&self) -> &'a str {
        self.text.get(self.at..).unwrap_or_default()
    }

    fn expected(&self, what: &str) -> Fault {
        if let Some(word) = NO_NUMBERS.into_iter().find(|word| self.rest().starts_with(word)) {
            return Fault::NoNumber(word, self.at + 1);
        }
        let found = self.rest().chars().next().map_or("the end".to_string(), |found| format!("{found:?}"));
        Fault::Syntax(format!("expected {what} at byte {}, found {found}", self.at + 1))
    }

    fn take(&mut self, byte: u8) -> bool {
        let taken = self.byte() == Some(byte);
        self.at += usize::from(taken);
        taken
    }

    fn item(&mut self) -> Result<Item<'a>, Fault> {
        self.space();
        let start = self.at;
        let value = match self.byte() {
            Some(b'"') => Value::Text(self.string()?),
            Some(b'{') => self.nested(Self::object)?,
            Some(b'[') => self.nested(Self::list)?,
            Some(b'-') if self.rest().starts_with("-I") => return Err(self.expected("a value")),
            Some(b'-' | b'0'..=b'9') => {
                self.scalar::<IgnoredAny>("a number")?;
                Value::Number(&self.text[start..self.at])
            }
            Some(b't' | b'f') => Value::Boolean(self.scalar("a value")?),
            Some(b'n') => self.scalar::<()>("a value").map(|()| Value::Null)?,
            _ => return Err(self.expected("a value")),
        };
        Ok(Item { value, raw: &self.text[start..self.at] })
    }

    fn nested(&mut self, content: fn(&mut Self) -> Result<Value<'a>, Fault>) -> Result<Value<'a>, Fault> {
        if self.depth == MOST_NESTED {
            let problem = format!("expected lists and objects at most {MOST_NESTED} deep, found deeper ones at byte {}", self.at + 1);
            return Err(Fault::Syntax(problem));
        }
        self.depth += 1;
        self.at += 1;
        let value = content(self)?;
        self.depth -= 1;
        Ok(value)
    }

    fn list(&mut self) -> Result<Value<'a>, Fault> {
        let mut items = Vec::new();
        self.space();
        if self.take(b']') {
            return Ok(Value::List(items));
        }
        loop {
            items.push(self.item()?);
            self.space();
            if self.take(b']') {
                return Ok(Value::List(items));
            }
            if !self.take(b',') {
                return Err(self.expected("a comma or the list's end"));
            }
        }
    }

    fn object(&mut self) -> Result<Value<'a>, Fault> {
        let mut members: Vec<(Cow<'a, str>, Item<'a>)> = Vec::new();
        self.space();
        if self.take(b'}') {
            return Ok(Value::Object(members));
        }
        loop {
            self.space();
            if self.byte() != Some(b'"') {
                return Err(self.expected("a key"));
            }
            let key = self.string()?;
            self.space();
            if !self.take(b':') {
                return Err(self.expected("a colon"));
            }
            let item = self.item()?;
            members.push((key, item));
            self.space();
            if self.take(b'}') {
                break;
            }
            if !self.take(b',') {
                return Err(self.expected("a comma or the object's end"));
            }
        }
        match twice(&members) {
            Some(key) => Err(Fault::Syntax(format!("expected different keys in an object, found {key:?} twice before byte {}", self.at))),
            None => Ok(Value::Object(members)),
        }
    }

    /// A text; the next byte is its opening quote.
    fn string(&mut self) -> Result<Cow<'a, str>, Fault> {
        #[derive(Deserialize)]
        struct Text<'t>(#[serde(borrow)] Cow<'t, str>);
        Ok(self.scalar::<Text<'a>>("a text")?.0)
    }

    /// A value that is neither a list nor an object, by serde_json.
    fn scalar<T: Deserialize<'a>>(&mut self, what: &str) -> Result<T, Fault> {
        let mut values = serde_json::Deserializer::from_str(self.rest()).into_iter::<T>();
        match values.next() {
            Some(Ok(value)) => {
                self.at += values.byte_offset();
                Ok(value)
            }
            Some(Err(error)) => Err(Fault::Syntax(self.problem(what, &error))),
            None => Err(self.expected(what)),
        }
    }

    /// The problem of a value that begins here.
    fn problem(&self, what: &str, error: &serde_json::Error) -> String {
        // A value has no line break, so the error's column is the number of bytes up to it.
        let read = &self.rest()[..self.rest().floor_char_boundary(error.column())];
        let text = error.to_string();
        let text = text.split(" at line ").next().unwrap_or_default();
        if text.contains("hex escape")
            && let Some((at, escape)) = lone_surrogate(read)
        {
            return format!("expected a pair of surrogates, found {escape} alone at byte {}; it is no character", self.at + at + 1);
        }
        format!("expected {what} at byte {}, found none: {text} at byte {}", self.at + 1, self.at + read.len())
    }
}

/// The lone surrogate behind which serde_json stopped, and its place.
fn lone_surrogate(read: &str) -> Option<(usize, &str)> {
    let unit_at = |at: usize| {
        let is_escaped = read.get(..at)?.bytes().rev().take_while(|byte| *byte == b'\\').count() % 2 == 1;
        let escape = read.get(at..at + 6).filter(|escape| escape.starts_with("\\u") && !is_escaped)?;
        Some((at, escape, u16::from_str_radix(escape.get(2..)?, 16).ok()?))
    };
    let (at, escape, unit) = unit_at(read.rfind("\\u")?)?;
    match at.checked_sub(6).and_then(unit_at) {
        // The first half of a pair without a second half.
        Some((at, escape, first)) if (0xd800..0xdc00).contains(&first) && !(0xdc00..0xe000).contains(&unit) => Some((at, escape)),
        _ => (0xd800..0xe000).contains(&unit).then_some((at, escape)),
    }
}

/// A key that occurs twice.
fn twice<'m>(members: &'m [(Cow<str>, Item)]) -> Option<&'m str> {
    if members.len() <= FEW_KEYS {
        let earlier = |index: usize| members[..index].iter().any(|(key, _)| *key == members[index].0);
        return (1..members.len()).find(|index| earlier(*index)).map(|index| members[index].0.as_ref());
    }
    let mut seen = HashSet::with_capacity(members.len());
    members.iter().map(|(key, _)| key.as_ref()).find(|key| !seen.insert(*key))
}

#[cfg(test)]
mod tests {
    use super::{Value, parse};

    fn text(written: &str) -> Result<String, String> {
        match parse(written.as_bytes()).map_err(|fault| fault.to_string())?.value {
            Value::Text(text) => Ok(text.into_owned()),
            other => Err(format!("no text: {other:?}")),
        }
    }

    #[test]
    fn every_code_point_is_read_from_its_escapes() {
        for character in (0..=0x10_ffff).filter_map(char::from_u32) {
            let escapes: String = character.encode_utf16(&mut [0; 2]).iter().map(|unit| format!("\\u{unit:04X}")).collect();
            assert_eq!(text(&format!("\"a{escapes}b\"")).unwrap(), format!("a{character}b"));
        }
    }

    #[test]
    fn lone_surrogates_are_refused() {
        for unit in 0xd800..0xe000 {
            for behind in ["", "x", "\\u0041", "\\ud800", "\\n"] {
                let written = format!("\"{:}\\u{unit:04x}{behind}\"", "x");
                assert!(text(&written).unwrap_err().contains("expected a pair of surrogates"), "{written}");
            }
        }
    }
}
