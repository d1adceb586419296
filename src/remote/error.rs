//! Errors between here and a server.

use std::time::Duration;

/// An error of this module.
#[derive(Clone, Debug, thiserror::Error)]
pub enum RemoteError {
    /// The run was asked to stop.
    #[error("interrupted")]
    Stopped,
    /// The address of the server cannot be one.
    #[error("{url}: expected the URL of a server, such as http://localhost:8000/v1: {problem}")]
    Url {
        /// The given address, without a password.
        url: String,
        /// The fault.
        problem: String,
    },
    /// The key for the server is not there.
    #[error("api_key_env: expected the key in the environment variable {variable}, found {found}; set it and run again")]
    Key {
        /// The variable.
        variable: String,
        /// The fault of its value; the value is never shown.
        found: &'static str,
    },
    /// An environment variable about connections has no usable value.
    #[error("{variable}: expected {expected}, found {found}; set it anew, or unset it")]
    Environment {
        /// The variable.
        variable: String,
        /// The expected value.
        expected: &'static str,
        /// The found value, without a password.
        found: String,
    },
    /// No answer: the connection failed or broke, or the answer took too long.
    #[error("{url}: {problem}")]
    Connection {
        /// The server.
        url: String,
        /// The cause.
        problem: String,
    },
    /// An answer of another status than 2xx.
    #[error("{url}: status {status}: {body}")]
    Status {
        /// The server.
        url: String,
        /// The status.
        status: u16,
        /// The beginning of the body.
        body: String,
        /// More of the body, as the server wrote it; not for people.
        said: String,
        /// How long the server asks to wait before the next attempt.
        wait: Option<Duration>,
    },
    /// An unexpected answer, as garbage from a proxy.
    #[error("{url}: {problem}: {body}")]
    Body {
        /// The server.
        url: String,
        /// The expected and the found content.
        problem: String,
        /// The beginning of the body.
        body: String,
    },
    /// An unusable answer that every further attempt would bring again.
    #[error("{url}: {problem}")]
    Answer {
        /// The server.
        url: String,
        /// The expected and the found content.
        problem: String,
    },
    /// The server does not serve the model.
    #[error("{url}/models: expected the model \"{model}\" among what is served, found {found}")]
    Model {
        /// The server.
        url: String,
        /// The wanted model.
        model: String,
        /// The served models.
        found: String,
    },
    /// The server cannot sample as it is asked to.
    #[error("{url}: {problem}")]
    Setting {
        /// The server.
        url: String,
        /// The setting, and a remedy.
        problem: String,
    },
    /// The command that has a server load a model did not do so.
    #[error("serve: {0}")]
    Serve(String),
    /// A policy did not get into a server.
    #[error("update: {problem}")]
    Update {
        /// The failed call, and a remedy.
        problem: String,
        /// Whether another attempt may succeed.
        again: bool,
    },
    /// A server has another policy than the one that it is asked for.
    #[error("{url}: expected the policy {expected}, found {found}; the server has other weights")]
    OtherPolicy {
        /// The server.
        url: String,
        /// The wanted version.
        expected: String,
        /// The version that it tells.
        found: String,
    },
    /// A model or a file cannot be had.
    #[error("{address}: {problem}")]
    Fetch {
        /// Its address, as the pipeline file has it, without secrets.
        address: String,
        /// The expected and the found content, and a remedy.
        problem: String,
        /// Whether the user's input or settings are wrong.
        input: bool,
    },
    /// Every attempt failed.
    #[error("{last} (gave up after {attempts} attempts)")]
    GaveUp {
        /// How many there were.
        attempts: usize,
        /// Why the last one failed.
        last: Box<RemoteError>,
    },
}

impl RemoteError {
    /// Whether the same request may succeed later: no fault of the request is known.
    pub fn is_transient(&self) -> bool {
        match self {
            RemoteError::Connection { .. } | RemoteError::Body { .. } | RemoteError::GaveUp { .. } => true,
            RemoteError::Status { status, .. } => matches!(status, 408 | 425 | 429 | 500..),
            RemoteError::Stopped | RemoteError::Url { .. } | RemoteError::Key { .. } | RemoteError::Environment { .. } => false,
            RemoteError::Setting { .. } => false,
            RemoteError::Update { again, .. } => *again,
            // An update may help.
            RemoteError::OtherPolicy { .. } => true,
            RemoteError::Answer { .. } | RemoteError::Model { .. } | RemoteError::Serve(_) | RemoteError::Fetch { .. } => false,
        }
    }

    /// The status of the last answer, if it was one other than 2xx.
    pub fn status(&self) -> Option<u16> {
        match self {
            RemoteError::Status { status, .. } => Some(*status),
            RemoteError::GaveUp { last, .. } => last.status(),
            _ => None,
        }
    }

    /// The body of the last answer, if its status was another than 2xx.
    pub(super) fn said(&self) -> Option<&str> {
        match self {
            RemoteError::Status { said, .. } => Some(said),
            RemoteError::GaveUp { last, .. } => last.said(),
            _ => None,
        }
    }

    /// How long the server asks to wait before the next request.
    pub fn wait(&self) -> Option<Duration> {
        match self {
            RemoteError::Status { wait, .. } => *wait,
            RemoteError::GaveUp { last, .. } => last.wait(),
            _ => None,
        }
    }

    /// Whether the user's input or settings are wrong.
    pub fn is_input(&self) -> bool {
        matches!(
            self,
            RemoteError::Url { .. }
                | RemoteError::Key { .. }
                | RemoteError::Environment { .. }
                | RemoteError::Model { .. }
                | RemoteError::Setting { .. }
                | RemoteError::Fetch { input: true, .. }
        )
    }
}
