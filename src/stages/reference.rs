//! reference: the pairs with the reference's logprobs, computed once and kept. Comes with every `train` node, as `<node>_pairs`.
//!
//! A response's logprob is kept beside the runs under the reference's fingerprint, by its token ids and by how it was computed. So under a
//! reference that stays the same it is computed once, in whichever iteration of whichever run needs it first. The table does not depend on
//! what was kept: on the processor a logprob is a function of the reference and the token ids alone, to the last bit.

use std::collections::{BTreeMap, HashMap, HashSet};

use super::paired::{Key, Paired};
use super::{Context, StageError, Summary};
use crate::dag::fingerprint::Fingerprint;
use crate::model;
use crate::tables::{TableKind, logprobs, pairs};
use crate::training;

/// Pairs in one part, unless the node's resources say otherwise.
const PAIRS_PER_PART: usize = 256;

/// Sequences that go through the reference at once, unless the node's resources say otherwise.
pub(super) const BATCH_SIZE: usize = 32;

/// Fills `reference_logprob_chosen` and `reference_logprob_rejected`, nats, part by part.
pub(super) fn run(context: &Context) -> Result<Summary, StageError> {
    let paired = Paired::read(context)?;
    let total = paired.pairs.len();
    let device = context.device()?;
    let keys = paired.keys(&format!("{} {}", model::arithmetic(&device), context.recipe.version))?;
    let mut writer = context.writer(Some(TableKind::Pairs), total, PAIRS_PER_PART)?;
    let missing = writer.missing();
    let label = context.task.label();
    let mut done = total - missing.iter().map(|part| writer.rows_of(*part).len()).sum::<usize>();
    let mut tokens = 0;
    context.progress.started(&label, "pairs", done as u64, total as u64);

    let mut logprobs = Logprobs::read(context, &keys)?;
    let known = keys.iter().flatten().filter(|key| logprobs.get(key).is_some()).count();
    for part in 0..writer.part_count() {
        let Some(batch) = writer.committed_part(part)? else { continue };
        for (row, [chosen, rejected]) in pairs::rows(&batch)?.iter().zip(keys.get(writer.rows_of(part)).unwrap_or(&[])) {
            logprobs.add(chosen, row.reference_logprob_chosen);
            logprobs.add(rejected, row.reference_logprob_rejected);
        }
    }
    let mut reference = None;
    for part in missing {
        context.check_stopped()?;
        let range = writer.rows_of(part);
        let keys = keys.get(range.clone()).unwrap_or(&[]);
        // In the order of the responses: all chosen ones, then all rejected ones.
        let both = keys.iter().map(|[chosen, _]| chosen).chain(keys.iter().map(|[_, rejected]| rejected));
        let mut met = HashSet::new();
        let open = both.enumerate().filter(|(_, key)| logprobs.get(key).is_none() && met.insert(*key));
        let (open, open_keys): (Vec<usize>, Vec<&Key>) = open.unzip();
        if !open.is_empty() {
            let model = match &reference {
                Some(model) => model,
                None => reference.insert(context.checkpoint("reference")?.load(&device)?),
            };
            let responses = paired.responses(range.clone(), &device)?;
            let batch_size = context.task.resources.batch_size.map_or(BATCH_SIZE, |size| size as usize);
            let found = training::response_logprobs(model, &responses, &open, batch_size)?;
            tokens += responses.token_count(&open) as u64;
            open_keys.into_iter().zip(found).for_each(|(key, logprob)| logprobs.add(key, Some(logprob)));
        }
        let mut rows: Vec<pairs::Row> = paired.pairs.get(range).unwrap_or(&[]).to_vec();
        for (row, [chosen, rejected]) in rows.iter_mut().zip(keys) {
            (row.reference_logprob_chosen, row.reference_logprob_rejected) = (logprobs.get(chosen), logprobs.get(rejected));
        }
        writer.commit(part, &pairs::batch(&rows))?;
        done += rows.len();
        context.progress.advanced(&label, done as u64, tokens);
    }
    logprobs.keep(context)?;
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

/// Logprobs under the reference, by the keys of [`Paired::keys`].
struct Logprobs {
    reference: Fingerprint,
    /// Those that were kept before this run of the stage.
    kept: HashMap<Key, f64>,
    /// The others. Ordered, so that equal ones are kept as equal files.
    new: BTreeMap<Key, f64>,
}

impl Logprobs {
    /// Those of `keys` that are kept; what is damaged is reported and computed again.
    fn read(context: &Context, keys: &[[Key; 2]]) -> Result<Self, StageError> {
        let reference = context.fingerprint_of("reference")?;
        let (batches, damaged) = context.run.kept(&context.task.place(), TableKind::Logprobs, &reference)?;
        for bad in damaged {
            context.progress.warned(&context.task.label(), &bad.to_string());
        }
        let wanted: HashSet<&Key> = keys.iter().flatten().collect();
        let mut kept = HashMap::new();
        for batch in batches {
            let rows = logprobs::rows(&batch)?.into_iter().filter(|row| wanted.contains(&row.key));
            kept.extend(rows.map(|row| (row.key, row.logprob)));
        }
        Ok(Self { reference, kept, new: BTreeMap::new() })
    }

    fn get(&self, key: &Key) -> Option<f64> {
        self.kept.get(key).or_else(|| self.new.get(key)).copied()
    }

    fn add(&mut self, key: &Key, logprob: Option<f64>) {
        if let (Some(logprob), false) = (logprob, self.kept.contains_key(key)) {
            self.new.insert(*key, logprob);
        }
    }

    /// Keeps the new ones for every run.
    fn keep(self, context: &Context) -> Result<(), StageError> {
        if self.new.is_empty() {
            return Ok(());
        }
        let rows: Vec<logprobs::Row> = self.new.into_iter().map(|(key, logprob)| logprobs::Row { key, logprob }).collect();
        Ok(context.run.keep(TableKind::Logprobs, &self.reference, &logprobs::batch(&rows))?)
    }
}
