//! reference: the pairs with the logprobs of the reference model, computed once and memoized. Every
//! `train` node has one, as `<node>_pairs`.
//!
//! Under an unchanged reference a response's logprob is computed once, in the first iteration of
//! the first run to need it.

use std::collections::HashSet;
use std::sync::{Mutex, PoisonError};

use super::support::advance::Advance;
use super::support::broken_model;
use super::support::logprob_memo::{Key, LogprobMemo, arithmetic};
use super::support::model_work::{Found, Job, Logprobs, Work};
use super::support::pair_tokens::PairTokens;
use super::support::parted_task::PartedTask;
use super::support::parts;
use super::support::replicas::{self, Part};
use super::support::rows::rows_of;
use super::support::task_model::TaskModel;
use super::{Context, OperatorError, Summary};
use crate::pipeline::slot::Slot;
use crate::pipeline::spec::reference as spec;
use crate::tables::{TableKind, pairs};

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
    let batch_size = context.task.resources.batch_size.map_or(BATCH_SIZE, |size| size as usize);

    let logprobs = LogprobMemo::read(context, Slot::Reference, keys.iter().flatten())?;
    let known = keys.iter().flatten().filter(|key| logprobs.has(key)).count();
    let logprobs = Mutex::new(logprobs);
    // No code panics while it holds the lock.
    let locked = || logprobs.lock().unwrap_or_else(PoisonError::into_inner);
    let prepare = |part: &Part| {
        let mut open = Open::new(rows_of(&keys, part.rows.clone(), PLACE)?, &locked());
        if open.rows.is_empty() {
            return Ok((Vec::new(), open));
        }
        let (sequences, prompt_token_counts) = pair_tokens.sequences(part.rows.clone(), &open.rows)?;
        open.tokens = sequences.lengths().sum::<usize>() as u64;
        let job = Job::Logprobs(Logprobs { sequences, prompt_token_counts, batch_size });
        Ok((vec![Work { model: 0, of: None, job }], open))
    };
    let take = |part: &Part, open: Open, found: Vec<Found>| {
        let mut logprobs = locked();
        if let Some(found) = found.into_iter().next() {
            let found = found.numbers(open.keys.len())?;
            let of = |index: usize| {
                let row = part.rows.start + open.rows.get(index).map_or(0, |row| row % part.rows.len());
                format!("a response to prompt {}", pair_tokens.pairs.get(row).map_or("", |pair| pair.prompt_id.as_str()))
            };
            broken_model::check(&found, "logprob", of)?;
            logprobs.add(open.keys.iter().copied().zip(found.values))?;
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
        Ok(open.tokens)
    };
    // Often every logprob is known, and no model is loaded.
    let task = PartedTask { context, models: &[TaskModel::from_slot(Slot::Reference)], advance: &advance };
    parts::each_part(task, missing, replicas::all, prepare, take)?;
    let tokens = advance.tokens();
    let all = total as i64 + pair_tokens.left_out.values().sum::<i64>();
    pair_tokens.malformed.warn(context, all as usize);
    if let Some(count) = pair_tokens.left_out.get("too_long") {
        context.progress.warned(&label, &format!("{count} of {all} preferences are left out: longer than the model allows"));
    }
    let left_out = pair_tokens.left_out_text().map_or(String::new(), |reasons| format!(", {reasons}"));
    // Without the number of memoized logprobs: the manifest describes the pairs, not the events of
    // this run.
    writer.finish([("pairs".to_string(), total as i64)].into_iter().chain(pair_tokens.left_out.clone()).collect())?;
    let known = if known > 0 { format!(", {known} of {} known before", 2 * total) } else { String::new() };
    Ok(Summary { text: format!("reference logprobs of {total} pairs{known}{left_out}"), tokens })
}

/// The responses of a part without a logprob, each key once.
struct Open {
    /// Rows of the part: all chosen responses, then all rejected ones.
    rows: Vec<usize>,
    keys: Vec<Key>,
    /// The tokens of these rows, prompts included.
    tokens: u64,
}

impl Open {
    fn new(keys: &[[Key; 2]], logprobs: &LogprobMemo) -> Self {
        let both = keys.iter().map(|[chosen, _]| chosen).chain(keys.iter().map(|[_, rejected]| rejected));
        let mut seen = HashSet::new();
        let (rows, keys) = both.copied().enumerate().filter(|(_, key)| !logprobs.has(key) && seen.insert(*key)).unzip();
        Self { rows, keys, tokens: 0 }
    }
}
