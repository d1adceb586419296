//! Executors, schedulers and runs are killed: the bytes stay those of one process.

use std::thread::sleep;
use std::time::{Duration, Instant};

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};

use super::is_built;
use super::processes::{Cluster, Process};
use crate::fixtures::workspace::Workspace;

/// A workspace with many small parts of responses.
fn many_parts() -> Workspace {
    let workspace = Workspace::new();
    workspace.edit("pipeline.yaml", "resources: { rows_per_part: 4 }", "resources: { rows_per_part: 1 }");
    workspace
}

/// The workspace after a run in one process.
fn alone() -> Workspace {
    let workspace = many_parts();
    workspace.succeed(&["run", "pipeline.yaml"]);
    workspace
}

/// A run on two executors that have computed two parts.
fn begun(workspace: &Workspace) -> (Cluster<'_>, Process) {
    let cluster = Cluster::start(workspace, 2);
    let mut run = cluster.run();
    cluster.compute(2, &mut run);
    (cluster, run)
}

fn assert_as_alone(workspace: &Workspace) {
    assert_eq!(workspace.result("small"), alone().result("small"));
    let commits = workspace.journal("small", "part_committed");
    let mut once = commits.clone();
    once.sort();
    once.dedup();
    assert_eq!(once.len(), commits.len(), "a committed part was made again: {commits:?}");
}

#[test]
fn the_parts_of_killed_executors_are_computed_by_others() {
    if !is_built() {
        return;
    }
    let workspace = many_parts();
    let (mut cluster, mut run) = begun(&workspace);
    // The first executor is killed and stays dead. The next one joins later.
    cluster.executors[0].kill();
    let before = cluster.executors[1].parts().len();
    cluster.compute(cluster.parts().len() + 2, &mut run);
    assert!(cluster.executors[1].parts().len() > before);
    cluster.join();
    run.succeed();
    assert_as_alone(&workspace);
}

#[test]
fn a_run_goes_on_with_a_new_scheduler_at_the_same_address() {
    if !is_built() {
        return;
    }
    let workspace = many_parts();
    let (mut cluster, mut run) = begun(&workspace);
    cluster.restart_scheduler(Duration::from_secs(3));
    assert!(run.ended().is_none(), "{:#?}", run.lines());
    run.say_within("does not answer", Duration::from_secs(60));
    // The executors come back by themselves.
    cluster.compute(cluster.parts().len() + 2, &mut run);
    run.succeed();
    assert_as_alone(&workspace);
}

#[test]
fn a_new_executor_goes_on_where_all_others_are_gone() {
    if !is_built() {
        return;
    }
    let workspace = many_parts();
    let (mut cluster, mut run) = begun(&workspace);
    cluster.executors.iter_mut().for_each(Process::kill);
    sleep(Duration::from_secs(2));
    assert!(run.ended().is_none(), "{:#?}", run.lines());
    cluster.join();
    run.succeed();
    assert!(!cluster.executors[2].parts().is_empty());
    assert_as_alone(&workspace);
}

/// Kills of a process at random moments.
fn kills() -> usize {
    std::env::var("OPTUNE_KILLS").ok().and_then(|text| text.parse().ok()).unwrap_or(6)
}

#[test]
fn whatever_is_killed_at_random_the_bytes_are_the_same() {
    if !is_built() {
        return;
    }
    let seed = std::env::var("OPTUNE_SEED").ok().and_then(|text| text.parse().ok()).unwrap_or(7);
    eprintln!("seed {seed}");
    let mut random = ChaCha8Rng::seed_from_u64(seed);
    let start = Instant::now();
    alone();
    let time = start.elapsed();
    let mut killed = 0;
    while killed < kills() {
        let workspace = many_parts();
        let mut cluster = Cluster::start(&workspace, 3);
        let mut run = cluster.run();
        let begin = Instant::now();
        loop {
            sleep(time.mul_f64((random.next_u64() % 1000) as f64 / 1000.0));
            if let Some(status) = run.ended() {
                assert!(status.success(), "{:#?}", run.lines());
                break;
            }
            assert!(begin.elapsed() < Duration::from_secs(600), "the run hangs: {:#?}", run.lines());
            if killed >= kills() {
                continue;
            }
            killed += 1;
            match random.next_u64() % 3 {
                0 => {
                    let index = (random.next_u64() % 3) as usize;
                    cluster.executors[index].kill();
                    cluster.executors[index] = cluster.executor();
                }
                1 => cluster.restart_scheduler(Duration::ZERO),
                _ => {
                    run.kill();
                    run = cluster.run();
                }
            }
        }
        eprintln!("{killed} kills so far, this run took {:.1} s", begin.elapsed().as_secs_f64());
        assert_as_alone(&workspace);
    }
}
