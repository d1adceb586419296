//! The inputs of a node that asks servers: its prompts with their ids, and the request for each
//! response.
//!
//! Knows the policy's tokenizer and template, not the servers.

use std::time::Duration;

use serde_json::Value;

use super::super::super::support::rows::signed;
use super::super::super::{Context, OperatorError, Prompt};
use super::super::response_indices;
use crate::generation::StopStrings;
use crate::model::{Checkpoint, Conversation, Fields, PromptContent, SpecialTokens};
use crate::pipeline::spec::engine::Engine;
use crate::pipeline::spec::generate::Generate;
use crate::remote::Request;
use crate::tables::{FinishReason, responses};

/// The longest time for a setting.
const LONGEST_SECONDS: f64 = 1e6;

/// This module in internal errors.
pub(super) const PLACE: &str = "operators::generate::server";

/// A time limit.
pub(super) fn seconds(number: f64) -> Duration {
    Duration::from_secs_f64(number.clamp(0.0, LONGEST_SECONDS))
}

/// One response to ask for.
#[derive(Clone, Copy, Debug)]
pub(super) struct Item {
    pub(super) part: usize,
    /// Its row in the part.
    pub(super) row: usize,
    /// The index of its prompt.
    pub(super) prompt: usize,
    pub(super) response_index: u32,
}

/// The inputs of the requests.
pub(super) struct ServerJob<'a> {
    pub(super) context: &'a Context<'a>,
    pub(super) settings: &'a Generate,
    pub(super) engine: &'a Engine,
    pub(super) prompts: &'a [Prompt],
    /// The prompts' ids, or the reasons for no request.
    pub(super) encoded: Vec<Result<Vec<i32>, String>>,
    pub(super) checkpoint: Checkpoint,
    pub(super) stop: Option<StopStrings>,
    pub(super) sampled_iteration: i32,
    pub(super) policy_fingerprint: String,
}

impl ServerJob<'_> {
    pub(super) fn per_prompt(&self) -> usize {
        response_indices(self.settings).len().max(1)
    }

    /// The ids of an item's prompt: only encoded prompts become items.
    pub(super) fn prompt_ids(&self, item: &Item) -> Result<&[i32], OperatorError> {
        let problem = |error: &String| OperatorError::internal(PLACE, format!("a request for a prompt without ids: {error}"));
        self.encoded[item.prompt].as_deref().map_err(problem)
    }

    /// The most tokens of a response to a prompt.
    pub(super) fn most_tokens(&self, prompt_ids: &[i32]) -> usize {
        let room = self.checkpoint.config.longest_sequence().0.saturating_sub(prompt_ids.len());
        (self.settings.max_new_tokens as usize).min(room)
    }

    /// Calls `then` with the request for an item.
    pub(super) fn request<T>(&self, item: &Item, then: impl FnOnce(Request) -> T) -> Result<T, OperatorError> {
        let prompt = &self.prompts[item.prompt];
        let prompt_ids = self.prompt_ids(item)?;
        let (text, special) = self.checkpoint.prompt_text(&prompt.content)?;
        let seed = self.context.seed().number("generate", &prompt.id, item.response_index);
        let conversation = match &prompt.content {
            PromptContent::Text(_) => None,
            PromptContent::Messages(conversation) => Some(self.conversation(conversation)),
        };
        let opening = prompt_ids.first().filter(|id| self.checkpoint.opening_token() == Some(**id));
        let opening = opening.filter(|_| special == SpecialTokens::Written).and_then(|id| self.checkpoint.tokenizer.token(*id));
        Ok(then(Request {
            prompt_ids,
            prompt: &text,
            without_opening: opening.and_then(|opening| text.strip_prefix(opening.as_str())),
            conversation: conversation.as_ref(),
            add_special_tokens: special != SpecialTokens::Written,
            max_tokens: self.most_tokens(prompt_ids),
            temperature: self.settings.temperature,
            top_p: self.settings.top_p,
            top_k: self.settings.top_k,
            min_p: self.settings.min_p,
            repetition_penalty: self.settings.repetition_penalty,
            presence_penalty: self.settings.presence_penalty,
            min_tokens: self.settings.min_new_tokens as usize,
            stop: &self.settings.stop,
            stop_token_ids: &self.checkpoint.generation.eos_token_ids,
            // Every server takes 31 bits.
            seed: (seed >> 33) as u32,
        }))
    }

    /// A conversation as the chat API has it: messages, tools, and the other variables of the chat
    /// template.
    pub(super) fn conversation(&self, conversation: &Conversation) -> Fields {
        let messages = conversation.messages.iter().map(|message| Value::Object(message.clone().into())).collect();
        let mut fields = Fields::from_iter([("messages".to_string(), messages)]);
        let mut variables = self.context.task.template_settings().variables;
        variables.extend(conversation.variables.clone());
        fields.extend(variables.shift_remove("tools").map(|tools| ("tools".to_string(), tools)));
        if !variables.is_empty() {
            fields.insert("chat_template_kwargs".to_string(), Value::Object(variables));
        }
        fields
    }

    pub(super) fn failed(&self, prompt: usize, response_index: u32, error: String) -> Result<responses::Row, OperatorError> {
        Ok(responses::Row { error: Some(error), ..self.row(prompt, response_index)? })
    }

    /// An error row without its error.
    pub(super) fn row(&self, prompt: usize, response_index: u32) -> Result<responses::Row, OperatorError> {
        Ok(responses::Row {
            prompt_id: self.prompts[prompt].id.clone(),
            sampled_iteration: self.sampled_iteration,
            response_index: signed(response_index as usize, PLACE)?,
            token_ids: Vec::new(),
            prompt_token_count: 0,
            text: String::new(),
            finish_reason: FinishReason::Error,
            logprob: None,
            token_logprobs: None,
            policy_fingerprint: self.policy_fingerprint.clone(),
            error: None,
        })
    }
}
