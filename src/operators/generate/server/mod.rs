//! generate by servers: each response is a request of its own, asked for once, committed in small
//! parts.
//!
//! A response without success after all retries is an error row. When the node runs again, it asks
//! for these rows only, and replaces their parts. Knows the policy's tokenizer and template; its
//! weights only for the comparison with a server.

mod parts;
mod replica;
mod row;
mod yardstick;

use std::ops::ControlFlow;
use std::path::absolute;
use std::sync::OnceLock;
use std::time::Duration;

use serde_json::Value;

use super::super::support::ignored;
use super::super::support::rows::signed;
use super::super::support::statistics;
use super::super::{Context, OperatorError, Prompt};
use super::{prompt_ids, response_indices};
use crate::generation::StopStrings;
use crate::model::{Checkpoint, Conversation, Fields, PromptContent, SpecialTokens};
use crate::pipeline::slot::Slot;
use crate::pipeline::spec::engine::{Engine, Failures};
use crate::pipeline::spec::generate::Generate;
use crate::remote::{self, Absence, Attempt, Client, Fleet, Patience, Place, Questions, Request};
use crate::store::TableWriter;
use crate::tables::{FinishReason, TableKind, responses};
use parts::Parts;
use replica::Replica;
use yardstick::Yardstick;

/// The most parts, unless the node's resources set a part's size. A part is one file, and the most
/// work lost by a kill.
const MOST_PARTS: usize = 512;

/// The longest time for a setting.
const LONGEST_SECONDS: f64 = 1e6;

/// Prompts with so many first tokens in common go to the same server, if they are at least twice as
/// long.
const PREFIX_TOKENS: usize = 32;

/// This module in internal errors.
const PLACE: &str = "operators::generate::server";

/// The servers' clients; they connect to nothing yet.
///
/// # Errors
/// An invalid URL, or a missing key.
pub fn clients(engine: &Engine) -> Result<Vec<Client>, OperatorError> {
    let key = engine.api_key_env.as_ref().map(|name| name.value.as_str());
    engine.openai.iter().map(|url| Ok(Client::new(url, key, patience(engine))?)).collect()
}

fn patience(engine: &Engine) -> Patience {
    Patience { timeout: seconds(engine.timeout_seconds), retries: engine.retries as usize, ..Patience::default() }
}

fn seconds(number: f64) -> Duration {
    Duration::from_secs_f64(number.clamp(0.0, LONGEST_SECONDS))
}

/// Asks for the missing responses to `prompts`. Returns the writer with all parts committed, and
/// the number of new tokens.
pub(super) fn run<'a>(
    context: &'a Context<'_>,
    settings: &Generate,
    engine: &Engine,
    prompts: &[Prompt],
) -> Result<(TableWriter<'a>, u64), OperatorError> {
    let checkpoint = context.checkpoint(Slot::Policy)?;
    ignored::warn(context, &checkpoint, prompts.iter().map(|prompt| (&prompt.content, None)));
    let encoded: Vec<Result<Vec<i32>, String>> = prompts.iter().map(|prompt| prompt_ids(&checkpoint, prompt, settings)).collect();
    let writer = context.writer(Some(TableKind::Responses), prompts.len(), prompts.len().div_ceil(MOST_PARTS))?;
    let job = ServerJob {
        context,
        settings,
        engine,
        prompts,
        encoded,
        stop: StopStrings::new(&checkpoint.tokenizer, &settings.stop, settings.min_new_tokens as usize),
        checkpoint,
        sampled_iteration: context.sampled_iteration()?,
        policy_fingerprint: context.fingerprint_of(Slot::Policy)?.to_string(),
        yardstick: OnceLock::new(),
    };
    let mut parts = Parts::read(&job, writer)?;
    let items = parts.items();
    let label = context.task.label();
    let total = prompts.len() * job.per_prompt();
    let mut done = total - items.len();
    let mut tokens = 0;
    context.progress.started(&label, "responses", done as u64, total as u64);
    if !items.is_empty() {
        job.load()?;
        let mut failed = None;
        let result = job.ask(&items, |index, answer| match parts.store(items.get(index), answer) {
            Ok(Some(new)) => {
                done += 1;
                tokens += new;
                context.progress.advanced(&label, done as u64, tokens);
                ControlFlow::Continue(())
            }
            Ok(None) => ControlFlow::Continue(()),
            Err(error) => {
                failed = Some(error);
                ControlFlow::Break(())
            }
        });
        failed.map_or(Ok(()), Err)?;
        if let Err(error) = result {
            parts.commit_rest()?;
            context.check_stopped()?;
            return Err(error);
        }
    }
    parts.commit_rest()?;
    context.check_stopped()?;
    match (engine.failures, parts.first_failure()) {
        (Failures::Stop, Some((count, first))) => Err(OperatorError::Failed(format!(
            "{count} of {total} responses failed, the first: {first}; the same command asks only for these again \
             (`failures: keep` in engine goes on without them)"
        ))),
        _ => Ok((parts.writer, tokens)),
    }
}

