//! The server: connections, routes and answers. Knows the functions of a run by their results.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures::stream;
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full, Limited, StreamBody};
use hyper::body::{Bytes, Frame, Incoming};
use hyper::header::{
    ALLOW, CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, HeaderMap, HeaderValue, LOCATION, REFERRER_POLICY, SET_COOKIE,
    X_CONTENT_TYPE_OPTIONS,
};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use serde::Serialize;
use serde_json::json;
use tokio::net::TcpListener;
use tokio::sync::Semaphore;

use super::access::Access;
use super::error::{ServeError, ViewError};
use super::files;
use super::parameters::Parameters;
use super::viewed::Viewed;
use crate::catch_panic::catch_panic;
use crate::store::{Run, Runs};

/// The most connections at once. A browser has six.
const MOST_CONNECTIONS: usize = 128;
/// How long a client may take for the head of a request.
const HEAD_PATIENCE: Duration = Duration::from_secs(20);
/// The most bytes of a request's body.
const MOST_BODY_BYTES: usize = 256 << 10;
/// How often a run is looked at for news.
const LOOK: Duration = Duration::from_millis(500);
/// The pause after a look that failed.
const PROBLEM_PAUSE: Duration = Duration::from_secs(2);
/// Looks without news until a sign of life.
const QUIET_LOOKS: u32 = 20;

/// Every request and every script from elsewhere is forbidden. Styles may be inline: the charts'
/// library writes them.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self'; connect-src 'self'; \
                      base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

type Body = UnsyncBoxBody<Bytes, Infallible>;

/// The runs of a page.
pub struct View {
    runs: Runs,
    /// The named ones; without a name, all runs of the folder.
    named: Vec<Run>,
    opened: Mutex<BTreeMap<String, Arc<Viewed>>>,
}

/// A run in the list.
#[derive(Serialize)]
struct Listed {
    /// Its name in requests.
    name: String,
    /// Whether a process writes it now; none where it is unknown.
    running: Option<bool>,
}

impl View {
    /// The page about these runs; about all of the folder if none is named.
    pub fn new(runs: Runs, named: Vec<Run>) -> Self {
        Self { runs, named, opened: Mutex::default() }
    }

    /// The runs by their names in requests. Equal names of several folders are numbered.
    fn named(&self) -> Result<Vec<(String, Run)>, ViewError> {
        let all = if self.named.is_empty() {
            self.runs.names()?.iter().map(|name| self.runs.run(name)).collect::<Result<Vec<_>, _>>()?
        } else {
            self.named.clone()
        };
        let mut found: Vec<(String, Run)> = Vec::with_capacity(all.len());
        for run in all {
            let same = found.iter().filter(|(_, other)| other.name() == run.name()).count();
            let name = if same == 0 { run.name().to_string() } else { format!("{}#{}", run.name(), same + 1) };
            found.push((name, run));
        }
        Ok(found)
    }

    /// The runs with their states.
    fn list(&self) -> Result<Vec<Listed>, ViewError> {
        Ok(self.named()?.into_iter().map(|(name, run)| Listed { name, running: run.is_locked() }).collect())
    }

    /// The run of a request.
    fn run(&self, parameters: &Parameters) -> Result<Arc<Viewed>, ViewError> {
        let wanted = parameters.required("run")?;
        let all = self.named()?;
        let Some((_, run)) = all.iter().find(|(name, _)| name == wanted) else {
            let names = all.iter().map(|(name, _)| name.as_str()).collect::<Vec<_>>().join(", ");
            return Err(ViewError::NotFound(format!("expected a run, one of: {names}; found {wanted:?}")));
        };
        let mut opened = self.opened.lock().unwrap_or_else(PoisonError::into_inner);
        Ok(opened.entry(wanted.to_string()).or_insert_with(|| Arc::new(Viewed::new(run.clone()))).clone())
    }

