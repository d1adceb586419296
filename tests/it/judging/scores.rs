//! Scores as rewards: numbers, JSON and logprobs, error rows, sums and kept answers.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use serde_json::{Value, json};

use super::{SCORE_TEMPLATE, answered, chat, judge_keys, question};
use crate::fixtures::http_server::{Reply, Request, Server, misbehaving, well};
use crate::fixtures::workspace::Workspace;

/// A pipeline of one iteration with a judge as reward, beside the query for the evaluation.
fn scored(server: &Server, more: &str) -> Workspace {
    let workspace = Workspace::new();
    let judge = judge_keys(server, SCORE_TEMPLATE, more);
    workspace.edit(
        "pipeline.yaml",
        "  judge:    { reward: { sql: reward.sql } }",
        &format!("  judge:    {{ reward: {{ sql: reward.sql }} }}\n  liked:    {{ reward: {{ judge: {judge} }} }}"),
    );
    workspace.edit("pipeline.yaml", "reward: judge } }\n    pool", "reward: liked }, resources: { rows_per_part: 9 } }\n    pool");
    workspace.edit("pipeline.yaml", "iterations: 2", "iterations: 1");
    workspace
}

/// From 1 to 10 by the response.
fn score(response: &str) -> u64 {
    1 + u64::from(blake3::hash(response.as_bytes()).as_bytes()[0]) % 10
}

fn response(request: &Request) -> String {
    question(request)["response"].as_str().unwrap().to_string()
}

fn honest(request: &Request) -> Reply {
    chat(&format!("Of 100 points I would give many. [[{}]]", score(&response(request))))
}

/// The rewards of a run by the text of their response.
fn rewards(workspace: &Workspace) -> BTreeMap<String, f64> {
    let sql = "SELECT text, reward FROM rewards JOIN responses USING (iteration, prompt_id, sampled_iteration, response_index) \
               WHERE reward IS NOT NULL ORDER BY 1";
    let json = workspace.succeed(&["sql", "small", sql, "--format", "json"]);
    let rows: Vec<Value> = json.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    rows.iter().map(|row| (row["text"].as_str().unwrap_or_default().to_string(), row["reward"].as_f64().unwrap())).collect()
}

fn assert_scores(workspace: &Workspace, expected: impl Fn(&str) -> f64) {
    assert_eq!(workspace.query("small", "SELECT count(*), count(reward) FROM rewards"), "60,60");
    for (text, reward) in rewards(workspace) {
        assert!((reward - expected(&text)).abs() < 1e-9, "{text:?}: {reward}, expected {}", expected(&text));
    }
}

#[test]
fn every_response_has_the_score_of_its_answer_and_no_question_is_asked_twice() {
    let server = Server::start(well, honest);
    let workspace = scored(&server, ", scale: [1, 10]");
    let shown = workspace.optune(&["run", "pipeline.yaml"]);
    let told = String::from_utf8(shown.stderr).unwrap();
    assert!(shown.status.success(), "{told}");
    assert_scores(&workspace, |text| score(text) as f64);
    let counts = answered(&server.seen());
    assert!(counts.values().all(|count| *count == 1), "equal responses to a prompt are one question");
    // Columns and the reference answer are in the question; the key and settings in the request.
    let asked = question(&server.seen()[0]);
    assert!(asked["group"] == "upper" && asked["answer"].as_str().unwrap().chars().all(|c| c.is_ascii_uppercase()), "{asked}");
    let body = server.seen()[0].json();
    assert_eq!((&body["temperature"], &body["max_tokens"], &body["model"]), (&json!(0.0), &json!(1024), &json!("known")));
    // The cost is in the manifest: a row each, though equal ones were asked once.
    let manifest: Value =
        serde_json::from_str(&std::fs::read_to_string(workspace.path("runs/small/manifests/rewards/iteration=1.json")).unwrap()).unwrap();
    assert_eq!(manifest["counts"]["judge_prompt_tokens"], 6000);
    assert_eq!(manifest["counts"]["judge_completion_tokens"], 180);

    let before = server.seen().len();
    workspace.succeed(&["run", "pipeline.yaml"]);
    // Another address and another way of asking are no other judge.
    workspace.edit("pipeline.yaml", "concurrency: 4", "concurrency: 2, retries: 1");
    workspace.succeed(&["run", "pipeline.yaml"]);
    assert_eq!(server.seen().len(), before);
    // Other parts, the same questions.
    workspace.edit("pipeline.yaml", "reward: liked }", "reward: liked, non_finite: skip }");
    workspace.succeed(&["run", "pipeline.yaml"]);
    assert_eq!(server.seen().len(), before);
    // Another template asks other questions.
    workspace.edit("pipeline.yaml", "'group': group}", "'group': group, 'low': low}");
    workspace.succeed(&["run", "pipeline.yaml"]);
    assert!(server.seen().len() > before && question(server.seen().last().unwrap())["low"] == 1);
}

