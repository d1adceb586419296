//! The parameters of a request, by name and type. Knows no route.

use std::str::FromStr;

use super::error::ViewError;

/// The parameters behind the `?` of an address.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Parameters(Vec<(String, String)>);

impl Parameters {
    /// Parses what stands behind the `?`.
    pub fn parse(query: &str) -> Self {
        Self(form_urlencoded::parse(query.as_bytes()).into_owned().collect())
    }

    /// A parameter; none for an empty one.
    pub fn text(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(other, value)| other == name && !value.is_empty()).map(|(_, value)| value.as_str())
    }

    /// A parameter that must be there.
    ///
    /// # Errors
    /// It is not.
    pub fn required(&self, name: &str) -> Result<&str, ViewError> {
        self.text(name).ok_or_else(|| ViewError::Input(format!("expected the parameter {name}, found none")))
    }

    /// A number.
    ///
    /// # Errors
    /// It is no such number.
    pub fn number<T: FromStr>(&self, name: &str) -> Result<Option<T>, ViewError> {
        let parse = |text: &str| text.trim().parse().map_err(|_| ViewError::Input(format!("{name}: expected a number, found {text:?}")));
        self.text(name).map(parse).transpose()
    }

    /// `yes` or `no`.
    ///
    /// # Errors
    /// It is neither.
    pub fn flag(&self, name: &str) -> Result<Option<bool>, ViewError> {
        match self.text(name) {
            None => Ok(None),
            Some("yes") => Ok(Some(true)),
            Some("no") => Ok(Some(false)),
            Some(other) => Err(ViewError::Input(format!("{name}: expected yes or no, found {other:?}"))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Parameters;

    #[test]
    fn parameters_are_decoded_and_typed() {
        let parameters = Parameters::parse("text=a+b%26c%20%C3%A9&offset=50&selected=yes&empty=&low=-0.5");
        assert_eq!(parameters.text("text"), Some("a b&c é"));
        assert_eq!(parameters.number::<u64>("offset").unwrap(), Some(50));
        assert_eq!(parameters.number::<f64>("low").unwrap(), Some(-0.5));
        assert_eq!(parameters.flag("selected").unwrap(), Some(true));
        assert_eq!((parameters.text("empty"), parameters.text("other")), (None, None));
        assert_eq!(parameters.number::<u64>("text").unwrap_err().to_string(), "text: expected a number, found \"a b&c é\"");
        assert!(parameters.flag("offset").is_err() && parameters.required("empty").is_err());
        assert_eq!(Parameters::parse("%ff%00=%zz").text("\u{fffd}\0"), Some("%zz"));
    }
}
