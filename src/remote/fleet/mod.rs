//! A fleet: several servers of the same model or reward, asked from one queue.
//!
//! ```text
//!            ┌─▶ threads of server 1 ─┐
//! queue ─────┼─▶ threads of server 2 ─┼─▶ answers, in the order of completion
//!   ▲        └─▶ threads of server 3 ─┘
//!   └── an item that failed, for another server
//! ```
//!
//! A server that fails is left, and joins again later. Of one server alone nothing is left, unless
//! the fleet is told so: its requests have retries of their own. Knows nothing of requests: callers
//! ask.

mod health;
mod queue;

use std::ops::ControlFlow;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError, mpsc};
use std::time::{Duration, Instant};

use super::client::Patience;
use super::stop::{LOOK, Stopped};
use health::Health;
use queue::{Next, Queue};

pub use health::{Absence, Statistics};
pub use queue::Place;

/// The most requests at once to all servers.
const MOST_THREADS: usize = 1024;

/// The longest wait of an item for its next attempt.
const LONGEST_WAIT: Duration = Duration::from_secs(60);

/// The servers, with their health and statistics. They last from one call of [`Fleet::each`] to the
/// next.
#[derive(Debug)]
pub struct Fleet {
    servers: Mutex<Vec<Health>>,
    patience: Patience,
    /// Whether one server alone is left too.
    leaves_all: bool,
}

/// What a fleet is asked.
#[derive(Debug)]
pub struct Questions<'a, T> {
    /// The items, begun roughly in this order.
    pub items: &'a [T],
    /// Where each of them belongs.
    pub places: Vec<Place>,
    /// Requests at once to each server.
    pub threads: usize,
}

/// The result of one attempt.
#[derive(Debug)]
pub enum Attempt<R> {
    /// The item's result.
    Answered(R),
    /// No usable answer; another attempt may bring one.
    Failed {
        /// The item's result, if no attempt is left.
        last: R,
        /// The failure.
        problem: String,
        /// How long the server asks to wait.
        wait: Option<Duration>,
    },
    /// An answer that is not to be used, and no other is until the server has joined again.
    Refused {
        /// The item's result, if no attempt is left.
        last: R,
        /// The reason.
        problem: String,
    },
    /// The run was asked to stop.
    Stopped,
}

/// The work of one call.
struct Work {
    queue: Queue,
    servers: Vec<Health>,
    attempts: Vec<u32>,
    patience: Patience,
    /// Whether the only server is never left.
    is_alone: bool,
    is_down: bool,
}

/// What a thread does next.
enum Step {
    Ask(usize),
    Join,
    Wait,
    End,
}

impl Fleet {
    /// Servers with these addresses. The patience is that of an item: its retries are on all
    /// servers together.
    pub fn new<'a>(urls: impl IntoIterator<Item = &'a str>, patience: Patience) -> Self {
        Self { servers: Mutex::new(urls.into_iter().map(Health::new).collect()), patience, leaves_all: false }
    }

    /// The same fleet. One server alone is left too, and joins again: joining makes it usable.
    #[must_use]
    pub fn leaving_all(self) -> Self {
        Self { leaves_all: true, ..self }
    }

    /// What each server did so far, in the order of the addresses.
    pub fn statistics(&self) -> Vec<Statistics> {
        self.lock().iter().map(|server| server.statistics.clone()).collect()
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Health>> {
        self.servers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Asks for every item. `join` prepares a server: before
    /// its first item, and after each rest, unless its second argument answers that all items are
    /// answered meanwhile. `ask` is one attempt. Each result goes with the item's
    /// index to `done`, on the calling thread and in the order of completion. Nothing further is
    /// begun once `stopped` answers true or `done` breaks; results of items in hand still arrive.
    ///
    /// # Errors
    /// No server can be asked: for each the reason. Some items have no result then.
    pub fn each<T: Sync, R: Send>(
        &self,
        questions: Questions<T>,
        stopped: Stopped,
        join: impl Fn(usize, Stopped) -> Result<(), Absence> + Sync,
        ask: impl Fn(usize, &T) -> Attempt<R> + Sync,
        mut done: impl FnMut(usize, R) -> ControlFlow<()>,
    ) -> Result<(), Vec<Absence>> {
        let Questions { items, places, threads } = questions;
        let servers = std::mem::take(&mut *self.lock());
        let count = servers.len();
        let is_alone = count == 1 && !self.leaves_all;
        let queue = Queue::new(places, count);
        let work = Work { queue, attempts: vec![0; items.len()], servers, patience: self.patience, is_alone, is_down: false };
        let work = Mutex::new(work);
        let ended = AtomicBool::new(false);
        // Without a buffer: results waiting for a slow `done` would be lost with the process.
        let (sender, results) = mpsc::sync_channel(0);
        let threads = threads.min(items.len()).min(MOST_THREADS / count.max(1)).max(1);
        std::thread::scope(|scope| {
            // In here, so that a panic of `done` lets the threads go.
            let results = results;
            'spawn: for server in 0..count {
                for _ in 0..threads {
                    let sender = sender.clone();
                    let (work, ended, join, ask) = (&work, &ended, &join, &ask);
                    let worker = move || {
                        let locked = || work.lock().unwrap_or_else(PoisonError::into_inner);
                        while !ended.load(Ordering::SeqCst) && !stopped() {
                            let step = locked().step(server, Instant::now());
                            match step {
                                Step::End => return,
                                Step::Wait => std::thread::sleep(LOOK),
                                Step::Join => {
                                    let is_over = || stopped() || ended.load(Ordering::SeqCst) || locked().queue.is_done();
                                    let result = join(server, &is_over);
                                    locked().join(server, result, Instant::now());
                                }
                                Step::Ask(item) => {
                                    let Some(subject) = items.get(item) else { return };
                                    let begun = Instant::now();
                                    let attempt = ask(server, subject);
                                    let result = locked().take(server, item, attempt, begun, Instant::now());
                                    if let Some(result) = result
                                        && sender.send((item, result)).is_err()
                                    {
                                        return;
                                    }
                                }
                            }
                        }
                    };
                    // If the system gives no more threads, the existing ones do the work.
                    if std::thread::Builder::new().spawn_scoped(scope, worker).is_err() {
                        break 'spawn;
                    }
                }
            }
            drop(sender);
            for (item, result) in &results {
                if !ended.load(Ordering::SeqCst) && done(item, result).is_break() {
                    ended.store(true, Ordering::SeqCst);
                }
            }
        });
        let work = work.into_inner().unwrap_or_else(PoisonError::into_inner);
        let absences = work.servers.iter().filter_map(|server| server.absence.clone()).collect();
        *self.lock() = work.servers;
        if work.is_down { Err(absences) } else { Ok(()) }
    }
}

