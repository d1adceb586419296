//! Preferences for a reward model: two conversations each, in its own tokens, split into training
//! and held-out preferences.
//!
//! Knows neither loss nor model weights.

use std::collections::HashSet;
use std::ops::Range;

use super::ignored;
use super::malformed_rows::MalformedRows;
use super::rows::rows_of;
use super::{Context, OperatorError};
use crate::import::Preference;
use crate::import::prompts::fingerprint;
use crate::model::{Answer, Checkpoint};
use crate::pipeline::slot::Slot;
use crate::pipeline::spec::held_out::HeldOut;
use crate::pipeline::spec::malformed::Malformed;
use crate::token_lists::TokenLists;

/// This module in internal errors.
const PLACE: &str = "operators::support::comparisons";

/// One side of the division of the preferences.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Split {
    /// The preferences to train on.
    Training,
    /// The preferences held out of the training.
    HeldOut,
}

/// Preferences as token ids, in the order of their ids.
pub struct Comparisons {
    /// The preferences, without those of too many tokens.
    pub rows: Vec<Preference>,
    chosen: Vec<Vec<i32>>,
    rejected: Vec<Vec<i32>>,
    /// The number of preferences left out because a conversation has too many tokens.
    pub too_long: usize,
    /// The number of preferences left out because the model cannot read them.
    pub malformed: usize,
}

impl Comparisons {
    /// The preferences in the slot `preferences`, or in `held_out` where it is a table of its own.
    /// All preferences of one prompt are on one side of the split, so the training sees nothing of
    /// a held-out prompt.
    ///
    /// # Errors
    /// A table without preferences; under `malformed: stop`, a conversation refused by the model's
    /// chat template.
    pub fn read(
        context: &Context,
        checkpoint: &Checkpoint,
        held_out: &HeldOut,
        split: Split,
        max_tokens: u32,
        malformed: Malformed,
    ) -> Result<Self, OperatorError> {
        let slot = match (split, held_out) {
            (Split::HeldOut, HeldOut::Table(_)) => Slot::HeldOut,
            _ => Slot::Preferences,
        };
        let mut preferences: Vec<Preference> = context.preferences(slot)?.into_iter().collect();
        if let HeldOut::Share(share) = held_out {
            let held_out = held_out_prompts(context, &preferences, *share);
            preferences.retain(|preference| held_out.contains(&fingerprint(&preference.prompt)) == (split == Split::HeldOut));
        }
        let limit = (max_tokens as usize).min(checkpoint.config.longest_sequence().0);
        let sides = preferences.iter().flat_map(|row| [(&row.prompt, Some(row.chosen())), (&row.prompt, Some(row.rejected()))]);
        ignored::warn(context, checkpoint, sides);
        let count = preferences.len();
        let mut malformed = MalformedRows::new(malformed);
        let mut rows = Vec::new();
        let mut chosen = Vec::new();
        let mut rejected = Vec::new();
        for preference in preferences {
            let encode = |response: Answer| {
                let tokens = checkpoint.encode_conversation(&preference.prompt, response);
                tokens.map(|tokens| checkpoint.up_to_score(tokens)).map_err(|error| error.to_string())
            };
            let encoded = encode(preference.chosen()).and_then(|chosen| Ok((chosen, encode(preference.rejected())?)));
            let (chosen_tokens, rejected_tokens) = match encoded {
                Ok(encoded) => encoded,
                Err(problem) => {
                    malformed.add(&problem, || format!("preference {}", preference.id))?;
                    continue;
                }
            };
            if chosen_tokens.len().max(rejected_tokens.len()) <= limit {
                chosen.push(chosen_tokens);
                rejected.push(rejected_tokens);
                rows.push(preference);
            }
        }
        let too_long = count - rows.len() - malformed.count();
        malformed.warn(context, count);
        if too_long > 0 {
            let message = format!("{too_long} of {count} preferences are left out: more than {limit} tokens");
            context.progress.warned(&context.task.label(), &message);
        }
        Ok(Self { rows, chosen, rejected, too_long, malformed: malformed.count() })
    }

    /// The number of preferences.
    pub fn len(&self) -> usize {
        self.rows.len()
    }

    /// Tokens of both conversations of the longest preference.
    pub fn longest(&self) -> usize {
        self.chosen.iter().zip(&self.rejected).map(|(chosen, rejected)| chosen.len() + rejected.len()).max().unwrap_or(0)
    }

    /// The preferences in `range`.
    ///
    /// # Errors
    /// An internal error for a range beyond the preferences.
    pub fn rows_in(&self, range: Range<usize>) -> Result<&[Preference], OperatorError> {
        rows_of(&self.rows, range, PLACE)
    }

    /// The conversations of the preferences in `range`: first all with the chosen, then all with
    /// the rejected response.
    ///
    /// # Errors
    /// No preference, or a conversation without a token.
    pub fn sequences(&self, range: Range<usize>) -> Result<TokenLists, OperatorError> {
        let chosen = rows_of(&self.chosen, range.clone(), PLACE)?;
        let rejected = rows_of(&self.rejected, range, PLACE)?;
        let rows: Vec<&Vec<i32>> = chosen.iter().chain(rejected).collect();
        Ok(TokenLists::from_rows(&rows)?)
    }
}

/// The held-out prompts: the first ceil(share · prompts) in an order drawn from the seed.
fn held_out_prompts(context: &Context, preferences: &[Preference], share: f64) -> HashSet<String> {
    let stream = context.seed();
    let prompts: HashSet<String> = preferences.iter().map(|preference| fingerprint(&preference.prompt)).collect();
    let mut order: Vec<(u64, String)> = prompts.into_iter().map(|prompt| (stream.number("held_out", &prompt, 0), prompt)).collect();
    order.sort();
    let count = (share * order.len() as f64).ceil() as usize;
    order.into_iter().take(count).map(|(_, prompt)| prompt).collect()
}
