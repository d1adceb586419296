//! Scores from a reward model, with its own tokenizer and chat template.
//!
//! Knows whole conversations, not how a sum of rewards is computed.

use std::path::Path;
use std::sync::Arc;

use super::score_error::ScoreError;
use super::{Replica, ResponseToScore, Score, Scores, ScoringPrompt};
use crate::compute::RewardModel;
use crate::model::Checkpoint;
use crate::operators::{Context, OperatorError};
use crate::token_lists::TokenLists;
use crate::training::{self, broken_parameter};

/// Conversations in one forward pass, unless the node's resources have another number.
const BATCH_SIZE: usize = 16;

/// A reward model on its device.
pub(super) struct ModelScorer {
    checkpoint: Arc<Checkpoint>,
    model: RewardModel,
    batch_size: usize,
}

/// The reward model in `folder`, on each of these replicas.
pub(super) fn load(context: &Context, replicas: &[Replica], folder: &Path) -> Result<Vec<ModelScorer>, OperatorError> {
    let checkpoint = Arc::new(Checkpoint::open(folder)?.with_template_settings(context.task.template_settings()));
    let batch_size = context.task.resources.batch_size.map_or(BATCH_SIZE, |size| size as usize);
    let on = |replica: &Replica| {
        let model = checkpoint.load_reward_model(&replica.device)?.in_precision(context.precision());
        Ok(ModelScorer { checkpoint: Arc::clone(&checkpoint), model, batch_size })
    };
    replicas.iter().map(on).collect()
}

impl ModelScorer {
    /// The model's output at the scored token of each conversation. It does not depend on the other
    /// conversations of the batch.
    pub(super) fn score(&self, context: &Context, responses: &[ResponseToScore]) -> Result<Scores, OperatorError> {
        let mut encoded = Vec::with_capacity(responses.len());
        for response in responses {
            encoded.push(self.encode(response.prompt()?, &response.row.text));
        }
        let tokens: Vec<&Vec<i32>> = encoded.iter().filter_map(|encoded| encoded.as_ref().ok()).collect();
        let rewards = if tokens.is_empty() {
            Vec::new()
        } else {
            context.check_stopped()?;
            let sequences = TokenLists::from_rows(&tokens)?;
            let rows: Vec<usize> = (0..tokens.len()).collect();
            context.on_device(|| training::rewards(&self.model, &sequences, &rows, self.batch_size))?
        };
        if rewards.len() != tokens.len() {
            let problem = format!("expected {} rewards, one for each conversation, found {}", tokens.len(), rewards.len());
            return Err(OperatorError::internal("operators::score::model", problem));
        }
        let scored = responses.iter().zip(&encoded).filter(|(_, encoded)| encoded.is_ok()).map(|(response, _)| response);
        if let Some((response, reward)) = scored.zip(&rewards).find(|(_, reward)| !reward.is_finite())
            && let Some(name) = broken_parameter(&self.model)
        {
            let (response, folder) = (response.description(), self.checkpoint.folder().display());
            let problem = format!("reward model: expected a finite reward for {response}, found {reward}");
            return Err(OperatorError::Input(format!("{problem}: the weights {name} of {folder} are not finite; the model is broken")));
        }
        let mut rewards = rewards.into_iter();
        let mut scores = Vec::with_capacity(responses.len());
        for encoded in encoded {
            scores.push(match encoded {
                Ok(_) => {
                    // The lengths were compared above.
                    let missing = || OperatorError::internal("operators::score::model", "a conversation has no reward");
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
