//! SQL from the user, in the pipeline file or in a file of its own.
//!
//! Knows the place of the text, not its meaning.

use std::borrow::Cow;
use std::path::Path;

use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::pipeline::position::{At, Span};

/// An SQL query: the text, or the path of a file with the extension `.sql`. The check of the
/// pipeline replaces the path by the text of the file.
#[derive(Clone, Debug, Default)]
pub struct Query {
    /// The value in the pipeline file: a path or the text.
    pub written: String,
    /// The text, once known.
    pub text: String,
    /// Its position in the pipeline file.
    pub span: Span,
}

impl Query {
    /// The path of the file, unless the value is the text.
    pub fn path(&self) -> Option<&Path> {
        let written = self.written.trim();
        let mut words = written.split_whitespace();
        let begins = words.next().is_some_and(|word| ["select", "with"].iter().any(|begin| word.eq_ignore_ascii_case(begin)));
        let sql = begins && words.next().is_some();
        (written.ends_with(".sql") && !sql).then(|| Path::new(written))
    }
}

impl PartialEq for Query {
    fn eq(&self, other: &Self) -> bool {
        self.text == other.text
    }
}

impl Serialize for Query {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.text)
    }
}

impl<'de> Deserialize<'de> for Query {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let At { value, span } = At::<String>::deserialize(deserializer)?;
        Ok(Self { text: value.clone(), written: value, span })
    }
}

impl JsonSchema for Query {
    fn inline_schema() -> bool {
        true
    }
    fn schema_name() -> Cow<'static, str> {
        "Query".into()
    }
    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        String::json_schema(generator)
    }
}
