//! A task whose table is made part by part: its context, its models and its progress.
//!
//! Knows neither the parts nor who computes them.

use super::Context;
use super::advance::Advance;
use super::task_model::TaskModel;

/// What all parts of a task share.
#[derive(Clone, Copy)]
pub struct PartedTask<'a> {
    /// The context of the task.
    pub context: &'a Context<'a>,
    /// The models; a work has an index into them.
    pub models: &'a [TaskModel],
    /// The progress of the table.
    pub advance: &'a Advance<'a>,
}
