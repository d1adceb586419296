//! Text completions of a server with OpenAI's API, as vLLM, SGLang, llama.cpp and mistral.rs have
//! it (`/models`, `/completions`).
//!
//! Extensions of OpenAI's API: prompts as token ids (all but mistral.rs), the ids of the response
//! (`return_token_ids`: vLLM and SGLang; `return_tokens_as_token_ids`: older vLLM; ids among the
//! logprobs: llama.cpp). A server ignores unknown fields. Knows nothing of tokenizers: callers
//! bring ids and text, and tokenize a response that comes without ids.

use serde_json::{Value, json};

use super::client::Client;
use super::error::RemoteError;
use super::stop::Stopped;

/// The fields of a server's model that are recorded.
const IDENTITY: [&str; 6] = ["id", "root", "parent", "owned_by", "created", "max_model_len"];
/// The servers, by the `owned_by` of their models, with other defaults: without explicit values
/// they sample from the 40 most likely tokens, or as in the model's own `generation_config.json`.
/// They take -1 for all tokens.
const CUTTING: [&str; 3] = ["vllm", "sglang", "llamacpp"];
/// The longest list of models in an error.
const MODELS_SHOWN: usize = 20;

/// One model of a server.
#[derive(Clone, Debug)]
pub struct Completions {
    client: Client,
    model: String,
    identity: Value,
}

/// How a prompt is sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PromptForm {
    /// As token ids.
    Ids,
    /// As text.
    Text,
}

/// A prompt, and how to go on from it.
#[derive(Clone, Debug)]
pub struct Request<'a> {
    /// The prompt's token ids. Either sent, or their number is compared with the server's count for
    /// the text.
    pub prompt_ids: &'a [i32],
    /// The same as text.
    pub prompt: &'a str,
    /// Whether the server is to add the special tokens of a text.
    pub add_special_tokens: bool,
    /// The most tokens of the response.
    pub max_tokens: usize,
    /// The divisor of the logits.
    pub temperature: f64,
    /// The probability of the smallest set of tokens to sample from.
    pub top_p: f64,
    /// How many of the most likely tokens to sample from.
    pub top_k: Option<u32>,
    /// The least share of the most likely token's probability.
    pub min_p: f64,
    /// The divisor of positive logits of tokens that are there already.
    pub repetition_penalty: f64,
    /// What is taken from the logits of the response's tokens.
    pub presence_penalty: f64,
    /// The fewest tokens of the response.
    pub min_tokens: usize,
    /// Texts that end the response.
    pub stop: &'a [String],
    /// Tokens that end the response.
    pub stop_token_ids: &'a [i32],
    /// The seed of this response.
    pub seed: u32,
}

/// Why a response ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Finish {
    /// The model ended it.
    Stop,
    /// It reached the most tokens.
    Length,
}

/// A response.
#[derive(Clone, Debug, PartialEq)]
pub struct Completion {
    /// As text, usually without special tokens.
    pub text: String,
    /// Its token ids, if the server gives them; with or without the token that ended it.
    pub token_ids: Option<Vec<i32>>,
    /// Each of its tokens' logprob under the server's model, in nats, if the server gives them.
    pub logprobs: Option<Vec<f64>>,
    /// Why it ended.
    pub finish: Finish,
    /// The stop string that ended it, if the server says so.
    pub stop_string: Option<String>,
}

impl Completions {
    /// Finds the model among the served ones.
    ///
    /// # Errors
    /// The server cannot be asked, or serves other models only.
    pub fn find(client: Client, model: &str, stopped: Stopped) -> Result<Self, RemoteError> {
        let models = client.get("/models", stopped, |answer| {
            let models = answer.get("data").and_then(Value::as_array).cloned();
            models.ok_or_else(|| "expected a list of models as \"data\", found none".to_string())
        })?;
        let id = |model: &Value| model.get("id").and_then(Value::as_str).map(str::to_string);
        let Some(found) = models.iter().find(|found| id(found).as_deref() == Some(model)) else {
            let ids: Vec<String> = models.iter().filter_map(id).take(MODELS_SHOWN).collect();
            let found = if ids.is_empty() { "none".to_string() } else { ids.join(", ") };
            return Err(RemoteError::Model { url: client.url().to_string(), model: model.to_string(), found });
        };
        let identity = IDENTITY.iter().filter_map(|key| Some((key.to_string(), found.get(*key)?.clone()))).collect();
        Ok(Self { client, model: model.to_string(), identity: Value::Object(identity) })
    }