#[test]
fn answers_may_be_objects() {
    let server = Server::start(well, |request| {
        chat(&format!("Here: ```json\n{{\"reason\": \"3 of 4\", \"score\": {}.5}}\n```", score(&response(request)) % 10))
    });
    let workspace = scored(&server, ", scale: [0, 10], read: json");
    workspace.succeed(&["run", "pipeline.yaml"]);
    assert_scores(&workspace, |text| (score(text) % 10) as f64 + 0.5);
}

#[test]
fn logprobs_are_the_mean_of_the_scale() {
    let top = |response: &str| {
        let digit = score(response) % 5 + 1;
        [(digit.to_string(), 0.5), (format!(" {}", digit % 5 + 1), 0.3), ("9".to_string(), 0.15)]
    };
    let server = Server::start(well, move |request| {
        let listed: Vec<Value> =
            top(&response(request)).iter().map(|(token, share): &(String, f64)| json!({ "token": token, "logprob": share.ln() })).collect();
        let content = json!([{ "token": "x", "logprob": -1.0, "top_logprobs": listed }]);
        let choice = json!({ "message": { "content": "4" }, "logprobs": { "content": content }, "finish_reason": "length" });
        Reply::json(json!({ "choices": [choice] }))
    });
    let workspace = scored(&server, ", scale: [1, 5], read: logprobs");
    workspace.succeed(&["run", "pipeline.yaml"]);
    let body = server.seen()[0].json();
    assert_eq!((&body["logprobs"], &body["top_logprobs"], &body["max_tokens"]), (&json!(true), &json!(20), &json!(1)));
    assert_scores(&workspace, |text| {
        let digit = (score(text) % 5 + 1) as f64;
        (0.5 * digit + 0.3 * (digit % 5.0 + 1.0)) / 0.8
    });
    // Too little of the probability is on the scale, and a server without logprobs.
    for (reply, said) in [
        (
            json!([{ "token": "I", "logprob": -0.1, "top_logprobs": [{ "token": "I", "logprob": -0.1 }] }]),
            "found 0.000; the likeliest are \"I\" 0.905",
        ),
        (Value::Null, "the server gives no logprobs"),
    ] {
        let server = Server::start(well, move |_| {
            Reply::json(json!({ "choices": [{ "message": { "content": "5" }, "logprobs": { "content": reply } }] }))
        });
        let workspace = scored(&server, ", scale: [1, 5], read: logprobs");
        let error = workspace.fail(&["run", "pipeline.yaml"], 1);
        assert!(error.contains(said) && error.contains("60 of 60 responses have no score"), "{error}");
    }
}

#[test]
fn a_judge_that_never_says_a_number_leaves_error_rows_that_are_asked_for_again() {
    let broken = Arc::new(AtomicBool::new(true));
    let is_broken = broken.clone();
    let server = Server::start(misbehaving(31, 10), move |request| {
        let response = response(request);
        match score(&response) {
            1..=3 if is_broken.load(Ordering::SeqCst) => chat("A fine answer, well done."),
            4 if is_broken.load(Ordering::SeqCst) => chat("[[11]]"),
            _ => honest(request),
        }
    });
    let workspace = scored(&server, ", scale: [1, 10], timeout_seconds: 1.5, retries: 8");
    let error = workspace.fail(&["run", "pipeline.yaml"], 1);
    let rows = workspace.query("small", "SELECT count(*) FROM rewards WHERE error LIKE '%found none: \"A fine answer, well done.\"%'");
    let beyond = workspace.query("small", "SELECT count(*) FROM rewards WHERE error LIKE '%expected a score from 1 to 10, found 11%'");
    let failed: usize = rows.parse::<usize>().unwrap() + beyond.parse::<usize>().unwrap();
    assert!(failed > 3 && beyond != "0", "{rows} {beyond}");
    assert!(error.contains(&format!("{failed} of 60 responses have no score, the first: prompt p-")), "{error}");
    assert!(error.contains("the same command asks only for these again"), "{error}");
    let before = answered(&server.seen());
    broken.store(false, Ordering::SeqCst);
    workspace.succeed(&["run", "pipeline.yaml"]);
    assert_scores(&workspace, |text| score(text) as f64);
    // Only the failed ones were asked again.
    for (asked, count) in answered(&server.seen()) {
        let response = serde_json::from_str::<Value>(&asked).unwrap()["response"].as_str().unwrap().to_string();
        let expected = if score(&response) <= 4 { 2 } else { 1 };
        assert_eq!(count, expected, "{asked}, before {:?}", before.get(&asked));
    }
}

