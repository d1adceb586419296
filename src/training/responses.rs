//! What is trained on: token sequences that begin with a prompt and go on with a response.
//!
//! Knows no model; what is real and what is padding follows from lengths, never from token ids.

use std::ops::Range;

use burn::tensor::Tensor;

use crate::model::{Family, ModelError, Padding, Sequences};

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

    /// How many tokens of the chosen rows are their responses'.
    pub(super) fn response_token_count(&self, rows: &[usize]) -> usize {
        rows.iter().map(|&row| self.response(row).len()).sum()
    }

    /// The chosen rows, of which each `together` begin alike, as the processor takes them, and how many tokens of each row are its prompt.
    pub(super) fn families(&self, rows: &[usize], together: usize) -> Result<(Vec<Family>, Vec<Vec<usize>>), TrainingError> {
        let prompts = rows.chunks(together.max(1)).map(|rows| rows.iter().map(|&row| self.response(row).start).collect());
        Ok((families(&self.sequences, rows, together)?, prompts.collect()))
    }

    /// The columns of `row` that hold its response; empty for a row that does not exist.
    pub(super) fn response(&self, row: usize) -> Range<usize> {
        match (self.prompt_token_counts.get(row), self.sequences.lengths().get(row)) {
            (Some(&prompt), Some(&length)) => prompt..length,
            _ => 0..0,
        }
    }
}

/// The ids of the chosen rows, in that order.
///
/// # Errors
/// When no row is chosen or one does not exist.
pub(super) fn token_ids(sequences: &Sequences, rows: &[usize]) -> Result<Vec<Vec<i32>>, TrainingError> {
    let tokens = sequences.gather(rows, Padding::Right)?;
    let [_, longest] = tokens.dims();
    let ids =
        Tensor::try_into_vec_as::<i32>(tokens).map_err(|error| ModelError::Device(format!("cannot read the tokens back: {error}")))?;
    // A row that was gathered has a length, which is at least 1.
    Ok(ids.chunks_exact(longest).zip(rows).map(|(ids, &row)| ids[..sequences.lengths()[row]].to_vec()).collect())
}

/// The chosen rows, of which each `together` begin alike, as the processor takes them.
///
/// # Errors
/// When no row is chosen or one does not exist.
pub(super) fn families(sequences: &Sequences, rows: &[usize], together: usize) -> Result<Vec<Family>, TrainingError> {
    let ids = token_ids(sequences, rows)?;
    let pieces = rows.chunks(together.max(1)).zip(ids.chunks(together.max(1)));
    // A family's dropout is drawn from its first row.
    Ok(pieces.map(|(rows, ids)| Family::new(rows[0] as u64, &ids.iter().map(Vec::as_slice).collect::<Vec<_>>())).collect())
}