    /// The answer to a question, as JSON.
    fn answer(&self, path: &str, parameters: &Parameters) -> Result<Vec<u8>, ViewError> {
        let run = || self.run(parameters);
        match path {
            "/api/runs" => to_json(&self.list()?),
            "/api/progress" => to_json(&run()?.progress()?),
            "/api/prompts" => to_json(&run()?.prompts(parameters)?),
            "/api/prompts/count" => to_json(&json!({ "count": run()?.prompt_count(parameters)? })),
            "/api/prompt" => to_json(&run()?.prompt(parameters)?),
            "/api/tokens" => to_json(&run()?.tokens(parameters)?),
            "/api/tables" => to_json(&run()?.tables()?),
            "/api/rows" => to_json(&run()?.table_rows(parameters)?),
            "/api/rows/count" => to_json(&json!({ "count": run()?.row_count(parameters)? })),
            "/api/report" => to_json(&*run()?.sections()?),
            _ => Err(ViewError::NotFound(format!("expected a page, found {path:?}"))),
        }
    }
}

fn to_json(value: &impl Serialize) -> Result<Vec<u8>, ViewError> {
    serde_json::to_vec(value).map_err(|error| ViewError::internal("view::server", error))
}

/// Serves the page on loopback until the process ends. `listening` receives its address with the
/// token; for port 0 the system chooses one.
///
/// # Errors
/// Listening fails.
pub fn serve(view: View, port: u16, listening: impl FnOnce(&str)) -> Result<(), ServeError> {
    let start = |error: std::io::Error| ServeError::Start(error.to_string());
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().map_err(start)?;
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    let cannot_listen = |source| ServeError::Listen { address, source };
    runtime.block_on(async {
        let listener = TcpListener::bind(address).await.map_err(cannot_listen)?;
        let port = listener.local_addr().map_err(cannot_listen)?.port();
        let access = Access::new(port).map_err(ServeError::Start)?;
        listening(&format!("http://127.0.0.1:{port}/?token={}", access.token()));
        let server = Arc::new(Server { view: Arc::new(view), access });
        let connections = Arc::new(Semaphore::new(MOST_CONNECTIONS));
        loop {
            // A connection with an error before its acceptance concerns only its client.
            let Ok((socket, _)) = listener.accept().await else { continue };
            // A client too many waits.
            let Ok(permit) = connections.clone().acquire_owned().await else { continue };
            let server = server.clone();
            tokio::spawn(async move {
                let service = service_fn(move |request| {
                    let server = server.clone();
                    async move { Ok::<_, Infallible>(server.respond(request).await) }
                });
                let mut connection = http1::Builder::new();
                connection.timer(TokioTimer::new()).header_read_timeout(HEAD_PATIENCE);
                // A disconnected client is no error.
                let _ = connection.serve_connection(TokioIo::new(socket), service).await;
                drop(permit);
            });
        }
    })
}

struct Server {
    view: Arc<View>,
    access: Access,
}