    /// Whether the server computes penalties in another way: llama.cpp counts the last tokens only,
    /// the prompt's among them, and knows no fewest tokens.
    pub fn has_other_penalties(&self) -> bool {
        self.identity.get("owned_by").and_then(Value::as_str) == Some("llamacpp")
    }

    /// The server's description of the model: id, root, parent, owned_by, created and
    /// max_model_len, as far as they are given.
    pub fn identity(&self) -> &Value {
        &self.identity
    }

    /// Finds out by one request for one token whether the server takes token ids.
    ///
    /// # Errors
    /// It answers neither ids nor text.
    pub fn prompt_form(&self, request: &Request, stopped: Stopped) -> Result<PromptForm, RemoteError> {
        let request = Request { max_tokens: 1, min_tokens: 0, ..request.clone() };
        match self.complete(&request, PromptForm::Ids, stopped) {
            Ok(_) => Ok(PromptForm::Ids),
            Err(RemoteError::Status { status: 400 | 415 | 422, .. }) => {
                self.complete(&request, PromptForm::Text, stopped).map(|_| PromptForm::Text)
            }
            Err(error) => Err(error),
        }
    }

    /// One response.
    ///
    /// # Errors
    /// The server does not answer, or its number of prompt tokens differs from ours: it answers
    /// another prompt.
    pub fn complete(&self, request: &Request, form: PromptForm, stopped: Stopped) -> Result<Completion, RemoteError> {
        let (completion, prompt) = self.client.post("/completions", &self.body(request, form), stopped, |answer| read(&answer))?;
        let failed = |problem: String| Err(RemoteError::Answer { url: format!("{}/completions", self.client.url()), problem });
        let expected = request.prompt_ids.len();
        match prompt {
            Prompt { ids: Some(ids), .. } if ids != request.prompt_ids => {
                return failed(format!(
                    "expected it to read the prompt's {expected} tokens as they are, found {} others; does it have another tokenizer, or add a \
                     beginning-of-sequence token to one that is there?",
                    ids.len()
                ));
            }
            Prompt { ids: None, count: Some(count) } if count != expected as u64 => {
                return failed(format!(
                    "expected it to read the prompt as {expected} tokens, as the policy's tokenizer does, found {count}; does it have another \
                     tokenizer, or add a beginning-of-sequence token to one that is there?"
                ));
            }
            Prompt { ids: None, count: None } if form == PromptForm::Text => {
                return failed(
                    "expected the number of the prompt's tokens (usage.prompt_tokens), found none; so it cannot be known whether it \
                               reads the text as the policy's tokenizer does"
                        .to_string(),
                );
            }
            _ => {}
        }
        match &completion.token_ids {
            Some(ids) if ids.len() > request.max_tokens => {
                failed(format!("expected at most {} tokens, found {}", request.max_tokens, ids.len()))
            }
            _ => Ok(completion),
        }
    }

