//! Concurrent processes: a run refused to a second process, readers beside a run, runs with a
//! shared cache, and cleaning beside them.

use std::collections::BTreeMap;
use std::process::{Child, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use optune::sql::Session;
use optune::store::{Runs, StoreError};
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};

use crate::fixtures::disk::{Replay, seeds};
use crate::fixtures::workspace::Workspace;

fn begin(workspace: &Workspace, arguments: &[&str]) -> Child {
    workspace.command(arguments).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap()
}

fn succeeded(child: Child) {
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "{}: {}", output.status, String::from_utf8_lossy(&output.stderr));
}

/// Waits until a run has committed something.
fn wait_for_a_part(workspace: &Workspace, run: &str) {
    let (journal, start) = (workspace.path("runs").join(run).join("journal.jsonl"), Instant::now());
    while !std::fs::read_to_string(&journal).is_ok_and(|text| text.contains("part_committed")) {
        assert!(start.elapsed() < Duration::from_secs(60), "nothing was committed in a minute");
        thread::sleep(Duration::from_millis(2));
    }
}

#[test]
fn a_second_run_in_the_same_folder_is_refused_with_the_first_ones_process() {
    let workspace = Workspace::new();
    // Longer than the second one waits.
    workspace.edit("pipeline.yaml", "epochs: 3", "epochs: 3000");
    let mut first = begin(&workspace, &["run", "pipeline.yaml"]);
    wait_for_a_part(&workspace, "small");
    let said = workspace.fail(&["run", "pipeline.yaml"], 1);
    assert!(said.contains(&format!("run small is in use by process {}; wait for it or stop it", first.id())), "{said}");
    // Readers are not refused.
    let status = workspace.succeed(&["status", "small"]);
    assert!(status.contains("running"), "{status}");
    workspace.succeed(&["plan", "pipeline.yaml"]);
    first.kill().unwrap();
    first.wait().unwrap();
    workspace.edit("pipeline.yaml", "epochs: 3000", "epochs: 3");
    workspace.succeed(&["run", "pipeline.yaml"]);
}

/// How many rows each table may have while a run goes on: whole parts. A part of the responses is 3
/// responses to 4 prompts or, at the end of the second iteration, to 2.
const STATES: [(&str, &[i64]); 4] =
    [("responses", &[0, 12, 24, 36, 48, 60, 72, 84, 90]), ("rewards", &[0, 60, 90]), ("pool", &[0, 60, 120]), ("evaluation", &[0, 8, 16])];

/// The row counts of the tables that a reader finds now.
fn counts(runs: &Runs) -> Result<BTreeMap<&'static str, i64>, StoreError> {
    let session = Session::over_run(&runs.run("small")?)?;
    let there = session.tables();
    let found = STATES.iter().filter(|(table, _)| there.iter().any(|name| name == table));
    found.map(|(table, _)| Ok((*table, session.count(&format!("SELECT count(*) FROM {table}"))?))).collect()
}

/// Sets the flag when the test ends, also when it fails.
struct Over<'a>(&'a AtomicBool);

impl Drop for Over<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::SeqCst);
    }
}

#[test]
fn readers_beside_a_run_see_what_is_committed_and_never_fail() {
    let workspace = Workspace::new();
    let runs = Runs::open(workspace.path("runs")).unwrap();
    let mut seen_in_all = 0;
    // Each run makes the outputs of the one before anew, with another learning rate. The number of
    // runs depends on the reader: it must look often enough, and on a busy machine it looks seldom.
    for round in 1..=20 {
        let set = format!("learning_rate={round}.0e-4");
        let is_over = AtomicBool::new(false);
        seen_in_all += thread::scope(|scope| {
            let reader = scope.spawn(|| {
                let (mut reads, mut seen) = (0, BTreeMap::new());
                while !is_over.load(Ordering::SeqCst) {
                    let now = counts(&runs).unwrap();
                    for (table, states) in STATES {
                        assert!(now.get(table).is_none_or(|rows| states.contains(rows)), "{table}: {now:?}");
                    }
                    reads += usize::from(now != seen);
                    seen = now;
                    assert_eq!(runs.run("small").unwrap().journal().read().map(drop).map_err(|error| error.to_string()), Ok(()));
                }
                reads
            });
            let over = Over(&is_over);
            succeeded(begin(&workspace, &["run", "pipeline.yaml", "--set", &set]));
            drop(over);
            reader.join().unwrap()
        });
        if round > 1 && seen_in_all > 10 {
            return;
        }
    }
    panic!("the tables were seen in {seen_in_all} states");
}

/// A pipeline like the workspace's, as the run `name` with a ratio of its own.
fn variant(workspace: &Workspace, name: &str, ratio: &str) -> String {
    let text = std::fs::read_to_string(workspace.path("pipeline.yaml")).unwrap();
    let text = text.replace("name: small", &format!("name: {name}")).replace("ratio: 0.5", &format!("ratio: {ratio}"));
    workspace.write(&format!("{name}.yaml"), &text);
    format!("{name}.yaml")
}

/// Three runs begin together. All need the same base, and two need all the same outputs. `clean`
/// runs beside them in a loop, and now and then one of them is killed.
#[test]
fn runs_that_share_the_cache_at_the_same_time_end_in_the_bytes_that_each_has_alone() {
    let names = [("one", "0.5"), ("two", "0.5"), ("three", "0.7")];
    let alone = Workspace::new();
    let expected: Vec<BTreeMap<String, String>> = names
        .iter()
        .map(|(name, ratio)| {
            std::fs::remove_dir_all(alone.path("runs/.cache")).ok();
            alone.succeed(&["run", &variant(&alone, name, ratio)]);
            alone.result(name)
        })
        .collect();
    for seed in seeds(3) {
        let _replay = Replay(seed);
        let mut random = ChaCha8Rng::seed_from_u64(seed);
        let workspace = Workspace::new();
        let files: Vec<String> = names.iter().map(|(name, ratio)| variant(&workspace, name, ratio)).collect();
        let is_over = AtomicBool::new(false);
        thread::scope(|scope| {
            let cleaner = scope.spawn(|| {
                while !is_over.load(Ordering::SeqCst) {
                    workspace.succeed(&["clean"]);
                    thread::sleep(Duration::from_millis(20));
                }
            });
            let over = Over(&is_over);
            let mut children: Vec<Child> = files.iter().map(|file| begin(&workspace, &["run", file])).collect();
            thread::sleep(Duration::from_millis(random.next_u64() % 1500));
            let victim = (random.next_u64() % 3) as usize;
            children[victim].kill().unwrap();
            children[victim].wait().unwrap();
            children[victim] = begin(&workspace, &["run", &files[victim]]);
            children.into_iter().for_each(succeeded);
            drop(over);
            cleaner.join().unwrap();
        });
        for ((name, _), expected) in names.iter().zip(&expected) {
            assert!(workspace.result(name) == *expected, "run {name} of seed {seed}");
            workspace.succeed(&["status", name, "--verify"]);
        }
        // With no process at work, the cache holds the outputs of the runs and no more.
        workspace.succeed(&["clean"]);
        for (name, _) in names {
            workspace.succeed(&["status", name, "--verify"]);
        }
    }
}
