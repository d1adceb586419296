//! The pipeline file as a tree of values, each with its position.
//!
//! Knows YAML, not the meaning of keys.

use std::fmt;

use serde::Deserialize;
use serde::de::{Deserializer, Error, MapAccess, SeqAccess, Visitor};
use serde_saphyr::{Location, MessageFormatter, Spanned, Tagged, UserMessageFormatter};

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
    /// A whole number with further zeros in front, such as `017`: its digits where a text is
    /// wanted, the number where a number is.
    Padded(String),
    List(Vec<Tree>),
    /// Keys are texts.
    Mapping(Vec<(Tree, Tree)>),
    /// A value with a tag of no meaning here. [`Tree::read`] refuses it.
    Tagged(String),
}

impl Value {
    /// Whether it is a value where a number is wanted.
    pub(super) fn is_number(&self) -> bool {
        matches!(self, Self::Integer(_) | Self::Number(_) | Self::Padded(_))
    }
}

/// The namespace of YAML's own tags, written `!!str`.
const OWN_TAGS: &str = "tag:yaml.org,2002:";

/// The tags of YAML's core schema. Others would change the meaning of a value.
const KNOWN_TAGS: [&str; 7] = ["bool", "float", "int", "map", "null", "seq", "str"];

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
            leading_zero_numbers_as_strings: true,
            with_snippet: false,
        };
        let tree: Self = serde_saphyr::from_str_with_options(text, options).map_err(|error| {
            let message = UserMessageFormatter.format_message(error.without_snippet()).into_owned();
            match error.location() {
                Some(location) => Diagnostic::at(span(location), message),
                None => Diagnostic::nowhere(message),
            }
        })?;
        tree.refuse_tags()?;
        Ok(tree)
    }

    /// The text, if it may be one.
    pub(super) fn text(&self) -> Option<&str> {
        match &self.value {
            Value::Text(text) | Value::Padded(text) => Some(text),
            _ => None,
        }
    }

    /// Checks for tags without a meaning here. The depth of a tree is limited.
    fn refuse_tags(&self) -> Result<(), Diagnostic> {
        match &self.value {
            Value::Tagged(tag) => {
                let tag = tag.strip_prefix(OWN_TAGS).map_or_else(|| tag.clone(), |name| format!("!!{name}"));
                Err(Diagnostic::at(self.span, format!("unknown tag \"{tag}\"; leave it out, or quote it if it is text")))
            }
            Value::List(items) => items.iter().try_for_each(Self::refuse_tags),
            Value::Mapping(entries) => entries.iter().try_for_each(|(key, value)| key.refuse_tags().and_then(|()| value.refuse_tags())),
            _ => Ok(()),
        }
    }

    /// A value as the parser gives it.
    fn new(value: Value, tag: Option<&str>, referenced: Location, defined: Location) -> Self {
        let is_plain = |text: &str| tag.is_none() && span(defined).width == text.chars().count();
        let value = match (tag, value) {
            (Some(tag), _) if !is_known(tag) => Value::Tagged(tag.to_string()),
            (_, Value::Text(text)) if is_padded(&text) && is_plain(&text) => Value::Padded(text),
            (_, value) => value,
        };
        let mut span = span(referenced);
        if matches!(value, Value::List(_) | Value::Mapping(_)) {
            span.width = 1;
        }
        Self { value, span }
    }
}

fn is_known(tag: &str) -> bool {
    // `!` alone means a text.
    tag == "!" || tag.strip_prefix(OWN_TAGS).is_some_and(|name| KNOWN_TAGS.contains(&name))
}

/// Whether it is a whole number with a zero in front.
fn is_padded(text: &str) -> bool {
    let digits = text.strip_prefix(['+', '-']).unwrap_or(text);
    digits.len() > 1 && digits.starts_with('0') && digits.bytes().all(|byte| byte.is_ascii_digit())
}

fn span(location: Location) -> Span {
    let number = |n: u64| usize::try_from(n).unwrap_or(usize::MAX);
    Span { line: number(location.line()), column: number(location.column()), width: number(location.span().len()) }
}

impl<'de> Deserialize<'de> for Tree {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let Spanned { value: Tagged(value, tag), referenced, defined } = Spanned::<Tagged<Value>>::deserialize(deserializer)?;
        Ok(Self::new(value, tag.as_deref(), referenced, defined))
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
        while let Some(Spanned { value: Tagged(key, tag), referenced, defined }) = entries.next_key::<Spanned<Tagged<String>>>()? {
            let key = Tree::new(Value::Text(key), tag.as_deref(), referenced, defined);
            mapping.push((key, entries.next_value()?));
        }
        Ok(Value::Mapping(mapping))
    }
}
