//! reference: the pairs with the reference's logprobs, computed once and kept. Comes with every `train` node, as `<node>_pairs`.

use super::paired::Paired;
use super::{Context, StageError, Summary};
use crate::tables::{TableKind, pairs};
use crate::training;

/// Pairs in one part, unless the node's resources say otherwise.
const PAIRS_PER_PART: usize = 256;

/// Sequences that go through the reference at once, unless the node's resources say otherwise.
pub(super) const BATCH_SIZE: usize = 32;

/// Fills `reference_logprob_chosen` and `reference_logprob_rejected`, nats, part by part.
pub(super) fn run(context: &Context) -> Result<Summary, StageError> {
    let paired = Paired::read(context)?;
    let total = paired.pairs.len();
    let mut writer = context.writer(Some(TableKind::Pairs), total, PAIRS_PER_PART)?;
    let missing = writer.missing();
    let label = context.task.label();
    let mut done = total - missing.iter().map(|part| writer.rows_of(*part).len()).sum::<usize>();
    let mut tokens = 0;
    context.progress.started(&label, "pairs", done as u64, total as u64);
    if !missing.is_empty() {
        let device = context.device()?;
        let model = context.checkpoint("reference")?.load(&device)?;
        let batch_size = context.task.resources.batch_size.map_or(BATCH_SIZE, |size| size as usize);
        for part in missing {
            context.check_stopped()?;
            let range = writer.rows_of(part);
            let mut rows: Vec<pairs::Row> = paired.pairs.get(range.clone()).unwrap_or(&[]).to_vec();
            let responses = paired.responses(range, &device)?;
            let all: Vec<usize> = (0..responses.rows()).collect();
            let logprobs = training::response_logprobs(&model, &responses, &all, batch_size)?;
            let (chosen, rejected) = logprobs.split_at(rows.len());
            for ((row, chosen), rejected) in rows.iter_mut().zip(chosen).zip(rejected) {
                row.reference_logprob_chosen = Some(*chosen);
                row.reference_logprob_rejected = Some(*rejected);
            }
            tokens += responses.token_count(&all) as u64;
            writer.commit(part, &pairs::batch(&rows))?;
            done += rows.len();
            context.progress.advanced(&label, done as u64, tokens);
        }
    }
    if let Some(count) = paired.left_out.get("too_long") {
        let all = total as i64 + paired.left_out.values().sum::<i64>();
        context.progress.warned(&label, &format!("{count} of {all} preferences are left out: longer than the model allows"));
    }
    let left_out: String = paired.left_out.iter().map(|(reason, count)| format!(", {count} {}", reason.replace('_', " "))).collect();
    writer.finish([("pairs".to_string(), total as i64)].into_iter().chain(paired.left_out).collect())?;
    Ok(Summary { text: format!("reference logprobs of {total} pairs{left_out}"), tokens })
}
