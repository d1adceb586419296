//! Chat templates: messages to text, as the checkpoint's Jinja template says. Knows nothing of tokens.
//!
//! The environment is that of Hugging Face transformers (`trim_blocks`, `lstrip_blocks`, Python's string methods, `raise_exception`),
//! without the clock: a prompt must not depend on the day.

use std::path::Path;

use minijinja::syntax::SyntaxConfig;
use minijinja::value::Serde;
use minijinja::{Environment, ErrorKind, context};
use minijinja_contrib::pycompat::unknown_method_callback;
use serde_json::Value;

use super::{Message, ModelError};

/// A checkpoint's chat template.
#[derive(Clone, Debug)]
pub struct ChatTemplate {
    environment: Environment<'static>,
    bos_token: Option<String>,
    eos_token: Option<String>,
}

const NAME: &str = "chat_template";

impl ChatTemplate {
    /// Compiles a template's source. The tokens are what the template may use as `bos_token` and `eos_token`.
    ///
    /// # Errors
    /// When the source is not Jinja.
    pub fn new(source: &str, bos_token: Option<String>, eos_token: Option<String>) -> Result<Self, ModelError> {
        let mut environment = Environment::new();
        let syntax = SyntaxConfig::builder().trim_blocks(true).lstrip_blocks(true).build();
        environment.set_syntax(syntax.map_err(|error| ModelError::Chat(error.to_string()))?);
        environment.set_unknown_method_callback(unknown_method_callback);
        environment.add_function("raise_exception", |text: String| -> Result<String, minijinja::Error> {
            Err(minijinja::Error::new(ErrorKind::InvalidOperation, text))
        });
        environment.add_template_owned(NAME, source.to_string()).map_err(|error| ModelError::Chat(error.to_string()))?;
        Ok(Self { environment, bos_token, eos_token })
    }

    /// The template in a checkpoint's folder: `chat_template.jinja`, else the one in `tokenizer_config.json`; `None` if there is neither.
    ///
    /// # Errors
    /// When a file cannot be read, or is not JSON or Jinja.
    pub(super) fn in_folder(folder: &Path) -> Result<Option<Self>, ModelError> {
        let read = |name: &str| -> Result<Option<String>, ModelError> {
            let path = folder.join(name);
            match std::fs::read_to_string(&path) {
                Ok(text) => Ok(Some(text)),
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
                Err(source) => Err(ModelError::Read { path, source }),
            }
        };
        let path = folder.join("tokenizer_config.json");
        let settings: Value = match read("tokenizer_config.json")? {
            Some(text) => serde_json::from_str(&text).map_err(|error| ModelError::invalid(&path, error))?,
            None => Value::Null,
        };
        let source = match read("chat_template.jinja")? {
            Some(source) => Some(source),
            None => template_in(&settings),
        };
        let Some(source) = source else { return Ok(None) };
        Self::new(&source, token_in(&settings, "bos_token"), token_in(&settings, "eos_token")).map(Some)
    }

    /// The token that the tokenizer's settings name as the end of a sequence; for a model that converses, of a turn.
    pub(super) fn eos_token(&self) -> Option<&str> {
        self.eos_token.as_deref()
    }

    /// The conversation as text, special tokens spelled out; with a generation prompt, ending where the assistant's response begins.
    ///
    /// Tokenize it with [`SpecialTokens::Written`](super::SpecialTokens::Written).
    ///
    /// # Errors
    /// When the template refuses the messages (`raise_exception`) or fails.
    pub fn render(&self, messages: &[Message], add_generation_prompt: bool) -> Result<String, ModelError> {
        let failed = |error: minijinja::Error| ModelError::Chat(error.to_string());
        let template = self.environment.get_template(NAME).map_err(failed)?;
        let variables = context! {
            messages => Serde(messages),
            add_generation_prompt => add_generation_prompt,
            bos_token => self.bos_token.as_deref().unwrap_or_default(),
            eos_token => self.eos_token.as_deref().unwrap_or_default(),
        };
        template.render(variables).map_err(failed)
    }
}

/// A template is written as text, or as a list of named ones of which `default` is meant.
fn template_in(settings: &Value) -> Option<String> {
    match settings.get("chat_template")? {
        Value::String(source) => Some(source.clone()),
        Value::Array(named) => {
            let default = named.iter().find(|entry| entry.get("name").and_then(Value::as_str) == Some("default"))?;
            default.get("template")?.as_str().map(str::to_string)
        }
        _ => None,
    }
}

/// A token is written as text, or as an object with its `content`.
fn token_in(settings: &Value, name: &str) -> Option<String> {
    let token = settings.get(name)?;
    token.as_str().or_else(|| token.get("content")?.as_str()).map(str::to_string)
}
