//! reward_model: a reward model from preferences, by the Bradley–Terry loss on a policy with a score in place of its head.
//!
//! The loop itself is [`super::training_loop`]'s, what a step does `training`'s; `rank` tests it on what is held out.

use super::comparisons::{Comparisons, Part};
use super::training_loop::{Plan, rule, schedule, train};
use super::{Context, StageError, Summary, budget};
use crate::pipeline::spec::non_finite::NonFinite;
use crate::pipeline::spec::training::RewardModel;
use crate::training::{Comparison, Settings};

/// Preferences in one backward pass, unless the node's resources say otherwise: few, because the processor's cores take one pass each.
const MICRO_BATCH_SIZE: usize = 8;

/// Trains from the slot `from` on the slot `preferences`, without those that are held out.
pub(super) fn run(context: &Context, settings: &RewardModel) -> Result<Summary, StageError> {
    let checkpoint = context.checkpoint("from")?.with_reward_head(context.seed().number("score head", "", 0));
    let comparisons = Comparisons::read(context, &checkpoint, &settings.held_out, Part::Training, settings.max_tokens)?;
    let count = comparisons.len();
    if count == 0 {
        let found = format!("found none ({} are longer than the model or max_tokens allow)", comparisons.too_long);
        return Err(StageError::Input(format!("preferences: expected at least one to train on, {found}")));
    }
    let margin = |row: &super::Preference| match (settings.margin, row.reward_gap) {
        (false, _) => Ok(0.0),
        (true, Some(gap)) => Ok(gap),
        (true, None) => Err(StageError::Input(format!(
            "preference {}: margin: expected a reward_gap, or a chosen_score and a rejected_score, found none",
            row.id
        ))),
    };
    let compared = comparisons
        .rows
        .iter()
        .enumerate()
        .map(|(row, preference)| Ok(Comparison { chosen: row, rejected: count + row, margin: margin(preference)? }));
    let compared = compared.collect::<Result<Vec<_>, StageError>>()?;
    let device = context.device()?;
    let sequences = comparisons.sequences(0..count)?;
    let longest = sequences.lengths().zip(sequences.lengths().skip(count)).map(|(chosen, rejected)| chosen + rejected).max().unwrap_or(0);
    let plan = Plan {
        examples: comparisons.rows.iter().map(|row| row.id.as_str()).collect(),
        epochs: settings.epochs,
        batch_size: settings.batch_size as usize,
    };
    let training = Settings {
        rule: rule(&settings.optimizer),
        schedule: schedule(settings.learning_rate, settings.schedule, settings.warmup_ratio),
        gradient_limit: settings.max_gradient_norm,
        micro_batch: budget::micro_batch(context, &checkpoint, longest, MICRO_BATCH_SIZE)?,
        gradient_checkpointing: context.task.resources.gradient_checkpointing,
        skip_non_finite: settings.non_finite == NonFinite::Skip,
    };
    budget::room_for_training(context, &checkpoint, plan.checkpoints(context))?;
    let mut batch = Vec::new();
    train(
        context,
        || Ok(checkpoint.load_reward_model(&device)?),
        training,
        &plan,
        |trainer, rows| {
            batch.clear();
            batch.extend(rows.iter().filter_map(|row| compared.get(*row).copied()));
            trainer.ranking_step(&sequences, &batch, settings.center_rewards_coefficient)
        },
        |folder, model| Ok(checkpoint.save_reward_model(folder, model)?),
    )
}
