//! Runs the nodes of a graph, each after its needs.
//!
//! Heavy nodes share one device lane and run one at a time; light nodes run beside them. A failed
//! node blocks only the nodes with a need for it. The caller runs the nodes: this file knows
//! indices and results only.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::mpsc;

/// The lane of a node: nodes of the same lane share its capacity.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lane {
    /// The one GPU, or all cores of the CPU.
    Device,
    /// A thread beside the device.
    Relational,
    /// A thread waiting for a remote server. One at a time: a second node could load another policy
    /// into the server of the first.
    Server,
}

/// One node as the scheduler sees it.
#[derive(Clone, Debug)]
pub struct Step {
    /// Indices of the steps with inputs for this one.
    pub needs: Vec<usize>,
    /// Its lane.
    pub lane: Lane,
}

/// The end of a node.
#[derive(Debug)]
pub enum Outcome<E> {
    /// It finished.
    Done,
    /// It returned an error.
    Failed(E),
    /// It panicked with this message: a bug, but without loss of the work of other nodes.
    Panicked(String),
    /// Not started: this step among its needs did not finish.
    Blocked(usize),
    /// Not started: the run was asked to stop.
    Stopped,
}

impl<E> Outcome<E> {
    /// Whether the node's result exists.
    pub fn is_done(&self) -> bool {
        matches!(self, Outcome::Done)
    }
}

/// Relational nodes at the same time. They are short, and the device node needs the cores.
const RELATIONAL_LANES: usize = 1;

/// Runs every step after its needs, and returns one outcome for each step.
///
/// Among the ready steps the first in the list starts first, for the same order in equal runs.
/// After `stopped` returns true no further step starts; running steps finish.
pub fn schedule<E: Send>(
    steps: &[Step],
    stopped: &(dyn Fn() -> bool + Sync),
    run: &(dyn Fn(usize) -> Result<(), E> + Sync),
) -> Vec<Outcome<E>> {
    let mut outcomes: Vec<Option<Outcome<E>>> = steps.iter().map(|_| None).collect();
    let mut started = vec![false; steps.len()];
    let (report, reports) = mpsc::channel::<(usize, Outcome<E>)>();
    std::thread::scope(|scope| {
        loop {
            let running = |lane| (0..steps.len()).filter(|&i| started[i] && outcomes[i].is_none() && steps[i].lane == lane).count();
            let mut free_device = usize::from(running(Lane::Device) == 0);
            let mut free_server = usize::from(running(Lane::Server) == 0);
            let mut free_relational = RELATIONAL_LANES.saturating_sub(running(Lane::Relational));
            for index in 0..steps.len() {
                if started[index] || outcomes[index].is_some() {
                    continue;
                }
                let step = &steps[index];
                let lost =
                    step.needs.iter().copied().find(|&need| outcomes.get(need).is_none_or(|o| o.as_ref().is_some_and(|o| !o.is_done())));
                if let Some(need) = lost {
                    outcomes[index] = Some(Outcome::Blocked(need));
                    continue;
                }
                let ready = step.needs.iter().all(|&need| outcomes[need].is_some());
                let free = match step.lane {
                    Lane::Device => &mut free_device,
                    Lane::Relational => &mut free_relational,
                    Lane::Server => &mut free_server,
                };
                if ready && *free > 0 && !stopped() {
                    *free -= 1;
                    started[index] = true;
                    let report = report.clone();
                    scope.spawn(move || {
                        let outcome = match catch_unwind(AssertUnwindSafe(|| run(index))) {
                            Ok(Ok(())) => Outcome::Done,
                            Ok(Err(error)) => Outcome::Failed(error),
                            Err(panic) => Outcome::Panicked(panic_message(panic.as_ref())),
                        };
                        // The receiver lives until every thread has reported.
                        let _ = report.send((index, outcome));
                    });
                }
            }
            if !(0..steps.len()).any(|i| started[i] && outcomes[i].is_none()) {
                break;
            }
            match reports.recv() {
                Ok((index, outcome)) => outcomes[index] = Some(outcome),
                Err(_) => break,
            }
        }
    });
    outcomes.into_iter().map(|outcome| outcome.unwrap_or(Outcome::Stopped)).collect()
}

fn panic_message(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(|s| s.to_string()).or_else(|| panic.downcast_ref::<String>().cloned());
    text.unwrap_or_else(|| "a panic without a message".to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Mutex;
    use std::sync::atomic::{AtomicUsize, Ordering};

    fn step(needs: &[usize], lane: Lane) -> Step {
        Step { needs: needs.to_vec(), lane }
    }

    #[test]
    fn needs_come_first_and_one_device_node_at_a_time() {
        let steps: Vec<Step> = (0..12).map(|i| step(&(0..i).filter(|j| (i + j) % 3 == 0).collect::<Vec<_>>(), Lane::Device)).collect();
        let order = Mutex::new(Vec::new());
        let at_once = AtomicUsize::new(0);
        let outcomes = schedule::<()>(&steps, &|| false, &|index| {
            assert_eq!(at_once.fetch_add(1, Ordering::SeqCst), 0);
            std::thread::yield_now();
            at_once.fetch_sub(1, Ordering::SeqCst);
            order.lock().unwrap().push(index);
            Ok(())
        });
        assert!(outcomes.iter().all(Outcome::is_done));
        let order = order.into_inner().unwrap();
        for (position, index) in order.iter().enumerate() {
            assert!(steps[*index].needs.iter().all(|need| order[..position].contains(need)));
        }
    }

    #[test]
    fn a_failure_blocks_only_what_needs_it() {
        let steps = [step(&[], Lane::Device), step(&[0], Lane::Relational), step(&[1], Lane::Device), step(&[], Lane::Relational)];
        let outcomes = schedule(&steps, &|| false, &|index| if index == 0 { Err("no") } else { Ok(()) });
        assert!(matches!(outcomes[0], Outcome::Failed("no")));
        assert!(matches!(outcomes[1], Outcome::Blocked(0)));
        assert!(matches!(outcomes[2], Outcome::Blocked(1)));
        assert!(outcomes[3].is_done());
    }

    #[test]
    fn a_panic_is_reported_and_a_stop_starts_nothing_more() {
        let steps = [step(&[], Lane::Device), step(&[], Lane::Device)];
        let calls = AtomicUsize::new(0);
        let outcomes = schedule::<()>(&steps, &|| calls.load(Ordering::SeqCst) > 0, &|_| {
            calls.fetch_add(1, Ordering::SeqCst);
            panic!("out of luck");
        });
        assert!(matches!(&outcomes[0], Outcome::Panicked(text) if text == "out of luck"));
        assert!(matches!(outcomes[1], Outcome::Stopped));
    }
}
