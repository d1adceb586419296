//! generate by a server: each response is a request of its own, asked for once, committed in small parts.
//!
//! A response that failed in spite of all retries is an error row; when the node runs again, only those rows are asked for, and their part is
//! replaced. Knows the policy's tokenizer and template, not its weights.

use std::ops::ControlFlow;
use std::path::absolute;
use std::time::Duration;

use super::super::{Context, OperatorError, Prompt};
use super::{prompt_ids, response_text};
use crate::model::{Checkpoint, SpecialTokens};
use crate::pipeline::slot::Slot;
use crate::pipeline::spec::engine::{Engine, Failures, TokenIds};
use crate::pipeline::spec::sampling::Generate;
use crate::remote::{self, Client, Completion, Completions, Finish, Patience, PromptForm, RemoteError, Request};
use crate::store::{Event, EventKind, TableWriter};
use crate::tables::{FinishReason, TableKind, responses};

/// The most parts, unless the node's resources say otherwise: a part is what a kill can lose, and a file.
const MOST_PARTS: usize = 512;
/// The longest time that a setting can give.
const LONGEST_SECONDS: f64 = 1e6;
/// The error of rows that were not asked for yet.
const NOT_ASKED: &str = "not asked yet: the run was stopped";

/// The server's client, which connects to nothing yet.
///
/// # Errors
/// A URL that is none, or a key that is not set.
pub(in crate::operators) fn client(engine: &Engine) -> Result<Client, OperatorError> {
    let patience = Patience { timeout: seconds(engine.timeout_seconds), retries: engine.retries as usize, ..Patience::default() };
    Ok(Client::new(&engine.openai.value, engine.api_key_env.as_ref().map(|name| name.value.as_str()), patience)?)
}

fn seconds(number: f64) -> Duration {
    Duration::from_secs_f64(number.clamp(0.0, LONGEST_SECONDS))
}

