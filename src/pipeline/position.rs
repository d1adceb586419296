//! Positions in the pipeline file.
//!
//! Knows lines and columns, not values.

use std::borrow::{Borrow, Cow};
use std::fmt;
use std::hash::{Hash, Hasher};

use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::de::{Deserializer, Error, SeqAccess, Visitor};
use serde::{Deserialize, Serialize, Serializer};

/// A part of one line of the pipeline file. Counts characters from 1; line 0 is an unknown
/// position.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Span {
    /// The line, from 1.
    pub line: usize,
    /// The column of the first character, from 1.
    pub column: usize,
    /// The number of characters; at least 1 is underlined.
    pub width: usize,
}

/// A value and its position. Compares, serializes and describes itself as the value alone.
#[derive(Clone, Debug, Default)]
pub struct At<T> {
    /// The value.
    pub value: T,
    /// The position.
    pub span: Span,
}

/// The name of an input or a node, as written in another node: `prompts`, or `pool[t-1]` for the
/// previous iteration.
pub type Name = At<String>;

/// The name of the newtype in requests of [`At`] for positions.
pub(super) const AT: &str = "@at";

impl<T: PartialEq> PartialEq for At<T> {
    fn eq(&self, other: &Self) -> bool {
        self.value == other.value
    }
}

impl<T: Eq> Eq for At<T> {}

impl<T: Hash> Hash for At<T> {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.value.hash(state);
    }
}

impl Borrow<str> for Name {
    fn borrow(&self) -> &str {
        &self.value
    }
}

impl<T: Serialize> Serialize for At<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.value.serialize(serializer)
    }
}

impl<T: JsonSchema> JsonSchema for At<T> {
    fn inline_schema() -> bool {
        T::inline_schema()
    }
    fn schema_name() -> Cow<'static, str> {
        T::schema_name()
    }
    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        T::json_schema(generator)
    }
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for At<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Parts<T>(std::marker::PhantomData<T>);
        impl<'de, T: Deserialize<'de>> Visitor<'de> for Parts<T> {
            type Value = At<T>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a value with its position")
            }
            fn visit_seq<A: SeqAccess<'de>>(self, mut parts: A) -> Result<At<T>, A::Error> {
                let mut number = || parts.next_element::<usize>()?.ok_or_else(|| A::Error::invalid_length(0, &"a position"));
                let span = Span { line: number()?, column: number()?, width: number()? };
                let value = parts.next_element()?.ok_or_else(|| A::Error::invalid_length(3, &"a value"))?;
                Ok(At { value, span })
            }
            fn visit_newtype_struct<D: Deserializer<'de>>(self, deserializer: D) -> Result<At<T>, D::Error> {
                Ok(At { value: T::deserialize(deserializer)?, span: Span::default() })
            }
        }
        deserializer.deserialize_newtype_struct(AT, Parts(std::marker::PhantomData))
    }
}
