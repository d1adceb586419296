//! LoRA: training a low-rank adapter in place of the weights.
//!
//! Knows what a user may write about it, not how it is computed.

use std::borrow::Cow;
use std::fmt;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::{Deserializer, Error, SeqAccess, Visitor};
use serde::{Deserialize, Serialize, Serializer};

use crate::pipeline::range;

/// Train a low-rank adapter (LoRA) and leave the weights as they are. The node then makes an adapter in PEFT's format, small, and not a
/// model of its own; where the model is read, the adapter is merged in. A node that starts from an adapter with the same rank, alpha and
/// targets goes on with it. A learning rate ten times that of full training, or more, is usual.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Lora {
    /// How many numbers a token goes through between an adapter's two matrices: PEFT's `r`.
    #[serde(deserialize_with = "range::count")]
    #[schemars(range(min = 1))]
    pub rank: u32,
    /// The adapter's part is multiplied by alpha / rank, above 0.
    #[serde(deserialize_with = "range::positive")]
    #[schemars(extend("exclusiveMinimum" = 0))]
    pub alpha: f64,
    /// The projections that get an adapter, in every layer: a list of names, or `all-linear` for all of them but the head.
    pub targets: Targets,
    /// The share of a projection's inputs that each training step hides from its adapter, at least 0 and below 1.
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

/// The projections that get an adapter.
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
    /// What the attention gives back.
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
                // The order makes no difference, so that it must not make another fingerprint.
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
