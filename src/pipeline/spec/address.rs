//! Checks of a server's address and of the name of its key's variable. Opens no connection.

/// Checks the address of a server: it has a host, and no password.
pub(super) fn check_address(url: &str) -> Result<(), String> {
    let Some(rest) = url.strip_prefix("http://").or_else(|| url.strip_prefix("https://")) else {
        return Err(format!("expected an address that begins with http:// or https://, found \"{url}\""));
    };
    let host = rest.split(['/', '?', '#']).next().unwrap_or_default();
    if host.contains('@') {
        // The address is written into the run folder, with a password in it.
        return Err("expected an address without user and password; name the environment variable of a key with `api_key_env`".to_string());
    }
    if host.is_empty() {
        return Err(format!("expected an address with a host, found \"{url}\""));
    }
    Ok(())
}

/// Checks the address of a scheduler: a host and a port.
pub fn check_host_and_port(address: &str) -> Result<(), String> {
    let is_valid = address.rsplit_once(':').is_some_and(|(host, port)| {
        let is_host = !host.is_empty() && !host.contains(|c: char| c.is_whitespace() || "/@?#".contains(c));
        // An address of IPv6 has brackets around it.
        let is_bare = host.contains(':') && !(host.starts_with('[') && host.ends_with(']'));
        is_host && !is_bare && port.parse::<u16>().is_ok_and(|port| port > 0)
    });
    if is_valid { Ok(()) } else { Err(format!("expected HOST:PORT, such as scheduler.local:50050, found \"{address}\"")) }
}

/// Checks that the name of a key's environment variable is one. The text may be the key itself, so
/// the message does not repeat it.
pub(super) fn check_key_name(name: &str) -> Result<(), String> {
    if !name.is_empty() && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_') {
        return Ok(());
    }
    Err("`api_key_env`: expected the name of an environment variable, such as REWARD_API_KEY".to_string())
}
