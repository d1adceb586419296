//! Training data: token sequences of a prompt and a response.
//!
//! Knows no model. Padding follows from lengths, never from token ids.

use std::ops::Range;

use crate::token_lists::TokenLists;

use super::TrainingError;

/// Sequences of prompt and response tokens, with the boundary of each.
#[derive(Clone, Debug)]
pub struct Responses {
    sequences: TokenLists,
    prompt_token_counts: Vec<usize>,
}

impl Responses {
    /// The first `prompt_token_counts[row]` tokens of each row are its prompt.
    ///
    /// # Errors
    /// When the counts are not one a row, a prompt is empty (its response's first token would have
    /// nothing to follow) or a prompt is longer than its row. An empty response is allowed: its
    /// logprob is 0.
    pub fn new(sequences: TokenLists, prompt_token_counts: Vec<usize>) -> Result<Self, TrainingError> {
        if prompt_token_counts.len() != sequences.rows() {
            let (found, expected) = (prompt_token_counts.len(), sequences.rows());
            return Err(TrainingError::Input(format!("{found} prompt token counts, expected one for each of {expected} responses")));
        }
        for (row, (&prompt, length)) in prompt_token_counts.iter().zip(sequences.iter().map(<[i32]>::len)).enumerate() {
            if prompt == 0 || prompt > length {
                let problem = format!("response {row} has {prompt} prompt tokens, expected 1 to {length}, its length");
                return Err(TrainingError::Input(problem));
            }
        }
        Ok(Self { sequences, prompt_token_counts })
    }

    /// The prompts and responses.
    pub fn sequences(&self) -> &TokenLists {
        &self.sequences
    }

    /// How many responses there are.
    pub fn rows(&self) -> usize {
        self.sequences.rows()
    }

    /// The length of `row` in tokens, prompt included; 0 for a missing row.
    pub(super) fn length(&self, row: usize) -> usize {
        self.sequences.length(row)
    }

    /// How many tokens, prompts included, the chosen rows hold without padding. Missing rows count
    /// nothing.
    pub fn token_count(&self, rows: &[usize]) -> usize {
        rows.iter().map(|&row| self.length(row)).sum()
    }

    /// How many tokens of the chosen rows are their responses'.
    pub(super) fn response_token_count(&self, rows: &[usize]) -> usize {
        rows.iter().map(|&row| self.response(row).len()).sum()
    }

    /// How many tokens of each row are its prompt.
    pub(super) fn prompt_token_counts(&self) -> &[usize] {
        &self.prompt_token_counts
    }

    /// The columns of `row` with its response; empty for a missing row.
    pub(super) fn response(&self, row: usize) -> Range<usize> {
        let length = self.sequences.length(row);
        self.prompt_token_counts.get(row).copied().unwrap_or(length)..length
    }
}
