//! The needs of a node for memory and disk, estimated before it begins, with the arithmetic in the
//! error.
//!
//! Only the CPU's memory counts: burn manages a GPU's. Estimates are lower bounds, so a run with
//! enough memory is never refused. Generation and training then take as many responses and pairs at
//! a time as fit; this changes no bits.

use std::fmt;

use super::{Context, OperatorError, lora};
use crate::disk;
use crate::memory;
use crate::model::Checkpoint;
use crate::pipeline::spec::operator::Operator;
use crate::pipeline::spec::optimizer::Optimizer;
use crate::pipeline::spec::resources::Resources;
use crate::store::State;

/// Bytes for logits in pieces, results of the current layer, the tokenizer and the rows, beside
/// weights and activations.
const WORKING_BYTES: u64 = 256 << 20;

/// Bytes of a number, in memory and in written models.
const NUMBER: u64 = 4;

/// A way to a smaller gradient and optimizer state, for errors.
const LESS_STATE: &str = "train an adapter (lora: {}), or with rmsprop";

/// A way to smaller activations, for errors.
const LESS_ACTIVATION: &str = "set gradient_checkpointing, leave out what is longest, or train an adapter (lora: {})";

/// This module in internal errors.
const PLACE: &str = "operators::support::memory_budget";

/// Amounts of bytes, each with its purpose.
#[derive(Debug)]
struct ByteCounts(Vec<(String, u64)>);

impl ByteCounts {
    fn total(&self) -> u64 {
        self.0.iter().map(|(_, bytes)| bytes).fold(0, |sum, bytes| sum.saturating_add(*bytes))
    }

    /// The same with one more.
    fn and(mut self, purpose: String, bytes: u64) -> Self {
        self.0.push((purpose, bytes));
        self
    }
}

impl fmt::Display for ByteCounts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let terms: Vec<String> = self.0.iter().map(|(purpose, bytes)| format!("{} for {purpose}", readable(*bytes))).collect();
        write!(f, "{}: {}", readable(self.total()), terms.join(", "))
    }
}

/// The memory for a node, and its origin.
#[derive(Clone, Copy, Debug)]
pub struct Budget {
    bytes: u64,
    is_stated: bool,
    /// The models with so much memory each.
    replicas: usize,
}

impl Budget {
    /// The memory in the node's resources, else the free memory. None for a model on a GPU without
    /// stated memory.
    pub fn new(resources: &Resources, on_cpu: bool) -> Option<Self> {
        if let Some(gigabytes) = resources.memory_gb {
            return Some(Self { bytes: (gigabytes * 1e9) as u64, is_stated: true, replicas: 1 });
        }
        if !on_cpu {
            return None;
        }
        Some(Self { bytes: memory::available()?, is_stated: false, replicas: 1 })
    }

    /// The share of each of so many replicas.
    #[must_use]
    pub fn among(self, replicas: usize) -> Self {
        let replicas = replicas.max(1);
        Self { bytes: self.bytes / replicas as u64, replicas, ..self }
    }

    fn refuse(self, need: &ByteCounts, way_on: &str) -> OperatorError {
        let found = readable(self.bytes);
        let origin = if self.is_stated { "resources: memory_gb" } else { "what is free" };
        let origin = if self.replicas > 1 { format!("{origin}, for each of {} replicas", self.replicas) } else { origin.to_string() };
        OperatorError::Input(format!("needs at least {need}; found {found} ({origin}); {way_on}, or give it more memory"))
    }
}

/// Checks the task's model without any batch.
///
/// # Errors
/// The arithmetic.
pub fn check(budget: Budget, operator: &Operator, checkpoint: &Checkpoint) -> Result<(), OperatorError> {
    let (need, way_on) = match operator.optimizer() {
        Some(optimizer) => (training(operator, optimizer, checkpoint), LESS_STATE),
        None => (inference(checkpoint), "choose a smaller model"),
    };
    if need.total() > budget.bytes { Err(budget.refuse(&need, way_on)) } else { Ok(()) }
}

/// Bytes for the keys and values of responses; the longest response has `tokens`.
///
/// # Errors
/// The arithmetic, when even one response does not fit.
pub fn cache_bytes(budget: Budget, checkpoint: &Checkpoint, tokens: usize) -> Result<u64, OperatorError> {
    let fixed = inference(checkpoint);
    let longest = checkpoint.config.cache_bytes_per_token().saturating_mul(tokens as u64);
    let left = budget.bytes.saturating_sub(fixed.total());
    if left < longest {
        let need = fixed.and(format!("keys and values of a response of {tokens} tokens"), longest);
        return Err(budget.refuse(&need, "lower max_new_tokens"));
    }
    // Memory of lists grows by doubling, and others want some of what is free.
    Ok(if budget.is_stated { left } else { (left / 2).max(longest) })
}

