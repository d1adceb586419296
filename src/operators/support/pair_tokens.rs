//! The token ids of pairs: a join of `pairs` with the responses of all their iterations, or
//! tokenized preferences.
//!
//! Knows neither models nor losses.

use std::collections::BTreeMap;
use std::ops::Range;

use arrow::array::{Array, AsArray, Int32Array, RecordBatch};
use arrow::compute::concat;
use arrow::datatypes::DataType;

use super::ignored;
use super::logprob_memo::{Key, key};
use super::malformed_rows::MalformedRows;
use super::rows::{rows_of, unsigned};
use super::tensors;
use super::{Context, OperatorError};
use crate::model::Answer;
use crate::pipeline::slot::Slot;
use crate::pipeline::spec::malformed::Malformed;
use crate::tables::{self, TableKind, pairs};
use crate::token_lists::TokenLists;
use crate::training::Responses;

/// This module in internal errors.
const PLACE: &str = "operators::support::pair_tokens";

/// Pairs in the order of their prompt_ids, with the token ids of both responses.
pub struct PairTokens {
    /// The pairs; row i of `pairs` has the token ids in rows i and `pairs.len() + i` of
    /// `token_ids`.
    pub pairs: Vec<pairs::Row>,
    /// The number of preferences left out, by reason; without reasons of no preference.
    pub left_out: BTreeMap<String, i64>,
    /// Of these, the preferences that the model cannot read.
    pub malformed: MalformedRows,
    /// Those of all chosen responses, then those of all rejected ones.
    token_ids: TokenLists,
    prompt_token_counts: Vec<usize>,
}

