//! rank: the rewards of a reward model for the preferences held out of its training. Every
//! `reward_model` node has one, as `<node>_ranking`.

use super::support::advance::Advance;
use super::support::broken_model;
use super::support::comparisons::{Comparisons, Split};
use super::support::replicas::{self, Part, Replica};
use super::{Context, OperatorError, Preference, Summary};
use crate::compute::RewardModel;
use crate::pipeline::slot::Slot;
use crate::pipeline::spec::rank::Rank;
use crate::tables::{TableKind, ranking};
use crate::training;

/// Preferences in one part, unless the node's resources set another number.
const PREFERENCES_PER_PART: usize = 256;

/// Conversations in one batch of the model, unless the node's resources set another number.
const BATCH_SIZE: usize = 16;

/// Computes the rewards of both responses of every held-out preference, part by part.
pub(super) fn run(context: &Context, settings: &Rank) -> Result<Summary, OperatorError> {
    let checkpoint = context.checkpoint(Slot::Model)?;
    let comparisons = Comparisons::read(context, &checkpoint, &settings.held_out, Split::HeldOut, settings.max_tokens, settings.malformed)?;
    let total = comparisons.len();
    let mut writer = context.writer(Some(TableKind::Ranking), total, PREFERENCES_PER_PART)?;
    let missing = replicas::missing(&writer);
    let done = total - missing.iter().map(|part| part.rows.len()).sum::<usize>();
    let advance = Advance::start(context, "preferences", done, total);
    let batch_size = context.task.resources.batch_size.map_or(BATCH_SIZE, |size| size as usize);
    let load = |replica: &Replica| Ok(checkpoint.load_reward_model(&replica.device)?.in_precision(context.precision()));
    let compute = |model: &mut RewardModel, part: &Part| {
        let preferences = comparisons.rows_in(part.rows.clone())?;
        if preferences.is_empty() {
            return Ok(Vec::new());
        }
        let sequences = comparisons.sequences(part.rows.clone())?;
        let all: Vec<usize> = (0..sequences.rows()).collect();
        let rewards = context.on_device(|| training::rewards(model, &sequences, &all, batch_size));
        let rewards = rewards.map_err(|error| OperatorError::from(error).of(&part.name))?;
        let of = |index: usize| format!("preference {}", preferences[index % preferences.len()].id);
        broken_model::check(&rewards, "reward", of, model, checkpoint.folder())?;
        Ok(rewards)
    };
    replicas::each_part(context, &replicas::all(context)?, missing, load, compute, |part, rewards| {
        let rows = rows(comparisons.rows_in(part.rows.clone())?, &rewards);
        writer.commit(part.number, &ranking::batch(&rows))?;
        advance.finish(rows.len(), 0, 0);
        Ok(())
    })?;
    let mut correct = 0;
    for batch in writer.committed()? {
        correct += ranking::rows(&batch)?.iter().filter(|row| row.correct).count();
    }
    let counts = [("preferences", total), ("correct", correct), ("too_long", comparisons.too_long)];
    let malformed = Some(("malformed", comparisons.malformed)).filter(|(_, count)| *count > 0);
    writer.finish(counts.into_iter().chain(malformed).map(|(name, count)| (name.to_string(), count as i64)).collect())?;
    if total == 0 {
        return Ok(Summary::new("no held-out preference to rank".to_string()));
    }
    let accuracy = correct as f64 / total as f64;
    Ok(Summary::new(format!("accuracy {accuracy:.3} on {total} held-out preferences")))
}

/// The table's rows; `rewards` has first those of all chosen, then those of all rejected responses.
fn rows(preferences: &[Preference], rewards: &[f64]) -> Vec<ranking::Row> {
    debug_assert_eq!(rewards.len(), 2 * preferences.len(), "one reward for each conversation");
    let (chosen, rejected) = rewards.split_at(rewards.len() / 2);
    let row = |(preference, (chosen, rejected)): (&Preference, (&f64, &f64))| ranking::Row {
        preference_id: preference.id.clone(),
        reward_chosen: *chosen,
        reward_rejected: *rejected,
        correct: chosen > rejected,
        reward_gap: preference.reward_gap,
    };
    preferences.iter().zip(chosen.iter().zip(rejected)).map(row).collect()
}