#[test]
fn failures_can_be_kept_and_an_answer_without_its_end_is_one() {
    let server = Server::start(well, |request| {
        if score(&response(request)) > 5 {
            return honest(request);
        }
        let choice = json!({ "message": { "content": "There are 3 good parts" }, "finish_reason": "length" });
        Reply::json(json!({ "choices": [choice] }))
    });
    let workspace = scored(&server, ", scale: [1, 10], failures: keep, max_tokens: 5");
    workspace.succeed(&["run", "pipeline.yaml"]);
    let cut = "SELECT count(*) FROM rewards WHERE error LIKE '%is cut after 5 tokens (raise `max_tokens`): \"There are 3 good parts\"%'";
    let (cut, all) = (workspace.query("small", cut), workspace.query("small", "SELECT count(error) FROM rewards"));
    assert!(cut == all && cut != "0", "{cut} {all}");
    assert!(rewards(&workspace).iter().all(|(text, reward)| *reward == score(text) as f64));
}

#[test]
fn a_judge_is_a_term_of_a_sum() {
    let server = Server::start(well, honest);
    let workspace = scored(&server, ", scale: [1, 10]");
    let text = std::fs::read_to_string(workspace.path("pipeline.yaml")).unwrap();
    let sum = "mixed: { reward: [{ weight: 0.5, reward: liked }, { weight: -1, name: length, sql: \"SELECT prompt_id, response_index, \
               character_length(text) AS reward FROM responses\" }] }\nnodes:";
    let text =
        text.replace("nodes:\n  base", &format!("  {sum}\n  base")).replace("reward: liked }, resources", "reward: mixed }, resources");
    workspace.write("pipeline.yaml", &text);
    workspace.succeed(&["run", "pipeline.yaml"]);
    assert_scores(&workspace, |text| 0.5 * score(text) as f64 - text.chars().count() as f64);
    let wrong = "SELECT count(*) FROM rewards AS r WHERE r.reward <> 0.5 * r.components['liked'] - r.components['length']";
    assert_eq!(workspace.query("small", wrong), "0");
}

#[test]
fn what_the_template_cannot_read_is_said_before_anything_is_asked() {
    let server = Server::start(well, honest);
    let workspace = scored(&server, ", scale: [1, 10]");
    workspace.edit("pipeline.yaml", "'group': group}", "'group': grup}");
    let error = workspace.fail(&["run", "pipeline.yaml"], 2);
    assert!(error.contains("the template reads \"grup\"") && error.contains("did you mean \"group\"?"), "{error}");
    workspace.edit("pipeline.yaml", "'group': grup}", "'group': group}");
    workspace.edit("pipeline.yaml", "concurrency: 4", "concurrency: 4, api_key_env: OPTUNE_NOT_SET");
    let error = workspace.fail(&["run", "pipeline.yaml"], 2);
    assert!(error.contains("OPTUNE_NOT_SET"), "{error}");
    assert!(server.seen().is_empty() && !workspace.path("runs/small/tables").exists());
}

#[test]
fn the_key_is_sent_and_written_nowhere() {
    let server = Server::start(well, honest);
    let workspace = scored(&server, ", scale: [1, 10], api_key_env: OPTUNE_TEST_JUDGE_KEY");
    let output = workspace.command(&["run", "pipeline.yaml"]).env("OPTUNE_TEST_JUDGE_KEY", "s3cr3t-k3y").output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert!(server.seen().iter().all(|request| request.headers["authorization"] == "Bearer s3cr3t-k3y"));
    for path in crate::fixtures::files::files_under(&workspace.path("runs")) {
        let bytes = std::fs::read(&path).unwrap();
        assert!(!bytes.windows(10).any(|window| window == b"s3cr3t-k3y"), "{}", path.display());
    }
}
