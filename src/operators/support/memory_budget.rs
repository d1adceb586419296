//! What a node needs of memory and of the disk, found out before it begins, with the arithmetic.
//!
//! Memory is that of the processor: a GPU's is given out by burn. What is said to be needed is what cannot be done without, so that nothing that would
//! fit is refused; generation and training then take as many responses and pairs at a time as fit, which changes no bits.

use std::fmt;

use super::{Context, OperatorError, lora};
use crate::disk;
use crate::memory;
use crate::model::Checkpoint;
use crate::pipeline::spec::operator::{Operator, Resources};
use crate::pipeline::spec::training::Optimizer;
use crate::store::State;

/// What a model at work takes beside weights and activations: logits in pieces, results of the layer in hand, the tokenizer, the rows.
const WORKING_BYTES: u64 = 256 << 20;

/// Bytes of a number as it is computed with, and as models are written.
const NUMBER: u64 = 4;

/// Bytes, and what for.
#[derive(Debug)]
struct Need(Vec<(String, u64)>);

impl Need {
    fn total(&self) -> u64 {
        self.0.iter().map(|(_, bytes)| bytes).fold(0, |sum, bytes| sum.saturating_add(*bytes))
    }
}

impl fmt::Display for Need {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let terms: Vec<String> = self.0.iter().map(|(what, bytes)| format!("{} for {what}", readable(*bytes))).collect();
        write!(f, "{}: {}", readable(self.total()), terms.join(", "))
    }
}

/// How much memory a node may take, and who says so.
#[derive(Clone, Copy, Debug)]
pub(in crate::operators) struct Budget {
    bytes: u64,
    is_stated: bool,
}

impl Budget {
    /// What the node's resources say, or else what is free. None for what is computed on a GPU.
    pub(in crate::operators) fn of(resources: &Resources, on_processor: bool) -> Option<Self> {
        let stated = resources.memory_gb.map(|gigabytes| (gigabytes * 1e9) as u64);
        let bytes = stated.or_else(memory::available).filter(|_| on_processor)?;
        Some(Self { bytes, is_stated: stated.is_some() })
    }

    fn refuse(self, need: &Need, way_on: &str) -> OperatorError {
        let (found, whose) = (readable(self.bytes), if self.is_stated { "resources: memory_gb" } else { "what is free" });
        OperatorError::Input(format!("needs at least {need}; found {found} ({whose}); {way_on}, or give it more memory"))
    }
}

/// That the task's model fits at all.
///
/// # Errors
/// The arithmetic.
pub(in crate::operators) fn check(budget: Budget, operator: &Operator, checkpoint: &Checkpoint) -> Result<(), OperatorError> {
    let (need, way_on) = match operator.optimizer() {
        Some(optimizer) => (training(operator, optimizer, checkpoint), LESS_STATE),
        None => (Need(vec![weights(checkpoint), working()]), "choose a smaller model"),
    };
    if need.total() > budget.bytes { Err(budget.refuse(&need, way_on)) } else { Ok(()) }
}

/// What makes gradients and optimizer state smaller, and what makes activations smaller.
const LESS_STATE: &str = "train an adapter (lora: {}), or with rmsprop";
const LESS_ACTIVATION: &str = "set gradient_checkpointing, leave out what is longest, or train an adapter (lora: {})";

/// Bytes that keys and values of the responses may take, of which the longest alone has `tokens`.
///
/// # Errors
/// The arithmetic, when not even that one fits.
pub(in crate::operators) fn cache_bytes(budget: Budget, checkpoint: &Checkpoint, tokens: usize) -> Result<u64, OperatorError> {
    let (config, fixed) = (&checkpoint.config, Need(vec![weights(checkpoint), working()]));
    let longest = config.cache_bytes_per_token().saturating_mul(tokens as u64);
    let left = budget.bytes.saturating_sub(fixed.total());
    if left < longest {
        let mut need = fixed;
        need.0.push((format!("keys and values of a response of {tokens} tokens"), longest));
        return Err(budget.refuse(&need, "lower max_new_tokens"));
    }
    Ok(left)
}

