//! A started process: takes the bytes of a batch, gives back answers, and says how it failed.
//!
//! Knows the order of bytes and answers, not the reaction to a failure.

use std::collections::HashMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::process::{ChildStdin, ChildStdout, Command, ExitStatus};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender, SyncSender, TryRecvError};
use std::time::{Duration, Instant};

use super::super::Score;
use super::super::score_error::ScoreError;
use super::answers::{Word, parse};
use super::stream::AnswerStream;
use crate::pipeline::spec::input::RowFormat;
use crate::process::Process;

/// The interval between two looks for a stop.
const LOOK: Duration = Duration::from_millis(25);
/// Answers that wait to be taken.
const MOST_WAITING: usize = 1024;
/// The longest line of answers.
const MOST_LINE_BYTES: u64 = 16 << 20;
/// The wait for the end of a process that has closed its output.
const LAST_MOMENT: Duration = Duration::from_secs(2);

/// A running process of a reward.
pub(super) struct Worker {
    process: Process,
    /// To the thread that writes to the process; none after the last batch.
    rows: Option<Sender<Vec<u8>>>,
    /// From the thread that reads its answers. Disconnected at the end of its output.
    words: Receiver<Result<Vec<Word>, String>>,
    /// The name of the reward in errors of its values.
    scorer: &'static str,
    /// Whether it has answered a batch.
    used: bool,
}

/// The result of a batch.
pub(super) struct Asked {
    /// The answers so far, by the places of their responses in the batch.
    pub(super) answers: HashMap<usize, Result<Score, ScoreError>>,
    pub(super) end: End,
}

/// How a batch ended.
pub(super) enum End {
    /// With an answer for each response.
    Complete,
    /// The run was asked to stop.
    Stopped,
    /// The process had ended by itself before the batch; another one may take it.
    Gone,
    /// The process says that nothing can be scored.
    Fatal(String),
    /// The process failed and is ended; with the end of its standard error.
    Failed(String),
}

impl Worker {
    /// Starts a process.
    ///
    /// # Errors
    /// The system's.
    pub(super) fn start(command: Command, scorer: &'static str, format: RowFormat) -> std::io::Result<Self> {
        let (process, input, output) = Process::start(command)?;
        let (rows, written) = mpsc::channel();
        let (sender, words) = mpsc::sync_channel(MOST_WAITING);
        // A process that does not read must not hold up the one that waits for it.
        std::thread::Builder::new().spawn(move || write(input, &written))?;
        std::thread::Builder::new().spawn(move || match format {
            RowFormat::Json => read_lines(output, scorer, &sender),
            RowFormat::Arrow => read_stream(output, scorer, &sender),
        })?;
        Ok(Self { process, rows: Some(rows), words, scorer, used: false })
    }

    /// Sends the bytes of a batch and waits for one answer to each of `ids`. Between two answers
    /// at most `timeout` goes by.
    pub(super) fn ask(&mut self, bytes: Vec<u8>, ids: &[&str], timeout: Duration, stopped: &(dyn Fn() -> bool + Sync)) -> Asked {
        let places: HashMap<&str, usize> = ids.iter().enumerate().map(|(place, id)| (*id, place)).collect();
        let mut answers = HashMap::new();
        match self.words.try_recv() {
            Err(TryRecvError::Empty) => {}
            Err(TryRecvError::Disconnected) if self.used => return Asked { answers, end: End::Gone },
            Err(TryRecvError::Disconnected) => return Asked { answers, end: self.ended() },
            Ok(Ok(words)) => {
                let end = self.failed(&match words.into_iter().next() {
                    Some(Word::Answer(id, _)) => format!("expected no answer between two batches, found another one for the id {id}"),
                    Some(Word::Fatal(text)) => text,
                    None => "expected no answer between two batches, found an empty one".to_string(),
                });
                return Asked { answers, end };
            }
            Ok(Err(problem)) => return Asked { answers, end: self.failed(&problem) },
        }
        if let Some(rows) = &self.rows {
            // The thread is gone if the process reads no more; the wait for its answers says so.
            let _ = rows.send(bytes);
        }
        let mut last = Instant::now();
        while answers.len() < ids.len() {
            let words = match self.words.recv_timeout(LOOK) {
                Ok(Ok(words)) => words,
                Ok(Err(problem)) => return Asked { answers, end: self.failed(&problem) },
                Err(RecvTimeoutError::Disconnected) => return Asked { answers, end: self.ended() },
                Err(RecvTimeoutError::Timeout) if stopped() => return Asked { answers, end: End::Stopped },
                Err(RecvTimeoutError::Timeout) if last.elapsed() < timeout => continue,
                Err(RecvTimeoutError::Timeout) => {
                    let problem = format!("expected an answer within {} seconds, found none", timeout.as_secs_f64());
                    return Asked { answers, end: self.failed(&problem) };
                }
            };
            last = Instant::now();
            for word in words {
                match word {
                    Word::Fatal(text) => return Asked { answers, end: self.fatal(text) },
                    Word::Answer(id, score) => {
                        let Some(place) = places.get(id.as_str()) else {
                            let problem = format!("expected the ids of the batch, found an answer for the id {id:?}");
                            return Asked { answers, end: self.failed(&problem) };
                        };
                        if answers.insert(*place, score).is_some() {
                            // Nobody knows the right one of the two.
                            let problem = format!("expected one answer for each id, found two for {id:?}");
                            answers.insert(*place, Err(ScoreError::Other(format!("{}: {problem}", self.scorer))));
                            return Asked { answers, end: self.failed(&problem) };
                        }
                    }
                }
            }
        }
        self.used = true;
        Asked { answers, end: End::Complete }
    }

