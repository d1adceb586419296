//! The tasks of the quickstart come from their query alone. The quickstart learns from them.

use std::collections::BTreeMap;

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
