//! The baselines of an evaluation: one name, or a list of names.
//!
//! Knows names, not the models and tables behind them.

use std::borrow::Cow;
use std::fmt;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::{Error, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::pipeline::position::{At, Name};

/// The baselines, at least one.
#[derive(Clone, Debug, PartialEq)]
pub struct Baselines(pub Vec<Name>);

impl Baselines {
    /// The part of the task names about a baseline: `baseline` for the first, `vs_NAME` for the
    /// others.
    pub fn part(index: usize, name: &str) -> String {
        if index == 0 { "baseline".to_string() } else { format!("vs_{}", name.strip_suffix("[t-1]").unwrap_or(name)) }
    }
}

impl Serialize for Baselines {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self.0.as_slice() {
            [one] => one.serialize(serializer),
            several => several.serialize(serializer),
        }
    }
}

impl<'de> Deserialize<'de> for Baselines {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        /// One name with the position of the whole value, or several with their own.
        enum Written {
            One(String),
            Several(Vec<Name>),
        }
        impl<'de> Deserialize<'de> for Written {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                struct OneOrSeveral;
                impl<'de> Visitor<'de> for OneOrSeveral {
                    type Value = Written;
                    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                        f.write_str("a name or a list of names")
                    }
                    fn visit_str<E: Error>(self, name: &str) -> Result<Written, E> {
                        Ok(Written::One(name.to_string()))
                    }
                    fn visit_seq<A: SeqAccess<'de>>(self, mut names: A) -> Result<Written, A::Error> {
                        let mut several: Vec<Name> = Vec::new();
                        while let Some(name) = names.next_element::<Name>()? {
                            let plain = |name: &Name| Baselines::part(1, &name.value);
                            if several.iter().any(|other| plain(other) == plain(&name)) {
                                return Err(A::Error::custom(format!("the baseline \"{}\" is named twice", name.value)));
                            }
                            several.push(name);
                        }
                        if several.is_empty() {
                            Err(A::Error::custom("expected at least one baseline, found none"))
                        } else {
                            Ok(Written::Several(several))
                        }
                    }
                }
                deserializer.deserialize_any(OneOrSeveral)
            }
        }
        let At { value, span } = At::<Written>::deserialize(deserializer)?;
        Ok(Self(match value {
            Written::One(name) => vec![At { value: name, span }],
            Written::Several(names) => names,
        }))
    }
}

impl JsonSchema for Baselines {
    fn inline_schema() -> bool {
        true
    }
    fn schema_name() -> Cow<'static, str> {
        "Baselines".into()
    }
    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "anyOf": [{ "type": "string" }, { "type": "array", "items": { "type": "string" }, "minItems": 1 }] })
    }
}
