//! A run that goes on: its progress, by node and with the time left, as events.

use std::io::{BufRead, BufReader};
use std::time::{Duration, Instant};

use serde_json::Value;

use super::Server;
use crate::fixtures::workspace::Workspace;

#[test]
fn a_run_is_followed_to_its_end() {
    let workspace = Workspace::new();
    workspace.edit("pipeline.yaml", "iterations: 2", "iterations: 4");
    let mut run = workspace.start(&["run", "pipeline.yaml"]);
    let journal = workspace.path("runs/small/journal.jsonl");
    let begun = Instant::now();
    while !journal.exists() {
        assert!(begun.elapsed() < Duration::from_secs(60), "no journal");
        std::thread::sleep(Duration::from_millis(5));
    }
    let server = Server::start(&workspace, &[]);
    let request =
        format!("GET /api/events?run=small HTTP/1.1\r\nhost: 127.0.0.1:{}\r\nauthorization: {}\r\n\r\n", server.port, server.bearer());
    let mut lines = BufReader::new(server.send(&request)).lines();
    let mut seen: Vec<Value> = Vec::new();
    while seen.last().is_none_or(|last| last["state"] != "finished") {
        assert!(begun.elapsed() < Duration::from_secs(120), "{:?}", seen.last());
        let line = lines.next().unwrap().unwrap();
        if let Some(data) = line.strip_prefix("data: ") {
            seen.push(serde_json::from_str(data).unwrap());
        }
    }
    assert!(run.wait().unwrap().success());
    let done: Vec<u64> = seen.iter().map(|progress| progress["done"].as_u64().unwrap()).collect();
    assert!(done.is_sorted(), "{done:?}");
    // base, and seven outputs in each of four iterations.
    let last = seen.last().unwrap();
    assert_eq!((last["done"].as_u64(), last["of"].as_u64()), (Some(29), Some(29)));
    assert!(seen.iter().all(|progress| progress["of"] == 29));
    let running = |progress: &&Value| progress["state"] == "running";
    assert!(seen.iter().filter(running).count() > 1, "{done:?}");
    for progress in &seen {
        for node in progress["nodes"].as_array().unwrap() {
            let parts = (node["parts"].as_u64().unwrap(), node["part_count"].as_u64().unwrap());
            assert!(parts.0 <= parts.1, "{node}");
            // Time is left exactly where work is, and never none.
            assert!(node["seconds_left"].as_f64().is_none_or(|left| left > 0.0 && node["state"] != "done"), "{node}");
        }
        assert!(progress["seconds_left"].is_null() || progress["state"] == "running", "{progress}");
    }
    // After an iteration the following ones have an estimate.
    let later = seen.iter().filter(running).filter(|progress| progress["done"].as_u64() > Some(9));
    assert!(later.clone().count() == 0 || later.clone().any(|progress| progress["seconds_left"].as_f64() > Some(0.0)), "{done:?}");
    // The pages have the rows of the end.
    assert_eq!(server.ask("rows/count", &[("run", "small"), ("table", "responses")])["count"], 150);
    assert_eq!(server.ask("progress", &[("run", "small")])["state"], "finished");
}

#[test]
fn a_failed_run_names_its_node_and_the_reason() {
    let workspace = Workspace::new();
    workspace.edit(
        "reward.sql",
        " AS reward,",
        " + CASE WHEN responses.sampled_iteration = 2 THEN CAST('NaN' AS DOUBLE) ELSE 0.0 END AS reward,",
    );
    workspace.fail(&["run", "pipeline.yaml"], 2);
    let server = Server::start(&workspace, &["small"]);
    let progress = server.ask("progress", &[("run", "small")]);
    assert_eq!(progress["state"], "failed");
    let failed: Vec<&Value> = progress["nodes"].as_array().unwrap().iter().filter(|node| node["state"] == "failed").collect();
    assert_eq!(failed.len(), 1, "{failed:?}");
    assert_eq!((failed[0]["node"].as_str(), failed[0]["iteration"].as_u64()), (Some("rewards"), Some(2)));
    assert!(failed[0]["message"].as_str().unwrap().contains("NaN"), "{}", failed[0]);
    let later = progress["nodes"].as_array().unwrap().iter().find(|node| node["node"] == "policy" && node["iteration"] == 2).unwrap();
    assert_eq!((later["state"].as_str(), progress["seconds_left"].as_f64()), (Some("waiting"), None));
    // The prompts of the iteration without a pool are there all the same.
    assert_eq!(server.ask("prompts", &[("run", "small")])["rows"].as_array().unwrap().len(), 20);
}

#[test]
fn two_runs_answer_for_the_same_prompt() {
    let workspace = Workspace::finished();
    workspace.succeed(&["run", "pipeline.yaml", "--name", "other", "--set", "learning_rate=3.0e-3"]);
    let server = Server::start(&workspace, &["small", "runs/other", "small"]);
    let names: Vec<Value> = server.ask("runs", &[]).as_array().unwrap().iter().map(|run| run["name"].clone()).collect();
    assert_eq!(names, ["small", "other"]);
    for run in ["small", "other"] {
        let detail = server.ask("prompt", &[("run", run), ("prompts", "prompts"), ("id", "p-005")]);
        let texts = detail["tables"].as_array().unwrap().iter().find(|table| table["node"] == "responses").unwrap();
        let texts: Vec<&str> = texts["rows"].as_array().unwrap().iter().map(|row| row["text"].as_str().unwrap()).collect();
        let expected = workspace.query(run, "SELECT string_agg(text, '|') FROM responses WHERE prompt_id = 'p-005'");
        assert_eq!(texts.join("|"), expected.trim_matches('"'));
    }
}
