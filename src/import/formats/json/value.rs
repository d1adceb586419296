//! One JSON value, parsed in place: texts without escapes, numbers as they are written.
//!
//! What is accepted is what Python's `json` accepts, except for lone surrogates, keys that occur
//! twice, and the words `NaN` and `Infinity`: these are errors. Knows no column.

use std::borrow::Cow;
use std::collections::HashSet;

/// The deepest nesting of lists and objects.
const MOST_NESTED: usize = 100;

/// Above this number of keys, equal ones are searched with a set.
const FEW_KEYS: usize = 16;

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

/// Parses one value with nothing behind it. The error is the problem with its byte, from 1.
pub(super) fn parse(bytes: &[u8]) -> Result<Item<'_>, String> {
    let text = std::str::from_utf8(bytes)
        .map_err(|error| format!("expected text in UTF-8, found an invalid character at byte {}", error.valid_up_to() + 1))?;
    let mut parser = Parser { text, at: 0, depth: 0 };
    let item = parser.item()?;
    parser.space();
    if parser.at < text.len() { Err(parser.expected("nothing behind the value")) } else { Ok(item) }
}

/// As [`parse`], for an object.
pub(super) fn parse_object(bytes: &[u8]) -> Result<Item<'_>, String> {
    let item = parse(bytes).map_err(|problem| format!("expected a JSON object, found none: {problem}"))?;
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

    fn expected(&self, what: &str) -> String {
        let found = self.text.get(self.at..).and_then(|rest| rest.chars().next());
        let found = found.map_or("the end".to_string(), |found| format!("{found:?}"));
        format!("expected {what} at byte {}, found {found}", self.at + 1)
    }

    fn take(&mut self, byte: u8) -> bool {
        let taken = self.byte() == Some(byte);
        self.at += usize::from(taken);
        taken
    }

    fn item(&mut self) -> Result<Item<'a>, String> {
        self.space();
        let start = self.at;
        let value = match self.byte() {
            Some(b'"') => Value::Text(self.string()?),
            Some(b'{') => self.nested(Self::object)?,
            Some(b'[') => self.nested(Self::list)?,
            Some(b'-' | b'0'..=b'9') => self.number()?,
            _ => self.word()?,
        };
        Ok(Item { value, raw: &self.text[start..self.at] })
    }

    fn nested(&mut self, content: fn(&mut Self) -> Result<Value<'a>, String>) -> Result<Value<'a>, String> {
        if self.depth == MOST_NESTED {
            return Err(format!("expected lists and objects at most {MOST_NESTED} deep, found deeper ones at byte {}", self.at + 1));
        }
        self.depth += 1;
        self.at += 1;
        let value = content(self)?;
        self.depth -= 1;
        Ok(value)
    }

    fn list(&mut self) -> Result<Value<'a>, String> {
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

    fn object(&mut self) -> Result<Value<'a>, String> {
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
            Some(key) => Err(format!("expected different keys in an object, found {key:?} twice before byte {}", self.at)),
            None => Ok(Value::Object(members)),
        }
    }

    fn word(&mut self) -> Result<Value<'a>, String> {
        let rest = &self.text[self.at..];
        for (word, value) in [("null", Value::Null), ("true", Value::Boolean(true)), ("false", Value::Boolean(false))] {
            if rest.starts_with(word) {
                self.at += word.len();
                return Ok(value);
            }
        }
        Err(self.expected("a value"))
    }

    fn digits(&mut self) -> Result<(), String> {
        let start = self.at;
        while matches!(self.byte(), Some(b'0'..=b'9')) {
            self.at += 1;
        }
        if self.at == start { Err(self.expected("a digit")) } else { Ok(()) }
    }

    fn number(&mut self) -> Result<Value<'a>, String> {
        let start = self.at;
        self.take(b'-');
        if !self.take(b'0') {
            self.digits()?;
        }
        if self.take(b'.') {
            self.digits()?;
        }
        if self.take(b'e') || self.take(b'E') {
            if !self.take(b'-') {
                self.take(b'+');
            }
            self.digits()?;
        }
        Ok(Value::Number(&self.text[start..self.at]))
    }

    /// A text; the next byte is its opening quote.
    fn string(&mut self) -> Result<Cow<'a, str>, String> {
        self.at += 1;
        let mut text = Cow::Borrowed("");
        loop {
            let start = self.at;
            while self.byte().is_some_and(|byte| byte >= 0x20 && byte != b'"' && byte != b'\\') {
                self.at += 1;
            }
            let piece = &self.text[start..self.at];
            if text.is_empty() {
                text = Cow::Borrowed(piece);
            } else if !piece.is_empty() {
                text.to_mut().push_str(piece);
            }
            if self.take(b'"') {
                return Ok(text);
            }
            if !self.take(b'\\') {
                return Err(self.expected("a character of a text or its closing quote"));
            }
            text.to_mut().push(self.escaped()?);
        }
    }

    /// The character of an escape, behind its backslash.
    fn escaped(&mut self) -> Result<char, String> {
        let escaped = match self.byte() {
            Some(byte @ (b'"' | b'\\' | b'/')) => char::from(byte),
            Some(b'b') => '\u{8}',
            Some(b'f') => '\u{c}',
            Some(b'n') => '\n',
            Some(b'r') => '\r',
            Some(b't') => '\t',
            Some(b'u') => return self.code_point(),
            _ => return Err(self.expected("one of \" \\ / b f n r t u behind a backslash")),
        };
        self.at += 1;
        Ok(escaped)
    }

    /// The code point of a `u` and four digits, or of two such escapes: a pair of surrogates.
    fn code_point(&mut self) -> Result<char, String> {
        let place = self.at;
        let unit = self.unit()?;
        let mut units = vec![unit];
        if (0xd800..0xdc00).contains(&unit) && self.text[self.at..].starts_with("\\u") {
            let behind = self.at;
            self.at += 1;
            units.push(self.unit()?);
            if !(0xdc00..0xe000).contains(&units[1]) {
                self.at = behind;
                units.pop();
            }
        }
        let lone = || format!("expected a pair of surrogates, found \\u{unit:04x} alone at byte {place}; it is no character");
        char::decode_utf16(units).next().and_then(Result::ok).ok_or_else(lone)
    }

    /// The number of a `u` and four hexadecimal digits.
    fn unit(&mut self) -> Result<u16, String> {
        let digits = self.text.as_bytes().get(self.at + 1..self.at + 5).filter(|digits| digits.iter().all(u8::is_ascii_hexdigit));
        let unit = digits.and_then(|digits| std::str::from_utf8(digits).ok()).and_then(|digits| u16::from_str_radix(digits, 16).ok());
        let unit = unit.ok_or_else(|| self.expected("four hexadecimal digits behind"))?;
        self.at += 5;
        Ok(unit)
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
        match parse(written.as_bytes())?.value {
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
