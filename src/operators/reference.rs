//! reference: the pairs with the logprobs of the reference model, computed once and memoized. Every
//! `train` node has one, as `<node>_pairs`.
//!
//! Under an unchanged reference a response's logprob is computed once, in the first iteration of
//! the first run to need it.

use std::collections::{BTreeMap, HashSet};

use super::support::broken_model;
use super::support::logprob_memo::{Key, LogprobMemo, arithmetic};
use super::support::model_work::{Found, Job, Logprobs, TaskModel, Work};
use super::support::pair_tokens::PairTokens;
use super::support::parts::{self, Parts};
use super::support::rows::rows_of;
use super::{Context, OperatorError, Summary};
use crate::pipeline::slot::Slot;
use crate::pipeline::spec::reference as spec;
use crate::store::TableWriter;
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
    let writer = context.writer(Some(TableKind::Pairs), total, PAIRS_PER_PART)?;
    let missing = writer.missing();
    let label = context.task.label();
    let done = total - missing.iter().map(|part| writer.rows_of(*part).len()).sum::<usize>();
    context.progress.started(&label, "pairs", done as u64, total as u64);

    let logprobs = LogprobMemo::read(context, Slot::Reference, keys.iter().flatten())?;
    let known = keys.iter().flatten().filter(|key| logprobs.has(key)).count();
    let (asked, open) = (HashSet::new(), BTreeMap::new());
    let mut parts = ReferenceParts { context, pair_tokens: &pair_tokens, keys: &keys, writer, logprobs, asked, open, done, tokens: 0 };
    parts::compute(context, &mut [TaskModel::of_slot(Slot::Reference)], missing, &mut parts)?;
    let ReferenceParts { writer, tokens, .. } = parts;

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

/// The responses of a part with a logprob to compute.
struct Open {
    /// Rows of the part: all chosen responses, then all rejected ones.
    rows: Vec<usize>,
    keys: Vec<Key>,
    tokens: u64,
    /// Whether the logprobs are there. A part also needs those of responses that it shares with
    /// earlier parts.
    is_computed: bool,
}

/// The parts of the pairs.
struct ReferenceParts<'a, 'c> {
    context: &'a Context<'c>,
    pair_tokens: &'a PairTokens,
    keys: &'a [[Key; 2]],
    writer: TableWriter<'a>,
    logprobs: LogprobMemo<'a>,
    /// The keys that are computed by some part of this call.
    asked: HashSet<Key>,
    /// The parts in work.
    open: BTreeMap<usize, Open>,
    done: usize,
    tokens: u64,
}

impl Parts for ReferenceParts<'_, '_> {
    fn name(&self, part: usize) -> String {
        self.writer.name_of(part)
    }

    fn work(&mut self, part: usize) -> Result<Vec<Work>, OperatorError> {
        let range = self.writer.rows_of(part);
        let keys = rows_of(self.keys, range.clone(), PLACE)?;
        let (rows, keys) = self.unknown(keys);
        if rows.is_empty() {
            self.open.insert(part, Open { rows, keys, tokens: 0, is_computed: false });
            return Ok(Vec::new());
        }
        let (sequences, prompt_token_counts) = self.pair_tokens.sequences(range, &rows)?;
        let tokens = sequences.lengths().sum::<usize>() as u64;
        self.open.insert(part, Open { rows, keys, tokens, is_computed: false });
        let batch_size = self.context.task.resources.batch_size.map_or(BATCH_SIZE, |size| size as usize);
        let job = Job::Logprobs(Logprobs { sequences, prompt_token_counts, batch_size });
        Ok(vec![Work { model: 0, of: None, job }])
    }

    fn take(&mut self, part: usize, found: Vec<Found>) -> Result<(), OperatorError> {
        let missing = || OperatorError::internal(PLACE, format!("part {part} comes back without a question"));
        let open = self.open.get_mut(&part).ok_or_else(missing)?;
        open.is_computed = true;
        for found in found {
            let numbers = found.numbers(open.keys.len())?;
            let range = self.writer.rows_of(part);
            let of = |index: usize| {
                let row = open.rows.get(index).map_or(range.start, |row| range.start + row % range.len().max(1));
                format!("a response to prompt {}", self.pair_tokens.pairs.get(row).map_or("", |pair| pair.prompt_id.as_str()))
            };
            broken_model::check(&numbers, "logprob", of)?;
            self.logprobs.add(open.keys.iter().copied().zip(numbers.values))?;
            self.tokens += open.tokens;
        }
        self.commit()
    }

    fn so_far(&self) -> (u64, u64) {
        (self.done as u64, self.tokens)
    }
}

impl ReferenceParts<'_, '_> {
    /// The responses with a logprob that is neither known nor asked for, each key once: their rows,
    /// and their keys. Rows are all chosen responses, then all rejected ones.
    fn unknown(&mut self, keys: &[[Key; 2]]) -> (Vec<usize>, Vec<Key>) {
        let both = keys.iter().map(|[chosen, _]| chosen).chain(keys.iter().map(|[_, rejected]| rejected));
        both.enumerate().filter(|(_, key)| !self.logprobs.has(key) && self.asked.insert(**key)).map(|(row, key)| (row, *key)).unzip()
    }

    /// Commits the computed parts whose logprobs are all known.
    fn commit(&mut self) -> Result<(), OperatorError> {
        let computed: Vec<usize> = self.open.iter().filter(|(_, open)| open.is_computed).map(|(part, _)| *part).collect();
        for part in computed {
            let range = self.writer.rows_of(part);
            let keys = rows_of(self.keys, range.clone(), PLACE)?;
            if !keys.iter().flatten().all(|key| self.logprobs.has(key)) {
                continue;
            }
            let mut rows: Vec<pairs::Row> = rows_of(&self.pair_tokens.pairs, range, PLACE)?.to_vec();
            for (row, [chosen, rejected]) in rows.iter_mut().zip(keys) {
                let of = || format!("a response of the pair of prompt {}", row.prompt_id);
                let logprob_chosen = self.logprobs.logprob(chosen, of)?;
                let logprob_rejected = self.logprobs.logprob(rejected, of)?;
                row.reference_logprob_chosen = Some(logprob_chosen);
                row.reference_logprob_rejected = Some(logprob_rejected);
            }
            self.writer.commit(part, &pairs::batch(&rows))?;
            self.open.remove(&part);
            self.done += rows.len();
            self.context.progress.advanced(&self.context.task.label(), self.done as u64, self.tokens);
        }
        Ok(())
    }
}
