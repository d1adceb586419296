//! The token ids of pairs: a join of `pairs` with the responses of every iteration they were sampled in, or preferences tokenized.

use std::collections::BTreeMap;

use arrow::array::{AsArray, Int32Array, RecordBatch};
use arrow::compute::concat;
use arrow::datatypes::DataType;

use super::tensors;
use super::{Context, StageError};
use crate::model::ModelError;
use crate::tables::{self, TableKind, pairs};
use crate::token_lists::TokenLists;
use crate::training::Responses;

/// What a response and its prompt are to a model, as a hash.
pub type Key = [u8; 32];

/// Pairs in the order of their prompt_ids, with the token ids of both responses.
pub struct Paired {
    /// The pairs; row i of `pairs` has the token ids in rows i and `pairs.len() + i` of `token_ids`.
    pub pairs: Vec<pairs::Row>,
    /// How many rows of a table of preferences make no pair, by the reason; only reasons that there are.
    pub left_out: BTreeMap<String, i64>,
    /// Those of all chosen responses, then those of all rejected ones.
    token_ids: TokenLists,
    prompt_token_counts: Vec<usize>,
}

/// The plan as SQL over `pairs` and `responses`.
const SQL: &str = "SELECT pairs.prompt_id, pairs.chosen_born, pairs.chosen_index, pairs.rejected_born, pairs.rejected_index,
       pairs.reward_gap, pairs.weight, pairs.reference_logprob_chosen, pairs.reference_logprob_rejected,
       chosen.prompt_token_count, chosen.token_ids AS chosen_token_ids, rejected.token_ids AS rejected_token_ids
FROM pairs
JOIN responses AS chosen
  ON pairs.prompt_id = chosen.prompt_id AND pairs.chosen_born = chosen.born AND pairs.chosen_index = chosen.response_index
JOIN responses AS rejected
  ON pairs.prompt_id = rejected.prompt_id AND pairs.rejected_born = rejected.born AND pairs.rejected_index = rejected.response_index
ORDER BY pairs.prompt_id";

impl Paired {
    /// The pairs in the slot `pairs`, with the responses in the slot `responses`; or those of the slot `preferences`.
    ///
    /// # Errors
    /// A pair whose responses are not there, or that the model in `from` cannot tokenize.
    pub fn read(context: &Context) -> Result<Self, StageError> {
        if context.has("preferences") { Self::of_preferences(context) } else { Self::of_responses(context) }
    }

    fn of_responses(context: &Context) -> Result<Self, StageError> {
        let session = context.session()?;
        context.register(&session, "pairs", "pairs")?;
        context.register(&session, "responses", "responses")?;
        let expected = session.count("SELECT count(*) FROM pairs")?;
        let batches = session.query(SQL)?;
        let pairs =
            batches.iter().map(|batch| Ok(pairs::rows(&TableKind::Pairs.conform(batch)?)?)).collect::<Result<Vec<_>, StageError>>()?;
        let pairs = pairs.concat();
        if pairs.len() as i64 != expected {
            return Err(StageError::Input(format!("expected the responses of {expected} pairs, found those of {}", pairs.len())));
        }
        let token_ids = token_lists(&batches, ["chosen_token_ids", "rejected_token_ids"])?;
        let mut prompt_token_counts = Vec::with_capacity(pairs.len());
        for batch in &batches {
            let counts: &Int32Array = tables::column(batch, "prompt_token_count")?;
            prompt_token_counts.extend(counts.values().iter().map(|count| usize::try_from(*count).unwrap_or(0)));
        }
        Ok(Self { pairs, left_out: BTreeMap::new(), token_ids, prompt_token_counts })
    }