/// The join as SQL over `pairs` and `responses`.
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
    /// The pairs in the slot `pairs`, with the responses in the slot `responses`; or those of the
    /// slot `preferences`.
    ///
    /// # Errors
    /// A pair without its responses; under `malformed: stop`, a preference refused by the tokenizer
    /// of the model in `from`.
    pub fn read(context: &Context, malformed: Malformed) -> Result<Self, OperatorError> {
        if context.has(Slot::Preferences) {
            Self::from_preferences(context, MalformedRows::new(malformed))
        } else {
            Self::from_responses(context)
        }
    }

    fn from_responses(context: &Context) -> Result<Self, OperatorError> {
        let session = context.session()?;
        context.register(&session, "pairs", Slot::Pairs)?;
        context.register(&session, "responses", Slot::Responses)?;
        let expected = session.count("SELECT count(*) FROM pairs")?;
        let batches = session.query(SQL)?;
        let pairs =
            batches.iter().map(|batch| Ok(pairs::rows(&TableKind::Pairs.conform(batch)?)?)).collect::<Result<Vec<_>, OperatorError>>()?;
        let pairs = pairs.concat();
        if pairs.len() as i64 != expected {
            let problem = format!("expected the responses of {expected} pairs, found those of {}", pairs.len());
            return Err(OperatorError::internal(PLACE, problem));
        }
        let token_ids = token_lists(&batches, ["chosen_token_ids", "rejected_token_ids"])?;
        let mut prompt_token_counts = Vec::with_capacity(pairs.len());
        for batch in &batches {
            let counts: &Int32Array = tables::column(batch, "prompt_token_count")?;
            for count in counts.values() {
                prompt_token_counts.push(unsigned(*count, PLACE)?);
            }
        }
        let malformed = MalformedRows::new(Malformed::Stop);
        Ok(Self { pairs, left_out: BTreeMap::new(), malformed, token_ids, prompt_token_counts })
    }

    /// Preferences in the tokens of the model in `from`: chosen is response 0 and rejected response
    /// 1 of iteration 0.
    ///
    /// A row is left out if its scores are equal, if both responses are the same, if it is longer
    /// than the model's context, or, under `malformed: skip`, if the model cannot read it. Without
    /// scores the reward_gap is 1. Without a column `weight` the weight is 1. Where the slot
    /// `pairs` is filled, its rows replace the pairs made here; they have the reference logprobs.
    fn from_preferences(context: &Context, mut malformed: MalformedRows) -> Result<Self, OperatorError> {
        let checkpoint = context.checkpoint(Slot::From)?;
        let longest = checkpoint.config.longest_sequence().0;
        let mut pairs = Vec::new();
        let mut left_out = BTreeMap::new();
        let mut chosen = Vec::new();
        let mut rejected = Vec::new();
        let mut prompt_token_counts = Vec::new();
        let preferences = context.preferences(Slot::Preferences)?;
        let sides = preferences.iter().flat_map(|row| [(&row.prompt, Some(row.chosen())), (&row.prompt, Some(row.rejected()))]);
        ignored::warn(context, &checkpoint, sides);
        for preference in preferences {
            let encode = |response: Answer| checkpoint.encode_pair(&preference.prompt, response).map_err(|error| error.to_string());
            let reward_gap = preference.reward_gap.unwrap_or(1.0);
            let mut leave_out = |reason: &str| *left_out.entry(reason.to_string()).or_insert(0) += 1;
            if reward_gap <= 0.0 {
                leave_out("without_gap");
                continue;
            }
            if preference.chosen() == preference.rejected() {
                leave_out("same_response");
                continue;
            }
            let encoded = encode(preference.chosen()).and_then(|chosen| Ok((chosen, encode(preference.rejected())?)));
            let (chosen_tokens, rejected_tokens) = match encoded {
                Ok(encoded) => encoded,
                Err(problem) => {
                    malformed.add(&problem, || format!("preference {}", preference.id))?;
                    leave_out("malformed");
                    continue;
                }
            };
            if chosen_tokens.token_ids.len().max(rejected_tokens.token_ids.len()) > longest {
                leave_out("too_long");
                continue;
            }
            prompt_token_counts.push(chosen_tokens.prompt_token_count);
            chosen.push(chosen_tokens.token_ids);
            rejected.push(rejected_tokens.token_ids);
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
                let problem = format!("expected the pairs of these {expected} preferences, found {found} others");
                return Err(OperatorError::internal(PLACE, problem));
            }
            pairs = referenced;
        }
        chosen.append(&mut rejected);
        let token_ids = TokenLists::from_rows(&chosen)?;
        Ok(Self { pairs, left_out, malformed, token_ids, prompt_token_counts })
    }

    /// The keys of each pair's responses, chosen and rejected, for logprobs of this arithmetic.
    ///
    /// # Errors
    /// A pair without token ids.
    pub fn keys(&self, arithmetic: &str) -> Result<Vec<[Key; 2]>, OperatorError> {
        let count = self.prompt_token_counts.len();
        let key = |row: usize, prompt: usize| -> Result<Key, OperatorError> { Ok(key(arithmetic, prompt, self.token_ids.row(row)?)) };
        let prompts = self.prompt_token_counts.iter().enumerate();
        prompts.map(|(row, &prompt)| Ok([key(row, prompt)?, key(count + row, prompt)?])).collect()
    }

    /// The token ids of each pair: of its prompt, of its chosen and of its rejected response.
    ///
    /// # Errors
    /// A pair without token ids.
    pub fn token_ids(&self) -> Result<Vec<[&[i32]; 3]>, OperatorError> {
        let count = self.prompt_token_counts.len();
        let problem = |row: usize| OperatorError::internal(PLACE, format!("pair {row} is shorter than its prompt"));
        let of_pair = |(row, &prompt): (usize, &usize)| {
            let chosen = self.token_ids.row(row)?.split_at_checked(prompt);
            let rejected = self.token_ids.row(count + row)?.split_at_checked(prompt);
            let (Some((prompt, chosen)), Some((_, rejected))) = (chosen, rejected) else { return Err(problem(row)) };
            Ok([prompt, chosen, rejected])
        };
        self.prompt_token_counts.iter().enumerate().map(of_pair).collect()
    }

    /// The reasons for left-out preferences, as `279 too long, 1 same response`; `None` without
    /// any.
    pub fn left_out_text(&self) -> Option<String> {
        let reasons: Vec<String> = self.left_out.iter().map(|(reason, count)| format!("{count} {}", reason.replace('_', " "))).collect();
        if reasons.is_empty() { None } else { Some(reasons.join(", ")) }
    }

    /// Tokens of the longest pair, its prompt once.
    pub fn longest(&self) -> usize {
        let count = self.prompt_token_counts.len();
        let tokens =
            |(row, prompt): (usize, &usize)| self.token_ids.length(row) + self.token_ids.length(count + row).saturating_sub(*prompt);
        self.prompt_token_counts.iter().enumerate().map(tokens).max().unwrap_or(0)
    }

    /// Rows `range` of both responses: first all chosen ones, then all rejected ones.
    pub fn responses(&self, range: Range<usize>) -> Result<Responses, OperatorError> {
        let all: Vec<usize> = (0..2 * range.len()).collect();
        let (sequences, prompt_token_counts) = self.sequences(range, &all)?;
        Ok(Responses::new(sequences, prompt_token_counts)?)
    }

    /// Some of the responses of the pairs in `range`, and the tokens of their prompts. `rows` count
    /// first all chosen ones of the range, then all rejected ones.
    pub fn sequences(&self, range: Range<usize>, rows: &[usize]) -> Result<(TokenLists, Vec<usize>), OperatorError> {
        let counts = rows_of(&self.prompt_token_counts, range.clone(), PLACE)?;
        let count = self.prompt_token_counts.len();
        // The rejected ones are behind the chosen ones of all pairs.
        let place = |row: &usize| range.start + row % counts.len() + if *row < counts.len() { 0 } else { count };
        let sequences = self.token_ids.select(rows.iter().map(place))?;
        Ok((sequences, rows.iter().map(|row| counts[row % counts.len()]).collect()))
    }
}

/// Two columns of all batches, one column after the other.
fn token_lists(batches: &[RecordBatch], names: [&str; 2]) -> Result<TokenLists, OperatorError> {
    let mut columns: Vec<&dyn Array> = Vec::with_capacity(2 * batches.len());
    for name in names {
        let missing = || OperatorError::internal(PLACE, format!("no column {name} in the join of pairs and responses"));
        for batch in batches {
            columns.push(batch.column_by_name(name).ok_or_else(missing)?.as_ref());
        }
    }
    match columns.first().map(|column| column.data_type()) {
        None => tensors::token_lists(tensors::empty_lists(0).as_list()),
        Some(DataType::List(_)) => tensors::token_lists(concat(&columns)?.as_list()),
        Some(other) => Err(OperatorError::internal(PLACE, format!("token_ids: expected a list of Int32, found {other}"))),
    }
}
