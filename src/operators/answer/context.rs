//! The text in front of an answer: description, examples and question, plain or through the chat
//! template.

use super::asked::Asked;
use crate::model::{Checkpoint, Conversation, Message, PromptContent, SpecialTokens};
use crate::operators::OperatorError;
use crate::operators::support::benchmark_items::{Item, examples_of};
use crate::pipeline::spec::benchmark::answer::Question;

/// The text in front of the answer to an item, and the writer of its special tokens.
///
/// # Errors
/// Too few examples, or messages that the chat template refuses.
pub(super) fn text(checkpoint: &Checkpoint, asked: &Asked) -> Result<(String, SpecialTokens), OperatorError> {
    let Asked { task, item } = asked;
    let question = task.question;
    let (examples, as_turns): (Vec<&Item>, bool) = match &question.few_shot {
        None => (Vec::new(), false),
        Some(few_shot) => {
            let all = task.examples.as_ref().unwrap_or(&task.items);
            (examples_of(item, all, few_shot.count as usize, task.examples.is_none())?, few_shot.as_turns)
        }
    };
    if !question.chat {
        return Ok((format!("{}{}", item.description, in_one(question, &examples, item)), SpecialTokens::Opening));
    }
    let mut messages = Vec::new();
    if !item.description.is_empty() {
        messages.push(Message::new("system", item.description.as_str()));
    }
    if as_turns {
        for example in examples {
            messages.push(Message::new("user", example.question.as_str()));
            if !example.answer().is_empty() {
                messages.push(Message::assistant(example.answer()));
            }
        }
        messages.push(Message::new("user", item.question.as_str()));
    } else {
        messages.push(Message::new("user", in_one(question, &examples, item)));
    }
    Ok(checkpoint.prompt_text(&PromptContent::Messages(Conversation::from(messages)))?)
}

/// Examples and question as one text.
fn in_one(question: &Question, examples: &[&Item], item: &Item) -> String {
    let separator = question.few_shot.as_ref().map_or("", |few_shot| few_shot.separator.as_str());
    let mut text = String::new();
    for example in examples {
        text.push_str(&example.question);
        if !example.answer().is_empty() {
            text.extend([question.delimiter.as_str(), example.answer(), separator]);
        }
    }
    text + &item.question
}
