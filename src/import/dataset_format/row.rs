//! One row of an external table: the contents of its columns, and the prompt and responses made of
//! them.

use crate::model::Message;

/// A prompt or a response of a row.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Content {
    Text(String),
    Messages(Vec<Message>),
}

/// The contents of a row's columns.
pub(super) struct Row {
    pub(super) prompt: Option<Content>,
    pub(super) response: Option<Content>,
    pub(super) chosen: Option<Content>,
    pub(super) rejected: Option<Content>,
    /// The scores of chosen and rejected.
    pub(super) scores: (Option<f64>, Option<f64>),
}

/// A row as prompt and responses, the responses as messages of the assistant.
pub(super) struct Resolved {
    pub(super) prompt: Option<Content>,
    pub(super) response: Option<Message>,
    pub(super) chosen: Option<Message>,
    pub(super) rejected: Option<Message>,
}

impl Row {
    /// Of several responses, the one with the highest reward is chosen and the one with the lowest
    /// is rejected. Of equal ones the first counts.
    pub(super) fn take_best_and_worst(&mut self, responses: Vec<String>, rewards: Vec<f64>) -> Result<(), String> {
        if responses.len() != rewards.len() || responses.len() < 2 {
            let (responses, rewards) = (responses.len(), rewards.len());
            return Err(format!("expected as many rewards as responses, two or more, found {responses} responses and {rewards} rewards"));
        }
        let mut best = 0;
        for index in 1..rewards.len() {
            if rewards[index] > rewards[best] {
                best = index;
            }
        }
        // The first of the others, so that chosen and rejected differ even if all rewards are
        // equal.
        let mut worst = usize::from(best == 0);
        for index in 0..rewards.len() {
            if index != best && rewards[index] < rewards[worst] {
                worst = index;
            }
        }
        self.chosen = Some(Content::Text(responses[best].clone()));
        self.rejected = Some(Content::Text(responses[worst].clone()));
        self.scores = (Some(rewards[best]), Some(rewards[worst]));
        Ok(())
    }

    /// Appends Alpaca's input to the instruction, after an empty line. A null instruction stays
    /// null.
    pub(super) fn add_input(&mut self, input: Option<String>) {
        if let (Some(Content::Text(instruction)), Some(input)) = (&mut self.prompt, input) {
            *instruction = format!("{instruction}\n\n{input}");
        }
    }

    /// Makes a prompt of text the user's message.
    pub(super) fn ask_as_message(&mut self) {
        if let Some(Content::Text(text)) = &mut self.prompt {
            self.prompt = Some(Content::Messages(vec![Message::new("user", std::mem::take(text))]));
        }
    }

    /// Puts the system prompt of a separate column first in the conversation. A null conversation
    /// stays null.
    pub(super) fn add_system(&mut self, system: String) -> Result<(), String> {
        let Some(Content::Messages(turns)) = &mut self.prompt else { return Ok(()) };
        if turns.first().is_some_and(|first| first.role == "system") {
            return Err("expected one system prompt, found one in the conversation and one in the column system".to_string());
        }
        turns.insert(0, Message::new("system", system));
        Ok(())
    }

    /// Checks that the prompt of a column beside a whole conversation is in it, white space aside.
    pub(super) fn check_question(&self, question: &str) -> Result<(), String> {
        let Some(Content::Messages(turns)) = &self.prompt else { return Ok(()) };
        let words = |text: &str| text.split_whitespace().collect::<Vec<_>>().join(" ");
        let conversation = turns.iter().map(|turn| words(&turn.content)).collect::<Vec<_>>().join(" ");
        if conversation.contains(&words(question)) {
            return Ok(());
        }
        let question: String = question.chars().take(60).collect();
        let problem = "expected the prompt among the messages, found another one";
        Err(format!("{problem}: {question:?}; say which of prompt and messages counts by `map:`, which renames columns"))
    }

    /// Makes the assistant's last message of a conversation the response. A conversation that ends
    /// otherwise is a prompt without a response.
    pub(super) fn split_response(&mut self) {
        let Some(Content::Messages(turns)) = &mut self.prompt else { return };
        if let Some(last) = turns.pop_if(|last| last.role == "assistant") {
            self.response = Some(Content::Messages(vec![last]));
        }
    }

    /// Checks that a conversation to be answered is not empty and does not end with the assistant.
    pub(super) fn check_prompt_end(&self) -> Result<(), String> {
        match &self.prompt {
            Some(Content::Messages(turns)) if turns.last().is_none_or(|last| last.role == "assistant") => {
                Err(format!("expected a prompt that the assistant answers, found {}", roles(turns)))
            }
            _ => Ok(()),
        }
    }

