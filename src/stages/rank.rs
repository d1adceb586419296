//! rank: what a reward model makes of the preferences that were held out of its training. Comes with every `reward_model` node, as
//! `<node>_ranking`.

use super::comparisons::{Comparisons, Part};
use super::{Context, StageError, Summary};
use crate::pipeline::spec::training::Rank;
use crate::tables::{TableKind, ranking};
use crate::training;

/// Preferences in one part, unless the node's resources say otherwise.
const PREFERENCES_PER_PART: usize = 256;

/// Conversations that go through the model together, unless the node's resources say otherwise.
const BATCH_SIZE: usize = 16;

/// Rewards both responses of every held-out preference, part by part.
pub(super) fn run(context: &Context, settings: &Rank) -> Result<Summary, StageError> {
    let checkpoint = context.checkpoint("model")?;
    let comparisons = Comparisons::read(context, &checkpoint, &settings.held_out, Part::HeldOut, settings.max_tokens)?;
    let total = comparisons.len();
    let mut writer = context.writer(Some(TableKind::Ranking), total, PREFERENCES_PER_PART)?;
    let (label, missing) = (context.task.label(), writer.missing());
    let mut done = total - missing.iter().map(|part| writer.rows_of(*part).len()).sum::<usize>();
    context.progress.started(&label, "preferences", done as u64, total as u64);
    if !missing.is_empty() {
        let device = context.device()?;
        let model = checkpoint.load_reward_model(&device)?;
        let batch_size = context.task.resources.batch_size.map_or(BATCH_SIZE, |size| size as usize);
        for part in missing {
            context.check_stopped()?;
            let range = writer.rows_of(part);
            let preferences = comparisons.rows.get(range.clone()).unwrap_or(&[]);
            let rewards = if preferences.is_empty() {
                Vec::new()
            } else {
                let sequences = comparisons.sequences(range)?;
                let rewards = training::rewards(&model, &sequences, &(0..sequences.rows()).collect::<Vec<_>>(), batch_size);
                rewards.map_err(|error| StageError::from(error).of(&writer.name_of(part)))?
            };
            let (chosen, rejected) = rewards.split_at(rewards.len() / 2);
            let both = chosen.iter().copied().zip(rejected.iter().copied());
            let row = |(preference, (reward_chosen, reward_rejected)): (&super::Preference, (f64, f64))| ranking::Row {
                preference_id: preference.id.clone(),
                reward_chosen,
                reward_rejected,
                correct: reward_chosen > reward_rejected,
                reward_gap: preference.reward_gap,
            };
            let rows: Vec<ranking::Row> = preferences.iter().zip(both).map(row).collect();
            writer.commit(part, &ranking::batch(&rows))?;
            done += rows.len();
            context.progress.advanced(&label, done as u64, 0);
        }
    }
    let mut correct = 0;
    for batch in writer.committed()? {
        correct += ranking::rows(&batch)?.iter().filter(|row| row.correct).count();
    }
    let counts = [("preferences", total), ("correct", correct), ("too_long", comparisons.too_long)];
    writer.finish(counts.into_iter().map(|(name, count)| (name.to_string(), count as i64)).collect())?;
    let accuracy = correct as f64 / total.max(1) as f64;
    Ok(Summary::new(format!("accuracy {accuracy:.3} on {total} held-out preferences")))
}
