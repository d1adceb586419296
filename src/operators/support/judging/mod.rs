//! Questions to a judge: each is written from a template, asked once for all runs, and its answer
//! kept beside the runs.
//!
//! An answer that cannot be read is not kept: the next run asks again. Knows neither rewards nor
//! win rates.

mod answer;
mod ask;
mod subjects;

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use super::{Context, OperatorError, statistics};
use crate::dag::fingerprint::Fingerprint;
use crate::model::{Fields, RowTemplate};
use crate::pipeline::spec::judge::{Judge, Question, Read};
use crate::remote::{Chat, ChatRequest, Client, Fleet, Patience};
use crate::tables::{TableKind, judge_answers};

pub use answer::{Choice, read_choice, read_score};
pub use ask::{Asked, Cost};
pub use subjects::{Subjects, check_variables};

/// The hash of a request.
pub type Key = [u8; 32];

/// The longest time for a setting.
const LONGEST_SECONDS: f64 = 1e6;

/// A judge, ready to be asked.
pub struct Judging<'a> {
    pub(super) context: &'a Context<'a>,
    pub(super) judge: &'a Judge,
    question: Question,
    /// The judge on each of its servers.
    chats: Vec<Chat>,
    fleet: Fleet,
    template: RowTemplate,
    /// The judge's name in the store of answers.
    source: Fingerprint,
    /// The answers so far, of those that were wanted.
    known: HashMap<Key, judge_answers::Row>,
}

/// The clients of the judge's servers. They do not connect yet.
///
/// # Errors
/// An invalid address, or a missing key.
pub fn clients(judge: &Judge) -> Result<Vec<Client>, OperatorError> {
    let key = judge.api_key_env.as_ref().map(|name| name.value.as_str());
    judge.openai.iter().map(|url| Ok(Client::new(url, key, patience(judge))?)).collect()
}

fn patience(judge: &Judge) -> Patience {
    let timeout = Duration::from_secs_f64(judge.timeout_seconds.clamp(0.0, LONGEST_SECONDS));
    Patience { timeout, retries: judge.retries as usize, ..Patience::default() }
}

/// The compiled template of a judge.
///
/// # Errors
/// It is not Jinja; the check of the pipeline refuses that.
pub fn template(judge: &Judge, question: Question) -> Result<RowTemplate, OperatorError> {
    RowTemplate::new(judge.template(question)).map_err(|error| OperatorError::Input(format!("judge: {error}")))
}

impl<'a> Judging<'a> {
    /// Opens the judge. Reads no answers yet.
    ///
    /// # Errors
    /// As [`clients`] and [`template`].
    pub fn open(context: &'a Context, judge: &'a Judge, question: Question) -> Result<Self, OperatorError> {
        let template = template(judge, question)?;
        let clients = clients(judge)?;
        let has_others = clients.len() > 1;
        // Of one server, each request has its retries; of several, the next attempt is on another.
        let chat = |client: Client| Chat::new(if has_others { client.once() } else { client }, &judge.model.value);
        let chats = clients.into_iter().map(chat).collect();
        let retries = if has_others { judge.retries as usize } else { 0 };
        let fleet = Fleet::new(judge.openai.iter(), Patience { retries, ..patience(judge) });
        let identity = serde_json::json!([judge.model, judge.version]);
        let source = Fingerprint::from_contents(identity.to_string().as_bytes());
        Ok(Self { context, judge, question, chats, fleet, template, source, known: HashMap::new() })
    }

    /// Records what the servers did.
    ///
    /// # Errors
    /// The journal cannot be written.
    pub fn record(&self) -> Result<(), OperatorError> {
        statistics::record(self.context, &self.fleet)
    }

    /// The template, for the columns that it reads.
    pub fn template(&self) -> &RowTemplate {
        &self.template
    }

    /// The text of a question: the values of a prompt with the responses by their variables.
    ///
    /// # Errors
    /// The template fails on these values.
    pub fn question(&self, subject: &Fields, responses: &[&str]) -> Result<String, String> {
        let mut values = subject.clone();
        for (name, text) in self.question.responses().iter().zip(responses) {
            values.insert((*name).to_string(), (*text).into());
        }
        if let Some(scale) = self.judge.scale {
            values.insert("low".to_string(), number(scale.low));
            values.insert("high".to_string(), number(scale.high));
        }
        self.template.render(&values).map_err(|error| format!("judge: {error}"))
    }

    /// The key of a question.
    pub fn key(&self, question: &str) -> Key {
        let body = self.request(question).body(&self.judge.model.value);
        *blake3::hash(serde_json::json!([body, self.judge.version]).to_string().as_bytes()).as_bytes()
    }

    fn request<'q>(&self, question: &'q str) -> ChatRequest<'q> {
        ChatRequest {
            question,
            temperature: self.judge.temperature,
            max_tokens: self.judge.max_tokens(self.question),
            logprobs: self.judge.read(self.question) == Read::Logprobs,
        }
    }

    /// Reads the kept answers of these questions. Damaged files are reported.
    ///
    /// # Errors
    /// Files cannot be read.
    pub fn recall(&mut self, wanted: &HashSet<Key>) -> Result<(), OperatorError> {
        let context = self.context;
        let (batches, damaged) = context.run.memo().read(&context.task.output_key(), TableKind::JudgeAnswers, &self.source)?;
        for bad in damaged {
            context.progress.warned(&context.task.label(), &bad.to_string());
        }
        for batch in batches {
            let rows = judge_answers::rows(&batch)?.into_iter().filter(|row| wanted.contains(&row.key));
            self.known.extend(rows.map(|row| (row.key, row)));
        }
        Ok(())
    }

    /// The kept answer to a question.
    pub fn known(&self, key: &Key) -> Option<&judge_answers::Row> {
        self.known.get(key)
    }
}

/// A number of a scale for a template: 1 and not 1.0.
fn number(value: f64) -> serde_json::Value {
    if value.fract() == 0.0 && value.abs() < 1e15 { (value as i64).into() } else { value.into() }
}
