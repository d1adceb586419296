//! Token ids: of a prompt, of a prompt with a response, of a whole conversation.
//!
//! The only decision on special tokens: for plain text the tokenizer writes them, for messages the
//! chat template, never both.

use std::collections::BTreeSet;

use super::tokenizer::ending;
use super::{
    Answer, ChatTemplate, Checkpoint, Conversation, EncodedPair, Message, ModelError, PromptContent, SpecialTokens, TemplateSettings,
};

impl Checkpoint {
    /// The same checkpoint for a run with these settings of its chat template.
    pub fn with_template_settings(mut self, settings: TemplateSettings) -> Self {
        if let Some(template) = &mut self.chat_template {
            template.set_date(settings.date);
            template.set_variables(settings.variables);
        }
        self
    }

    /// The ids to generate from: a plain text behind the tokenizer's opening special tokens, or the
    /// conversation as the chat template writes it up to where the response begins.
    ///
    /// # Errors
    /// Messages for a checkpoint without a chat template, messages refused by its template, or a
    /// prompt without tokens.
    pub fn encode_prompt(&self, asked: &PromptContent) -> Result<Vec<i32>, ModelError> {
        let (text, special) = self.prompt_text(asked)?;
        self.tokenizer.encode(&text, special)
    }

    /// The prompt's ids as [`Checkpoint::encode_prompt`] gives them, then those of a complete
    /// response, ended as the model ends its turn.
    ///
    /// Prompt and response are tokenized as one text. Behind a plain text's response comes the
    /// tokenizer's `eos_token`. In a conversation comes what the template writes behind the
    /// assistant's message, up to the first end token: the newline that often follows is no part of
    /// the turn. Where the template writes no end token the response has none, as in TRL. A
    /// response that brings its end token along does not get a second one.
    ///
    /// # Errors
    /// As [`Checkpoint::encode_prompt`]; when the prompt's text or tokens change once the response
    /// follows; when a model of plain texts has no end token, the response has one before its end,
    /// or no token at all.
    pub fn encode_pair<'a>(&self, asked: &PromptContent, response: impl Into<Answer<'a>>) -> Result<EncodedPair, ModelError> {
        let response = response.into();
        let mut end = None;
        let mut pair = match asked {
            PromptContent::Text(text) => {
                end = Some(self.end_of_text()?);
                let response = response.text().map_err(ModelError::Text)?;
                self.check_ends_last(response)?;
                self.tokenizer.encode_pair(text, &format!("{text}{response}"), SpecialTokens::Opening)?
            }
            PromptContent::Messages(conversation) => {
                self.check_ends_last(&response.message().content)?;
                let template = self.template()?;
                let prompt = template.render(conversation, true)?;
                let whole = template.render(conversation.answered(response), false)?;
                if !whole.starts_with(&prompt) {
                    return Err(changed_prompt(&prompt, &whole));
                }
                self.tokenizer.encode_pair(&prompt, &whole, SpecialTokens::Written)?
            }
        };
        let response_ids = pair.token_ids.get(pair.prompt_token_count..).unwrap_or_default();
        match response_ids.iter().position(|id| self.is_end(*id)) {
            Some(position) => {
                let lost = self.tokenizer.decode(response_ids.get(position + 1..).unwrap_or_default())?;
                if !lost.trim().is_empty() {
                    let lost = lost.trim().chars().take(60).collect::<String>();
                    let problem =
                        format!("expected a response that its first end token ends, found {lost:?} behind it, which no model would write");
                    return Err(ModelError::Text(problem));
                }
                pair.token_ids.truncate(pair.prompt_token_count + position + 1);
            }
            None => pair.token_ids.extend(end),
        }
        if pair.token_ids.len() == pair.prompt_token_count {
            let problem =
                "expected a response of at least one token, found none: it is empty, and the chat template writes nothing behind it";
            return Err(ModelError::Text(problem.to_string()));
        }
        Ok(pair)
    }

    /// The ids of a whole text to imitate, as TRL gives them for its column `text`: behind the
    /// tokenizer's opening special tokens, with the tokenizer's end token behind it unless it is
    /// there already. A conversation written as text has end tokens inside. The first token
    /// counts as the prompt, since nothing precedes it.
    ///
    /// # Errors
    /// The model has no end token, or the text no tokens.
    pub fn encode_text(&self, text: &str) -> Result<EncodedPair, ModelError> {
        let end = self.end_of_text()?;
        let mut token_ids = self.tokenizer.encode(text, SpecialTokens::Opening)?;
        if token_ids.last() != Some(&end) {
            token_ids.push(end);
        }
        Ok(EncodedPair { token_ids, prompt_token_count: 1 })
    }

    /// The end of a text to learn.
    fn end_of_text(&self) -> Result<i32, ModelError> {
        let no_end = || ModelError::Text("the model has no eos_token_id, so it could not learn to stop".to_string());
        self.ends.of_text().ok_or_else(no_end)
    }

    /// The end token of a complete response to `asked`; `None` for a model without one.
    pub fn end_token(&self, asked: &PromptContent) -> Option<i32> {
        match asked {
            PromptContent::Text(_) => self.ends.of_text(),
            PromptContent::Messages(_) => self.ends.of_turn(),
        }
    }

    /// The token in front of a text without any other token before it: the tokenizer's `bos_token`,
    /// else its `eos_token`; `None` for a tokenizer without both.
    pub fn opening_token(&self) -> Option<i32> {
        let named = |name: &str| self.tokenizer.token_id(self.tokenizer_settings.named(name)?);
        named("bos_token").or_else(|| named("eos_token"))
    }

    /// The text of a prompt for [`Checkpoint::encode_prompt`], and the writer of its special
    /// tokens.
    ///
    /// # Errors
    /// Messages for a checkpoint without a chat template, or messages refused by its template.
    pub fn prompt_text(&self, asked: &PromptContent) -> Result<(String, SpecialTokens), ModelError> {
        match asked {
            PromptContent::Text(text) => Ok((text.clone(), SpecialTokens::Opening)),
            PromptContent::Messages(conversation) => Ok((self.template()?.render(conversation, true)?, SpecialTokens::Written)),
        }
    }

    /// The ids of prompt and response as a model that reads whole conversations takes them: as
    /// Python's `apply_chat_template(messages, tokenize=True)` gives them, nothing dropped and
    /// nothing added.
    ///
    /// A plain text is one user turn and one assistant turn if there is a chat template; if not,
    /// prompt and response are one text with the tokenizer's special tokens around it.
    ///
    /// # Errors
    /// As [`Checkpoint::encode_prompt`].
    pub fn encode_conversation<'a>(&self, asked: &PromptContent, response: impl Into<Answer<'a>>) -> Result<Vec<i32>, ModelError> {
        let response = response.into();
        let conversation = match (asked, &self.chat_template) {
            (PromptContent::Text(text), None) => {
                let response = response.text().map_err(ModelError::Text)?;
                return self.tokenizer.encode(&format!("{text}{response}"), SpecialTokens::Added);
            }
            (PromptContent::Text(text), Some(_)) => Conversation::from(vec![Message::new("user", text)]).answered(response),
            (PromptContent::Messages(conversation), _) => conversation.answered(response),
        };
        self.tokenizer.encode(&self.template()?.render(conversation, false)?, SpecialTokens::Written)
    }

    /// The names that the chat template ignores of a conversation: fields of its messages, the
    /// answer's included, and variables. Nothing of plain text. A name in `tried` is not tried
    /// again.
    pub fn ignored(&self, asked: &PromptContent, answer: Option<Answer<'_>>, tried: &mut BTreeSet<String>) -> Vec<String> {
        let (PromptContent::Messages(conversation), Some(template)) = (asked, &self.chat_template) else { return Vec::new() };
        match answer {
            Some(answer @ Answer::Message(message)) if message.whole().is_some() => template.ignored(&conversation.answered(answer), tried),
            // A text has no further field.
            _ => template.ignored(conversation, tried),
        }
    }

    fn template(&self) -> Result<&ChatTemplate, ModelError> {
        let problem = "expected a chat template because prompts are messages, found none; add chat_template.jinja, or give prompts as text";
        self.chat_template.as_ref().ok_or_else(|| ModelError::invalid(self.folder(), problem))
    }

    pub(super) fn is_end(&self, id: i32) -> bool {
        self.generation.eos_token_ids.contains(&id)
    }

    /// Refuses a response with text behind an end token: no model writes this in one turn, and the
    /// text would be lost.
    fn check_ends_last(&self, response: &str) -> Result<(), ModelError> {
        let ids = self.tokenizer.ids(response.trim_end(), SpecialTokens::Written)?;
        match ids.iter().position(|id| self.is_end(*id)) {
            Some(position) if position + 1 < ids.len() => Err(ModelError::Text(format!(
                "expected a response with an end token at its end only, found token {} after {position} of its {} tokens, in {:?}",
                ids[position],
                ids.len(),
                response.chars().take(60).collect::<String>(),
            ))),
            _ => Ok(()),
        }
    }
}

fn changed_prompt(prompt: &str, whole: &str) -> ModelError {
    let same: usize = prompt.chars().zip(whole.chars()).take_while(|(left, right)| left == right).map(|(same, _)| same.len_utf8()).sum();
    let after = |text: &str| text[same..].chars().take(40).collect::<String>();
    ModelError::Chat(format!(
        "the template changes the prompt once a response follows: after {:?} the prompt goes on with {:?}, the whole conversation with {:?}; \
         a template is needed whose generation prompt begins the assistant's turn as the template writes it",
        ending(&prompt[..same]),
        after(prompt),
        after(whole),
    ))
}
