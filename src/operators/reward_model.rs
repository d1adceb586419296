//! reward_model: a reward model from preferences, by the Bradley–Terry loss on a policy with a
//! score in the place of its head.
//!
//! The loop is in [`super::support::training_job`], the step in `training`; `rank` tests the model
//! on the held-out preferences.

use super::support::comparisons::{Comparisons, Split};
use super::support::training_job::{Examples, TrainingJob};
use super::{Context, OperatorError, Preference, Summary};
use crate::import::preferences::NO_GAP;
use crate::pipeline::slot::Slot;
use crate::pipeline::spec::reward_model::RewardModel;
use crate::training::Comparison;

/// Preferences in one backward pass, unless the node's resources set another number. Few: each core
/// of the CPU takes one pass.
const MICRO_BATCH_SIZE: usize = 8;

/// Trains from the slot `from` on the slot `preferences`, without the held-out ones.
pub(super) fn run(context: &Context, settings: &RewardModel) -> Result<Summary, OperatorError> {
    let checkpoint = context.checkpoint(Slot::From)?.with_reward_head(context.seed().number("score head", "", 0));
    let comparisons =
        Comparisons::read(context, &checkpoint, &settings.held_out, Split::Training, settings.max_tokens, settings.malformed)?;
    let count = comparisons.len();
    if count == 0 {
        let (too_long, malformed) = (comparisons.too_long, comparisons.malformed);
        let malformed = if malformed > 0 { format!(", {malformed} are malformed") } else { String::new() };
        let found = format!("found none ({too_long} are longer than the model or max_tokens allow{malformed})");
        return Err(OperatorError::Input(format!("preferences: expected at least one to train on, {found}")));
    }
    let rows = comparisons.rows.iter().enumerate();
    let compared =
        rows.map(|(row, preference)| Ok(Comparison { chosen: row, rejected: count + row, margin: margin(settings, preference)? }));
    let compared = compared.collect::<Result<Vec<_>, OperatorError>>()?;
    let device = context.device()?;
    let sequences = comparisons.sequences(0..count)?;
    let examples = Examples {
        ids: comparisons.rows.iter().map(|row| row.id.as_str()).collect(),
        longest: comparisons.longest(),
        micro_batch: MICRO_BATCH_SIZE,
        left_out: comparisons.malformed,
    };
    let job = TrainingJob::new(context, &checkpoint, examples, settings.hyperparameters())?;
    let mut batch = Vec::new();
    job.run(
        || Ok(checkpoint.load_reward_model(&device)?.in_precision(context.precision())),
        |trainer, rows| {
            batch.clear();
            batch.extend(rows.iter().map(|row| compared[*row]));
            Ok(trainer.ranking_step(&sequences, &batch, settings.center_rewards_coefficient)?)
        },
        |folder, model| Ok(checkpoint.save_reward_model(folder, model)?),
    )
}

/// The smallest wanted difference of a preference's rewards; 0 without `margin`.
fn margin(settings: &RewardModel, preference: &Preference) -> Result<f64, OperatorError> {
    if !settings.margin {
        return Ok(0.0);
    }
    // The import has checked outside tables; those of queries are known only now.
    preference.reward_gap.ok_or_else(|| OperatorError::Input(format!("preference {}: {NO_GAP}", preference.id)))
}
