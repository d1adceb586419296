//! The parts of a table on their way: several at a time are computed by the executors of a cluster.
//!
//! Knows neither operators nor the way of the bytes.

use std::collections::{BTreeMap, HashSet, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread::{self, Scope};
use std::time::{Duration, Instant};

use super::OperatorError;
use super::executors::Executors;
use super::model_work::{Found, Work};
use super::part_task::{self, PartTask, Settings};
use super::parted_task::PartedTask;
use super::replicas::Part;

/// Parts asked for at first. The number grows with the executors that answer.
const FIRST_PARTS: usize = 4;
/// Parts for each executor that has answered: one in work, one that waits for it.
const PARTS_PER_EXECUTOR: usize = 2;
/// How often the coordinator looks for a stop and for late parts.
const LOOK: Duration = Duration::from_millis(100);
/// After this time without an answer the user is told.
const SILENCE: Duration = Duration::from_secs(45);
/// After a stop or an error, the parts in hand have so long to come back.
const LAST_PARTS: Duration = Duration::from_secs(20);
/// A part is late after this multiple of the usual time. If nothing else is to do, another executor
/// is asked for it too, once.
const LATE: u32 = 2;

/// This module in internal errors.
const PLACE: &str = "operators::support::flights";

/// Has the `missing` parts computed by executors, as `parts::each_part` says it.
pub(super) fn each_part<K>(
    task: PartedTask,
    executors: &dyn Executors,
    missing: Vec<Part>,
    prepare: impl Fn(&Part) -> Result<(Vec<Work>, K), OperatorError>,
    take: impl FnMut(&Part, K, Vec<Found>) -> Result<u64, OperatorError>,
) -> Result<(), OperatorError> {
    thread::scope(|scope| Flights::new(task, executors).compute(scope, missing.into(), prepare, take))
}

/// A part on its way.
struct Flight<K> {
    part: Part,
    kept: K,
    task: Arc<PartTask>,
    started: Instant,
    /// How many times it is asked for now.
    copies: usize,
    /// How many times it was asked for.
    asked: usize,
    waited_for: WaitedFor,
}

/// Somebody waits for a part. Dropped, nobody does any more.
#[derive(Default)]
struct WaitedFor {
    given_up: Arc<AtomicBool>,
}

impl Drop for WaitedFor {
    fn drop(&mut self) {
        self.given_up.store(true, Ordering::Relaxed);
    }
}

/// The answer to one part, or why there is none.
type Answer = (usize, Result<Vec<u8>, String>);

/// The parts of a task with executors.
struct Flights<'c, K> {
    task: PartedTask<'c>,
    executors: &'c dyn Executors,
    /// The headers of the models, once one is needed.
    headers: Option<Vec<part_task::Model>>,
    /// By the numbers of the parts.
    flying: BTreeMap<usize, Flight<K>>,
    /// The names of the executors that have answered.
    seen: HashSet<String>,
    /// The durations of the parts so far.
    durations: Vec<Duration>,
    sender: Sender<Answer>,
    receiver: Receiver<Answer>,
}

impl<'c, K> Flights<'c, K> {
    fn new(task: PartedTask<'c>, executors: &'c dyn Executors) -> Self {
        let (sender, receiver) = channel();
        let (flying, seen) = (BTreeMap::new(), HashSet::new());
        Self { task, executors, headers: None, flying, seen, durations: Vec::new(), sender, receiver }
    }

