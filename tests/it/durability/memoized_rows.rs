//! Memoized rows: a part is whole or not there, with any number of writers and a kill at any time.

use optune::dag::fingerprint::Fingerprint;
use optune::store::OutputKey;
use optune::tables::{TableKind, logprobs, pool};

use crate::fixtures::disk::stop_after;
use crate::fixtures::rows::Draw;
use crate::fixtures::rows::{logprob_rows, pool_rows};
use crate::fixtures::store::{Space, flip_a_bit, locked};
use optune::store::RunLock;
use optune::store::StoreError;
use std::fs;

const TABLE: TableKind = TableKind::Logprobs;

fn rows(seed: u64) -> Vec<logprobs::Row> {
    logprob_rows(&mut Draw(seed), 20)
}

fn keep(lock: &RunLock, of: &Fingerprint, seed: u64) -> Result<(), StoreError> {
    lock.memo().add(TABLE, of, &logprobs::batch(&rows(seed)))
}

/// The memoized rows, sorted, and the paths of the quarantined files.
fn kept(lock: &RunLock, of: &Fingerprint) -> (Vec<logprobs::Row>, Vec<String>) {
    let (batches, reports) = lock.memo().read(&OutputKey::table("policy_pairs", Some(1)), TABLE, of).unwrap();
    let mut rows: Vec<logprobs::Row> = batches.iter().flat_map(|batch| logprobs::rows(batch).unwrap()).collect();
    rows.sort_by_key(|row| row.key);
    (rows, reports.iter().map(|report| report.to_string()).collect())
}

fn sorted(seeds: &[u64]) -> Vec<logprobs::Row> {
    let mut all: Vec<logprobs::Row> = seeds.iter().flat_map(|seed| rows(*seed)).collect();
    all.sort_by_key(|row| row.key);
    all
}

#[test]
fn what_one_run_keeps_another_finds() {
    let space = Space::new();
    let (of, other) = (Fingerprint::from_contents(b"one"), Fingerprint::from_contents(b"other"));
    assert_eq!(kept(&space.lock("first"), &of), (Vec::new(), Vec::new()));
    keep(&space.lock("first"), &of, 1).unwrap();
    keep(&space.lock("first"), &of, 2).unwrap();
    keep(&space.lock("second"), &of, 2).unwrap();
    keep(&space.lock("second"), &other, 3).unwrap();
    let lock = space.lock("third");
    assert_eq!(kept(&lock, &of), (sorted(&[1, 2]), Vec::new()));
    assert_eq!(kept(&lock, &other), (sorted(&[3]), Vec::new()));
    let mut bad = rows(4);
    bad[3].logprob = f64::NAN;
    let error = lock.memo().add(TABLE, &of, &logprobs::batch(&bad)).unwrap_err().to_string();
    assert!(error.contains("table logprobs, row 3: logprob: expected a finite number, found NaN"), "{error}");
}

#[test]
fn killed_after_any_step_a_part_is_whole_or_not_there() {
    let of = Fingerprint::from_contents(b"one");
    for steps in 0.. {
        let space = Space::new();
        keep(&space.lock("run"), &of, 1).unwrap();
        let (_, stopped) = stop_after(space.path(), steps, || keep(&locked(&space.run("run"))?, &of, 2));
        let (found, reports) = kept(&space.lock("run"), &of);
        assert!(reports.is_empty(), "step {steps}: a kill damages nothing");
        assert!(found == sorted(&[1]) || found == sorted(&[1, 2]), "step {steps}");
        keep(&space.lock("run"), &of, 2).unwrap();
        assert_eq!(kept(&space.lock("run"), &of).0, sorted(&[1, 2]), "step {steps}");
        if !stopped {
            break;
        }
    }
}

#[test]
fn many_runs_may_add_at_once() {
    let space = Space::new();
    let of = Fingerprint::from_contents(b"one");
    std::thread::scope(|scope| {
        for run in 0..4 {
            let (space, of) = (&space, &of);
            scope.spawn(move || {
                let lock = space.lock(&format!("run{run}"));
                for seed in 0..8 {
                    keep(&lock, of, 100 + (seed + run) % 6).unwrap();
                    assert_eq!(kept(&lock, of).1, [""; 0]);
                }
            });
        }
    });
    assert_eq!(kept(&space.lock("last"), &of), (sorted(&[100, 101, 102, 103, 104, 105]), Vec::new()));
}

#[test]
fn a_part_that_is_not_what_was_written_is_set_aside() {
    let of = Fingerprint::from_contents(b"one");
    let folder = |space: &Space| space.runs().root().join(".cache/logprobs").join(of.as_str());
    let only_part = |space: &Space| fs::read_dir(folder(space)).unwrap().next().unwrap().unwrap().path();
    for cut in [None, Some(0), Some(50)] {
        let space = Space::new();
        keep(&space.lock("run"), &of, 1).unwrap();
        let path = only_part(&space);
        match cut {
            None => flip_a_bit(&path),
            Some(length) => fs::File::options().write(true).open(&path).unwrap().set_len(length).unwrap(),
        }
        keep(&space.lock("run"), &of, 2).unwrap();
        let lock = space.lock("run");
        let (found, reports) = kept(&lock, &of);
        assert_eq!(found, sorted(&[2]));
        let expected = format!("{}: expected blake3 {}", path.display(), &path.file_name().unwrap().to_string_lossy()[..12]);
        assert!(reports.len() == 1 && reports[0].starts_with(&expected), "{reports:?}");
        assert!(lock.folder().join(format!("quarantine/logprobs-{}-1", of.short())).is_file());
        assert!(fs::read_to_string(lock.folder().join("journal.jsonl")).unwrap().contains("quarantined"));
        // It is gone, so it is not reported again. The lost rows can be memoized again.
        assert_eq!(kept(&lock, &of).1, [""; 0]);
        keep(&lock, &of, 1).unwrap();
        assert_eq!(kept(&lock, &of), (sorted(&[1, 2]), Vec::new()));
    }
    // A part with other columns, as another version might write it, under its right hash; and files
    // of another kind.
    let space = Space::new();
    let lock = space.lock("run");
    keep(&lock, &of, 1).unwrap();
    let file = space.path().join("pool.parquet");
    optune::store::write_parquet(&file, &pool::batch(&pool_rows(&mut Draw(1), 3))).unwrap();
    let hash = blake3::hash(&fs::read(&file).unwrap());
    fs::rename(&file, folder(&space).join(format!("{hash}.parquet"))).unwrap();
    let text = "no parquet";
    fs::write(folder(&space).join(format!("{}.parquet", blake3::hash(text.as_bytes()))), text).unwrap();
    fs::write(folder(&space).join("notes.txt"), text).unwrap();
    let (found, reports) = kept(&lock, &of);
    assert_eq!((found, reports.len()), (sorted(&[1]), 2));
    assert!(
        reports.iter().any(|report| report.contains("the columns of logprobs") && report.contains("expected a column key")),
        "{reports:?}"
    );
    assert!(folder(&space).join("notes.txt").exists());
}
