//! A run's tables over PostgreSQL's protocol, for its clients and drivers: queries only, from this machine only.
//!
//! Each statement sees what is committed when it comes. Transactions begin and end without effect, because nothing can be changed; `SET` is
//! accepted and changes nothing, because drivers send it unasked. There is no `pg_catalog`: `information_schema` and `SHOW TABLES` are DataFusion's.
//! Knows the protocol and Arrow; not what a run is beyond [`Live`].

mod answer;
mod parameters;
mod rows;
mod statement;

use std::io;
use std::net::{SocketAddr, ToSocketAddrs};
use std::sync::Arc;

use pgwire::api::auth::StartupHandler;
use pgwire::api::auth::noop::NoopStartupHandler;
use pgwire::api::cancel::{CancelHandler, DefaultCancelHandler};
use pgwire::api::query::{ExtendedQueryHandler, SimpleQueryHandler};
use pgwire::api::{ConnectionManager, PgWireServerHandlers};
use pgwire::tokio::process_socket;
use tokio::net::TcpListener;
use tokio::sync::Semaphore;

use crate::sql::LiveSession;
use answer::Answerer;

/// More clients than one person has; one above it is turned away.
const MOST_CLIENTS: usize = 64;

/// Why there is no server.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// The address is none of this machine's own.
    #[error("--serve {address}: expected HOST:PORT of this machine alone, such as 127.0.0.1:5432, found {found}")]
    Address {
        /// What was given.
        address: String,
        /// What is wrong with it.
        found: String,
    },
    /// The system refuses to listen.
    #[error("--serve {address}: cannot listen: {source}; choose another port, or 0 for any that is free")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// What it says.
        source: io::Error,
    },
    /// The system gives no threads.
    #[error("cannot start the server: {0}")]
    Start(io::Error),
}

/// Answers clients at `address` until the process ends. `listening` is told the address, whose port is the system's choice where 0 was given.
///
/// # Errors
/// The address is not a loopback one, or cannot be listened at.
pub fn serve(live: LiveSession, address: &str, listening: impl FnOnce(SocketAddr)) -> Result<(), ServeError> {
    let address = loopback(address)?;
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().map_err(ServeError::Start)?;
    let cannot_listen = |source| ServeError::Listen { address, source };
    runtime.block_on(async {
        let listener = TcpListener::bind(address).await.map_err(cannot_listen)?;
        listening(listener.local_addr().map_err(cannot_listen)?);
        let handlers = Arc::new(Handlers::new(live));
        let clients = Arc::new(Semaphore::new(MOST_CLIENTS));
        loop {
            // A connection that failed before it was accepted is its client's trouble.
            let Ok((socket, _)) = listener.accept().await else { continue };
            let Ok(permit) = clients.clone().try_acquire_owned() else { continue };
            let handlers = handlers.clone();
            tokio::spawn(async move {
                // A client that went away is not an error.
                let _ = process_socket(socket, None, handlers).await;
                drop(permit);
            });
        }
    })
}

/// The address, if no other machine can reach it.
fn loopback(address: &str) -> Result<SocketAddr, ServeError> {
    let wrong = |found: String| ServeError::Address { address: address.to_string(), found };
    let found: Vec<SocketAddr> = address.to_socket_addrs().map_err(|error| wrong(format!("something else ({error})")))?.collect();
    match found.iter().find(|found| !found.ip().is_loopback()) {
        Some(other) => Err(wrong(format!("{}, which other machines can reach: there is no password", other.ip()))),
        None => found.first().copied().ok_or_else(|| wrong("no address".to_string())),
    }
}

/// What answers each kind of message.
struct Handlers {
    answerer: Arc<Answerer>,
    startup: Arc<Startup>,
    cancel: Arc<DefaultCancelHandler>,
}

impl Handlers {
    fn new(live: LiveSession) -> Self {
        let connections = Arc::new(ConnectionManager::new());
        Self {
            answerer: Arc::new(Answerer::new(live)),
            startup: Arc::new(Startup { connections: connections.clone() }),
            cancel: Arc::new(DefaultCancelHandler::new(connections)),
        }
    }
}

impl PgWireServerHandlers for Handlers {
    fn simple_query_handler(&self) -> Arc<impl SimpleQueryHandler> {
        self.answerer.clone()
    }

    fn extended_query_handler(&self) -> Arc<impl ExtendedQueryHandler> {
        self.answerer.clone()
    }

    fn startup_handler(&self) -> Arc<impl StartupHandler> {
        self.startup.clone()
    }

    fn cancel_handler(&self) -> Arc<impl CancelHandler> {
        self.cancel.clone()
    }
}

/// Lets everyone in who is on this machine.
struct Startup {
    connections: Arc<ConnectionManager>,
}

impl NoopStartupHandler for Startup {
    fn connection_manager(&self) -> Option<Arc<ConnectionManager>> {
        Some(self.connections.clone())
    }
}

#[cfg(test)]
mod tests {
    use super::loopback;

    #[test]
    fn only_this_machine_is_listened_to() {
        for own in ["127.0.0.1:0", "127.8.9.1:5432", "[::1]:5432"] {
            assert!(loopback(own).is_ok(), "{own}");
        }
        for other in ["0.0.0.0:5432", "[::]:5432", "192.0.2.1:5432", "5432", "127.0.0.1", "127.0.0.1:99999", ""] {
            assert!(loopback(other).is_err(), "{other}");
        }
    }
}
