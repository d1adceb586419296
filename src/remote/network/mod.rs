//! The way of a request out of this machine: the proxy for an address, and the trusted
//! certificates.
//!
//! Reads the environment variables of curl and of Python's `requests`. Knows nothing of requests.

mod absolute_form;
mod certificates;
mod proxy;

use ureq::Agent;
use ureq::config::ConfigBuilder;
use ureq::http::Uri;
use ureq::tls::TlsConfig;
use ureq::typestate::AgentScope;
use ureq::unversioned::transport::{Connector, TcpConnector};

use super::error::RemoteError;
use absolute_form::{AbsoluteForm, ProxyResolver};

/// An agent for the server of one address, and the proxy on the way.
#[derive(Clone)]
pub(super) struct Route {
    pub(super) agent: Agent,
    /// The proxy's address without user and password; `None` for a direct connection.
    pub(super) proxy: Option<String>,
}

/// The way to the server of `uri`, with these settings beside proxy and certificates.
///
/// # Errors
/// The environment names a proxy that is none, or a file without certificates.
pub(super) fn route(uri: &Uri, settings: ConfigBuilder<AgentScope>) -> Result<Route, RemoteError> {
    let variable = |name: &str| std::env::var(name).ok().filter(|value| !value.trim().is_empty());
    let is_https = uri.scheme_str() == Some("https");
    let settings =
        if is_https { settings.tls_config(TlsConfig::builder().root_certs(certificates::roots(&variable)?).build()) } else { settings };
    let Some(proxy) = proxy::of(uri, &variable)? else {
        return Ok(Route { agent: settings.proxy(None).build().into(), proxy: None });
    };
    let name = proxy::name(&proxy);
    // Many proxies open a tunnel to port 443 only. For a plain http:// address they take the whole
    // address in the first line of the request (RFC 9112, section 3.2.2).
    let agent = if is_https || proxy.protocol() != ureq::ProxyProtocol::Http {
        settings.proxy(Some(proxy)).build().into()
    } else {
        let connector = Connector::<()>::chain(TcpConnector::default(), AbsoluteForm::new(&proxy));
        Agent::with_parts(settings.proxy(None).build(), connector, ProxyResolver::new(&proxy))
    };
    Ok(Route { agent, proxy: Some(name) })
}
