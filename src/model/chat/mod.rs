//! Chat templates: messages to text, as the checkpoint's Jinja template says. Knows nothing of
//! tokens.
//!
//! The environment is that of Hugging Face transformers (`trim_blocks`, `lstrip_blocks`, Python's
//! methods and order of dictionaries, `raise_exception`, `{% generation %}`), without the clock: a
//! prompt must not depend on the day. What a template uses and is not here is an error that names
//! it.

mod date;
mod held;
mod json;
mod lexer;
mod python;
mod repr;
pub(super) mod row_template;
mod syntax;
mod tag;

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::fmt;
use std::path::Path;
use std::sync::Arc;

use chrono::NaiveDate;
use minijinja::syntax::SyntaxConfig;
use minijinja::value::Serde;
use minijinja::{Environment, ErrorKind, Value as Variable};
use serde_json::{Value, json};

use super::tokenizer_settings::TokenizerSettings;
use super::{Conversation, Fields, Message, ModelError, files};

/// A checkpoint's chat template.
#[derive(Clone, Debug)]
pub struct ChatTemplate {
    environment: Environment<'static>,
    special_tokens: Vec<(String, String)>,
    /// Variables of the pipeline.
    variables: Fields,
    /// The words of the source.
    words: Arc<HashSet<String>>,
}

/// What a pipeline gives every chat template beside the conversation.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct TemplateSettings {
    /// The date of `strftime_now`, at midnight.
    pub date: Option<NaiveDate>,
    /// Variables by name, such as `enable_thinking`. A conversation's own come before them.
    pub variables: Fields,
}

const NAME: &str = "chat_template";

/// What a template may do to write one conversation, in minijinja's measure: steps, or 64 bytes
/// made. That is less than a second, and 128 MiB; a conversation of four megabytes is within it.
const FUEL: u64 = 1 << 21;

/// Longer than any template. A few are 30 kB.
const LONGEST_SOURCE_BYTES: usize = 1 << 20;

/// Stack for compiling, where a template of the greatest length can be nested as deeply: a chain of
/// `elif` is.
const STACK_BYTES: usize = 1 << 28;

/// Filters, tests and functions that minijinja has and Python's Jinja has not; a template may ask
/// whether they are defined.
const FILTERS_NOT_IN_PYTHON: [&str; 5] = ["bool", "split", "lines", "chain", "zip"];
const TESTS_NOT_IN_PYTHON: [&str; 2] = ["startingwith", "endingwith"];
const FUNCTIONS_NOT_IN_PYTHON: [&str; 1] = ["debug"];

/// A template's own refusal, by `raise_exception`.
#[derive(Debug)]
struct Raised;

impl fmt::Display for Raised {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("raised by the template")
    }
}

impl std::error::Error for Raised {}

impl ChatTemplate {
    /// Compiles a template's source. The template may write the special tokens (`("bos_token",
    /// "<s>")`).
    ///
    /// # Errors
    /// When the source is not Jinja.
    pub fn new(source: &str, special_tokens: &[(&str, &str)]) -> Result<Self, ModelError> {
        on_a_large_stack(source, || Self::compiled(source, special_tokens))
    }

    fn compiled(source: &str, special_tokens: &[(&str, &str)]) -> Result<Self, ModelError> {
        let environment = environment(NAME, source)?;
        let special_tokens = special_tokens.iter().map(|(name, token)| (name.to_string(), token.to_string())).collect();
        let words = source.split(|c: char| !(c.is_alphanumeric() || c == '_')).filter(|word| !word.is_empty()).map(str::to_string);
        let mut template = Self { environment, special_tokens, variables: Fields::new(), words: Arc::new(words.collect()) };
        template.set_date(None);
        Ok(template)
    }

    /// Sets the date of `strftime_now`, at midnight. Without one, a template with this function
    /// fails.
    pub fn set_date(&mut self, date: Option<NaiveDate>) {
        self.environment.add_function("strftime_now", move |format: &str| date::strftime(date, format));
    }

    /// Sets the variables of every conversation.
    pub fn set_variables(&mut self, variables: Fields) {
        self.variables = variables;
    }

