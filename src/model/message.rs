//! Prompts: plain text, or a conversation.
//!
//! A message keeps every field that a chat template may read, in the order written. Knows no
//! template.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// Named JSON values in the order written.
pub type Fields = Map<String, Value>;

/// The fields of a message about its training. They are never news to a chat template.
const TRAINING_FIELDS: [&str; 2] = ["weight", "train"];

/// The variables that every chat template is given, so nobody else may set them.
pub(crate) const GIVEN_VARIABLES: [&str; 2] = ["messages", "add_generation_prompt"];

/// One message of a conversation.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Fields", into = "Fields")]
pub struct Message {
    /// The speaker: `system`, `user`, `assistant`, or any other that the chat template knows.
    pub role: String,
    /// The text; of several parts all texts, joined. Empty without one, as in a mere tool call.
    pub content: String,
    /// The whole message where it is more than a role and one text.
    whole: Option<Fields>,
}

impl Message {
    /// A message of a role and a text.
    pub fn new(role: impl Into<String>, content: impl Into<String>) -> Self {
        Self { role: role.into(), content: content.into(), whole: None }
    }

    /// A message of the assistant.
    pub fn assistant(content: impl Into<String>) -> Self {
        Self::new("assistant", content)
    }

    /// A message with any fields. Fields that are null are left out, as transformers does: tables
    /// write a null where one row lacks a field of another.
    ///
    /// # Errors
    /// No role; nothing but a role; a content that is neither text nor a list of parts of type
    /// text.
    pub fn from_fields(mut fields: Fields) -> Result<Self, String> {
        fields.retain(|_, value| !value.is_null());
        let nothing = || "expected a role and a content, found null".to_string();
        let role = match fields.get("role") {
            Some(Value::String(role)) => role.clone(),
            None => return Err(nothing()),
            Some(other) => return Err(format!("role: expected text, found {}", kind(other))),
        };
        let content = match fields.get("content") {
            Some(Value::String(text)) => text.clone(),
            Some(Value::Array(parts)) => joined(parts)?,
            None | Some(Value::Null) if fields.keys().any(|name| !matches!(name.as_str(), "role" | "content" | "weight" | "train")) => {
                String::new()
            }
            None | Some(Value::Null) => return Err(nothing()),
            Some(other) => return Err(format!("content: expected text or a list of parts, found {}", kind(other))),
        };
        let is_plain = fields.len() == 2 && fields.get("content").is_some_and(Value::is_string);
        Ok(Self { role, content, whole: if is_plain { None } else { Some(fields) } })
    }

    /// All fields of a message that is more than a role and one text.
    pub fn whole(&self) -> Option<&Fields> {
        self.whole.as_ref()
    }

    /// The same message without the field `name`.
    pub(super) fn without(&self, name: &str) -> Self {
        let mut message = self.clone();
        if let Some(whole) = &mut message.whole {
            whole.shift_remove(name);
        }
        message
    }

    /// The same message with this content in place of a list of parts.
    pub(super) fn with_parts_as(&self, content: impl Fn(&[Value]) -> Value) -> Self {
        let mut message = self.clone();
        if let Some(Value::Array(parts)) = message.whole.as_mut().and_then(|whole| whole.get_mut("content")) {
            let content = content(parts);
            if let Some(whole) = &mut message.whole {
                whole.insert("content".to_string(), content);
            }
        }
        message
    }

    /// Whether the content is a list of parts.
    pub(super) fn has_parts(&self) -> bool {
        self.whole.as_ref().is_some_and(|whole| whole.get("content").is_some_and(Value::is_array))
    }

    /// The word of the message about its training, by `weight` or `train`: `Some(false)` for 0 or
    /// false, `Some(true)` for 1 or true, `None` without a word.
    ///
    /// # Errors
    /// Another value, such as a weight of 0.5.
    pub fn is_trained(&self) -> Result<Option<bool>, String> {
        let mut said = None;
        for name in TRAINING_FIELDS {
            let Some(value) = self.whole.as_ref().and_then(|whole| whole.get(name)) else { continue };
            let trained = match value {
                Value::Bool(trained) => *trained,
                Value::Number(number) if number.as_f64() == Some(0.0) => false,
                Value::Number(number) if number.as_f64() == Some(1.0) => true,
                other => return Err(format!("{name}: expected 0 or 1, found {other}; a message is trained on or it is not")),
            };
            said = Some(said.unwrap_or(true) && trained);
        }
        Ok(said)
    }
}