/// Asks for all responses to `prompts` that are not there yet; gives the writer with all parts committed, and how many tokens came.
pub(in crate::operators) fn run<'a>(
    context: &'a Context<'_>,
    settings: &Generate,
    engine: &Engine,
    prompts: &[Prompt],
) -> Result<(TableWriter<'a>, u64), OperatorError> {
    let checkpoint = context.checkpoint(Slot::Policy)?;
    let encoded: Vec<Result<Vec<i32>, String>> = prompts.iter().map(|prompt| prompt_ids(&checkpoint, prompt, settings)).collect();
    let writer = context.writer(Some(TableKind::Responses), prompts.len(), prompts.len().div_ceil(MOST_PARTS))?;
    let asking = Asking {
        context,
        settings,
        engine,
        prompts,
        encoded,
        checkpoint,
        policy_fingerprint: context.fingerprint_of(Slot::Policy)?.to_string(),
    };
    let mut parts = Parts::read(&asking, writer)?;
    let items = parts.items();
    let (label, total) = (context.task.label(), prompts.len() * settings.responses_per_prompt as usize);
    let done_before = total - items.len();
    context.progress.started(&label, "responses", done_before as u64, total as u64);
    let (mut done, mut tokens) = (done_before, 0);
    if !items.is_empty() {
        let (server, form) = asking.server(&items)?;
        let mut failed = None;
        let work = |item: &Item| asking.ask(&server, form, item);
        remote::each(&items, engine.concurrency as usize, context.stopped, work, |index, answer| {
            let (Some(item), Some(row)) = (items.get(index), answer.transpose()) else { return ControlFlow::Continue(()) };
            let stored = row.and_then(|row| {
                tokens += row.token_ids.len().saturating_sub(row.prompt_token_count.max(0) as usize) as u64;
                parts.fill(*item, row)
            });
            if let Err(error) = stored {
                failed = Some(error);
                return ControlFlow::Break(());
            }
            done += 1;
            context.progress.advanced(&label, done as u64, tokens);
            ControlFlow::Continue(())
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

/// One response to be asked for.
#[derive(Clone, Copy, Debug)]
struct Item {
    part: usize,
    /// Its row in the part.
    row: usize,
    /// Its prompt's place among all.
    prompt: usize,
    response_index: u32,
}

/// What is asked, and how.
struct Asking<'a> {
    context: &'a Context<'a>,
    settings: &'a Generate,
    engine: &'a Engine,
    prompts: &'a [Prompt],
    /// The prompts' ids, or why they cannot be answered.
    encoded: Vec<Result<Vec<i32>, String>>,
    checkpoint: Checkpoint,
    policy_fingerprint: String,
}

impl Asking<'_> {
    /// The server once it serves the policy, and how to send it prompts.
    fn server(&self, items: &[Item]) -> Result<(Completions, PromptForm), OperatorError> {
        let (client, name, stopped) = (client(self.engine)?, &self.engine.model.value, self.context.stopped);
        let server = match &self.engine.serve {
            Some(command) => {
                let path = self.context.whole_model(Slot::Policy)?;
                let path = absolute(&path).map_err(|error| OperatorError::Input(format!("{}: {error}", path.display())))?;
                remote::serve(&command.value, &path, &client, name, seconds(self.engine.serve_timeout_seconds), stopped)?
            }
            None => Completions::find(client, name, stopped)?,
        };
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
        // Items are made of prompts that could be encoded.
        let prompt_ids = self.encoded[item.prompt].as_deref().unwrap_or_default();
        let (text, special) = self.checkpoint.prompt_text(&prompt.content)?;
        let room = self.checkpoint.config.max_position_embeddings.saturating_sub(prompt_ids.len());
        let seed = self.context.seed().number("generate", &prompt.id, item.response_index);
        Ok(then(Request {
            prompt_ids,
            prompt: &text,
            add_special_tokens: special != SpecialTokens::Written,
            max_tokens: (self.settings.max_new_tokens as usize).min(room),
            temperature: self.settings.temperature,
            top_p: self.settings.top_p,
            top_k: self.settings.top_k,
            // Every server takes 31 bits.
            seed: (seed >> 33) as u32,
        }))
    }

    /// One row: the server's response, or why there is none. `None` when the run was stopped.
    fn ask(&self, server: &Completions, form: PromptForm, item: &Item) -> Result<Option<responses::Row>, OperatorError> {
        let answer = match self.request(item, |request| server.complete(&request, form, self.context.stopped))? {
            Err(RemoteError::Stopped) => return Ok(None),
            Err(error) => Err(error.to_string()),
            Ok(completion) => self.answered(item, completion).map_err(|error| error.to_string()),
        };
        Ok(Some(answer.unwrap_or_else(|error| self.failed(item.prompt, item.response_index, error))))
    }

    /// The row of a response. Ids that the server does not give are those of its text behind the prompt's.
    fn answered(&self, item: &Item, completion: Completion) -> Result<responses::Row, OperatorError> {
        let prompt = &self.prompts[item.prompt];
        let prompt_ids = self.encoded[item.prompt].as_deref().unwrap_or_default();
        let tokenizer = &self.checkpoint.tokenizer;
        let mut ids = match completion.token_ids {
            Some(ids) => ids,
            None => {
                let (text, special) = self.checkpoint.prompt_text(&prompt.content)?;
                let pair = tokenizer.encode_pair(&text, &format!("{text}{}", completion.text), special)?;
                pair.token_ids.get(pair.prompt_token_count..).unwrap_or_default().to_vec()
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
        if completion.finish == Finish::Stop && !ids.last().is_some_and(is_end) {
            let end = self.checkpoint.end_token(&prompt.content);
            ids.push(
                end.ok_or_else(|| {
                    OperatorError::Failed("the response stopped, but the policy has no eos_token_id to stop by".to_string())
                })?,
            );
        }
        // Servers give logprobs under the model itself, which is what was sampled from only where nothing was changed or cut.
        let unchanged = self.settings.temperature == 1.0 && self.settings.top_p == 1.0 && self.settings.top_k.is_none();
        let logprobs = completion.logprobs.filter(|logprobs| unchanged && logprobs.len() == ids.len() && given == ids.len());
        let text = response_text(tokenizer, prompt_ids, &ids)?;
        let mut row = self.row(item.prompt, item.response_index);
        row.prompt_token_count = i32::try_from(prompt_ids.len()).unwrap_or(i32::MAX);
        row.token_ids = [prompt_ids, &ids].concat();
        row.text = text;
        row.finish_reason = if completion.finish == Finish::Stop { FinishReason::Stop } else { FinishReason::Length };
        row.logprob = logprobs.map(|logprobs| logprobs.iter().sum::<f64>()).filter(|sum| sum.is_finite());
        Ok(row)
    }

    fn failed(&self, prompt: usize, response_index: u32, error: String) -> responses::Row {
        responses::Row { error: Some(error), ..self.row(prompt, response_index) }
    }

    /// An error row without its error.
    fn row(&self, prompt: usize, response_index: u32) -> responses::Row {
        responses::Row {
            prompt_id: self.prompts[prompt].id.clone(),
            sampled_iteration: self.context.sampled_iteration(),
            response_index: i32::try_from(response_index).unwrap_or(i32::MAX),
            token_ids: Vec::new(),
            prompt_token_count: 0,
            text: String::new(),
            finish_reason: FinishReason::Error,
            logprob: None,
            policy_fingerprint: self.policy_fingerprint.clone(),
            error: None,
        }
    }
}

/// The table so far.
struct Parts<'a, 'w> {
    asking: &'a Asking<'a>,
    writer: TableWriter<'w>,
    parts: Vec<Part>,
}

/// The rows of one part.
struct Part {
    /// `None` for rows that are to be asked for.
    rows: Vec<Option<responses::Row>>,
    /// Whether there is anything that is not on disk.
    changed: bool,
}

impl<'a, 'w> Parts<'a, 'w> {
    /// What is committed already; rows that failed are to be asked for again.
    fn read(asking: &'a Asking<'a>, writer: TableWriter<'w>) -> Result<Self, OperatorError> {
        let per_prompt = asking.settings.responses_per_prompt;
        let mut parts = Vec::with_capacity(writer.part_count());
        for part in 0..writer.part_count() {
            let committed = writer.committed_part(part)?.map(|batch| responses::rows(&batch)).transpose()?;
            let is_missing = committed.is_none();
            let mut committed = committed.unwrap_or_default().into_iter();
            let places = writer.rows_of(part).flat_map(|prompt| (0..per_prompt).map(move |index| (prompt, index)));
            let rows: Vec<Option<responses::Row>> = places
                .map(|(prompt, index)| {
                    let there = committed.next().filter(|row| row.error.is_none());
                    there.or_else(|| Some(asking.failed(prompt, index, asking.encoded[prompt].clone().err()?)))
                })
                .collect();
            let changed = is_missing && rows.iter().all(Option::is_some);
            parts.push(Part { rows, changed });
        }
        Ok(Self { asking, writer, parts })
    }

    /// The rows to be asked for, in order.
    fn items(&self) -> Vec<Item> {
        let per_prompt = self.asking.settings.responses_per_prompt.max(1) as usize;
        let mut items = Vec::new();
        for (part, rows) in self.parts.iter().enumerate() {
            let first = self.writer.rows_of(part).start;
            let open = rows.rows.iter().enumerate().filter(|(_, found)| found.is_none());
            items.extend(open.map(|(row, _)| Item {
                part,
                row,
                prompt: first + row / per_prompt,
                response_index: (row % per_prompt) as u32,
            }));
        }
        items
    }

    /// Takes in a row; a part whose rows are all there is committed.
    fn fill(&mut self, item: Item, row: responses::Row) -> Result<(), OperatorError> {
        let Some(part) = self.parts.get_mut(item.part) else { return Ok(()) };
        if let Some(place) = part.rows.get_mut(item.row) {
            *place = Some(row);
        }
        part.changed = true;
        if part.rows.iter().all(Option::is_some) { self.commit(item.part) } else { Ok(()) }
    }

    /// Commits what came of parts that are not whole, after a stop; the rows that lack are errors, to be asked for next time.
    fn commit_rest(&mut self) -> Result<(), OperatorError> {
        (0..self.parts.len())
            .filter(|part| self.parts[*part].changed)
            .collect::<Vec<_>>()
            .into_iter()
            .try_for_each(|part| self.commit(part))
    }

    fn commit(&mut self, number: usize) -> Result<(), OperatorError> {
        let (asking, first) = (self.asking, self.writer.rows_of(number).start);
        let per_prompt = asking.settings.responses_per_prompt.max(1) as usize;
        let part = &mut self.parts[number];
        let row = |(row, found): (usize, &Option<responses::Row>)| {
            found.clone().unwrap_or_else(|| asking.failed(first + row / per_prompt, (row % per_prompt) as u32, NOT_ASKED.to_string()))
        };
        let rows: Vec<responses::Row> = part.rows.iter().enumerate().map(row).collect();
        part.changed = false;
        Ok(self.writer.replace(number, &responses::batch(&rows))?)
    }

    /// How many responses failed that could be asked for, and the first one's error.
    fn first_failure(&self) -> Option<(usize, String)> {
        let per_prompt = self.asking.settings.responses_per_prompt.max(1) as usize;
        let (mut count, mut first) = (0, None);
        for (part, rows) in self.parts.iter().enumerate() {
            for (row, found) in rows.rows.iter().enumerate() {
                let prompt = self.writer.rows_of(part).start + row / per_prompt;
                if let Some(error) = found.as_ref().and_then(|row| row.error.as_ref()).filter(|_| self.asking.encoded[prompt].is_ok()) {
                    count += 1;
                    first.get_or_insert_with(|| error.clone());
                }
            }
        }
        first.map(|first| (count, first))
    }
}
