//! A program of the user's that loads the policy into a server.
//!
//! It ends with this process. Knows no server.

use std::path::Path;
use std::time::{Duration, Instant};

use super::super::super::OperatorError;
use super::job::{ServerJob, seconds};
use crate::pipeline::position::At;
use crate::pipeline::spec::command::Argument;
use crate::process::{self, Process, Tail};
use crate::remote::Stopped;

/// The interval between two looks at the program.
const LOOK: Duration = Duration::from_millis(25);

/// Runs the program to its end for the server at `url`.
///
/// # Errors
/// It cannot be started, it ends with an error, it takes too long, or the run is asked to stop.
pub(super) fn run(
    job: &ServerJob,
    words: &[At<Argument>],
    url: &str,
    model: &Path,
    version: &str,
    stopped: Stopped,
) -> Result<(), OperatorError> {
    let (context, folder) = (job.context, &job.context.graph.folder);
    let mut words = words.iter().map(|word| word.value.0.as_str());
    let name = words.next().unwrap_or_default();
    let failed = |problem: String| OperatorError::Failed(format!("update: the program {name} for {url} {problem}"));
    let process::Program::Found(program) = process::find(name, folder) else {
        return Err(failed("is not there, or not executable, any more".to_string()));
    };
    let mut command = process::command(&program, folder);
    command.args(words).env("OPTUNE_MODEL", model).env("OPTUNE_URL", url).env("OPTUNE_VERSION", version);
    command.env("OPTUNE_NODE", &context.task.name).env("OPTUNE_ITERATION", context.task.iteration.unwrap_or(0).to_string());
    let (mut process, input, output) = Process::start(command).map_err(|error| failed(format!("cannot be started: {error}")))?;
    drop(input);
    // A full pipe would hold the program.
    let _said = Tail::of(output).map_err(|error| failed(format!("cannot be listened to: {error}")))?;
    let begun = Instant::now();
    let limit = seconds(job.engine.serve_timeout_seconds);
    let status = loop {
        match process.ended() {
            Ok(Some(status)) => break status,
            Ok(None) => {}
            Err(error) => return Err(failed(format!("cannot be waited for: {error}"))),
        }
        if stopped() {
            return Err(OperatorError::Stopped);
        }
        if begun.elapsed() >= limit {
            return Err(failed(format!("did not end within {} seconds", limit.as_secs_f64())));
        }
        std::thread::sleep(LOOK);
    };
    process.end();
    if status.success() {
        return Ok(());
    }
    let words = process.last_words();
    let words = if words.is_empty() { "nothing on standard error".to_string() } else { words };
    Err(failed(format!("ended with {status}: {words}")))
}
