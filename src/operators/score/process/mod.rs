//! Scores from processes: commands of the user's, and Python functions.
//!
//! A process lives for the whole node and is asked batch by batch. If it fails, another one takes
//! its place: first for the unanswered responses one by one, so that a response on which every
//! process fails is found and gets an error. The others keep their rewards.
//!
//! Knows batches and failures. The formats and the Python adapter are files of their own.

mod answers;
mod in_hand;
mod lines;
mod python;
mod stream;
mod worker;

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use arrow::ipc::writer::StreamEncoder;
use serde_json::Value;

use super::response::{ResponseToScore, Score, Scores};
use super::score_error::ScoreError;
use super::{Context, OperatorError};
use crate::pipeline::graph::Process as Reward;
use crate::pipeline::spec::input::{Program, RowFormat};
use crate::process::{self, find};
use crate::remote::each;
use in_hand::InHand;
use python::Function;
use worker::{Asked, End, Worker};

/// Name of this module in internal errors.
const PLACE: &str = "operators::score::process";

/// Failures in a row, without any answer between them, that end the node.
const MOST_FAILURES: u32 = 30;

/// The characters shown of a command.
const SHOWN_CHARACTERS: usize = 80;

/// The time for a process to end by itself after the last batch.
const GRACE: Duration = Duration::from_secs(2);

/// The end of an Arrow IPC stream.
const END_OF_STREAM: [u8; 8] = [0xff, 0xff, 0xff, 0xff, 0, 0, 0, 0];

/// A reward by processes.
pub(super) struct ProcessScorer<'a> {
    reward: &'a Reward,
    /// The name of the reward in errors of its values.
    scorer: &'static str,
    format: RowFormat,
    /// The table of prompts.
    prompts: Vec<RecordBatch>,
    /// The columns of responses in Arrow's format.
    schema: Option<SchemaRef>,
    /// The processes without a batch in hand.
    idle: Mutex<Vec<(Worker, Option<StreamEncoder>)>>,
    /// Whether any response ever got an answer.
    answered: AtomicBool,
    /// Failures since the last answer.
    failures: AtomicU32,
}

impl<'a> ProcessScorer<'a> {
    /// Checks the files; starts no process yet. `prompts` are the table of prompts.
    pub(super) fn open(reward: &'a Reward, prompts: &[RecordBatch]) -> Result<Self, OperatorError> {
        let changed = reward.changed_file().map_err(|error| OperatorError::Input(format!("cannot read a file of the reward: {error}")))?;
        if let Some(file) = changed {
            return Err(OperatorError::Input(format!(
                "{}: the file has changed since this run began, so its rewards would not be those of the plan; run the same command again",
                file.name
            )));
        }
        let (scorer, format) = match &reward.settings.program {
            Program::Command { format, .. } => ("reward command", *format),
            Program::Python { .. } => ("reward function", RowFormat::Json),
        };
        let schema = match (format, prompts.first()) {
            (RowFormat::Arrow, Some(batch)) => Some(stream::schema(&batch.schema())),
            _ => None,
        };
        Ok(Self {
            reward,
            scorer,
            format,
            prompts: prompts.to_vec(),
            schema,
            idle: Mutex::default(),
            answered: AtomicBool::new(false),
            failures: AtomicU32::new(0),
        })
    }

    /// One score for each response. A response on which every process fails has an error.
    ///
    /// # Errors
    /// The process cannot be started, has never answered or fails again and again, or says that
    /// nothing can be scored.
    pub(super) fn score(&self, context: &Context, responses: &[ResponseToScore]) -> Result<Scores, OperatorError> {
        let settings = &self.reward.settings;
        let share = responses.len().div_ceil(settings.workers as usize);
        let batches: Vec<&[ResponseToScore]> = responses.chunks(share.min(settings.batch_size as usize).max(1)).collect();
        let broken = AtomicBool::new(false);
        let stopped = || (context.stopped)() || broken.load(Ordering::SeqCst);
        let mut results: BTreeMap<usize, Result<Scores, OperatorError>> = BTreeMap::new();
        let take = |index, result: Result<Scores, OperatorError>| {
            if result.is_err() {
                // The other processes need not finish: their scores would be lost with the part.
                broken.store(true, Ordering::SeqCst);
            }
            results.insert(index, result);
            ControlFlow::Continue(())
        };
        each(&batches, settings.workers as usize, &stopped, |batch| self.batch(batch, &stopped), take);
        if broken.load(Ordering::SeqCst) || results.len() < batches.len() {
            self.idle.lock().unwrap_or_else(PoisonError::into_inner).clear();
        }
        let mut is_stopped = results.len() < batches.len();
        let mut scores = Vec::with_capacity(responses.len());
        for result in results.into_values() {
            match result {
                Ok(some) => scores.extend(some),
                // Another batch may have the reason.
                Err(OperatorError::Stopped) => is_stopped = true,
                Err(error) => return Err(error),
            }
        }
        if is_stopped { Err(OperatorError::Stopped) } else { Ok(scores) }
    }

