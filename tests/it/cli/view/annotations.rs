//! Flags and notes: written beside a run, read by SQL and by `export`.

use serde_json::{Value, json};

use super::Server;
use crate::fixtures::workspace::Workspace;

fn rows(workspace: &Workspace) -> Vec<Value> {
    let query = "SELECT node, prompt_id, sampled_iteration, response_index, task, item, row_iteration, flagged, note FROM annotations ORDER BY prompt_id, response_index";
    let text = workspace.succeed(&["sql", "small", query, "--format", "json"]);
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[test]
fn flags_and_notes_come_back_by_sql_and_leave_the_run_as_it_is() {
    let workspace = Workspace::finished();
    let before = workspace.result("small");
    assert_eq!(rows(&workspace), Vec::<Value>::new());
    let server = Server::start(&workspace, &["small"]);
    let note = "<b>odd</b> 'quoted' \u{202e}\n漢";
    let prompt = json!({ "node": "prompts", "prompt_id": "p-003", "flagged": true, "note": format!("  {note} ") });
    assert_eq!(server.annotate("small", &prompt).json()["note"], note);
    let response = json!({ "node": "responses", "prompt_id": "p-001", "sampled_iteration": 1, "response_index": 2, "note": "good" });
    assert_eq!(server.annotate("small", &response).status, 200);
    let evaluated = json!({ "node": "evaluation", "prompt_id": "p-021", "row_iteration": 1, "flagged": true });
    assert_eq!(server.annotate("small", &evaluated).status, 200);
    assert_eq!(
        rows(&workspace),
        [
            json!({ "node": "responses", "prompt_id": "p-001", "sampled_iteration": 1, "response_index": 2, "flagged": false, "note": "good" }),
            json!({ "node": "prompts", "prompt_id": "p-003", "flagged": true, "note": note }),
            json!({ "node": "evaluation", "prompt_id": "p-021", "row_iteration": 1, "flagged": true }),
        ]
    );
    // The page shows them, and filters by them.
    let page = server.ask("prompts", &[("run", "small"), ("flagged", "yes")]);
    assert_eq!(page["rows"].as_array().unwrap().len(), 1);
    assert_eq!((&page["rows"][0]["prompt_id"], &page["rows"][0]["note"]), (&json!("p-003"), &json!(note)));
    assert_eq!(server.ask("prompts/count", &[("run", "small"), ("flagged", "no")])["count"], 19);
    let detail = server.ask("prompt", &[("run", "small"), ("prompts", "prompts"), ("id", "p-001")]);
    assert_eq!((&detail["annotations"][0]["note"], &detail["annotations"][0]["response_index"]), (&json!("good"), &json!(2)));

    // Changed, and taken off.
    let other = json!({ "node": "prompts", "prompt_id": "p-003", "note": "seen" });
    server.annotate("small", &other);
    assert_eq!(rows(&workspace)[1], json!({ "node": "prompts", "prompt_id": "p-003", "flagged": false, "note": "seen" }));
    let none = json!({ "node": "prompts", "prompt_id": "p-003", "note": " " });
    assert_eq!(server.annotate("small", &none).status, 200);
    assert_eq!(rows(&workspace).len(), 2);

    for (status, wrong) in [
        (400, json!({ "node": "prompts", "flagged": true })),
        (400, json!({ "prompt_id": "p-003", "flagged": true })),
        (400, json!({ "node": "prompts", "prompt_id": "p-003", "flag": true })),
        (400, json!([1])),
        (404, json!({ "node": "nothing", "prompt_id": "p-003", "flagged": true })),
        (400, json!({ "node": "prompts", "prompt_id": "p-003", "note": "x".repeat(20_001) })),
    ] {
        let answer = server.annotate("small", &wrong);
        assert_eq!(answer.status, status, "{wrong}: {}", answer.body);
    }
    assert_eq!(rows(&workspace).len(), 2);
    assert_eq!(workspace.result("small"), before);
    // The run is finished as before: nothing is made anew.
    assert_eq!(workspace.journal("small", "started").len(), {
        workspace.succeed(&["run", "pipeline.yaml"]);
        workspace.journal("small", "started").len()
    });
    assert_eq!(rows(&workspace).len(), 2);
}

#[test]
fn many_flags_at_once_are_all_kept() {
    let workspace = Workspace::finished();
    let servers = [Server::start(&workspace, &["small"]), Server::start(&workspace, &["small"])];
    std::thread::scope(|scope| {
        for (index, server) in servers.iter().enumerate() {
            for half in 0..2 {
                scope.spawn(move || {
                    for number in 0..5 {
                        let id = format!("p-{:03}", index * 10 + half * 5 + number);
                        let answer = server.annotate("small", &json!({ "node": "prompts", "prompt_id": id, "flagged": true }));
                        assert_eq!(answer.status, 200, "{}", answer.body);
                    }
                });
            }
        }
    });
    assert_eq!(rows(&workspace).len(), 20);
}

#[test]
fn pairs_are_exported_with_or_without_the_flagged_ones() {
    let workspace = Workspace::finished();
    let server = Server::start(&workspace, &["small"]);
    let pairs = workspace.succeed(&["sql", "small", "SELECT * FROM pairs ORDER BY prompt_id", "--format", "json"]);
    let pairs: Vec<Value> = pairs.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let [by_prompt, by_response] = [&pairs[0], &pairs[1]];
    server.annotate("small", &json!({ "node": "prompts", "prompt_id": by_prompt["prompt_id"], "flagged": true }));
    let response = json!({ "node": "responses", "prompt_id": by_response["prompt_id"], "flagged": true,
        "sampled_iteration": by_response["rejected_sampled_iteration"], "response_index": by_response["rejected_index"] });
    server.annotate("small", &response);
    // A note is no flag.
    server.annotate("small", &json!({ "node": "prompts", "prompt_id": pairs[2]["prompt_id"], "note": "fine" }));
    let exported = |arguments: &[&str]| {
        workspace.succeed(&[&["export", "pairs", "small", "pairs.jsonl"], arguments].concat());
        let text = std::fs::read_to_string(workspace.path("pairs.jsonl")).unwrap();
        text.lines().map(|line| serde_json::from_str::<Value>(line).unwrap()["margin"].clone()).collect::<Vec<_>>()
    };
    let margins: Vec<Value> = pairs.iter().map(|pair| pair["reward_gap"].clone()).collect();
    assert_eq!(exported(&[]), margins);
    assert_eq!(exported(&["--flagged", "only"]), margins[..2]);
    assert_eq!(exported(&["--flagged", "without"]), margins[2..]);
}

#[test]
fn a_file_of_something_else_is_told_with_its_name() {
    let workspace = Workspace::finished();
    workspace.write("runs/small/annotations.parquet", "nonsense");
    let error = workspace.fail(&["sql", "small", "SELECT 1"], 2);
    assert!(error.contains("annotations.parquet: expected annotations") && error.contains("move the file away"), "{error}");
}
