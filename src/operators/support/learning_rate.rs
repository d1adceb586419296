//! The learning rates of a training: the pipeline file's schedule in the terms of `training`, and
//! the check that some step has one above 0.
//!
//! Knows numbers of examples, no example.

use super::OperatorError;
use crate::pipeline::spec::hyperparameters::{self as spec, Hyperparameters};
use crate::training::{Decay, Schedule};

/// The pipeline file's schedule in the terms of `training`.
pub fn schedule(hyperparameters: &Hyperparameters) -> Schedule {
    let decay = match hyperparameters.schedule {
        spec::Schedule::Constant => Decay::Constant,
        spec::Schedule::Linear => Decay::Linear,
        spec::Schedule::Cosine => Decay::Cosine,
    };
    Schedule { peak: hyperparameters.learning_rate, decay, warmup_ratio: hyperparameters.warmup_ratio }
}

/// Checks that a training on these examples has a step with a learning rate above 0. `count` is for
/// the error: `48 examples`, or `at most 48 examples` before the exact number is known.
///
/// # Errors
/// All steps have a learning rate of 0; with the arithmetic.
pub fn check(hyperparameters: &Hyperparameters, examples: usize, count: &str) -> Result<(), OperatorError> {
    let Hyperparameters { batch_size, epochs, warmup_ratio, .. } = hyperparameters;
    let steps = examples.div_ceil((*batch_size).max(1) as usize) as u64 * u64::from(*epochs);
    let schedule = schedule(hyperparameters);
    if steps == 0 || !schedule.is_zero_throughout(steps) {
        return Ok(());
    }
    let warmup = schedule.warmup_steps(steps);
    Err(OperatorError::Input(format!(
        "expected a step with a learning rate above 0, found none: {count} in batches of {batch_size} for {epochs} epoch(s) are {steps} step(s), \
         and the warm-up, ceil({warmup_ratio} · {steps}) = {warmup} step(s), begins at 0; say `warmup_ratio: 0`, lower `batch_size`, or raise `epochs`"
    )))
}
