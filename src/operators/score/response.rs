//! A response to score, and its score.

use std::collections::BTreeMap;

use super::OperatorError;
use super::score_error::ScoreError;
use crate::model::PromptContent;
use crate::tables::responses;

/// A prompt for models, servers and processes.
pub(super) struct ScoringPrompt {
    pub(super) content: PromptContent,
    pub(super) reference_answer: Option<String>,
    /// Its batch in the table of prompts, and its row in the batch.
    pub(super) place: (usize, usize),
}

/// A response without an error.
pub(super) struct ResponseToScore<'a> {
    pub(super) row: &'a responses::Row,
    /// Its prompt. `None` if all scorers are queries: they join the prompts themselves.
    pub(super) prompt: Option<&'a ScoringPrompt>,
}

impl ResponseToScore<'_> {
    /// The key of the response, for errors.
    pub(super) fn description(&self) -> String {
        format!("prompt_id {}, response_index {}", self.row.prompt_id, self.row.response_index)
    }

    /// Its own tokens, without those of the prompt.
    pub(super) fn token_ids(&self) -> &[i32] {
        usize::try_from(self.row.prompt_token_count).ok().and_then(|count| self.row.token_ids.get(count..)).unwrap_or_default()
    }

    pub(super) fn prompt(&self) -> Result<&ScoringPrompt, OperatorError> {
        self.prompt.ok_or_else(|| {
            OperatorError::Input(format!("expected the prompt of {}, found none in the table of prompts", self.description()))
        })
    }
}

/// The reward of a response.
#[derive(Clone, Debug, Default)]
pub(super) struct Score {
    pub(super) reward: f64,
    /// The parts of the reward, by name.
    pub(super) components: BTreeMap<String, f64>,
}

impl Score {
    /// A reward without components. It must be finite; `scorer` is for errors.
    pub(super) fn plain(scorer: &str, reward: f64) -> Result<Self, ScoreError> {
        if reward.is_finite() { Ok(Self { reward, components: BTreeMap::new() }) } else { Err(ScoreError::not_finite(scorer, reward)) }
    }
}

/// The score or the error of each response.
pub(super) type Scores = Vec<Result<Score, ScoreError>>;
