//! `benchmark`: what tuning kept.
//!
//! ```text
//! policy ─▶ <node>_answers ─▶ <node>_items ─▶ <node>: each metric, its change against the baseline
//! baseline ─▶ <node>_baseline_answers ─▶ <node>_baseline_items ─▲
//! ```
//! Knows the keys of the operator, not how answers are computed.

pub mod answer;
pub mod grade;
pub mod metric;
pub mod task;

use std::collections::BTreeMap;

use indexmap::IndexMap;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::evaluate::{each, is_each};
use super::precision::Precision;
use crate::pipeline::position::{At, Name};
use crate::pipeline::range;
use task::BenchmarkTask;

/// What tuning kept: multiple choice and generated answers on tables of questions, graded as
/// lm-evaluation-harness grades them, and compared with a baseline item by item.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Benchmark {
    /// The model to test.
    pub policy: Name,
    /// The model to compare with. Its answers are computed once for all iterations. By default the
    /// model at the start of the iterations; a node outside them compares with nothing by default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub baseline: Option<Name>,
    /// The tasks, by name.
    pub tasks: IndexMap<Name, BenchmarkTask>,
    /// The reaction to a loss against the baseline. By default losses are only shown.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub guard: Option<Guard>,
    /// Tests after every iteration with a multiple of this number, and after the last one, as
    /// `evaluate` does. 1, the default, is after all.
    #[serde(default = "each", deserialize_with = "range::count", skip_serializing_if = "is_each")]
    #[schemars(range(min = 1))]
    pub every: u32,
    /// The precision of policy, baseline and reward models. By default that of the file.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub precision: Option<At<Precision>>,
}

/// The reaction to a loss against the baseline.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Guard {
    /// The largest loss of a task's primary metric that is accepted, from 0 to 1: `0.02` is two
    /// points of accuracy.
    #[serde(deserialize_with = "range::from_0_to_1")]
    #[schemars(range(min = 0.0, max = 1.0))]
    pub max_drop: f64,
    /// `warn` tells a larger loss and goes on; `stop` fails the node, and later iterations do not
    /// begin.
    #[serde(default)]
    pub on_drop: OnDrop,
}

/// The reaction to a larger loss.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum OnDrop {
    /// A warning; the run goes on.
    #[default]
    Warn,
    /// The node fails, and later iterations do not begin.
    Stop,
}

impl Benchmark {
    /// The tasks in the order of their names, in which all tables have them.
    pub fn sorted(&self) -> Vec<(&Name, &BenchmarkTask)> {
        let mut tasks: Vec<_> = self.tasks.iter().collect();
        tasks.sort_by(|one, other| one.0.value.cmp(&other.0.value));
        tasks
    }

    /// The primary metric of each task, by the task's name.
    pub fn primary_metrics(&self) -> BTreeMap<String, String> {
        self.tasks.iter().map(|(name, task)| (name.value.clone(), task.primary_metric())).collect()
    }

    /// Whether a larger loss ends the run.
    pub fn stops(&self) -> bool {
        self.guard.is_some_and(|guard| guard.on_drop == OnDrop::Stop)
    }
}
