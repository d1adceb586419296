//! The token ids of pairs: a join of `pairs` with the responses of every iteration they were sampled in, or preferences tokenized.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, Int32Array, Int32Builder, ListBuilder, RecordBatch};
use arrow::compute::concat;
use arrow::datatypes::{DataType, Field, Int32Type};
use burn::tensor::Device;

use super::tensors;
use super::{Context, OperatorError};
use crate::model::Sequences;
use crate::pipeline::slot::Slot;
use crate::tables::{self, TableKind, pairs};
use crate::training::Responses;

/// What a response and its prompt are to a model, as a hash.
pub type Key = [u8; 32];

/// Pairs in the order of their prompt_ids, with the token ids of both responses.
pub struct PairTokens {
    /// The pairs; row i of `pairs` has the token ids in row i of `chosen` and `rejected`.
    pub pairs: Vec<pairs::Row>,
    /// How many rows of a table of preferences make no pair, by the reason; only reasons that there are.
    pub left_out: BTreeMap<String, i64>,
    chosen: ArrayRef,
    rejected: ArrayRef,
    prompt_token_counts: Vec<usize>,
}

/// The plan as SQL over `pairs` and `responses`.
const SQL: &str = "SELECT pairs.prompt_id, pairs.chosen_sampled_iteration, pairs.chosen_index, pairs.rejected_sampled_iteration, pairs.rejected_index,
       pairs.reward_gap, pairs.weight, pairs.reference_logprob_chosen, pairs.reference_logprob_rejected,
       chosen.prompt_token_count, chosen.token_ids AS chosen_token_ids, rejected.token_ids AS rejected_token_ids
FROM pairs
JOIN responses AS chosen
  ON pairs.prompt_id = chosen.prompt_id AND pairs.chosen_sampled_iteration = chosen.sampled_iteration AND pairs.chosen_index = chosen.response_index
JOIN responses AS rejected
  ON pairs.prompt_id = rejected.prompt_id AND pairs.rejected_sampled_iteration = rejected.sampled_iteration AND pairs.rejected_index = rejected.response_index
ORDER BY pairs.prompt_id";

impl PairTokens {
    /// The pairs in the slot `pairs`, with the responses in the slot `responses`; or those of the slot `preferences`.
    ///
    /// # Errors
    /// A pair whose responses are not there, or that the model in `from` cannot tokenize.
    pub fn read(context: &Context) -> Result<Self, OperatorError> {
        if context.has(Slot::Preferences) { Self::of_preferences(context) } else { Self::of_responses(context) }
    }

    fn of_responses(context: &Context) -> Result<Self, OperatorError> {
        let session = context.session()?;
        context.register(&session, "pairs", Slot::Pairs)?;
        context.register(&session, "responses", Slot::Responses)?;
        let expected = session.count("SELECT count(*) FROM pairs")?;
        let batches = session.query(SQL)?;
        let pairs =
            batches.iter().map(|batch| Ok(pairs::rows(&TableKind::Pairs.conform(batch)?)?)).collect::<Result<Vec<_>, OperatorError>>()?;
        let pairs = pairs.concat();
        if pairs.len() as i64 != expected {
            return Err(OperatorError::Input(format!("expected the responses of {expected} pairs, found those of {}", pairs.len())));
        }
        let (chosen, rejected) = (lists(&batches, "chosen_token_ids")?, lists(&batches, "rejected_token_ids")?);
        let mut prompt_token_counts = Vec::with_capacity(pairs.len());
        for batch in &batches {
            let counts: &Int32Array = tables::column(batch, "prompt_token_count")?;
            prompt_token_counts.extend(counts.values().iter().map(|count| usize::try_from(*count).unwrap_or(0)));
        }
        Ok(Self { pairs, left_out: BTreeMap::new(), chosen, rejected, prompt_token_counts })
    }

    /// Preferences as the tokenizer of the slot `from` has them, chosen as response 0 and rejected as response 1 of iteration 0.
    ///
    /// No pair is a row whose scores do not put chosen before rejected, whose responses are the same, or that is longer than the model's
    /// context. Without scores the reward_gap is 1, and without a column `weight` the weight is. Where the slot `pairs` is filled, its
    /// rows are taken, with their reference logprobs.
    fn of_preferences(context: &Context) -> Result<Self, OperatorError> {
        let checkpoint = context.checkpoint(Slot::From)?;
        let longest = checkpoint.config.max_position_embeddings;
        let (mut pairs, mut left_out) = (Vec::new(), BTreeMap::new());
        let (mut chosen, mut rejected, mut prompt_token_counts) = (Vec::new(), Vec::new(), Vec::new());
        for preference in context.preferences(Slot::Preferences)? {
            let encode = |response: &str| {
                let at = |error| OperatorError::Input(format!("preference {}: {error}", preference.id));
                checkpoint.encode_pair(&preference.prompt, response).map_err(at)
            };
            let reward_gap = preference.reward_gap.unwrap_or(1.0);
            let mut leave_out = |reason: &str| *left_out.entry(reason.to_string()).or_insert(0) += 1;
            if reward_gap <= 0.0 {
                leave_out("without_gap");
                continue;
            }
            if preference.chosen == preference.rejected {
                leave_out("same_response");
                continue;
            }
            let (one, other) = (encode(&preference.chosen)?, encode(&preference.rejected)?);
            if one.token_ids.len().max(other.token_ids.len()) > longest {
                leave_out("too_long");
                continue;
            }
            prompt_token_counts.push(one.prompt_token_count);
            chosen.push(one.token_ids);
            rejected.push(other.token_ids);
            pairs.push(pairs::Row {
                prompt_id: preference.id,
                chosen_sampled_iteration: 0,
                chosen_index: 0,
                rejected_sampled_iteration: 0,
                rejected_index: 1,
                reward_gap,
                weight: preference.weight.unwrap_or(1.0),
                reference_logprob_chosen: None,
                reference_logprob_rejected: None,
            });
        }
        if context.has(Slot::Pairs) {
            let referenced = context.rows(Slot::Pairs, pairs::rows)?;
            if !referenced.iter().map(|row| &row.prompt_id).eq(pairs.iter().map(|row| &row.prompt_id)) {
                let (expected, found) = (pairs.len(), referenced.len());
                return Err(OperatorError::Input(format!("expected the pairs of these {expected} preferences, found {found} others")));
            }
            pairs = referenced;
        }
        Ok(Self { pairs, left_out, chosen: token_lists(chosen), rejected: token_lists(rejected), prompt_token_counts })
    }

