//! Completions of a server with OpenAI's API (`/models`, `/completions`, else `/chat/completions`).
//!
//! Each known server gets neutral sampling in its own spelling. A server may refuse fields: those
//! without an effect on sampling are left out from then on, the others refuse the server. Knows
//! nothing of tokenizers: callers bring ids and text, and tokenize a response without ids.

mod answer;
mod refusal;
mod request;
mod server;

use std::sync::{Arc, Mutex, PoisonError};

use serde_json::{Value, json};

use super::client::Client;
use super::error::RemoteError;
use super::printable::printable;
use super::stop::Stopped;
use answer::{Prompt, read};
use refusal::refusal;

pub use answer::{Completion, Finish};
pub use request::{PromptForm, Request};
pub use server::ServerKind;

/// The fields of a server's model that are recorded.
const IDENTITY: [&str; 6] = ["id", "root", "parent", "owned_by", "created", "max_model_len"];
/// The longest list of models in an error.
const MODELS_SHOWN: usize = 20;
/// The fields that a request can do without.
const SPARED: [&str; 8] =
    ["logprobs", "return_token_ids", "return_tokens_as_token_ids", "add_special_tokens", "stop_token_ids", "seed", "n", "stream"];
/// The fields of sampling.
const SAMPLING: [&str; 16] = [
    "top_k",
    "min_p",
    "typical_p",
    "top_n_sigma",
    "repetition_penalty",
    "repeat_penalty",
    "presence_penalty",
    "frequency_penalty",
    "dry_multiplier",
    "xtc_probability",
    "dynatemp_range",
    "mirostat",
    "mirostat_mode",
    "min_tokens",
    "stop",
    "generation_config",
];

/// One model of a server.
#[derive(Clone, Debug)]
pub struct Completions {
    client: Client,
    model: String,
    kind: ServerKind,
    identity: Value,
    learned: Arc<Mutex<Learned>>,
}

/// What the server's refusals taught.
#[derive(Clone, Debug, Default, PartialEq)]
struct Learned {
    /// The fields that are not sent any more.
    left_out: Vec<&'static str>,
    /// Whether 0 stands for all tokens in `top_k`, in place of -1.
    zero_for_all: bool,
    /// Whether the server adds a beginning-of-sequence token to every text.
    adds_opening: bool,
}

impl Completions {
    /// Finds the model among the served ones, and the server's kind where none is given.
    ///
    /// # Errors
    /// The server cannot be asked, or serves other models only.
    pub fn find(client: Client, model: &str, kind: Option<ServerKind>, stopped: Stopped) -> Result<Self, RemoteError> {
        let found = |kind: ServerKind, identity: Value| Self {
            client: client.clone(),
            model: model.to_string(),
            kind,
            identity,
            learned: Arc::default(),
        };
        if let Some(kind) = kind.filter(|kind| !kind.lists_models()) {
            return Ok(found(kind, json!({ "id": model })));
        }
        let is_transformers = || kind.is_none() && ServerKind::look(&client, stopped) == ServerKind::Transformers;
        let models = match models(&client.once(), stopped) {
            // transformers without a cache of the hub.
            Err(error) if error.status() == Some(500) && is_transformers() => {
                return Ok(found(ServerKind::Transformers, json!({ "id": model })));
            }
            Err(error) if error.is_transient() => models(&client, stopped)?,
            models => models?,
        };
        let id = |model: &Value| model.get("id").and_then(Value::as_str).map(str::to_string);
        let Some(entry) = models.iter().find(|entry| id(entry).as_deref() == Some(model)) else {
            if is_transformers() {
                return Ok(found(ServerKind::Transformers, json!({ "id": model })));
            }
            let ids: Vec<String> = models.iter().filter_map(id).take(MODELS_SHOWN).map(|id| printable(&id)).collect();
            let found = if ids.is_empty() { "none".to_string() } else { ids.join(", ") };
            return Err(RemoteError::Model { url: client.url().trim_end_matches('/').to_string(), model: model.to_string(), found });
        };
        let identity: serde_json::Map<String, Value> =
            IDENTITY.iter().filter_map(|key| Some((key.to_string(), entry.get(*key)?.clone()))).collect();
        let owner = identity.get("owned_by").and_then(Value::as_str).and_then(ServerKind::of_owner);
        let kind = kind.or(owner).unwrap_or_else(|| ServerKind::look(&client, stopped));
        Ok(found(kind, Value::Object(identity)))
    }

    /// A model of a server whose list of models says nothing about it.
    pub fn unlisted(client: Client, model: &str, kind: ServerKind) -> Self {
        Self { client, model: model.to_string(), kind, identity: json!({ "id": model }), learned: Arc::default() }
    }

    /// The kind of the server.
    pub fn kind(&self) -> ServerKind {
        self.kind
    }

    /// The server's description of the model: id, root, parent, owned_by, created and
    /// max_model_len, as far as they are given.
    pub fn identity(&self) -> &Value {
        &self.identity
    }

