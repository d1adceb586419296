//! The replicas of a node: copies of its model on several devices, which share the parts of its
//! table.
//!
//! Each replica takes the next part when it is done with one. Parts are committed as they come;
//! their bytes do not depend on the replica. Knows neither models nor rows.

use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError, mpsc};
use std::thread;
use std::time::Instant;

use burn::tensor::Device;

use super::{Context, OperatorError};
use crate::compute::{DeviceChoice, Threads};
use crate::store::{Event, EventKind, TableWriter};

/// One copy of a node's model.
pub struct Replica {
    /// Its number, from 0.
    pub number: usize,
    /// Its device.
    pub device: Device,
    /// Its name for people: `cuda:1`, or `replica 2 of 4 on the CPU`.
    pub name: String,
    /// Its share of the CPU; none for a GPU, and where there is no other replica.
    threads: Option<Threads>,
}

/// The replicas of this task, at least one.
///
/// # Errors
/// A device that is not there, or a system without threads.
pub fn all(context: &Context) -> Result<Vec<Replica>, OperatorError> {
    let devices = context.device.resolve_all()?;
    let on_cpu = devices.first().is_some_and(|device| *device == Device::flex());
    let threads = if devices.len() > 1 && on_cpu { Threads::shares(devices.len())? } else { Vec::new() };
    let mut threads = threads.into_iter();
    let names = names(&context.device, devices.len());
    let replica = |(number, (device, name))| Replica { number, device, name, threads: threads.next() };
    Ok(devices.into_iter().zip(names).enumerate().map(replica).collect())
}

/// The first replica of this task, alone.
///
/// # Errors
/// A device that is not there.
pub fn first(context: &Context) -> Result<Vec<Replica>, OperatorError> {
    Ok(vec![Replica { device: context.device()?, ..without_model() }])
}

/// The place of work without a model.
pub fn without_model() -> Replica {
    Replica { number: 0, device: Device::flex(), name: "this machine".to_string(), threads: None }
}

/// The names of so many replicas for people.
pub fn names(device: &DeviceChoice, count: usize) -> Vec<String> {
    match device {
        DeviceChoice::Gpus(gpus) => gpus.iter().map(|gpu| format!("cuda:{gpu}")).collect(),
        _ => (1..=count).map(|number| format!("replica {number} of {count} on the CPU")).collect(),
    }
}

/// Checks that a training can use these devices.
///
/// # Errors
/// Several GPUs.
pub fn check_training(device: &DeviceChoice) -> Result<(), OperatorError> {
    match device {
        DeviceChoice::Gpus(gpus) if gpus.len() > 1 => {
            let found = names(device, gpus.len()).join(", ");
            let problem = "name one, or have another program train on all of them: `engine` of `train`";
            Err(OperatorError::Input(format!("training takes one GPU, found {found}; {problem}")))
        }
        _ => Ok(()),
    }
}

/// A part to compute.
#[derive(Clone, Debug)]
pub struct Part {
    /// Its number in the table.
    pub number: usize,
    /// Its input rows.
    pub rows: Range<usize>,
    /// Its name for messages.
    pub name: String,
}

/// The parts still to be committed, in order.
pub fn missing(writer: &TableWriter) -> Vec<Part> {
    let part = |number| Part { number, rows: writer.rows_of(number), name: writer.name_of(number) };
    writer.missing().into_iter().map(part).collect()
}

/// The work of one replica, for the journal.
#[derive(Clone, Copy, Default)]
struct Share {
    parts: u64,
    seconds: f64,
}

