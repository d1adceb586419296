//! The client of one server: JSON over HTTP with a time limit, retries with growing waits between
//! them, and a secret key.
//!
//! Redirects are followed with the same method and body; the key goes to the same host only. A
//! request in flight cannot be cancelled. Each request has its own thread; the thread is left
//! behind when the run is stopped. Knows nothing of the requests' meaning.

use std::collections::BTreeMap;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use backon::{BackoffBuilder, ExponentialBuilder};
use serde_json::Value;
use ureq::http::{StatusCode, Uri, header};

use super::error::RemoteError;
use super::network::{self, Route};
use super::printable::printable;
use super::redirect::{self, target};
use super::retry_after::retry_after;
use super::stop::{LOOK, Stopped, pause};

/// The longest wait between two attempts, unless the server asks for another.
const LONGEST_WAIT: Duration = Duration::from_secs(60);
/// The limit for accepting a connection.
const CONNECT: Duration = Duration::from_secs(30);
/// Connections are used again for this long: Python's servers close theirs after 5 seconds.
const IDLE: Duration = Duration::from_secs(4);
/// The limit for the length of an answer.
const MOST_BYTES: u64 = 1 << 28;
/// The kept length of the body of a refusal.
const SAID_CHARACTERS: usize = 8000;
/// The shown length of a body in an error.
const SHOWN_CHARACTERS: usize = 300;

/// The time limit and the retries of a request.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Patience {
    /// The longest that one attempt may take, from connecting to the end of the answer.
    pub timeout: Duration,
    /// How many attempts follow the first.
    pub retries: usize,
    /// The wait before the second attempt; each further one is twice as long, with up to as much
    /// again at random.
    pub first_wait: Duration,
}

impl Default for Patience {
    fn default() -> Self {
        Self { timeout: Duration::from_secs(600), retries: 5, first_wait: Duration::from_millis(500) }
    }
}

/// Asks one server. Cheap to clone; clones share their connections.
#[derive(Clone)]
pub struct Client {
    /// The ways to the server, and to those it redirects to, by scheme and authority.
    routes: Arc<Mutex<BTreeMap<String, Route>>>,
    url: String,
    key: Option<String>,
    patience: Patience,
}

impl Client {
    /// A client of the server at `url`, with the key from the environment variable `key_variable`
    /// if one is named. Opens no connection yet.
    ///
    /// # Errors
    /// An invalid URL, a URL with a password in it, or a variable that is not set.
    pub fn new(url: &str, key_variable: Option<&str>, patience: Patience) -> Result<Self, RemoteError> {
        check_url(url)?;
        let key = key_variable.map(key).transpose()?;
        let client = Self { routes: Arc::default(), url: url.to_string(), key, patience };
        client.route(url)?;
        Ok(client)
    }

    /// The way to the server of an address.
    fn route(&self, url: &str) -> Result<Route, RemoteError> {
        let uri = check_url(url)?;
        let server = format!("{}://{}", uri.scheme_str().unwrap_or_default(), uri.authority().map_or("", |authority| authority.as_str()));
        let mut routes = self.routes.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(route) = routes.get(&server) {
            return Ok(route.clone());
        }
        let settings = ureq::Agent::config_builder()
            .http_status_as_error(false)
            .max_redirects(0)
            .max_redirects_will_error(false)
            .timeout_global(Some(self.patience.timeout))
            .timeout_connect(Some(CONNECT.min(self.patience.timeout)))
            .max_idle_age(IDLE)
            .max_idle_connections(64)
            .max_idle_connections_per_host(64);
        let route = network::route(&uri, settings)?;
        routes.insert(server, route.clone());
        Ok(route)
    }

    /// The same client without retries.
    pub fn once(&self) -> Self {
        self.with_retries(0)
    }

    /// The same client with so many retries.
    pub(super) fn with_retries(&self, retries: usize) -> Self {
        Self { patience: Patience { retries, ..self.patience }, ..self.clone() }
    }

    /// The same client of another address; `None` if it is none.
    pub(super) fn at(&self, url: &str) -> Option<Self> {
        self.route(url).ok().map(|_| Self { url: url.to_string(), ..self.clone() })
    }

    /// The time limit and the retries.
    pub fn patience(&self) -> Patience {
        self.patience
    }

