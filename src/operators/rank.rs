//! rank: the rewards of a reward model for the preferences held out of its training. Every
//! `reward_model` node has one, as `<node>_ranking`.

use super::support::broken_model;
use super::support::comparisons::{Comparisons, Split};
use super::support::model_work::{Found, Job, Rewards, TaskModel, Work};
use super::support::parts::{self, Parts};
use super::{Context, OperatorError, Preference, Summary};
use crate::pipeline::slot::Slot;
use crate::pipeline::spec::rank::Rank;
use crate::store::TableWriter;
use crate::tables::{TableKind, ranking};

/// Preferences in one part, unless the node's resources set another number.
const PREFERENCES_PER_PART: usize = 256;

/// Conversations in one batch of the model, unless the node's resources set another number.
const BATCH_SIZE: usize = 16;

/// Computes the rewards of both responses of every held-out preference, part by part.
pub(super) fn run(context: &Context, settings: &Rank) -> Result<Summary, OperatorError> {
    let mut model = TaskModel::of_slot(Slot::Model);
    let checkpoint = model.checkpoint(context)?;
    let comparisons = Comparisons::read(context, &checkpoint, &settings.held_out, Split::HeldOut, settings.max_tokens, settings.malformed)?;
    let total = comparisons.len();
    let writer = context.writer(Some(TableKind::Ranking), total, PREFERENCES_PER_PART)?;
    let missing = writer.missing();
    let done = total - missing.iter().map(|part| writer.rows_of(*part).len()).sum::<usize>();
    context.progress.started(&context.task.label(), "preferences", done as u64, total as u64);
    let mut parts = RankedParts { context, comparisons: &comparisons, writer, done };
    parts::compute(context, &mut [model], missing, &mut parts)?;
    let writer = parts.writer;
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

/// The parts of the ranking.
struct RankedParts<'a, 'c> {
    context: &'a Context<'c>,
    comparisons: &'a Comparisons,
    writer: TableWriter<'a>,
    done: usize,
}

impl Parts for RankedParts<'_, '_> {
    fn name(&self, part: usize) -> String {
        self.writer.name_of(part)
    }

    fn work(&mut self, part: usize) -> Result<Vec<Work>, OperatorError> {
        let range = self.writer.rows_of(part);
        if range.is_empty() {
            return Ok(Vec::new());
        }
        let batch_size = self.context.task.resources.batch_size.map_or(BATCH_SIZE, |size| size as usize);
        let job = Job::Rewards(Rewards { sequences: self.comparisons.sequences(range)?, batch_size });
        Ok(vec![Work { model: 0, of: None, job }])
    }

    fn take(&mut self, part: usize, found: Vec<Found>) -> Result<(), OperatorError> {
        let preferences = self.comparisons.rows_in(self.writer.rows_of(part))?;
        let numbers = found.into_iter().next().map(|found| found.numbers(2 * preferences.len())).transpose()?;
        if let Some(numbers) = &numbers {
            let of = |index: usize| {
                let preference = preferences.get(index % preferences.len());
                format!("preference {}", preference.map_or("", |preference| preference.id.as_str()))
            };
            broken_model::check(numbers, "reward", of)?;
        }
        let rows = rows(preferences, &numbers.map_or(Vec::new(), |numbers| numbers.values));
        self.writer.commit(part, &ranking::batch(&rows))?;
        self.done += rows.len();
        self.context.progress.advanced(&self.context.task.label(), self.done as u64, 0);
        Ok(())
    }

    fn so_far(&self) -> (u64, u64) {
        (self.done as u64, 0)
    }
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
