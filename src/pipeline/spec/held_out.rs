//! Held-out preferences: a share of the data, or a table of its own.
//!
//! Knows the two forms, not how the share is drawn.

use std::borrow::Cow;
use std::fmt;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::{Error, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::pipeline::position::{At, Name};

/// The preferences held out of training.
#[derive(Clone, Debug, PartialEq)]
pub enum HeldOut {
    /// This share of the prompts, at least 0 and below 1.
    Share(f64),
    /// A table.
    Table(Name),
}

impl Default for HeldOut {
    fn default() -> Self {
        Self::Share(0.1)
    }
}

impl HeldOut {
    /// The table, if it is one.
    pub fn table(&self) -> Option<&Name> {
        match self {
            Self::Share(_) => None,
            Self::Table(name) => Some(name),
        }
    }
}

impl<'de> Deserialize<'de> for HeldOut {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        /// The value as written. A table's name keeps its position.
        enum Written {
            Share(f64),
            Table(String),
        }
        impl<'de> Deserialize<'de> for Written {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                deserializer.deserialize_any(ShareOrName)
            }
        }
        struct ShareOrName;
        impl Visitor<'_> for ShareOrName {
            type Value = Written;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a share of at least 0 and below 1, or the name of a table")
            }
            fn visit_f64<E: Error>(self, share: f64) -> Result<Written, E> {
                if (0.0..1.0).contains(&share) {
                    Ok(Written::Share(share))
                } else {
                    Err(E::custom(format!("expected a share of at least 0 and below 1, or the name of a table, found {share}")))
                }
            }
            fn visit_u64<E: Error>(self, share: u64) -> Result<Written, E> {
                self.visit_f64(share as f64)
            }
            fn visit_i64<E: Error>(self, share: i64) -> Result<Written, E> {
                self.visit_f64(share as f64)
            }
            fn visit_str<E: Error>(self, name: &str) -> Result<Written, E> {
                Ok(Written::Table(name.to_string()))
            }
        }
        let At { value, span } = At::<Written>::deserialize(deserializer)?;
        Ok(match value {
            Written::Share(share) => Self::Share(share),
            Written::Table(name) => Self::Table(Name { value: name, span }),
        })
    }
}

impl Serialize for HeldOut {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Share(share) => serializer.serialize_f64(*share),
            Self::Table(name) => name.serialize(serializer),
        }
    }
}

impl JsonSchema for HeldOut {
    fn inline_schema() -> bool {
        true
    }
    fn schema_name() -> Cow<'static, str> {
        "HeldOut".into()
    }
    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "anyOf": [{ "type": "number", "minimum": 0, "exclusiveMaximum": 1 }, { "type": "string" }] })
    }
}