    /// The scores of a batch.
    fn batch(&self, responses: &[ResponseToScore], stopped: &(dyn Fn() -> bool + Sync)) -> Result<Scores, OperatorError> {
        let mut scores: Vec<Option<Result<Score, ScoreError>>> = vec![None; responses.len()];
        let mut alone = responses.len() == 1;
        // Failures on the first unanswered response, with nothing else in hand.
        let mut failures = 0;
        loop {
            let open = scores.iter().enumerate().filter(|(_, score)| score.is_none()).map(|(index, _)| index);
            let open: Vec<usize> = if alone { open.take(1).collect() } else { open.collect() };
            let Some(first) = open.first().copied() else { break };
            let in_hand: Vec<InHand> = open.iter().filter_map(|index| responses.get(*index)).map(InHand::new).collect();
            let Asked { answers, end } = self.ask(&in_hand, stopped)?;
            if !answers.is_empty() {
                self.answered.store(true, Ordering::SeqCst);
                self.failures.store(0, Ordering::SeqCst);
            }
            for (place, score) in answers {
                if let Some(slot) = open.get(place).and_then(|index| scores.get_mut(*index)) {
                    *slot = Some(score);
                }
            }
            match end {
                End::Complete => failures = 0,
                End::Gone => {}
                End::Stopped => return Err(OperatorError::Stopped),
                End::Fatal(problem) => return Err(OperatorError::Input(format!("{}: {problem}", self.name()))),
                End::Failed(problem) => {
                    let in_a_row = self.failures.fetch_add(1, Ordering::SeqCst) + 1;
                    failures += u32::from(alone);
                    alone = true;
                    if in_a_row >= MOST_FAILURES {
                        return Err(self.gave_up(&format!("failed {in_a_row} times without an answer between them"), &problem));
                    }
                    if failures > self.reward.settings.retries {
                        if !self.answered.load(Ordering::SeqCst) {
                            return Err(self.gave_up(&format!("never answered in {in_a_row} attempts"), &problem));
                        }
                        let error = ScoreError::Other(format!("{}: {} attempts failed on this response: {problem}", self.scorer, failures));
                        if let Some(slot) = scores.get_mut(first) {
                            *slot = Some(Err(error));
                        }
                        failures = 0;
                    }
                }
            }
        }
        Ok(scores.into_iter().flatten().collect())
    }

    fn gave_up(&self, how: &str, problem: &str) -> OperatorError {
        OperatorError::Failed(format!("{} {how}; the last time: {problem}", self.name()))
    }

