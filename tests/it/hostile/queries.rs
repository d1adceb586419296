//! A user's SQL is a query and nothing else, in every place, and takes no more memory than its
//! limit.

use optune::sql::Session;

use crate::fixtures::workspace::{PIPELINE, Workspace};

/// Statements other than queries, with words of their errors.
const NO_QUERIES: [(&str, &str); 17] = [
    ("COPY prompts TO 'out.parquet'", "--output FILE"),
    ("copy prompts to 'out'", "expected a query, found COPY"),
    ("COPY (SELECT 1) TO 'out.csv' STORED AS CSV", "expected a query, found COPY"),
    ("EXPLAIN ANALYZE COPY prompts TO 'out.parquet'", "expected a query, found COPY"),
    ("CREATE EXTERNAL TABLE x STORED AS CSV LOCATION '/etc/passwd'", "--table NAME=FILE"),
    ("CREATE TABLE x AS SELECT 1", "expected a query, found "),
    ("CREATE FUNCTION f(DOUBLE) RETURNS DOUBLE RETURN $1", "expected a query, found CREATE"),
    ("INSERT INTO prompts SELECT * FROM prompts", "expected a query, found "),
    ("DELETE FROM prompts", "expected a query, found "),
    ("DROP TABLE prompts", "expected a query, found "),
    ("SET datafusion.runtime.memory_limit = '1K'", "expected a query, found "),
    ("PREPARE p AS SELECT 1", "expected a query, found "),
    ("SELECT 1; DROP TABLE prompts", "expected one query, found several"),
    ("SELECT * FROM '/etc/passwd'", "queries read no files by their names"),
    ("SELECT * FROM 'prompts.jsonl'", "queries read no files by their names"),
    ("SELECT * FROM \"prompts.jsonl\"", "not found"),
    ("SELECT * FROM read_parquet('prompts.parquet')", "queries read no files by their names"),
];

fn files(workspace: &Workspace) -> Vec<std::ffi::OsString> {
    let mut names: Vec<_> = std::fs::read_dir(workspace.path("")).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    names.sort();
    names
}

#[test]
fn a_question_to_a_run_can_only_ask() {
    let workspace = Workspace::new();
    let (head, _) = PIPELINE.split_once("nodes:").unwrap();
    workspace.write("pipeline.yaml", &format!("{head}nodes:\n  mine: {{ sql: {{ query: SELECT * FROM prompts }} }}\n"));
    for unused in ["held_out", "shape", "judge"] {
        let text = std::fs::read_to_string(workspace.path("pipeline.yaml")).unwrap();
        let kept = text.lines().filter(|line| !line.trim().starts_with(unused) && !line.starts_with("params"));
        workspace.write("pipeline.yaml", &kept.map(|line| format!("{line}\n")).collect::<String>());
    }
    workspace.succeed(&["run", "pipeline.yaml"]);
    let before = files(&workspace);
    for (statement, said) in NO_QUERIES {
        let error = workspace.fail(&["sql", "small", statement], 2);
        assert!(error.contains(said), "{statement}: expected {said:?} in: {error}");
    }
    assert_eq!(files(&workspace), before);
    assert_eq!(workspace.query("small", "SELECT count(*) FROM prompts"), "20");
    for statement in ["SHOW TABLES", "EXPLAIN SELECT * FROM prompts", "DESCRIBE prompts", "SHOW COLUMNS FROM prompts"] {
        workspace.succeed(&["sql", "small", statement]);
    }
    // A file named on the command line is read. A query cannot name further files.
    workspace.succeed(&["sql", "small", "SELECT * FROM prompts", "--format", "parquet", "--output", "out.parquet"]);
    let all = workspace.succeed(&["sql", "small", "SELECT count(*) AS n FROM mine", "--table", "mine2=out.parquet", "--format", "csv"]);
    assert_eq!(all, "n\n20\n");
    let all = workspace.succeed(&["sql", "small", "SELECT count(*) AS n FROM out", "--table", "out=out.parquet", "--format", "csv"]);
    assert_eq!(all, "n\n20\n");
}

#[test]
fn a_query_in_a_pipeline_can_only_ask() {
    for (statement, _) in NO_QUERIES {
        let workspace = Workspace::new();
        workspace.write("reward.sql", statement);
        let before = files(&workspace);
        let error = workspace.fail(&["plan", "pipeline.yaml"], 2);
        assert!(!error.contains("panicked"), "{statement}: {error}");
        workspace.fail(&["run", "pipeline.yaml"], 2);
        assert!(files(&workspace).iter().all(|name| before.contains(name) || name == "runs"), "{statement}");
        assert!(!workspace.path("runs/small/tables").exists(), "{statement}");
    }
}

#[test]
fn a_query_that_takes_too_much_memory_is_refused_and_the_session_goes_on() {
    let session = Session::bounded_by(16 << 20).unwrap();
    let refused = |query: &str, said: &str| {
        let error = session.query(query).unwrap_err();
        assert!(error.is_input() && error.to_string().contains(said), "{query}: {error}");
    };
    let numbers = "generate_series(1, 100000000000)";
    refused(&format!("SELECT * FROM {numbers}"), "expected the result of a query to take at most 2097152 bytes of memory");
    refused(&format!("SELECT value FROM {numbers} ORDER BY -value"), "expected a query to take at most 16777216 bytes of memory");
    refused(
        &format!("SELECT value * 7919 % 100000007, count(*) FROM {numbers} GROUP BY 1"),
        "expected a query to take at most 16777216 bytes",
    );
    refused(
        &format!("SELECT count(*) FROM {numbers} a JOIN {numbers} b ON a.value = b.value"),
        "expected a query to take at most 16777216",
    );
    let rows = session.rows(&format!("SELECT value FROM {numbers} ORDER BY -value")).unwrap().find_map(Result::err);
    assert!(rows.unwrap().to_string().contains("filter rows or choose columns"));
    assert_eq!(session.count("SELECT count(*) FROM generate_series(1, 1000)").unwrap(), 1000);
}

#[test]
fn a_deeply_nested_query_is_answered_or_refused() {
    let session = Session::bounded_by(16 << 20).unwrap();
    assert_eq!(session.count(&format!("SELECT {}1", "1+".repeat(200))).unwrap(), 201);
    let refused = session.query(&format!("SELECT {}1", "1+".repeat(800))).unwrap_err().to_string();
    assert!(refused.contains("expected an expression of at most 256 levels"), "{refused}");
    assert!(session.query(&format!("SELECT {}1", "(".repeat(30_000))).is_err());
    assert_eq!(session.rows(&format!("SELECT {}value FROM generate_series(1, 2)", "1+".repeat(200))).unwrap().count(), 1);
}
