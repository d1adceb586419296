//! Preferences as a reward model takes them: two conversations each, in its own tokens; split into those it learns and those held out.
//!
//! Knows neither loss nor model weights.

use std::collections::HashSet;

use super::prompts::fingerprint;
use super::{Context, Preference, StageError};
use crate::model::{Asked, Checkpoint, ModelError};
use crate::pipeline::spec::held_out::HeldOut;
use crate::token_lists::TokenLists;

/// Which of the preferences.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Part {
    /// Those to train on.
    Training,
    /// Those held out.
    HeldOut,
}

/// Preferences as token ids, in the order of their ids.
pub(super) struct Comparisons {
    /// The preferences, without those that are too long.
    pub rows: Vec<Preference>,
    chosen: Vec<Vec<i32>>,
    rejected: Vec<Vec<i32>>,
    /// How many were left out because a conversation has too many tokens.
    pub too_long: usize,
}

impl Comparisons {
    /// The preferences in the slot `preferences`, or in `held_out` where that is a table of its own. One prompt's preferences are all
    /// learned or all held out, so that nothing of a held-out prompt is learned.
    ///
    /// # Errors
    /// A table that holds no preferences, or a conversation that the model's chat template refuses.
    pub fn read(context: &Context, checkpoint: &Checkpoint, held_out: &HeldOut, part: Part, max_tokens: u32) -> Result<Self, StageError> {
        let mut preferences: Vec<Preference> = match (part, held_out) {
            (Part::HeldOut, HeldOut::Table(_)) => context.preferences("held_out")?.into_iter().collect(),
            _ => context.preferences("preferences")?.into_iter().collect(),
        };
        if let HeldOut::Share(share) = held_out {
            let tested = drawn(context, &preferences, *share);
            preferences.retain(|preference| tested.contains(&fingerprint(&preference.asked)) == (part == Part::HeldOut));
        }
        let limit = (max_tokens as usize).min(checkpoint.config.max_position_embeddings);
        let (mut rows, mut chosen, mut rejected) = (Vec::new(), Vec::new(), Vec::new());
        let count = preferences.len();
        for preference in preferences {
            let encode = |asked: &Asked, response: &str| {
                let tokens = checkpoint.encode_conversation(asked, response);
                tokens.map_err(|error| StageError::Input(format!("preference {}: {error}", preference.id)))
            };
            let both = (encode(&preference.asked, &preference.chosen)?, encode(&preference.asked, &preference.rejected)?);
            if both.0.len().max(both.1.len()) <= limit {
                chosen.push(both.0);
                rejected.push(both.1);
                rows.push(preference);
            }
        }
        let too_long = count - rows.len();
        if too_long > 0 {
            let message = format!("{too_long} of {count} preferences are left out: more than {limit} tokens");
            context.progress.warned(&context.task.label(), &message);
        }
        Ok(Self { rows, chosen, rejected, too_long })
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.rows.len()
    }

    /// The conversations of the preferences in `range`: first all with the chosen, then all with the rejected response.
    ///
    /// # Errors
    /// No preference, or a conversation without a token.
    pub fn sequences(&self, range: std::ops::Range<usize>) -> Result<TokenLists, StageError> {
        let both = [&self.chosen, &self.rejected].map(|all| all.get(range.clone()).unwrap_or(&[]).iter());
        let rows: Vec<&Vec<i32>> = both.into_iter().flatten().collect();
        Ok(TokenLists::from_rows(&rows).map_err(ModelError::from)?)
    }
}

/// The prompts that are held out: the first ceil(share · prompts) in an order drawn from the seed.
fn drawn(context: &Context, preferences: &[Preference], share: f64) -> HashSet<String> {
    let stream = context.seed();
    let prompts: HashSet<String> = preferences.iter().map(|preference| fingerprint(&preference.asked)).collect();
    let mut order: Vec<(u64, String)> = prompts.into_iter().map(|prompt| (stream.number("held_out", &prompt, 0), prompt)).collect();
    order.sort();
    let count = (share * order.len() as f64).ceil() as usize;
    order.into_iter().take(count).map(|(_, prompt)| prompt).collect()
}
