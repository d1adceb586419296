//! LoRA: training a low-rank adapter in place of the weights.
//!
//! Knows the keys, not how an adapter is computed.

use std::borrow::Cow;
use std::fmt;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::{Deserializer, Error, SeqAccess, Visitor};
use serde::{Deserialize, Serialize, Serializer};

use crate::pipeline::range;

/// Trains a low-rank adapter (LoRA) and leaves the weights as they are. The output of the node is a
/// small adapter in the format of PEFT instead of a whole model; readers of the model merge it in.
/// Training from an adapter with the same rank, alpha and targets continues with this adapter. The
/// learning rate is usually ten times the one of full training, or more.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Lora {
    /// The width between the two matrices of an adapter, at least 1: `r` in PEFT.
    #[serde(deserialize_with = "range::count")]
    #[schemars(range(min = 1))]
    pub rank: u32,
    /// The factor of the adapter's output is alpha / rank. Above 0.
    #[serde(deserialize_with = "range::positive")]
    #[schemars(extend("exclusiveMinimum" = 0))]
    pub alpha: f64,
    /// The projections with an adapter, in every layer: a list of names, or `all-linear` for all
    /// except the head.
    pub targets: Targets,
    /// The share of a projection's inputs hidden from its adapter in each training step, at least 0
    /// and below 1.
    #[serde(deserialize_with = "range::fraction")]
    #[schemars(range(min = 0.0), extend("exclusiveMaximum" = 1))]
    pub dropout: f64,
}

/// TRL's rank and alpha; every projection, as QLoRA's authors advise.
impl Default for Lora {
    fn default() -> Self {
        Self { rank: 16, alpha: 32.0, targets: Targets::AllLinear, dropout: 0.0 }
    }
}

/// The projections with an adapter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Targets {
    /// All but the head.
    AllLinear,
    /// These, in every layer.
    Named(Vec<Projection>),
}

/// A projection of a layer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Projection {
    /// Queries.
    QProj,
    /// Keys.
    KProj,
    /// Values.
    VProj,
    /// The output of the attention.
    OProj,
    /// The gate of the MLP.
    GateProj,
    /// Into the MLP.
    UpProj,
    /// Out of the MLP.
    DownProj,
}

impl Projection {
    /// The name of its field in a checkpoint.
    pub fn name(self) -> &'static str {
        match self {
            Self::QProj => "q_proj",
            Self::KProj => "k_proj",
            Self::VProj => "v_proj",
            Self::OProj => "o_proj",
            Self::GateProj => "gate_proj",
            Self::UpProj => "up_proj",
            Self::DownProj => "down_proj",
        }
    }
}

const ALL_LINEAR: &str = "all-linear";

impl Serialize for Targets {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::AllLinear => serializer.serialize_str(ALL_LINEAR),
            Self::Named(named) => named.serialize(serializer),
        }
    }
}

impl<'de> Deserialize<'de> for Targets {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Written;
        impl<'de> Visitor<'de> for Written {
            type Value = Targets;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{ALL_LINEAR} or a list of projections")
            }

            fn visit_str<E: Error>(self, text: &str) -> Result<Targets, E> {
                match text {
                    ALL_LINEAR => Ok(Targets::AllLinear),
                    other => Err(E::custom(format!("expected {ALL_LINEAR} or a list of projections, found \"{other}\""))),
                }
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Targets, A::Error> {
                let mut named = Vec::new();
                while let Some(projection) = items.next_element::<Projection>()? {
                    if named.contains(&projection) {
                        return Err(A::Error::custom(format!("{} is named twice", projection.name())));
                    }
                    named.push(projection);
                }
                // The order has no effect: one order, one fingerprint.
                named.sort();
                if named.is_empty() {
                    Err(A::Error::custom("expected at least one projection, found an empty list"))
                } else {
                    Ok(Targets::Named(named))
                }
            }
        }
        deserializer.deserialize_any(Written)
    }
}

impl JsonSchema for Targets {
    fn schema_name() -> Cow<'static, str> {
        "Targets".into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let projection = generator.subschema_for::<Projection>();
        json_schema!({
            "anyOf": [
                { "type": "string", "enum": [ALL_LINEAR] },
                { "type": "array", "items": projection, "minItems": 1, "uniqueItems": true },
            ],
        })
    }
}
