//! Servers with weights from a disk: the calls and answers of vLLM and of SGLang, and their faults.
//!
//! - vLLM: `vllm/entrypoints/serve/dev/rlhf/api_router.py` and `serve/lora/api_router.py` there,
//!   `vllm/distributed/weight_transfer/disk_engine.py`.
//! - SGLang: `python/sglang/srt/entrypoints/http_server.py`.
//!
//! An answer depends on the weights of the server: the hash of the file that it loaded.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::{Value, json};

use super::{EOS, MOST, text_of};
use crate::fixtures::http_server::{Reply, Request};

/// The weights of a server that was just started.
pub const OLD: &str = "old";
/// The weights in the middle of an update.
pub const TORN: &str = "torn";
/// The version of a server that was just started.
const NO_VERSION: &str = "default";

/// The kind of a server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Vllm,
    Sglang,
}

/// A server. Clones are the same one.
#[derive(Clone)]
pub struct Weighted {
    kind: Kind,
    state: Arc<Mutex<State>>,
}

/// Its weights, and its faults.
pub struct State {
    pub version: String,
    pub weights: String,
    /// The names of adapters, each with its weights.
    pub adapters: BTreeMap<String, String>,
    pub is_paused: bool,
    is_ready: bool,
    /// An open session, and whether it has its weights.
    session: Option<bool>,
    served: String,
    /// Paths of the loaded directories.
    pub loaded: Vec<String>,
    /// Answers so far, by the weights that made them.
    pub answers: BTreeMap<String, usize>,
    /// Requests that the real server would not have taken.
    pub violations: Vec<String>,
    /// It keeps its version whatever it is told.
    pub keeps_version: bool,
    /// So many updates fail, with half of the weights loaded.
    pub failing_updates: usize,
    /// Calls with this path do their work, and their next answer is lost.
    pub lost: Vec<&'static str>,
    /// It is started anew after so many further answers, and answers the next with old weights.
    pub restarts_after: Option<usize>,
    /// The time of each call but completions and questions.
    pub pause: Duration,
}

impl Weighted {
    pub fn new(kind: Kind) -> Self {
        let state = State {
            version: NO_VERSION.to_string(),
            weights: OLD.to_string(),
            adapters: BTreeMap::new(),
            is_paused: false,
            is_ready: false,
            session: None,
            served: "tiny".to_string(),
            loaded: Vec::new(),
            answers: BTreeMap::new(),
            violations: Vec::new(),
            keeps_version: false,
            failing_updates: 0,
            lost: Vec::new(),
            restarts_after: None,
            pause: Duration::ZERO,
        };
        Self { kind, state: Arc::new(Mutex::new(state)) }
    }

    /// The same server with other faults.
    pub fn with(self, change: impl FnOnce(&mut State)) -> Self {
        change(&mut self.state.lock().unwrap());
        self
    }

    /// Reads its state.
    pub fn read<T>(&self, read: impl FnOnce(&State) -> T) -> T {
        read(&self.state.lock().unwrap())
    }

    /// Its answers to requests.
    pub fn serve(&self) -> impl Fn(&Request) -> Reply + Send + Sync + 'static {
        let server = self.clone();
        move |request| server.answer(request)
    }

    pub fn answer(&self, request: &Request) -> Reply {
        let (pause, path) = (self.read(|state| state.pause), request.path.as_str());
        if !pause.is_zero() && request.method == "POST" && !path.ends_with("/completions") {
            std::thread::sleep(pause);
        }
        let mut state = self.state.lock().unwrap();
        let mut reply = match (self.kind, request.method.as_str(), path) {
            (_, "GET", "/v1/models") => state.models(self.kind),
            (_, "POST", "/v1/completions") => state.complete(self.kind, &request.json()),
            (_, "POST", "/update_weight_version") => match request.json()["new_version"].as_str() {
                Some(version) => {
                    state.version = version.to_string();
                    Reply::json(json!({ "success": true, "new_version": version }))
                }
                None => refusal(422, "new_version: field required"),
            },
            (Kind::Vllm, method, path) => state.vllm(method, path, request),
            (Kind::Sglang, method, path) => state.sglang(method, path, request),
        };
        if let Some(at) = state.lost.iter().position(|lost| *lost == path) {
            state.lost.remove(at);
            reply.cut = Some(0);
        }
        reply
    }
}

