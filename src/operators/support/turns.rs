//! The assistant's turns of a demonstration to train on.
//!
//! Knows messages and their `weight` and `train`. Knows no tokens.

use crate::model::{Conversation, Message, PromptContent};
use crate::pipeline::spec::sft::TrainOn;

/// One turn: what precedes it, and the assistant's message.
pub type Turn = (PromptContent, Message);

/// The turns of a prompt with its answer: the answer alone, or every message of the assistant, each
/// behind all messages before it. Messages with `weight` or `train` 0 are no turns.
///
/// # Errors
/// A message asks for a training that is not done.
pub fn turns(train_on: TrainOn, asked: PromptContent, answer: Message) -> Result<Vec<Turn>, String> {
    let mut turns = Vec::new();
    if let PromptContent::Messages(conversation) = &asked {
        for (index, message) in conversation.messages.iter().enumerate() {
            let at = |problem: String| format!("message {index}: {problem}");
            let is_trained = message.is_trained().map_err(at)?;
            if message.role != "assistant" {
                if is_trained == Some(true) {
                    let role = &message.role;
                    return Err(at(format!(
                        "expected weight or train of 1 for messages of the assistant only, found it for one of the {role}"
                    )));
                }
                continue;
            }
            match (train_on, is_trained) {
                (TrainOn::AllAssistant, Some(true) | None) => {
                    let before = conversation.messages[..index].to_vec();
                    let before = Conversation { messages: before, variables: conversation.variables.clone() };
                    turns.push((PromptContent::Messages(before), message.clone()));
                }
                (TrainOn::Last, Some(true)) => {
                    let problem = "found weight or train of 1, but only the last message of the assistant is trained on";
                    return Err(at(format!("{problem}; say `train_on: all_assistant`")));
                }
                _ => {}
            }
        }
    }
    if answer.is_trained()? != Some(false) {
        turns.push((asked, answer));
    }
    Ok(turns)
}