impl Work {
    fn step(&mut self, server: usize, now: Instant) -> Step {
        if self.is_down || self.queue.is_done() {
            return Step::End;
        }
        let others_work = self.servers.iter().enumerate().any(|(index, other)| index != server && other.works(now));
        let Some(health) = self.servers.get_mut(server) else { return Step::End };
        if health.is_joining || health.rests(now) {
            return Step::Wait;
        }
        if !health.is_member {
            health.is_joining = true;
            return Step::Join;
        }
        if !health.has_room() {
            return Step::Wait;
        }
        match self.queue.next(server, others_work, now) {
            Next::Ask(item) => {
                health.asked += 1;
                Step::Ask(item)
            }
            Next::Wait => Step::Wait,
            Next::Done => Step::End,
        }
    }

    fn join(&mut self, server: usize, result: Result<(), Absence>, now: Instant) {
        let (is_alone, first_wait) = (self.is_alone, self.patience.first_wait);
        let Some(health) = self.servers.get_mut(server) else { return };
        health.is_joining = false;
        match result {
            Ok(()) => health.joined(),
            Err(absence) => {
                let absence = Absence { is_final: absence.is_final || is_alone, ..absence };
                health.rest(absence, first_wait, now);
                self.look_down();
            }
        }
    }

    /// Takes in an attempt. Returns the item's result, if this is it.
    fn take<R>(&mut self, server: usize, item: usize, attempt: Attempt<R>, begun: Instant, now: Instant) -> Option<R> {
        let (is_alone, first_wait) = (self.is_alone, self.patience.first_wait);
        let health = self.servers.get_mut(server)?;
        health.asked = health.asked.saturating_sub(1);
        match attempt {
            Attempt::Answered(result) => {
                health.answered(now.duration_since(begun).as_secs_f64());
                self.queue.answered();
                Some(result)
            }
            Attempt::Stopped => {
                self.queue.answered();
                None
            }
            Attempt::Failed { last, problem, wait } => {
                if is_alone {
                    health.statistics.failures += 1;
                } else if health.failed(&problem, wait, first_wait, now) {
                    self.queue.leave(server);
                    self.look_down();
                }
                self.again(server, item, last, now)
            }
            Attempt::Refused { last, problem } => {
                health.statistics.failures += 1;
                if health.is_member {
                    health.rest(Absence { problem, is_final: false }, first_wait, now);
                    self.queue.leave(server);
                    self.look_down();
                }
                self.again(server, item, last, now)
            }
        }
    }

    /// Puts an item back for another attempt. Returns its result if there is none left.
    fn again<R>(&mut self, server: usize, item: usize, last: R, now: Instant) -> Option<R> {
        let servers = self.servers.len() as u32;
        let attempts = self.attempts.get_mut(item)?;
        *attempts += 1;
        if *attempts > self.patience.retries as u32 {
            self.queue.answered();
            return Some(last);
        }
        // At once on the next server, and with growing waits after a try on each.
        let pause = match attempts.checked_sub(servers) {
            Some(rounds) => self.patience.first_wait.saturating_mul(1 << rounds.min(16)).min(LONGEST_WAIT),
            None => Duration::ZERO,
        };
        self.queue.failed(item, server, pause, now);
        None
    }

    /// Gives up when no server is left that could answer after a wait.
    fn look_down(&mut self) {
        let retries = self.patience.retries as u32;
        let is_gone = |server: &Health| server.absence.as_ref().is_some_and(|absence| absence.is_final || server.rests > retries);
        self.is_down = self.servers.iter().all(is_gone);
    }
}
