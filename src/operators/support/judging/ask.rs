//! Asks open questions, a few at a time, and keeps their answers in small parts.
//!
//! Knows when to stop asking, not how an answer is read: callers bring that.

use std::collections::{HashMap, HashSet};
use std::fmt;
use std::ops::ControlFlow;

use super::{Judging, Key};
use crate::operators::OperatorError;
use crate::operators::support::statistics;
use crate::remote::{Attempt, Place, Questions, RemoteError, Reply};
use crate::tables::{TableKind, judge_answers};

/// Answers in one file of the store at least. A kill loses at most so many, and those in flight.
const KEPT_TOGETHER: usize = 8;

/// The most files that one call adds.
const MOST_FILES: usize = 512;

/// What became of some questions.
#[derive(Debug, Default)]
pub struct Asked {
    /// The questions without a usable answer, with the reason.
    pub failed: HashMap<Key, String>,
    /// Tokens of this call.
    pub cost: Cost,
}

/// Tokens and questions.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Cost {
    /// Questions that were answered.
    pub questions: i64,
    /// Tokens of the questions.
    pub prompt_tokens: i64,
    /// Tokens of the answers.
    pub completion_tokens: i64,
}

impl Cost {
    /// Adds an answer's tokens.
    pub fn add(&mut self, prompt_tokens: i64, completion_tokens: i64) {
        self.questions += 1;
        self.prompt_tokens += prompt_tokens;
        self.completion_tokens += completion_tokens;
    }

    /// Both costs together.
    pub fn and(self, other: Self) -> Self {
        Self {
            questions: self.questions + other.questions,
            prompt_tokens: self.prompt_tokens + other.prompt_tokens,
            completion_tokens: self.completion_tokens + other.completion_tokens,
        }
    }
}

impl fmt::Display for Cost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { questions, prompt_tokens, completion_tokens } = self;
        write!(f, "judge asked {questions} times, {prompt_tokens} + {completion_tokens} tokens")
    }
}

impl Judging<'_> {
    /// Asks the questions without a known answer. `read` tells whether an answer can be used, or
    /// why not. `done` is called after each answer, with the tokens so far.
    ///
    /// # Errors
    /// The server refuses every question (a wrong key, no such model), or the run was asked to
    /// stop. Usable answers are kept in any case.
    pub fn ask(
        &mut self,
        questions: &[(Key, String)],
        read: &(dyn Fn(&judge_answers::Row, bool) -> Result<(), String> + Sync),
        done: &mut dyn FnMut(&Key, Cost),
    ) -> Result<Asked, OperatorError> {
        let mut seen = HashSet::new();
        let open: Vec<&(Key, String)> = questions.iter().filter(|(key, _)| !self.known.contains_key(key) && seen.insert(*key)).collect();
        let together = KEPT_TOGETHER.max(open.len().div_ceil(MOST_FILES));
        let mut asked = Asked::default();
        let mut fresh: Vec<judge_answers::Row> = Vec::new();
        let mut kept = 0;
        let mut ended = None;
        let stopped = self.context.stopped;
        let has_others = self.chats.len() > 1;
        let request = |index: usize, item: &&(Key, String)| {
            let Some(chat) = self.chats.get(index) else { return Attempt::Stopped };
            match chat.ask(&self.request(&item.1), stopped) {
                Err(RemoteError::Stopped) => Attempt::Stopped,
                Err(error) if error.is_transient() || (has_others && refuses_all(&error)) => {
                    Attempt::Failed { wait: error.wait(), problem: error.to_string(), last: Err(error) }
                }
                reply => Attempt::Answered(reply),
            }
        };
        let places = (0..open.len()).map(|question| Place { group: question, prefix: question as u64 }).collect();
        let questions = Questions { items: &open, places, threads: self.judge.concurrency as usize };
        let result = self.fleet.each(
            questions,
            stopped,
            |_, _| Ok(()),
            request,
            |index, reply| {
                let Some((key, _)) = open.get(index) else { return ControlFlow::Break(()) };
                match reply {
                    Err(RemoteError::Stopped) => return ControlFlow::Continue(()),
                    Err(error) if refuses_all(&error) => {
                        ended = Some(OperatorError::from(error));
                        return ControlFlow::Break(());
                    }
                    Err(error) => drop(asked.failed.insert(*key, error.to_string())),
                    Ok(reply) => {
                        asked.cost.add(reply.prompt_tokens, reply.completion_tokens);
                        let is_cut = reply.is_cut;
                        let row = row(*key, reply);
                        match read(&row, is_cut) {
                            Ok(()) => fresh.push(row),
                            Err(problem) => drop(asked.failed.insert(*key, problem)),
                        }
                    }
                }
                done(key, asked.cost);
                if fresh.len() - kept < together {
                    return ControlFlow::Continue(());
                }
                let result = self.keep(fresh.get(kept..).unwrap_or_default());
                kept = fresh.len();
                match result {
                    Ok(()) => ControlFlow::Continue(()),
                    Err(error) => {
                        ended = Some(error);
                        ControlFlow::Break(())
                    }
                }
            },
        );
        self.keep(fresh.get(kept..).unwrap_or_default())?;
        self.known.extend(fresh.into_iter().map(|row| (row.key, row)));
        ended.map_or(Ok(()), Err)?;
        self.context.check_stopped()?;
        result.map_err(|absences| statistics::nobody(&self.fleet, &absences))?;
        Ok(asked)
    }

    /// Adds answers to the store.
    fn keep(&self, fresh: &[judge_answers::Row]) -> Result<(), OperatorError> {
        if fresh.is_empty() {
            return Ok(());
        }
        let mut rows = fresh.to_vec();
        rows.sort_by_key(|row| row.key);
        Ok(self.context.run.memo().add(TableKind::JudgeAnswers, &self.source, &judge_answers::batch(&rows))?)
    }
}

fn row(key: Key, reply: Reply) -> judge_answers::Row {
    let Reply { text, first_token, prompt_tokens, completion_tokens, .. } = reply;
    judge_answers::Row { key, text, first_token, prompt_tokens, completion_tokens }
}

/// Whether the server would answer every question so: it knows neither the key, nor the model, nor
/// the path.
fn refuses_all(error: &RemoteError) -> bool {
    error.is_input() || matches!(error, RemoteError::Status { status: 401 | 403 | 404 | 405, .. })
}
