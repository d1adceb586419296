//! Addresses of tables elsewhere: files of datasets on the hub, of web servers, and of S3.
//!
//! Knows how they are written, not how they are fetched.

use std::fmt;

/// The branch that the hub names by default.
const MAIN: &str = "main";

/// Where a table elsewhere is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Address {
    /// `hf://datasets/ORG/NAME@REVISION/FILES`.
    Hub {
        /// Organisation and name, with `/`.
        repo: String,
        /// A branch, tag or commit.
        revision: String,
        /// The path of a file in the repository, or a pattern.
        files: String,
    },
    /// `https://…`, or `http://…` on this machine.
    Web {
        /// The whole address.
        url: String,
    },
    /// `s3://BUCKET/KEYS`.
    S3 {
        /// The bucket.
        bucket: String,
        /// The key of an object, or a pattern.
        keys: String,
    },
}

impl Address {
    /// The address in a pipeline file; `None` for a path on this machine.
    ///
    /// # Errors
    /// The expected form of an address.
    pub fn parse(written: &str) -> Option<Result<Self, String>> {
        let (scheme, rest) = written.split_once("://")?;
        match scheme {
            "hf" => Some(hub(rest)),
            "https" => Some(web(written, rest)),
            "http" => Some(web(written, rest).and_then(|address| if is_here(rest) { Ok(address) } else { Err(in_the_open(rest)) })),
            "s3" => Some(s3(rest)),
            _ => None,
        }
        .map(|result| result.map_err(|problem| problem.replace("{written}", &shown(written))))
    }
}

impl fmt::Display for Address {
    /// As in a pipeline file, with the revision.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Hub { repo, revision, files } => {
                let revision = if revision.starts_with("refs/") { revision.clone() } else { revision.replace('/', "%2F") };
                write!(f, "hf://datasets/{repo}@{revision}/{files}")
            }
            Self::Web { url } => f.write_str(url),
            Self::S3 { bucket, keys } => write!(f, "s3://{bucket}/{keys}"),
        }
    }
}

