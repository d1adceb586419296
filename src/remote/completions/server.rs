//! The servers, and how each spells a request: neutral sampling is written out, because servers
//! have other defaults.
//!
//! | server | without an explicit value it samples with |
//! |---|---|
//! | vLLM, SGLang | the model's `generation_config.json` |
//! | llama.cpp | top_k 40, top_p 0.95, min_p 0.05, or what its command line says |
//! | llama-cpp-python | the same, and a repetition penalty of 1.1 (`llama_cpp/server/types.py`) |
//! | transformers | the model's `generation_config.json`; its fields stand in one text |
//!
//! Knows the fields, not how they are sent.

use serde_json::{Value, json};

use super::super::client::Client;
use super::super::stop::Stopped;
use super::request::{PromptForm, Request};

/// The kind of a server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ServerKind {
    /// vLLM.
    Vllm,
    /// SGLang.
    Sglang,
    /// llama.cpp's `llama-server`.
    LlamaCpp,
    /// `python -m llama_cpp.server` of llama-cpp-python.
    LlamaCppPython,
    /// `transformers serve`, from 5.0.
    Transformers,
    /// A server with the fields of OpenAI's own API only.
    OpenAi,
    /// Any other.
    Unknown,
}

impl ServerKind {
    /// The word for it in the pipeline file, in the journal and in errors.
    pub fn name(self) -> &'static str {
        match self {
            Self::Vllm => "vllm",
            Self::Sglang => "sglang",
            Self::LlamaCpp => "llamacpp",
            Self::LlamaCppPython => "llama-cpp-python",
            Self::Transformers => "transformers",
            Self::OpenAi => "openai",
            Self::Unknown => "unknown",
        }
    }

    /// The server by the owner of its models; llama-cpp-python's are `me`.
    pub(super) fn of_owner(owner: &str) -> Option<Self> {
        match owner {
            "vllm" => Some(Self::Vllm),
            "sglang" => Some(Self::Sglang),
            "llamacpp" => Some(Self::LlamaCpp),
            "me" => Some(Self::LlamaCppPython),
            _ => None,
        }
    }

    /// The server by what it answers beside the API: the description that FastAPI makes, or
    /// llama.cpp's `/props`.
    pub(super) fn look(client: &Client, stopped: Stopped) -> Self {
        let url = client.url().trim_end_matches('/');
        // A server may close a connection behind a refusal, in the moment of the next request.
        let Some(root) = client.with_retries(1).at(url.strip_suffix("/v1").unwrap_or(url)) else { return Self::Unknown };
        let described = root.get("/openapi.json", stopped, |answer| {
            let title = answer.get("info").and_then(|info| info.get("title")).and_then(Value::as_str).unwrap_or_default().to_string();
            let paths = answer.get("paths").and_then(Value::as_object).map(|paths| paths.keys().cloned().collect::<Vec<_>>());
            paths.map(|paths| (title, paths)).ok_or_else(|| "expected the paths of an API, found none".to_string())
        });
        if let Ok((title, paths)) = described {
            let has = |path: &str| paths.iter().any(|found| found == path);
            return if title.contains("llama.cpp Python") {
                Self::LlamaCppPython
            } else if has("/get_model_info") || has("/model_info") {
                Self::Sglang
            } else if has("/load_model") {
                Self::Transformers
            } else if has("/version") && has("/tokenize") {
                Self::Vllm
            } else {
                Self::Unknown
            };
        }
        let is_props = |answer: Value| answer.get("default_generation_settings").map(drop).ok_or_else(|| "expected settings".to_string());
        if root.get("/props", stopped, is_props).is_ok() { Self::LlamaCpp } else { Self::Unknown }
    }

    /// Whether it lists the models that it serves.
    pub(super) fn lists_models(self) -> bool {
        // transformers lists the hub's cache.
        self != Self::Transformers
    }

    /// Whether its texts are decoded alone. The tokenizers that write a space before a text's first
    /// word then drop the space at the response's beginning.
    pub(super) fn decodes_alone(self) -> bool {
        self == Self::Transformers
    }

    /// The settings of a request that this server has not, or computes in another way.
    pub(super) fn lacks(self, request: &Request) -> Vec<&'static str> {
        let penalties = [
            ("repetition_penalty", request.repetition_penalty != 1.0),
            ("presence_penalty", request.presence_penalty != 0.0),
            ("min_new_tokens", request.min_tokens > 0),
        ];
        let settings: Vec<(&'static str, bool)> = match self {
            Self::Vllm | Self::Sglang | Self::Unknown => Vec::new(),
            // They count the last 64 tokens, the prompt's among them.
            Self::LlamaCpp => penalties.to_vec(),
            Self::LlamaCppPython => penalties[..2].to_vec(),
            Self::Transformers => vec![penalties[1]],
            Self::OpenAi => {
                vec![penalties[0], penalties[2], ("top_k", request.top_k.is_some()), ("min_p", request.min_p != 0.0)]
            }
        };
        settings.into_iter().filter(|(_, given)| *given).map(|(name, _)| name).collect()
    }

    /// The fields of a request beside the prompt, the model and those of every server. Sampling is
    /// neutral where the request does not say otherwise.
    pub(super) fn fields(self, request: &Request, form: PromptForm) -> Vec<(&'static str, Value)> {
        let mut fields: Vec<(&'static str, Value)> = Vec::new();
        fields.push(match form {
            PromptForm::Messages => ("logprobs", json!(true)),
            PromptForm::Ids | PromptForm::Text => ("logprobs", json!(1)),
        });
        if !request.stop.is_empty() {
            fields.push(("stop", json!(request.stop)));
        }
        let all_tokens = if self == Self::LlamaCppPython { 0 } else { -1 };
        let top_k = ("top_k", json!(request.top_k.map_or(all_tokens, i64::from)));
        let penalty = |name: &'static str| (name, json!(request.repetition_penalty));
        let presence = ("presence_penalty", json!(request.presence_penalty));
        let min_p = ("min_p", json!(request.min_p));
        let min_tokens = (request.min_tokens > 0).then(|| ("min_tokens", json!(request.min_tokens.min(request.max_tokens))));
        match self {
            Self::Vllm | Self::Sglang | Self::Unknown => {
                fields.extend([top_k, min_p, penalty("repetition_penalty")]);
                if request.presence_penalty != 0.0 {
                    fields.push(presence);
                }
                if self == Self::Unknown {
                    fields.extend([penalty("repeat_penalty"), ("typical_p", json!(1.0))]);
                }
                fields.extend(min_tokens);
                fields.extend([("return_token_ids", json!(true)), ("return_tokens_as_token_ids", json!(true))]);
                if !request.stop_token_ids.is_empty() {
                    fields.push(("stop_token_ids", json!(request.stop_token_ids)));
                }
                if form == PromptForm::Text {
                    fields.push(("add_special_tokens", json!(request.add_special_tokens)));
                }
            }
            Self::LlamaCpp => fields.extend([
                top_k,
                min_p,
                ("typical_p", json!(1.0)),
                ("top_n_sigma", json!(-1.0)),
                ("repeat_penalty", json!(1.0)),
                ("presence_penalty", json!(0.0)),
                ("frequency_penalty", json!(0.0)),
                ("dry_multiplier", json!(0.0)),
                ("xtc_probability", json!(0.0)),
                ("dynatemp_range", json!(0.0)),
                ("mirostat", json!(0)),
            ]),
            Self::LlamaCppPython => {
                fields.extend([
                    top_k,
                    min_p,
                    ("repeat_penalty", json!(1.0)),
                    ("presence_penalty", json!(0.0)),
                    ("frequency_penalty", json!(0.0)),
                    ("mirostat_mode", json!(0)),
                ]);
                fields.extend(min_tokens);
            }
            Self::Transformers => {
                fields.retain(|(name, _)| *name != "logprobs");
                fields.push(("generation_config", json!(generation_config(request).to_string())));
            }
            Self::OpenAi => {
                if request.presence_penalty != 0.0 {
                    fields.push(presence);
                }
            }
        }
        fields
    }
}

/// The settings as transformers has them: `GenerationConfig` of this text only, without the
/// model's own.
fn generation_config(request: &Request) -> Value {
    let mut config = json!({
        "do_sample": request.temperature > 0.0,
        "max_new_tokens": request.max_tokens,
        "repetition_penalty": request.repetition_penalty,
    });
    if request.temperature > 0.0 {
        config["temperature"] = json!(request.temperature);
        config["top_p"] = json!(request.top_p);
        config["top_k"] = json!(request.top_k.unwrap_or(0));
        if request.min_p > 0.0 {
            config["min_p"] = json!(request.min_p);
        }
    }
    if request.min_tokens > 0 {
        config["min_new_tokens"] = json!(request.min_tokens.min(request.max_tokens));
    }
    if !request.stop_token_ids.is_empty() {
        config["eos_token_id"] = json!(request.stop_token_ids);
    }
    config
}