    fn body(&self, request: &Request, form: PromptForm) -> Value {
        let mut body = json!({
            "model": self.model,
            "prompt": request.prompt_ids,
            "max_tokens": request.max_tokens,
            "temperature": request.temperature,
            "top_p": request.top_p,
            "seed": request.seed,
            "n": 1,
            "stream": false,
            "logprobs": 1,
            "min_p": request.min_p,
            "repetition_penalty": request.repetition_penalty,
            "return_token_ids": true,
            "return_tokens_as_token_ids": true,
        });
        if form == PromptForm::Text {
            body["prompt"] = json!(request.prompt);
            body["add_special_tokens"] = json!(request.add_special_tokens);
        }
        // Servers that do not know a field ignore it, and some refuse one they do not know.
        if request.presence_penalty != 0.0 {
            body["presence_penalty"] = json!(request.presence_penalty);
        }
        if request.min_tokens > 0 {
            body["min_tokens"] = json!(request.min_tokens.min(request.max_tokens));
        }
        if !request.stop.is_empty() {
            body["stop"] = json!(request.stop);
        }
        if !request.stop_token_ids.is_empty() {
            body["stop_token_ids"] = json!(request.stop_token_ids);
        }
        let cuts = self.identity.get("owned_by").and_then(Value::as_str).is_some_and(|owner| CUTTING.contains(&owner));
        if let Some(top_k) = request.top_k.map(i64::from).or(cuts.then_some(-1)) {
            body["top_k"] = json!(top_k);
        }
        body
    }
}

/// The server's view of the prompt.
struct Prompt {
    ids: Option<Vec<i32>>,
    count: Option<u64>,
}

/// A response from an answer; the error names the expected and the found content.
fn read(answer: &Value) -> Result<(Completion, Prompt), String> {
    let choice = answer.get("choices").and_then(|choices| choices.get(0)).ok_or("expected a choice in \"choices\", found none")?;
    let text = choice.get("text").and_then(Value::as_str).ok_or("expected the choice's text, found none")?.to_string();
    let finish = match choice.get("finish_reason").and_then(Value::as_str) {
        Some("stop" | "eos" | "eos_token") => Finish::Stop,
        Some("length") => Finish::Length,
        other => return Err(format!("expected finish_reason stop or length, found {}", other.unwrap_or("none"))),
    };
    let logprobs = choice.get("logprobs");
    let list = |key: &str| logprobs.and_then(|logprobs| logprobs.get(key)).and_then(Value::as_array);
    // llama.cpp describes each token as in a chat completion; the others have parallel lists.
    let described = |key: &str| list("content").map(|tokens| tokens.iter().map(|token| token.get(key)).collect::<Vec<_>>());
    let written = || {
        let tokens = list("tokens")?.iter().map(|token| token.as_str()?.strip_prefix("token_id:")?.parse::<i32>().ok());
        tokens.collect::<Option<Vec<i32>>>()
    };
    let token_ids =
        ids(choice.get("token_ids"))?.or_else(|| described("id")?.into_iter().map(|id| id.and_then(id_of)).collect()).or_else(written);
    let numbers = list("token_logprobs").map(|numbers| numbers.iter().map(Some).collect()).or_else(|| described("logprob"));
    let logprobs = numbers.and_then(|numbers| numbers.into_iter().map(|number| number.and_then(Value::as_f64)).collect());
    let prompt = Prompt {
        ids: ids(choice.get("prompt_token_ids").or_else(|| answer.get("prompt_token_ids")))?,
        count: answer.get("usage").and_then(|usage| usage.get("prompt_tokens")).and_then(Value::as_u64),
    };
    let stop_string = ["stop_reason", "matched_stop", "stopping_word"].into_iter().find_map(|key| choice.get(key)?.as_str());
    let stop_string = stop_string.filter(|string| !string.is_empty()).map(str::to_string);
    Ok((Completion { text, token_ids, logprobs, finish, stop_string }, prompt))
}

/// A list of token ids; `None` if there is none.
fn ids(list: Option<&Value>) -> Result<Option<Vec<i32>>, String> {
    match list {
        None | Some(Value::Null) => Ok(None),
        Some(Value::Array(list)) => match list.iter().map(id_of).collect() {
            Some(ids) => Ok(Some(ids)),
            None => Err("expected token ids, found something else among them".to_string()),
        },
        Some(_) => Err("expected a list of token ids, found something else".to_string()),
    }
}

fn id_of(value: &Value) -> Option<i32> {
    value.as_u64().and_then(|id| i32::try_from(id).ok())
}
