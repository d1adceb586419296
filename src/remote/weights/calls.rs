//! Calls of a server that loads weights: short ones, which may be repeated, and long ones.
//!
//! Knows no kind of servers.

use serde_json::{Value, json};

use crate::remote::attempts::{Trouble, persist};
use crate::remote::client::Client;
use crate::remote::error::RemoteError;
use crate::remote::stop::Stopped;

/// The version of a server with an unfinished update.
const UNFINISHED: &str = "optune-unfinished";

/// The clients of one server.
#[derive(Clone, Debug)]
pub(super) struct Calls {
    /// Asks, and makes the short calls. They may be repeated.
    pub(super) short: Client,
    /// Loads.
    pub(super) long: Client,
}

impl Calls {
    /// A short call. It has no effect if it is made again.
    pub(super) fn call(&self, path: &str, body: Value, hint: &str, stopped: Stopped) -> Result<(), RemoteError> {
        self.short.post(path, &body, stopped, |_| Ok(())).map_err(|error| told(error, hint))
    }

    /// Attempts of a call that cannot simply be made again. After a failure the server is asked
    /// whether it `is_done`: its answer may be lost, and its work done.
    pub(super) fn persist(
        &self,
        stopped: Stopped,
        is_done: impl Fn() -> bool,
        mut attempt: impl FnMut() -> Result<(), RemoteError>,
    ) -> Result<(), RemoteError> {
        let gave_up = |problem: String| RemoteError::Update { problem, again: true };
        persist(self.long.patience().retries, stopped, &gave_up, &mut || match attempt() {
            Ok(()) => Ok(()),
            Err(RemoteError::Stopped) => Err(Trouble::Final(RemoteError::Stopped)),
            Err(_) if is_done() => Ok(()),
            Err(error) if error.is_transient() => Err(Trouble::Again(error.to_string())),
            Err(error) => Err(Trouble::Final(error)),
        })
    }

    /// Refuses another version than the expected one.
    pub(super) fn expect(&self, expected: &str, found: String) -> Result<(), RemoteError> {
        if found == expected {
            return Ok(());
        }
        Err(RemoteError::OtherPolicy { url: self.short.url().to_string(), expected: expected.to_string(), found })
    }
}

/// The error of a call, with a hint where the server does not know the call.
pub(super) fn told(error: RemoteError, hint: &str) -> RemoteError {
    // vLLM's answer without `--weight-transfer-config`: `vllm/v1/worker/gpu_worker.py`.
    let is_unknown = matches!(error.status(), Some(404 | 405)) || error.said().is_some_and(|said| said.contains("not configured"));
    if is_unknown { RemoteError::Update { problem: format!("{error}; {hint}"), again: false } } else { error }
}

/// The version in an answer.
pub(super) fn version_in(answer: &Value) -> Result<String, String> {
    match answer.get("weight_version") {
        Some(Value::String(version)) => Ok(version.clone()),
        Some(Value::Null) => Ok("none".to_string()),
        Some(other) => Ok(other.to_string()),
        None => Err("expected the server's weight_version, found none".to_string()),
    }
}

/// The body that takes a server's version away.
pub(super) fn unfinished() -> Value {
    json!({ "new_version": UNFINISHED })
}
