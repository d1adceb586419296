//! Weights into servers: a server loads a policy from a directory, and tells which policy it has.
//!
//! ```text
//! pause ─▶ no version ─▶ weights from the directory ─▶ the policy's version ─▶ resume
//! ```
//!
//! An update is not transactional in a server: one that fails, or is cut off, can leave weights of
//! two policies. So a server loses its version first, and gets the policy's with the last weights.
//! One that tells the policy's version has all of its weights, unless it does not tell the truth.
//! Knows directories and versions, not what a policy is.

mod lora;
mod sglang;
mod vllm;

use std::path::Path;

use serde_json::{Value, json};

use super::attempts::{Trouble, persist};
use super::client::{Client, Patience};
use super::error::RemoteError;
use super::stop::Stopped;

/// The version of a server with an unfinished update.
const UNFINISHED: &str = "optune-unfinished";

/// The calls of a kind of servers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Interface {
    /// vLLM's weight transfer with the backend `disk`.
    Vllm,
    /// SGLang's `update_weights_from_disk`.
    Sglang,
    /// Adapters of vLLM. The version is the adapter's name.
    Lora,
}

/// A policy on the disk.
#[derive(Clone, Copy, Debug)]
pub struct Weights<'a> {
    /// Its directory, absolute. The server sees it at the same path.
    pub path: &'a Path,
    /// Its version: the same for the same weights, another for others.
    pub version: &'a str,
    /// The versions of adapters that are not needed any more.
    pub replaced: &'a [String],
}

/// The calls of one server.
#[derive(Clone, Debug)]
pub struct Admin {
    /// Asks, and makes the short calls. They may be repeated.
    short: Client,
    /// Loads.
    long: Client,
    interface: Interface,
}

impl Admin {
    /// The calls of the server at `url`, without `/v1`. `loading` is the patience of calls that
    /// take as long as the weights; `short` that of the others. Opens no connection yet.
    ///
    /// # Errors
    /// An invalid URL, or a missing key.
    pub fn new(
        url: &str,
        key_variable: Option<&str>,
        interface: Interface,
        short: Patience,
        loading: Patience,
    ) -> Result<Self, RemoteError> {
        let client = |patience| Client::new(url, key_variable, patience);
        Ok(Self { short: client(short)?, long: client(loading)?, interface })
    }

    /// The address.
    pub fn url(&self) -> &str {
        self.short.url()
    }

    /// The same server, each question without retries.
    #[must_use]
    pub fn once(&self) -> Self {
        Self { short: self.short.once(), ..self.clone() }
    }

    /// Checks that the server has the policy of this version now.
    ///
    /// # Errors
    /// [`RemoteError::OtherPolicy`], or it does not tell.
    pub fn check(&self, version: &str, stopped: Stopped) -> Result<(), RemoteError> {
        let found = match self.interface {
            Interface::Vllm => vllm::version(self, stopped),
            Interface::Sglang => sglang::version(self, stopped),
            Interface::Lora => lora::version(self, version, stopped),
        }?;
        if found == version {
            return Ok(());
        }
        Err(RemoteError::OtherPolicy { url: self.url().to_string(), expected: version.to_string(), found })
    }

    /// Loads a policy, whatever the server has. Checks that the server tells its version then.
    ///
    /// # Errors
    /// The server cannot load it, or tells another version all the same.
    pub fn load(&self, weights: &Weights, stopped: Stopped) -> Result<(), RemoteError> {
        let Some(path) = weights.path.to_str() else {
            let problem = format!("{}: expected a path in UTF-8 for {}", weights.path.display(), self.url());
            return Err(RemoteError::Update { problem, again: false });
        };
        match self.interface {
            Interface::Vllm => vllm::load(self, path, weights.version, stopped),
            Interface::Sglang => sglang::load(self, path, weights.version, stopped),
            Interface::Lora => lora::load(self, path, weights, stopped),
        }?;
        self.check(weights.version, stopped)
    }

    /// Has a server with its policy answer requests: an update that was cut off at its very end may
    /// have left it paused. Without an effect on one that is not.
    ///
    /// # Errors
    /// The server does not answer.
    pub fn resume(&self, stopped: Stopped) -> Result<(), RemoteError> {
        match self.interface {
            Interface::Vllm => vllm::resume(self, stopped),
            Interface::Sglang => sglang::resume(self, stopped),
            Interface::Lora => Ok(()),
        }
    }

    /// A short call. It has no effect if it is made again.
    fn call(&self, path: &str, body: Value, hint: &str, stopped: Stopped) -> Result<(), RemoteError> {
        self.short.post(path, &body, stopped, |_| Ok(())).map_err(|error| told(error, hint))
    }

    /// Attempts of a call that cannot simply be made again. After a failure the server is asked:
    /// its answer may be lost, and its work done.
    fn persist(&self, version: &str, stopped: Stopped, mut attempt: impl FnMut() -> Result<(), RemoteError>) -> Result<(), RemoteError> {
        let gave_up = |problem: String| RemoteError::Update { problem, again: true };
        persist(self.long.patience().retries, stopped, &gave_up, &mut || match attempt() {
            Ok(()) => Ok(()),
            Err(RemoteError::Stopped) => Err(Trouble::Final(RemoteError::Stopped)),
            Err(_) if self.check(version, stopped).is_ok() => Ok(()),
            Err(error) if error.is_transient() => Err(Trouble::Again(error.to_string())),
            Err(error) => Err(Trouble::Final(error)),
        })
    }
}

/// The error of a call, with a hint where the server does not know the call.
fn told(error: RemoteError, hint: &str) -> RemoteError {
    // vLLM's answer without `--weight-transfer-config`: `vllm/v1/worker/gpu_worker.py`.
    let is_unknown = matches!(error.status(), Some(404 | 405)) || error.said().is_some_and(|said| said.contains("not configured"));
    if is_unknown { RemoteError::Update { problem: format!("{error}; {hint}"), again: false } } else { error }
}

/// The version in an answer.
fn version_in(answer: &Value) -> Result<String, String> {
    match answer.get("weight_version") {
        Some(Value::String(version)) => Ok(version.clone()),
        Some(Value::Null) => Ok("none".to_string()),
        Some(other) => Ok(other.to_string()),
        None => Err("expected the server's weight_version, found none".to_string()),
    }
}

/// The body that takes a server's version away.
fn unfinished() -> Value {
    json!({ "new_version": UNFINISHED })
}
