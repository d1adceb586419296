//! Who may ask: a browser with the token, on this machine, for this very address.
//!
//! Another page in the same browser can send requests here. It knows no token, its requests carry
//! no cookie of ours (`SameSite=Strict`), and a name that it points to this machine is not in the
//! list of hosts. Knows headers, not routes.

use hyper::header::{AUTHORIZATION, COOKIE, HOST, HeaderMap, HeaderName, ORIGIN};

use super::error::ViewError;

/// Random bytes of a token.
const TOKEN_BYTES: usize = 24;

/// The token of a server and the hosts that it answers as.
pub(super) struct Access {
    /// Its port. Cookies do not distinguish ports, so their names do.
    port: u16,
    token: String,
}

impl Access {
    /// For a port, with a new random token.
    ///
    /// # Errors
    /// The system gives no random bytes.
    pub fn new(port: u16) -> Result<Self, String> {
        let mut bytes = [0; TOKEN_BYTES];
        getrandom::fill(&mut bytes).map_err(|error| error.to_string())?;
        Ok(Self { port, token: bytes.iter().map(|byte| format!("{byte:02x}")).collect() })
    }

    /// The token.
    pub fn token(&self) -> &str {
        &self.token
    }

    /// The cookie that the browser keeps.
    pub fn cookie(&self) -> String {
        format!("{}={}; Path=/; HttpOnly; SameSite=Strict", self.cookie_name(), self.token)
    }

    /// Whether a word is the token. The time does not depend on the first wrong character.
    pub fn is_token(&self, word: &str) -> bool {
        let different = self.token.bytes().zip(word.bytes()).fold(0, |different, (one, other)| different | (one ^ other));
        different == 0 && self.token.len() == word.len()
    }

    /// Refuses a request for another host.
    ///
    /// # Errors
    /// [`ViewError::Forbidden`].
    pub fn check_host(&self, headers: &HeaderMap) -> Result<(), ViewError> {
        let host = text(headers, HOST).unwrap_or_default();
        if self.hosts().iter().any(|own| own.eq_ignore_ascii_case(host)) {
            return Ok(());
        }
        Err(ViewError::Forbidden(format!("expected the host {}, found {host:?}", self.hosts().join(" or "))))
    }

    /// Refuses a request without the token, in the cookie or as `Authorization: Bearer TOKEN`.
    ///
    /// # Errors
    /// [`ViewError::Forbidden`].
    pub fn check_token(&self, headers: &HeaderMap) -> Result<(), ViewError> {
        let name = self.cookie_name();
        let cookies = headers.get_all(COOKIE).iter().filter_map(|value| value.to_str().ok()).flat_map(|line| line.split(';'));
        let cookie = cookies.filter_map(|cookie| cookie.trim().split_once('=')).find(|(other, _)| *other == name).map(|(_, value)| value);
        let bearer = text(headers, AUTHORIZATION).and_then(|value| value.strip_prefix("Bearer "));
        if cookie.into_iter().chain(bearer).any(|word| self.is_token(word)) {
            return Ok(());
        }
        Err(ViewError::Forbidden("expected the token of this server; open the address that `optune view` printed".to_string()))
    }

    /// Refuses a change asked for by another page.
    ///
    /// # Errors
    /// [`ViewError::Forbidden`].
    pub fn check_origin(&self, headers: &HeaderMap) -> Result<(), ViewError> {
        match text(headers, ORIGIN) {
            Some(origin) if !self.hosts().iter().any(|own| origin.eq_ignore_ascii_case(&format!("http://{own}"))) => {
                Err(ViewError::Forbidden(format!("expected a request of this page, found one of {origin:?}")))
            }
            _ => Ok(()),
        }
    }

    fn hosts(&self) -> [String; 2] {
        ["127.0.0.1", "localhost"].map(|host| if self.port == 80 { host.to_string() } else { format!("{host}:{}", self.port) })
    }

    fn cookie_name(&self) -> String {
        format!("optune_view_{}", self.port)
    }
}

fn text(headers: &HeaderMap, name: HeaderName) -> Option<&str> {
    headers.get(name)?.to_str().ok()
}

#[cfg(test)]
mod tests {
    use hyper::header::{AUTHORIZATION, COOKIE, HOST, HeaderMap, HeaderName, HeaderValue, ORIGIN};

    use super::Access;

    fn with(name: HeaderName, value: &str) -> HeaderMap {
        HeaderMap::from_iter([(name, HeaderValue::from_str(value).unwrap())])
    }

    #[test]
    fn only_the_token_opens() {
        let access = Access::new(8042).unwrap();
        let token = access.token().to_string();
        assert_eq!(token.len(), 48);
        assert_ne!(token, Access::new(8042).unwrap().token());
        for (open, name, value) in [
            (true, COOKIE, format!("a=b; optune_view_8042={token}; c=d")),
            (true, AUTHORIZATION, format!("Bearer {token}")),
            (false, COOKIE, format!("optune_view_8041={token}")),
            (false, COOKIE, format!("optune_view_8042={token}0")),
            (false, COOKIE, format!("optune_view_8042={}", &token[1..])),
            (false, COOKIE, "optune_view_8042=".to_string()),
            (false, AUTHORIZATION, token.clone()),
            (false, AUTHORIZATION, "Bearer ".to_string()),
        ] {
            assert_eq!(access.check_token(&with(name, &value)).is_ok(), open, "{value}");
        }
        assert!(access.check_token(&HeaderMap::new()).is_err());
    }

    #[test]
    fn only_this_host_and_this_page_are_answered() {
        let access = Access::new(8042).unwrap();
        for (own, host) in [
            (true, "127.0.0.1:8042"),
            (true, "LocalHost:8042"),
            (false, "127.0.0.1"),
            (false, "127.0.0.1:8043"),
            (false, "evil.example:8042"),
            (false, "127.0.0.1:8042.evil.example"),
            (false, ""),
        ] {
            assert_eq!(access.check_host(&with(HOST, host)).is_ok(), own, "{host}");
        }
        assert!(access.check_host(&HeaderMap::new()).is_err());
        assert!(access.check_origin(&HeaderMap::new()).is_ok());
        assert!(access.check_origin(&with(ORIGIN, "http://127.0.0.1:8042")).is_ok());
        for origin in ["http://evil.example", "null", "https://127.0.0.1:8042", "http://127.0.0.1:8043"] {
            assert!(access.check_origin(&with(ORIGIN, origin)).is_err(), "{origin}");
        }
    }
}
