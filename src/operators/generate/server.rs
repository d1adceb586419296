//! generate by a server: each response is a request of its own, asked for once, committed in small
//! parts.
//!
//! A response without success after all retries is an error row. When the node runs again, it asks
//! for these rows only, and replaces their parts. Knows the policy's tokenizer and template, not
//! its weights.

use std::ops::ControlFlow;
use std::path::absolute;
use std::time::Duration;

use super::super::support::ignored;
use super::super::support::rows::{signed, unsigned};
use super::super::{Context, OperatorError, Prompt};
use super::{prompt_ids, response_indices, response_text, without_cut};
use crate::generation::StopStrings;
use crate::model::{Checkpoint, SpecialTokens};
use crate::pipeline::slot::Slot;
use crate::pipeline::spec::engine::{Engine, Failures, TokenIds};
use crate::pipeline::spec::generate::Generate;
use crate::remote::{self, Client, Completion, Completions, Finish, Patience, PromptForm, RemoteError, Request};
use crate::store::{Event, EventKind, TableWriter};
use crate::tables::{FinishReason, TableKind, responses};

/// The most parts, unless the node's resources set a part's size. A part is one file, and the most
/// work lost by a kill.
const MOST_PARTS: usize = 512;

/// The longest time for a setting.
const LONGEST_SECONDS: f64 = 1e6;

/// The error of rows without a request so far.
const NOT_ASKED: &str = "not asked yet: the run was stopped";

/// This module in internal errors.
const PLACE: &str = "operators::generate::server";

