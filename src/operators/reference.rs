//! reference: the pairs with the logprobs of the reference model, computed once and memoized. Every
//! `train` node has one, as `<node>_pairs`.
//!
//! Under an unchanged reference a response's logprob is computed once, in the first iteration of
//! the first run to need it.

use std::collections::HashSet;

use super::support::broken_model;
use super::support::logprob_memo::{Key, LogprobMemo, arithmetic};
use super::support::pair_tokens::PairTokens;
use super::support::rows::rows_of;
use super::{Context, OperatorError, Summary};
use crate::pipeline::slot::Slot;
use crate::pipeline::spec::reference as spec;
use crate::tables::{TableKind, pairs};
use crate::training;

/// Pairs in one part, unless the node's resources set another number.
const PAIRS_PER_PART: usize = 256;

/// Sequences in one batch of a model, unless the node's resources set another number.
const BATCH_SIZE: usize = 32;

/// This module in internal errors.
const PLACE: &str = "operators::reference";

/// Fills `reference_logprob_chosen` and `reference_logprob_rejected`, nats, part by part.
pub(super) fn run(context: &Context, settings: &spec::Reference) -> Result<Summary, OperatorError> {
    let pair_tokens = PairTokens::read(context, settings.malformed)?;
    let total = pair_tokens.pairs.len();
    let device = context.device()?;
    let precision = context.precision();
    let keys = pair_tokens.keys(&arithmetic(context)?)?;
    let mut writer = context.writer(Some(TableKind::Pairs), total, PAIRS_PER_PART)?;
    let missing = writer.missing();
    let label = context.task.label();
    let mut done = total - missing.iter().map(|part| writer.rows_of(*part).len()).sum::<usize>();
    let mut tokens = 0;
    context.progress.started(&label, "pairs", done as u64, total as u64);

    let mut logprobs = LogprobMemo::read(context, Slot::Reference, keys.iter().flatten())?;
    let known = keys.iter().flatten().filter(|key| logprobs.has(key)).count();
    let mut reference = None;
    for part in missing {
        context.check_stopped()?;
        let range = writer.rows_of(part);
        let keys = rows_of(&keys, range.clone(), PLACE)?;
        let (open, open_keys) = open(keys, &logprobs);
        if !open.is_empty() {
            let (model, folder) = match &reference {
                Some(reference) => reference,
                None => {
                    let checkpoint = context.checkpoint(Slot::Reference)?;
                    let model = checkpoint.load(&device)?.in_precision(precision);
                    reference.insert((model, checkpoint.folder().to_path_buf()))
                }
            };
            let responses = pair_tokens.responses(range.clone())?;
            let batch_size = context.task.resources.batch_size.map_or(BATCH_SIZE, |size| size as usize);
            let found = context.on_device(|| training::response_logprobs(model, &responses, &open, batch_size));
            let found = found.map_err(|error| OperatorError::from(error).of(&writer.name_of(part)))?;
            let of = |index: usize| {
                let row = range.start + open[index] % range.len();
                format!("a response to prompt {}", pair_tokens.pairs.get(row).map_or("", |pair| pair.prompt_id.as_str()))
            };
            broken_model::check(&found, "logprob", of, model, folder)?;
            tokens += responses.token_count(&open) as u64;
            logprobs.add(open_keys.into_iter().copied().zip(found))?;
        }
        let mut rows: Vec<pairs::Row> = rows_of(&pair_tokens.pairs, range, PLACE)?.to_vec();
        for (row, [chosen, rejected]) in rows.iter_mut().zip(keys) {
            let of = || format!("a response of the pair of prompt {}", row.prompt_id);
            let logprob_chosen = logprobs.logprob(chosen, of)?;
            let logprob_rejected = logprobs.logprob(rejected, of)?;
            row.reference_logprob_chosen = Some(logprob_chosen);
            row.reference_logprob_rejected = Some(logprob_rejected);
        }
        writer.commit(part, &pairs::batch(&rows))?;
        done += rows.len();
        context.progress.advanced(&label, done as u64, tokens);
    }
    let all = total as i64 + pair_tokens.left_out.values().sum::<i64>();
    pair_tokens.malformed.warn(context, all as usize);
    if let Some(count) = pair_tokens.left_out.get("too_long") {
        context.progress.warned(&label, &format!("{count} of {all} preferences are left out: longer than the model allows"));
    }
    let left_out = pair_tokens.left_out_text().map_or(String::new(), |reasons| format!(", {reasons}"));
    // Without the number of memoized logprobs: the manifest describes the pairs, not the events of
    // this run.
    writer.finish([("pairs".to_string(), total as i64)].into_iter().chain(pair_tokens.left_out).collect())?;
    let known = if known > 0 { format!(", {known} of {} known before", 2 * total) } else { String::new() };
    Ok(Summary { text: format!("reference logprobs of {total} pairs{known}{left_out}"), tokens })
}

/// The responses without a logprob, each key once: their rows, and their keys. Rows are all chosen
/// responses, then all rejected ones.
fn open<'k>(keys: &'k [[Key; 2]], logprobs: &LogprobMemo) -> (Vec<usize>, Vec<&'k Key>) {
    let both = keys.iter().map(|[chosen, _]| chosen).chain(keys.iter().map(|[_, rejected]| rejected));
    let mut seen = HashSet::new();
    both.enumerate().filter(|(_, key)| !logprobs.has(key) && seen.insert(*key)).unzip()
}
