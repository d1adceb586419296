//! Killed anywhere and run again, a run ends in the same bytes, and nothing is paid for twice.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};

use crate::fixtures::workspace::Workspace;

/// How many kills a test run makes; more with OPTUNE_KILLS.
fn kills() -> u64 {
    std::env::var("OPTUNE_KILLS").ok().and_then(|text| text.parse().ok()).unwrap_or(12)
}

/// Each part of each node was committed once. A kill leaves an interrupted part without a commit,
/// and a committed part is not made again.
fn assert_nothing_twice(workspace: &Workspace) {
    let mut commits: BTreeMap<(String, i64, i64), usize> = BTreeMap::new();
    for part in workspace.journal("small", "part_committed") {
        *commits.entry(part).or_default() += 1;
    }
    assert!(commits.values().all(|count| *count == 1), "{commits:?}");
}

#[test]
fn killed_at_random_and_run_again_the_bytes_are_the_same() {
    killed_at_random_the_bytes_are_the_same(Workspace::new);
}

#[test]
fn killed_between_the_steps_of_adaptive_numbers_the_bytes_are_the_same() {
    killed_at_random_the_bytes_are_the_same(Workspace::adaptive);
}

fn killed_at_random_the_bytes_are_the_same(new_workspace: fn() -> Workspace) {
    let seed = std::env::var("OPTUNE_SEED").ok().and_then(|text| text.parse().ok()).unwrap_or(7);
    eprintln!("seed {seed}");
    let mut random = ChaCha8Rng::seed_from_u64(seed);
    let whole = new_workspace();
    let start = Instant::now();
    whole.succeed(&["run", "pipeline.yaml"]);
    let time = start.elapsed();
    let expected = whole.result("small");

    let mut killed = 0;
    while killed < kills() {
        let workspace = new_workspace();
        // Several kills on the way to one result: resumed runs are killed too.
        loop {
            let mut child = workspace.start(&["run", "pipeline.yaml"]);
            std::thread::sleep(Duration::from_micros(random.next_u64() % (time.as_micros() as u64 * 6 / 10).max(1)));
            // SIGKILL on unix.
            child.kill().unwrap();
            let done = child.wait().unwrap().success();
            killed += u64::from(!done);
            if done || killed >= kills() {
                break;
            }
        }
        workspace.succeed(&["run", "pipeline.yaml"]);
        assert_eq!(workspace.result("small"), expected, "seed {seed}");
        assert_nothing_twice(&workspace);
    }
}

/// Starts the program and sends it a signal once it has committed something, then again as often as
/// asked; how it ended.
#[cfg(unix)]
fn signalled(workspace: &Workspace, signal: &str, times: usize) -> std::process::Output {
    let child = workspace
        .command(&["run", "pipeline.yaml"])
        .stderr(std::process::Stdio::piped())
        .stdout(std::process::Stdio::null())
        .spawn()
        .unwrap();
    let journal = workspace.path("runs/small/journal.jsonl");
    let start = Instant::now();
    while !std::fs::read_to_string(&journal).is_ok_and(|text| text.contains("part_committed")) && start.elapsed() < Duration::from_secs(60)
    {
        std::thread::sleep(Duration::from_millis(2));
    }
    for _ in 0..times {
        let sent = std::process::Command::new("kill").args([signal, &child.id().to_string()]).stderr(std::process::Stdio::null()).status();
        // The first one may have been enough.
        assert!(sent.unwrap().success() || times > 1);
        std::thread::sleep(Duration::from_millis(1));
    }
    child.wait_with_output().unwrap()
}

#[cfg(unix)]
#[test]
fn interrupted_once_it_says_how_to_go_on_and_twice_it_ends_at_once_and_either_way_it_goes_on() {
    let whole = Workspace::new();
    whole.succeed(&["run", "pipeline.yaml"]);
    for (signal, times) in [("-INT", 1), ("-TERM", 1), ("-INT", 2), ("-TERM", 2), ("-HUP", 1)] {
        let workspace = Workspace::new();
        let output = signalled(&workspace, signal, times);
        let error = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(130), "{signal} {times}: {error}");
        assert!(error.contains("finishing the part in hand; press Ctrl-C again to drop it"), "{signal} {times}: {error}");
        assert!(times > 1 || error.contains("the same command goes on from there"), "{signal}: {error}");
        workspace.succeed(&["run", "pipeline.yaml"]);
        assert!(workspace.result("small") == whole.result("small"), "{signal} {times}");
        assert_nothing_twice(&workspace);
    }
}
