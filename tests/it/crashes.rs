//! Whole runs on a disk that loses what it may or goes wrong, then run again: the same bytes.
//!
//! Nodes run side by side, so a seed brings back the fault and what the power cut leaves, but not always the very same order of operations.

use std::collections::BTreeMap;

use crate::disk::{ENOSPC, Fault, Replay, Simulation, misfortune, seeds};
use crate::store::Space;
use crate::tables::Draw;
use crate::workspace::{Workspace, result};

/// A pipeline of two iterations, what it comes to, and how many operations of the disk that takes.
fn undisturbed() -> (Workspace, BTreeMap<String, String>, u64) {
    let (workspace, space) = (Workspace::new(), Space::new());
    let simulation = Simulation::new(space.path(), Fault::None, 0, 0);
    simulation.run(|| workspace.run_here(space.runs().root())).unwrap();
    let expected = result(space.run("small").folder());
    assert!(expected.len() > 40 && simulation.operations() > 1000, "{} files, {} operations", expected.len(), simulation.operations());
    (workspace, expected, simulation.operations())
}

/// Runs the pipeline to its end, in the bytes it should have, with nothing set aside.
fn finish(workspace: &Workspace, space: &Space, expected: &BTreeMap<String, String>, story: &[String]) {
    workspace.run_here(space.runs().root()).unwrap_or_else(|error| panic!("{error}, after {story:#?}"));
    let run = space.run("small");
    assert!(result(run.folder()) == *expected, "after {story:#?}");
    assert_eq!(run.verify_all().unwrap().damaged, [], "after {story:#?}");
    assert!(!run.folder().join("quarantine").exists(), "a kill damages nothing: {story:#?}");
}

#[test]
fn after_kills_power_cuts_and_errors_of_the_disk_a_run_ends_in_the_same_bytes() {
    let (workspace, expected, operations) = undisturbed();
    for seed in seeds(6) {
        let _replay = Replay(seed);
        let mut random = Draw(seed);
        let mut space = Space::new();
        let mut story = Vec::new();
        for _ in 0..=random.below(3) {
            let (simulation, fault) = misfortune(space.path(), operations, &mut random);
            let outcome = simulation.run(|| workspace.run_here(space.runs().root()));
            assert!(outcome.is_ok() || simulation.failed().is_some(), "{story:?}: {outcome:?}");
            let is_power_cut = random.chance();
            story.push(format!("{fault:?} at {:?}, power cut: {is_power_cut}", simulation.failed()));
            if is_power_cut {
                let left = Space::new();
                simulation.leave(left.path());
                space = left;
            }
        }
        finish(&workspace, &space, &expected, &story);
    }
}

#[test]
fn a_disk_that_is_full_at_any_operation_of_a_run_is_said_and_the_same_command_goes_on() {
    let (workspace, expected, operations) = undisturbed();
    let seeds = seeds(6);
    let apart = (operations / (seeds.end - seeds.start)).max(1);
    for seed in seeds {
        let _replay = Replay(seed);
        let space = Space::new();
        let simulation = Simulation::new(space.path(), Fault::Fail { error: ENOSPC, lasting: true }, seed * apart % operations, seed);
        let outcome = simulation.run(|| workspace.run_here(space.runs().root()));
        let story = [format!("{:?}", simulation.failed())];
        if simulation.failed().is_some() {
            let error = outcome.unwrap_err();
            assert!(error.contains("free space there and run the same command again"), "{error}");
            assert!(error.contains(&space.path().display().to_string()), "{error}");
        }
        finish(&workspace, &space, &expected, &story);
    }
}
