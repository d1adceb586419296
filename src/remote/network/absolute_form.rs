//! A plain http:// request by a proxy: the connection goes to the proxy, and the first line of each
//! request has the whole address (RFC 9112, section 3.2.2).
//!
//! ureq itself opens a tunnel by CONNECT for every address. Knows the first line of a request only.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use ureq::Proxy;
use ureq::config::Config;
use ureq::http::Uri;
use ureq::unversioned::resolver::{DefaultResolver, ResolvedSocketAddrs, Resolver};
use ureq::unversioned::transport::{Buffers, ConnectionDetails, Connector, NextTimeout, Transport};

/// Looks up the proxy in place of every host: the proxy looks up the others.
#[derive(Debug)]
pub(super) struct ProxyResolver {
    proxy: Uri,
    resolver: DefaultResolver,
}

impl ProxyResolver {
    pub(super) fn new(proxy: &Proxy) -> Self {
        let uri = Uri::builder().scheme("http").authority(format!("{}:{}", proxy.host(), proxy.port())).path_and_query("/").build();
        // A parsed proxy has a host. The address as it was given is the same.
        Self { proxy: uri.unwrap_or_else(|_| proxy.uri().clone()), resolver: DefaultResolver::default() }
    }
}

impl Resolver for ProxyResolver {
    fn resolve(&self, _: &Uri, config: &Config, timeout: NextTimeout) -> Result<ResolvedSocketAddrs, ureq::Error> {
        self.resolver.resolve(&self.proxy, config, timeout)
    }
}

/// Puts the whole address into the requests of a connection to a proxy.
#[derive(Debug)]
pub(super) struct AbsoluteForm {
    /// The header with user and password, with its end of line; empty without them.
    credentials: String,
}

impl AbsoluteForm {
    pub(super) fn new(proxy: &Proxy) -> Self {
        let credentials = match (proxy.username(), proxy.password()) {
            (None, None) => String::new(),
            (user, password) => {
                let pair = format!("{}:{}", user.unwrap_or_default(), password.unwrap_or_default());
                format!("Proxy-Authorization: Basic {}\r\n", STANDARD.encode(pair))
            }
        };
        Self { credentials }
    }
}

impl<In: Transport> Connector<In> for AbsoluteForm {
    type Out = ProxiedTransport<In>;

    fn connect(&self, details: &ConnectionDetails, chained: Option<In>) -> Result<Option<Self::Out>, ureq::Error> {
        let origin = details.uri.authority().map(|authority| format!("http://{authority}")).unwrap_or_default();
        Ok(chained.map(|inner| ProxiedTransport { inner, origin, credentials: self.credentials.clone(), begins: true }))
    }
}

/// A connection to a proxy.
pub(super) struct ProxiedTransport<In> {
    inner: In,
    origin: String,
    credentials: String,
    /// Whether the next bytes begin a request.
    begins: bool,
}

impl<In> std::fmt::Debug for ProxiedTransport<In> {
    /// Without user and password.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ProxiedTransport").field("origin", &self.origin).finish_non_exhaustive()
    }
}

impl<In: Transport> Transport for ProxiedTransport<In> {
    fn buffers(&mut self) -> &mut dyn Buffers {
        self.inner.buffers()
    }

    fn transmit_output(&mut self, amount: usize, timeout: NextTimeout) -> Result<(), ureq::Error> {
        if !self.begins {
            return self.inner.transmit_output(amount, timeout);
        }
        self.begins = false;
        let written = self.inner.buffers().output().get(..amount).unwrap_or_default().to_vec();
        let Some(head) = with_address(&written, &self.origin, &self.credentials) else {
            return self.inner.transmit_output(amount, timeout);
        };
        let mut rest = head.as_slice();
        while !rest.is_empty() {
            let output = self.inner.buffers().output();
            let (piece, behind) = rest.split_at(rest.len().min(output.len()));
            output[..piece.len()].copy_from_slice(piece);
            rest = behind;
            self.inner.transmit_output(piece.len(), timeout)?;
        }
        Ok(())
    }

    fn await_input(&mut self, timeout: NextTimeout) -> Result<bool, ureq::Error> {
        // A request is sent whole before its answer is waited for.
        self.begins = true;
        self.inner.await_input(timeout)
    }

    fn is_open(&mut self) -> bool {
        self.inner.is_open()
    }
}

/// The beginning of a request with its whole address, and with a further header. `None` for bytes
/// without a path in their first line.
fn with_address(written: &[u8], origin: &str, header: &str) -> Option<Vec<u8>> {
    let path = written.iter().position(|byte| *byte == b' ')? + 1;
    let headers = written.windows(2).position(|pair| pair == b"\r\n")? + 2;
    if path >= headers || written.get(path) != Some(&b'/') {
        return None;
    }
    Some([&written[..path], origin.as_bytes(), &written[path..headers], header.as_bytes(), &written[headers..]].concat())
}

#[cfg(test)]
mod tests {
    use super::with_address;

    #[test]
    fn the_whole_address_stands_in_the_first_line() {
        let head = with_address(b"POST /v1/x?a=b HTTP/1.1\r\nHost: a\r\n\r\nbody /x", "http://a:81", "P: q\r\n").unwrap();
        assert_eq!(String::from_utf8(head).unwrap(), "POST http://a:81/v1/x?a=b HTTP/1.1\r\nP: q\r\nHost: a\r\n\r\nbody /x");
        assert_eq!(with_address(b"{\"prompt\": \"/x\"}", "http://a", ""), None);
        assert_eq!(with_address(b"GET http://b/ HTTP/1.1\r\n", "http://a", ""), None);
    }
}
