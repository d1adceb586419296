//! Scores from a reward model, with its own tokenizer and chat template.
//!
//! Knows whole conversations, not how a sum of rewards is computed.

use std::path::Path;
use std::sync::Arc;

use super::score_error::ScoreError;
use super::{ResponseToScore, Score, Scores, ScoringPrompt};
use crate::model::Checkpoint;
use crate::operators::support::model_work::{Found, Job, Rewards, Work};
use crate::operators::support::task_model::TaskModel;
use crate::operators::{Context, OperatorError};
use crate::token_lists::TokenLists;

/// Conversations in one forward pass, unless the node's resources have another number.
const BATCH_SIZE: usize = 16;

/// This module in internal errors.
const PLACE: &str = "operators::score::model";

/// A reward model, opened.
pub(super) struct ModelScorer {
    checkpoint: Arc<Checkpoint>,
    /// Its place among the models of the task.
    index: usize,
    batch_size: usize,
}

/// Conversations for a reward model.
pub(super) struct Conversations {
    /// The number of tokens of each, or the reason for no score.
    encoded: Vec<Result<usize, String>>,
}

impl Conversations {
    /// How many of them are for the model.
    pub(super) fn scored(&self) -> usize {
        self.encoded.iter().filter(|encoded| encoded.is_ok()).count()
    }
}

impl ModelScorer {
    /// Opens the reward model in `folder`, and adds it to the models of the task.
    pub(super) fn open(context: &Context, folder: &Path, models: &mut Vec<TaskModel>) -> Result<Self, OperatorError> {
        let model = TaskModel::from_folder(folder);
        let checkpoint = model.checkpoint(context)?;
        let batch_size = context.task.resources.batch_size.map_or(BATCH_SIZE, |size| size as usize);
        models.push(model);
        Ok(Self { checkpoint, index: models.len() - 1, batch_size })
    }

    /// The conversations of these responses, and the computation of their rewards if there are any.
    pub(super) fn work(&self, responses: &[ResponseToScore]) -> Result<(Conversations, Option<Work>), OperatorError> {
        let mut encoded = Vec::with_capacity(responses.len());
        for response in responses {
            encoded.push(self.encode(response.prompt()?, &response.row.text));
        }
        let tokens: Vec<&Vec<i32>> = encoded.iter().filter_map(|encoded| encoded.as_ref().ok()).collect();
        let work = if tokens.is_empty() {
            None
        } else {
            let job = Job::Rewards(Rewards { sequences: TokenLists::from_rows(&tokens)?, batch_size: self.batch_size });
            Some(Work { model: self.index, of: None, job })
        };
        let encoded = encoded.into_iter().map(|encoded| encoded.map(|ids| ids.len())).collect();
        Ok((Conversations { encoded }, work))
    }

    /// The model's output at the scored token of each conversation. It does not depend on the other
    /// conversations of the batch. `found` are the outputs, if any were computed.
    pub(super) fn score(
        &self,
        responses: &[ResponseToScore],
        conversations: Conversations,
        found: Option<Found>,
    ) -> Result<Scores, OperatorError> {
        let count = conversations.scored();
        let numbers = found.map(|found| found.numbers(count)).transpose()?;
        let encoded = conversations.encoded;
        let scored = responses.iter().zip(&encoded).filter(|(_, encoded)| encoded.is_ok()).map(|(response, _)| response);
        if let Some(numbers) = &numbers
            && let Some((response, reward)) = scored.zip(&numbers.values).find(|(_, reward)| !reward.is_finite())
            && let Some(name) = &numbers.broken
        {
            let (response, folder) = (response.description(), numbers.folder.display());
            let problem = format!("reward model: expected a finite reward for {response}, found {reward}");
            return Err(OperatorError::Input(format!("{problem}: the weights {name} of {folder} are not finite; the model is broken")));
        }
        let mut rewards = numbers.map_or(Vec::new(), |numbers| numbers.values).into_iter();
        let mut scores = Vec::with_capacity(responses.len());
        for encoded in encoded {
            scores.push(match encoded {
                Ok(_) => {
                    let missing = || OperatorError::internal(PLACE, "a conversation has no reward");
                    Score::plain("reward model", rewards.next().ok_or_else(missing)?)
                }
                Err(problem) => Err(ScoreError::Other(problem)),
            });
        }
        Ok(scores)
    }

    /// The token ids of a conversation up to the scored one, or the reason for it to have no score.
    fn encode(&self, prompt: &ScoringPrompt, response: &str) -> Result<Vec<i32>, String> {
        let tokens = self.checkpoint.encode_conversation(&prompt.content, response).map_err(|error| error.to_string())?;
        let tokens = self.checkpoint.up_to_score(tokens);
        let limit = self.checkpoint.config.longest_sequence().0;
        if tokens.is_empty() || tokens.len() > limit {
            return Err(format!("expected 1 to {limit} tokens of prompt and response for the reward model, found {}", tokens.len()));
        }
        Ok(tokens)
    }
}