    /// Preferences as the tokenizer of the slot `from` has them, chosen as response 0 and rejected as response 1 of iteration 0.
    ///
    /// No pair is a row whose scores do not put chosen before rejected, whose responses are the same, or that is longer than the model's
    /// context. Without scores the reward_gap is 1, and without a column `weight` the weight is. Where the slot `pairs` is filled, its
    /// rows are taken, with their reference logprobs.
    fn of_preferences(context: &Context) -> Result<Self, StageError> {
        let checkpoint = context.checkpoint("from")?;
        let longest = checkpoint.config.max_position_embeddings;
        let (mut pairs, mut left_out) = (Vec::new(), BTreeMap::new());
        let (mut chosen, mut rejected, mut prompt_token_counts) = (Vec::new(), Vec::new(), Vec::new());
        for preference in context.preferences("preferences")? {
            let encode = |response: &str| {
                let at = |error| StageError::Input(format!("preference {}: {error}", preference.id));
                checkpoint.encode_pair(&preference.asked, response).map_err(at)
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
                chosen_born: 0,
                chosen_index: 0,
                rejected_born: 0,
                rejected_index: 1,
                reward_gap,
                weight: preference.weight.unwrap_or(1.0),
                reference_logprob_chosen: None,
                reference_logprob_rejected: None,
            });
        }
        if context.has("pairs") {
            let referenced = context.rows("pairs", pairs::rows)?;
            if !referenced.iter().map(|row| &row.prompt_id).eq(pairs.iter().map(|row| &row.prompt_id)) {
                let (expected, found) = (pairs.len(), referenced.len());
                return Err(StageError::Input(format!("expected the pairs of these {expected} preferences, found {found} others")));
            }
            pairs = referenced;
        }
        chosen.append(&mut rejected);
        let token_ids = TokenLists::from_rows(&chosen).map_err(ModelError::from)?;
        Ok(Self { pairs, left_out, token_ids, prompt_token_counts })
    }

    /// The keys of each pair's responses, chosen and rejected; `computed` says in words how what is kept under them was computed.
    ///
    /// # Errors
    /// Token ids that are none.
    pub fn keys(&self, computed: &str) -> Result<Vec<[Key; 2]>, StageError> {
        let count = self.prompt_token_counts.len();
        let key = |row: usize, prompt: usize| -> Result<Key, StageError> {
            Ok(key(computed, prompt, self.token_ids.row(row).map_err(ModelError::from)?))
        };
        let prompts = self.prompt_token_counts.iter().enumerate();
        prompts.map(|(row, &prompt)| Ok([key(row, prompt)?, key(count + row, prompt)?])).collect()
    }

    /// Why rows of a table of preferences make no pair, as `279 too long, 1 same response`; `None` where all do.
    pub fn left_out_text(&self) -> Option<String> {
        let reasons: Vec<String> = self.left_out.iter().map(|(reason, count)| format!("{count} {}", reason.replace('_', " "))).collect();
        (!reasons.is_empty()).then(|| reasons.join(", "))
    }

    /// Tokens of the longest pair, its prompt once.
    pub fn longest(&self) -> usize {
        let count = self.prompt_token_counts.len();
        let tokens =
            |(row, prompt): (usize, &usize)| self.token_ids.length(row) + self.token_ids.length(count + row).saturating_sub(*prompt);
        self.prompt_token_counts.iter().enumerate().map(tokens).max().unwrap_or(0)
    }

    /// Rows `range` of both responses: first all chosen ones, then all rejected ones.
    pub fn responses(&self, range: std::ops::Range<usize>) -> Result<Responses, StageError> {
        let count = self.prompt_token_counts.len();
        let rejected = count + range.start..count + range.end;
        let token_ids = self.token_ids.select(range.clone().chain(rejected)).map_err(ModelError::from)?;
        let counts = self.prompt_token_counts.get(range).unwrap_or(&[]);
        Ok(Responses::new(token_ids, [counts, counts].concat())?)
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

/// Columns of all batches, one column after the other.
fn token_lists(batches: &[RecordBatch], names: [&str; 2]) -> Result<TokenLists, StageError> {
    let columns = names.into_iter().flat_map(|name| batches.iter().filter_map(move |batch| batch.column_by_name(name)));
    let columns: Vec<&dyn arrow::array::Array> = columns.map(|column| column.as_ref()).collect();
    match columns.first().map(|column| column.data_type()) {
        None => tensors::token_lists(tensors::empty_lists(0).as_list()),
        Some(DataType::List(_)) => tensors::token_lists(concat(&columns)?.as_list()),
        Some(other) => Err(StageError::Input(format!("token_ids: expected a list of Int32, found {other}"))),
    }
}
