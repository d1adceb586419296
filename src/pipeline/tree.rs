//! The pipeline file as a tree of values, each with its position.
//!
//! Knows YAML, not the meaning of keys.

use std::fmt;

use serde::Deserialize;
use serde::de::{Deserializer, Error, MapAccess, SeqAccess, Visitor};
use serde_saphyr::{Location, MessageFormatter, Spanned, UserMessageFormatter};

use super::error::Diagnostic;
use super::position::Span;

/// A value and its position.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Tree {
    pub(super) value: Value,
    pub(super) span: Span,
}

/// A YAML value.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Value {
    Null,
    Boolean(bool),
    Integer(i128),
    Number(f64),
    Text(String),
    List(Vec<Tree>),
    /// Keys are [`Value::Text`].
    Mapping(Vec<(Tree, Tree)>),
}

/// The largest pipeline file, in bytes; far larger than any written by a person.
pub(super) const LARGEST_FILE_BYTES: usize = 1 << 20;

impl Tree {
    /// Parses a text of one YAML document. Limits on nesting, aliases and size protect memory and
    /// stack.
    pub(super) fn read(text: &str) -> Result<Self, Diagnostic> {
        if text.len() > LARGEST_FILE_BYTES {
            return Err(Diagnostic::nowhere(format!("expected at most {LARGEST_FILE_BYTES} bytes, found {}", text.len())));
        }
        let options = serde_saphyr::options! {
            budget: serde_saphyr::budget! { max_depth: 32, max_events: 100_000, max_nodes: 50_000, max_aliases: 100 },
            alias_limits: serde_saphyr::alias_limits! { max_total_replayed_events: 10_000 },
            strict_booleans: true,
            with_snippet: false,
        };
        serde_saphyr::from_str_with_options(text, options).map_err(|error| {
            let message = UserMessageFormatter.format_message(error.without_snippet()).into_owned();
            match error.location() {
                Some(location) => Diagnostic::at(span(location), message),
                None => Diagnostic::nowhere(message),
            }
        })
    }

    /// The text, if it is one.
    pub(super) fn text(&self) -> Option<&str> {
        match &self.value {
            Value::Text(text) => Some(text),
            _ => None,
        }
    }
}

fn span(location: Location) -> Span {
    let number = |n: u64| usize::try_from(n).unwrap_or(usize::MAX);
    Span { line: number(location.line()), column: number(location.column()), width: number(location.span().len()) }
}

impl<'de> Deserialize<'de> for Tree {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let Spanned { value, referenced, .. } = Spanned::<Value>::deserialize(deserializer)?;
        let mut span = span(referenced);
        if matches!(value, Value::List(_) | Value::Mapping(_)) {
            span.width = 1;
        }
        Ok(Self { value, span })
    }
}

impl<'de> Deserialize<'de> for Value {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(AnyValue)
    }
}

struct AnyValue;

impl<'de> Visitor<'de> for AnyValue {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value")
    }
    fn visit_unit<E: Error>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }
    fn visit_none<E: Error>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }
    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        Value::deserialize(deserializer)
    }
    fn visit_bool<E: Error>(self, value: bool) -> Result<Value, E> {
        Ok(Value::Boolean(value))
    }
    fn visit_i64<E: Error>(self, value: i64) -> Result<Value, E> {
        Ok(Value::Integer(value.into()))
    }
    fn visit_u64<E: Error>(self, value: u64) -> Result<Value, E> {
        Ok(Value::Integer(value.into()))
    }
    fn visit_i128<E: Error>(self, value: i128) -> Result<Value, E> {
        Ok(Value::Integer(value))
    }
    fn visit_f64<E: Error>(self, value: f64) -> Result<Value, E> {
        Ok(Value::Number(value))
    }
    fn visit_str<E: Error>(self, value: &str) -> Result<Value, E> {
        Ok(Value::Text(value.to_string()))
    }
    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Value, A::Error> {
        let mut list = Vec::new();
        while let Some(item) = items.next_element()? {
            list.push(item);
        }
        Ok(Value::List(list))
    }
    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Value, A::Error> {
        let mut mapping = Vec::new();
        while let Some(Spanned { value: key, referenced, .. }) = entries.next_key::<Spanned<String>>()? {
            let key = Tree { value: Value::Text(key), span: span(referenced) };
            mapping.push((key, entries.next_value()?));
        }
        Ok(Value::Mapping(mapping))
    }
}
