//! One file of a web server: asked for, continued where it was cut, and checked to be whole.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::path::Path;

use ureq::config::RedirectAuthHeaders;
use ureq::http::{HeaderMap, HeaderName, Response, StatusCode, header};

use super::super::attempts::{RETRIES, TIMEOUT, Trouble, until_whole};
use super::super::error::RemoteError;
use super::super::network;
use super::super::partial_file::{append, starts_at};
use super::super::stop::Stopped;
use super::file::Download;
use super::place::Place;

/// The version of a file on its way whose server gives none.
const UNVERSIONED: &str = "";

/// The client of web servers.
pub(super) struct Web {
    /// The beginning of addresses, and the token for them.
    token: Option<(String, String)>,
}

/// What an answer says about its file.
struct Described {
    /// The version; `None` if the server gives none.
    version: Option<String>,
    /// The validator for a continued download.
    validator: Option<String>,
    /// The length of the whole file.
    size: Option<u64>,
}

impl Web {
    pub(super) fn new(token: Option<(String, String)>) -> Self {
        Self { token }
    }

    /// The file's present version, asked for once.
    pub(super) fn version(&self, url: &str) -> Option<String> {
        let response = self.get(url, None).ok()?;
        if response.status() == StatusCode::OK { Described::of(response.headers()).version } else { None }
    }

    /// The file in its place, fetched unless its present version is there.
    pub(super) fn fetch(
        &self,
        url: &str,
        place: &Place,
        stopped: Stopped,
        observe: &mut dyn FnMut(u64, u64),
    ) -> Result<Download, RemoteError> {
        let _lock = place.lock(stopped, &|error| problem(url, &format!("cannot use the cache: {error}"), false))?;
        // The version on its way, so that its growth counts as progress.
        let current = std::cell::RefCell::new(UNVERSIONED.to_string());
        let have = || place.partial(&current.borrow()).metadata().map_or(0, |metadata| metadata.len());
        let transfer = &mut || self.transfer(url, place, &current, stopped, observe);
        until_whole(stopped, &|last| problem(url, &format!("{last} (gave up after {} attempts)", RETRIES + 1), false), &have, transfer)
    }

    /// One attempt: a request for the file, or for its rest.
    fn transfer(
        &self,
        url: &str,
        place: &Place,
        current: &std::cell::RefCell<String>,
        stopped: Stopped,
        observe: &mut dyn FnMut(u64, u64),
    ) -> Result<Download, Trouble> {
        let mut response = self.get(url, None)?;
        check_status(url, response.status())?;
        check_content(url, response.headers())?;
        let mut described = Described::of(response.headers());
        if let Some(version) = &described.version {
            let path = place.file(version);
            if path.metadata().is_ok_and(|metadata| described.size.is_none_or(|size| size == metadata.len())) {
                return Ok(Download { name: place.name().to_string(), version: version.clone(), path });
            }
        }
        let wanted = described.version.clone().unwrap_or_else(|| UNVERSIONED.to_string());
        current.replace(wanted.clone());
        let partial = place.partial(&wanted);
        let failed = |error: io::Error| Trouble::Final(problem(url, &format!("{}: {error}", partial.display()), false));
        let mut file = OpenOptions::new().create(true).append(true).open(&partial).map_err(failed)?;
        let mut have = file.metadata().map_err(failed)?.len();
        if have > 0 {
            let rest = described.validator.as_ref().filter(|_| described.size.is_none_or(|size| have < size));
            let mut goes_on = false;
            if let Some(validator) = rest {
                response = self.get(url, Some((have, validator)))?;
                goes_on = response.status() == StatusCode::PARTIAL_CONTENT && starts_at(response.headers()) == Some(have);
                if !goes_on {
                    // Another version by now, or a server without ranges: the whole file.
                    check_status(url, response.status())?;
                    if response.status() != StatusCode::OK || Described::of(response.headers()).version != described.version {
                        file.set_len(0).map_err(failed)?;
                        return Err(Trouble::Again("the file changed while it was fetched".to_string()));
                    }
                    described = Described::of(response.headers());
                }
            }
            if !goes_on {
                file.set_len(0).map_err(failed)?;
                have = 0;
            }
        }
        let size = described.size;
        let each = &mut |bytes: u64| observe(bytes, size.unwrap_or(0));
        let have = append(&mut response.body_mut().as_reader(), &mut file, have, stopped, &failed, each)?;
        drop(file);
        if let Some(size) = size.filter(|size| *size != have) {
            if have > size {
                fs::remove_file(&partial).map_err(failed)?;
            }
            return Err(Trouble::Again(format!("expected {size} bytes, found {have}")));
        }
        keep(place, &partial, described.version).map_err(failed)
    }

