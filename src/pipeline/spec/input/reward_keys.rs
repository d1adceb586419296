//! The keys of a reward: a mapping, or a list of mappings with weights and names.
//!
//! Knows keys and their errors, not the use of a reward.

use std::borrow::Cow;
use std::fmt;

use indexmap::IndexMap;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::value::{MapAccessDeserializer, SeqAccessDeserializer};
use serde::de::{Error, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::super::addresses::Addresses;
use super::super::judge::{Judge, Question};
use super::super::query::Query;
use super::process::{self, ProcessFields, Program, RowFormat};
use super::reward::{Component, Reward, RewardSource};
use super::server::{RewardProtocol, ServerFields, server};
use crate::pipeline::position::{At, Name};
use crate::pipeline::range;

/// A reward for responses: exactly one of `sql`, `model`, `http`, `judge`, `command` and `python`.
/// In a list: one of these or `reward`, with a weight and a name.
#[derive(Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
#[schemars(rename = "Reward", extend("minProperties" = 1))]
struct Fields {
    /// In a list: the factor of this reward, any finite number; 1 by default.
    #[serde(skip_serializing_if = "Option::is_none", deserialize_with = "range::optional_finite")]
    weight: Option<f64>,
    /// In a list: the name of this reward in the column `components`, lower-case letters, digits
    /// and `_`. By default its kind.
    #[serde(skip_serializing_if = "Option::is_none")]
    name: Option<Name>,
    /// A query, or the path of a file with the extension `.sql`. It reads `responses`, `prompts`
    /// and any other table of the pipeline, and returns a `reward` for every response.
    #[serde(skip_serializing_if = "Option::is_none")]
    sql: Option<Query>,
    /// The directory, from the folder of this file, or `hf://` address of a Hugging Face
    /// `…ForSequenceClassification` with one label.
    #[serde(skip_serializing_if = "Option::is_none")]
    model: Option<Name>,
    /// In a list: another reward of the pipeline, one of `inputs` or a `reward_model` node.
    #[serde(skip_serializing_if = "Option::is_none")]
    reward: Option<Name>,
    /// The address of a server for scoring batches of responses, `http://…` or `https://…`; or a list
    /// of addresses, of servers with the same reward. The first stands for all in the fingerprint.
    #[serde(skip_serializing_if = "Option::is_none")]
    http: Option<Addresses>,
    /// A model behind OpenAI's chat API that is asked for a score of each response.
    #[serde(skip_serializing_if = "Option::is_none")]
    judge: Option<Box<Judge>>,
    /// The format of requests to the server and of its answers; `plain` by default.
    #[serde(skip_serializing_if = "Option::is_none")]
    protocol: Option<RewardProtocol>,
    /// A program with its arguments, such as `[python3, score.py]`. It reads responses from
    /// standard input and writes their rewards to standard output. A program with a `/` is a path
    /// from its directory; any other is found on `PATH`.
    #[serde(skip_serializing_if = "Option::is_none")]
    command: Option<Vec<At<String>>>,
    /// The format of a command's rows and answers; `json` by default.
    #[serde(skip_serializing_if = "Option::is_none")]
    format: Option<RowFormat>,
    /// A Python function with the signature of TRL's reward functions, `FILE.py:FUNCTION` or
    /// `MODULE:FUNCTION`.
    #[serde(skip_serializing_if = "Option::is_none")]
    python: Option<At<String>>,
    /// The arguments of a Python function that makes the function, by name. The function is called
    /// once with them. Without this key there is no such call.
    #[serde(skip_serializing_if = "Option::is_none")]
    arguments: Option<IndexMap<String, serde_json::Value>>,
    /// The Python of a `python` reward, a path or a name on `PATH`. By default the one named by the
    /// environment variable `OPTUNE_PYTHON`, else that of `VIRTUAL_ENV`, else `python3` on `PATH`.
    #[serde(skip_serializing_if = "Option::is_none")]
    interpreter: Option<Name>,
    /// Processes of a `command` or `python` reward at the same time, at least 1; 1 by default.
    #[serde(skip_serializing_if = "Option::is_none", deserialize_with = "range::optional_count")]
    #[schemars(range(min = 1))]
    workers: Option<u32>,
    /// Further files of a `command` or `python` reward: paths from the folder of this file,
    /// or patterns with `*`, `?` or `[…]`. Changed files score all responses again.
    #[serde(skip_serializing_if = "Option::is_none")]
    files: Option<Vec<Name>>,
    /// The working directory of a `command` or `python` reward; by default the folder of this file.
    #[serde(skip_serializing_if = "Option::is_none")]
    directory: Option<Name>,
    /// Responses in one request to the server, or in one batch for a process, at least 1; 32 by
    /// default.
    #[serde(skip_serializing_if = "Option::is_none", deserialize_with = "range::optional_count")]
    #[schemars(range(min = 1))]
    batch_size: Option<u32>,
    /// Requests to the server at the same time, at least 1; 4 by default. Of several servers, to
    /// each of them.
    #[serde(skip_serializing_if = "Option::is_none", deserialize_with = "range::optional_count")]
    #[schemars(range(min = 1))]
    concurrency: Option<u32>,
    /// The time limit of one request, in seconds, above 0; 120 by default. For a process: the
    /// longest wait for the next answer, 300 by default.
    #[serde(skip_serializing_if = "Option::is_none", deserialize_with = "range::optional_positive")]
    #[schemars(extend("exclusiveMinimum" = 0))]
    timeout_seconds: Option<f64>,
    /// Retries of a failed request, with growing waits; 5 by default. For a process: new attempts
    /// at a response after the process failed on it alone, 2 by default.
    #[serde(skip_serializing_if = "Option::is_none")]
    retries: Option<u32>,
    /// The environment variable with the key of the server. The key itself is never written to
    /// disk.
    #[serde(skip_serializing_if = "Option::is_none")]
    api_key_env: Option<At<String>>,
    /// The version of the reward of a server or a process, in your words. A changed version scores
    /// all responses again.
    #[serde(skip_serializing_if = "Option::is_none")]
    version: Option<String>,
}

/// The message for a mapping without a source.
const NONE: &str = "expected a reward such as `{ sql: reward.sql }`, `{ model: DIR }`, `{ http: URL }`, `{ judge: … }`, `{ command: [PROGRAM] }` \
                    or `{ python: rewards.py:FUNCTION }`, found none";

/// The kinds of rewards with settings of their own.
const SET_KINDS: [&str; 3] = ["http", "command", "python"];

impl Fields {
    /// The given settings, each with the kinds of rewards that have it.
    fn settings(&self) -> impl Iterator<Item = (&'static str, &'static [&'static str])> {
        let [http, command, python] = [&SET_KINDS[..1], &SET_KINDS[1..2], &SET_KINDS[2..]];
        let processes = &SET_KINDS[1..];
        let given = [
            ("protocol", http, self.protocol.is_some()),
            ("format", command, self.format.is_some()),
            ("arguments", python, self.arguments.is_some()),
            ("interpreter", python, self.interpreter.is_some()),
            ("workers", processes, self.workers.is_some()),
            ("files", processes, self.files.is_some()),
            ("directory", processes, self.directory.is_some()),
            ("batch_size", &SET_KINDS, self.batch_size.is_some()),
            ("concurrency", http, self.concurrency.is_some()),
            ("timeout_seconds", &SET_KINDS, self.timeout_seconds.is_some()),
            ("retries", &SET_KINDS, self.retries.is_some()),
            ("api_key_env", http, self.api_key_env.is_some()),
            ("version", &SET_KINDS, self.version.is_some()),
        ];
        given.into_iter().filter(|(_, _, given)| *given).map(|(key, kinds, _)| (key, kinds))
    }

    /// The kinds of the given sources.
    fn kinds(&self) -> impl Iterator<Item = &'static str> {
        let kinds = [
            ("sql", self.sql.is_some()),
            ("model", self.model.is_some()),
            ("http", self.http.is_some()),
            ("judge", self.judge.is_some()),
            ("command", self.command.is_some()),
            ("python", self.python.is_some()),
            ("reward", self.reward.is_some()),
        ];
        kinds.into_iter().filter(|(_, given)| *given).map(|(kind, _)| kind)
    }

    fn source(self) -> Result<RewardSource, String> {
        let mut kinds = self.kinds();
        let kind = match (kinds.next(), kinds.next()) {
            (None, _) => return Err(NONE.to_string()),
            (Some(first), Some(second)) => {
                return Err(format!(
                    "expected one kind of reward, found `{first}` and `{second}`; \
                     add them up in a list: `[{{ {first}: … }}, {{ {second}: … }}]`"
                ));
            }
            (Some(kind), None) => kind,
        };
        drop(kinds);
        if let Some((key, of)) = self.settings().find(|(_, kinds)| !kinds.contains(&kind)) {
            return Err(format!("`{key}` is for {}; a reward by `{kind}` has none", one_of(of)));
        }
        let server_settings = ServerFields {
            protocol: self.protocol,
            batch_size: self.batch_size,
            concurrency: self.concurrency,
            timeout_seconds: self.timeout_seconds,
            retries: self.retries,
            api_key_env: self.api_key_env,
            version: self.version.clone(),
        };
        let settings = ProcessFields {
            workers: self.workers,
            batch_size: self.batch_size,
            timeout_seconds: self.timeout_seconds,
            retries: self.retries,
            files: self.files,
            directory: self.directory,
            version: self.version,
        };
        if let Some(query) = self.sql {
            return Ok(RewardSource::Sql(query));
        }
        if let Some(model) = self.model {
            return Ok(RewardSource::Model(model));
        }
        if let Some(url) = self.http {
            return server(url, server_settings).map(RewardSource::Http);
        }
        if let Some(judge) = self.judge {
            return judge.check(Question::Score).map(|()| RewardSource::Judge(judge));
        }
        if let Some(command) = self.command {
            return process::command(command, self.format, settings).map(RewardSource::Process);
        }
        if let Some(function) = self.python {
            return process::python(function, self.arguments, self.interpreter, settings).map(RewardSource::Process);
        }
        self.reward.map(RewardSource::Named).ok_or_else(|| NONE.to_string())
    }

    fn from_source(source: &RewardSource) -> Self {
        match source {
            RewardSource::Sql(query) => Self { sql: Some(query.clone()), ..Self::default() },
            RewardSource::Model(model) => Self { model: Some(model.clone()), ..Self::default() },
            RewardSource::Judge(judge) => Self { judge: Some(judge.clone()), ..Self::default() },
            RewardSource::Named(name) => Self { reward: Some(name.clone()), ..Self::default() },
            RewardSource::Http(server) => Self {
                http: Some(server.http.clone()),
                protocol: Some(server.protocol),
                batch_size: Some(server.batch_size),
                concurrency: Some(server.concurrency),
                timeout_seconds: Some(server.timeout_seconds),
                retries: Some(server.retries),
                api_key_env: server.api_key_env.clone(),
                version: server.version.clone(),
                ..Self::default()
            },
            RewardSource::Process(process) => {
                let fields = Self {
                    workers: Some(process.workers),
                    batch_size: Some(process.batch_size),
                    timeout_seconds: Some(process.timeout_seconds),
                    retries: Some(process.retries),
                    files: Some(process.files.clone()).filter(|files| !files.is_empty()),
                    directory: process.directory.clone(),
                    version: process.version.clone(),
                    ..Self::default()
                };
                match &process.program {
                    Program::Command { command, format } => Self { command: Some(command.clone()), format: Some(*format), ..fields },
                    Program::Python { function, arguments, interpreter } => {
                        Self { python: Some(function.clone()), arguments: arguments.clone(), interpreter: interpreter.clone(), ..fields }
                    }
                }
            }
        }
    }
}

/// Some kinds of rewards, for an error.
fn one_of(kinds: &[&str]) -> String {
    let quoted: Vec<String> = kinds.iter().map(|kind| format!("`{kind}`")).collect();
    match quoted.split_last() {
        Some((last, [])) => last.clone(),
        Some((last, others)) => format!("{} and {last}", others.join(", ")),
        None => String::new(),
    }
}

/// One reward of a list. Its default name is not known yet.
struct Item {
    weight: f64,
    name: Option<String>,
    source: RewardSource,
}

impl Item {
    fn new(mut fields: Fields) -> Result<Self, String> {
        let weight = fields.weight.take().unwrap_or(1.0);
        let name = fields.name.take().map(|name| name.value);
        if let Some(name) = &name {
            let valid = name.starts_with(|c: char| c.is_ascii_lowercase())
                && name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_');
            if !valid {
                let expected = "expected the name of a component, of lower-case letters, digits and \"_\" and beginning with a letter";
                return Err(format!("{expected}, found \"{name}\""));
            }
        }
        Ok(Self { weight, name, source: fields.source()? })
    }
}

/// The terms of a sum, each with a unique name: by default its kind, or `kind_2` and so on.
fn components(list: Vec<Item>) -> Result<Vec<Component>, String> {
    if list.is_empty() {
        return Err("expected at least one reward in the list, found none".to_string());
    }
    let mut taken: Vec<String> = Vec::new();
    for name in list.iter().filter_map(|item| item.name.as_ref()) {
        if taken.contains(name) {
            return Err(format!("two rewards of the list are named \"{name}\"; give each a name of its own"));
        }
        taken.push(name.clone());
    }
    let component = |Item { weight, name, source }: Item| {
        let kind = match &source {
            RewardSource::Sql(_) => "sql",
            RewardSource::Model(_) => "model",
            RewardSource::Http(_) => "http",
            RewardSource::Process(process) => process.program.key(),
            RewardSource::Judge(_) => "judge",
            RewardSource::Named(name) => name.value.as_str(),
        };
        let name = name.unwrap_or_else(|| {
            let numbered = (2..).map(|number| format!("{kind}_{number}"));
            let free = std::iter::once(kind.to_string()).chain(numbered).find(|name| !taken.contains(name)).unwrap_or_default();
            taken.push(free.clone());
            free
        });
        Component { weight, name, source }
    };
    Ok(list.into_iter().map(component).collect())
}

impl<'de> Deserialize<'de> for Item {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct One;
        impl<'de> Visitor<'de> for One {
            type Value = Item;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a reward such as `{ weight: 1.0, sql: reward.sql }`")
            }
            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Item, A::Error> {
                Item::new(Fields::deserialize(MapAccessDeserializer::new(map))?).map_err(A::Error::custom)
            }
        }
        deserializer.deserialize_any(One)
    }
}