    /// The loop of the coordinator. After a stop or an error it begins no further part, and waits
    /// for those in hand, but not for ever.
    fn compute<'s>(
        mut self,
        scope: &'s Scope<'s, '_>,
        mut waiting: VecDeque<Part>,
        prepare: impl Fn(&Part) -> Result<(Vec<Work>, K), OperatorError>,
        mut take: impl FnMut(&Part, K, Vec<Found>) -> Result<u64, OperatorError>,
    ) -> Result<(), OperatorError>
    where
        'c: 's,
    {
        let mut first = Ok(());
        let mut ending: Option<Instant> = None;
        let mut heard = Instant::now();
        loop {
            if first.is_ok() && !waiting.is_empty() {
                first = self.task.context.check_stopped();
            }
            while first.is_ok() && self.flying.len() < self.most() {
                let Some(part) = waiting.pop_front() else { break };
                first = self.begin(scope, part, &prepare, &mut take);
            }
            if self.flying.is_empty() && (first.is_err() || waiting.is_empty()) {
                return first;
            }
            if first.is_ok() && waiting.is_empty() && (self.task.context.stopped)() {
                // All parts are in hand: a stop only shortens the wait for them.
                ending.get_or_insert_with(Instant::now);
            }
            if first.is_err() {
                ending.get_or_insert_with(Instant::now);
            }
            if ending.is_some_and(|ending| ending.elapsed() > LAST_PARTS) {
                return first.and(Err(OperatorError::Stopped));
            }
            match self.receiver.recv_timeout(LOOK) {
                Ok((part, answer)) => {
                    heard = Instant::now();
                    if let Err(error) = self.land(part, answer, &mut take)
                        && matches!(first, Ok(()) | Err(OperatorError::Stopped))
                    {
                        // A stop is no fault: an error says more.
                        first = Err(error);
                    }
                }
                Err(RecvTimeoutError::Timeout) => {
                    if waiting.is_empty() && ending.is_none() {
                        self.ask_again(scope);
                    }
                    if heard.elapsed() > SILENCE {
                        heard = Instant::now();
                        self.tell_of_silence();
                    }
                }
                // This struct holds a sender.
                Err(RecvTimeoutError::Disconnected) => return Err(OperatorError::internal(PLACE, "the answers ended")),
            }
        }
    }

    /// The number of parts on their way at most.
    fn most(&self) -> usize {
        FIRST_PARTS.max(PARTS_PER_EXECUTOR * self.seen.len())
    }

    /// Sends a part on its way, unless it needs no model.
    fn begin<'s>(
        &mut self,
        scope: &'s Scope<'s, '_>,
        part: Part,
        prepare: impl Fn(&Part) -> Result<(Vec<Work>, K), OperatorError>,
        take: &mut impl FnMut(&Part, K, Vec<Found>) -> Result<u64, OperatorError>,
    ) -> Result<(), OperatorError>
    where
        'c: 's,
    {
        let (works, kept) = prepare(&part).map_err(|error| error.of(&part.name))?;
        if works.is_empty() {
            let tokens = take(&part, kept, Vec::new())?;
            self.task.advance.finish(part.rows.len(), tokens, 0);
            return Ok(());
        }
        let task = Arc::new(self.part_task(&part, works)?);
        let number = part.number;
        let flight = Flight { part, kept, task, started: Instant::now(), copies: 0, asked: 0, waited_for: WaitedFor::default() };
        self.flying.insert(number, flight);
        self.ask(scope, number);
        Ok(())
    }

    fn part_task(&mut self, part: &Part, works: Vec<Work>) -> Result<PartTask, OperatorError> {
        let PartedTask { context, models, .. } = self.task;
        if self.headers.is_none() {
            let mut headers = Vec::with_capacity(models.len());
            for model in models {
                headers.push(part_task::Model::new(&model.folders(context)?)?);
            }
            self.headers = Some(headers);
        }
        let name = format!("{} {}", context.task.label(), part.name);
        PartTask::new(&name, Settings::from_context(context)?, self.headers.as_deref().unwrap_or_default(), works)
    }

    /// Asks for a part on a thread of its own.
    fn ask<'s>(&mut self, scope: &'s Scope<'s, '_>, part: usize)
    where
        'c: 's,
    {
        let Some(flight) = self.flying.get_mut(&part) else { return };
        flight.copies += 1;
        flight.asked += 1;
        let task = flight.task.clone();
        let given_up = flight.waited_for.given_up.clone();
        let sender = self.sender.clone();
        let context = self.task.context;
        let executors = self.executors;
        scope.spawn(move || {
            let given_up = || given_up.load(Ordering::Relaxed);
            let tell = |message: &str| context.progress.warned(&context.task.label(), message);
            let answer = executors.ask(&task.bytes, &given_up, &tell);
            // Nobody listens for an answer after an error.
            let _ = sender.send((part, answer));
        });
    }

    /// Asks another executor for the parts that take much longer than usual.
    fn ask_again<'s>(&mut self, scope: &'s Scope<'s, '_>)
    where
        'c: 's,
    {
        let mut sorted = self.durations.clone();
        sorted.sort_unstable();
        let Some(usual) = sorted.get(sorted.len() / 2) else { return };
        let is_late = |flight: &Flight<K>| flight.asked == 1 && flight.started.elapsed() > *usual * LATE + LOOK;
        let late = self.flying.iter().filter(|(_, flight)| is_late(flight)).map(|(part, _)| *part);
        let idle = self.seen.len().saturating_sub(self.flying.len());
        for part in late.take(idle).collect::<Vec<_>>() {
            self.ask(scope, part);
        }
    }

    /// Takes an answer.
    fn land(
        &mut self,
        part: usize,
        answer: Result<Vec<u8>, String>,
        take: &mut impl FnMut(&Part, K, Vec<Found>) -> Result<u64, OperatorError>,
    ) -> Result<(), OperatorError> {
        // A part that was asked for twice has an answer already.
        let Some(mut flight) = self.flying.remove(&part) else { return Ok(()) };
        let bytes = match answer {
            Ok(bytes) => bytes,
            Err(_) if flight.copies > 1 => {
                flight.copies -= 1;
                self.flying.insert(part, flight);
                return Ok(());
            }
            Err(problem) => return Err(OperatorError::Failed(problem).of(&flight.part.name)),
        };
        let answer = part_task::answer(&bytes, &flight.task).map_err(|error| error.of(&flight.part.name))?;
        self.durations.push(flight.started.elapsed());
        self.seen.insert(answer.executor);
        self.task.context.device_time.add(answer.spent);
        let Flight { part, kept, .. } = flight;
        let tokens = take(&part, kept, answer.found)?;
        self.task.advance.finish(part.rows.len(), tokens, 0);
        Ok(())
    }

    fn tell_of_silence(&self) {
        let context = self.task.context;
        let message = format!(
            "no part came back from the cluster for {} s, {} are on their way; {}",
            SILENCE.as_secs(),
            self.flying.len(),
            self.executors.state()
        );
        context.progress.warned(&context.task.label(), &message);
    }
}
