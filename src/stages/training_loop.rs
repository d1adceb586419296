//! The loop of every node that trains: epochs in an order drawn from the seed, checkpoints, the training table and the model.
//!
//! Knows neither what is trained nor by which loss.

use std::collections::BTreeMap;
use std::path::Path;

use burn::module::Module;

use super::{Context, StageError, Summary, training_recipe};
use crate::pipeline::spec::training::{Optimizer, Schedule};
use crate::store;
use crate::tables::{TableKind, training as training_table};
use crate::training::{Decay, OptimizerConfig, Settings, StepMetrics, Trainer, TrainingError};

/// Steps between two checkpoints, unless the node's resources say otherwise.
const CHECKPOINT_EVERY: u64 = 50;

/// So many skipped steps in a row are no accident any more.
const MOST_SKIPPED_IN_A_ROW: u64 = 10;

/// Examples that an error names.
const NAMED: usize = 8;

/// Which examples are seen when.
pub(super) struct Plan<'a> {
    /// The examples' ids, which the order of each epoch is drawn from.
    pub examples: Vec<&'a str>,
    /// Passes over all examples.
    pub epochs: u32,
    /// Examples in one step; the last step of an epoch has what is left.
    pub batch_size: usize,
}

impl Plan<'_> {
    fn steps_per_epoch(&self) -> u64 {
        self.examples.len().div_ceil(self.batch_size.max(1)) as u64
    }

    fn total_steps(&self) -> u64 {
        self.steps_per_epoch() * u64::from(self.epochs)
    }

    /// How many checkpoints are on the disk at once, at most.
    pub(super) fn checkpoints(&self, context: &Context) -> u64 {
        (self.total_steps().saturating_sub(1) / every(context)).min(2)
    }

    /// The epoch (the first is 0) that `step` (the first is 0) belongs to, and where its examples begin in that epoch's order.
    fn place(&self, step: u64) -> (u32, usize) {
        let steps = self.steps_per_epoch().max(1);
        ((step / steps) as u32, (step % steps) as usize * self.batch_size)
    }

    /// All examples in the order of an epoch.
    fn order(&self, stream: super::seed::Stream, epoch: u32) -> Vec<usize> {
        let mut order: Vec<usize> = (0..self.examples.len()).collect();
        order.sort_by_cached_key(|row| (stream.number("shuffle", self.examples[*row], epoch), *row));
        order
    }

    /// These examples for an error: `on 12 examples: p-001, p-007, …`.
    fn named(&self, rows: &[usize]) -> String {
        let ids: Vec<&str> = rows.iter().take(NAMED).filter_map(|row| self.examples.get(*row).copied()).collect();
        let more = if rows.len() > ids.len() { ", …" } else { "" };
        format!("on {} examples ({}{more})", rows.len(), ids.join(", "))
    }
}

fn every(context: &Context) -> u64 {
    context.task.resources.checkpoint_every.map_or(CHECKPOINT_EVERY, u64::from)
}