    /// The end of a process whose output has ended.
    fn ended(&mut self) -> End {
        let status = self.process.end_within(LAST_MOMENT);
        let problem = status.map_or("it closed its standard output before its answers".to_string(), |status: ExitStatus| {
            format!("it ended with {status} before its answers")
        });
        self.failed(&problem)
    }

    /// Ends a process that gave up.
    fn fatal(&mut self, text: String) -> End {
        self.process.end();
        match self.process.last_words() {
            words if words.is_empty() => End::Fatal(text),
            words => End::Fatal(format!("{text}; the end of its standard error:\n{words}")),
        }
    }

    /// Ends a process that failed.
    fn failed(&mut self, problem: &str) -> End {
        End::Failed(self.with_last_words(problem))
    }

    /// Ends the process. The problem with the end of its standard error.
    fn with_last_words(&mut self, problem: &str) -> String {
        self.process.end();
        match self.process.last_words() {
            words if words.is_empty() => format!("{problem}; nothing is on its standard error"),
            words => format!("{problem}; the end of its standard error:\n{words}"),
        }
    }

    /// Lets the process end by itself within `limit`, after `bytes` as its last input.
    pub(super) fn finish(mut self, bytes: Vec<u8>, limit: Duration) {
        if let Some(rows) = self.rows.take() {
            let _ = rows.send(bytes);
        }
        // The end of its input, once the thread has written the rest.
        self.process.end_within(limit);
    }
}

/// Writes batches until there are no more or the process reads no more.
fn write(mut input: ChildStdin, batches: &Receiver<Vec<u8>>) {
    for bytes in batches {
        if input.write_all(&bytes).and_then(|()| input.flush()).is_err() {
            return;
        }
    }
}

/// Reads lines of answers until the end or the first fault.
fn read_lines(output: ChildStdout, scorer: &str, sender: &SyncSender<Result<Vec<Word>, String>>) {
    let mut output = BufReader::new(output);
    let mut line = Vec::new();
    loop {
        line.clear();
        let read = output.by_ref().take(MOST_LINE_BYTES).read_until(b'\n', &mut line);
        let is_whole = line.ends_with(b"\n");
        let word = match read {
            Ok(0) | Err(_) => return,
            Ok(_) if line.iter().all(u8::is_ascii_whitespace) => continue,
            Ok(_) if !is_whole && line.len() as u64 >= MOST_LINE_BYTES => {
                Err(format!("expected lines of at most {MOST_LINE_BYTES} bytes on standard output, found a longer one"))
            }
            Ok(_) => match parse(scorer, &line) {
                // A process that dies leaves a part of a line.
                Err(_) if !is_whole => return,
                word => word,
            },
        };
        let is_wrong = word.is_err();
        if sender.send(word.map(|word| vec![word])).is_err() || is_wrong {
            return;
        }
    }
}

/// Reads batches of answers until the end or the first fault.
fn read_stream(output: ChildStdout, scorer: &str, sender: &SyncSender<Result<Vec<Word>, String>>) {
    let mut stream = AnswerStream::new(output);
    loop {
        let Some(words) = stream.next(scorer).transpose() else { return };
        let is_wrong = words.is_err();
        if sender.send(words).is_err() || is_wrong {
            return;
        }
    }
}