    /// Whether texts of responses are decoded without the prompt before them.
    pub fn decodes_alone(&self) -> bool {
        self.kind.decodes_alone()
    }

    /// The fields that the server refused so far; they are not sent.
    pub fn left_out(&self) -> Vec<&'static str> {
        self.learned().left_out
    }

    fn learned(&self) -> Learned {
        self.learned.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The same server, each request without retries.
    #[must_use]
    pub fn once(&self) -> Self {
        Self { client: self.client.once(), ..self.clone() }
    }

    /// Finds out by requests for one token how prompts can be sent: in the first of these `forms`
    /// that the server takes. Learns on the way which fields it refuses.
    ///
    /// # Errors
    /// It takes none of them, or repeats the prompt in its answers.
    pub fn look(&self, request: &Request, forms: &[PromptForm], stopped: Stopped) -> Result<PromptForm, RemoteError> {
        let request = Request { max_tokens: 1, min_tokens: 0, ..request.clone() };
        let mut failed: Option<PromptForm> = None;
        let mut first: Option<RemoteError> = None;
        let mut has_path = false;
        for form in forms {
            if *form == PromptForm::Messages && has_path {
                break;
            }
            let error = match self.look_once(&request, *form, stopped) {
                Ok(()) => {
                    // A server may break down for other reasons than a list of ids.
                    let again = failed.filter(|failed| self.once().complete(&request, *failed, stopped).is_ok());
                    return Ok(again.unwrap_or(*form));
                }
                Err(error) => error,
            };
            match error.status() {
                Some(500) => failed = failed.or(Some(*form)),
                Some(400 | 404 | 405 | 415 | 422 | 501) => {}
                _ => return Err(error),
            }
            has_path |= !matches!(error.status(), Some(404 | 405 | 501));
            first.get_or_insert(error);
        }
        if let Some(form) = failed {
            return self.complete(&request, form, stopped).map(|_| form);
        }
        Err(first.unwrap_or(RemoteError::Stopped))
    }

    /// One look: refusals at once, and passing troubles with retries.
    fn look_once(&self, request: &Request, form: PromptForm, stopped: Stopped) -> Result<(), RemoteError> {
        let answer = match self.once().complete(request, form, stopped) {
            Err(error) if error.is_transient() && error.status() != Some(500) => self.complete(request, form, stopped),
            answer => answer,
        }?;
        if request.prompt_ids.len() > 1 && !request.prompt.is_empty() && answer.text.starts_with(request.prompt) {
            let problem = "expected one token behind the prompt, found the prompt again; the server repeats prompts in its answers";
            return Err(RemoteError::Answer { url: self.url(form), problem: problem.to_string() });
        }
        Ok(())
    }

    fn url(&self, form: PromptForm) -> String {
        format!("{}{}", self.client.url().trim_end_matches('/'), form.path())
    }

    /// One response.
    ///
    /// # Errors
    /// The server does not answer, refuses a setting of sampling, or its number of prompt tokens
    /// differs from ours: it answers another prompt.
    pub fn complete(&self, request: &Request, form: PromptForm, stopped: Stopped) -> Result<Completion, RemoteError> {
        self.check_settings(request, form)?;
        loop {
            let learned = self.learned();
            let body = self.body(request, form, &learned);
            match self.client.post(form.path(), &body, stopped, |answer| read(&answer)) {
                Ok((completion, prompt)) => {
                    let expected = request.prompt_ids.len() as u64;
                    let is_doubled = form == PromptForm::Text && prompt.ids.is_none() && prompt.count == Some(expected + 1);
                    if is_doubled && request.without_opening.is_some() && !learned.adds_opening {
                        self.learn(|learned| learned.adds_opening = true);
                        continue;
                    }
                    self.check_prompt(request, form, &prompt)?;
                    return self.checked(request, form, completion);
                }
                Err(error) => {
                    if !self.learns(request, form, &body, &learned, &error)? {
                        return Err(error);
                    }
                }
            }
        }
    }

    /// Refuses settings that the server has not.
    ///
    /// # Errors
    /// Their names.
    pub fn check_settings(&self, request: &Request, form: PromptForm) -> Result<(), RemoteError> {
        let failed = |problem: String| Err(RemoteError::Setting { url: self.client.url().trim_end_matches('/').to_string(), problem });
        let lacking = self.kind.lacks(request);
        if !lacking.is_empty() {
            return failed(format!(
                "{} cannot be asked of the server {}, which has another meaning of it or none; leave it out, or sample on this machine, on vLLM \
                 or on SGLang",
                lacking.join(", "),
                self.kind.name()
            ));
        }
        if form == PromptForm::Messages && request.conversation.is_none() {
            let problem = "expected a server with /completions because the prompts are texts, found one with /chat/completions only; \
                           make the prompts messages, or sample elsewhere";
            return failed(problem.to_string());
        }
        Ok(())
    }

    fn learn(&self, change: impl FnOnce(&mut Learned)) {
        change(&mut self.learned.lock().unwrap_or_else(PoisonError::into_inner));
    }

    /// Learns from a refusal. Returns whether another request may succeed.
    fn learns(
        &self,
        request: &Request,
        form: PromptForm,
        body: &Value,
        before: &Learned,
        error: &RemoteError,
    ) -> Result<bool, RemoteError> {
        let (Some(status), Some(said)) = (error.status(), error.said()) else { return Ok(false) };
        let sent: Vec<&'static str> = SPARED.iter().chain(&SAMPLING).copied().filter(|field| body.get(*field).is_some()).collect();
        let Some(refusal) = refusal(status, said, &sent) else { return Ok(false) };
        let neutral = self.body(&request.neutral(), form, &Learned::default());
        for field in refusal.fields {
            let is_neutral = neutral.get(field) == body.get(field) || (field == "top_k" && request.top_k.is_none());
            if SPARED.contains(&field) || (is_neutral && refusal.is_unknown && field != "generation_config") {
                self.learn(|learned| learned.leave_out(field));
            } else if field == "top_k" && is_neutral && !before.zero_for_all && body["top_k"] == json!(-1) {
                self.learn(|learned| learned.zero_for_all = true);
            } else {
                let problem = format!(
                    "expected it to take {field}: {}, which the distribution of the responses depends on, found: {error}; name the kind of \
                     server with `server:`, or sample elsewhere",
                    body[field]
                );
                return Err(RemoteError::Setting { url: self.client.url().trim_end_matches('/').to_string(), problem });
            }
        }
        // Another thread may have learned the same meanwhile.
        Ok(true)
    }

    /// Refuses an answer to another prompt.
    fn check_prompt(&self, request: &Request, form: PromptForm, prompt: &Prompt) -> Result<(), RemoteError> {
        let failed = |problem: String| Err(RemoteError::Answer { url: self.url(form), problem });
        let expected = request.prompt_ids.len();
        match prompt {
            Prompt { ids: Some(ids), .. } if ids != request.prompt_ids => failed(format!(
                "expected it to read the prompt's {expected} tokens as they are, found {} others; does it have another tokenizer, or add a \
                 beginning-of-sequence token to one that is there?",
                ids.len()
            )),
            Prompt { ids: None, count: Some(count) } if *count != expected as u64 => failed(format!(
                "expected it to read the prompt as {expected} tokens, as the policy's tokenizer does, found {count}; does it have another \
                 {}, or add a beginning-of-sequence token to one that is there?",
                if form == PromptForm::Messages { "chat template or tokenizer" } else { "tokenizer" }
            )),
            Prompt { ids: None, count: None } if form != PromptForm::Ids => failed(
                "expected the number of the prompt's tokens (usage.prompt_tokens), found none; so it cannot be known whether it \
                 reads the text as the policy's tokenizer does"
                    .to_string(),
            ),
            _ => Ok(()),
        }
    }

    /// Refuses a response beyond the limit.
    fn checked(&self, request: &Request, form: PromptForm, completion: Completion) -> Result<Completion, RemoteError> {
        let count = completion.token_ids.as_ref().map(Vec::len).or(completion.token_count);
        match count {
            Some(count) if count > request.max_tokens => Err(RemoteError::Answer {
                url: self.url(form),
                problem: format!("expected at most {} tokens, found {count}", request.max_tokens),
            }),
            _ => Ok(completion),
        }
    }

    fn body(&self, request: &Request, form: PromptForm, learned: &Learned) -> Value {
        let mut body = json!({ "model": self.model });
        match form {
            PromptForm::Ids => body["prompt"] = json!(request.prompt_ids),
            PromptForm::Text => {
                let bare = request.without_opening.filter(|_| learned.adds_opening);
                body["prompt"] = json!(bare.unwrap_or(request.prompt));
            }
            PromptForm::Messages => {
                for (name, value) in request.conversation.into_iter().flatten() {
                    body[name] = value.clone();
                }
            }
        }
        body["max_tokens"] = json!(request.max_tokens);
        body["temperature"] = json!(request.temperature);
        body["top_p"] = json!(request.top_p);
        body["seed"] = json!(request.seed);
        body["n"] = json!(1);
        body["stream"] = json!(false);
        for (name, value) in self.kind.fields(request, form) {
            let value = if name == "top_k" && learned.zero_for_all && value == json!(-1) { json!(0) } else { value };
            body[name] = value;
        }
        if let Some(fields) = body.as_object_mut() {
            fields.retain(|name, _| !learned.left_out.iter().any(|left_out| left_out == name));
        }
        body
    }
}

/// The served models.
fn models(client: &Client, stopped: Stopped) -> Result<Vec<Value>, RemoteError> {
    client.get("/models", stopped, |answer| {
        let models = answer.get("data").and_then(Value::as_array).cloned();
        models.ok_or_else(|| "expected a list of models as \"data\", found none".to_string())
    })
}

impl Learned {
    fn leave_out(&mut self, field: &'static str) {
        if !self.left_out.contains(&field) {
            self.left_out.push(field);
        }
    }
}