    /// The server's URL, as it was given.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Posts `body` to `path` under the server's URL, until `read` accepts the answer or the
    /// attempts are used up.
    ///
    /// If `read` cannot use an answer, it returns the expected and the found content; another
    /// attempt may bring a better answer.
    ///
    /// # Errors
    /// The last attempt's, or [`RemoteError::Stopped`].
    pub fn post<T>(&self, path: &str, body: &Value, stopped: Stopped, read: impl Fn(Value) -> Result<T, String>) -> Result<T, RemoteError> {
        self.ask(path, Some(body.to_string()), stopped, read)
    }

    /// Gets `path` under the server's URL, as [`Client::post`] does.
    ///
    /// # Errors
    /// The last attempt's, or [`RemoteError::Stopped`].
    pub fn get<T>(&self, path: &str, stopped: Stopped, read: impl Fn(Value) -> Result<T, String>) -> Result<T, RemoteError> {
        self.ask(path, None, stopped, read)
    }

    /// Posts `body` to `path` under the server's URL, once. Any answer of success is taken, text
    /// too.
    pub(super) fn tell(&self, path: &str, body: &Value, stopped: Stopped) -> Result<(), RemoteError> {
        self.attempt(&self.under(path), Some(body.to_string()), stopped).map(drop)
    }

    /// A path under the server's URL.
    fn under(&self, path: &str) -> String {
        if path.is_empty() { self.url.clone() } else { format!("{}{path}", self.url.trim_end_matches('/')) }
    }

    fn ask<T>(
        &self,
        path: &str,
        body: Option<String>,
        stopped: Stopped,
        read: impl Fn(Value) -> Result<T, String>,
    ) -> Result<T, RemoteError> {
        let url = self.under(path);
        let mut waits = ExponentialBuilder::new()
            .with_min_delay(self.patience.first_wait)
            .with_max_delay(LONGEST_WAIT)
            .with_max_times(self.patience.retries)
            .with_jitter()
            .build();
        let mut attempts = 0;
        loop {
            attempts += 1;
            let error = match self.attempt(&url, body.clone(), stopped).and_then(|text| self.parse(&url, &text, &read)) {
                Ok(answer) => return Ok(answer),
                Err(error) if !error.is_transient() => return Err(error),
                Err(error) => error,
            };
            let Some(wait) = waits.next() else {
                return Err(if attempts > 1 { RemoteError::GaveUp { attempts, last: Box::new(error) } } else { error });
            };
            pause(wait.max(error.wait().unwrap_or_default()), stopped)?;
        }
    }

    /// One request, on a thread of its own.
    fn attempt(&self, url: &str, body: Option<String>, stopped: Stopped) -> Result<String, RemoteError> {
        if stopped() {
            return Err(RemoteError::Stopped);
        }
        let failed = |problem: String| RemoteError::Connection { url: url.to_string(), problem };
        let client = self.clone();
        let to = url.to_string();
        let (sender, answer) = mpsc::channel();
        // The receiver is gone if the run was asked to stop; a late answer is dropped.
        let request = move || drop(sender.send(client.request(&to, body)));
        std::thread::Builder::new().spawn(request).map_err(|error| failed(format!("no thread for a request: {error}")))?;
        loop {
            match answer.recv_timeout(LOOK) {
                Ok(result) => return result,
                Err(RecvTimeoutError::Timeout) if stopped() => return Err(RemoteError::Stopped),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return Err(failed("the request ended without an answer".to_string())),
            }
        }
    }

    fn request(&self, url: &str, body: Option<String>) -> Result<String, RemoteError> {
        let mut at = url.to_string();
        for _ in 0..=redirect::MOST {
            let route = self.route(&at)?;
            let failed = |error: ureq::Error| RemoteError::Connection { url: at.clone(), problem: self.describe(&error, &route) };
            let key = self.key.as_ref().filter(|_| redirect::is_same_host(url, &at)).map(|key| format!("Bearer {key}"));
            let mut response = match &body {
                Some(body) => {
                    let mut request = route.agent.post(&at).content_type("application/json");
                    if let Some(key) = key {
                        request = request.header(header::AUTHORIZATION, key);
                    }
                    request.send(body)
                }
                None => {
                    let mut request = route.agent.get(&at);
                    if let Some(key) = key {
                        request = request.header(header::AUTHORIZATION, key);
                    }
                    request.call()
                }
            }
            .map_err(failed)?;
            let status = response.status();
            let location = response.headers().get(header::LOCATION).and_then(|location| location.to_str().ok());
            if let Some(location) = location.and_then(|location| target(status, &at, location)) {
                at = location;
                continue;
            }
            let wait = response.headers().get(header::RETRY_AFTER).and_then(|value| retry_after(value.to_str().ok()?));
            let bytes = response.body_mut().with_config().limit(MOST_BYTES).read_to_vec().map_err(failed)?;
            let text = String::from_utf8_lossy(&bytes).into_owned();
            if !status.is_success() {
                let is_busy = matches!(status, StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE);
                let wait = if is_busy { wait } else { None };
                let said = self.without_key(&text).chars().take(SAID_CHARACTERS).collect();
                return Err(RemoteError::Status { url: at, status: status.as_u16(), body: self.beginning(&text), said, wait });
            }
            return Ok(text);
        }
        Err(RemoteError::Answer {
            url: url.to_string(),
            problem: format!("expected an answer, found more than {} redirects", redirect::MOST),
        })
    }