/// How many pairs or demonstrations, the longest of which has `tokens`, go through the model together: what the node's resources say or `usual`, or as many
/// as there is memory for.
///
/// # Errors
/// The arithmetic, when not even one can.
pub(in crate::operators) fn micro_batch(
    context: &Context,
    checkpoint: &Checkpoint,
    tokens: usize,
    usual: usize,
) -> Result<usize, OperatorError> {
    let (operator, resources) = (&context.task.operator, &context.task.resources);
    let asked = resources.micro_batch_size.map_or(usual, |size| size as usize);
    let Some((budget, optimizer)) = Budget::of(resources, context.on_processor()?).zip(operator.optimizer()) else { return Ok(asked) };
    let fixed = training(operator, optimizer, checkpoint);
    let each = checkpoint.config.kept_bytes_per_token(resources.gradient_checkpointing).saturating_mul(tokens as u64);
    let fitting = budget.bytes.saturating_sub(fixed.total()) / each.max(1);
    match usize::try_from(fitting).unwrap_or(usize::MAX).min(asked) {
        0 => {
            let mut need = fixed;
            need.0.push((format!("activations of {tokens} tokens"), each));
            Err(budget.refuse(&need, LESS_ACTIVATION))
        }
        fitting => {
            if fitting < asked {
                let problem = format!(
                    "{asked} at a time would need {}, found {}: {fitting} at a time, with the same result",
                    readable(fixed.total().saturating_add(each.saturating_mul(asked as u64))),
                    readable(budget.bytes)
                );
                context.progress.warned(&context.task.label(), &problem);
            }
            Ok(fitting)
        }
    }
}

/// That there is room on the run's disk for what training a model writes: `checkpoints` at once, then the model beside the last of them.
///
/// # Errors
/// The arithmetic, and where there is too little room.
pub(in crate::operators) fn room_for_training(context: &Context, checkpoint: &Checkpoint, checkpoints: u64) -> Result<(), OperatorError> {
    let operator = &context.task.operator;
    let Some(optimizer) = operator.optimizer() else { return Ok(()) };
    let model = trained_count(operator, checkpoint).saturating_mul(NUMBER);
    let state = model.saturating_mul(1 + moments(optimizer));
    let beside = |checkpoints: u64| ("checkpoints with the optimizer's state".to_string(), state.saturating_mul(checkpoints));
    // A new checkpoint is written before the old one goes, and the model before the last one goes.
    let last = Need(vec![beside(checkpoints.min(1)), ("the model".to_string(), model)]);
    let need = [Need(vec![beside(checkpoints)]), last].into_iter().max_by_key(Need::total).unwrap_or(Need(Vec::new()));
    let room = room(context)?;
    // One that the node goes on from is written already.
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

/// Warns where a table of this many bytes, which is a guess, may not fit on the run's disk.
///
/// # Errors
/// The system does not say how much room there is.
pub(in crate::operators) fn room_for_table(context: &Context, bytes: u64) -> Result<(), OperatorError> {
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

/// What training keeps whatever it is trained on.
fn training(operator: &Operator, optimizer: &Optimizer, checkpoint: &Checkpoint) -> Need {
    let trained = trained_count(operator, checkpoint);
    let numbers = 1 + moments(optimizer);
    let state = (
        format!("gradient and optimizer state of {trained} trained numbers, {} bytes each", numbers * NUMBER),
        trained.saturating_mul(numbers * NUMBER),
    );
    Need(vec![weights(checkpoint), state, working()])
}

fn weights(checkpoint: &Checkpoint) -> (String, u64) {
    let count = checkpoint.parameter_count() as u64;
    (format!("{count} parameters, {NUMBER} bytes each"), count.saturating_mul(NUMBER))
}

fn working() -> (String, u64) {
    ("work".to_string(), WORKING_BYTES)
}

/// Numbers that the optimizer remembers of each that is trained.
fn moments(optimizer: &Optimizer) -> u64 {
    match optimizer {
        Optimizer::Adamw(_) => 2,
        Optimizer::Rmsprop(_) => 1,
    }
}

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
