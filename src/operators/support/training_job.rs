//! The job of every operator with a training: settings, room on the disk, the loop over epochs,
//! checkpoints, the training table and the model.
//!
//! Knows neither the model nor the loss.

use std::collections::BTreeMap;
use std::path::Path;

use burn::module::Module;

use super::epochs::Epochs;
use super::{Context, OperatorError, learning_rate, memory_budget, replicas, training_recipe};
use crate::model::Checkpoint;
use crate::operators::Summary;
use crate::pipeline::spec::hyperparameters::Hyperparameters;
use crate::pipeline::spec::non_finite::NonFinite;
use crate::pipeline::spec::optimizer::Optimizer;
use crate::store;
use crate::tables::{TableKind, training as training_table};
use crate::training::{OptimizerConfig, Settings, StepMetrics, Trainer, TrainingError};

/// Steps between two checkpoints, unless the node's resources set another number.
const CHECKPOINT_EVERY: u64 = 50;

/// So many skipped steps in a row are no accident any more.
const MOST_SKIPPED_IN_A_ROW: u64 = 10;

/// This module in internal errors.
const PLACE: &str = "operators::support::training_job";

/// The examples of a training, and their sizes.
pub struct Examples<'a> {
    /// Their ids.
    pub ids: Vec<&'a str>,
    /// Tokens of the longest example.
    pub longest: usize,
    /// Examples in one backward pass, unless the node's resources set another number.
    pub micro_batch: usize,
    /// Examples that the model cannot read, left out.
    pub left_out: usize,
}

/// Says that a loss of Hugging Face's trainers is not added here.
fn warn_of_auxiliary_loss(context: &Context, checkpoint: &Checkpoint) {
    let Some(experts) = checkpoint.config.experts.as_ref().filter(|experts| experts.router_aux_loss_coef != 0.0) else { return };
    let problem = format!(
        "the loss for balanced experts is not added (router_aux_loss_coef is {} in config.json): it would depend on the micro-batches",
        experts.router_aux_loss_coef
    );
    context.progress.warned(&context.task.label(), &problem);
}

/// One training, ready to run.
pub struct TrainingJob<'a> {
    context: &'a Context<'a>,
    epochs: Epochs<'a>,
    settings: Settings,
    checkpoint_every: u64,
    left_out: usize,
}

impl<'a> TrainingJob<'a> {
    /// A training from `checkpoint` on `examples`.
    ///
    /// # Errors
    /// A learning rate of 0 in every step (in the loop it is a warning: the number of pairs is only
    /// known now); too little memory for one example, or too little room on the disk for
    /// checkpoints and model; with the arithmetic.
    pub fn new(
        context: &'a Context<'a>,
        checkpoint: &Checkpoint,
        examples: Examples<'a>,
        hyperparameters: Hyperparameters,
    ) -> Result<Self, OperatorError> {
        let count = examples.ids.len();
        match learning_rate::check(&hyperparameters, count, &format!("{count} examples")) {
            Err(error) if context.task.iteration.is_some() => context.progress.warned(&context.task.label(), &error.to_string()),
            checked => checked?,
        }
        warn_of_auxiliary_loss(context, checkpoint);
        replicas::check_training(&context.device)?;
        let resources = &context.task.resources;
        let settings = Settings {
            rule: optimizer_config(&hyperparameters.optimizer),
            schedule: learning_rate::schedule(&hyperparameters),
            gradient_limit: hyperparameters.max_gradient_norm,
            micro_batch: memory_budget::micro_batch(context, checkpoint, examples.longest, examples.micro_batch)?,
            gradient_checkpointing: resources.gradient_checkpointing,
            skip_non_finite: hyperparameters.non_finite == NonFinite::Skip,
        };
        let batch_size = hyperparameters.batch_size as usize;
        let left_out = examples.left_out;
        let epochs = Epochs { examples: examples.ids, epochs: hyperparameters.epochs, batch_size };
        let checkpoint_every = resources.checkpoint_every.map_or(CHECKPOINT_EVERY, u64::from);
        // A new checkpoint is written before the old one goes; none is written after the last step.
        let checkpoints = (epochs.total_steps().saturating_sub(1) / checkpoint_every).min(2);
        memory_budget::room_for_training(context, checkpoint, checkpoints)?;
        Ok(Self { context, epochs, settings, checkpoint_every, left_out })
    }

