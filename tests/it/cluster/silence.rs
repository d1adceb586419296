//! A cluster without executors, or without a scheduler: the run says so within a minute, goes on when
//! they come, and ends at once if it is asked to.

use std::time::{Duration, Instant};

use super::is_built;
use super::processes::{Cluster, Process, free_port};
use crate::fixtures::workspace::Workspace;

/// So long a run may be silent.
const MINUTE: Duration = Duration::from_secs(60);

/// Waits until the run has begun with responses of the policy or of the baseline, its first nodes for
/// a cluster.
fn begin(workspace: &Workspace, run: &mut Process) {
    let start = Instant::now();
    let is_begun = || {
        let journal = workspace.path("runs/small/journal.jsonl").exists();
        journal && workspace.journal("small", "started").iter().any(|(node, ..)| node.ends_with("responses"))
    };
    while !is_begun() {
        assert!(run.ended().is_none() && start.elapsed() < MINUTE, "no begin: {:#?}", run.lines());
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn a_run_without_executors_says_so_and_goes_on_with_the_first_one() {
    if !is_built() {
        return;
    }
    let workspace = Workspace::new();
    let mut cluster = Cluster::start(&workspace, 0);
    let mut run = cluster.run();
    begin(&workspace, &mut run);
    run.say_within("has no executor; start one with `optune executor`", MINUTE);
    cluster.join();
    run.succeed();
    let alone = Workspace::new();
    alone.succeed(&["run", "pipeline.yaml"]);
    assert_eq!(workspace.result("small"), alone.result("small"));
}

#[test]
fn a_run_without_a_scheduler_says_so() {
    if !is_built() {
        return;
    }
    let workspace = Workspace::new();
    let address = format!("127.0.0.1:{}", free_port());
    let mut run = Process::start(&workspace, &["run", "pipeline.yaml", "--cluster", &address]);
    begin(&workspace, &mut run);
    run.say_within(&format!("the scheduler {address} does not answer"), MINUTE);
    assert!(run.ended().is_none(), "{:#?}", run.lines());
}

#[cfg(unix)]
#[test]
fn a_run_that_waits_for_executors_ends_when_it_is_asked_to() {
    if !is_built() {
        return;
    }
    let workspace = Workspace::new();
    let cluster = Cluster::start(&workspace, 0);
    let mut run = cluster.run();
    begin(&workspace, &mut run);
    run.interrupt();
    run.end_within(MINUTE);
    // The same command goes on, here without the cluster.
    workspace.succeed(&["run", "pipeline.yaml"]);
}