/// The server's client; it connects to nothing yet.
///
/// # Errors
/// An invalid URL, or a missing key.
pub fn client(engine: &Engine) -> Result<Client, OperatorError> {
    let patience = Patience { timeout: seconds(engine.timeout_seconds), retries: engine.retries as usize, ..Patience::default() };
    Ok(Client::new(&engine.openai.value, engine.api_key_env.as_ref().map(|name| name.value.as_str()), patience)?)
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
    };
    let mut parts = Parts::read(&job, writer)?;
    let items = parts.items();
    let label = context.task.label();
    let total = prompts.len() * job.per_prompt();
    let mut done = total - items.len();
    let mut tokens = 0;
    context.progress.started(&label, "responses", done as u64, total as u64);
    if !items.is_empty() {
        let (server, form) = job.server(&items)?;
        let mut failed = None;
        let ask = |item: &Item| job.ask(&server, form, item);
        remote::each(&items, engine.concurrency as usize, context.stopped, ask, |index, answer| {
            match parts.store(items.get(index), answer) {
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
            }
        });
        failed.map_or(Ok(()), Err)?;
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

    /// The server with the policy loaded, and its form of prompts.
    fn server(&self, items: &[Item]) -> Result<(Completions, PromptForm), OperatorError> {
        let client = client(self.engine)?;
        let name = &self.engine.model.value;
        let stopped = self.context.stopped;
        let server = match &self.engine.serve {
            Some(command) => {
                let path = self.context.whole_model(Slot::Policy)?;
                let path = absolute(&path).map_err(|error| OperatorError::Input(format!("{}: {error}", path.display())))?;
                let limit = seconds(self.engine.serve_timeout_seconds);
                remote::serve(&command.value, &self.context.graph.folder, &path, &client, name, limit, stopped)?
            }
            None => Completions::find(client, name, stopped)?,
        };
        let Generate { repetition_penalty, presence_penalty, min_new_tokens, .. } = self.settings;
        if server.has_other_penalties() && (*repetition_penalty != 1.0 || *presence_penalty != 0.0 || *min_new_tokens > 0) {
            return Err(OperatorError::Input(format!(
                "{}: repetition_penalty, presence_penalty and min_new_tokens have another meaning in llama.cpp, or none; sample on this \
                 machine, on vLLM or on SGLang",
                self.engine.openai.value
            )));
        }
        let task = self.context.task;
        let mut event = Event::new(EventKind::ServerFound, &task.name, task.iteration);
        event.message = Some(format!("{} {}", self.engine.openai.value, server.identity()));
        self.context.run.record(event)?;
        let form = match (self.engine.token_ids, items.first()) {
            (TokenIds::Always, _) | (_, None) => PromptForm::Ids,
            (TokenIds::Never, _) => PromptForm::Text,
            (TokenIds::Auto, Some(item)) => self.request(item, |request| server.prompt_form(&request, stopped))??,
        };
        Ok((server, form))
    }

    /// Calls `then` with the request for an item.
    fn request<T>(&self, item: &Item, then: impl FnOnce(Request) -> T) -> Result<T, OperatorError> {
        let prompt = &self.prompts[item.prompt];
        let prompt_ids = self.prompt_ids(item)?;
        let (text, special) = self.checkpoint.prompt_text(&prompt.content)?;
        let room = self.checkpoint.config.longest_sequence().0.saturating_sub(prompt_ids.len());
        let seed = self.context.seed().number("generate", &prompt.id, item.response_index);
        Ok(then(Request {
            prompt_ids,
            prompt: &text,
            add_special_tokens: special != SpecialTokens::Written,
            max_tokens: (self.settings.max_new_tokens as usize).min(room),
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

    /// One row: the server's response or an error. `None` when the run was stopped.
    fn ask(&self, server: &Completions, form: PromptForm, item: &Item) -> Result<Option<responses::Row>, OperatorError> {
        let error = match self.request(item, |request| server.complete(&request, form, self.context.stopped))? {
            Err(RemoteError::Stopped) => return Ok(None),
            Err(error) => error.to_string(),
            Ok(completion) => match self.response(item, completion) {
                Ok(row) => return Ok(Some(row)),
                Err(error @ OperatorError::Internal { .. }) => return Err(error),
                Err(error) => error.to_string(),
            },
        };
        Ok(Some(self.failed(item.prompt, item.response_index, error)?))
    }

    /// The row of a response. Without ids from the server, its text is tokenized behind the
    /// prompt's.
    fn response(&self, item: &Item, completion: Completion) -> Result<responses::Row, OperatorError> {
        let prompt = &self.prompts[item.prompt];
        let prompt_ids = self.prompt_ids(item)?;
        let tokenizer = &self.checkpoint.tokenizer;
        let mut ids = match completion.token_ids {
            Some(ids) => ids,
            None if self.stop.is_some() => {
                let problem = "expected the response's token ids, found none; without them the end by a stop string is not known";
                return Err(OperatorError::Failed(problem.to_string()));
            }
            None => {
                let (text, special) = self.checkpoint.prompt_text(&prompt.content)?;
                let pair = tokenizer.encode_pair(&text, &format!("{text}{}", completion.text), special)?;
                let problem = || OperatorError::internal(PLACE, "a response tokenized with its prompt is shorter than the prompt");
                pair.token_ids.get(pair.prompt_token_count..).ok_or_else(problem)?.to_vec()
            }
        };
        let vocabulary = self.checkpoint.config.vocab_size;
        if let Some(id) = ids.iter().find(|id| !usize::try_from(**id).is_ok_and(|id| id < vocabulary)) {
            return Err(OperatorError::Failed(format!(
                "expected token ids below {vocabulary}, found {id}; the server serves another model"
            )));
        }
        let given = ids.len();
        let is_end = |id: &i32| self.checkpoint.generation.eos_token_ids.contains(id);
        let cut = self.cut(prompt_ids, &ids)?;
        if let (Some(string), "") = (&completion.stop_string, cut.as_str()) {
            let problem = format!("expected the tokens of the stop string {string:?} at the response's end, found others");
            return Err(OperatorError::Failed(problem));
        }
        if completion.finish == Finish::Stop && cut.is_empty() && !ids.last().is_some_and(is_end) {
            let end = self.checkpoint.end_token(&prompt.content);
            let problem = "the response stopped, but the policy has no eos_token_id to stop by";
            ids.push(end.ok_or_else(|| OperatorError::Failed(problem.to_string()))?);
        }
        let least = self.settings.min_new_tokens as usize;
        if completion.finish == Finish::Stop && least > 0 && ids.len() <= least {
            let problem = format!("expected more than {least} tokens, found {}; the server does not know min_tokens", ids.len());
            return Err(OperatorError::Failed(problem));
        }
        let logprobs = completion.logprobs.filter(|logprobs| self.samples_all() && logprobs.len() == ids.len() && given == ids.len());
        let text = without_cut(response_text(tokenizer, prompt_ids, &ids)?, &cut)?;
        let mut row = self.row(item.prompt, item.response_index)?;
        row.prompt_token_count = signed(prompt_ids.len(), PLACE)?;
        row.token_ids = [prompt_ids, &ids].concat();
        row.text = text;
        row.finish_reason = if completion.finish == Finish::Stop { FinishReason::Stop } else { FinishReason::Length };
        row.logprob = logprobs.map(|logprobs| logprobs.iter().sum::<f64>()).filter(|sum| sum.is_finite());
        Ok(row)
    }

    /// Whether the sampled distribution is the model's own, of which servers give logprobs.
    fn samples_all(&self) -> bool {
        let Generate { temperature, top_p, top_k, min_p, repetition_penalty, presence_penalty, min_new_tokens, .. } = self.settings;
        let unchanged = [(temperature, 1.0), (top_p, 1.0), (min_p, 0.0), (repetition_penalty, 1.0), (presence_penalty, 0.0)];
        top_k.is_none() && *min_new_tokens == 0 && unchanged.iter().all(|(setting, neutral)| **setting == *neutral)
    }

    /// The end of the response's text from the stop string on that its last token completes; empty
    /// without one.
    fn cut(&self, prompt_ids: &[i32], ids: &[i32]) -> Result<String, OperatorError> {
        let Some(stop) = &self.stop else { return Ok(String::new()) };
        let mut text = stop.behind(prompt_ids);
        for (at, id) in ids.iter().enumerate() {
            let is_end = self.checkpoint.generation.eos_token_ids.contains(id);
            if let Some(cut) = if is_end { None } else { text.push(*id)? } {
                if at + 1 < ids.len() {
                    let problem =
                        format!("expected the response to end at token {}, found {}; the server does not know `stop`", at + 1, ids.len());
                    return Err(OperatorError::Failed(problem));
                }
                return Ok(cut);
            }
        }
        Ok(String::new())
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

/// The table so far.
struct Parts<'a, 'w> {
    job: &'a ServerJob<'a>,
    writer: TableWriter<'w>,
    parts: Vec<PartRows>,
}

/// The rows of one part.
struct PartRows {
    /// `None` for rows to ask for.
    rows: Vec<Option<responses::Row>>,
    /// Whether a row is not on disk yet.
    changed: bool,
}

impl<'a, 'w> Parts<'a, 'w> {
    /// The committed parts; their failed rows are to be asked for again.
    fn read(job: &'a ServerJob<'a>, writer: TableWriter<'w>) -> Result<Self, OperatorError> {
        let mut parts = Vec::with_capacity(writer.part_count());
        for part in 0..writer.part_count() {
            let items: Vec<Item> = items_of(job, &writer, part);
            let committed = writer.committed_part(part)?.map(|batch| responses::rows(&batch)).transpose()?;
            let is_missing = committed.is_none();
            let committed: Vec<Option<responses::Row>> = match committed {
                Some(rows) => rows.into_iter().map(|row| if row.error.is_none() { Some(row) } else { None }).collect(),
                None => vec![None; items.len()],
            };
            if committed.len() != items.len() {
                let problem = format!("{}: expected {} responses, found {}", writer.name_of(part), items.len(), committed.len());
                return Err(OperatorError::internal(PLACE, problem));
            }
            let mut rows = Vec::with_capacity(items.len());
            for (item, committed) in items.iter().zip(committed) {
                rows.push(match (committed, &job.encoded[item.prompt]) {
                    (Some(row), _) => Some(row),
                    (None, Err(error)) => Some(job.failed(item.prompt, item.response_index, error.clone())?),
                    (None, Ok(_)) => None,
                });
            }
            let changed = is_missing && rows.iter().all(Option::is_some);
            parts.push(PartRows { rows, changed });
        }
        Ok(Self { job, writer, parts })
    }

    /// The responses to ask for, in order.
    fn items(&self) -> Vec<Item> {
        let mut open = Vec::new();
        for (number, part) in self.parts.iter().enumerate() {
            let items = items_of(self.job, &self.writer, number);
            open.extend(items.into_iter().zip(&part.rows).filter(|(_, row)| row.is_none()).map(|(item, _)| item));
        }
        open
    }

    /// Takes in the answer for `item`. Returns its number of response tokens; `None` when the run
    /// was stopped before the answer.
    fn store(&mut self, item: Option<&Item>, answer: Result<Option<responses::Row>, OperatorError>) -> Result<Option<u64>, OperatorError> {
        let Some(row) = answer? else { return Ok(None) };
        let item = item.ok_or_else(|| OperatorError::internal(PLACE, "an answer to a request of no response"))?;
        let tokens = row.token_ids.len().saturating_sub(unsigned(row.prompt_token_count, PLACE)?);
        self.fill(*item, row)?;
        Ok(Some(tokens as u64))
    }

    /// Fills in a row; a part with all its rows is committed.
    fn fill(&mut self, item: Item, row: responses::Row) -> Result<(), OperatorError> {
        let row_of_item = self.parts.get_mut(item.part).and_then(|part| part.rows.get_mut(item.row));
        let problem = || OperatorError::internal(PLACE, format!("no row {} in part {} for a response", item.row, item.part));
        *row_of_item.ok_or_else(problem)? = Some(row);
        let part = &mut self.parts[item.part];
        part.changed = true;
        if part.rows.iter().all(Option::is_some) { self.commit(item.part) } else { Ok(()) }
    }

    /// Commits incomplete parts with new rows, after a stop. Their open rows are errors; the next
    /// run asks for them.
    fn commit_rest(&mut self) -> Result<(), OperatorError> {
        for part in 0..self.parts.len() {
            if self.parts[part].changed {
                self.commit(part)?;
            }
        }
        Ok(())
    }

    fn commit(&mut self, number: usize) -> Result<(), OperatorError> {
        let items = items_of(self.job, &self.writer, number);
        let part = &mut self.parts[number];
        let mut rows = Vec::with_capacity(items.len());
        for (item, row) in items.iter().zip(&part.rows) {
            rows.push(match row {
                Some(row) => row.clone(),
                None => self.job.failed(item.prompt, item.response_index, NOT_ASKED.to_string())?,
            });
        }
        part.changed = false;
        Ok(self.writer.replace(number, &responses::batch(&rows))?)
    }

    /// The number of failed responses to encoded prompts, and the first one's error.
    fn first_failure(&self) -> Option<(usize, String)> {
        let per_prompt = self.job.per_prompt();
        let mut count = 0;
        let mut first = None;
        for (number, part) in self.parts.iter().enumerate() {
            let first_prompt = self.writer.rows_of(number).start;
            for (index, row) in part.rows.iter().enumerate() {
                let was_asked = self.job.encoded[first_prompt + index / per_prompt].is_ok();
                if let Some(error) = row.as_ref().and_then(|row| row.error.as_ref())
                    && was_asked
                {
                    count += 1;
                    first.get_or_insert_with(|| error.clone());
                }
            }
        }
        first.map(|first| (count, first))
    }
}

/// All responses of a part, in the order of its rows.
fn items_of(job: &ServerJob, writer: &TableWriter, part: usize) -> Vec<Item> {
    let mut items = Vec::new();
    for prompt in writer.rows_of(part) {
        for response_index in response_indices(job.settings) {
            items.push(Item { part, row: items.len(), prompt, response_index });
        }
    }
    items
}
