//! Scores by a reward model, with its own tokenizer and chat template.
//!
//! Knows whole conversations; not how several sources are added up.

use super::problem::Problem;
use super::{Item, Score, Scores};
use crate::compute::RewardModel;
use crate::model::{Checkpoint, ModelError};
use crate::stages::reward::ModelAt;
use crate::stages::{Context, StageError};
use crate::token_lists::TokenLists;
use crate::training;

/// Conversations that go through the model together, unless the node's resources say otherwise.
const BATCH_SIZE: usize = 16;

/// A reward model on its device.
pub(super) struct Model {
    checkpoint: Checkpoint,
    model: RewardModel,
    batch_size: usize,
}

impl Model {
    pub(super) fn load(context: &Context, at: ModelAt) -> Result<Self, StageError> {
        let checkpoint = match at {
            ModelAt::Outside(path) => Checkpoint::open(path)?,
            ModelAt::Made(task) => Checkpoint::open(&context.run.model_dir(&task.place())?)?,
        }
        .with_date(context.task.date());
        let model = checkpoint.load_reward_model(&context.device()?)?;
        let batch_size = context.task.resources.batch_size.map_or(BATCH_SIZE, |size| size as usize);
        Ok(Self { checkpoint, model, batch_size })
    }

    /// The score at each conversation's last token, whatever stands beside it in the batch.
    pub(super) fn score(&self, context: &Context, items: &[Item]) -> Result<Scores, StageError> {
        let encoded = items.iter().map(|item| Ok(self.encode(item.question()?, &item.row.text))).collect::<Result<Vec<_>, StageError>>()?;
        let tokens: Vec<&Vec<i32>> = encoded.iter().filter_map(|encoded| encoded.as_ref().ok()).collect();
        let mut rewards = if tokens.is_empty() {
            Vec::new()
        } else {
            context.check_stopped()?;
            let sequences = TokenLists::from_rows(&tokens).map_err(ModelError::from)?;
            training::rewards(&self.model, &sequences, &(0..tokens.len()).collect::<Vec<_>>(), self.batch_size)?
        }
        .into_iter();
        let score = |encoded: Result<Vec<i32>, String>| match encoded {
            // There is one reward for each conversation that could be encoded.
            Ok(_) => Score::plain("reward model", rewards.next().unwrap_or(f64::NAN)),
            Err(problem) => Err(Problem::Other(problem)),
        };
        Ok(encoded.into_iter().map(score).collect())
    }

    /// The conversation's ids, or why it cannot be scored.
    fn encode(&self, question: &super::Question, response: &str) -> Result<Vec<i32>, String> {
        let tokens = self.checkpoint.encode_conversation(&question.asked, response).map_err(|error| error.to_string())?;
        let limit = self.checkpoint.config.max_position_embeddings;
        if tokens.is_empty() || tokens.len() > limit {
            return Err(format!("expected 1 to {limit} tokens of prompt and response for the reward model, found {}", tokens.len()));
        }
        Ok(tokens)
    }
}
