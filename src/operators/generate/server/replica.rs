//! One server of a node: given the policy, found, looked at and compared with the policy before it
//! is asked, again after each rest.
//!
//! Knows one server, not the others.

use std::sync::{Mutex, OnceLock, PoisonError};
use std::time::Duration;

use super::super::super::OperatorError;
use super::job::{Item, PLACE, ServerJob, seconds};
use super::row::Decoding;
use super::update::{ServerUpdate, Verdict};
use super::yardstick::{Compared, Yardstick};
use crate::pipeline::spec::engine::{Check, Server, TokenIds};
use crate::remote::{self, Absence, Attempt, Client, Completions, PromptForm, RemoteError, ServerKind, Stopped};
use crate::store::{Event, EventKind};
use crate::tables::responses;

/// The inputs of all servers of a node.
pub(super) struct Shared<'a> {
    job: &'a ServerJob<'a>,
    yardstick: OnceLock<Result<Yardstick, String>>,
}

impl<'a> Shared<'a> {
    pub(super) fn new(job: &'a ServerJob<'a>) -> Self {
        Self { job, yardstick: OnceLock::new() }
    }

    /// The policy's own responses, computed once, for the comparison with each server; else the
    /// reason why there are none.
    fn yardstick(&self, items: &[Item]) -> Result<&Yardstick, &str> {
        let computed = self.yardstick.get_or_init(|| Yardstick::new(self.job, items).map_err(|error| error.to_string()));
        computed.as_ref().map_err(String::as_str)
    }
}

/// A server, and how it is asked.
pub(super) struct Replica<'a> {
    shared: &'a Shared<'a>,
    job: &'a ServerJob<'a>,
    client: Client,
    /// Whether it is left after failures: the next attempt is on another server, or after it has
    /// joined again.
    leaves: bool,
    update: Option<ServerUpdate<'a>>,
    joined: Mutex<Option<Joined>>,
    /// Why it could not join last.
    failure: Mutex<Option<OperatorError>>,
}

#[derive(Clone)]
struct Joined {
    server: Completions,
    form: PromptForm,
    decoding: Decoding,
    /// The round of its policy.
    round: u64,
}

/// One row: the server's response or an error. `None` when the run was stopped.
pub(super) type Answer = Result<Option<responses::Row>, OperatorError>;

impl<'a> Replica<'a> {
    pub(super) fn new(shared: &'a Shared<'a>, client: Client, leaves: bool, update: Option<ServerUpdate<'a>>) -> Self {
        let client = if leaves { client.once() } else { client };
        Self { shared, job: shared.job, client, leaves, update, joined: Mutex::default(), failure: Mutex::default() }
    }