impl Server {
    /// The response to a request, an error's too.
    async fn respond(&self, request: Request<Incoming>) -> Response<Body> {
        let response = self.route(request).await.unwrap_or_else(|error| {
            let text = json!({ "error": error.to_string() }).to_string();
            let status = StatusCode::from_u16(error.status()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
            with_status(status, "application/json", text.into_bytes())
        });
        guarded(response)
    }

    async fn route(&self, request: Request<Incoming>) -> Result<Response<Body>, ViewError> {
        self.access.check_host(request.headers())?;
        let path = request.uri().path().to_string();
        let parameters = Parameters::parse(request.uri().query().unwrap_or_default());
        if path == "/" && request.method() == Method::GET && parameters.text("token").is_some_and(|token| self.access.is_token(token)) {
            return Ok(self.enter());
        }
        self.access.check_token(request.headers())?;
        match (request.method(), path.as_str()) {
            (&Method::GET, "/api/events") => self.events(&parameters),
            (&Method::POST, "/api/annotations") => self.annotate(request, &parameters).await,
            (&Method::GET, api) if api.starts_with("/api/") => {
                let view = self.view.clone();
                let json = blocking(move || view.answer(&path, &parameters)).await?;
                Ok(with_status(StatusCode::OK, "application/json", json))
            }
            (&Method::GET, path) => {
                let file = files::file(path).ok_or_else(|| ViewError::NotFound(format!("expected a page, found {path:?}")))?;
                Ok(with_status(StatusCode::OK, file.media, file.text))
            }
            (method, _) => {
                let text = json!({ "error": format!("expected GET, found {method}") }).to_string();
                let mut response = with_status(StatusCode::METHOD_NOT_ALLOWED, "application/json", text.into_bytes());
                response.headers_mut().insert(ALLOW, HeaderValue::from_static("GET"));
                Ok(response)
            }
        }
    }

    /// Gives the browser its cookie and takes the token out of the address.
    fn enter(&self) -> Response<Body> {
        let mut response = with_status(StatusCode::SEE_OTHER, "text/plain; charset=utf-8", "");
        response.headers_mut().insert(LOCATION, HeaderValue::from_static("/"));
        if let Ok(cookie) = HeaderValue::from_str(&self.access.cookie()) {
            response.headers_mut().insert(SET_COOKIE, cookie);
        }
        response
    }

    async fn annotate(&self, request: Request<Incoming>, parameters: &Parameters) -> Result<Response<Body>, ViewError> {
        self.access.check_origin(request.headers())?;
        // A form of another page cannot send this type without asking first.
        let media = request.headers().get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
        if media != "application/json" {
            return Err(ViewError::Input(format!("expected the content type application/json, found {media:?}")));
        }
        let body = Limited::new(request.into_body(), MOST_BODY_BYTES).collect().await;
        let body = body.map_err(|error| ViewError::Input(format!("expected a body of at most {MOST_BODY_BYTES} bytes, found {error}")))?;
        let body = body.to_bytes();
        let view = self.view.clone();
        let parameters = parameters.clone();
        let json = blocking(move || to_json(&view.run(&parameters)?.annotate(&body)?)).await?;
        Ok(with_status(StatusCode::OK, "application/json", json))
    }

    /// The progress of a run after each of its changes, as server-sent events.
    fn events(&self, parameters: &Parameters) -> Result<Response<Body>, ViewError> {
        let run = self.view.run(parameters)?;
        let events = stream::unfold((run, None), |(run, mut before)| async move {
            for _ in 0..QUIET_LOOKS {
                let looked = run.clone();
                let seen = blocking(move || Ok((looked.version(), looked.run().is_locked(), looked.annotations().version()))).await.ok();
                if seen.is_some() && seen != before {
                    before = seen;
                    let looked = run.clone();
                    let text = match blocking(move || to_json(&looked.progress()?)).await {
                        Ok(json) => format!("event: progress\ndata: {}\n\n", String::from_utf8_lossy(&json)),
                        // A file may just have been replaced: it is looked at again soon.
                        Err(error) => {
                            before = None;
                            tokio::time::sleep(PROBLEM_PAUSE).await;
                            format!("event: problem\ndata: {}\n\n", json!({ "error": error.to_string() }))
                        }
                    };
                    return Some((Ok(Frame::data(Bytes::from(text))), (run, before)));
                }
                tokio::time::sleep(LOOK).await;
            }
            Some((Ok(Frame::data(Bytes::from_static(b": still here\n\n"))), (run, before)))
        });
        let mut response = Response::new(StreamBody::new(events).boxed_unsync());
        response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));
        Ok(response)
    }
}

/// Runs `work` on a thread for blocking work. A panic of a library is an error.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T, ViewError> + Send + 'static) -> Result<T, ViewError> {
    let broken = |said: String| ViewError::internal("view::server", said);
    let done = tokio::task::spawn_blocking(move || catch_panic(work)).await;
    done.map_err(|error| broken(error.to_string()))?.map_err(broken)?
}

fn with_status(status: StatusCode, media: &'static str, body: impl Into<Bytes>) -> Response<Body> {
    let mut response = Response::new(Full::new(body.into()).boxed_unsync());
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(media));
    response
}

/// With the headers of every response.
fn guarded(mut response: Response<Body>) -> Response<Body> {
    let headers: &mut HeaderMap = response.headers_mut();
    headers.insert(CONTENT_SECURITY_POLICY, HeaderValue::from_static(POLICY));
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert(REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}
