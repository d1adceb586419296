//! One run of a program: alone in its work folder, with its output in log files, to its end, to a
//! time limit or to a stop.
//!
//! The program's group ends with this process, even if the system kills it. The program's standard
//! input is the locked file of its work folder, empty. So the lock lasts as long as the program:
//! the next one waits for it. Knows no output of the program but its lines about its progress.

use std::ffi::OsString;
use std::fs::TryLockError;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Child, ExitStatus};
use std::time::{Duration, Instant};

use super::super::{Context, OperatorError};
use super::environment::{INPUT, SETTINGS};
use super::progress_lines::ProgressLines;
use crate::disk;
use crate::pipeline::spec::command::Program;
use crate::process::{self, Group};
use crate::store::{Event, EventKind, StoreError};

/// The interval between two looks at the program.
const LOOK: Duration = Duration::from_millis(50);

/// The time for a program to end by itself when it is asked to.
const GRACE: Duration = Duration::from_secs(10);

/// The time to wait for the end of a program of a killed run.
const PATIENCE: Duration = Duration::from_secs(10);

/// The shown length of standard error in an error, from its end, in bytes.
const SHOWN_BYTES: usize = 2000;

/// The file in a work folder that is locked while its program runs.
const LOCK: &str = "lock";

/// A program's place, without any other program in it.
pub(super) struct Alone<'a> {
    context: &'a Context<'a>,
    lock: disk::File,
}

impl<'a> Alone<'a> {
    /// Takes the work folder, after the end of the program of a killed run.
    ///
    /// # Errors
    /// That program does not end.
    pub(super) fn new(context: &'a Context<'a>, folder: &'a Path) -> Result<Self, OperatorError> {
        let path = folder.join(LOCK);
        let lock = disk::File::open(&path).map_err(StoreError::io("open", &path))?;
        let start = Instant::now();
        loop {
            match lock.as_system().try_lock() {
                Ok(()) => return Ok(Self { context, lock }),
                Err(TryLockError::Error(error)) => return Err(StoreError::io("lock", &path)(error).into()),
                Err(TryLockError::WouldBlock) => {}
            }
            if start.elapsed() >= PATIENCE {
                let problem = format!("a program of an earlier run still works in {}; end it first", folder.display());
                return Err(OperatorError::Failed(problem));
            }
            context.check_stopped()?;
            std::thread::sleep(LOOK);
        }
    }

    /// Runs the program to its end with these variables.
    ///
    /// # Errors
    /// It cannot be started, it ends with an error, it takes too long, or the run is asked to stop.
    pub(super) fn run(self, program: Program<'_>, variables: &[(String, OsString)]) -> Result<(), OperatorError> {
        let name = program.words.first().map_or("", |word| &word.value.0);
        let said = Log::open(self.context, "stdout")?;
        let errors = Log::open(self.context, "stderr")?;
        let (mut child, mut group) = self
            .start(program, variables, &said, &errors)
            .map_err(|problem| OperatorError::Failed(format!("the program {name} cannot be started: {problem}")))?;
        let label = self.context.task.label();
        self.context.progress.started(&label, "steps", 0, 0);
        let mut lines = ProgressLines::new(&said.path, said.begin);
        let start = Instant::now();
        let status = loop {
            let ended = child.try_wait();
            lines.tell(&label, self.context.progress);
            match ended {
                Ok(Some(status)) => break status,
                Ok(None) => {}
                Err(error) => {
                    end(&mut child, &mut group);
                    return Err(OperatorError::Failed(format!("cannot wait for the program {name}: {error}")));
                }
            }
            if (self.context.stopped)() {
                end(&mut child, &mut group);
                return Err(OperatorError::Stopped);
            }
            if let Some(limit) = program.timeout_seconds.filter(|limit| start.elapsed().as_secs_f64() >= *limit) {
                end(&mut child, &mut group);
                let problem = format!("the program {name} did not end within {limit} seconds; {}", errors.end());
                return Err(OperatorError::Failed(problem));
            }
            std::thread::sleep(LOOK);
        };
        if status.success() {
            return Ok(());
        }
        Err(OperatorError::Failed(format!("the program {name} ended with {}; {}", describe(status), errors.end())))
    }

