//! What is trained on: token sequences that begin with a prompt and go on with a response.
//!
//! Knows no model; what is real and what is padding follows from lengths, never from token ids.

use std::ops::Range;

use crate::model::Sequences;

use super::TrainingError;

/// Sequences of prompt and response tokens, with the boundary of each.
#[derive(Clone, Debug)]
pub struct Responses {
    sequences: Sequences,
    prompt_token_counts: Vec<usize>,
}

impl Responses {
    /// `sequences` whose first `prompt_token_counts` tokens, one count a row, are the prompt.
    ///
    /// # Errors
    /// When the counts are not one a row, a prompt is empty (its response's first token would have nothing to follow) or a
    /// prompt is longer than its row. An empty response is allowed: its logprob is 0.
    pub fn new(sequences: Sequences, prompt_token_counts: Vec<usize>) -> Result<Self, TrainingError> {
        if prompt_token_counts.len() != sequences.rows() {
            let (found, expected) = (prompt_token_counts.len(), sequences.rows());
            return Err(TrainingError::Input(format!("{found} prompt token counts, expected one for each of {expected} responses")));
        }
        for (row, (&prompt, &length)) in prompt_token_counts.iter().zip(sequences.lengths()).enumerate() {
            if prompt == 0 || prompt > length {
                let problem = format!("response {row} has {prompt} prompt tokens, expected 1 to {length}, its length");
                return Err(TrainingError::Input(problem));
            }
        }
        Ok(Self { sequences, prompt_token_counts })
    }

    /// The prompts and responses.
    pub fn sequences(&self) -> &Sequences {
        &self.sequences
    }

    /// How many responses there are.
    pub fn rows(&self) -> usize {
        self.sequences.rows()
    }

    /// The length of `row` in tokens, prompt included; 0 for a row that does not exist.
    pub(super) fn length(&self, row: usize) -> usize {
        self.sequences.lengths().get(row).copied().unwrap_or(0)
    }

    /// How many tokens, prompts included, the chosen rows hold without padding. Rows that do not exist count nothing.
    pub fn token_count(&self, rows: &[usize]) -> usize {
        rows.iter().map(|&row| self.length(row)).sum()
    }

    /// The columns of `row` that hold its response; empty for a row that does not exist.
    pub(super) fn response(&self, row: usize) -> Range<usize> {
        match (self.prompt_token_counts.get(row), self.sequences.lengths().get(row)) {
            (Some(&prompt), Some(&length)) => prompt..length,
            _ => 0..0,
        }
    }
}
