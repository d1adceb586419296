//! The baselines of an evaluation: one name, or a list of names.
//!
//! Knows names, not the models and tables behind them.

use std::borrow::Cow;

use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::one_or_several::{self, OneOrSeveral};
use crate::pipeline::position::Name;

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

impl OneOrSeveral for Baselines {
    const EXPECTED: &'static str = "a name or a list of names";
}

impl Serialize for Baselines {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        one_or_several::serialize(&self.0, serializer)
    }
}

impl<'de> Deserialize<'de> for Baselines {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let same = |one: &str, other: &str| Self::part(1, one) == Self::part(1, other);
        let names = one_or_several::deserialize::<Self, D>(deserializer)?;
        one_or_several::different(names, "baseline", same).map(Self)
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
        one_or_several::schema()
    }
}
