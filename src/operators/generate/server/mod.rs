//! generate by servers: each response is a request of its own, asked for once, committed in small
//! parts.
//!
//! A response without success after all retries is an error row. When the node runs again, it asks
//! for these rows only, and replaces their parts. Knows the policy's tokenizer and template; its
//! weights only for the comparison with a server.

mod job;
mod parts;
mod program;
mod replica;
mod row;
mod update;
mod yardstick;

use std::ops::ControlFlow;
use std::path::absolute;

use super::super::support::{ignored, lora, statistics};
use super::super::{Context, OperatorError, Prompt};
use super::prompt_ids;
use crate::generation::StopStrings;
use crate::pipeline::graph::{Graph, Task};
use crate::pipeline::slot::Slot;
use crate::pipeline::spec::engine::{Engine, Failures};
use crate::pipeline::spec::generate::Generate;
use crate::pipeline::spec::update::Update;
use crate::remote::{self, Absence, Attempt, Client, Fleet, Patience, Place, Questions};
use crate::store::TableWriter;
use crate::tables::TableKind;
use job::{Item, PLACE, ServerJob, seconds};
use parts::Parts;
use replica::{Replica, Shared};
use update::{PolicyUpdate, ServerUpdate};

/// The most parts, unless the node's resources set a part's size. A part is one file, and the most
/// work lost by a kill.
const MOST_PARTS: usize = 512;

/// Prompts with so many first tokens in common go to the same server, if they are at least twice as
/// long.
const PREFIX_TOKENS: usize = 32;

/// Checks the servers of a task without a connection: addresses, key, and the models that adapters
/// are on.
///
/// # Errors
/// An invalid URL, a missing key, or an adapter on a model that the servers cannot have.
pub fn check(graph: &Graph, task: &Task, engine: &Engine) -> Result<(), OperatorError> {
    clients(engine)?;
    update::check(engine)?;
    let adapts = engine.update.as_ref().is_some_and(|update| update.value == Update::Lora);
    match task.input(Slot::Policy) {
        Some(policy) if adapts && !lora::is_on_source(graph, policy) => Err(OperatorError::Input(
            "`update: lora` loads adapters on a model of `inputs`, found a policy that is a whole model of this pipeline, or on one; \
             train it with `lora` from an input, or load it whole, by `update: vllm`"
                .to_string(),
        )),
        _ => Ok(()),
    }
}

/// The servers' clients; they connect to nothing yet.
///
/// # Errors
/// An invalid URL, or a missing key.
fn clients(engine: &Engine) -> Result<Vec<Client>, OperatorError> {
    let key = engine.api_key_env.as_ref().map(|name| name.value.as_str());
    engine.openai.iter().map(|url| Ok(Client::new(url, key, patience(engine))?)).collect()
}

fn patience(engine: &Engine) -> Patience {
    Patience { timeout: seconds(engine.timeout_seconds), retries: engine.retries as usize, ..Patience::default() }
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
        load(&job)?;
        let mut failed = None;
        let result = ask(&job, &items, |index, answer| match parts.store(items.get(index), answer) {
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

/// Has the servers load the policy, where the pipeline says how.
fn load(job: &ServerJob) -> Result<(), OperatorError> {
    let Some(command) = &job.engine.serve else { return Ok(()) };
    let path = job.context.whole_model(Slot::Policy)?;
    let path = absolute(&path).map_err(|error| OperatorError::Input(format!("{}: {error}", path.display())))?;
    let limit = seconds(job.engine.serve_timeout_seconds);
    Ok(remote::serve(&command.value, &job.context.graph.folder, &path, limit, job.context.stopped)?)
}

/// Asks the servers for all items.
///
/// # Errors
/// No server can be asked.
fn ask(job: &ServerJob, items: &[Item], done: impl FnMut(usize, replica::Answer) -> ControlFlow<()>) -> Result<(), OperatorError> {
    let clients = clients(job.engine)?;
    let has_others = clients.len() > 1;
    let patience = patience(job.engine);
    let policy = PolicyUpdate::new(job)?;
    // A server alone joins again only if joining brings it the policy.
    let leaves = has_others || policy.is_some();
    // Of one server, each request has its retries; of several, the next attempt is on another.
    let of_items = if leaves { patience } else { Patience { retries: 0, ..patience } };
    let shared = Shared::new(job);
    let replica = |(index, client)| {
        let update = policy.as_ref().map(|policy| ServerUpdate::new(policy, index));
        Replica::new(&shared, client, leaves, update)
    };
    let replicas: Vec<Replica> = clients.into_iter().enumerate().map(replica).collect();
    let fleet = Fleet::new(job.engine.openai.iter(), of_items);
    let fleet = if leaves { fleet.leaving_all() } else { fleet };
    let places = items.iter().map(|item| place(job, item)).collect::<Result<Vec<_>, _>>()?;
    let questions = Questions { items, places, threads: job.engine.concurrency as usize };
    let join = |index: usize, is_over: remote::Stopped| match replicas.get(index) {
        Some(replica) => replica.join(items, is_over),
        None => Err(Absence { problem: format!("no server {index}"), is_final: true }),
    };
    let ask = |index: usize, item: &Item| match replicas.get(index) {
        Some(replica) => replica.ask(item),
        None => Attempt::Answered(Err(OperatorError::internal(PLACE, format!("no server {index}")))),
    };
    let result = fleet.each(questions, job.context.stopped, join, ask, done);
    statistics::record(job.context, &fleet)?;
    match result {
        Ok(()) => Ok(()),
        Err(absences) if !has_others => {
            Err(replicas.iter().find_map(Replica::failure).unwrap_or_else(|| statistics::nobody(&fleet, &absences)))
        }
        Err(absences) => Err(statistics::nobody(&fleet, &absences)),
    }
}

/// Where an item belongs: the responses to a prompt go to one server, and prompts that begin
/// alike.
fn place(job: &ServerJob, item: &Item) -> Result<Place, OperatorError> {
    let ids = job.prompt_ids(item)?;
    let prefix = if ids.len() >= 2 * PREFIX_TOKENS { &ids[..PREFIX_TOKENS] } else { ids };
    let mut hasher = blake3::Hasher::new();
    for id in prefix {
        hasher.update(&id.to_le_bytes());
    }
    let hash = hasher.finalize();
    let bytes = hash.as_bytes().first_chunk().copied().unwrap_or_default();
    Ok(Place { group: item.prompt, prefix: u64::from_le_bytes(bytes) })
}
