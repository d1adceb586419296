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

mod calls;
mod lora;
mod sglang;
mod vllm;

use std::path::Path;

use super::client::{Client, Patience};
use super::error::RemoteError;
use super::stop::Stopped;
use calls::Calls;

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
    calls: Calls,
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
        Ok(Self { calls: Calls { short: client(short)?, long: client(loading)? }, interface })
    }

    /// The address.
    pub fn url(&self) -> &str {
        self.calls.short.url()
    }

    /// The same server, each question without retries.
    #[must_use]
    pub fn once(&self) -> Self {
        Self { calls: Calls { short: self.calls.short.once(), ..self.calls.clone() }, ..self.clone() }
    }

    /// Checks that the server has the policy of this version now.
    ///
    /// # Errors
    /// [`RemoteError::OtherPolicy`], or it does not tell.
    pub fn check(&self, version: &str, stopped: Stopped) -> Result<(), RemoteError> {
        let found = match self.interface {
            Interface::Vllm => vllm::version(&self.calls, stopped),
            Interface::Sglang => sglang::version(&self.calls, stopped),
            Interface::Lora => lora::version(&self.calls, version, stopped),
        }?;
        self.calls.expect(version, found)
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
            Interface::Vllm => vllm::load(&self.calls, path, weights.version, stopped),
            Interface::Sglang => sglang::load(&self.calls, path, weights.version, stopped),
            Interface::Lora => lora::load(&self.calls, path, weights.version, weights.replaced, stopped),
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
            Interface::Vllm => vllm::resume(&self.calls, stopped),
            Interface::Sglang => sglang::resume(&self.calls, stopped),
            Interface::Lora => Ok(()),
        }
    }
}
