//! LoRA: training a low-rank adapter in place of the weights.
//!
//! Knows the keys, not how an adapter is computed, nor which modules a model has.

use std::borrow::Cow;
use std::fmt;

use indexmap::IndexMap;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::{Deserializer, Error, SeqAccess, Visitor};
use serde::{Deserialize, Serialize, Serializer};

use crate::pipeline::range;

/// Trains a low-rank adapter (LoRA) and leaves the weights as they are. The output of the node is a
/// small adapter in the format of PEFT instead of a whole model; readers of the model merge it in.
/// Training from an adapter with the same settings continues with this adapter. The learning rate
/// is usually ten times the one of full training, or more.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Lora {
    /// The width between the two matrices of an adapter, at least 1: `r` in PEFT.
    #[serde(deserialize_with = "range::count")]
    #[schemars(range(min = 1))]
    pub rank: u32,
    /// The factor of the adapter's output is alpha / rank: `lora_alpha` in PEFT. Above 0.
    #[serde(deserialize_with = "range::positive")]
    #[schemars(extend("exclusiveMinimum" = 0))]
    pub alpha: f64,
    /// The projections with an adapter: `all-linear` for all except the head, a list of names as
    /// `q_proj` or `layers.0.mlp.up_proj`, or a regular expression of Python for the whole name, as
    /// `model\.layers\.[0-3]\..*_proj`.
    pub target_modules: Modules,
    /// Projections without an adapter, in spite of `target_modules`: a list of names, or a regular
    /// expression.
    pub exclude_modules: Option<Modules>,
    /// The share of a projection's inputs hidden from its adapter in each training step, at least 0
    /// and below 1: `lora_dropout` in PEFT.
    #[serde(deserialize_with = "range::fraction")]
    #[schemars(range(min = 0.0), extend("exclusiveMaximum" = 1))]
    pub dropout: f64,
    /// Other ranks, by name or regular expression: `{ q_proj: 8 }`. The first that matches counts.
    pub rank_pattern: IndexMap<String, Rank>,
    /// Other alphas, as `rank_pattern`.
    pub alpha_pattern: IndexMap<String, Alpha>,
    /// rsLoRA: the factor of the adapter's output is alpha / √rank.
    pub use_rslora: bool,
    /// DoRA: the norms of the weights with the adapter are trained apart. A step takes longer.
    pub use_dora: bool,
    /// Modules that are trained whole and kept with the adapter, as `embed_tokens` and `lm_head`.
    pub modules_to_save: Vec<String>,
}

/// TRL's rank and alpha; every projection, as QLoRA's authors advise.
impl Default for Lora {
    fn default() -> Self {
        Self {
            rank: 16,
            alpha: 32.0,
            target_modules: Modules::AllLinear,
            exclude_modules: None,
            dropout: 0.0,
            rank_pattern: IndexMap::new(),
            alpha_pattern: IndexMap::new(),
            use_rslora: false,
            use_dora: false,
            modules_to_save: Vec::new(),
        }
    }
}

/// A rank of some modules, at least 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(transparent)]
pub struct Rank(
    /// The rank.
    #[serde(deserialize_with = "range::count")]
    #[schemars(range(min = 1))]
    pub u32,
);

/// An alpha of some modules, above 0.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(transparent)]
pub struct Alpha(
    /// The alpha.
    #[serde(deserialize_with = "range::positive")]
    #[schemars(extend("exclusiveMinimum" = 0))]
    pub f64,
);

/// Modules of a model.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Modules {
    /// All projections but the head.
    AllLinear,
    /// Those with one of these names, or with a name that ends in a dot and one of these.
    Named(Vec<String>),
    /// Those whose whole name matches this regular expression.
    Pattern(String),
}

const ALL_LINEAR: &str = "all-linear";

impl Serialize for Modules {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::AllLinear => serializer.serialize_str(ALL_LINEAR),
            Self::Named(named) => named.serialize(serializer),
            Self::Pattern(pattern) => serializer.serialize_str(pattern),
        }
    }
}

impl<'de> Deserialize<'de> for Modules {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Written;
        impl<'de> Visitor<'de> for Written {
            type Value = Modules;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{ALL_LINEAR}, a list of names or a regular expression")
            }

            fn visit_str<E: Error>(self, text: &str) -> Result<Modules, E> {
                Ok(if text == ALL_LINEAR { Modules::AllLinear } else { Modules::Pattern(text.to_string()) })
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Modules, A::Error> {
                let mut named = Vec::new();
                while let Some(name) = items.next_element::<String>()? {
                    if named.contains(&name) {
                        return Err(A::Error::custom(format!("{name} is named twice")));
                    }
                    named.push(name);
                }
                // The order has no effect: one order, one fingerprint.
                named.sort();
                if named.is_empty() {
                    Err(A::Error::custom("expected at least one name, found an empty list"))
                } else {
                    Ok(Modules::Named(named))
                }
            }
        }
        deserializer.deserialize_any(Written)
    }
}

impl JsonSchema for Modules {
    fn schema_name() -> Cow<'static, str> {
        "Modules".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "anyOf": [
                { "type": "string" },
                { "type": "array", "items": { "type": "string" }, "minItems": 1, "uniqueItems": true },
            ],
        })
    }
}
