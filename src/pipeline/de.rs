//! Deserializes the tree into types. Every error has a position and suggests the nearest word.
//!
//! Knows serde, not the types.

use std::fmt;

use serde::de::{
    DeserializeSeed, Deserializer, EnumAccess, Error, Expected, IntoDeserializer, MapAccess, SeqAccess, Unexpected, VariantAccess, Visitor,
};
use serde::forward_to_deserialize_any;

use super::error::Diagnostic;
use super::position::AT;
use super::tree::{Tree, Value};
use crate::did_you_mean::{one_of, suggestion};

/// Keys of earlier versions, each with its present name. A key with several names means the one
/// allowed at its position in the file.
const RENAMED_KEYS: [(&str, &str); 2] = [("shape", "dataset_format"), ("shape", "protocol")];

impl std::error::Error for Diagnostic {}

impl fmt::Display for Diagnostic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl Error for Diagnostic {
    fn custom<T: fmt::Display>(message: T) -> Self {
        Self::nowhere(message.to_string())
    }
    fn invalid_type(found: Unexpected<'_>, expected: &dyn Expected) -> Self {
        let expected = match expected.to_string().as_str() {
            "u32" | "u64" | "usize" => "a whole number".to_string(),
            "f64" => "a number".to_string(),
            "a string" => "text".to_string(),
            "a boolean" => "true or false".to_string(),
            "a sequence" => "a list".to_string(),
            rust if rust.starts_with("struct ") || rust == "a map" => "a mapping".to_string(),
            other => other.to_string(),
        };
        let found = match found {
            Unexpected::Bool(value) => value.to_string(),
            Unexpected::Signed(value) => value.to_string(),
            Unexpected::Unsigned(value) => value.to_string(),
            Unexpected::Float(value) => format!("{value:?}"),
            Unexpected::Str(value) => format!("\"{value}\""),
            Unexpected::Unit | Unexpected::Option => "nothing".to_string(),
            Unexpected::Seq => "a list".to_string(),
            Unexpected::Map => "a mapping".to_string(),
            other => other.to_string(),
        };
        let hint = match (expected.as_str(), found.trim_matches('"').to_ascii_lowercase().as_str()) {
            ("true or false", "yes" | "y" | "on") => "; write true",
            ("true or false", "no" | "n" | "off") => "; write false",
            _ => "",
        };
        Self::nowhere(format!("expected {expected}, found {found}{hint}"))
    }
    fn invalid_value(found: Unexpected<'_>, expected: &dyn Expected) -> Self {
        Self::invalid_type(found, expected)
    }
    fn unknown_variant(variant: &str, expected: &'static [&'static str]) -> Self {
        Self::nowhere(format!("unknown value \"{variant}\"{}", suggestion(variant, expected)))
    }
    fn unknown_field(field: &str, expected: &'static [&'static str]) -> Self {
        let renamed = RENAMED_KEYS.iter().find(|(old, new)| *old == field && expected.contains(new));
        let hint = renamed.map_or_else(|| suggestion(field, expected), |(_, new)| format!("; did you mean \"{new}\"?"));
        Self::nowhere(format!("unknown key \"{field}\"{hint}"))
    }
    fn missing_field(field: &'static str) -> Self {
        Self::nowhere(format!("the key \"{field}\" is missing"))
    }
}

/// The methods for types of numbers.
macro_rules! numbers {
    ($($method:ident)*) => {
        $(fn $method<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Diagnostic> {
            self.visit_number(visitor)
        })*
    };
}