    /// Trains the model from `load` with `step` on each batch of examples, from the newest
    /// checkpoint on. Writes the training table, and the model by `save` into the given folder. A
    /// skipped step has no row in the table.
    ///
    /// # Errors
    /// A failed step, too many skipped steps in a row, weights with NaN or infinity, or a stop
    /// after a last checkpoint.
    pub fn run<M: Module + Sync>(
        self,
        load: impl FnOnce() -> Result<M, OperatorError>,
        mut step: impl FnMut(&mut Trainer<M>, &[usize]) -> Result<StepMetrics, OperatorError>,
        save: impl FnOnce(&Path, &M) -> Result<(), OperatorError>,
    ) -> Result<Summary, OperatorError> {
        let Self { context, epochs, settings, checkpoint_every, left_out } = self;
        let label = context.task.label();
        let key = context.task.output_key();
        let total = epochs.total_steps();
        let model = load()?;
        let fingerprint = context.recipe.fingerprint();
        let (found, damaged) = context.run.checkpoints().latest(&key, &fingerprint)?;
        damaged.iter().for_each(|bad| context.progress.warned(&label, &bad.to_string()));
        let (mut trainer, mut rows) = match found {
            Some(found) => {
                let trainer = Trainer::load_state(&found.dir, model, settings, total)?;
                (trainer, read_metrics(&found.dir.join(training_table::CHECKPOINT_FILE))?)
            }
            None => (Trainer::new(model, settings, total)?, Vec::new()),
        };
        let replicas = context.device.resolve_all()?.len();
        if replicas > 1 {
            trainer = trainer.on_replicas(replicas)?;
        }
        context.progress.started(&label, "steps", trainer.step(), total);
        let mut tokens = 0;
        let mut order = (0, epochs.order(context.seed(), 0));
        while trainer.step() < total {
            let (epoch, first) = epochs.position(trainer.step());
            if order.0 != epoch {
                order = (epoch, epochs.order(context.seed(), epoch));
            }
            let batch: Vec<usize> = order.1.iter().copied().skip(first).take(epochs.batch_size).collect();
            let metrics = match context.on_device(|| step(&mut trainer, &batch)) {
                Ok(metrics) => metrics,
                Err(OperatorError::Training(error @ TrainingError::Diverged { .. })) => {
                    let named = epochs.named(&batch);
                    return Err(OperatorError::Failed(match trainer.broken_parameter() {
                        Some(name) => {
                            format!("{named}: {error}; the weights {name} of the model to train are not finite: the model is broken")
                        }
                        None => format!("{named}: {error}, and with `non_finite: skip` such steps are left out and counted"),
                    }));
                }
                Err(other) => return Err(other),
            };
            tokens += metrics.tokens as u64;
            match metrics.skipped {
                None => rows.push(row(epoch + 1, &metrics)),
                Some(unusable) => {
                    let (step, examples) = (metrics.step + 1, epochs.named(&batch));
                    let skipped = format!("step {step} is skipped, {examples}: {unusable}");
                    check_skipped(trainer.skipped().in_a_row, &epochs, &skipped)?;
                    context.progress.warned(&label, &skipped);
                }
            }
            context.progress.advanced(&label, trainer.step(), tokens);
            let stopped = (context.stopped)();
            if trainer.step() < total && (stopped || trainer.step().is_multiple_of(checkpoint_every)) {
                context.run.checkpoints().commit(&key, &fingerprint, trainer.step(), total, |folder| -> Result<(), OperatorError> {
                    trainer.save_state(folder)?;
                    Ok(store::write_parquet(&folder.join(training_table::CHECKPOINT_FILE), &training_table::batch(&rows))?)
                })?;
            }
            if stopped {
                return Err(OperatorError::Stopped);
            }
        }
        for (name, examples) in replicas::names(&context.device, replicas).into_iter().zip(trainer.examples_of_replicas()) {
            replicas::record(context, name, [("examples", examples as f64)])?;
        }
        if let Some(name) = trainer.broken_parameter() {
            let problem = "expected finite weights after the last step, found others";
            return Err(OperatorError::Failed(format!("{name}: {problem}; lower the learning rate")));
        }
        let skipped = trainer.skipped().count;
        write_training_table(context, &rows, skipped)?;
        let writer = context.run.write_model(&key, context.recipe)?;
        save(writer.dir(), &trainer.model())?;
        let mut counts = counts(total as i64, skipped);
        if left_out > 0 {
            counts.insert("left_out".to_string(), left_out as i64);
        }
        writer.finish(counts)?;
        let losses = match (rows.first(), rows.last()) {
            (Some(first), Some(last)) => format!(", loss {:.4} to {:.4}", first.loss, last.loss),
            _ => String::new(),
        };
        let skipped = if skipped > 0 { format!(", {skipped} skipped because they were not finite") } else { String::new() };
        Ok(Summary { text: format!("{total} steps{losses}{skipped}"), tokens })
    }
}

/// Fails after too many skipped steps in a row: ten, or a whole epoch. `skipped` describes the last
/// one.
fn check_skipped(in_a_row: u64, epochs: &Epochs, skipped: &str) -> Result<(), OperatorError> {
    if in_a_row < MOST_SKIPPED_IN_A_ROW.min(epochs.steps_per_epoch()) {
        return Ok(());
    }
    let problem = format!("{in_a_row} in a row, expected at least one step of an epoch or of {MOST_SKIPPED_IN_A_ROW} to be finite");
    Err(OperatorError::Failed(format!("{skipped}; {problem}; lower the learning rate, or look at the data")))
}

/// The counts of a manifest: `skipped` only where steps were skipped.
fn counts(steps: i64, skipped: u64) -> BTreeMap<String, i64> {
    let mut counts = BTreeMap::from([("steps".to_string(), steps)]);
    if skipped > 0 {
        counts.insert("skipped".to_string(), skipped as i64);
    }
    counts
}

/// Writes the table before the model, so that a finished model always has its table.
fn write_training_table(context: &Context, rows: &[training_table::Row], skipped: u64) -> Result<(), OperatorError> {
    let problem = || OperatorError::internal(PLACE, format!("{}: no training table belongs to its output", context.task.label()));
    let training_key = context.task.training_key().ok_or_else(problem)?;
    let recipe = training_recipe(context.recipe);
    let mut writer = context.run.write_table(&training_key, &recipe, Some(TableKind::Training), rows.len(), rows.len().max(1))?;
    let batch = training_table::batch(rows);
    for part in writer.missing() {
        writer.commit(part, &batch)?;
    }
    writer.finish(counts(rows.len() as i64, skipped))?;
    Ok(())
}

fn read_metrics(path: &Path) -> Result<Vec<training_table::Row>, OperatorError> {
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

/// The pipeline file's optimizer in the terms of `training`.
fn optimizer_config(optimizer: &Optimizer) -> OptimizerConfig {
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