    /// Asks for the file; with a number of bytes and a validator, for the rest from there.
    fn get(&self, url: &str, rest: Option<(u64, &String)>) -> Result<Response<ureq::Body>, Trouble> {
        let settings = ureq::Agent::config_builder()
            .http_status_as_error(false)
            .redirect_auth_headers(RedirectAuthHeaders::SameHost)
            .timeout_connect(Some(TIMEOUT))
            .timeout_recv_response(Some(TIMEOUT))
            .timeout_per_read(Some(TIMEOUT))
            // Of servers elsewhere: encrypted connections only, also after a redirect.
            .https_only(url.starts_with("https://"));
        let uri = url.parse().map_err(|error| Trouble::Final(problem(url, &format!("expected an address, found none: {error}"), true)))?;
        let agent = network::route(&uri, settings).map_err(Trouble::Final)?.agent;
        // The bytes of the file itself, because their number and their hash are recorded.
        let mut request = agent.get(url).header(header::ACCEPT_ENCODING, "identity");
        if let Some((from, validator)) = rest {
            request = request.header(header::RANGE, format!("bytes={from}-")).header(header::IF_RANGE, validator);
        }
        if let Some((_, token)) = self.token.as_ref().filter(|(begin, _)| url.starts_with(begin.as_str())) {
            request = request.header(header::AUTHORIZATION, format!("Bearer {token}"));
        }
        request.call().map_err(|error| match error {
            ureq::Error::RequireHttpsOnly(_) => {
                Trouble::Final(problem(url, "expected encrypted connections only, found a redirect to http://", true))
            }
            ureq::Error::TooManyRedirects => Trouble::Final(problem(url, "expected a file, found too many redirects", true)),
            ureq::Error::HostNotFound => Trouble::Again("the host is not known".to_string()),
            error => Trouble::Again(format!("the request failed: {error}")),
        })
    }
}

impl Described {
    fn of(headers: &HeaderMap) -> Self {
        let text =
            |name: HeaderName| headers.get(name).and_then(|value| value.to_str().ok()).map(str::trim).filter(|text| !text.is_empty());
        let (etag, date) = (text(header::ETAG), text(header::LAST_MODIFIED));
        let size = text(header::CONTENT_LENGTH).and_then(|size| size.parse().ok());
        // A date alone has seconds: together with the length it is less likely to stand for two
        // contents.
        let version = match (etag, date) {
            (Some(etag), _) => Some(format!("etag {etag}")),
            (None, Some(date)) => {
                Some(format!("last-modified {date}{}", size.map_or(String::new(), |size: u64| format!(", {size} bytes"))))
            }
            (None, None) => None,
        };
        // A weak etag does not stand for the same bytes (RFC 9110, section 13.1.5).
        let validator = etag.filter(|etag| !etag.starts_with("W/")).or(date).map(str::to_string);
        Self { version, validator, size }
    }
}

/// Moves a whole file to its place. A file without a version is known by its hash.
fn keep(place: &Place, partial: &Path, version: Option<String>) -> io::Result<Download> {
    let version = match version {
        Some(version) => version,
        None => {
            let mut hasher = blake3::Hasher::new();
            io::copy(&mut File::open(partial)?, &mut hasher)?;
            format!("blake3 {}", hasher.finalize().to_hex())
        }
    };
    let path = place.file(&version);
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder)?;
    }
    fs::rename(partial, &path)?;
    Ok(Download { name: place.name().to_string(), version, path })
}

fn check_status(url: &str, status: StatusCode) -> Result<(), Trouble> {
    let found = match status.as_u16() {
        200 | 206 => return Ok(()),
        408 | 416 | 425 | 429 | 500.. => return Err(Trouble::Again(format!("status {status}"))),
        401 | 403 => format!("expected access to the file, found status {status}; fetch it by other means and name the local file"),
        404 | 410 => format!("expected a file, found none (status {status})"),
        _ => format!("expected a file, found status {status}"),
    };
    Err(Trouble::Final(problem(url, &found, true)))
}

/// Checks that an answer is the file itself, and that its end can be told.
fn check_content(url: &str, headers: &HeaderMap) -> Result<(), Trouble> {
    let text = |name: HeaderName| headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default().trim().to_ascii_lowercase();
    let name = url.split('?').next().unwrap_or_default();
    // Some servers call a compressed file an encoding of the file inside.
    let is_compressed = name.ends_with(".gz") || name.ends_with(".zst");
    let encoding = text(header::CONTENT_ENCODING);
    let found = if !["", "identity"].contains(&encoding.as_str()) && !is_compressed {
        format!("expected the file as it is, found it encoded with {encoding}")
    } else if text(header::CONTENT_TYPE).starts_with("text/html") {
        "expected a file of rows, found a web page; use the address of the file itself".to_string()
    } else if headers.get(header::CONTENT_LENGTH).is_none() && !text(header::TRANSFER_ENCODING).contains("chunked") {
        "expected the length of the file, found none, so a cut could not be noticed; fetch it by other means and name the local file"
            .to_string()
    } else {
        return Ok(());
    };
    Err(Trouble::Final(problem(url, &found, true)))
}

/// An error about a file; the query of its address may hold a key and is left out.
fn problem(url: &str, problem: &str, input: bool) -> RemoteError {
    RemoteError::Fetch { address: url.split('?').next().unwrap_or_default().to_string(), problem: problem.to_string(), input }
}
