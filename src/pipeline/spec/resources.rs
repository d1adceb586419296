//! The resources of a node. Never part of its fingerprint.
//!
//! Knows the limits, not how operators keep them.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::devices::Devices;
use crate::pipeline::range;

/// The resources of a node. Never part of its fingerprint: they change the time and the memory of
/// an output, not the output.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Resources {
    /// The device of the model.
    pub device: Device,
    /// Several devices in place of one, each with a copy of the model: `[cuda:0, cuda:1]`, or
    /// `[cpu:2]` for two copies on the CPU. They share the parts of the table, or the pairs of a
    /// step; on the CPU the result is the same, bit for bit. Training takes one GPU only.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub devices: Option<Devices>,
    /// Sequences in one forward pass of the model, at least 1. By default the operator chooses; on
    /// the CPU a reference model takes one sequence at a time.
    #[serde(deserialize_with = "range::optional_count", skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1))]
    pub batch_size: Option<u32>,
    /// Examples (pairs, demonstrations or preferences) in one backward pass, at least 1. Gradients
    /// are accumulated up to the `batch_size` of the operator. By default the operator chooses.
    #[serde(deserialize_with = "range::optional_count", skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1))]
    pub micro_batch_size: Option<u32>,
    /// Less memory for more work in a training node on the CPU: the backward pass computes the
    /// activations of each layer again instead of keeping them. The result is the same, bit for
    /// bit.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub gradient_checkpointing: bool,
    /// The memory of a node with a model on the CPU, in 10⁹ bytes, above 0. By default the free
    /// memory at the start of the run. With less memory, fewer sequences go through the model
    /// together, with the same result. A run without memory for even one sequence does not start.
    #[serde(deserialize_with = "range::optional_positive", skip_serializing_if = "Option::is_none")]
    #[schemars(extend("exclusiveMinimum" = 0))]
    pub memory_gb: Option<f64>,
    /// Input rows in one part of the output, at least 1; for `generate`, prompts. A killed run
    /// loses at most the part in progress. By default the operator chooses.
    #[serde(deserialize_with = "range::optional_count", skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1))]
    pub rows_per_part: Option<u32>,
    /// Optimizer steps between two checkpoints of a training node, at least 1; 50 by default.
    #[serde(deserialize_with = "range::optional_count", skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1))]
    pub checkpoint_every: Option<u32>,
}

impl Resources {
    /// Whether every resource has its default.
    pub(super) fn is_default(&self) -> bool {
        *self == Self::default()
    }
}

/// The device of a model.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Device {
    /// A GPU, if the machine has one and the program was built for it; else the CPU.
    #[default]
    Auto,
    /// The CPU.
    Cpu,
    /// An NVIDIA GPU.
    Cuda,
}
