//! The proxy for an address, by the environment variables of curl and Python's `requests`.
//!
//! `no_proxy` lists names (with their subdomains), addresses, blocks of addresses such as
//! `10.0.0.0/8`, any of them with a port, or `*`. Knows nothing of connections.

use std::net::IpAddr;

use ureq::http::Uri;
use ureq::{Proxy, ProxyProtocol};

use super::super::error::RemoteError;

/// The proxy for an address; `None` for a direct connection.
///
/// # Errors
/// A variable's value is no proxy, or a kind of proxy that is not supported.
pub(super) fn of(uri: &Uri, variable: &dyn Fn(&str) -> Option<String>) -> Result<Option<Proxy>, RemoteError> {
    if is_local(uri) {
        return Ok(None);
    }
    let is_https = uri.scheme_str() == Some("https");
    let names = if is_https { ["https_proxy", "HTTPS_PROXY"] } else { ["http_proxy", "HTTP_PROXY"] };
    let names = names.into_iter().chain(["all_proxy", "ALL_PROXY"]);
    let Some((name, value)) = names.filter_map(|name| Some((name, variable(name)?))).next() else { return Ok(None) };
    let host = uri.host().unwrap_or_default();
    let port = uri.port_u16().unwrap_or(if is_https { 443 } else { 80 });
    if ["no_proxy", "NO_PROXY"].into_iter().find_map(variable).is_some_and(|list| bypasses(&list, host, port)) {
        return Ok(None);
    }
    let value = value.trim();
    let written = if value.contains("://") { value.to_string() } else { format!("http://{value}") };
    match Proxy::new(&written) {
        Ok(proxy) if matches!(proxy.protocol(), ProxyProtocol::Http | ProxyProtocol::Https) => Ok(Some(proxy)),
        _ => Err(RemoteError::Environment {
            variable: name.to_string(),
            expected: "the address of an HTTP proxy, such as http://proxy:3128",
            // A password stands before the @.
            found: written.rsplit_once('@').map_or(written.as_str(), |(_, host)| host).to_string(),
        }),
    }
}

/// Whether an address is on this machine. A proxy cannot reach it.
fn is_local(uri: &Uri) -> bool {
    let host = uri.host().unwrap_or_default();
    host == "localhost" || host == "[::1]" || host.starts_with("127.")
}

/// The proxy's address without user and password.
pub(super) fn name(proxy: &Proxy) -> String {
    let scheme = if proxy.protocol() == ProxyProtocol::Https { "https" } else { "http" };
    format!("{scheme}://{}:{}", proxy.host(), proxy.port())
}

/// Whether a list such as `localhost, .example.com, 10.0.0.0/8, [::1]:80` names this host and port.
fn bypasses(list: &str, host: &str, port: u16) -> bool {
    let host = host.trim_start_matches('[').trim_end_matches(']').trim_end_matches('.').to_ascii_lowercase();
    let address: Option<IpAddr> = host.parse().ok();
    list.split([',', ' ']).map(str::trim).filter(|entry| !entry.is_empty()).any(|entry| {
        let (name, of_port) = split_port(entry);
        if of_port.is_some_and(|of_port| of_port != port) {
            return false;
        }
        let name = name.trim_start_matches('[').trim_end_matches(']').to_ascii_lowercase();
        match (address, name.split_once('/')) {
            (Some(address), Some((base, length))) => is_within(address, base, length),
            (Some(address), None) => name == "*" || name.parse() == Ok(address),
            (None, _) => {
                let name = name.trim_start_matches('*').trim_start_matches('.');
                name.is_empty() || host == name || host.strip_suffix(name).is_some_and(|rest| rest.ends_with('.'))
            }
        }
    })
}

/// An entry's name and its port. An IPv6 address with a port is in brackets.
fn split_port(entry: &str) -> (&str, Option<u16>) {
    match entry.rsplit_once(':') {
        Some((name, port)) if name.ends_with(']') || !name.contains(':') => match port.parse() {
            Ok(port) => (name, Some(port)),
            Err(_) => (entry, None),
        },
        _ => (entry, None),
    }
}

