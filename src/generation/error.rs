//! Errors of generation.

use crate::model::ModelError;

/// An error of this module.
#[derive(Debug, thiserror::Error)]
pub enum GenerationError {
    /// A prompt leaves no room for a response. Whoever asked decides whether to drop it.
    #[error("prompt {row} has {tokens} tokens, but the model takes {limit} in all, response included; shorten or drop it")]
    PromptTooLong {
        /// The prompt's row, counted from 0.
        row: usize,
        /// Its length.
        tokens: usize,
        /// The most tokens of prompt and response together.
        limit: usize,
    },
    /// A sampling setting makes no sense.
    #[error("{setting} is {value}, expected {expected}")]
    Setting {
        /// The setting's name.
        setting: &'static str,
        /// Its value.
        value: String,
        /// The values it may have.
        expected: &'static str,
    },
    /// There are not as many lists of seeds as prompts.
    #[error("expected a list of seeds for each of {prompts} prompts, found {seeds}")]
    Seeds {
        /// How many prompts there are.
        prompts: usize,
        /// For how many there were seeds.
        seeds: usize,
    },
    /// A logit is not a finite number.
    #[error(
        "the logits of prompt {row} at response token {step} are not finite: token {token} has {logit}; the model's weights are broken (did training diverge?)"
    )]
    Logits {
        /// The prompt's row, counted from 0.
        row: usize,
        /// The number of the response's token, counted from 0.
        step: usize,
        /// The first such token id.
        token: usize,
        /// Its logit.
        logit: f32,
    },
    /// Not even one response has room.
    #[error("there is no memory for the keys and values of a response to prompt {row}; lower max_new_tokens")]
    Memory {
        /// The prompt's row, counted from 0.
        row: usize,
    },
    /// Whoever observed the progress asked to stop.
    #[error("interrupted")]
    Interrupted,
    /// Tensors could not be read back from the device.
    #[error("device: {0}")]
    Device(String),
    /// Of the model.
    #[error(transparent)]
    Model(#[from] ModelError),
}
