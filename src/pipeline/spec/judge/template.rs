//! The template of a judge's question: a path or a text in the pipeline file, or one of our own.
//!
//! Knows texts, not their variables.

use std::borrow::Cow;
use std::path::Path;

use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::question::{Question, Read};
use crate::pipeline::position::{At, Span};

/// A Jinja template: its text, or the path of its file. The check of the pipeline replaces the path
/// by the text of the file.
#[derive(Clone, Debug, Default)]
pub struct JudgeTemplate {
    /// The value in the pipeline file: a path or the text.
    pub written: String,
    /// The text, once known.
    pub text: String,
    /// Its position in the pipeline file.
    pub span: Span,
}

impl JudgeTemplate {
    /// The path of the file, unless the value is the text: a text has variables or several lines.
    pub fn path(&self) -> Option<&Path> {
        let is_text = self.written.contains("{{") || self.written.trim().contains('\n');
        (!is_text).then(|| Path::new(self.written.trim()))
    }
}

/// Our own template of a question.
pub(super) fn default(question: Question, read: Read) -> &'static str {
    match (question, read) {
        (Question::Score, Read::Json) => include_str!("templates/score_json.jinja"),
        (Question::Score, Read::Logprobs) => include_str!("templates/score_logprobs.jinja"),
        (Question::Score, Read::Number | Read::Choice) => include_str!("templates/score_number.jinja"),
        (Question::Pair, Read::Json) => include_str!("templates/pair_json.jinja"),
        (Question::Pair, Read::Logprobs) => include_str!("templates/pair_logprobs.jinja"),
        (Question::Pair, Read::Choice | Read::Number) => include_str!("templates/pair_choice.jinja"),
    }
}

impl PartialEq for JudgeTemplate {
    fn eq(&self, other: &Self) -> bool {
        self.text == other.text
    }
}

impl Serialize for JudgeTemplate {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.text)
    }
}

impl<'de> Deserialize<'de> for JudgeTemplate {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let At { value, span } = At::<String>::deserialize(deserializer)?;
        Ok(Self { text: value.clone(), written: value, span })
    }
}

impl JsonSchema for JudgeTemplate {
    fn inline_schema() -> bool {
        true
    }
    fn schema_name() -> Cow<'static, str> {
        "JudgeTemplate".into()
    }
    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        String::json_schema(generator)
    }
}