/// Whether an address has the first `length` bits of `base`.
fn is_within(address: IpAddr, base: &str, length: &str) -> bool {
    let (Ok(base), Ok(length)) = (base.parse::<IpAddr>(), length.parse::<u32>()) else { return false };
    let (ours, theirs, bits) = match (address, base) {
        (IpAddr::V4(ours), IpAddr::V4(theirs)) => (u128::from(ours.to_bits()), u128::from(theirs.to_bits()), 32),
        (IpAddr::V6(ours), IpAddr::V6(theirs)) => (ours.to_bits(), theirs.to_bits(), 128),
        _ => return false,
    };
    length <= bits && (ours ^ theirs).checked_shr(bits - length).unwrap_or(0) == 0
}

#[cfg(test)]
mod tests {
    use super::{bypasses, name, of};

    #[test]
    fn a_list_names_hosts_blocks_and_ports() {
        for (list, host, port, expected) in [
            ("example.com", "example.com", 80, true),
            ("example.com", "api.example.com", 80, true),
            ("example.com", "badexample.com", 80, false),
            (".example.com", "API.Example.com", 443, true),
            ("*.example.com", "a.b.example.com", 443, true),
            ("*", "anything", 1, true),
            ("*", "10.0.0.1", 1, true),
            ("10.0.0.0/8", "10.200.3.4", 8000, true),
            ("10.0.0.0/8", "11.0.0.1", 8000, false),
            ("10.0.0.0/8", "host10", 8000, false),
            ("0.0.0.0/0", "203.0.113.9", 80, true),
            ("10.1.2.3/32,10.1.2.5", "10.1.2.5", 80, true),
            ("10.1.2.3/32", "10.1.2.2", 80, false),
            ("10.0.0.0/99", "10.0.0.0", 80, false),
            ("10.0.0.7", "10.0.0.70", 80, false),
            ("fd00::/8", "[fd12:3456::1]", 80, true),
            ("fd00::/8", "[2001:db8::1]", 80, false),
            ("[2001:db8::1]:8000", "[2001:db8::1]", 8000, true),
            ("[2001:db8::1]:8000", "[2001:db8::1]", 8001, false),
            ("a.test:8000, b.test", "a.test", 8000, true),
            ("a.test:8000, b.test", "a.test", 8001, false),
            ("a.test:8000  b.test", "b.test", 8001, true),
            ("10.0.0.0/8:9000", "10.1.1.1", 9000, true),
            ("", "a.test", 80, false),
        ] {
            assert_eq!(bypasses(list, host, port), expected, "{list:?} {host} {port}");
        }
    }

    #[test]
    fn the_scheme_picks_the_variable() {
        let found = |url: &str, pairs: &[(&str, &str)]| {
            let variable = |name: &str| pairs.iter().find(|(variable, _)| *variable == name).map(|(_, value)| value.to_string());
            of(&url.parse().unwrap(), &variable).map(|proxy| proxy.as_ref().map(name)).map_err(|error| error.to_string())
        };
        let both = [("http_proxy", "plain:3128"), ("HTTPS_PROXY", "http://me:secret@secure:8080"), ("no_proxy", "10.0.0.0/8")];
        assert_eq!(found("http://a.test/v1", &both), Ok(Some("http://plain:3128".to_string())));
        assert_eq!(found("https://a.test/v1", &both), Ok(Some("http://secure:8080".to_string())));
        for direct in ["http://10.1.2.3:8000/", "http://localhost:1/", "http://127.0.0.9/", "https://[::1]/"] {
            assert_eq!(found(direct, &both), Ok(None), "{direct}");
        }
        assert_eq!(found("http://a.test/", &[("HTTPS_PROXY", "secure:1")]), Ok(None));
        assert_eq!(found("http://a.test/", &[("ALL_PROXY", "all:1")]), Ok(Some("http://all:1".to_string())));
        let error = found("http://a.test/", &[("all_proxy", "socks5://me:secret@all:1")]).unwrap_err();
        assert!(error.contains("all_proxy: expected the address of an HTTP proxy") && !error.contains("secret"), "{error}");
    }
}
