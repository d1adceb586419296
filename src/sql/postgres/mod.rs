//! A run's tables over PostgreSQL's protocol, for its clients and drivers. The server is read-only.
//! It binds to loopback only: it has no authentication.
//!
//! Each statement sees the last committed state. Transactions begin and end without effect, because
//! every statement is read-only. `SET` is accepted without effect, because drivers send it on their
//! own. `catalog/` answers questions about tables and types. Knows the protocol and Arrow, and a
//! run only as a [`LiveSession`].

mod answer;
mod catalog;
mod copy;
mod cursors;
mod errors;
mod list_text;
mod numeric;
mod parameters;
mod rows;
mod settings;
mod statement;
mod stream;
mod words;

use std::io;
use std::net::{SocketAddr, ToSocketAddrs};
use std::sync::Arc;
use std::time::Duration;

use pgwire::api::auth::StartupHandler;
use pgwire::api::auth::noop::NoopStartupHandler;
use pgwire::api::cancel::{CancelHandler, DefaultCancelHandler};
use pgwire::api::query::{ExtendedQueryHandler, SimpleQueryHandler};
use pgwire::api::{ConnectionManager, PgWireServerHandlers};
use pgwire::tokio::process_socket;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;

use crate::sql::LiveSession;
use answer::Answerer;
use errors::TOO_MANY;

/// The most clients at once; further ones are told and turned away.
const MOST_CLIENTS: usize = 64;

/// The time to tell a client that it is turned away.
const PATIENCE: Duration = Duration::from_secs(5);

/// The server could not start.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// The address is not a loopback address.
    #[error("--serve {address}: expected HOST:PORT of this machine alone, such as 127.0.0.1:5432, found {found}")]
    Address {
        /// The given address.
        address: String,
        /// The problem.
        found: String,
    },
    /// The system refuses to listen.
    #[error("--serve {address}: cannot listen: {source}; choose another port, or 0 for any that is free")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// The system's reason.
        source: io::Error,
    },
    /// The system gives no threads.
    #[error("cannot start the server: {0}")]
    Start(io::Error),
}

/// Answers clients at `address` until the process ends. `listening` receives the actual address;
/// for port 0 the system chooses one.
///
/// # Errors
/// The address is not a loopback address, or listening fails.
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
            // A connection with an error before its acceptance concerns only its client.
            let Ok((socket, _)) = listener.accept().await else { continue };
            let Ok(permit) = clients.clone().try_acquire_owned() else {
                tokio::spawn(turn_away(socket));
                continue;
            };
            let handlers = handlers.clone();
            tokio::spawn(async move {
                // A disconnected client is no error.
                let _ = process_socket(socket, None, handlers).await;
                drop(permit);
            });
        }
    })
}

/// Tells a client that there are too many, as PostgreSQL does.
async fn turn_away(mut socket: TcpStream) {
    let message = format!("too many clients: expected at most {MOST_CLIENTS} at once; close one");
    let mut fields = Vec::new();
    for (kind, text) in [(b'S', "FATAL"), (b'V', "FATAL"), (b'C', TOO_MANY), (b'M', &message)] {
        fields.push(kind);
        fields.extend_from_slice(text.as_bytes());
        fields.push(0);
    }
    fields.push(0);
    let length = u32::try_from(fields.len() + 4).unwrap_or_default();
    let message = [&b"E"[..], &length.to_be_bytes(), &fields].concat();
    // Its first message is read first: bytes left unread would reset the connection.
    let mut first = [0; 1024];
    let told = async {
        let read = socket.read(&mut first).await?;
        // A request for encryption has eight bytes; the answer to it is no.
        if read == 8 {
            socket.write_all(b"N").await?;
            let _ = socket.read(&mut first).await?;
        }
        socket.write_all(&message).await?;
        socket.shutdown().await
    };
    // A client that is gone needs no words, and a silent one no patience.
    let _ = tokio::time::timeout(PATIENCE, told).await;
}

/// Parses the address and refuses all but loopback addresses.
fn loopback(address: &str) -> Result<SocketAddr, ServeError> {
    let wrong = |found: String| ServeError::Address { address: address.to_string(), found };
    let found: Vec<SocketAddr> = address.to_socket_addrs().map_err(|error| wrong(format!("something else ({error})")))?.collect();
    match found.iter().find(|found| !found.ip().is_loopback()) {
        Some(other) => Err(wrong(format!("{}, which other machines can reach: there is no password", other.ip()))),
        None => found.first().copied().ok_or_else(|| wrong("no address".to_string())),
    }
}

/// The handlers for each kind of message.
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

/// Accepts every client of this machine.
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