    /// Why it could not join last.
    pub(super) fn failure(&self) -> Option<OperatorError> {
        self.failure.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    /// Gives the server the policy, finds it, looks how it is asked, and compares it with the
    /// policy. `items` are the node's.
    pub(super) fn join(&self, items: &[Item], is_over: Stopped) -> Result<(), Absence> {
        match self.look(items, is_over) {
            Ok(joined) => {
                *self.joined.lock().unwrap_or_else(PoisonError::into_inner) = Some(joined);
                *self.failure.lock().unwrap_or_else(PoisonError::into_inner) = None;
                Ok(())
            }
            Err(error) => {
                let is_final = match &error {
                    OperatorError::Remote(error) => !error.is_transient(),
                    _ => true,
                };
                let problem = error.to_string();
                let mut failure = self.failure.lock().unwrap_or_else(PoisonError::into_inner);
                let is_told = failure.as_ref().is_some_and(|told| told.to_string() == problem);
                if self.leaves && !is_told && !is_over() {
                    let told = format!("{}: left out for now: {problem}", self.client.url());
                    self.job.context.progress.warned(&self.job.context.task.label(), &told);
                }
                *failure = Some(error);
                Err(Absence { problem, is_final })
            }
        }
    }

    fn look(&self, items: &[Item], is_over: Stopped) -> Result<Joined, OperatorError> {
        let ServerJob { context, engine, .. } = self.job;
        let (round, updated) = match &self.update {
            Some(update) => update.load(is_over).map(|(round, words)| (round, format!(", {words}")))?,
            None => (0, String::new()),
        };
        let server = self.find(is_over)?;
        if let Some(update) = &self.update
            && let Some(problem) = update.find_witnesses(server.kind(), is_over)?
        {
            context.progress.warned(&context.task.label(), &format!("{}: {problem}", self.client.url()));
        }
        let item = items.first().ok_or_else(|| OperatorError::internal(PLACE, "a server without items"))?;
        let forms: &[PromptForm] = match engine.token_ids {
            TokenIds::Always => &[],
            TokenIds::Never => &[PromptForm::Text, PromptForm::Messages],
            TokenIds::Auto => &[PromptForm::Ids, PromptForm::Text, PromptForm::Messages],
        };
        self.job.request(item, |request| server.check_settings(&request, PromptForm::Ids))??;
        let form = match forms {
            [] => PromptForm::Ids,
            forms => self.job.request(item, |request| server.look(&request, forms, is_over))??,
        };
        let mut joined = Joined { decoding: if server.decodes_alone() { Decoding::Alone } else { Decoding::Behind }, server, form, round };
        let checked = match engine.check {
            Check::Never => "not compared with the policy".to_string(),
            Check::Auto | Check::Always => self.check(&mut joined, items, is_over)?,
        };
        let url = self.client.url();
        let left_out = joined.server.left_out();
        if !left_out.is_empty() {
            let told = format!("{url}: refuses {}; left out of the requests, sampling is the same without", left_out.join(", "));
            context.progress.warned(&context.task.label(), &told);
        }
        let mut event = Event::new(EventKind::ServerFound, &context.task.name, context.task.iteration);
        let without = if left_out.is_empty() { String::new() } else { format!(", without {}", left_out.join(", ")) };
        event.message = Some(format!(
            "{url} {}; {}, prompts as {}{without}{updated}, {checked}",
            joined.server.identity(),
            joined.server.kind().name(),
            form.name()
        ));
        context.run.record(event)?;
        Ok(joined)
    }

    /// The server's model.
    fn find(&self, is_over: Stopped) -> Result<Completions, OperatorError> {
        let engine = self.job.engine;
        let kind = kind(engine.server);
        let name = engine.model.value.as_str();
        if engine.serve.is_some() {
            return Ok(remote::served(&self.client, name, kind, seconds(engine.serve_timeout_seconds), is_over)?);
        }
        let Some(policy) = self.update.as_ref().map(ServerUpdate::policy) else {
            return Ok(Completions::find(self.client.clone(), name, kind, is_over)?);
        };
        let kind = policy.kind().or(kind);
        match kind {
            Some(kind) if !policy.is_listed() => Ok(Completions::unlisted(self.client.clone(), policy.model(), kind)),
            kind => Ok(Completions::find(self.client.clone(), policy.model(), kind, is_over)?),
        }
    }

    /// Compares the server with the policy; returns the words for the journal.
    fn check(&self, joined: &mut Joined, items: &[Item], is_over: Stopped) -> Result<String, OperatorError> {
        let ServerJob { context, engine, .. } = self.job;
        let url = self.client.url();
        let yardstick = match self.shared.yardstick(items) {
            Ok(yardstick) => yardstick,
            Err(_) if (context.stopped)() => return Err(OperatorError::Stopped),
            Err(reason) if engine.check == Check::Always => {
                return Err(OperatorError::Input(format!(
                    "{url}: expected to compare it with the policy, found that it is not possible: {reason}"
                )));
            }
            Err(reason) => {
                context.progress.warned(&context.task.label(), &format!("{url}: not compared with the policy: {reason}"));
                return Ok(format!("not compared with the policy: {reason}"));
            }
        };
        let mut compared = 0;
        for probe in &yardstick.probes {
            let answer = self.job.request(&probe.item, |request| {
                let request = remote::Request { max_tokens: Yardstick::tokens(self.job).min(request.max_tokens), ..request.greedy() };
                joined.server.complete(&request, joined.form, is_over)
            })??;
            match yardstick.compare(self.job, probe, &answer, joined.decoding)? {
                Compared::Same(decoding) => joined.decoding = decoding,
                Compared::Other(problem) => {
                    return Err(OperatorError::Failed(format!(
                        "{url}: {problem}; does it serve another model or an older one, a quantized one, or sample with settings of its own? \
                         `check: never` in engine asks it all the same"
                    )));
                }
            }
            compared += 1;
        }
        Ok(format!("the policy's distribution in {compared} greedy responses"))
    }

    /// One attempt at an item.
    pub(super) fn ask(&self, item: &Item) -> Attempt<Answer> {
        let Some(Joined { server, form, decoding, round }) = self.joined.lock().unwrap_or_else(PoisonError::into_inner).clone() else {
            return Attempt::Answered(Err(OperatorError::internal(PLACE, "a request to a server that has not joined")));
        };
        let answer = match self.job.request(item, |request| server.complete(&request, form, self.job.context.stopped)) {
            Ok(answer) => answer,
            Err(error) => return Attempt::Answered(Err(error)),
        };
        let failed = |error: &dyn std::fmt::Display| self.job.failed(item.prompt, item.response_index, error.to_string()).map(Some);
        let is_answer = answer.as_ref().map_or_else(|error| !error.is_transient() && !matches!(error, RemoteError::Stopped), |_| true);
        if let Some(update) = self.update.as_ref().filter(|_| is_answer) {
            let told = answer.as_ref().ok().and_then(|completion| completion.weight_version.as_deref());
            match update.confirm(round, told, self.job.context.stopped) {
                Verdict::Confirmed => {}
                Verdict::Stopped => return Attempt::Stopped,
                Verdict::Outdated => {
                    let problem = format!("{}: the server lost the policy before its answer was confirmed", self.client.url());
                    // It has joined again, or is about to.
                    return Attempt::Failed { last: failed(&problem), problem, wait: Some(Duration::ZERO) };
                }
                Verdict::Refused(problem) => {
                    let told = format!("{}: left until it has the policy again: {problem}", self.client.url());
                    self.job.context.progress.warned(&self.job.context.task.label(), &told);
                    return Attempt::Refused { last: failed(&problem), problem };
                }
            }
        }
        match answer {
            Err(RemoteError::Stopped) => Attempt::Stopped,
            Err(error) if error.is_transient() || self.is_of_the_server(&error) => {
                Attempt::Failed { last: failed(&error), wait: error.wait(), problem: error.to_string() }
            }
            Err(error) => Attempt::Answered(failed(&error)),
            Ok(completion) => Attempt::Answered(match self.job.response(item, completion, decoding) {
                Ok(row) => Ok(Some(row)),
                Err(error @ OperatorError::Internal { .. }) => Err(error),
                Err(error) => failed(&error),
            }),
        }
    }

    /// Whether another server may answer where this one refuses: it has lost its model or its key.
    fn is_of_the_server(&self, error: &RemoteError) -> bool {
        self.leaves && matches!(error.status(), Some(401 | 403 | 404 | 405))
    }
}

/// The kind of a server in the pipeline file; `None` if it is to be found out.
fn kind(server: Server) -> Option<ServerKind> {
    match server {
        Server::Auto => None,
        Server::Vllm => Some(ServerKind::Vllm),
        Server::Sglang => Some(ServerKind::Sglang),
        Server::LlamaCpp => Some(ServerKind::LlamaCpp),
        Server::LlamaCppPython => Some(ServerKind::LlamaCppPython),
        Server::Transformers => Some(ServerKind::Transformers),
        Server::OpenAi => Some(ServerKind::OpenAi),
    }
}
