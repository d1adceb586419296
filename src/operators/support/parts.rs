//! The parts of a table with the work of models: one after the other here, or several at a time on
//! the executors of a cluster.
//!
//! Knows no operator. An operator says what a part needs, and takes what was found.

use std::collections::{BTreeMap, HashSet, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread::Scope;
use std::time::{Duration, Instant};

use super::executors::Executors;
use super::model_work::{Found, TaskModel, Work};
use super::part_task::{self, PartTask, Settings};
use super::reward_tree;
use super::{Context, OperatorError};
use crate::pipeline::graph::{Graph, Task};
use crate::pipeline::spec::operator::Operator;

/// Parts asked for at first. The number grows with the executors that answer.
const FIRST_PARTS: usize = 4;
/// Parts for each executor that has answered: one in work, one that waits for it.
const PARTS_PER_EXECUTOR: usize = 2;
/// How often the coordinator looks for a stop and for late parts.
const LOOK: Duration = Duration::from_millis(100);
/// After this time without an answer the user is told.
const SILENCE: Duration = Duration::from_secs(45);
/// A part is late after this multiple of the usual time. If nothing else is to do, another executor
/// is asked for it too.
const LATE: u32 = 2;

/// This module in internal errors.
const PLACE: &str = "operators::support::parts";

/// The parts of a table in the making.
pub trait Parts {
    /// A part for messages.
    fn name(&self, part: usize) -> String;

    /// The work of models for a part; none if nothing is to be computed. Parts come in ascending
    /// order.
    fn work(&mut self, part: usize) -> Result<Vec<Work>, OperatorError>;

    /// Takes what was found for a part, in the order of its works. Parts come in any order.
    fn take(&mut self, part: usize, found: Vec<Found>) -> Result<(), OperatorError>;

    /// The units that are done, and the tokens computed for them, for the observer.
    fn so_far(&self) -> (u64, u64);
}

/// Makes the `missing` parts. `models` are those that the works name.
///
/// # Errors
/// The first error of a part, or [`OperatorError::Stopped`] after the parts in hand.
pub fn compute(context: &Context, models: &mut [TaskModel], missing: Vec<usize>, parts: &mut dyn Parts) -> Result<(), OperatorError> {
    match context.executors {
        Some(executors) => Flights::new(context, executors, models).compute(missing, parts),
        None => here(context, models, missing, parts),
    }
}

/// Makes the `missing` parts in this process, one after the other.
///
/// # Errors
/// As [`compute`].
pub fn here(context: &Context, models: &mut [TaskModel], missing: Vec<usize>, parts: &mut dyn Parts) -> Result<(), OperatorError> {
    let label = context.task.label();
    for part in missing {
        context.check_stopped()?;
        let works = parts.work(part)?;
        let mut found = Vec::with_capacity(works.len());
        for Work { model, of, job } in works {
            let (done, tokens) = parts.so_far();
            let mut observe = |new: usize| context.progress.advanced(&label, done, tokens + new as u64);
            let model = models.get_mut(model).ok_or_else(|| OperatorError::internal(PLACE, format!("{label} has no model {model}")))?;
            let one = model.working(context).and_then(|model| model.compute(&job, &context.device_time, &mut observe));
            let of_work = |error: OperatorError| match &of {
                Some(of) => error.of(of).of(&parts.name(part)),
                None => error.of(&parts.name(part)),
            };
            found.push(one.map_err(of_work)?);
        }
        parts.take(part, found)?;
    }
    Ok(())
}

/// A part on its way.
struct Flight {
    task: Arc<PartTask>,
    started: Instant,
    /// How many times it was asked for.
    copies: usize,
    /// Set when an answer is there or nobody waits for one any more.
    given_up: Arc<AtomicBool>,
}

/// The parts of a task that executors compute.
struct Flights<'c> {
    context: &'c Context<'c>,
    executors: &'c dyn Executors,
    models: &'c mut [TaskModel],
    /// The headers of the models, once one is needed.
    headers: Option<Vec<part_task::Model>>,
    flying: BTreeMap<usize, Flight>,
    /// The names of the executors that have answered.
    seen: HashSet<String>,
    /// The durations of the parts so far.
    durations: Vec<Duration>,
}

/// The answer to one part, or why there is none.
type Answer = (usize, Result<Vec<u8>, String>);

impl<'c> Flights<'c> {
    fn new(context: &'c Context<'c>, executors: &'c dyn Executors, models: &'c mut [TaskModel]) -> Self {
        Self { context, executors, models, headers: None, flying: BTreeMap::new(), seen: HashSet::new(), durations: Vec::new() }
    }

    fn compute(mut self, missing: Vec<usize>, parts: &mut dyn Parts) -> Result<(), OperatorError> {
        let (sender, receiver) = channel();
        std::thread::scope(|scope| {
            let result = self.fly(scope, missing.into(), parts, &sender, &receiver);
            self.flying.values().for_each(|flight| flight.given_up.store(true, Ordering::Relaxed));
            result
        })
    }

