//! Scores from reward servers, with several concurrent requests.
//!
//! Knows the texts to send, not the protocol.

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::time::Duration;

use arrow::array::RecordBatch;

use super::score_error::ScoreError;
use super::{ResponseToScore, Score, Scores, ScoringPrompt};
use crate::import::texts::text_column;
use crate::model::{ChatTemplate, PromptContent};
use crate::operators::support::statistics;
use crate::operators::{Context, OperatorError};
use crate::pipeline::slot::Slot;
use crate::pipeline::spec::input::{self as spec, RewardProtocol};
use crate::remote::{Attempt, Client, Fleet, Patience, Place, Protocol, Questions, RemoteError, RewardServer, Scorable};

/// The name of this scorer in errors.
const SCORER: &str = "reward server";

/// A server with its settings.
pub(super) struct ServerScorer<'a> {
    servers: Vec<RewardServer>,
    fleet: Fleet,
    settings: &'a spec::Server,
    /// The chat template of the policy; `None` if it has none.
    template: Option<ChatTemplate>,
}

/// The clients for the servers. They do not connect yet.
///
/// # Errors
/// An address is invalid, or the environment variable of the key is not set.
pub fn clients(settings: &spec::Server) -> Result<Vec<RewardServer>, OperatorError> {
    let key = settings.api_key_env.as_ref().map(|name| name.value.as_str());
    let protocol = match settings.protocol {
        RewardProtocol::Plain => Protocol::Plain,
        RewardProtocol::Openrlhf => Protocol::OpenRlhf,
    };
    let clients = settings.http.iter().map(|url| Ok(Client::new(url, key, patience(settings))?));
    let clients: Vec<Client> = clients.collect::<Result<_, OperatorError>>()?;
    let has_others = clients.len() > 1;
    Ok(clients.into_iter().map(|client| RewardServer::new(if has_others { client.once() } else { client }, protocol)).collect())
}

fn patience(settings: &spec::Server) -> Patience {
    let timeout = Duration::try_from_secs_f64(settings.timeout_seconds).unwrap_or(Duration::MAX);
    Patience { timeout, retries: settings.retries as usize, ..Patience::default() }
}

/// The texts of one response.
struct Texts<'a> {
    /// The prompt with the response behind it.
    query: String,
    prompt: String,
    response: &'a str,
    /// The reference answer.
    label: Option<&'a str>,
}

impl<'a> ServerScorer<'a> {
    /// Opens the client, and reads the policy's chat template.
    pub(super) fn open(context: &Context, settings: &'a spec::Server) -> Result<Self, OperatorError> {
        let template = if context.has(Slot::Policy) { context.checkpoint(Slot::Policy)?.chat_template } else { None };
        let servers = clients(settings)?;
        // Of one server, each request has its retries; of several, the next attempt is on another.
        let retries = if servers.len() > 1 { settings.retries as usize } else { 0 };
        let fleet = Fleet::new(settings.http.iter(), Patience { retries, ..patience(settings) });
        Ok(Self { servers, fleet, settings, template })
    }

    /// Records what the servers did.
    pub(super) fn record(&self, context: &Context) -> Result<(), OperatorError> {
        statistics::record(context, &self.fleet)
    }