impl<'de> Deserializer<'de> for &Tree {
    type Error = Diagnostic;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Diagnostic> {
        match &self.value {
            Value::Null => visitor.visit_unit(),
            Value::Boolean(value) => visitor.visit_bool(*value),
            Value::Integer(value) => visit_integer(*value, visitor),
            Value::Number(value) => visitor.visit_f64(*value),
            Value::Text(text) | Value::Padded(text) => visitor.visit_str(text),
            Value::Tagged(tag) => Err(Diagnostic::internal(format!("tree: the tag {tag} was not refused"))),
            Value::List(items) => visitor.visit_seq(Items(items)),
            Value::Mapping(entries) => visitor.visit_map(Entries { rest: entries, value: None }),
        }
        .map_err(|diagnostic| diagnostic.or_at(self.span))
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Diagnostic> {
        match self.value {
            Value::Null => visitor.visit_none(),
            _ => visitor.visit_some(self),
        }
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(self, name: &'static str, visitor: V) -> Result<V::Value, Diagnostic> {
        if name == AT { visitor.visit_seq(Positioned { tree: self, part: 0 }) } else { visitor.visit_newtype_struct(self) }
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _name: &'static str,
        variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Diagnostic> {
        match &self.value {
            Value::Text(_) | Value::Padded(_) => visitor.visit_enum(Choice { name: self, content: None }),
            Value::Mapping(entries) if entries.len() == 1 => match entries.as_slice() {
                [(name, content)] => visitor.visit_enum(Choice { name, content: Some(content) }),
                _ => Err(Diagnostic::nowhere("expected one key")),
            },
            Value::Mapping(_) => Err(Diagnostic::nowhere(format!("expected one key: {}", one_of(variants)))),
            _ => Err(Diagnostic::nowhere(format!("expected {}", one_of(variants)))),
        }
        .map_err(|diagnostic| diagnostic.or_at(self.span))
    }

    numbers! { deserialize_i8 deserialize_i16 deserialize_i32 deserialize_i64 deserialize_i128 }
    numbers! { deserialize_u8 deserialize_u16 deserialize_u32 deserialize_u64 deserialize_u128 deserialize_f32 deserialize_f64 }

    forward_to_deserialize_any! {
        bool char str string bytes byte_buf unit unit_struct seq tuple tuple_struct map struct identifier ignored_any
    }
}

impl Tree {
    /// The value where a number is wanted.
    fn visit_number<'de, V: Visitor<'de>>(&self, visitor: V) -> Result<V::Value, Diagnostic> {
        let Value::Padded(text) = &self.value else { return self.deserialize_any(visitor) };
        let integer = text.parse().map_err(|_| Diagnostic::nowhere(format!("expected a whole number of 64 bits, found {text}")));
        integer.and_then(|integer| visit_integer(integer, visitor)).map_err(|diagnostic| diagnostic.or_at(self.span))
    }
}

fn visit_integer<'de, V: Visitor<'de>>(value: i128, visitor: V) -> Result<V::Value, Diagnostic> {
    match (u64::try_from(value), i64::try_from(value)) {
        (Ok(value), _) => visitor.visit_u64(value),
        (_, Ok(value)) => visitor.visit_i64(value),
        _ => Err(Diagnostic::nowhere(format!("expected a whole number of 64 bits, found {value}"))),
    }
}

struct Items<'a>(&'a [Tree]);

impl<'de> SeqAccess<'de> for Items<'_> {
    type Error = Diagnostic;

    fn next_element_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<Option<T::Value>, Diagnostic> {
        let Some((first, rest)) = self.0.split_first() else { return Ok(None) };
        self.0 = rest;
        seed.deserialize(first).map(Some).map_err(|diagnostic| diagnostic.or_at(first.span))
    }
}

struct Entries<'a> {
    rest: &'a [(Tree, Tree)],
    value: Option<&'a Tree>,
}

impl<'de> MapAccess<'de> for Entries<'_> {
    type Error = Diagnostic;

    fn next_key_seed<K: DeserializeSeed<'de>>(&mut self, seed: K) -> Result<Option<K::Value>, Diagnostic> {
        let Some(((key, value), rest)) = self.rest.split_first() else { return Ok(None) };
        (self.rest, self.value) = (rest, Some(value));
        seed.deserialize(key).map(Some).map_err(|diagnostic| diagnostic.or_at(key.span))
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value, Diagnostic> {
        let value = self.value.take().ok_or_else(|| Diagnostic::nowhere("expected a key before the value"))?;
        seed.deserialize(value).map_err(|diagnostic| diagnostic.or_at(value.span))
    }
}

/// A value as the four parts of an [`super::position::At`]: line, column, width, value.
struct Positioned<'a> {
    tree: &'a Tree,
    part: u8,
}

impl<'de> SeqAccess<'de> for Positioned<'_> {
    type Error = Diagnostic;

    fn next_element_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<Option<T::Value>, Diagnostic> {
        self.part += 1;
        let number = match self.part {
            1 => self.tree.span.line,
            2 => self.tree.span.column,
            3 => self.tree.span.width,
            _ => return seed.deserialize(self.tree).map(Some).map_err(|diagnostic| diagnostic.or_at(self.tree.span)),
        };
        seed.deserialize(number.into_deserializer()).map(Some)
    }
}

/// One of several kinds: by name alone, or by name with content.
struct Choice<'a> {
    name: &'a Tree,
    content: Option<&'a Tree>,
}

impl<'de> EnumAccess<'de> for Choice<'_> {
    type Error = Diagnostic;
    type Variant = Self;

    fn variant_seed<V: DeserializeSeed<'de>>(self, seed: V) -> Result<(V::Value, Self), Diagnostic> {
        let variant = seed.deserialize(self.name).map_err(|diagnostic| diagnostic.or_at(self.name.span))?;
        Ok((variant, self))
    }
}

impl<'de> VariantAccess<'de> for Choice<'_> {
    type Error = Diagnostic;

    fn unit_variant(self) -> Result<(), Diagnostic> {
        match self.content {
            None => Ok(()),
            Some(content) => Err(Diagnostic::at(content.span, "expected a name alone, found settings for it")),
        }
    }
    fn newtype_variant_seed<T: DeserializeSeed<'de>>(self, seed: T) -> Result<T::Value, Diagnostic> {
        // A kind without settings has empty content and all its defaults.
        let empty = Tree { value: Value::Mapping(Vec::new()), span: self.name.span };
        seed.deserialize(self.content.unwrap_or(&empty))
    }
    fn tuple_variant<V: Visitor<'de>>(self, _length: usize, visitor: V) -> Result<V::Value, Diagnostic> {
        self.newtype_variant_seed(Whole(visitor))
    }
    fn struct_variant<V: Visitor<'de>>(self, _fields: &'static [&'static str], visitor: V) -> Result<V::Value, Diagnostic> {
        self.newtype_variant_seed(Whole(visitor))
    }
}

/// A visitor for all of a value.
struct Whole<V>(V);

impl<'de, V: Visitor<'de>> DeserializeSeed<'de> for Whole<V> {
    type Value = V::Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<V::Value, D::Error> {
        deserializer.deserialize_any(self.0)
    }
}
