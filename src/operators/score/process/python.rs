//! Python functions with TRL's signature: the interpreter, the adapter, and the probe.
//!
//! Knows names and versions; the function is imported only when it scores.

use std::ffi::OsString;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::mpsc;
use std::time::Duration;

use indexmap::IndexMap;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::super::OperatorError;
use crate::did_you_mean::nearest;
use crate::pipeline::graph::Process as Reward;
use crate::pipeline::position::Name;
use crate::pipeline::spec::input::{Module, split_function};
use crate::process::{self, Process, Program, find};

/// Name of this module in internal errors.
const PLACE: &str = "operators::score::process::python";

/// Calls the function for batches of rows.
const ADAPTER: &str = include_str!("adapter.py");
/// Says what there is without an import of the function.
const PROBE: &str = include_str!("probe.py");
/// The time limit of the probe.
const PROBE_LIMIT: Duration = Duration::from_secs(60);
/// The environment variables with an interpreter, and with the folder of one.
const OWN_VARIABLE: &str = "OPTUNE_PYTHON";
const FOLDER_VARIABLE: &str = "VIRTUAL_ENV";

/// The settings of the adapter and of the probe.
#[derive(Serialize)]
struct Settings<'a> {
    /// The path of a file, or the name of a module.
    module: String,
    is_file: bool,
    function: &'a str,
    arguments: Option<&'a IndexMap<String, Value>>,
}

/// The words of the probe.
#[derive(Deserialize)]
struct Probed {
    version: String,
    problem: Option<String>,
    names: Option<Vec<String>>,
    module: Option<String>,
}

/// A Python function of the pipeline file.
pub(super) struct Function<'a> {
    pub(super) reward: &'a Reward,
    pub(super) written: &'a str,
    pub(super) arguments: Option<&'a IndexMap<String, Value>>,
    pub(super) interpreter: Option<&'a Name>,
}

impl Function<'_> {
    /// The command of the adapter.
    pub(super) fn command(&self) -> Result<Command, OperatorError> {
        let mut command = process::command(&self.interpreter()?, &self.reward.directory);
        command.args(["-c", ADAPTER, &self.settings()?]);
        // The end of standard error is the reason of a failure; nothing of it may wait in a buffer.
        command.env("PYTHONUNBUFFERED", "1");
        Ok(command)
    }

    /// Checks that the interpreter, the module and the function are there.
    pub(super) fn check(&self) -> Result<(), OperatorError> {
        let probed = self.probe()?;
        let failed = |problem: String| Err(OperatorError::Input(format!("{}: {problem}", self.written)));
        if let Some(problem) = probed.problem {
            return failed(problem);
        }
        let (Some(names), Some((_, function))) = (probed.names, split_function(self.written)) else { return Ok(()) };
        let first = function.split('.').next().unwrap_or(function);
        if names.iter().any(|name| name == first) {
            return Ok(());
        }
        let hint = nearest(first, names.iter().map(String::as_str)).map_or(String::new(), |near| format!("; did you mean {near}?"));
        failed(format!("expected a function {first}, found no such name{hint}"))
    }

    /// What the function's results depend on besides its files: the Python, the module's version,
    /// and the adapter.
    pub(super) fn identity(&self) -> Result<Value, OperatorError> {
        let probed = self.probe()?;
        Ok(json!({ "python": probed.version, "module": probed.module, "adapter": blake3::hash(ADAPTER.as_bytes()).to_hex().as_str() }))
    }

    fn settings(&self) -> Result<String, OperatorError> {
        let Some((module, function)) = split_function(self.written) else {
            return Err(OperatorError::internal(PLACE, format!("{} is no function", self.written)));
        };
        let (module, is_file) = match module {
            Module::File(file) => {
                let path = std::path::absolute(self.reward.folder.join(file));
                let path = path.map_err(|error| OperatorError::Input(format!("{file}: {error}")))?;
                (path.display().to_string(), true)
            }
            Module::Named(name) => (name.to_string(), false),
        };
        let settings = Settings { module, is_file, function, arguments: self.arguments };
        serde_json::to_string(&settings).map_err(|error| OperatorError::internal(PLACE, error.to_string()))
    }

    /// The path of the interpreter: of the pipeline file, of `OPTUNE_PYTHON`, of the active
    /// environment, or `python3`.
    fn interpreter(&self) -> Result<PathBuf, OperatorError> {
        let variable = |name: &str| std::env::var_os(name).filter(|value: &OsString| !value.is_empty());
        let (name, whose, folder) = if let Some(name) = self.interpreter {
            (name.value.clone(), "`interpreter`", self.reward.folder.as_path())
        } else if let Some(own) = variable(OWN_VARIABLE) {
            (own.to_string_lossy().into_owned(), OWN_VARIABLE, Path::new(""))
        } else if let Some(folder) = variable(FOLDER_VARIABLE) {
            let name = Path::new(&folder).join(if cfg!(windows) { "Scripts/python.exe" } else { "bin/python" });
            (name.to_string_lossy().into_owned(), FOLDER_VARIABLE, Path::new(""))
        } else {
            ("python3".to_string(), "PATH", Path::new(""))
        };
        match find(&name, folder) {
            Program::Found(path) => Ok(path),
            Program::NotExecutable(path) => {
                Err(OperatorError::Input(format!("expected a Python by {whose}, but {} is no executable file", path.display())))
            }
            Program::Missing => Err(OperatorError::Input(format!(
                "expected a Python, but {name} (by {whose}) is not there; name one with `interpreter:` or {OWN_VARIABLE}"
            ))),
        }
    }

    /// Asks the interpreter about the module.
    fn probe(&self) -> Result<Probed, OperatorError> {
        let path = self.interpreter()?;
        let failed = |problem: String| OperatorError::Input(format!("{}: {problem}", path.display()));
        let mut command = process::command(&path, &self.reward.directory);
        command.args(["-c", PROBE, &self.settings()?]);
        let (mut process, input, mut output) = Process::start(command).map_err(|error| failed(format!("cannot be started: {error}")))?;
        drop(input);
        let (sender, said) = mpsc::channel();
        let read = move || {
            let mut text = String::new();
            drop(sender.send(output.read_to_string(&mut text).map(|_| text)));
        };
        std::thread::Builder::new().spawn(read).map_err(|error| failed(error.to_string()))?;
        let said = said.recv_timeout(PROBE_LIMIT).map_err(|_| failed(format!("no answer within {} seconds", PROBE_LIMIT.as_secs())))?;
        let probed = said.ok().and_then(|text| serde_json::from_str(text.lines().last().unwrap_or_default()).ok());
        probed.ok_or_else(|| {
            process.end_within(Duration::from_secs(1));
            failed(format!("expected a Python, found a program that says: {}", process.last_words()))
        })
    }
}
