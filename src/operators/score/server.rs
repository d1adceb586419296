//! Scores from a reward server, with several concurrent requests.
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
use crate::operators::{Context, OperatorError};
use crate::pipeline::slot::Slot;
use crate::pipeline::spec::input::{self as spec, RewardProtocol};
use crate::remote::{Client, Patience, Protocol, RemoteError, RewardServer, Scorable, each};

/// The name of this scorer in errors.
const SCORER: &str = "reward server";

/// A server with its settings.
pub(super) struct ServerScorer<'a> {
    server: RewardServer,
    settings: &'a spec::Server,
    /// The chat template of the policy; `None` if it has none.
    template: Option<ChatTemplate>,
}

/// A client for a server. It does not connect yet.
///
/// # Errors
/// The address is invalid, or the environment variable of the key is not set.
pub fn client(settings: &spec::Server) -> Result<RewardServer, OperatorError> {
    let timeout = Duration::try_from_secs_f64(settings.timeout_seconds).unwrap_or(Duration::MAX);
    let patience = Patience { timeout, retries: settings.retries as usize, ..Patience::default() };
    let key = settings.api_key_env.as_ref().map(|name| name.value.as_str());
    let protocol = match settings.protocol {
        RewardProtocol::Plain => Protocol::Plain,
        RewardProtocol::Openrlhf => Protocol::OpenRlhf,
    };
    Ok(RewardServer::new(Client::new(&settings.http.value, key, patience)?, protocol))
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
        Ok(Self { server: client(settings)?, settings, template })
    }

    /// One score for each response. A failed request fails the whole part. Its responses are scored
    /// again when the run resumes.
    pub(super) fn score(&self, context: &Context, responses: &[ResponseToScore]) -> Result<Scores, OperatorError> {
        let batch_size = self.settings.batch_size as usize;
        let texts = responses.iter().map(|response| self.texts(response)).collect::<Result<Vec<_>, _>>()?;
        let batches: Vec<&[Texts]> = texts.chunks(batch_size).collect();
        let request = |batch: &&[Texts]| {
            let scorable: Vec<Scorable> = batch.iter().map(Texts::scorable).collect();
            self.server.score(&scorable, context.stopped)
        };
        let mut answers: BTreeMap<usize, Result<Vec<Option<f64>>, RemoteError>> = BTreeMap::new();
        each(&batches, self.settings.concurrency as usize, context.stopped, request, |batch, answer| {
            // After a failure, no further batch is sent: its scores would be lost with the part.
            let flow = if answer.is_ok() { ControlFlow::Continue(()) } else { ControlFlow::Break(()) };
            answers.insert(batch, answer);
            flow
        });
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
        // Without a failure, only a request to stop leaves batches without an answer.
        if answered == batches.len() { Ok(scores) } else { Err(OperatorError::Stopped) }
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
