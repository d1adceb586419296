//! A pipeline file, with its queries.

use std::fs;
use std::path::Path;

use optune::pipeline::Sweep;

/// Files of the names that the pipelines here have, so that a graph can be made.
fn fill(folder: &Path) {
    for model in ["base", "shape", "datasets/tasks/model", "models/reward"] {
        fs::create_dir_all(folder.join(model)).unwrap();
        fs::write(folder.join(model).join("config.json"), "{}").unwrap();
    }
    for table in ["train", "held_out", "demonstrations"] {
        fs::write(folder.join(format!("datasets/tasks/{table}.parquet")), "").unwrap();
    }
    for (file, text) in [
        ("prompts.jsonl", "{}"),
        ("prefs.jsonl", "{}"),
        ("prompts.parquet", ""),
        ("held_out.jsonl", "{}"),
        ("reward.sql", "SELECT prompt_id, response_index, 1.0 AS reward FROM responses"),
        ("datasets/tasks/reward.sql", "SELECT * FROM responses"),
        ("datasets/tasks/tasks.sql", "SELECT * FROM train"),
    ] {
        fs::write(folder.join(file), text).unwrap();
    }
}

/// How many runs of a matrix are looked at.
const RUNS: usize = 3;

/// Reads the file and makes the graphs.
pub fn pipeline(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let folder = super::folder("pipeline", fill);
    match Sweep::read("pipeline.yaml", text, &[]) {
        // A pattern of file names may walk the whole disk, if that is what it says.
        Ok(_) if text.contains('*') || text.contains("..") => {}
        Ok(sweep) => sweep.runs.iter().take(RUNS).for_each(|pipeline| match pipeline.graph(&folder) {
            Ok(graph) => assert!(!graph.tasks.is_empty() && graph.tasks.len() <= 100_000),
            Err(error) => super::said(error),
        }),
        Err(error) => super::said(error),
    }
}