    /// Asks an idle process, or a new one.
    fn ask(&self, in_hand: &[InHand], stopped: &(dyn Fn() -> bool + Sync)) -> Result<Asked, OperatorError> {
        let idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner).pop();
        let (mut worker, mut encoder) = idle.map_or_else(|| self.start(), Ok)?;
        let bytes = match (&self.schema, &mut encoder) {
            (Some(schema), Some(encoder)) => stream::joined(encoder.encode(&stream::batch(schema, &self.prompts, in_hand)?))?,
            _ => lines::lines(&self.prompts, in_hand)?,
        };
        let ids: Vec<&str> = in_hand.iter().map(|item| item.id.as_str()).collect();
        let timeout = Duration::try_from_secs_f64(self.reward.settings.timeout_seconds).unwrap_or(Duration::MAX);
        let asked = worker.ask(bytes, &ids, timeout, stopped);
        // Any other process is ended here.
        if matches!(asked.end, End::Complete) {
            self.idle.lock().unwrap_or_else(PoisonError::into_inner).push((worker, encoder));
        }
        Ok(asked)
    }

    fn start(&self) -> Result<(Worker, Option<StreamEncoder>), OperatorError> {
        let command = command(self.reward)?;
        let encoder = self.schema.as_ref().map(|schema| StreamEncoder::try_new(schema)).transpose()?;
        let started = Worker::start(command, self.scorer, self.format);
        let worker = started.map_err(|error| OperatorError::Failed(format!("{}: cannot be started: {error}", self.name())))?;
        Ok((worker, encoder))
    }

    /// The program, for errors.
    fn name(&self) -> String {
        match &self.reward.settings.program {
            Program::Command { command, .. } => {
                let words: Vec<&str> = command.iter().flat_map(|word| word.value.split_whitespace()).collect();
                let whole = words.join(" ");
                let more = if whole.chars().count() > SHOWN_CHARACTERS { "…" } else { "" };
                format!("`{}{more}`", whole.chars().take(SHOWN_CHARACTERS).collect::<String>())
            }
            Program::Python { function, .. } => function.value.clone(),
        }
    }
}

impl Drop for ProcessScorer<'_> {
    /// Lets the processes end by themselves.
    fn drop(&mut self) {
        let end = if self.schema.is_some() { END_OF_STREAM.to_vec() } else { Vec::new() };
        for (worker, _) in self.idle.get_mut().unwrap_or_else(PoisonError::into_inner).drain(..) {
            worker.finish(end.clone(), GRACE);
        }
    }
}

/// The command of a process.
fn command(reward: &Reward) -> Result<Command, OperatorError> {
    match &reward.settings.program {
        Program::Command { command, .. } => {
            let Some((program, arguments)) = command.split_first() else {
                return Err(OperatorError::internal(PLACE, "a command has no program"));
            };
            let process::Program::Found(path) = find(&program.value, &reward.directory) else {
                return Err(OperatorError::Input(format!("expected a program, but \"{}\" is no longer there", program.value)));
            };
            let mut command = process::command(&path, &reward.directory);
            command.args(arguments.iter().map(|argument| &argument.value));
            Ok(command)
        }
        Program::Python { .. } => match function(reward) {
            Some(function) => function.command(),
            None => Err(OperatorError::internal(PLACE, "a Python function is none")),
        },
    }
}

fn function(reward: &Reward) -> Option<Function<'_>> {
    match &reward.settings.program {
        Program::Python { function, arguments, interpreter } => {
            Some(Function { reward, written: &function.value, arguments: arguments.as_ref(), interpreter: interpreter.as_ref() })
        }
        Program::Command { .. } => None,
    }
}

/// Checks a process without starting it; of a Python function the interpreter, the module and the
/// name. Returns a note for the user.
///
/// # Errors
/// The interpreter, the module or the function is not there.
pub fn check_process(reward: &Reward) -> Result<Option<String>, OperatorError> {
    if let Some(function) = function(reward) {
        return function.check().map(|()| None);
    }
    let Program::Command { command, .. } = &reward.settings.program else { return Ok(None) };
    let is_listed = |path: &std::path::Path| {
        let same = |file: &std::path::Path| matches!((file.canonicalize(), path.canonicalize()), (Ok(file), Ok(path)) if file == path);
        reward.files.iter().any(|file| same(&file.path))
    };
    let is_own = |word: &&str| {
        let path = reward.directory.join(word);
        std::path::Path::new(word).is_relative() && word.contains(['/', '.']) && path.is_file() && !is_listed(&path)
    };
    let unlisted = command.iter().map(|word| word.value.as_str()).find(is_own);
    Ok(unlisted
        .map(|name| format!("the reward reads {name}, but its `files` do not name it: after a change of it, responses keep their rewards")))
}

/// What a process's results depend on besides its settings and files.
///
/// # Errors
/// There is no interpreter for a Python function.
pub fn process_identity(reward: &Reward) -> Result<Value, OperatorError> {
    function(reward).map_or(Ok(Value::Null), |function| function.identity())
}
