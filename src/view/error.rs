//! Errors of the page, each with the status of its answer. Knows nothing of sockets.

use std::io;
use std::net::SocketAddr;

use crate::report::ReportError;
use crate::store::StoreError;

/// Why a request has no answer.
#[derive(Debug, thiserror::Error)]
pub enum ViewError {
    /// A parameter or a body is wrong.
    #[error("{0}")]
    Input(String),
    /// There is no such page, run or row.
    #[error("{0}")]
    NotFound(String),
    /// The request lacks the token, or comes from another page.
    #[error("{0}")]
    Forbidden(String),
    /// A query takes longer than the page waits.
    #[error("expected an answer within {seconds} s, found none; filter by fewer rows, or ask with `optune sql`")]
    Late {
        /// The time limit.
        seconds: u64,
    },
    /// A run cannot be read, or a query is wrong.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A run's pipeline or tables cannot be read.
    #[error(transparent)]
    Report(Box<ReportError>),
    /// An impossible state: an error in this program.
    #[error("internal error in {place}: {problem}; this is a bug in optune, please report it")]
    Internal {
        /// The function or module.
        place: &'static str,
        /// The state.
        problem: String,
    },
}

impl From<ReportError> for ViewError {
    fn from(error: ReportError) -> Self {
        Self::Report(Box::new(error))
    }
}

impl ViewError {
    /// For impossible states: an error of this program at `place`.
    pub(super) fn internal(place: &'static str, problem: impl ToString) -> Self {
        Self::Internal { place, problem: problem.to_string() }
    }

    /// The status of the answer.
    pub(super) fn status(&self) -> u16 {
        match self {
            Self::Input(_) => 400,
            Self::Store(error) if error.is_input() => 400,
            Self::Forbidden(_) => 403,
            Self::NotFound(_) => 404,
            Self::Late { .. } => 503,
            Self::Store(_) | Self::Report(_) | Self::Internal { .. } => 500,
        }
    }
}

/// The page could not be served.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// The system refuses to listen.
    #[error("--port {}: cannot listen at {address}: {source}; choose another port, or 0 for any that is free", address.port())]
    Listen {
        /// The address.
        address: SocketAddr,
        /// The system's reason.
        source: io::Error,
    },
    /// The system gives no threads or no random bytes.
    #[error("cannot start the server: {0}")]
    Start(String),
}