    /// The keys of each pair's responses, chosen and rejected; `computed` says in words how what is kept under them was computed.
    ///
    /// # Errors
    /// Token ids that are none.
    pub fn keys(&self, computed: &str) -> Result<Vec<[Key; 2]>, OperatorError> {
        let keys = |lists: &ArrayRef| -> Result<Vec<Key>, OperatorError> {
            let all = lists.as_list::<i32>().iter().zip(&self.prompt_token_counts);
            all.map(|(ids, count)| {
                let ids = ids.as_ref().and_then(|ids| ids.as_primitive_opt::<Int32Type>());
                let ids = ids.ok_or_else(|| OperatorError::Input("token_ids: expected lists of Int32, found others".to_string()))?;
                Ok(key(computed, *count, ids.values()))
            })
            .collect()
        };
        Ok(keys(&self.chosen)?.into_iter().zip(keys(&self.rejected)?).map(|(chosen, rejected)| [chosen, rejected]).collect())
    }

    /// Why rows of a table of preferences make no pair, as `279 too long, 1 same response`; `None` where all do.
    pub fn left_out_text(&self) -> Option<String> {
        let reasons: Vec<String> = self.left_out.iter().map(|(reason, count)| format!("{count} {}", reason.replace('_', " "))).collect();
        (!reasons.is_empty()).then(|| reasons.join(", "))
    }

    /// Tokens of the longest pair, its prompt once.
    pub fn longest(&self) -> usize {
        let length = |lists: &ArrayRef, row: usize| lists.as_list::<i32>().value_length(row) as usize;
        let tokens = |(row, prompt): (usize, &usize)| length(&self.chosen, row) + length(&self.rejected, row).saturating_sub(*prompt);
        self.prompt_token_counts.iter().enumerate().map(tokens).max().unwrap_or(0)
    }

    /// Rows `range` of both responses on `device`: first all chosen ones, then all rejected ones.
    pub fn responses(&self, range: std::ops::Range<usize>, device: &Device) -> Result<Responses, OperatorError> {
        let part = |lists: &ArrayRef| lists.slice(range.start, range.len());
        let both = concat(&[&part(&self.chosen), &part(&self.rejected)])?;
        let counts = self.prompt_token_counts.get(range).unwrap_or(&[]);
        let sequences: Sequences = tensors::sequences(both.as_list(), device)?;
        Ok(Responses::new(sequences, [counts, counts].concat())?)
    }
}

/// The blake3 of `computed`, of how many of the tokens are the prompt's, and of the token ids.
fn key(computed: &str, prompt_token_count: usize, token_ids: &[i32]) -> Key {
    // Lengths before what may have any, so that no two keys are of the same bytes.
    let mut bytes = Vec::with_capacity(16 + computed.len() + 4 * token_ids.len());
    bytes.extend((computed.len() as u64).to_le_bytes());
    bytes.extend(computed.as_bytes());
    bytes.extend((prompt_token_count as u64).to_le_bytes());
    bytes.extend(token_ids.iter().flat_map(|id| id.to_le_bytes()));
    *blake3::hash(&bytes).as_bytes()
}

/// Token ids as one list array of Int32.
fn token_lists(rows: Vec<Vec<i32>>) -> ArrayRef {
    let mut lists = ListBuilder::new(Int32Builder::new()).with_field(Field::new_list_field(DataType::Int32, false));
    for row in rows {
        lists.values().append_slice(&row);
        lists.append(true);
    }
    Arc::new(lists.finish())
}

/// One column of all batches as one list array of Int32.
fn lists(batches: &[RecordBatch], name: &str) -> Result<ArrayRef, OperatorError> {
    let columns: Vec<&dyn arrow::array::Array> =
        batches.iter().filter_map(|batch| batch.column_by_name(name)).map(|c| c.as_ref()).collect();
    match columns.first().map(|column| column.data_type()) {
        None => Ok(tensors::empty_lists(0)),
        Some(DataType::List(_)) => Ok(concat(&columns)?),
        Some(other) => Err(OperatorError::Input(format!("{name}: expected a list of Int32, found {other}"))),
    }
}
