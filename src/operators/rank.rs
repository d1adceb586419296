//! rank: the rewards of a reward model for the preferences held out of its training. Every
//! `reward_model` node has one, as `<node>_ranking`.

use super::support::advance::Advance;
use super::support::broken_model;
use super::support::comparisons::{Comparisons, Split};
use super::support::model_work::{Found, Job, Rewards, Work};
use super::support::parted_task::PartedTask;
use super::support::parts;
use super::support::replicas::{self, Part};
use super::support::task_model::TaskModel;
use super::{Context, OperatorError, Preference, Summary};
use crate::pipeline::slot::Slot;
use crate::pipeline::spec::rank::Rank;
use crate::tables::{TableKind, ranking};

/// Preferences in one part, unless the node's resources set another number.
const PREFERENCES_PER_PART: usize = 256;

/// Conversations in one batch of the model, unless the node's resources set another number.
const BATCH_SIZE: usize = 16;

/// Computes the rewards of both responses of every held-out preference, part by part.
pub(super) fn run(context: &Context, settings: &Rank) -> Result<Summary, OperatorError> {
    let model = TaskModel::from_slot(Slot::Model);
    let checkpoint = model.checkpoint(context)?;
    let comparisons = Comparisons::read(context, &checkpoint, &settings.held_out, Split::HeldOut, settings.max_tokens, settings.malformed)?;
    let total = comparisons.len();
    let mut writer = context.writer(Some(TableKind::Ranking), total, PREFERENCES_PER_PART)?;
    let missing = replicas::missing(&writer);
    let done = total - missing.iter().map(|part| part.rows.len()).sum::<usize>();
    let advance = Advance::start(context, "preferences", done, total);
    let batch_size = context.task.resources.batch_size.map_or(BATCH_SIZE, |size| size as usize);
    let prepare = |part: &Part| {
        if part.rows.is_empty() {
            return Ok((Vec::new(), ()));
        }
        let job = Job::Rewards(Rewards { sequences: comparisons.sequences(part.rows.clone())?, batch_size });
        Ok((vec![Work { model: 0, of: None, job }], ()))
    };
    let take = |part: &Part, (), found: Vec<Found>| {
        let preferences = comparisons.rows_in(part.rows.clone())?;
        let rewards = match found.into_iter().next() {
            Some(found) => checked(found, preferences)?,
            None => Vec::new(),
        };
        let rows = rows(preferences, &rewards);
        writer.commit(part.number, &ranking::batch(&rows))?;
        Ok(0)
    };
    let task = PartedTask { context, models: &[model], advance: &advance };
    parts::each_part(task, missing, replicas::all, prepare, take)?;
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

/// The rewards of these preferences, all finite: first those of all chosen, then those of all
/// rejected responses.
fn checked(found: Found, preferences: &[Preference]) -> Result<Vec<f64>, OperatorError> {
    let rewards = found.numbers(2 * preferences.len())?;
    let of = |index: usize| {
        let preference = preferences.get(index % preferences.len());
        format!("preference {}", preference.map_or("", |preference| preference.id.as_str()))
    };
    broken_model::check(&rewards, "reward", of)?;
    Ok(rewards.values)
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
