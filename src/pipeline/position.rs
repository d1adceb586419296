//! Where in the pipeline file something was written.
//!
//! Knows lines and columns, not what stands there.

use std::borrow::{Borrow, Cow};
use std::fmt;
use std::hash::{Hash, Hasher};

use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::de::{Deserializer, Error, SeqAccess, Visitor};
use serde::{Deserialize, Serialize, Serializer};

/// A stretch of one line of the pipeline file. Counted in characters, from 1; line 0 means that the position is not known.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Span {
    /// The line, from 1.
    pub line: usize,
    /// The column of the first character, from 1.
    pub column: usize,
    /// How many characters; at least 1 is underlined.
    pub width: usize,
}

/// A value and where it was written. Compares, serialises and describes itself as the value alone.
#[derive(Clone, Debug, Default)]
pub struct At<T> {
    /// The value.
    pub value: T,
    /// Where it was written.
    pub span: Span,
}

/// The name of an input or a node as another node writes it: `prompts`, or `pool[t-1]` for the last iteration's.
pub type Name = At<String>;

/// The newtype name by which [`At`] asks our deserializer for positions.
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
