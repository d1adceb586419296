//! Whole runs on a disk with losses and errors, then run again: the same bytes.
//!
//! Nodes run side by side. A seed repeats the fault and the remains of the power cut, but not
//! always the very same order of operations.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::Write;
use std::path::Path;

use crate::fixtures::disk::{EIO, EMFILE, ENOSPC, Fault, Replay, Simulation, misfortune, seeds};
use crate::fixtures::rows::Draw;
use crate::fixtures::store::Space;
use crate::fixtures::workspace::{Workspace, result};

/// A pipeline of two iterations, its result, and the number of its disk operations.
fn undisturbed() -> (Workspace, BTreeMap<String, String>, u64) {
    let (workspace, space) = (Workspace::new(), Space::new());
    let simulation = Simulation::new(space.path(), Fault::None, 0, 0);
    simulation.run(|| workspace.run_here(space.runs().root())).unwrap();
    let expected = result(space.run("small").folder());
    assert!(expected.len() > 40 && simulation.operations() > 500, "{} files, {} operations", expected.len(), simulation.operations());
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
                space = simulation.left();
            }
        }
        finish(&workspace, &space, &expected, &story);
    }
}

#[test]
fn a_disk_that_is_full_at_any_operation_of_a_run_is_said_and_the_same_command_goes_on() {
    let (workspace, expected, operations) = undisturbed();
    for seed in seeds(6) {
        let _replay = Replay(seed);
        let space = Space::new();
        // Far apart for few seeds, each operation once for as many seeds as there are operations.
        let at = seed * 7919 % operations;
        let simulation = Simulation::new(space.path(), Fault::Fail { error: ENOSPC, lasting: true }, at, seed);
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

#[test]
fn a_file_that_cannot_be_read_for_now_stops_the_run_and_nothing_is_taken_for_damaged() {
    let (workspace, expected, _) = undisturbed();
    // Half a run is there, so a run reads every kind of file.
    let half = Space::new();
    let simulation = Simulation::new(half.path(), Fault::Stop, 400, 0);
    simulation.run(|| workspace.run_here(half.runs().root())).unwrap_err();
    let reads = {
        let space = copied(&half);
        let simulation = Simulation::new(space.path(), Fault::None, 0, 0);
        simulation.run(|| workspace.run_here(space.runs().root())).unwrap();
        simulation.reads()
    };
    assert!(reads > 100, "{reads} reads");
    for seed in seeds(12) {
        let _replay = Replay(seed);
        let space = copied(&half);
        let fault = Fault::Unreadable { error: [EIO, EMFILE][(seed % 2) as usize] };
        let simulation = Simulation::new(space.path(), fault, seed * 7919 % reads, seed);
        let outcome = simulation.run(|| workspace.run_here(space.runs().root()));
        let story = [format!("{fault:?} at {:?}: {outcome:?}", simulation.failed())];
        finish(&workspace, &space, &expected, &story);
    }
}

/// Another folder with the same runs.
fn copied(space: &Space) -> Space {
    let copy = Space::new();
    let status = std::process::Command::new("cp").arg("-a").arg(space.runs().root()).arg(copy.path()).status().unwrap();
    assert!(status.success());
    copy
}

/// Leaves a file system so many bytes of room: a file takes the rest.
fn leave_room(ballast: &Path, room: u64) {
    let mut file = File::create(ballast).unwrap();
    let block = vec![1; 1 << 16];
    // Until the disk is full.
    while file.write_all(&block).is_ok() {}
    let length = file.metadata().unwrap().len();
    file.set_len(length.saturating_sub(room)).unwrap();
}

/// On a real file system: `mount -t tmpfs -o size=40M tmpfs DIR` and OPTUNE_SMALL_DISK=DIR.
#[test]
fn on_a_full_file_system_the_program_says_so_and_goes_on_when_there_is_room() {
    let Some(disk) = std::env::var_os("OPTUNE_SMALL_DISK") else {
        eprintln!("skipped: OPTUNE_SMALL_DISK names no file system of some 40 MB");
        return;
    };
    let (runs, ballast) = (Path::new(&disk).join("runs"), Path::new(&disk).join("ballast"));
    let workspace = Workspace::new();
    workspace.succeed(&["run", "pipeline.yaml"]);
    let expected = workspace.result("small");
    let mut refused = 0;
    for seed in seeds(10) {
        let _replay = Replay(seed);
        let mut random = Draw(seed);
        fs::remove_dir_all(&runs).ok();
        // Each round frees some room for the next parts: the run meets the end of the disk at
        // several places.
        loop {
            leave_room(&ballast, random.bits() % 5_000_000);
            let output = workspace.command(&["--runs"]).arg(&runs).args(["run", "pipeline.yaml"]).output().unwrap();
            fs::remove_file(&ballast).unwrap();
            if output.status.success() {
                break;
            }
            refused += 1;
            let said = String::from_utf8_lossy(&output.stderr);
            assert_eq!(output.status.code(), Some(1), "{said}");
            assert!(said.contains("No space left on device"), "{said}");
        }
        assert!(result(&runs.join("small")) == expected, "seed {seed}");
        assert!(!runs.join("small/quarantine").exists(), "seed {seed}");
    }
    eprintln!("{refused} times the disk was full");
}