/// Computes all `parts` on the replicas and hands each result to `take`, on this thread and in any
/// order. A replica loads its model with `load` before its first part.
///
/// # Errors
/// The first error. Parts in hand are finished and taken, and no further one is begun.
pub fn each_part<M: Send, T: Send>(
    context: &Context,
    replicas: &[Replica],
    parts: Vec<Part>,
    load: impl Fn(&Replica) -> Result<M, OperatorError> + Sync,
    compute: impl Fn(&mut M, &Part) -> Result<T, OperatorError> + Sync,
    mut take: impl FnMut(&Part, T) -> Result<(), OperatorError>,
) -> Result<(), OperatorError> {
    if let [only] = replicas {
        let mut loaded = None;
        for part in parts {
            context.check_stopped()?;
            let made = compute(model(&mut loaded, only, &load)?, &part)?;
            take(&part, made)?;
        }
        return Ok(());
    }
    let queue = Mutex::new(parts.into_iter());
    let over = AtomicBool::new(false);
    let next = || if over.load(Ordering::Relaxed) { None } else { queue.lock().unwrap_or_else(PoisonError::into_inner).next() };
    let (sender, receiver) = mpsc::channel();
    let work = |replica: &Replica, sender: &mpsc::Sender<Done<T>>| {
        let mut loaded = None;
        while let Some(part) = next() {
            let begun = Instant::now();
            let mut one = || {
                context.check_stopped()?;
                let named = |error: OperatorError| error.of(&replica.name);
                replica.run(|| model(&mut loaded, replica, &load).and_then(|model| compute(model, &part))).map_err(named)
            };
            let outcome = match catch_unwind(AssertUnwindSafe(&mut one)) {
                Ok(made) => Outcome::Made(made),
                Err(panic) => Outcome::Panicked(panic),
            };
            let failed = !matches!(outcome, Outcome::Made(Ok(_)));
            if failed {
                over.store(true, Ordering::Relaxed);
            }
            // The receiver waits for every replica.
            let _ = sender.send(Done { replica: replica.number, part, seconds: begun.elapsed().as_secs_f64(), outcome });
            if failed {
                return;
            }
        }
    };
    let mut shares = vec![Share::default(); replicas.len()];
    let mut first = Ok(());
    let mut panicked = None;
    thread::scope(|scope| {
        let work = &work;
        for replica in replicas {
            let sender = sender.clone();
            scope.spawn(move || work(replica, &sender));
        }
        drop(sender);
        for Done { replica, part, seconds, outcome } in receiver {
            let taken = match outcome {
                Outcome::Made(made) => made.and_then(|made| take(&part, made)),
                Outcome::Panicked(panic) => {
                    panicked.get_or_insert(panic);
                    continue;
                }
            };
            match taken {
                Ok(()) => {
                    if let Some(share) = shares.get_mut(replica) {
                        *share = Share { parts: share.parts + 1, seconds: share.seconds + seconds };
                    }
                }
                Err(error) => {
                    over.store(true, Ordering::Relaxed);
                    // A stop is no fault: an error says more.
                    if first.is_ok() || matches!(first, Err(OperatorError::Stopped)) {
                        first = Err(error);
                    }
                }
            }
        }
    });
    if let Some(panic) = panicked {
        resume_unwind(panic);
    }
    for (replica, Share { parts, seconds }) in replicas.iter().zip(shares).filter(|(_, share)| share.parts > 0) {
        record(context, replica.name.clone(), [("parts", parts as f64), ("seconds", seconds)])?;
    }
    first
}

/// Records what a replica did.
///
/// # Errors
/// The journal cannot be written.
pub fn record<const N: usize>(context: &Context, name: String, numbers: [(&str, f64); N]) -> Result<(), OperatorError> {
    let mut event = Event::new(EventKind::ReplicaUsed, &context.task.name, context.task.iteration);
    event.message = Some(name);
    event.detail = numbers.into_iter().map(|(name, number)| (name.to_string(), number)).collect();
    Ok(context.run.record(event)?)
}

/// A part that a replica is done with.
struct Done<T> {
    replica: usize,
    part: Part,
    seconds: f64,
    outcome: Outcome<T>,
}

/// The end of a part's computation.
enum Outcome<T> {
    Made(Result<T, OperatorError>),
    Panicked(Box<dyn std::any::Any + Send>),
}

/// The replica's model, loaded the first time.
fn model<'m, M>(
    loaded: &'m mut Option<M>,
    replica: &Replica,
    load: impl Fn(&Replica) -> Result<M, OperatorError>,
) -> Result<&'m mut M, OperatorError> {
    match loaded {
        Some(model) => Ok(model),
        None => Ok(loaded.insert(load(replica)?)),
    }
}

impl Replica {
    /// Does `work` on the threads of this replica.
    fn run<R: Send>(&self, work: impl FnOnce() -> R + Send) -> R {
        match &self.threads {
            Some(threads) => threads.run(work),
            None => work(),
        }
    }
}