/// Runs `step` over the plan, with checkpoints; writes the training table, and the model by `save` into the folder it is given. A skipped
/// step has no row in the table.
pub(super) fn train<M: Module + Sync>(
    context: &Context,
    initial: impl FnOnce() -> Result<M, StageError>,
    settings: Settings,
    plan: &Plan,
    mut step: impl FnMut(&mut Trainer<M>, &[usize]) -> Result<StepMetrics, TrainingError>,
    save: impl FnOnce(&Path, &M) -> Result<(), StageError>,
) -> Result<Summary, StageError> {
    let (label, place, total) = (context.task.label(), context.task.place(), plan.total_steps());
    let every = every(context);
    let model = initial()?;
    let fingerprint = context.recipe.fingerprint();
    let (found, damaged) = context.run.checkpoint(&place, &fingerprint)?;
    damaged.iter().for_each(|bad| context.progress.warned(&label, &bad.to_string()));
    let (mut trainer, mut rows) = match found {
        Some(found) => {
            let trainer = Trainer::load_state(&found.dir, model, settings, total)?;
            (trainer, read_metrics(&found.dir.join(training_table::CHECKPOINT_FILE))?)
        }
        None => (Trainer::new(model, settings, total)?, Vec::new()),
    };
    context.progress.started(&label, "steps", trainer.step(), total);
    let mut tokens = 0;
    let mut order = (0, plan.order(context.seed(), 0));
    while trainer.step() < total {
        let (epoch, first) = plan.place(trainer.step());
        if order.0 != epoch {
            order = (epoch, plan.order(context.seed(), epoch));
        }
        let batch: Vec<usize> = order.1.iter().copied().skip(first).take(plan.batch_size).collect();
        let metrics = step(&mut trainer, &batch).map_err(|error| match error {
            error @ TrainingError::Diverged { .. } => StageError::Failed(format!(
                "{}: {error}, and with `non_finite: skip` such steps are left out and counted",
                plan.named(&batch)
            )),
            other => other.into(),
        })?;
        tokens += metrics.tokens as u64;
        match metrics.skipped {
            None => rows.push(row(epoch + 1, &metrics)),
            Some(unusable) => {
                let (step, examples) = (metrics.step + 1, plan.named(&batch));
                let skipped = format!("step {step} is skipped, {examples}: {unusable}");
                let in_a_row = trainer.skipped().in_a_row;
                if in_a_row >= MOST_SKIPPED_IN_A_ROW.min(plan.steps_per_epoch()) {
                    let problem =
                        format!("{in_a_row} in a row, expected at least one step of an epoch or of {MOST_SKIPPED_IN_A_ROW} to be finite");
                    return Err(StageError::Failed(format!("{skipped}; {problem}; lower the learning rate, or look at the data")));
                }
                context.progress.warned(&label, &skipped);
            }
        }
        context.progress.advanced(&label, trainer.step(), tokens);
        let stopped = (context.stopped)();
        if trainer.step() < total && (stopped || trainer.step().is_multiple_of(every)) {
            context.run.commit_checkpoint(&place, &fingerprint, trainer.step(), total, |folder| -> Result<(), StageError> {
                trainer.save_state(folder)?;
                Ok(store::write_parquet(&folder.join(training_table::CHECKPOINT_FILE), &training_table::batch(&rows))?)
            })?;
        }
        if stopped {
            return Err(StageError::Stopped);
        }
    }
    if let Some(name) = trainer.broken_parameter() {
        let problem = "expected finite weights after the last step, found others";
        return Err(StageError::Failed(format!("{name}: {problem}; lower the learning rate")));
    }
    let skipped = trainer.skipped().count;
    write_training_table(context, &rows, skipped)?;
    let writer = context.run.write_model(&place, context.recipe)?;
    save(writer.dir(), &trainer.model())?;
    writer.finish(counts(total as i64, skipped))?;
    let (first, last) = (rows.first().map_or(0.0, |row| row.loss), rows.last().map_or(0.0, |row| row.loss));
    let skipped = if skipped > 0 { format!(", {skipped} skipped because they were not finite") } else { String::new() };
    Ok(Summary { text: format!("{total} steps, loss {first:.4} to {last:.4}{skipped}"), tokens })
}

/// What a manifest counts: `skipped` only where there are any.
fn counts(steps: i64, skipped: u64) -> BTreeMap<String, i64> {
    let skipped = (skipped > 0).then(|| ("skipped".to_string(), skipped as i64));
    [("steps".to_string(), steps)].into_iter().chain(skipped).collect()
}

/// Writes the table before the model, so that a model that is there always has its table.
fn write_training_table(context: &Context, rows: &[training_table::Row], skipped: u64) -> Result<(), StageError> {
    let Some(place) = context.task.training_place() else { return Ok(()) };
    let recipe = training_recipe(context.recipe);
    let mut writer = context.run.write_table(&place, &recipe, Some(TableKind::Training), rows.len(), rows.len().max(1))?;
    let batch = training_table::batch(rows);
    for part in writer.missing() {
        writer.commit(part, &batch)?;
    }
    writer.finish(counts(rows.len() as i64, skipped))?;
    Ok(())
}

fn read_metrics(path: &Path) -> Result<Vec<training_table::Row>, StageError> {
    Ok(training_table::rows(&store::read_parquet(path)?)?)
}

fn row(epoch: u32, metrics: &StepMetrics) -> training_table::Row {
    training_table::Row {
        step: metrics.step as i64 + 1,
        epoch: epoch as i32,
        loss: metrics.loss,
        reward_margin: metrics.reward_margin,
        accuracy: metrics.accuracy,
        logprob_chosen: metrics.logprob_chosen,
        logprob_rejected: metrics.logprob_rejected,
        kl: metrics.kl,
        gradient_norm: metrics.gradient_norm,
        learning_rate: metrics.learning_rate,
        tokens: metrics.tokens as i64,
    }
}

/// The pipeline file's optimizer as `training` has it.
pub(super) fn rule(optimizer: &Optimizer) -> OptimizerConfig {
    match optimizer {
        Optimizer::Adamw(adamw) => {
            let [beta_1, beta_2] = adamw.betas;
            OptimizerConfig::AdamW { beta_1, beta_2, eps: adamw.eps, weight_decay: adamw.weight_decay }
        }
        Optimizer::Rmsprop(rmsprop) => {
            OptimizerConfig::RmsProp { alpha: rmsprop.alpha, eps: rmsprop.eps, weight_decay: rmsprop.weight_decay }
        }
    }
}

/// The pipeline file's schedule as `training` has it.
pub(super) fn schedule(peak: f64, schedule: Schedule, warmup_ratio: f64) -> crate::training::Schedule {
    let decay = match schedule {
        Schedule::Constant => Decay::Constant,
        Schedule::Linear => Decay::Linear,
        Schedule::Cosine => Decay::Cosine,
    };
    crate::training::Schedule { peak, decay, warmup_ratio }
}