    /// One score for each response. A failed request fails the whole part. Its responses are scored
    /// again when the run resumes.
    pub(super) fn score(&self, context: &Context, responses: &[ResponseToScore]) -> Result<Scores, OperatorError> {
        let batch_size = self.settings.batch_size as usize;
        let texts = responses.iter().map(|response| self.texts(response)).collect::<Result<Vec<_>, _>>()?;
        let batches: Vec<&[Texts]> = texts.chunks(batch_size).collect();
        let request = |index: usize, batch: &&[Texts]| {
            let scorable: Vec<Scorable> = batch.iter().map(Texts::scorable).collect();
            let Some(server) = self.servers.get(index) else { return Attempt::Stopped };
            match server.score(&scorable, context.stopped) {
                Err(RemoteError::Stopped) => Attempt::Stopped,
                Err(error) if error.is_transient() || self.is_of_the_server(&error) => {
                    Attempt::Failed { wait: error.wait(), problem: error.to_string(), last: Err(error) }
                }
                answer => Attempt::Answered(answer),
            }
        };
        let places = (0..batches.len()).map(|batch| Place { group: batch, prefix: batch as u64 }).collect();
        let mut answers: BTreeMap<usize, Result<Vec<Option<f64>>, RemoteError>> = BTreeMap::new();
        let questions = Questions { items: &batches, places, threads: self.settings.concurrency as usize };
        let result = self.fleet.each(
            questions,
            context.stopped,
            |_, _| Ok(()),
            request,
            |batch, answer| {
                // After a failure nothing further is sent: its scores would be lost with the part.
                let flow = if answer.is_ok() { ControlFlow::Continue(()) } else { ControlFlow::Break(()) };
                answers.insert(batch, answer);
                flow
            },
        );
        let answered = answers.len();
        let mut scores = Vec::with_capacity(responses.len());
        for (batch, answer) in answers {
            match answer {
                Ok(rewards) => scores.extend(rewards.into_iter().map(|reward| match reward {
                    Some(reward) => Score::plain(SCORER, reward),
                    None => Err(ScoreError::not_finite(SCORER, "null")),
                })),
                // An earlier batch may have no answer. The failure is reported all the same.
                Err(error) => {
                    let failed = responses.chunks(batch_size).nth(batch).unwrap_or_default();
                    return Err(OperatorError::from(error).of(&described_range(failed)));
                }
            }
        }
        context.check_stopped()?;
        result.map_err(|absences| statistics::nobody(&self.fleet, &absences))?;
        // Without a failure, only a request to stop leaves batches without an answer.
        if answered == batches.len() { Ok(scores) } else { Err(OperatorError::Stopped) }
    }

    /// Whether another server may answer where this one refuses: it has lost its key or its path.
    fn is_of_the_server(&self, error: &RemoteError) -> bool {
        self.servers.len() > 1 && matches!(error.status(), Some(401 | 403 | 404 | 405))
    }

    /// The texts of one response. A prompt with messages is rendered by the policy's chat template.
    fn texts<'i>(&self, response: &'i ResponseToScore) -> Result<Texts<'i>, OperatorError> {
        let ScoringPrompt { content, reference_answer, .. } = response.prompt()?;
        let prompt = match (content, &self.template) {
            (PromptContent::Text(text), _) => text.clone(),
            (PromptContent::Messages(conversation), Some(template)) => template.render(conversation, true)?,
            (PromptContent::Messages(_), None) => {
                let problem =
                    "expected a chat template of the policy because prompts are messages, found none; add chat_template.jinja to it";
                return Err(OperatorError::Input(format!("{SCORER}: {problem}")));
            }
        };
        let text = response.row.text.as_str();
        Ok(Texts { query: format!("{prompt}{text}"), prompt, response: text, label: reference_answer.as_deref() })
    }
}

/// The responses of a batch, for errors.
fn described_range(batch: &[ResponseToScore]) -> String {
    match batch {
        [first, .., last] => format!("responses {} to {}", first.description(), last.description()),
        [only] => format!("responses {0} to {0}", only.description()),
        [] => "no responses".to_string(),
    }
}

impl Texts<'_> {
    fn scorable(&self) -> Scorable<'_> {
        Scorable { query: &self.query, prompt: &self.prompt, response: self.response, label: self.label }
    }
}

/// The reference answer of each row in a batch of prompts; `None` for a prompt without one.
pub(super) fn reference_answers(prompts: &RecordBatch) -> Result<Vec<Option<String>>, OperatorError> {
    let column = text_column(prompts, "reference_answer");
    let column = column.map_err(|error| OperatorError::Input(format!("{SCORER}: prompts, row {}: {}", error.row, error.problem)))?;
    Ok(column.map_or_else(|| vec![None; prompts.num_rows()], |texts| texts.iter().map(|text| text.map(str::to_string)).collect()))
}