    /// Prompt and responses, the responses as messages.
    pub(super) fn resolved(self) -> Result<Resolved, String> {
        let mut prompt = self.prompt;
        let mut chosen = self.chosen;
        let mut rejected = self.rejected;
        if let (Some(Content::Messages(one)), Some(Content::Messages(other))) = (&mut chosen, &mut rejected)
            && !matches!(prompt, Some(Content::Messages(_)))
        {
            let shared = shared(one, other);
            let beginning: Vec<Message> = one.drain(..shared).collect();
            other.drain(..shared);
            prompt = beginning_of(prompt, beginning)?;
        }
        if let (Some(Content::Text(one)), Some(Content::Text(other)), None) = (&chosen, &rejected, &prompt) {
            let (beginning, one, other) = common_prefix(one, other)?;
            prompt = Some(Content::Text(beginning));
            chosen = Some(Content::Text(one));
            rejected = Some(Content::Text(other));
        }
        let before = match &prompt {
            Some(Content::Messages(turns)) => turns.as_slice(),
            _ => &[],
        };
        Ok(Resolved {
            response: self.response.map(|content| answer("completion", content, before)).transpose()?,
            chosen: chosen.map(|content| answer("chosen", content, before)).transpose()?,
            rejected: rejected.map(|content| answer("rejected", content, before)).transpose()?,
            prompt,
        })
    }
}

/// The longest common beginning of two texts, and the rest of each, as TRL's `extract_prompt` cuts
/// them: a space at its end belongs to the rests, and no rest is empty.
fn common_prefix(one: &str, other: &str) -> Result<(String, String, String), String> {
    let most = one.chars().count().min(other.chars().count()).saturating_sub(1);
    let mut count = one.chars().zip(other.chars()).take(most).take_while(|(one, other)| one == other).count();
    if count > 0 && one.chars().nth(count - 1) == Some(' ') && one.chars().nth(count) != other.chars().nth(count) {
        count -= 1;
    }
    if count == 0 {
        return Err("expected a prompt: chosen and rejected have no beginning in common".to_string());
    }
    let cut = |text: &str| text.char_indices().nth(count).map_or(text.len(), |(at, _)| at);
    Ok((one[..cut(one)].to_string(), one[cut(one)..].to_string(), other[cut(other)..].to_string()))
}

/// The number of equal first messages, without the last message of each.
fn shared(one: &[Message], other: &[Message]) -> usize {
    let most = one.len().min(other.len()).saturating_sub(1);
    one.iter().zip(other).take(most).take_while(|(one, other)| one == other).count()
}

/// The prompt of chosen and rejected conversations with the same `beginning`, checked against the
/// row's `own` prompt.
fn beginning_of(own: Option<Content>, beginning: Vec<Message>) -> Result<Option<Content>, String> {
    match own {
        None if beginning.is_empty() => Err("expected a prompt: chosen and rejected have no first message in common".to_string()),
        Some(Content::Text(text)) if beginning.is_empty() => Ok(Some(Content::Text(text))),
        Some(Content::Text(text)) if !beginning.iter().any(|message| message.content.trim() == text.trim()) => {
            let text: String = text.chars().take(60).collect();
            Err(format!("expected the prompt among the messages that chosen and rejected begin with, found {text:?} nowhere in them"))
        }
        _ => Ok(Some(Content::Messages(beginning))),
    }
}

/// The message of a response: of its text, or the assistant's only message. The messages of the
/// prompt may precede it.
fn answer(name: &str, content: Content, prompt: &[Message]) -> Result<Message, String> {
    let turns = match content {
        Content::Text(text) => return Ok(Message::assistant(text)),
        Content::Messages(turns) => turns,
    };
    let rest = if prompt.is_empty() { None } else { turns.strip_prefix(prompt) };
    match rest.unwrap_or(&turns) {
        [only] if only.role == "assistant" => Ok(only.clone()),
        rest => Err(format!("{name}: expected one message of the assistant behind the prompt, found {}", roles(rest))),
    }
}

/// The roles, for an error.
fn roles(turns: &[Message]) -> String {
    match turns {
        [] => "no message".to_string(),
        [only] => format!("a message of the {}", only.role),
        several => format!("messages of {}", several.iter().map(|message| message.role.as_str()).collect::<Vec<_>>().join(", ")),
    }
}
