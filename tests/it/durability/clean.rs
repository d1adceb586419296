//! Cleaning: only files without a run that needs them, and nothing in use.

use optune::store::{Garbage, OutputKey, State, StoreError};
use optune::tables::logprobs;

use crate::fixtures::rows::Draw;
use crate::fixtures::rows::logprob_rows;
use crate::fixtures::store::{Space, make_model, make_table, recipe, rows_of};
use optune::dag::fingerprint::Fingerprint;
use optune::tables::TableKind;
use std::fs;

fn names(space: &Space, garbage: &[Garbage]) -> Vec<String> {
    let root = space.runs().root().to_path_buf();
    garbage.iter().map(|garbage| garbage.path.strip_prefix(&root).unwrap().display().to_string().replace('\\', "/")).collect()
}

#[test]
fn what_no_run_needs_is_found_and_removed() {
    let space = Space::new();
    let (table, model) = (OutputKey::table("pool", Some(1)), OutputKey::model("policy", Some(1)));
    let lock = space.lock("run");
    make_table(&lock, &table, 0.5, 9).unwrap();
    make_table(&lock, &table, 0.7, 1).unwrap();
    make_table(&lock, &table, 0.8, 9).unwrap();
    let save = |ratio: f64| {
        lock.checkpoints().commit(&model, &recipe(ratio).fingerprint(), 1, 2, |dir| {
            fs::write(dir.join("weights"), "w").map_err(|source| StoreError::Io { action: "write", path: dir.into(), source })
        })
        .unwrap()
    };
    let old_checkpoint = save(0.1);
    make_model(&lock, &model, 0.9).unwrap();
    let other = OutputKey::model("other", None);
    let live = lock.checkpoints().commit(&other, &recipe(0.2).fingerprint(), 1, 2, |_| Ok::<(), StoreError>(())).unwrap();
    drop(lock);
    fs::create_dir_all(space.runs().root().join(".cache/tmp-1-run-0")).unwrap();
    fs::create_dir_all(space.run("run").folder().join("quarantine")).unwrap();
    fs::write(space.run("run").folder().join("quarantine/pool-1-part-00000.parquet-1"), [0; 33]).unwrap();

    let garbage = space.runs().garbage().unwrap();
    let expected = [
        format!(".cache/{}", recipe(0.5).fingerprint()),
        format!(".cache/{}.partial", recipe(0.7).fingerprint()),
        ".cache/tmp-1-run-0".to_string(),
        old_checkpoint.strip_prefix(space.runs().root()).unwrap().display().to_string(),
        "run/quarantine/pool-1-part-00000.parquet-1".to_string(),
    ];
    let mut sorted = expected.to_vec();
    sorted.sort();
    assert_eq!(names(&space, &garbage), sorted);
    assert!(garbage.iter().any(|garbage| garbage.bytes == 33));

    // Only the requested files are removed.
    let (asked, rest): (Vec<_>, Vec<_>) = garbage.into_iter().partition(|garbage| garbage.bytes == 33);
    assert_eq!(space.runs().remove(&asked).unwrap(), 33);
    assert_eq!(space.runs().garbage().unwrap(), rest);
    space.runs().remove(&rest).unwrap();
    assert_eq!(space.runs().garbage().unwrap(), []);
    assert_eq!(space.runs().remove(&rest).unwrap(), 0);
    assert!(live.exists());
    let run = space.run("run");
    assert_eq!(run.state(&table, &recipe(0.8)).unwrap(), State::Complete);
    assert_eq!(run.state(&model, &recipe(0.9)).unwrap(), State::Complete);
    run.read_table(&table, None).unwrap();
}

#[test]
fn a_run_in_use_and_the_cache_it_may_want_are_left_alone() {
    let space = Space::new();
    let table = OutputKey::table("pool", Some(1));
    for (name, ratio) in [("one", 0.1), ("two", 0.2)] {
        let lock = space.lock(name);
        make_table(&lock, &table, ratio, 9).unwrap();
        make_table(&lock, &table, ratio + 0.5, 9).unwrap();
        fs::create_dir_all(lock.folder().join("quarantine/x-1")).unwrap();
    }
    let all = space.runs().garbage().unwrap();
    assert_eq!(all.len(), 4);
    let lock = space.lock("one");
    assert_eq!(names(&space, &space.runs().garbage().unwrap()), ["two/quarantine/x-1"]);
    space.runs().remove(&all).unwrap();
    assert!(lock.folder().join("quarantine/x-1").exists());
    assert_eq!(lock.state(&table, &recipe(0.1)).unwrap(), State::Cached);
    assert!(!space.run("two").folder().join("quarantine/x-1").exists());
}

#[test]
fn what_is_kept_for_a_model_goes_when_no_run_reads_that_model() {
    let space = Space::new();
    let lock = space.lock("run");
    make_table(&lock, &OutputKey::table("pool", Some(1)), 0.5, 9).unwrap();
    // The input of every recipe here, and another one.
    let (read, unread) = (Fingerprint::from_contents(b"fresh"), Fingerprint::from_contents(b"gone"));
    for of in [&read, &unread] {
        lock.memo().add(TableKind::Logprobs, of, &logprobs::batch(&logprob_rows(&mut Draw(1), 3))).unwrap();
    }
    drop(lock);
    let garbage = space.runs().garbage().unwrap();
    assert_eq!(names(&space, &garbage), [format!(".cache/logprobs/{unread}")]);
    space.runs().remove(&garbage).unwrap();
    assert_eq!(space.runs().garbage().unwrap(), []);
    let (batches, _) = space.lock("run").memo().read(&OutputKey::table("pool", Some(1)), TableKind::Logprobs, &read).unwrap();
    assert_eq!(rows_of(&batches), 3);
}
