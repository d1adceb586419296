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
#[derive(Clone, Copy, Debug, Default, PartialEq)]
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
    let (shares, outcome) = at_once(replicas, parts, || context.check_stopped(), load, compute, take);
    for (replica, Share { parts, seconds }) in replicas.iter().zip(shares).filter(|(_, share)| share.parts > 0) {
        record(context, replica.name.clone(), [("parts", parts as f64), ("seconds", seconds)])?;
    }
    outcome
}

/// As [`each_part`], each replica on a thread of its own. Returns what each of them did.
fn at_once<M: Send, T: Send>(
    replicas: &[Replica],
    parts: Vec<Part>,
    check_stopped: impl Fn() -> Result<(), OperatorError> + Sync,
    load: impl Fn(&Replica) -> Result<M, OperatorError> + Sync,
    compute: impl Fn(&mut M, &Part) -> Result<T, OperatorError> + Sync,
    mut take: impl FnMut(&Part, T) -> Result<(), OperatorError>,
) -> (Vec<Share>, Result<(), OperatorError>) {
    let queue = Mutex::new(parts.into_iter());
    let over = AtomicBool::new(false);
    // No code panics while it holds the lock.
    let next = || if over.load(Ordering::Relaxed) { None } else { queue.lock().unwrap_or_else(PoisonError::into_inner).next() };
    let work = |replica: &Replica, done: &mpsc::Sender<Done<T>>| {
        let mut loaded = None;
        while let Some(part) = next() {
            let begun = Instant::now();
            let one = || {
                check_stopped()?;
                let made = replica.run(|| model(&mut loaded, replica, &load).and_then(|model| compute(model, &part)));
                made.map_err(|error| error.of(&replica.name))
            };
            let outcome = catch_unwind(AssertUnwindSafe(one));
            let goes_on = matches!(outcome, Ok(Ok(_)));
            if !goes_on {
                over.store(true, Ordering::Relaxed);
            }
            let done_part = Done { replica: replica.number, part, seconds: begun.elapsed().as_secs_f64(), outcome };
            // The receiver waits for every replica.
            if done.send(done_part).is_err() || !goes_on {
                return;
            }
        }
    };
    let mut shares = vec![Share::default(); replicas.len()];
    let mut first = Ok(());
    let mut panic = None;
    thread::scope(|scope| {
        let work = &work;
        let (sender, receiver) = mpsc::channel();
        for replica in replicas {
            let sender = sender.clone();
            scope.spawn(move || work(replica, &sender));
        }
        drop(sender);
        for Done { replica, part, seconds, outcome } in receiver {
            match outcome.map(|made| made.and_then(|made| take(&part, made))) {
                Ok(Ok(())) => {
                    if let Some(share) = shares.get_mut(replica) {
                        *share = Share { parts: share.parts + 1, seconds: share.seconds + seconds };
                    }
                }
                Ok(Err(error)) => {
                    over.store(true, Ordering::Relaxed);
                    // A stop is no fault: an error says more.
                    if matches!(first, Ok(()) | Err(OperatorError::Stopped)) {
                        first = Err(error);
                    }
                }
                Err(found) => panic = panic.take().or(Some(found)),
            }
        }
    });
    match panic {
        // As without replicas: the scheduler reports it.
        Some(panic) => resume_unwind(panic),
        None => (shares, first),
    }
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
    outcome: thread::Result<Result<T, OperatorError>>,
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

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::panic::{AssertUnwindSafe, catch_unwind};
    use std::sync::Barrier;
    use std::time::Duration;

    use super::*;

    fn replicas(count: usize) -> Vec<Replica> {
        let named = names(&DeviceChoice::Cpus(count), count).into_iter().enumerate();
        named.map(|(number, name)| Replica { number, name, ..without_model() }).collect()
    }

    fn parts(count: usize) -> Vec<Part> {
        (0..count).map(|number| Part { number, rows: number..number + 1, name: format!("part {number}") }).collect()
    }

    #[test]
    fn every_part_is_computed_once_by_one_of_the_replicas() {
        // Both have a part at the same time, or this would wait for ever.
        let both = Barrier::new(2);
        let load = |replica: &Replica| {
            both.wait();
            Ok(replica.number)
        };
        let mut taken = BTreeSet::new();
        let take = |part: &Part, square: usize| {
            assert_eq!(square, part.number * part.number);
            assert!(taken.insert(part.number));
            Ok(())
        };
        let (shares, outcome) = at_once(&replicas(2), parts(9), || Ok(()), load, |_, part| Ok(part.number * part.number), take);
        outcome.unwrap();
        assert!(taken.into_iter().eq(0..9));
        assert!(shares.iter().all(|share| share.parts > 0) && shares.iter().map(|share| share.parts).sum::<u64>() == 9, "{shares:?}");
    }

    #[test]
    fn a_failed_replica_ends_the_work_and_what_is_in_hand_is_kept() {
        let both = Barrier::new(2);
        let compute = |_: &mut (), part: &Part| {
            if part.number < 2 {
                both.wait();
            } else {
                // Longer than the end of the other replica takes.
                thread::sleep(Duration::from_millis(5));
            }
            if part.number == 1 { Err(OperatorError::Failed("out of memory".to_string())) } else { Ok(part.number) }
        };
        let mut taken = Vec::new();
        let take = |_: &Part, number: usize| {
            taken.push(number);
            Ok(())
        };
        let (shares, outcome) = at_once(&replicas(2), parts(1000), || Ok(()), |_| Ok(()), compute, take);
        let error = outcome.unwrap_err().to_string();
        assert!(error.starts_with("replica ") && error.ends_with(" of 2 on the CPU: out of memory"), "{error}");
        assert!(taken.contains(&0) && !taken.contains(&1) && taken.len() < 1000, "{taken:?}");
        assert_eq!(shares.iter().map(|share| share.parts).sum::<u64>(), taken.len() as u64);
        // The same parts without those taken.
        let rest = parts(1000).into_iter().filter(|part| !taken.contains(&part.number)).collect();
        let take = |_: &Part, number: usize| {
            taken.push(number);
            Ok(())
        };
        at_once(&replicas(3), rest, || Ok(()), |_| Ok(()), |(), part| Ok(part.number), take).1.unwrap();
        taken.sort_unstable();
        assert!(taken.into_iter().eq(0..1000));
    }

    #[test]
    fn a_stop_is_told_and_a_panic_reaches_whoever_asked() {
        let (_, outcome) = at_once(&replicas(2), parts(5), || Err(OperatorError::Stopped), |_| Ok(()), |(), _| Ok(()), |_, ()| Ok(()));
        assert!(matches!(outcome, Err(OperatorError::Stopped)));
        let panics = || at_once(&replicas(2), parts(5), || Ok(()), |_| Ok(()), |(), part| panic!("part {}", part.number), |_, ()| Ok(()));
        assert!(catch_unwind(AssertUnwindSafe(panics)).is_err());
    }
}
