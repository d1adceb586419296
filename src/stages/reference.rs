//! reference: the pairs with the reference's logprobs, computed once and kept. Comes with every `train` node, as `<node>_pairs`.
//!
//! Under a reference that stays the same, a pair whose responses were carried over costs nothing again.

use std::collections::HashMap;

use super::paired::Paired;
use super::{Context, StageError, Summary};
use crate::tables::{TableKind, pairs};
use crate::training;

/// Pairs in one part, unless the node's resources say otherwise.
const PAIRS_PER_PART: usize = 256;

/// Sequences that go through the reference at once, unless the node's resources say otherwise.
pub(super) const BATCH_SIZE: usize = 32;

/// Fills `reference_logprob_chosen` and `reference_logprob_rejected`, nats, part by part; those of the slot `known` are taken from there.
pub(super) fn run(context: &Context) -> Result<Summary, StageError> {
    let paired = Paired::read(context)?;
    let total = paired.pairs.len();
    let mut writer = context.writer(Some(TableKind::Pairs), total, PAIRS_PER_PART)?;
    let missing = writer.missing();
    let label = context.task.label();
    let mut done = total - missing.iter().map(|part| writer.rows_of(*part).len()).sum::<usize>();
    let mut tokens = 0;
    context.progress.started(&label, "pairs", done as u64, total as u64);
    let known = known(context)?;
    let mut reference = None;
    for part in missing {
        context.check_stopped()?;
        let range = writer.rows_of(part);
        let mut rows: Vec<pairs::Row> = paired.pairs.get(range.clone()).unwrap_or(&[]).to_vec();
        for row in &mut rows {
            if let Some(&(chosen, rejected)) = known.get(&key(row)) {
                (row.reference_logprob_chosen, row.reference_logprob_rejected) = (Some(chosen), Some(rejected));
            }
        }
        let open: Vec<usize> = (0..rows.len()).filter(|row| rows[*row].reference_logprob_chosen.is_none()).collect();
        if !open.is_empty() {
            let device = context.device()?;
            let model = match &reference {
                Some(model) => model,
                None => reference.insert(context.checkpoint("reference")?.load(&device)?),
            };
            let responses = paired.responses(range, &device)?;
            let both: Vec<usize> = open.iter().copied().chain(open.iter().map(|row| rows.len() + row)).collect();
            let batch_size = context.task.resources.batch_size.map_or(BATCH_SIZE, |size| size as usize);
            let logprobs = training::response_logprobs(model, &responses, &both, batch_size)?;
            let (chosen, rejected) = logprobs.split_at(open.len());
            for ((row, chosen), rejected) in open.into_iter().zip(chosen).zip(rejected) {
                (rows[row].reference_logprob_chosen, rows[row].reference_logprob_rejected) = (Some(*chosen), Some(*rejected));
            }
            tokens += responses.token_count(&both) as u64;
        }
        writer.commit(part, &pairs::batch(&rows))?;
        done += rows.len();
        context.progress.advanced(&label, done as u64, tokens);
    }
    let carried = paired.pairs.iter().filter(|row| known.contains_key(&key(row))).count();
    if let Some(count) = paired.left_out.get("too_long") {
        let all = total as i64 + paired.left_out.values().sum::<i64>();
        context.progress.warned(&label, &format!("{count} of {all} preferences are left out: longer than the model allows"));
    }
    let left_out = paired.left_out_text().map_or(String::new(), |reasons| format!(", {reasons}"));
    let counts = [("pairs".to_string(), total as i64), ("known".to_string(), carried as i64)];
    writer.finish(counts.into_iter().chain(paired.left_out).collect())?;
    let known = if carried > 0 { format!(", {carried} known from the last iteration") } else { String::new() };
    Ok(Summary { text: format!("reference logprobs of {total} pairs{known}{left_out}"), tokens })
}

/// Which responses a pair is of.
type Key = (String, [i32; 4]);

fn key(row: &pairs::Row) -> Key {
    (row.prompt_id.clone(), [row.chosen_born, row.chosen_index, row.rejected_born, row.rejected_index])
}

/// The logprobs under the same reference, chosen and rejected, that the last iteration left.
fn known(context: &Context) -> Result<HashMap<Key, (f64, f64)>, StageError> {
    let rows = context.rows("known", pairs::rows)?;
    let logprobs = |row: pairs::Row| Some((key(&row), (row.reference_logprob_chosen?, row.reference_logprob_rejected?)));
    Ok(rows.into_iter().filter_map(logprobs).collect())
}
