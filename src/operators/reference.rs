//! reference: the pairs with the logprobs of the reference model, computed once and memoized. Every
//! `train` node has one, as `<node>_pairs`.
//!
//! Under an unchanged reference a response's logprob is computed once, in the first iteration of
//! the first run to need it.

use std::collections::HashSet;
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};

use burn::tensor::Device;

use super::support::advance::Advance;
use super::support::broken_model;
use super::support::logprob_memo::{Key, LogprobMemo, arithmetic};
use super::support::pair_tokens::PairTokens;
use super::support::replicas::{self, Part, Replica};
use super::support::rows::rows_of;
use super::{Context, OperatorError, Summary};
use crate::compute::CausalLm;
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
    let keys = pair_tokens.keys(&arithmetic(context)?)?;
    let mut writer = context.writer(Some(TableKind::Pairs), total, PAIRS_PER_PART)?;
    let missing = replicas::missing(&writer);
    let label = context.task.label();
    let done = total - missing.iter().map(|part| part.rows.len()).sum::<usize>();
    let advance = Advance::start(context, "pairs", done, total);

    let logprobs = LogprobMemo::read(context, Slot::Reference, keys.iter().flatten())?;
    let known = keys.iter().flatten().filter(|key| logprobs.has(key)).count();
    let logprobs = Mutex::new(logprobs);
    // No code panics while it holds the lock.
    let locked = || logprobs.lock().unwrap_or_else(PoisonError::into_inner);
    let compute = |reference: &mut LazyReference, part: &Part| {
        let part_keys = rows_of(&keys, part.rows.clone(), PLACE)?;
        let (open, open_keys) = open(part_keys, &locked());
        if open.is_empty() {
            return Ok((Vec::new(), 0));
        }
        let (model, folder) = reference.model(context)?;
        let responses = pair_tokens.responses(part.rows.clone())?;
        let batch_size = context.task.resources.batch_size.map_or(BATCH_SIZE, |size| size as usize);
        let found = context.on_device(|| training::response_logprobs(model, &responses, &open, batch_size));
        let found = found.map_err(|error| OperatorError::from(error).of(&part.name))?;
        let of = |index: usize| {
            let row = part.rows.start + open[index] % part.rows.len();
            format!("a response to prompt {}", pair_tokens.pairs.get(row).map_or("", |pair| pair.prompt_id.as_str()))
        };
        broken_model::check(&found, "logprob", of, model, folder)?;
        let found: Vec<(Key, f64)> = open_keys.into_iter().copied().zip(found).collect();
        Ok((found, responses.token_count(&open) as u64))
    };
    let load = |replica: &Replica| Ok(LazyReference { device: replica.device.clone(), loaded: None });
    replicas::each_part(context, &replicas::all(context)?, missing, load, compute, |part, (found, tokens)| {
        let mut logprobs = locked();
        if !found.is_empty() {
            logprobs.add(found)?;
        }
        let mut rows: Vec<pairs::Row> = rows_of(&pair_tokens.pairs, part.rows.clone(), PLACE)?.to_vec();
        for (row, [chosen, rejected]) in rows.iter_mut().zip(rows_of(&keys, part.rows.clone(), PLACE)?) {
            let of = || format!("a response of the pair of prompt {}", row.prompt_id);
            let logprob_chosen = logprobs.logprob(chosen, of)?;
            let logprob_rejected = logprobs.logprob(rejected, of)?;
            row.reference_logprob_chosen = Some(logprob_chosen);
            row.reference_logprob_rejected = Some(logprob_rejected);
        }
        drop(logprobs);
        writer.commit(part.number, &pairs::batch(&rows))?;
        advance.finish(rows.len(), tokens, 0);
        Ok(())
    })?;
    let tokens = advance.tokens();
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

/// The reference model of one replica. Often every logprob is known, and none is loaded.
struct LazyReference {
    device: Device,
    loaded: Option<(CausalLm, PathBuf)>,
}

impl LazyReference {
    /// The model, and its folder for errors.
    fn model(&mut self, context: &Context) -> Result<&(CausalLm, PathBuf), OperatorError> {
        if self.loaded.is_none() {
            let checkpoint = context.checkpoint(Slot::Reference)?;
            let model = checkpoint.load(&self.device)?.in_precision(context.precision());
            self.loaded = Some((model, checkpoint.folder().to_path_buf()));
        }
        self.loaded.as_ref().ok_or_else(|| OperatorError::internal(PLACE, "no reference model"))
    }
}

/// The responses without a logprob, each key once: their rows, and their keys. Rows are all chosen
/// responses, then all rejected ones.
fn open<'k>(keys: &'k [[Key; 2]], logprobs: &LogprobMemo) -> (Vec<usize>, Vec<&'k Key>) {
    let both = keys.iter().map(|[chosen, _]| chosen).chain(keys.iter().map(|[_, rejected]| rejected));
    let mut seen = HashSet::new();
    both.enumerate().filter(|(_, key)| !logprobs.has(key) && seen.insert(*key)).unzip()
}
