//! A process for scoring responses: a program of the user's, or a Python function.
//!
//! Knows the keys, not how a process is started or asked.

use indexmap::IndexMap;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::pipeline::position::{At, Name};

/// A process for scoring batches of responses.
#[derive(Clone, Debug, PartialEq)]
pub struct Process {
    /// The program.
    pub program: Program,
    /// Processes at the same time, at least 1.
    pub workers: u32,
    /// Responses in one batch.
    pub batch_size: u32,
    /// The longest wait for the next answer, in seconds, above 0.
    pub timeout_seconds: f64,
    /// New attempts at a response after the process failed on it alone.
    pub retries: u32,
    /// Further files of the reward, for its fingerprint.
    pub files: Vec<Name>,
    /// The working directory of the process.
    pub directory: Option<Name>,
    /// The version of the reward, in the user's words.
    pub version: Option<String>,
}

/// The program of a process.
#[derive(Clone, Debug, PartialEq)]
pub enum Program {
    /// A program with its arguments.
    Command {
        /// The program and its arguments, at least one.
        command: Vec<At<String>>,
        /// The format of rows and answers.
        format: RowFormat,
    },
    /// A Python function with the signature of TRL's reward functions.
    Python {
        /// `FILE.py:FUNCTION` or `MODULE:FUNCTION`.
        function: At<String>,
        /// The arguments of a function that makes the function.
        arguments: Option<IndexMap<String, serde_json::Value>>,
        /// The Python.
        interpreter: Option<Name>,
    },
}

impl Program {
    /// Its key in the pipeline file.
    pub fn key(&self) -> &'static str {
        match self {
            Self::Command { .. } => "command",
            Self::Python { .. } => "python",
        }
    }
}

/// The module of a Python function.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Module<'a> {
    /// The path of a file.
    File(&'a str),
    /// The name of a module on Python's path.
    Named(&'a str),
}

/// The module and the function of `FILE.py:FUNCTION` or `MODULE:FUNCTION`; `None` for anything
/// else.
pub fn split_function(written: &str) -> Option<(Module<'_>, &str)> {
    let (module, function) = written.rsplit_once(':')?;
    let is_word = |word: &str| {
        let mut characters = word.chars();
        characters.next().is_some_and(|first| first.is_alphabetic() || first == '_') && characters.all(|c| c.is_alphanumeric() || c == '_')
    };
    if !function.split('.').all(is_word) {
        return None;
    }
    if module.ends_with(".py") {
        Some((Module::File(module), function))
    } else if module.split('.').all(is_word) {
        Some((Module::Named(module), function))
    } else {
        None
    }
}

/// The format of rows and answers of a command.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum RowFormat {
    /// JSON lines: one object a response, one object an answer.
    #[default]
    Json,
    /// Arrow IPC streams: one record batch a batch of responses, one for their answers.
    Arrow,
}

/// The settings of a process as read.
pub(super) struct ProcessFields {
    pub(super) workers: Option<u32>,
    pub(super) batch_size: Option<u32>,
    pub(super) timeout_seconds: Option<f64>,
    pub(super) retries: Option<u32>,
    pub(super) files: Option<Vec<Name>>,
    pub(super) directory: Option<Name>,
    pub(super) version: Option<String>,
}

impl ProcessFields {
    fn with(self, program: Program) -> Process {
        Process {
            program,
            workers: self.workers.unwrap_or(1),
            batch_size: self.batch_size.unwrap_or(32),
            timeout_seconds: self.timeout_seconds.unwrap_or(300.0),
            retries: self.retries.unwrap_or(2),
            files: self.files.unwrap_or_default(),
            directory: self.directory,
            version: self.version,
        }
    }
}

/// A command with its defaults filled in.
pub(super) fn command(command: Vec<At<String>>, format: Option<RowFormat>, settings: ProcessFields) -> Result<Process, String> {
    match command.first() {
        None => Err("expected a program with its arguments such as `[python3, score.py]`, found an empty list".to_string()),
        Some(program) if program.value.trim().is_empty() => {
            Err("expected a program as the first item of `command`, found an empty text".to_string())
        }
        Some(_) => Ok(settings.with(Program::Command { command, format: format.unwrap_or_default() })),
    }
}

/// A Python function with its defaults filled in.
pub(super) fn python(
    function: At<String>,
    arguments: Option<IndexMap<String, serde_json::Value>>,
    interpreter: Option<Name>,
    settings: ProcessFields,
) -> Result<Process, String> {
    if split_function(&function.value).is_none() {
        return Err(format!(
            "expected a Python function as FILE.py:FUNCTION or MODULE:FUNCTION, such as rewards.py:accuracy, found \"{}\"",
            function.value
        ));
    }
    Ok(settings.with(Program::Python { function, arguments, interpreter }))
}

#[cfg(test)]
mod tests {
    use super::{Module, split_function};

    #[test]
    fn functions_have_a_file_or_a_module() {
        assert_eq!(split_function("lib/rewards.py:accuracy"), Some((Module::File("lib/rewards.py"), "accuracy")));
        assert_eq!(split_function("trl.rewards:accuracy_reward"), Some((Module::Named("trl.rewards"), "accuracy_reward")));
        assert_eq!(split_function("C:/x.py:Checks.length"), Some((Module::File("C:/x.py"), "Checks.length")));
        for wrong in ["rewards.py", "rewards:", ":f", "lib/rewards:f", "rewards.py:f()", "rewards.py:1f", "a..b:f", ""] {
            assert_eq!(split_function(wrong), None, "{wrong}");
        }
    }
}