impl State {
    /// A process that was just started.
    pub fn restart(&mut self) {
        self.version = NO_VERSION.to_string();
        self.weights = OLD.to_string();
        self.adapters.clear();
        self.served = "tiny".to_string();
        (self.is_paused, self.is_ready, self.session) = (false, false, None);
    }

    fn models(&self, kind: Kind) -> Reply {
        let owner = if kind == Kind::Vllm { "vllm" } else { "sglang" };
        let mut models = vec![json!({ "id": self.served, "object": "model", "owned_by": owner, "root": self.served })];
        models.extend(self.adapters.keys().map(|name| json!({ "id": name, "object": "model", "owned_by": owner, "parent": "tiny" })));
        Reply::json(json!({ "object": "list", "data": models }))
    }

    fn complete(&mut self, kind: Kind, body: &Value) -> Reply {
        if let Some(left) = self.restarts_after.filter(|_| body["max_tokens"] != 1) {
            self.restarts_after = left.checked_sub(1);
            if self.restarts_after.is_none() {
                self.restart();
            }
        }
        let model = body["model"].as_str().unwrap();
        // A request that was on its way comes in a pause too. The real ones keep it until they go on;
        // this one answers with whatever weights it has.
        let weights = match self.adapters.get(model) {
            Some(adapter) => adapter.clone(),
            None if kind == Kind::Sglang || model == self.served => self.weights.clone(),
            None => return refusal(404, &format!("The model `{model}` does not exist.")),
        };
        let Some(prompt) = body["prompt"].as_array() else { return refusal(400, "prompt: expected token ids") };
        let prompt: Vec<i32> = prompt.iter().map(|id| id.as_i64().unwrap() as i32).collect();
        let mut ids = answer(&weights, &prompt, body["seed"].as_u64().unwrap());
        ids.truncate(body["max_tokens"].as_u64().unwrap() as usize);
        let finish = if ids.last() == Some(&EOS) { "stop" } else { "length" };
        let logprobs = json!({ "token_logprobs": vec![-0.5; ids.len()], "tokens": [] });
        let mut choice = json!({ "index": 0, "text": text_of(&ids), "finish_reason": finish, "logprobs": logprobs });
        choice["prompt_token_ids"] = json!(prompt);
        choice["token_ids"] = json!(ids);
        let mut reply = json!({ "choices": [choice], "model": model, "usage": { "prompt_tokens": prompt.len() } });
        if kind == Kind::Sglang {
            reply["metadata"] = json!({ "weight_version": self.version });
        }
        if body["max_tokens"] != 1 {
            *self.answers.entry(weights).or_default() += 1;
        }
        Reply::json(reply)
    }

    /// Loads the weights of a directory.
    fn load(&mut self, path: &str) -> Result<(), String> {
        self.loaded.push(path.to_string());
        self.weights = TORN.to_string();
        let file = Path::new(path).join("model.safetensors");
        if !Path::new(path).is_absolute() || !file.is_file() {
            return Err(format!("Shared-disk checkpoint directory contains no safetensors files: {path}"));
        }
        if let Some(left) = self.failing_updates.checked_sub(1) {
            self.failing_updates = left;
            return Err("CUDA error: out of memory".to_string());
        }
        self.weights = weights_of(&file);
        Ok(())
    }

