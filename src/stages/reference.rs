//! reference: the pairs with the reference's logprobs, computed once and kept. Comes with every `train` node, as `<node>_pairs`.
//!
//! A response's logprob is kept beside the runs under the reference's fingerprint, by its token ids and by how it was computed. So under a
//! reference that stays the same it is computed once, in whichever iteration of whichever run needs it first. The table does not depend on
//! what was kept: on the processor a logprob is a function of the reference and the token ids alone, to the last bit.

use std::collections::{HashMap, HashSet};

use burn::tensor::Device;

use super::paired::{Key, Paired};
use super::{Context, StageError, Summary};
use crate::tables::{TableKind, logprobs, pairs};
use crate::training;

/// Pairs in one part, unless the node's resources say otherwise.
const PAIRS_PER_PART: usize = 256;

/// Sequences that go through a model at once, unless the node's resources say otherwise.
pub(super) const BATCH_SIZE: usize = 32;

/// Fills `reference_logprob_chosen` and `reference_logprob_rejected`, nats, part by part.
pub(super) fn run(context: &Context) -> Result<Summary, StageError> {
    let paired = Paired::read(context)?;
    let total = paired.pairs.len();
    let device = context.device()?;
    // A GPU's numbers differ from the processor's in their last digits.
    let arithmetic = if device == Device::flex() { "cpu" } else { "gpu" };
    let keys = paired.keys(&format!("{arithmetic} {}", context.recipe.version))?;
    let mut writer = context.writer(Some(TableKind::Pairs), total, PAIRS_PER_PART)?;
    let missing = writer.missing();
    let label = context.task.label();
    let mut done = total - missing.iter().map(|part| writer.rows_of(*part).len()).sum::<usize>();
    let mut tokens = 0;
    context.progress.started(&label, "pairs", done as u64, total as u64);

    let mut logprobs = kept(context, &keys)?;
    let known = keys.iter().flatten().filter(|key| logprobs.contains_key(*key)).count();
    let mut reference = None;
    for part in missing {
        context.check_stopped()?;
        let range = writer.rows_of(part);
        let keys = keys.get(range.clone()).unwrap_or(&[]);
        // In the order of the responses: all chosen ones, then all rejected ones.
        let both = keys.iter().map(|[chosen, _]| chosen).chain(keys.iter().map(|[_, rejected]| rejected));
        let mut met = HashSet::new();
        let open = both.enumerate().filter(|(_, key)| !logprobs.contains_key(*key) && met.insert(*key));
        let (open, open_keys): (Vec<usize>, Vec<&Key>) = open.unzip();
        if !open.is_empty() {
            let model = match &reference {
                Some(model) => model,
                None => reference.insert(context.checkpoint("reference")?.load(&device)?),
            };
            let responses = paired.responses(range.clone())?;
            let batch_size = context.task.resources.batch_size.map_or(BATCH_SIZE, |size| size as usize);
            let found = training::response_logprobs(model, &responses, &open, batch_size);
            let found = found.map_err(|error| StageError::from(error).of(&writer.name_of(part)))?;
            tokens += responses.token_count(&open) as u64;
            let mut new: Vec<logprobs::Row> =
                open_keys.into_iter().zip(found).map(|(key, logprob)| logprobs::Row { key: *key, logprob }).collect();
            new.sort_by_key(|row| row.key);
            context.run.keep(TableKind::Logprobs, &context.fingerprint_of("reference")?, &logprobs::batch(&new))?;
            logprobs.extend(new.into_iter().map(|row| (row.key, row.logprob)));
        }
        let mut rows: Vec<pairs::Row> = paired.pairs.get(range).unwrap_or(&[]).to_vec();
        for (row, [chosen, rejected]) in rows.iter_mut().zip(keys) {
            (row.reference_logprob_chosen, row.reference_logprob_rejected) =
                (logprobs.get(chosen).copied(), logprobs.get(rejected).copied());
        }
        writer.commit(part, &pairs::batch(&rows))?;
        done += rows.len();
        context.progress.advanced(&label, done as u64, tokens);
    }
    if let Some(count) = paired.left_out.get("too_long") {
        let all = total as i64 + paired.left_out.values().sum::<i64>();
        context.progress.warned(&label, &format!("{count} of {all} preferences are left out: longer than the model allows"));
    }
    let left_out = paired.left_out_text().map_or(String::new(), |reasons| format!(", {reasons}"));
    // Not how many were known: the manifest is of what the pairs are, not of what happened.
    writer.finish([("pairs".to_string(), total as i64)].into_iter().chain(paired.left_out).collect())?;
    let known = if known > 0 { format!(", {known} of {} known before", 2 * total) } else { String::new() };
    Ok(Summary { text: format!("reference logprobs of {total} pairs{known}{left_out}"), tokens })
}

/// The logprobs under the reference that are kept for these keys; what is damaged is reported and computed again.
fn kept(context: &Context, keys: &[[Key; 2]]) -> Result<HashMap<Key, f64>, StageError> {
    let (batches, damaged) = context.run.kept(&context.task.place(), TableKind::Logprobs, &context.fingerprint_of("reference")?)?;
    for bad in damaged {
        context.progress.warned(&context.task.label(), &bad.to_string());
    }
    let wanted: HashSet<&Key> = keys.iter().flatten().collect();
    let mut kept = HashMap::new();
    for batch in batches {
        let rows = logprobs::rows(&batch)?.into_iter().filter(|row| wanted.contains(&row.key));
        kept.extend(rows.map(|row| (row.key, row.logprob)));
    }
    Ok(kept)
}
