//! Prompts: the inputs of the policy, as texts or as conversations.

use super::cell::Message;
use super::check::not_empty;

table! {
    Prompts, version 1, key [prompt_id];
    /// One prompt: either `prompt` or `messages` is not null.
    pub struct Row {
        /// A unique name: from the data, else the blake3 hash of the prompt's content.
        pub prompt_id: String,
        /// Plain text.
        pub prompt: Option<String>,
        /// A conversation, for the model's chat template.
        pub messages: Option<Vec<Message>>,
        /// A reference answer, for rewards that compare with one.
        pub reference_answer: Option<String>,
        /// The group of tasks the prompt belongs to.
        pub group: Option<String>,
        /// Anything else, as JSON.
        pub metadata: Option<String>,
    }
}

impl View<'_> {
    /// An id, and either a prompt or at least one message.
    fn check(&self) -> Result<(), String> {
        not_empty("prompt_id", self.prompt_id)?;
        match (&self.prompt, &self.messages) {
            (Some(_), Some(_)) => Err("expected prompt or messages, found both".to_string()),
            (None, None) => Err("expected prompt or messages, found neither".to_string()),
            (None, Some(messages)) if messages.is_empty() => Err("messages: expected at least one, found none".to_string()),
            _ => Ok(()),
        }
    }
}