    fn vllm(&mut self, method: &str, path: &str, request: &Request) -> Reply {
        let body = || request.json();
        match (method, path) {
            ("GET", "/weight_info") => Reply::json(json!({ "weight_version": self.version })),
            ("POST", "/pause") => {
                self.is_paused = true;
                Reply::json(json!({ "status": "paused" }))
            }
            ("POST", "/resume") => {
                self.is_paused = false;
                Reply::json(json!({ "status": "resumed" }))
            }
            ("POST", "/init_weight_transfer_engine") => {
                if body().get("init_info").is_none() {
                    return refusal(400, "Missing 'init_info' in request body");
                }
                self.is_ready = true;
                Reply::json(json!({ "message": "Weight transfer initialized" }))
            }
            ("POST", "/start_weight_update") => {
                if !self.is_paused || !self.is_ready {
                    self.violations.push("an update before the pause or the initialization".to_string());
                }
                if self.session.is_some() {
                    return refusal(500, "A shared-disk weight update is already active");
                }
                self.session = Some(false);
                Reply::json(json!({ "message": "Weight update started" }))
            }
            ("POST", "/update_weights") => {
                let Some(path) = body()["update_info"]["path"].as_str().map(str::to_string) else {
                    return refusal(400, "Missing 'update_info' in request body");
                };
                let loaded = match self.session {
                    None => Err("start_weight_update must be called before loading a checkpoint".to_string()),
                    Some(true) => Err("The disk backend accepts exactly one checkpoint per update session".to_string()),
                    Some(false) => self.load(&path),
                };
                self.session = loaded.is_ok().then_some(true);
                loaded.map_or_else(|problem| refusal(500, &problem), |()| Reply::json(json!({ "message": "Weights updated" })))
            }
            ("POST", "/finish_weight_update") => match self.session.take() {
                None => refusal(500, "No shared-disk weight update is active"),
                Some(false) => refusal(500, "No checkpoint was loaded during the shared-disk update session"),
                Some(true) => {
                    if let Some(version) = body()["weight_version"].as_str().filter(|_| !self.keeps_version) {
                        self.version = version.to_string();
                    }
                    Reply::json(json!({ "message": "Weight update finished" }))
                }
            },
            ("POST", "/v1/load_lora_adapter") => {
                let (name, path) = (body()["lora_name"].as_str().unwrap().to_string(), body()["lora_path"].as_str().unwrap().to_string());
                if self.adapters.contains_key(&name) {
                    return refusal(400, &format!("The lora adapter '{name}' has already been loaded."));
                }
                let file = Path::new(&path).join("adapter_model.safetensors");
                if !file.is_file() {
                    return refusal(404, &format!("Loading lora {name} failed: No adapter found for {path}"));
                }
                self.loaded.push(path);
                self.adapters.insert(name.clone(), weights_of(&file));
                Reply::of(200, format!("Success: LoRA adapter '{name}' added successfully.").into_bytes())
            }
            ("POST", "/v1/unload_lora_adapter") => {
                let name = body()["lora_name"].as_str().unwrap().to_string();
                match self.adapters.remove(&name) {
                    Some(_) => Reply::of(200, format!("Success: LoRA adapter '{name}' removed successfully.").into_bytes()),
                    None => refusal(404, &format!("The lora adapter '{name}' cannot be found.")),
                }
            }
            _ => Reply::of(404, b"{\"detail\":\"Not Found\"}".to_vec()),
        }
    }

    fn sglang(&mut self, method: &str, path: &str, request: &Request) -> Reply {
        match (method, path) {
            ("GET", "/model_info") => Reply::json(json!({ "model_path": self.served, "weight_version": self.version })),
            ("POST", "/pause_generation") => {
                self.is_paused = true;
                Reply::json(json!({ "message": "Generation paused successfully.", "status": "ok" }))
            }
            ("POST", "/continue_generation") => {
                self.is_paused = false;
                Reply::json(json!({ "message": "Generation continued successfully.", "status": "ok" }))
            }
            ("POST", "/update_weights_from_disk") => {
                let body = request.json();
                let path = body["model_path"].as_str().unwrap();
                let loaded = self.load(path);
                if loaded.is_ok() {
                    self.served = path.to_string();
                    if let Some(version) = body["weight_version"].as_str().filter(|_| !self.keeps_version) {
                        self.version = version.to_string();
                    }
                }
                let status = if loaded.is_ok() { 200 } else { 400 };
                let message = loaded.as_ref().err().map_or("Succeeded to update model weights.", String::as_str);
                let body = json!({ "success": loaded.is_ok(), "message": message, "num_paused_requests": 0 });
                Reply::of(status, body.to_string().into_bytes())
            }
            _ => Reply::of(404, b"{\"detail\":\"Not Found\"}".to_vec()),
        }
    }
}

/// A refusal as vLLM's and SGLang's handlers of errors write it.
fn refusal(status: u16, message: &str) -> Reply {
    Reply::of(status, json!({ "error": { "message": message, "type": "error", "param": null, "code": status } }).to_string().into_bytes())
}

/// The weights in a file.
pub fn weights_of(file: &Path) -> String {
    blake3::hash(&std::fs::read(file).unwrap()).to_hex().to_string()
}

/// The answer of these weights to a prompt and a seed, as [`super::answer`].
pub fn answer(weights: &str, prompt: &[i32], seed: u64) -> Vec<i32> {
    let hash = blake3::hash(format!("{weights} {prompt:?} {seed}").as_bytes());
    let length = 1 + usize::from(hash.as_bytes()[0]) % MOST;
    let mut ids: Vec<i32> = hash.as_bytes()[1..=length].iter().map(|byte| 36 + i32::from(byte % 60)).collect();
    if length < MOST {
        ids.push(EOS);
    }
    ids
}
