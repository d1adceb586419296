//! Prompts: plain text, or the messages of a conversation.

use serde::{Deserialize, Serialize};

/// One message of a conversation.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Message {
    /// The speaker: `system`, `user` or `assistant`.
    pub role: String,
    /// The text.
    pub content: String,
}

/// The content of a prompt.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PromptContent {
    /// Plain text, given to the model as it is.
    Text(String),
    /// A conversation, for the model's chat template.
    Messages(Vec<Message>),
}
