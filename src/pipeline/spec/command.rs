//! `command`: a stage of the user's own, a program that makes a table or a model.
//!
//! Knows the keys of the operator, not how the program runs.

use std::borrow::Cow;
use std::fmt;
use std::path::PathBuf;

use indexmap::IndexMap;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::{Error, Visitor};
use serde::{Deserialize, Deserializer, Serialize};

use crate::pipeline::position::{At, Name};
use crate::pipeline::range;

/// A stage of your own: a program that reads tables and models and makes one table or one model. It
/// gets paths, seed and iteration in environment variables.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Command {
    /// The program and its arguments. It runs in the folder of the file, without a shell; for one,
    /// write `[sh, -c, "…"]`. A number with a fraction or an exponent is in quotes: `"0.20"`.
    #[serde(deserialize_with = "arguments")]
    #[schemars(length(min = 1))]
    pub run: Vec<At<Argument>>,
    /// The tables and models for the program, by names of your choice: `{ pairs: pairs }` is the
    /// variable OPTUNE_INPUT_PAIRS. A model is a directory, a table is a directory of Parquet
    /// files.
    #[serde(default, skip_serializing_if = "IndexMap::is_empty")]
    pub inputs: IndexMap<Name, Name>,
    /// The thing that the program makes at the path in OPTUNE_OUTPUT.
    pub output: Made,
    /// The files of the program, such as its scripts: paths, or patterns with `*`, `?` and `[…]`. A
    /// change of their contents makes the node run again.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub files: Vec<Name>,
    /// A version of the program, for changes outside of `files`. Another version makes the node run
    /// again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
    /// The time limit of the program, in seconds, above 0. No limit by default.
    #[serde(default, deserialize_with = "range::optional_positive", skip_serializing_if = "Option::is_none")]
    #[schemars(extend("exclusiveMinimum" = 0))]
    pub timeout_seconds: Option<f64>,
    /// The program's place; filled in by the check of the pipeline.
    #[serde(skip)]
    pub place: Place,
}

/// A program of the user's with everything that its call needs.
#[derive(Clone, Copy, Debug)]
pub struct Program<'a> {
    /// The program and its arguments.
    pub words: &'a [At<Argument>],
    /// Its place.
    pub place: &'a Place,
    /// The time limit, in seconds.
    pub timeout_seconds: Option<f64>,
}

impl Command {
    /// Its program.
    pub fn program(&self) -> Program<'_> {
        Program { words: &self.run, place: &self.place, timeout_seconds: self.timeout_seconds }
    }
}

/// An argument of a program: a text, or a whole number or truth value as text. Any other number
/// is in quotes, because YAML forgets how it was written: 0.20 would be 0.2.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(transparent)]
pub struct Argument(pub String);

/// The program and its arguments, at least the program.
pub(super) fn arguments<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<At<Argument>>, D::Error> {
    let arguments = Vec::<At<Argument>>::deserialize(deserializer)?;
    if arguments.is_empty() {
        return Err(D::Error::custom("expected a program and its arguments, found an empty list"));
    }
    Ok(arguments)
}

impl<'de> Deserialize<'de> for Argument {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Scalar;
        impl Visitor<'_> for Scalar {
            type Value = Argument;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a text, a whole number, or another number in quotes")
            }
            fn visit_str<E: Error>(self, text: &str) -> Result<Argument, E> {
                Ok(Argument(text.to_string()))
            }
            fn visit_bool<E: Error>(self, value: bool) -> Result<Argument, E> {
                Ok(Argument(value.to_string()))
            }
            fn visit_u64<E: Error>(self, number: u64) -> Result<Argument, E> {
                Ok(Argument(number.to_string()))
            }
            fn visit_i64<E: Error>(self, number: i64) -> Result<Argument, E> {
                Ok(Argument(number.to_string()))
            }
        }
        deserializer.deserialize_any(Scalar)
    }
}

impl JsonSchema for Argument {
    fn inline_schema() -> bool {
        true
    }
    fn schema_name() -> Cow<'static, str> {
        "Argument".into()
    }
    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "anyOf": [{ "type": "string" }, { "type": "integer" }, { "type": "boolean" }] })
    }
}

/// The place of a program on this machine.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Place {
    /// The working directory; empty for that of this process.
    pub folder: PathBuf,
    /// The files of `files`, sorted: the path within the folder, and the path on this machine.
    pub files: Vec<(String, PathBuf)>,
    /// Arguments with the path of a file outside of `files`.
    pub unlisted: Vec<String>,
}

/// The thing that a command makes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Made {
    /// A table of your own, with any columns. It must fit the nodes that read it.
    Table,
    /// A table of prompts: `prompt_id`, and `prompt` or `messages`.
    Prompts,
    /// A table of preferences: `prompt` or `messages`, `chosen` and `rejected`.
    Preferences,
    /// A table of selection.
    Selection,
    /// A table of responses.
    Responses,
    /// A table of rewards.
    Rewards,
    /// A pool.
    Pool,
    /// A table of pairs of sampled responses.
    Pairs,
    /// A language model: a Hugging Face directory with its tokenizer.
    Model,
    /// A reward model: a Hugging Face directory with its tokenizer.
    RewardModel,
}