    /// Starts the program in a group of its own: Ctrl-C at the terminal reaches this process, and
    /// this process asks the whole group to end.
    fn start(&self, program: Program<'_>, variables: &[(String, OsString)], said: &Log, errors: &Log) -> std::io::Result<(Child, Group)> {
        let mut words = program.words.iter().map(|argument| &argument.value.0);
        let name = words.next().map_or("", String::as_str);
        let folder = &program.place.folder;
        let process::Program::Found(program) = process::find(name, folder) else {
            return Err(std::io::Error::new(std::io::ErrorKind::NotFound, "it is not there, or not executable, any more"));
        };
        let mut command = process::command(&program, folder);
        command.args(words);
        // Of a program that runs this one.
        let is_of_node = |name: &str| name.starts_with(INPUT) || name == SETTINGS;
        for (name, _) in std::env::vars_os().filter(|(name, _)| is_of_node(&name.to_string_lossy())) {
            command.env_remove(name);
        }
        command.envs(variables.iter().map(|(name, value)| (name, value)));
        command.stdin(self.lock.as_system().try_clone()?).stdout(said.file()?).stderr(errors.file()?);
        let mut group = Group::new()?;
        let child = group.start(&mut command)?;
        Ok((child, group))
    }
}

/// The log of one of a program's streams: what this program says comes after what earlier ones
/// said.
struct Log {
    path: PathBuf,
    file: disk::File,
    /// The length of the file before this program.
    begin: u64,
}

impl Log {
    fn open(context: &Context, stream: &str) -> Result<Self, OperatorError> {
        let path = context.run.log(&context.task.output_key(), stream)?;
        let failed = |error| StoreError::io("write", &path)(error);
        let mut file = disk::File::open(&path).map_err(failed)?;
        let now = Event::new(EventKind::Started, &context.task.name, context.task.iteration).at;
        let now = chrono::DateTime::from_timestamp_millis(now).unwrap_or_default();
        let line = format!("--- {} begins at {}\n", context.task.label(), now.format("%Y-%m-%d %H:%M:%S UTC"));
        file.write_all(line.as_bytes()).map_err(failed)?;
        let begin = file.as_system().metadata().map_err(failed)?.len();
        Ok(Self { path, file, begin })
    }

    fn file(&self) -> std::io::Result<std::fs::File> {
        self.file.as_system().try_clone()
    }

    /// The end of what this program said, for an error, and the place of the rest.
    fn end(&self) -> String {
        let bytes = disk::read(&self.path).unwrap_or_default();
        let own = bytes.get(usize::try_from(self.begin).unwrap_or(usize::MAX)..).unwrap_or_default();
        let words = String::from_utf8_lossy(own.get(own.len().saturating_sub(SHOWN_BYTES)..).unwrap_or_default()).trim().to_string();
        let log = self.path.display();
        if words.is_empty() {
            format!("its standard error is empty ({log})")
        } else {
            format!("the end of its standard error, from {log}:\n{words}")
        }
    }
}

/// A program's end in words.
fn describe(status: ExitStatus) -> String {
    #[cfg(unix)]
    if let Some(signal) = std::os::unix::process::ExitStatusExt::signal(&status) {
        let hint = if signal == 9 { ", which the system sends when memory runs out" } else { "" };
        return format!("signal {signal}{hint}");
    }
    status.code().map_or_else(|| status.to_string(), |code| format!("exit code {code}"))
}

/// Asks the program and its children to end, and ends them after [`GRACE`].
fn end(child: &mut Child, group: &mut Group) {
    // Without a leader there is nobody left to ask.
    let _ = group.ask_to_end();
    let start = Instant::now();
    while start.elapsed() < GRACE && matches!(child.try_wait(), Ok(None)) {
        std::thread::sleep(LOOK);
    }
    // Children of the program may be left, whether it ended or not.
    group.end();
    // Where there are no groups. A dead process cannot be killed, and this is no fault.
    let _ = child.kill();
    let _ = child.wait();
}
