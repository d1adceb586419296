//! Scores by a server, several batches at once.
//!
//! Knows which texts a server is sent; not what goes over the wire.

use std::ops::ControlFlow;
use std::time::Duration;

use arrow::array::{AsArray, RecordBatch};
use arrow::compute::cast;
use arrow::datatypes::DataType;

use super::problem::Problem;
use super::{Item, Question, Score, Scores};
use crate::model::{ChatTemplate, PromptContent};
use crate::operators::{Context, OperatorError};
use crate::pipeline::slot::Slot;
use crate::pipeline::spec::input::{self as spec, RewardProtocol};
use crate::remote::{Client, Patience, Protocol, RemoteError, RewardServer, Scorable, each};

/// What gave the rewards, for errors.
const WHOSE: &str = "reward server";

/// A server, and how it is asked.
pub(super) struct Server<'a> {
    server: RewardServer,
    settings: &'a spec::Server,
    /// How the policy writes conversations; `None` when it has no template.
    template: Option<ChatTemplate>,
}

/// A client of a server; connects to nothing yet.
///
/// # Errors
/// An address that is none, or a key that is not in the environment.
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
    query: String,
    prompt: String,
    response: &'a str,
    label: Option<&'a str>,
}

impl<'a> Server<'a> {
    pub(super) fn open(context: &Context, settings: &'a spec::Server) -> Result<Self, OperatorError> {
        let template = if context.has(Slot::Policy) { context.checkpoint(Slot::Policy)?.chat_template } else { None };
        Ok(Self { server: client(settings)?, settings, template })
    }

    /// One score for each response. A failure of the server is one of the node: scoring goes on where it was left when the run does.
    pub(super) fn score(&self, context: &Context, items: &[Item]) -> Result<Scores, OperatorError> {
        let texts = items.iter().map(|item| self.texts(item)).collect::<Result<Vec<_>, _>>()?;
        let batches: Vec<&[Texts]> = texts.chunks(self.settings.batch_size as usize).collect();
        let ask = |batch: &&[Texts]| self.server.score(&batch.iter().map(Texts::scorable).collect::<Vec<_>>(), context.stopped);
        let mut answers: Vec<Option<Result<Vec<Option<f64>>, RemoteError>>> = batches.iter().map(|_| None).collect();
        each(&batches, self.settings.concurrency as usize, context.stopped, ask, |batch, answer| {
            // What is not asked yet would be lost with the part.
            let goes_on = if answer.is_ok() { ControlFlow::Continue(()) } else { ControlFlow::Break(()) };
            if let Some(place) = answers.get_mut(batch) {
                *place = Some(answer);
            }
            goes_on
        });
        let failed = answers.iter().position(|answer| matches!(answer, Some(Err(_))));
        let mut scores = Vec::with_capacity(items.len());
        for (batch, (answer, items)) in answers.into_iter().zip(items.chunks(self.settings.batch_size as usize)).enumerate() {
            match answer {
                Some(Ok(rewards)) => scores.extend(rewards.into_iter().map(|reward| match reward {
                    Some(reward) => Score::plain(WHOSE, reward),
                    None => Err(Problem::not_finite(WHOSE, "null")),
                })),
                Some(Err(error)) => {
                    let place = |item: Option<&Item>| item.map_or(String::new(), Item::place);
                    return Err(OperatorError::from(error).of(&format!("responses {} to {}", place(items.first()), place(items.last()))));
                }
                // Its answer came behind the failure of a later one, which is reported.
                None if failed.is_some_and(|failed| failed > batch) => {}
                None => return Err(OperatorError::Stopped),
            }
        }
        Ok(scores)
    }

    /// A response's texts: the prompt as it is or as the policy's chat template writes it, and behind it the response.
    fn texts<'i>(&self, item: &'i Item) -> Result<Texts<'i>, OperatorError> {
        let Question { asked, reference_answer } = item.question()?;
        let prompt = match (asked, &self.template) {
            (PromptContent::Text(text), _) => text.clone(),
            (PromptContent::Messages(messages), Some(template)) => template.render(messages, true)?,
            (PromptContent::Messages(_), None) => {
                let problem =
                    "expected a chat template of the policy because prompts are messages, found none; add chat_template.jinja to it";
                return Err(OperatorError::Input(format!("reward server: {problem}")));
            }
        };
        let response = item.row.text.as_str();
        Ok(Texts { query: format!("{prompt}{response}"), prompt, response, label: reference_answer.as_deref() })
    }
}

impl Texts<'_> {
    fn scorable(&self) -> Scorable<'_> {
        Scorable { query: &self.query, prompt: &self.prompt, response: self.response, label: self.label }
    }
}

/// The reference answer of each row of a batch of prompts, where it has one.
pub(super) fn reference_answers(prompts: &RecordBatch) -> Result<Vec<Option<String>>, OperatorError> {
    let Some(column) = prompts.column_by_name("reference_answer") else { return Ok(vec![None; prompts.num_rows()]) };
    let texts = cast(column, &DataType::Utf8)?;
    Ok(texts.as_string::<i32>().iter().map(|text| text.map(str::to_string)).collect())
}