    fn fly<'s>(
        &mut self,
        scope: &'s Scope<'s, '_>,
        mut waiting: VecDeque<usize>,
        parts: &mut dyn Parts,
        sender: &Sender<Answer>,
        receiver: &Receiver<Answer>,
    ) -> Result<(), OperatorError>
    where
        'c: 's,
    {
        let mut heard = Instant::now();
        loop {
            let stopped = (self.context.stopped)();
            while !stopped && self.flying.len() < self.most() {
                let Some(part) = waiting.pop_front() else { break };
                let works = parts.work(part)?;
                if works.is_empty() {
                    parts.take(part, Vec::new())?;
                    continue;
                }
                let task = Arc::new(self.task(&parts.name(part), works)?);
                let flight = Flight { task, started: Instant::now(), copies: 0, given_up: Arc::default() };
                self.flying.insert(part, flight);
                self.ask(scope, part, sender);
            }
            if self.flying.is_empty() {
                return if waiting.is_empty() { Ok(()) } else { Err(OperatorError::Stopped) };
            }
            match receiver.recv_timeout(LOOK) {
                Ok((part, answer)) => {
                    heard = Instant::now();
                    self.land(part, answer, parts)?;
                }
                Err(RecvTimeoutError::Timeout) => {
                    if waiting.is_empty() && !stopped {
                        self.ask_again(scope, sender);
                    }
                    if heard.elapsed() > SILENCE {
                        heard = Instant::now();
                        self.tell_of_silence();
                    }
                }
                // This function holds a sender.
                Err(RecvTimeoutError::Disconnected) => return Err(OperatorError::internal(PLACE, "the answers ended")),
            }
        }
    }

    /// The number of parts on their way at most.
    fn most(&self) -> usize {
        FIRST_PARTS.max(PARTS_PER_EXECUTOR * self.seen.len())
    }

    fn task(&mut self, name: &str, works: Vec<Work>) -> Result<PartTask, OperatorError> {
        if self.headers.is_none() {
            let header = |model: &TaskModel| part_task::Model::new(&model.folders(self.context)?);
            self.headers = Some(self.models.iter().map(header).collect::<Result<_, OperatorError>>()?);
        }
        let name = format!("{} {name}", self.context.task.label());
        PartTask::new(&name, Settings::of(self.context)?, self.headers.as_deref().unwrap_or_default(), works)
    }

    /// Asks for a part on a thread of its own.
    fn ask<'s>(&mut self, scope: &'s Scope<'s, '_>, part: usize, sender: &Sender<Answer>)
    where
        'c: 's,
    {
        let Some(flight) = self.flying.get_mut(&part) else { return };
        flight.copies += 1;
        let (task, given_up, sender) = (flight.task.clone(), flight.given_up.clone(), sender.clone());
        let (context, executors) = (self.context, self.executors);
        scope.spawn(move || {
            let given_up = || given_up.load(Ordering::Relaxed);
            let tell = |message: &str| context.progress.warned(&context.task.label(), message);
            let answer = executors.ask(&task.bytes, &given_up, &tell);
            // Nobody listens for an answer after an error.
            let _ = sender.send((part, answer));
        });
    }

    /// Asks another executor for the parts that take much longer than usual.
    fn ask_again<'s>(&mut self, scope: &'s Scope<'s, '_>, sender: &Sender<Answer>)
    where
        'c: 's,
    {
        let mut sorted = self.durations.clone();
        sorted.sort_unstable();
        let Some(usual) = sorted.get(sorted.len() / 2) else { return };
        let is_late = |flight: &Flight| flight.copies == 1 && flight.started.elapsed() > *usual * LATE + LOOK;
        let late = self.flying.iter().filter(|(_, flight)| is_late(flight)).map(|(part, _)| *part);
        let idle = self.seen.len().saturating_sub(self.flying.len());
        for part in late.take(idle).collect::<Vec<_>>() {
            self.ask(scope, part, sender);
        }
    }

    /// Takes an answer.
    fn land(&mut self, part: usize, answer: Result<Vec<u8>, String>, parts: &mut dyn Parts) -> Result<(), OperatorError> {
        // A part that was asked for twice has an answer already.
        let Some(flight) = self.flying.get_mut(&part) else { return Ok(()) };
        let bytes = match answer {
            Ok(bytes) => bytes,
            Err(_) if flight.copies > 1 => {
                flight.copies -= 1;
                return Ok(());
            }
            Err(problem) => return Err(OperatorError::Failed(problem).of(&parts.name(part))),
        };
        let answer = part_task::answer(&bytes, &flight.task).map_err(|error| error.of(&parts.name(part)))?;
        flight.given_up.store(true, Ordering::Relaxed);
        self.durations.push(flight.started.elapsed());
        self.flying.remove(&part);
        self.seen.insert(answer.executor);
        self.context.device_time.add(answer.spent);
        parts.take(part, answer.found)
    }

    fn tell_of_silence(&self) {
        let label = self.context.task.label();
        let message = format!(
            "no part came back from the cluster for {} s, {} are on their way; {}",
            SILENCE.as_secs(),
            self.flying.len(),
            self.executors.state()
        );
        self.context.progress.warned(&label, &message);
    }
}

/// Why a task stays on this machine although there is a cluster; `None` if its parts go there.
pub fn staying(graph: &Graph, task: &Task) -> Option<&'static str> {
    match &task.operator {
        Operator::Generate(settings) if settings.engine.is_some() => Some("its server samples"),
        Operator::Generate(_) | Operator::Reference(_) | Operator::Evaluate(_) | Operator::Rank(_) | Operator::Answer(_) => None,
        Operator::Score(_) => match reward_tree::resolve(graph, task) {
            Ok(reward) if reward.has_model() => None,
            Ok(reward) if reward.is_relational() => Some("its query reads whole tables"),
            _ => Some("its servers or programs score"),
        },
        Operator::Train(_) | Operator::Sft(_) | Operator::RewardModel(_) => Some("a training keeps its state in one process"),
        Operator::Command(_) => Some("its program runs beside the run"),
        Operator::Judge(_) => Some("its server judges"),
        Operator::Select(_) | Operator::Merge(_) | Operator::Pair(_) | Operator::Sql(_) => Some("it reads whole tables"),
        Operator::Texts(_) | Operator::Grade(_) | Operator::AnswerResponses(_) | Operator::Benchmark(_) => Some("it has no model"),
    }
}
