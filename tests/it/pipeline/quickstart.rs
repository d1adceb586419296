//! The tasks of the quickstart come from their query alone. The quickstart learns from them.

use std::collections::BTreeMap;
use std::path::Path;

use crate::fixtures::files::files_under;
use crate::fixtures::repository::optune;

#[test]
fn the_committed_tables_are_what_the_query_gives_and_share_no_prompt() {
    let runs = tempfile::tempdir().unwrap();
    optune(runs.path(), &["run", "pipelines/tasks.yaml"]);
    let mut seen = BTreeMap::new();
    for split in ["held_out", "train", "demonstrations"] {
        let committed = format!("committed=datasets/tasks/{split}.parquet");
        let rows = |table: &str| {
            let query = format!("SELECT * FROM {table} ORDER BY prompt_id");
            optune(runs.path(), &["sql", "tasks", &query, "--format", "json", "--table", &committed])
        };
        let (made, there) = (rows(split), rows("committed"));
        assert!(made == there, "{split} differs from what tasks.sql gives");
        for line in there.lines() {
            let row: serde_json::Value = serde_json::from_str(line).unwrap();
            let prompt = row["prompt"].as_str().unwrap().to_string();
            if let Some(other) = seen.insert(prompt.clone(), split) {
                panic!("{prompt} is in {other} and in {split}");
            }
        }
    }
}

/// The acceptance of the quickstart: over three seeds the held-out reward rises by more than twice
/// the spread between seeds, and no family's falls by more than this spread.
#[test]
fn the_quickstart_raises_the_held_out_reward() {
    let runs = tempfile::tempdir().unwrap();
    let (mut bases, mut finals) = (Vec::new(), Vec::new());
    let mut families: BTreeMap<String, f64> = BTreeMap::new();
    for seed in ["17", "18", "19"] {
        let set = format!("seed={seed}");
        let summary = optune(runs.path(), &["run", "pipelines/quickstart.yaml", "--name", seed, "--set", &set, "--json"]);
        let summary: serde_json::Value = serde_json::from_str(&summary).unwrap();
        eprintln!("seed {seed}: {summary}");
        assert_eq!(summary["alarms"], serde_json::json!([]), "a healthy run has no sign of over-optimization");
        let rows = summary["iterations"].as_array().unwrap();
        assert_eq!(rows.iter().map(|row| row["regenerated"].as_i64()).collect::<Vec<_>>(), [None, Some(432), Some(216), Some(216)]);
        bases.push(rows[0]["reward"].as_f64().unwrap());
        finals.push(rows[3]["reward"].as_f64().unwrap());
        let query = "SELECT \"group\", avg(reward - baseline_reward) FROM evaluation JOIN held_out USING (prompt_id) WHERE iteration = 3 GROUP BY 1";
        for line in optune(runs.path(), &["sql", seed, query, "--format", "csv"]).lines().skip(1) {
            let (family, rise) = line.split_once(',').unwrap();
            *families.entry(family.to_string()).or_default() += rise.parse::<f64>().unwrap() / 3.0;
        }
    }
    let spread = |values: &[f64]| values.iter().copied().fold(f64::MIN, f64::max) - values.iter().copied().fold(f64::MAX, f64::min);
    let mean = |values: &[f64]| values.iter().sum::<f64>() / values.len() as f64;
    let (rise, spread) = (mean(&finals) - mean(&bases), spread(&bases).max(spread(&finals)));
    assert!((0.3..0.67).contains(&mean(&bases)), "the base earns {}, expected a third to two thirds", mean(&bases));
    assert!(rise > 2.0 * spread, "rose by {rise}, spread between seeds {spread}");
    assert!(families.len() >= 6 && families.values().all(|rise| *rise > -spread), "{families:?}, spread {spread}");
}

#[test]
fn the_files_in_the_program_are_those_of_the_repository() {
    let folder = tempfile::tempdir().unwrap();
    let first = folder.path().join("my first");
    let runs = folder.path().join("runs");
    optune(&runs, &["quickstart", first.to_str().unwrap(), "--files-only"]);
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let written = files_under(&first);
    assert_eq!(written.len(), 9);
    for file in written {
        let own = root.join(file.strip_prefix(&first).unwrap());
        assert!(std::fs::read(&file).unwrap() == std::fs::read(&own).unwrap(), "{}", own.display());
    }
    // The same fingerprints, so the same run.
    let pipeline = first.join("pipelines/quickstart.yaml");
    let plan = optune(&runs, &["plan", pipeline.to_str().unwrap()]);
    assert_eq!(plan, optune(&runs, &["plan", "pipelines/quickstart.yaml"]));
    // A second time changes nothing; a changed file is not written over.
    optune(&runs, &["quickstart", first.to_str().unwrap(), "--files-only"]);
    std::fs::write(&pipeline, "mine").unwrap();
    let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_optune"));
    let output = command.args(["quickstart", first.to_str().unwrap(), "--files-only"]).output().unwrap();
    let error = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(2));
    assert!(error.contains("quickstart.yaml: was changed since; name another folder") && error.contains("optune run '"), "{error}");
    assert_eq!(std::fs::read_to_string(&pipeline).unwrap(), "mine");
}
