//! `merge`: the pool of an iteration.
//!
//! Knows the keys of the operator, not how it runs.

use std::borrow::Cow;

use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::one_or_several::{self, OneOrSeveral};
use crate::pipeline::position::Name;

/// The pool of an iteration: the new responses of the selected prompts, and the old responses of
/// all others.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Merge {
    /// The rewards of the responses of this iteration: a name, or a list of names if the responses
    /// were sampled in several steps.
    pub fresh: Fresh,
    /// The pool with the responses of the other prompts, usually `pool[t-1]`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub carried: Option<Name>,
    /// Whether the best old response of a prompt stays beside its new ones, to be paired with them.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub keep_best: bool,
}

/// Tables of rewards, at least one.
#[derive(Clone, Debug, PartialEq)]
pub struct Fresh(pub Vec<Name>);

impl OneOrSeveral for Fresh {
    const EXPECTED: &'static str = "a name or a list of names";
}

impl Serialize for Fresh {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        one_or_several::serialize(&self.0, serializer)
    }
}

impl<'de> Deserialize<'de> for Fresh {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let names = one_or_several::deserialize::<Self, D>(deserializer)?;
        one_or_several::different(names, "table of rewards", |one, other| one == other).map(Self)
    }
}

impl JsonSchema for Fresh {
    fn inline_schema() -> bool {
        true
    }
    fn schema_name() -> Cow<'static, str> {
        "Fresh".into()
    }
    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        one_or_several::schema()
    }
}
