//! One row of a table from outside: what its columns say, and what that makes of prompt and responses.

use crate::model::{Message, PromptContent};

/// What a value says.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Said {
    Text(String),
    Turns(Vec<Message>),
}

/// What the columns of a row say.
pub(super) struct Row {
    pub(super) asked: Option<Said>,
    pub(super) response: Option<Said>,
    pub(super) chosen: Option<Said>,
    pub(super) rejected: Option<Said>,
    pub(super) scores: Option<(f64, f64)>,
}

/// What a row is.
pub(super) struct Resolved {
    pub(super) asked: Option<PromptContent>,
    pub(super) response: Option<String>,
    pub(super) chosen: Option<String>,
    pub(super) rejected: Option<String>,
}

impl Row {
    /// Of several responses, the one with the highest reward is chosen and the one with the lowest rejected, the first ones of equals.
    pub(super) fn take_best_and_worst(&mut self, responses: Vec<String>, rewards: Vec<f64>) -> Result<(), String> {
        if responses.len() != rewards.len() || responses.len() < 2 {
            let (responses, rewards) = (responses.len(), rewards.len());
            return Err(format!("expected as many rewards as responses, two or more, found {responses} responses and {rewards} rewards"));
        }
        let scored = || responses.iter().zip(&rewards).enumerate();
        let best = scored().reduce(|one, other| if other.1.1 > one.1.1 { other } else { one });
        let worst = scored().filter(|(index, _)| best.is_none_or(|(best, _)| best != *index));
        let worst = worst.reduce(|one, other| if other.1.1 < one.1.1 { other } else { one });
        if let (Some((_, (chosen, high))), Some((_, (rejected, low)))) = (best, worst) {
            self.chosen = Some(Said::Text(chosen.clone()));
            self.rejected = Some(Said::Text(rejected.clone()));
            self.scores = Some((*high, *low));
        }
        Ok(())
    }

    /// Alpaca's input comes behind the instruction, after an empty line.
    pub(super) fn add_input(&mut self, input: Option<String>) {
        if let (Some(Said::Text(instruction)), Some(input)) = (&mut self.asked, input) {
            *instruction = format!("{instruction}\n\n{input}");
        }
    }

    /// A system prompt in a column of its own opens the conversation.
    pub(super) fn add_system(&mut self, system: String) -> Result<(), String> {
        let Some(Said::Turns(turns)) = &mut self.asked else { return Ok(()) };
        if turns.first().is_some_and(|first| first.role == "system") {
            return Err("expected one system prompt, found one in the conversation and one in the column system".to_string());
        }
        turns.insert(0, Message { role: "system".to_string(), content: system });
        Ok(())
    }

    /// A conversation's last turn, if it is the assistant's, is the response; it has to be if `needed`.
    pub(super) fn split_response(&mut self, needed: bool) -> Result<(), String> {
        let Some(Said::Turns(turns)) = &mut self.asked else { return Ok(()) };
        match turns.pop_if(|last| last.role == "assistant") {
            Some(last) => self.response = Some(Said::Text(last.content)),
            None if needed => return Err(format!("expected a conversation that ends with the assistant, found {}", roles(turns))),
            None => {}
        }
        Ok(())
    }

    /// A conversation to be answered is not empty and does not end with an answer.
    pub(super) fn check_asked_last(&self) -> Result<(), String> {
        match &self.asked {
            Some(Said::Turns(turns)) if turns.last().is_none_or(|last| last.role == "assistant") => {
                Err(format!("expected a prompt that the assistant answers, found {}", roles(turns)))
            }
            _ => Ok(()),
        }
    }

    /// Prompt and responses, the responses as texts.
    pub(super) fn resolved(self) -> Result<Resolved, String> {
        let mut asked = match self.asked {
            Some(Said::Text(text)) => Some(PromptContent::Text(text)),
            Some(Said::Turns(turns)) => Some(PromptContent::Messages(turns)),
            None => None,
        };
        let (mut chosen, mut rejected) = (self.chosen, self.rejected);
        if let (Some(Said::Turns(one)), Some(Said::Turns(other))) = (&mut chosen, &mut rejected)
            && !matches!(asked, Some(PromptContent::Messages(_)))
        {
            let shared = shared(one, other);
            let beginning: Vec<Message> = one.drain(..shared).collect();
            other.drain(..shared);
            asked = beginning_of(asked, beginning)?;
        }
        let prompt = match &asked {
            Some(PromptContent::Messages(turns)) => turns.as_slice(),
            _ => &[],
        };
        Ok(Resolved {
            response: self.response.map(|said| answer("completion", said, prompt)).transpose()?,
            chosen: chosen.map(|said| answer("chosen", said, prompt)).transpose()?,
            rejected: rejected.map(|said| answer("rejected", said, prompt)).transpose()?,
            asked,
        })
    }
}

/// How many messages both begin with, without the last one of each.
fn shared(one: &[Message], other: &[Message]) -> usize {
    let most = one.len().min(other.len()).saturating_sub(1);
    one.iter().zip(other).take(most).take_while(|(one, other)| one == other).count()
}

/// The prompt of chosen and rejected conversations that begin with `beginning`, if the row has a prompt of its `own` too.
fn beginning_of(own: Option<PromptContent>, beginning: Vec<Message>) -> Result<Option<PromptContent>, String> {
    match own {
        None if beginning.is_empty() => Err("expected a prompt: chosen and rejected have no first message in common".to_string()),
        Some(PromptContent::Text(text)) if beginning.is_empty() => Ok(Some(PromptContent::Text(text))),
        Some(PromptContent::Text(text)) if !beginning.iter().any(|message| message.content.trim() == text.trim()) => {
            let text: String = text.chars().take(60).collect();
            Err(format!("expected the prompt among the messages that chosen and rejected begin with, found {text:?} nowhere in them"))
        }
        _ => Ok(Some(PromptContent::Messages(beginning))),
    }
}

/// The text of a response: itself, or the assistant's one message behind those of the prompt, which may be said again.
fn answer(name: &str, said: Said, prompt: &[Message]) -> Result<String, String> {
    let turns = match said {
        Said::Text(text) => return Ok(text),
        Said::Turns(turns) => turns,
    };
    let rest = if prompt.is_empty() { None } else { turns.strip_prefix(prompt) };
    match rest.unwrap_or(&turns) {
        [only] if only.role == "assistant" => Ok(only.content.clone()),
        rest => Err(format!("{name}: expected one message of the assistant behind the prompt, found {}", roles(rest))),
    }
}

/// Who speaks, for an error.
fn roles(turns: &[Message]) -> String {
    match turns {
        [] => "no message".to_string(),
        [only] => format!("a message of the {}", only.role),
        several => format!("messages of {}", several.iter().map(|message| message.role.as_str()).collect::<Vec<_>>().join(", ")),
    }
}