/// The address as far as a message may show it: a query may hold a key, and the part before `@` a
/// password.
pub fn shown(written: &str) -> String {
    let Some((scheme, rest)) = written.split_once("://").filter(|(scheme, _)| ["http", "https"].contains(scheme)) else {
        return written.to_string();
    };
    let rest = rest.split(['?', '#']).next().unwrap_or_default();
    let (host, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
    let host = host.rsplit_once('@').map_or(host, |(_, host)| host);
    format!("{scheme}://{host}{path}")
}

/// The name of a query's hash, in its place.
const HASH: &str = "blake3=";
/// The length of this hash.
const HASH_CHARACTERS: usize = 16;

/// The address of a web server as a run keeps it: with a hash in place of its query, which may hold
/// a key. A signature is no part of the hash: the next one is for the same file.
pub fn recorded(url: &str) -> String {
    // In other addresses a question mark is part of a pattern.
    let is_web = ["https://", "http://"].iter().any(|scheme| url.starts_with(scheme));
    let Some((path, query)) = url.split_once('?').filter(|_| is_web && !is_recorded(url)) else { return url.to_string() };
    let names: Vec<String> = query.split('&').map(|part| part.split('=').next().unwrap_or_default().to_ascii_lowercase()).collect();
    let has = |name: &str| names.iter().any(|other| other == name);
    let lasting = query.split('&').zip(&names).filter(|(part, name)| {
        let is_signature = name.starts_with("x-amz-")
            || name.starts_with("x-goog-")
            || (has("signature") && CLOUD_SIGNATURE.contains(&name.as_str()))
            || (has("sig") && AZURE_SIGNATURE.contains(&name.as_str()));
        !is_signature && !part.is_empty()
    });
    let lasting: Vec<&str> = lasting.map(|(part, _)| part).collect();
    if lasting.is_empty() {
        return path.to_string();
    }
    let hash = blake3::hash(lasting.join("&").as_bytes()).to_hex();
    format!("{path}?{HASH}{}", hash.chars().take(HASH_CHARACTERS).collect::<String>())
}

/// Whether the query of an address is a hash of [`recorded`].
pub fn is_recorded(url: &str) -> bool {
    let hash = url.split_once('?').and_then(|(_, query)| query.strip_prefix(HASH));
    hash.is_some_and(|hash| hash.len() == HASH_CHARACTERS && hash.bytes().all(|byte| byte.is_ascii_hexdigit()))
}

/// The parts of a signed query of CloudFront, of S3's first signatures and of Google's.
const CLOUD_SIGNATURE: [&str; 6] = ["signature", "expires", "policy", "key-pair-id", "awsaccesskeyid", "googleaccessid"];
/// The parts of a shared access signature of Azure.
const AZURE_SIGNATURE: [&str; 17] =
    ["sig", "sv", "ss", "srt", "st", "se", "sr", "sp", "sip", "spr", "skoid", "sktid", "skt", "ske", "sks", "skv", "sdd"];

/// The scheme of an address of a kind that is not known here.
pub(super) fn unknown_scheme(written: &str) -> Option<&str> {
    let (scheme, _) = written.split_once("://")?;
    let is_scheme = scheme.len() > 1 && scheme.chars().all(|c| c.is_ascii_alphanumeric() || ['+', '-', '.'].contains(&c));
    is_scheme.then_some(scheme)
}

fn hub(rest: &str) -> Result<Address, String> {
    let expected = || "expected a table of the hub as hf://datasets/ORG/NAME@REVISION/FILE, found \"{written}\"".to_string();
    let (org, rest) = rest.strip_prefix("datasets/").and_then(|rest| rest.split_once('/')).ok_or_else(expected)?;
    let (named, files) = rest.split_once('/').unwrap_or((rest, ""));
    let (name, revision) = match named.split_once('@') {
        Some((name, revision)) => (name, Some(revision)),
        None => (named, None),
    };
    let (revision, files) = match revision {
        None => (MAIN.to_string(), files),
        Some("~parquet") => ("refs/convert/parquet".to_string(), files),
        // The hub's own references have three parts.
        Some("refs") => {
            let mut parts = files.splitn(3, '/');
            let (kind, name) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
            (format!("refs/{kind}/{name}"), parts.next().unwrap_or_default())
        }
        Some(escaped) => (escaped.replace("%2F", "/").replace("%2f", "/"), files),
    };
    let plain = |word: &str| {
        word.starts_with(|c: char| c.is_ascii_alphanumeric() || c == '_')
            && word.chars().all(|c| c.is_ascii_alphanumeric() || ['-', '_', '.'].contains(&c))
    };
    if ![org, name].into_iter().chain(revision.split('/')).all(plain) {
        return Err(expected());
    }
    if files.trim_matches('/').is_empty() {
        return Err(
            "expected a file of the dataset, found \"{written}\"; end with /FILE, or with /**/*.parquet for all Parquet files".to_string()
        );
    }
    inside(files)?;
    Ok(Address::Hub { repo: format!("{org}/{name}"), revision, files: files.to_string() })
}

fn web(written: &str, rest: &str) -> Result<Address, String> {
    if let Some(wrong) = written.chars().find(|c| !c.is_ascii_graphic() || ['"', '<', '>', '\\', '^', '`', '{', '|', '}'].contains(c)) {
        return Err(format!("expected an address with % escapes, found {wrong:?} in \"{{written}}\""));
    }
    let path = rest.split(['?', '#']).next().unwrap_or_default();
    let (host, path) = path.split_at(path.find('/').unwrap_or(path.len()));
    if host.contains('@') {
        return Err("expected an address without a user or a password, found one in \"{written}\"".to_string());
    }
    if host.is_empty() || path.trim_matches('/').is_empty() {
        return Err("expected the address of a file, found \"{written}\"".to_string());
    }
    if path.contains(['*', '[']) {
        return Err(
            "expected the address of one file, found a pattern in \"{written}\"; a web server has no list of files: name each".to_string()
        );
    }
    Ok(Address::Web { url: written.split('#').next().unwrap_or_default().to_string() })
}

/// Whether a web server is on this machine.
fn is_here(rest: &str) -> bool {
    let host = rest.split(['/', '?']).next().unwrap_or_default();
    let name = match host.rsplit_once(':') {
        Some((name, port)) if port.chars().all(|c| c.is_ascii_digit()) => name,
        _ => host,
    };
    name == "localhost" || name == "[::1]" || name.parse::<std::net::Ipv4Addr>().is_ok_and(|address| address.is_loopback())
}

fn in_the_open(rest: &str) -> String {
    let host = rest.split(['/', '?']).next().unwrap_or_default();
    format!("expected https:// for {host}, found http://: anyone on the way could change the table")
}

fn s3(rest: &str) -> Result<Address, String> {
    let expected = || "expected a table of S3 as s3://BUCKET/KEY, found \"{written}\"".to_string();
    let (bucket, keys) = rest.split_once('/').ok_or_else(expected)?;
    let plain = |c: char| c.is_ascii_alphanumeric() || ['-', '_', '.'].contains(&c);
    if bucket.is_empty() || !bucket.chars().all(plain) || keys.is_empty() {
        return Err(expected());
    }
    inside(keys)?;
    Ok(Address::S3 { bucket: bucket.to_string(), keys: keys.to_string() })
}

/// Checks a path or pattern below a repository or a bucket.
fn inside(path: &str) -> Result<(), String> {
    if path.ends_with('/') {
        return Err("expected a file, but \"{written}\" is a folder; to read all in it, end with /*".to_string());
    }
    if path.split('/').any(|part| ["", ".", ".."].contains(&part) || part.contains(|c: char| c == '\\' || c.is_control())) {
        return Err("expected a path without empty parts, . and .., found \"{written}\"".to_string());
    }
    match glob::Pattern::new(path) {
        Ok(_) => Ok(()),
        Err(error) => Err(format!("\"{{written}}\" is no pattern of file names: {}", error.msg)),
    }
}