impl<'de> Deserialize<'de> for Reward {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct OneOrSeveral;
        impl<'de> Visitor<'de> for OneOrSeveral {
            type Value = Reward;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a reward such as `{ sql: reward.sql }`, or a list of weighted rewards")
            }
            fn visit_seq<A: SeqAccess<'de>>(self, list: A) -> Result<Reward, A::Error> {
                let list = Vec::<Item>::deserialize(SeqAccessDeserializer::new(list))?;
                components(list).map(Reward::Sum).map_err(A::Error::custom)
            }
            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Reward, A::Error> {
                let fields = Fields::deserialize(MapAccessDeserializer::new(map))?;
                let of_lists = [("weight", fields.weight.is_some()), ("name", fields.name.is_some()), ("reward", fields.reward.is_some())];
                if let Some((key, _)) = of_lists.into_iter().find(|(_, given)| *given) {
                    return Err(A::Error::custom(format!("`{key}` is for the rewards of a list: `[{{ weight: 1.0, … }}, …]`")));
                }
                fields.source().map(Reward::One).map_err(A::Error::custom)
            }
        }
        deserializer.deserialize_any(OneOrSeveral)
    }
}

impl Serialize for Reward {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::One(source) => Fields::from_source(source).serialize(serializer),
            Self::Sum(components) => serializer.collect_seq(components.iter().map(|component| Fields {
                weight: Some(component.weight),
                name: Some(At { value: component.name.clone(), ..At::default() }),
                ..Fields::from_source(&component.source)
            })),
        }
    }
}

impl JsonSchema for Reward {
    fn inline_schema() -> bool {
        true
    }
    fn schema_name() -> Cow<'static, str> {
        "RewardOrSum".into()
    }
    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let one = generator.subschema_for::<Fields>();
        json_schema!({ "anyOf": [one, { "type": "array", "items": one, "minItems": 1 }] })
    }
}