    /// The template in a checkpoint's folder: `chat_template.jinja`, else the one in
    /// `tokenizer_config.json`; `None` if there is neither. (`chat_templates/` holds others, for
    /// tools.)
    ///
    /// # Errors
    /// When a file cannot be read, or is not JSON or Jinja.
    pub(super) fn in_folder(folder: &Path) -> Result<Option<Self>, ModelError> {
        let settings = json_in(folder, "tokenizer_config.json")?.unwrap_or_default();
        let source = text_in(folder, "chat_template.jinja")?;
        let Some(source) = source.or_else(|| template_in(&settings)) else { return Ok(None) };
        // The special tokens are visible to a template as variables, if the tokenizer has them.
        let tokenizer = TokenizerSettings::in_folder(folder)?;
        let tokens: Vec<(&str, &str)> = tokenizer.names().collect();
        Self::new(&source, &tokens).map(Some)
    }

    /// The conversation as text, special tokens spelled out; with a generation prompt, ending where
    /// the assistant's response begins.
    ///
    /// Tokenize it with [`SpecialTokens::Written`](super::SpecialTokens::Written).
    ///
    /// # Errors
    /// [`ModelError::Refused`] when the template refuses the messages (`raise_exception`),
    /// [`ModelError::Chat`] when it fails.
    pub fn render(&self, conversation: impl Into<Conversation>, add_generation_prompt: bool) -> Result<String, ModelError> {
        let conversation = conversation.into();
        if !conversation.messages.iter().any(Message::has_parts) {
            return self.write(&conversation, add_generation_prompt);
        }
        // A template that goes through the parts of a content writes one part as it writes a text.
        // Another template gets the texts of all parts as one.
        let one = |as_part: bool| {
            let part = if as_part { json!([{"type": "text", "text": "x"}]) } else { json!("x") };
            let messages = conversation.messages.iter().map(|message| message.with_parts_as(|_| part.clone())).collect();
            self.write(&Conversation { messages, variables: conversation.variables.clone() }, add_generation_prompt)
        };
        if matches!((one(true), one(false)), (Ok(part), Ok(text)) if part == text) {
            return self.write(&conversation, add_generation_prompt);
        }
        let joined = |message: &Message| message.with_parts_as(|_| Value::String(message.content.clone()));
        let messages = conversation.messages.iter().map(joined).collect();
        self.write(&Conversation { messages, variables: conversation.variables.clone() }, add_generation_prompt)
    }

    /// The names that the template ignores of a conversation: those of fields and variables that
    /// are no word of its source, and without which it writes the same. A name in `tried` is not
    /// tried again.
    pub(super) fn ignored(&self, conversation: &Conversation, tried: &mut BTreeSet<String>) -> Vec<String> {
        let mut unknown = |name: &str| !self.words.contains(name) && tried.insert(name.to_string());
        let variables = self.variables.keys().chain(conversation.variables.keys()).filter(|name| unknown(name));
        let mut ignored: Vec<String> = variables.cloned().collect();
        for field in conversation.further_fields().into_iter().filter(|name| unknown(name)) {
            let messages: Vec<Message> = conversation.messages.iter().map(|message| message.without(field)).collect();
            let without = self.render(Conversation { messages, variables: conversation.variables.clone() }, false);
            if let (Ok(written), Ok(without)) = (self.render(conversation, false), without)
                && written == without
            {
                ignored.push(field.to_string());
            }
        }
        ignored
    }

    /// The conversation as it is, as text.
    fn write(&self, conversation: &Conversation, add_generation_prompt: bool) -> Result<String, ModelError> {
        let failed = |error: minijinja::Error| match was_raised(&error) {
            true => ModelError::Refused(error.to_string()),
            false if error.kind() == ErrorKind::OutOfFuel => ModelError::Chat(format!(
                "expected it to be done within {FUEL} steps of at most 64 bytes each, found no end; it repeats something without bound ({error})"
            )),
            false => ModelError::Chat(error.to_string()),
        };
        let none = || Variable::from(());
        let mut variables: BTreeMap<&str, Variable> = BTreeMap::from([("tools", none()), ("documents", none())]);
        variables.extend(self.special_tokens.iter().map(|(name, token)| (name.as_str(), Variable::from(token.as_str()))));
        let further = self.variables.iter().chain(&conversation.variables);
        variables.extend(further.map(|(name, value)| (name.as_str(), Variable::from(Serde(value)))));
        variables.insert("messages", conversation.messages.iter().map(python::message).collect());
        variables.insert("add_generation_prompt", Variable::from(add_generation_prompt));
        let template = self.environment.get_template(NAME).map_err(failed)?;
        template.render(Variable::from_pairs(variables)).map_err(failed)
    }
}

