//! The folders of tables, read by other software as they are: the same rows as by `optune sql`.

use std::ffi::OsStr;
use std::fs;
use std::path::Path;

use crate::fixtures::python::run_script;
use crate::fixtures::repository::optune;
use crate::fixtures::workspace::Workspace;

/// Compares the tables of a run; returns their number.
fn compare(runs: &Path, name: &str) -> Option<usize> {
    let expected = tempfile::tempdir().unwrap();
    let run = runs.join(name);
    let mut tables = 0;
    for entry in fs::read_dir(run.join("tables")).unwrap() {
        let table = entry.unwrap().file_name().into_string().unwrap();
        let file = expected.path().join(format!("{table}.parquet"));
        optune(runs, &["sql", name, &format!("SELECT * FROM {table}"), "--format", "parquet", "--output", file.to_str().unwrap()]);
        tables += 1;
    }
    let said = run_script("table_folders.py", &[run.as_os_str(), expected.path().as_os_str()] as &[&OsStr])?;
    let counts: serde_json::Value = serde_json::from_slice(&said).unwrap();
    let counts = counts.as_object().unwrap();
    assert_eq!(counts.len(), tables);
    assert!(counts.values().all(|readers| readers.as_object().unwrap().len() == 5));
    eprintln!("{}", serde_json::Value::Object(counts.clone()));
    Some(tables)
}

#[test]
fn every_table_of_the_quickstart_is_a_folder_for_every_reader() {
    let runs = tempfile::tempdir().unwrap();
    optune(runs.path(), &["run", "pipelines/quickstart.yaml"]);
    if let Some(tables) = compare(runs.path(), "quickstart") {
        assert!(tables >= 14, "{tables}");
    }
}

/// What the pages say to do for `datasets`, which has no type for maps.
#[test]
fn maps_become_lists_in_sql() {
    let workspace = Workspace::finished();
    let query = "SELECT * EXCEPT (components), map_keys(components) AS names, map_values(components) AS \"values\" FROM rewards";
    workspace.succeed(&["sql", "small", query, "--format", "parquet", "--output", "lists.parquet"]);
    let query = "SELECT DISTINCT names[1] AS name, sum(\"values\"[1]) OVER () AS total FROM lists";
    let rows = workspace.succeed(&["sql", "small", query, "--table", "lists=lists.parquet", "--format", "csv"]);
    let total = workspace.query("small", "SELECT sum(components['exact']) FROM rewards");
    assert_eq!(rows.lines().nth(1), Some(format!("exact,{total}").as_str()), "{rows}");
}

/// Rewards of several terms, and texts with every kind of sign.
#[test]
fn components_and_odd_texts_are_read_too() {
    let workspace = Workspace::new();
    workspace.edit(
        "pipeline.yaml",
        "judge:    { reward: { sql: reward.sql } }",
        "judge: { reward: [{ sql: reward.sql, weight: 0.5 }, { sql: reward.sql, weight: 2, name: again }] }",
    );
    workspace.edit("pipeline.yaml", "iterations: 2", "iterations: 1");
    workspace.succeed(&["run", "pipeline.yaml"]);
    compare(&workspace.path("runs"), "small");
}
