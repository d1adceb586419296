//! Where a redirect leads.
//!
//! Method and body stay, also at 301 and 302: servers redirect a request to the same address with
//! or without a slash, or to https. Opens no connection.

use ureq::http::{StatusCode, Uri};

/// The most redirects of one request.
pub(super) const MOST: usize = 5;

/// The address for the same request; `None` where the answer is no such redirect, or leads from an
/// encrypted connection to a plain one.
pub(super) fn target(status: StatusCode, from: &str, location: &str) -> Option<String> {
    if !matches!(status.as_u16(), 301 | 302 | 307 | 308) {
        return None;
    }
    let base: Uri = from.parse().ok()?;
    let (scheme, authority) = (base.scheme_str()?, base.authority()?);
    let location = location.split('#').next().unwrap_or_default().trim();
    let to = if location.starts_with("http://") || location.starts_with("https://") {
        location.to_string()
    } else if location.starts_with("//") {
        format!("{scheme}:{location}")
    } else if location.starts_with('/') {
        format!("{scheme}://{authority}{location}")
    } else if location.is_empty() || location.contains("://") {
        return None;
    } else {
        let folder = base.path().rsplit_once('/').map_or("", |(folder, _)| folder);
        format!("{scheme}://{authority}{folder}/{location}")
    };
    let parsed: Uri = to.parse().ok()?;
    let is_plain = parsed.scheme_str() == Some("http");
    if scheme == "https" && is_plain { None } else { Some(to) }
}

/// Whether two addresses have the same host.
pub(super) fn is_same_host(one: &str, other: &str) -> bool {
    let host = |url: &str| url.parse::<Uri>().ok().and_then(|uri| uri.host().map(str::to_ascii_lowercase));
    host(one).is_some() && host(one) == host(other)
}

#[cfg(test)]
mod tests {
    use ureq::http::StatusCode;

    use super::{is_same_host, target};

    #[test]
    fn locations_are_resolved() {
        let found = |from: &str, location: &str| target(StatusCode::TEMPORARY_REDIRECT, from, location);
        for (from, location, expected) in [
            ("http://a/score", "/score/", Some("http://a/score/")),
            ("http://a:8/v1/x", "http://b/y", Some("http://b/y")),
            ("http://a/v1/x", "https://a/v1/x", Some("https://a/v1/x")),
            ("https://a/v1/x", "http://a/v1/x", None),
            ("https://a/v1/x", "//b/y", Some("https://b/y")),
            ("http://a/v1/x", "y#z", Some("http://a/v1/y")),
            ("http://a/v1/x", "", None),
            ("http://a/v1/x", "ftp://b/", None),
        ] {
            assert_eq!(found(from, location).as_deref(), expected, "{from} {location}");
        }
        assert_eq!(target(StatusCode::SEE_OTHER, "http://a/", "/b"), None);
        assert_eq!(target(StatusCode::OK, "http://a/", "/b"), None);
        assert!(is_same_host("http://a:1/x", "https://A/y") && !is_same_host("http://a/", "http://b/"));
    }
}