    fn parse<T>(&self, url: &str, text: &str, read: impl Fn(Value) -> Result<T, String>) -> Result<T, RemoteError> {
        let failed = |problem: String| RemoteError::Body { url: url.to_string(), problem, body: self.beginning(text) };
        let value = serde_json::from_str(text).map_err(|error| match ["NaN", "Infinity"].iter().find(|word| text.contains(**word)) {
            Some(word) => failed(format!("expected JSON, found {word}, which it cannot have; null is its word for no number")),
            None => failed(format!("expected JSON, found a body that is none ({error})")),
        })?;
        read(value).map_err(failed)
    }

    fn describe(&self, error: &ureq::Error, route: &Route) -> String {
        let problem = match error {
            ureq::Error::Timeout(_) => format!("no answer within {:.1} seconds", self.patience.timeout.as_secs_f64()),
            ureq::Error::HostNotFound => "the host is not known".to_string(),
            ureq::Error::Io(error) => format!("the connection failed: {error}"),
            other => format!("the request failed: {other}"),
        };
        let problem = printable(&problem);
        match &route.proxy {
            Some(proxy) => format!("{problem} (by the proxy {proxy})"),
            None => problem,
        }
    }

    fn without_key(&self, text: &str) -> String {
        self.key.as_ref().map_or_else(|| text.to_string(), |key| text.replace(key, "***"))
    }

    /// The beginning of a body on one line, without the key: some servers repeat it.
    fn beginning(&self, text: &str) -> String {
        let mut words = printable(&self.without_key(text));
        if words.is_empty() {
            return "(an empty body)".to_string();
        }
        if let Some((end, _)) = words.char_indices().nth(SHOWN_CHARACTERS) {
            words.truncate(end);
            words.push('…');
        }
        words
    }
}

impl std::fmt::Debug for Client {
    /// Without the key.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Client").field("url", &self.url).field("patience", &self.patience).finish_non_exhaustive()
    }
}

/// Checks that requests can be made to a URL.
fn check_url(url: &str) -> Result<Uri, RemoteError> {
    let failed = |problem: &str| {
        let shown = url.rsplit_once('@').map_or(url, |(_, host)| host);
        Err(RemoteError::Url { url: shown.to_string(), problem: problem.to_string() })
    };
    let Ok(uri) = url.parse::<Uri>() else { return failed("it has characters that a URL cannot have") };
    if !matches!(uri.scheme_str(), Some("http" | "https")) {
        return failed("it does not begin with http:// or https://");
    }
    let Some(authority) = uri.authority() else { return failed("it names no host") };
    if authority.as_str().contains('@') {
        return failed("it holds a user or a password; name an environment variable with the key in api_key_env instead");
    }
    if uri.query().is_some() {
        return failed("it has a query after \"?\"");
    }
    Ok(uri)
}

fn key(variable: &str) -> Result<String, RemoteError> {
    let failed = |found| Err(RemoteError::Key { variable: variable.to_string(), found });
    match std::env::var(variable) {
        Err(std::env::VarError::NotPresent) => failed("no such variable"),
        Err(std::env::VarError::NotUnicode(_)) => failed("a value that is not text"),
        Ok(value) if value.trim().is_empty() => failed("an empty value"),
        Ok(value) if value.trim().chars().any(|c| !c.is_ascii_graphic()) => failed("a value that a header cannot hold"),
        Ok(value) => Ok(value.trim().to_string()),
    }
}