/// Compiles a source of bounded length.
fn on_a_large_stack<T: Send>(source: &str, compile: impl FnOnce() -> Result<T, ModelError> + Send) -> Result<T, ModelError> {
    if source.len() > LONGEST_SOURCE_BYTES {
        return Err(ModelError::Chat(format!("expected at most {LONGEST_SOURCE_BYTES} bytes of template, found {}", source.len())));
    }
    std::thread::scope(|scope| {
        let compiler = std::thread::Builder::new().stack_size(STACK_BYTES).spawn_scoped(scope, compile);
        let compiler = compiler.map_err(|error| ModelError::Chat(format!("cannot compile: {error}")))?;
        compiler.join().map_err(|_| ModelError::Chat("cannot be compiled".to_string()))?
    })
}

/// The environment of transformers with one template in it, under a name for errors.
fn environment(name: &'static str, source: &str) -> Result<Environment<'static>, ModelError> {
    let mut environment = Environment::new();
    let syntax = SyntaxConfig::builder().trim_blocks(true).lstrip_blocks(true).build();
    environment.set_syntax(syntax.map_err(|error| ModelError::Chat(error.to_string()))?);
    environment.set_fuel(Some(FUEL));
    environment.set_formatter(repr::show);
    environment.set_unknown_method_callback(python::method);
    FILTERS_NOT_IN_PYTHON.iter().for_each(|name| environment.remove_filter(name));
    TESTS_NOT_IN_PYTHON.iter().for_each(|name| environment.remove_test(name));
    FUNCTIONS_NOT_IN_PYTHON.iter().for_each(|name| environment.remove_global(name));
    environment.add_filter("tojson", json::tojson);
    environment.add_filter("trim", python::trim);
    environment.add_filter("string", repr::string);
    environment.add_filter("join", repr::join);
    environment.add_filter(repr::FORMAT, minijinja::filters::format);
    environment.add_filter("format", repr::format);
    environment.add_test("iterable", python::is_iterable);
    environment.add_test("sequence", python::is_sequence);
    environment.add_function(tag::VARIABLE, held::variable);
    environment.add_function(tag::ATTRIBUTE, held::attribute);
    environment.add_function(tag::TEXT, repr::string);
    environment.add_function("dict", python::dict);
    environment.add_function("raise_exception", |text: String| -> Result<String, minijinja::Error> {
        Err(minijinja::Error::new(ErrorKind::InvalidOperation, text).with_source(Raised))
    });
    environment.add_template_owned(name, syntax::translate(source)).map_err(|error| ModelError::Chat(error.to_string()))?;
    Ok(environment)
}

/// Whether the template itself refused, maybe inside of a macro.
fn was_raised(error: &minijinja::Error) -> bool {
    let mut source = std::error::Error::source(error);
    while let Some(error) = source {
        if error.is::<Raised>() {
            return true;
        }
        source = error.source();
    }
    false
}

fn text_in(folder: &Path, name: &str) -> Result<Option<String>, ModelError> {
    let path = folder.join(name);
    match files::read_text(&path) {
        Ok(text) => Ok(Some(text)),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(ModelError::Read { path, source }),
    }
}

fn json_in(folder: &Path, name: &str) -> Result<Option<Value>, ModelError> {
    let Some(text) = text_in(folder, name)? else { return Ok(None) };
    serde_json::from_str(&text).map(Some).map_err(|error| ModelError::invalid(&folder.join(name), error))
}

/// A template is text, or a list of named ones; the name is `default` then.
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