/// The number of examples in one backward pass: as in the node's resources, or `usual`, or as many
/// as fit into memory. The longest example has `tokens`.
///
/// # Errors
/// The arithmetic, when even one example does not fit.
pub fn micro_batch(context: &Context, checkpoint: &Checkpoint, tokens: usize, usual: usize) -> Result<usize, OperatorError> {
    let operator = &context.task.operator;
    let resources = &context.task.resources;
    let wanted = resources.micro_batch_size.map_or(usual, |size| size as usize);
    let Some(budget) = Budget::new(resources, context.on_cpu()?) else { return Ok(wanted) };
    let fixed = training(operator, optimizer(context)?, checkpoint);
    // Each replica has a micro-batch in hand.
    let replicas = context.device.resolve_all()?.len();
    let each = checkpoint.config.kept_bytes_per_token(resources.gradient_checkpointing).saturating_mul(tokens as u64);
    let each = each.saturating_mul(replicas as u64);
    let fitting = budget.bytes.saturating_sub(fixed.total()) / each.max(1);
    if fitting == 0 {
        let on_replicas = if replicas > 1 { format!(" on each of {replicas} replicas") } else { String::new() };
        return Err(budget.refuse(&fixed.and(format!("activations of {tokens} tokens{on_replicas}"), each), LESS_ACTIVATION));
    }
    if fitting >= wanted as u64 {
        return Ok(wanted);
    }
    let problem = format!(
        "{wanted} at a time would need {}, found {}: {fitting} at a time, with the same result",
        readable(fixed.total().saturating_add(each.saturating_mul(wanted as u64))),
        readable(budget.bytes)
    );
    context.progress.warned(&context.task.label(), &problem);
    // Below `wanted`, so it is a usize.
    Ok(fitting as usize)
}

/// Checks the room on the run's disk for a training: for `checkpoints` at once, then for the model
/// beside the last of them.
///
/// # Errors
/// The arithmetic and the folder, where there is too little room.
pub fn room_for_training(context: &Context, checkpoint: &Checkpoint, checkpoints: u64) -> Result<(), OperatorError> {
    let model = trained_count(&context.task.operator, checkpoint).saturating_mul(NUMBER);
    let state = model.saturating_mul(1 + moments(optimizer(context)?));
    let states =
        |checkpoints: u64| ByteCounts(vec![("checkpoints with the optimizer's state".to_string(), state.saturating_mul(checkpoints))]);
    // A new checkpoint is written before the old one goes, and the model before the last one goes.
    let during = states(checkpoints);
    let last = states(checkpoints.min(1)).and("the model".to_string(), model);
    let need = if during.total() > last.total() { during } else { last };
    let room = room(context)?;
    // The checkpoint of an interrupted training is already written.
    let written = matches!(context.run.state(&context.task.output_key(), context.recipe)?, State::Partial { .. });
    if need.total() <= room.saturating_add(if written { state } else { 0 }) {
        return Ok(());
    }
    let folder = context.run.folder().display();
    Err(OperatorError::Failed(format!(
        "{folder}: needs room for {need}; found {}; free space there and run the same command again",
        readable(room)
    )))
}

/// Warns where a table of about `bytes` may not fit on the run's disk.
///
/// # Errors
/// A system without an answer about the room on its disk.
pub fn room_for_table(context: &Context, bytes: u64) -> Result<(), OperatorError> {
    let room = room(context)?;
    if bytes > room {
        let folder = context.run.folder().display();
        let problem = format!("{folder}: {} are free, and the table may take {}", readable(room), readable(bytes));
        context.progress.warned(&context.task.label(), &problem);
    }
    Ok(())
}

fn room(context: &Context) -> Result<u64, OperatorError> {
    let folder = context.run.folder();
    disk::room(folder)
        .map_err(|error| OperatorError::Failed(format!("{}: cannot find out how much room there is: {error}", folder.display())))
}

/// The optimizer of a task with a training.
fn optimizer<'a>(context: &Context<'a>) -> Result<&'a Optimizer, OperatorError> {
    let problem = || OperatorError::internal(PLACE, format!("{}: a training without an optimizer", context.task.label()));
    context.task.operator.optimizer().ok_or_else(problem)
}

/// The needs of a training, whatever its examples.
fn training(operator: &Operator, optimizer: &Optimizer, checkpoint: &Checkpoint) -> ByteCounts {
    let trained = trained_count(operator, checkpoint);
    let bytes_each = (1 + moments(optimizer)) * NUMBER;
    let state = format!("gradient and optimizer state of {trained} trained numbers, {bytes_each} bytes each");
    ByteCounts(vec![weights(checkpoint), (state, trained.saturating_mul(bytes_each)), working()])
}

/// The needs of a model at work without a training, whatever its inputs.
fn inference(checkpoint: &Checkpoint) -> ByteCounts {
    ByteCounts(vec![weights(checkpoint), working()])
}

fn weights(checkpoint: &Checkpoint) -> (String, u64) {
    let count = checkpoint.parameter_count() as u64;
    (format!("{count} parameters, {NUMBER} bytes each"), count.saturating_mul(NUMBER))
}

fn working() -> (String, u64) {
    ("work".to_string(), WORKING_BYTES)
}

/// Numbers in the optimizer's state for each trained number.
fn moments(optimizer: &Optimizer) -> u64 {
    match optimizer {
        Optimizer::Adamw(_) => 2,
        Optimizer::Rmsprop(_) => 1,
    }
}

/// The number of trained parameters: all of them, or an adapter's.
fn trained_count(operator: &Operator, checkpoint: &Checkpoint) -> u64 {
    match operator.lora() {
        Some(lora) => lora::parameter_count(lora, checkpoint) as u64,
        None => checkpoint.parameter_count() as u64,
    }
}

/// `1.5 GB`.
fn readable(bytes: u64) -> String {
    match bytes {
        0..1_000_000_000 => format!("{:.0} MB", bytes as f64 / 1e6),
        _ => format!("{:.1} GB", bytes as f64 / 1e9),
    }
}
