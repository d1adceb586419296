//! Logprobs of responses under a model, computed once for all runs of a folder.
//!
//! A logprob is memoized beside the runs, under the model's fingerprint. Its key is a hash of the
//! token ids and of the arithmetic. No table depends on the memo: on the CPU a logprob is a
//! function of the model and the token ids alone, to the last bit. Knows neither pairs nor
//! evaluations.

use std::collections::{HashMap, HashSet};

use super::{Context, OperatorError};
use crate::compute::Precision;
use crate::dag::fingerprint::Fingerprint;
use crate::pipeline::slot::Slot;
use crate::tables::{TableKind, logprobs};

/// This module in internal errors.
const PLACE: &str = "operators::support::logprob_memo";

/// A hash of a response with its prompt, as token ids, and of the arithmetic.
pub type Key = [u8; 32];

/// The memoized logprobs under the model of a slot.
pub struct LogprobMemo<'a> {
    context: &'a Context<'a>,
    model: Fingerprint,
    logprobs: HashMap<Key, f64>,
}

impl<'a> LogprobMemo<'a> {
    /// The memoized logprobs of these keys under the model in `slot`. Damaged files are reported,
    /// and their logprobs are missing.
    ///
    /// # Errors
    /// Files cannot be read.
    pub fn read<'k>(context: &'a Context<'a>, slot: Slot, keys: impl IntoIterator<Item = &'k Key>) -> Result<Self, OperatorError> {
        let model = context.fingerprint_of(slot)?;
        let (batches, damaged) = context.run.memo().read(&context.task.output_key(), TableKind::Logprobs, &model)?;
        for bad in damaged {
            context.progress.warned(&context.task.label(), &bad.to_string());
        }
        let wanted: HashSet<&Key> = keys.into_iter().collect();
        let mut logprobs = HashMap::new();
        for batch in batches {
            let rows = logprobs::rows(&batch)?.into_iter().filter(|row| wanted.contains(&row.key));
            logprobs.extend(rows.map(|row| (row.key, row.logprob)));
        }
        Ok(Self { context, model, logprobs })
    }

    /// Whether the logprob of a key is known.
    pub fn has(&self, key: &Key) -> bool {
        self.logprobs.contains_key(key)
    }

    /// The known logprob of a key, in nats.
    ///
    /// # Errors
    /// It is not known; `of` names its response.
    pub fn logprob(&self, key: &Key, of: impl Fn() -> String) -> Result<f64, OperatorError> {
        self.logprobs.get(key).copied().ok_or_else(|| OperatorError::internal(PLACE, format!("no logprob of {}", of())))
    }

    /// Adds computed logprobs, for this task and all later ones.
    ///
    /// # Errors
    /// A logprob is not finite, or the file cannot be written.
    pub fn add(&mut self, computed: impl IntoIterator<Item = (Key, f64)>) -> Result<(), OperatorError> {
        let mut rows: Vec<logprobs::Row> = computed.into_iter().map(|(key, logprob)| logprobs::Row { key, logprob }).collect();
        rows.sort_by_key(|row| row.key);
        self.context.run.memo().add(TableKind::Logprobs, &self.model, &logprobs::batch(&rows))?;
        self.logprobs.extend(rows.into_iter().map(|row| (row.key, row.logprob)));
        Ok(())
    }
}

/// The arithmetic of the logprobs of a task, for [`key`]: device, precision and the version of its
/// operator.
///
/// # Errors
/// The device is not there.
pub fn arithmetic(context: &Context) -> Result<String, OperatorError> {
    // A GPU's numbers differ from the CPU's in their last digits.
    let device = if context.on_cpu()? { "cpu" } else { "gpu" };
    let version = context.recipe.version;
    Ok(match context.precision() {
        Precision::F32 => format!("{device} {version}"),
        precision @ Precision::Bf16 => format!("{device} {} {version}", precision.name()),
    })
}

/// The blake3 of the arithmetic, the number of prompt tokens, and the token ids.
pub fn key(arithmetic: &str, prompt_token_count: usize, token_ids: &[i32]) -> Key {
    // Lengths come before texts, so two different keys never have the same bytes.
    let mut bytes = Vec::with_capacity(16 + arithmetic.len() + 4 * token_ids.len());
    bytes.extend((arithmetic.len() as u64).to_le_bytes());
    bytes.extend(arithmetic.as_bytes());
    bytes.extend((prompt_token_count as u64).to_le_bytes());
    bytes.extend(token_ids.iter().flat_map(|id| id.to_le_bytes()));
    *blake3::hash(&bytes).as_bytes()
}
