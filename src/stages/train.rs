//! train: the next policy, by weighted DPO on the iteration's pairs.
//!
//! The loop itself is [`super::training_loop`]'s, what a step does `training`'s.

use super::adapters::Trainee;
use super::paired::Paired;
use super::training_loop::{Plan, rule, schedule, train};
use super::{Context, StageError, Summary, budget};
use crate::pipeline::spec::loss as spec;
use crate::pipeline::spec::non_finite::NonFinite;
use crate::pipeline::spec::training::Train;
use crate::training::loss::{Loss, Wpo};
use crate::training::{Objective, Pair, Settings};

/// Pairs in one backward pass, unless the node's resources say otherwise: few, because the processor's cores take one pass each.
const MICRO_BATCH_SIZE: usize = 8;

/// Trains from the slot `from` on the slot `pairs`, whose reference logprobs are filled in.
pub(super) fn run(context: &Context, settings: &Train) -> Result<Summary, StageError> {
    let paired = Paired::read(context)?;
    if paired.pairs.is_empty() {
        let why = match paired.left_out_text() {
            None => {
                "no prompt's responses differ in reward; look at the rewards, sample more responses or raise the temperature".to_string()
            }
            Some(reasons) => format!("of the preferences are {reasons}"),
        };
        return Err(StageError::Input(format!("expected at least one pair to train on, found none: {why}")));
    }
    let checkpoint = context.checkpoint("from")?;
    let trainee = Trainee::new(context, &checkpoint);
    let device = context.device()?;
    let plan = Plan {
        examples: paired.pairs.iter().map(|pair| pair.prompt_id.as_str()).collect(),
        epochs: settings.epochs,
        batch_size: settings.batch_size as usize,
    };
    let training = Settings {
        rule: rule(&settings.optimizer),
        schedule: schedule(settings.learning_rate, settings.schedule, settings.warmup_ratio),
        gradient_limit: settings.max_gradient_norm,
        micro_batch: budget::micro_batch(context, &checkpoint, paired.longest(), MICRO_BATCH_SIZE)?,
        gradient_checkpointing: context.task.resources.gradient_checkpointing,
        skip_non_finite: settings.non_finite == NonFinite::Skip,
    };
    budget::room_for_training(context, &checkpoint, plan.checkpoints(context))?;
    let responses = paired.responses(0..paired.pairs.len())?;
    let pairs = paired.pairs.iter().enumerate().map(|(row, pair)| {
        let missing = || StageError::Input(format!("pair of prompt {}: no reference logprob", pair.prompt_id));
        Ok(Pair {
            chosen: row,
            rejected: paired.pairs.len() + row,
            weight: pair.weight,
            reward_gap: pair.reward_gap,
            reference_logprob_chosen: pair.reference_logprob_chosen.ok_or_else(missing)?,
            reference_logprob_rejected: pair.reference_logprob_rejected.ok_or_else(missing)?,
        })
    });
    let pairs = pairs.collect::<Result<Vec<_>, StageError>>()?;
    let wpo = settings.wpo.map(|spec::Wpo { clip }| Wpo { clip });
    let (objective, mut batch) = (Objective { loss: loss(settings), wpo }, Vec::new());
    train(
        context,
        || trainee.load(&device),
        training,
        &plan,
        |trainer, rows| {
            batch.clear();
            batch.extend(rows.iter().filter_map(|row| pairs.get(*row).copied()));
            trainer.preference_step(&responses, &batch, objective)
        },
        |folder, policy| trainee.save(folder, policy),
    )
}

/// The pipeline file's loss as `training` has it.
fn loss(settings: &Train) -> Loss {
    let beta = settings.beta;
    match settings.loss {
        spec::Loss::Dpo => Loss::Dpo { beta },
        spec::Loss::Ipo => Loss::Ipo { beta },
        spec::Loss::Hinge => Loss::Hinge { beta },
        spec::Loss::Robust(spec::Robust { label_smoothing }) => Loss::Robust { beta, label_smoothing },
        spec::Loss::Simpo(spec::Simpo { gamma }) => Loss::Simpo { beta, gamma },
        spec::Loss::Rebel => Loss::Rebel { beta },
    }
}
