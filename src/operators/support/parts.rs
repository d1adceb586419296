//! The parts of a table with the work of models: on the replicas of this machine, or on the
//! executors of a cluster.
//!
//! Knows no operator. An operator prepares the work of a part and takes the results.

use super::flights;
use super::memory_budget::Budget;
use super::model_work::{Found, Work};
use super::parted_task::PartedTask;
use super::replicas::{self, Part, Replica};
use super::{Context, OperatorError};

/// This module in internal errors.
const PLACE: &str = "operators::support::parts";

/// Computes the `missing` parts. `prepare` says what a part needs of the models, and what it keeps
/// for its results. `take` gets both, on this thread and in any order; it returns the tokens of the
/// part. `here` are the replicas if this machine computes.
///
/// # Errors
/// The first error. Parts in hand are finished and taken, and no further one is begun; executors of
/// a cluster have some seconds for this.
pub fn each_part<K: Send>(
    task: PartedTask,
    missing: Vec<Part>,
    here: impl FnOnce(&Context) -> Result<Vec<Replica>, OperatorError>,
    prepare: impl Fn(&Part) -> Result<(Vec<Work>, K), OperatorError> + Sync,
    take: impl FnMut(&Part, K, Vec<Found>) -> Result<u64, OperatorError>,
) -> Result<(), OperatorError> {
    if missing.is_empty() {
        return Ok(());
    }
    match task.context.executors {
        Some(executors) => flights::each_part(task, executors, missing, prepare, take),
        None => on_replicas(task, missing, here(task.context)?, prepare, take),
    }
}

/// As [`each_part`], on the replicas of this machine.
fn on_replicas<K: Send>(
    task: PartedTask,
    missing: Vec<Part>,
    replicas: Vec<Replica>,
    prepare: impl Fn(&Part) -> Result<(Vec<Work>, K), OperatorError> + Sync,
    mut take: impl FnMut(&Part, K, Vec<Found>) -> Result<u64, OperatorError>,
) -> Result<(), OperatorError> {
    let PartedTask { context, models, advance } = task;
    // Asked before a model is loaded: later, less memory is free.
    let budget = if models.is_empty() { None } else { Budget::new(&context.task.resources, context.on_cpu()?) };
    let budget = budget.map(|budget| budget.among(replicas.len()));
    let load = |replica: &Replica| Ok((replica.number, replica.device.clone()));
    let compute = |(number, device): &mut (usize, _), part: &Part| {
        let (works, kept) = prepare(part).map_err(|error| error.of(&part.name))?;
        let mut found = Vec::with_capacity(works.len());
        let mut observed = 0;
        for Work { model, of, job } in works {
            let problem = || OperatorError::internal(PLACE, format!("{} has no model {model}", context.task.label()));
            let model = models.get(model).ok_or_else(problem)?;
            let mut working = model.take(context, *number, device, budget)?;
            working.load(&job)?;
            let mut observed_here = 0;
            let mut observe = |tokens: usize| observed_here = advance.observe(observed_here, tokens);
            let computed = working.compute(&job, &context.device_time, &mut observe);
            found.push(computed.map_err(|error| of_work(error, of.as_deref(), part))?);
            observed += observed_here;
            model.put_back(*number, working);
        }
        Ok((kept, found, observed))
    };
    replicas::each_part(context, &replicas, missing, load, compute, |part, (kept, found, observed)| {
        let tokens = take(part, kept, found)?;
        advance.finish(part.rows.len(), tokens, observed);
        Ok(())
    })
}

/// The error of one work of a part.
fn of_work(error: OperatorError, of: Option<&str>, part: &Part) -> OperatorError {
    match of {
        Some(of) => error.of(of).of(&part.name),
        None => error.of(&part.name),
    }
}