impl TryFrom<Fields> for Message {
    type Error = String;

    fn try_from(fields: Fields) -> Result<Self, String> {
        Self::from_fields(fields)
    }
}

impl From<Message> for Fields {
    fn from(message: Message) -> Self {
        let plain =
            |role, content| Fields::from_iter([("role".to_string(), Value::String(role)), ("content".to_string(), Value::String(content))]);
        message.whole.unwrap_or_else(|| plain(message.role, message.content))
    }
}

/// The texts of a content's parts, one behind the other, as templates write them.
fn joined(parts: &[Value]) -> Result<String, String> {
    let mut text = String::new();
    for (index, part) in parts.iter().enumerate() {
        let at = |problem: String| format!("content: part {index}: {problem}");
        match part.get("type").and_then(Value::as_str) {
            Some("text") => match part.get("text") {
                Some(Value::String(part)) => text.push_str(part),
                found => return Err(at(format!("expected the field text of a part of type text, found {}", found.map_or("none", kind)))),
            },
            Some(other) => return Err(at(format!("expected a part of type text, found one of type {other}; models here read text only"))),
            None => return Err(at(format!("expected a part such as {{\"type\": \"text\", \"text\": …}}, found {}", kind(part)))),
        }
    }
    Ok(text)
}

/// The kind of a JSON value, for an error.
pub(crate) fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a Boolean",
        Value::Number(_) => "a number",
        Value::String(_) => "text",
        Value::Array(_) => "a list",
        Value::Object(_) => "an object",
    }
}

/// The messages of a conversation, and all else that a chat template reads of it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Conversation {
    /// The messages, in order.
    pub messages: Vec<Message>,
    /// Further variables of the template: `tools`, and others by name.
    pub variables: Fields,
}

impl Conversation {
    /// The conversation with the assistant's next message.
    pub(super) fn answered(&self, answer: Answer) -> Self {
        let mut answered = self.clone();
        answered.messages.push(answer.message());
        answered
    }

    /// The names of the fields of its messages that not every message has, without those about
    /// training.
    pub(super) fn further_fields(&self) -> BTreeSet<&str> {
        let wholes = self.messages.iter().filter_map(Message::whole);
        let names = wholes.flat_map(|whole| whole.keys().map(String::as_str));
        names.filter(|name| !["role", "content"].contains(name) && !TRAINING_FIELDS.contains(name)).collect()
    }
}

impl From<Vec<Message>> for Conversation {
    fn from(messages: Vec<Message>) -> Self {
        Self { messages, variables: Fields::new() }
    }
}

impl From<&Conversation> for Conversation {
    fn from(conversation: &Conversation) -> Self {
        conversation.clone()
    }
}

impl From<&Vec<Message>> for Conversation {
    fn from(messages: &Vec<Message>) -> Self {
        messages.clone().into()
    }
}

impl<const N: usize> From<&[Message; N]> for Conversation {
    fn from(messages: &[Message; N]) -> Self {
        messages.to_vec().into()
    }
}

/// The content of a prompt.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PromptContent {
    /// Plain text, given to the model as it is.
    Text(String),
    /// A conversation, for the model's chat template.
    Messages(Conversation),
}

/// A complete response: a text, or a message of the assistant with further fields.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer<'a> {
    /// A text.
    Text(&'a str),
    /// A message.
    Message(&'a Message),
}

impl Answer<'_> {
    /// The answer as the assistant's message.
    pub(super) fn message(self) -> Message {
        match self {
            Self::Text(text) => Message::assistant(text),
            Self::Message(message) => message.clone(),
        }
    }

    /// The answer behind a plain text.
    ///
    /// # Errors
    /// A message with further fields: a chat template alone writes them.
    pub(super) fn text(&self) -> Result<&str, String> {
        match self {
            Self::Text(text) => Ok(text),
            Self::Message(message) if message.whole.is_none() => Ok(&message.content),
            Self::Message(_) => {
                Err("expected a response of text because the prompt is one, found a message with further fields".to_string())
            }
        }
    }
}

impl<'a> From<&'a str> for Answer<'a> {
    fn from(text: &'a str) -> Self {
        Self::Text(text)
    }
}

impl<'a> From<&'a String> for Answer<'a> {
    fn from(text: &'a String) -> Self {
        Self::Text(text)
    }
}

impl<'a> From<&'a Message> for Answer<'a> {
    fn from(message: &'a Message) -> Self {
        Self::Message(message)
    }
}