/// One response to ask for.
#[derive(Clone, Copy, Debug)]
struct Item {
    part: usize,
    /// Its row in the part.
    row: usize,
    /// The index of its prompt.
    prompt: usize,
    response_index: u32,
}

/// The inputs of the requests.
struct ServerJob<'a> {
    context: &'a Context<'a>,
    settings: &'a Generate,
    engine: &'a Engine,
    prompts: &'a [Prompt],
    /// The prompts' ids, or the reasons for no request.
    encoded: Vec<Result<Vec<i32>, String>>,
    checkpoint: Checkpoint,
    stop: Option<StopStrings>,
    sampled_iteration: i32,
    policy_fingerprint: String,
    yardstick: OnceLock<Result<Yardstick, String>>,
}

impl ServerJob<'_> {
    fn per_prompt(&self) -> usize {
        response_indices(self.settings).len().max(1)
    }

    /// The ids of an item's prompt: only encoded prompts become items.
    fn prompt_ids(&self, item: &Item) -> Result<&[i32], OperatorError> {
        let problem = |error: &String| OperatorError::internal(PLACE, format!("a request for a prompt without ids: {error}"));
        self.encoded[item.prompt].as_deref().map_err(problem)
    }

    /// Has the servers load the policy, where the pipeline says how.
    fn load(&self) -> Result<(), OperatorError> {
        let Some(command) = &self.engine.serve else { return Ok(()) };
        let path = self.context.whole_model(Slot::Policy)?;
        let path = absolute(&path).map_err(|error| OperatorError::Input(format!("{}: {error}", path.display())))?;
        let limit = seconds(self.engine.serve_timeout_seconds);
        Ok(remote::serve(&command.value, &self.context.graph.folder, &path, limit, self.context.stopped)?)
    }

    /// Asks the servers for all items.
    ///
    /// # Errors
    /// No server can be asked.
    fn ask(&self, items: &[Item], done: impl FnMut(usize, replica::Answer) -> ControlFlow<()>) -> Result<(), OperatorError> {
        let clients = clients(self.engine)?;
        let has_others = clients.len() > 1;
        let patience = patience(self.engine);
        // Of one server, each request has its retries; of several, the next attempt is on another.
        let of_items = if has_others { patience } else { Patience { retries: 0, ..patience } };
        let replica = |client: Client| Replica::new(self, client, has_others);
        let replicas: Vec<Replica> = clients.into_iter().map(replica).collect();
        let fleet = Fleet::new(self.engine.openai.iter(), of_items);
        let places = items.iter().map(|item| self.place(item)).collect::<Result<Vec<_>, _>>()?;
        let questions = Questions { items, places, threads: self.engine.concurrency as usize };
        let join = |index: usize, is_over: remote::Stopped| match replicas.get(index) {
            Some(replica) => replica.join(items, is_over),
            None => Err(Absence { problem: format!("no server {index}"), is_final: true }),
        };
        let ask = |index: usize, item: &Item| match replicas.get(index) {
            Some(replica) => replica.ask(item),
            None => Attempt::Answered(Err(OperatorError::internal(PLACE, format!("no server {index}")))),
        };
        let result = fleet.each(questions, self.context.stopped, join, ask, done);
        statistics::record(self.context, &fleet)?;
        match result {
            Ok(()) => Ok(()),
            Err(_) if !has_others => match replicas.iter().find_map(Replica::failure) {
                Some(error) => Err(error),
                None => Err(OperatorError::internal(PLACE, "a server that is left without a reason")),
            },
            Err(absences) => Err(statistics::nobody(&fleet, &absences)),
        }
    }

    /// Where an item belongs: the responses to a prompt go to one server, and prompts that begin
    /// alike.
    fn place(&self, item: &Item) -> Result<Place, OperatorError> {
        let ids = self.prompt_ids(item)?;
        let prefix = if ids.len() >= 2 * PREFIX_TOKENS { &ids[..PREFIX_TOKENS] } else { ids };
        let mut hasher = blake3::Hasher::new();
        for id in prefix {
            hasher.update(&id.to_le_bytes());
        }
        let hash = hasher.finalize();
        let bytes = hash.as_bytes().first_chunk().copied().unwrap_or_default();
        Ok(Place { group: item.prompt, prefix: u64::from_le_bytes(bytes) })
    }

    /// The policy's own responses, computed once, for the comparison with each server; else the
    /// reason why there are none.
    fn yardstick(&self, items: &[Item]) -> Result<&Yardstick, &str> {
        let computed = self.yardstick.get_or_init(|| Yardstick::new(self, items).map_err(|error| error.to_string()));
        computed.as_ref().map_err(String::as_str)
    }

    /// The most tokens of a response to a prompt.
    fn most_tokens(&self, prompt_ids: &[i32]) -> usize {
        let room = self.checkpoint.config.longest_sequence().0.saturating_sub(prompt_ids.len());
        (self.settings.max_new_tokens as usize).min(room)
    }

    /// Calls `then` with the request for an item.
    fn request<T>(&self, item: &Item, then: impl FnOnce(Request) -> T) -> Result<T, OperatorError> {
        let prompt = &self.prompts[item.prompt];
        let prompt_ids = self.prompt_ids(item)?;
        let (text, special) = self.checkpoint.prompt_text(&prompt.content)?;
        let seed = self.context.seed().number("generate", &prompt.id, item.response_index);
        let conversation = match &prompt.content {
            PromptContent::Text(_) => None,
            PromptContent::Messages(conversation) => Some(self.conversation(conversation)),
        };
        let opening = prompt_ids.first().filter(|id| self.checkpoint.opening_token() == Some(**id));
        let opening = opening.filter(|_| special == SpecialTokens::Written).and_then(|id| self.checkpoint.tokenizer.token(*id));
        Ok(then(Request {
            prompt_ids,
            prompt: &text,
            without_opening: opening.and_then(|opening| text.strip_prefix(opening.as_str())),
            conversation: conversation.as_ref(),
            add_special_tokens: special != SpecialTokens::Written,
            max_tokens: self.most_tokens(prompt_ids),
            temperature: self.settings.temperature,
            top_p: self.settings.top_p,
            top_k: self.settings.top_k,
            min_p: self.settings.min_p,
            repetition_penalty: self.settings.repetition_penalty,
            presence_penalty: self.settings.presence_penalty,
            min_tokens: self.settings.min_new_tokens as usize,
            stop: &self.settings.stop,
            stop_token_ids: &self.checkpoint.generation.eos_token_ids,
            // Every server takes 31 bits.
            seed: (seed >> 33) as u32,
        }))
    }

    /// A conversation as the chat API has it: messages, tools, and the other variables of the chat
    /// template.
    fn conversation(&self, conversation: &Conversation) -> Fields {
        let messages = conversation.messages.iter().map(|message| Value::Object(message.clone().into())).collect();
        let mut fields = Fields::from_iter([("messages".to_string(), messages)]);
        let mut variables = self.context.task.template_settings().variables;
        variables.extend(conversation.variables.clone());
        fields.extend(variables.shift_remove("tools").map(|tools| ("tools".to_string(), tools)));
        if !variables.is_empty() {
            fields.insert("chat_template_kwargs".to_string(), Value::Object(variables));
        }
        fields
    }

    fn failed(&self, prompt: usize, response_index: u32, error: String) -> Result<responses::Row, OperatorError> {
        Ok(responses::Row { error: Some(error), ..self.row(prompt, response_index)? })
    }

    /// An error row without its error.
    fn row(&self, prompt: usize, response_index: u32) -> Result<responses::Row, OperatorError> {
        Ok(responses::Row {
            prompt_id: self.prompts[prompt].id.clone(),
            sampled_iteration: self.sampled_iteration,
            response_index: signed(response_index as usize, PLACE)?,
            token_ids: Vec::new(),
            prompt_token_count: 0,
            text: String::new(),
            finish_reason: FinishReason::Error,
            logprob: None,
            policy_fingerprint: self.policy_fingerprint.clone(),
            error: None,
        })
    }
}
