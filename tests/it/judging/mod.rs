//! Judges: rewards and win rates by a model behind a chat API, against a loopback server with known
//! answers.

mod baselines;
mod length_control;
mod pairs;
mod real_server;
mod scores;

use std::collections::BTreeMap;

use serde_json::{Value, json};

use crate::fixtures::http_server::{Fate, Reply, Request, Server};
use crate::fixtures::workspace::Workspace;

/// A template whose questions are JSON, for a server that reads them.
const PAIR_TEMPLATE: &str = "{{ {'prompt': prompt, 'a': response_a, 'b': response_b} | tojson }}";
const SCORE_TEMPLATE: &str = "{{ {'prompt': prompt, 'response': response, 'answer': reference_answer, 'group': group} | tojson }}";

/// The question in a request.
fn question(request: &Request) -> Value {
    let body = request.json();
    serde_json::from_str(body["messages"][0]["content"].as_str().unwrap()).unwrap()
}

/// A chat completion.
fn chat(text: &str) -> Reply {
    let choice = json!({ "index": 0, "message": { "role": "assistant", "content": text }, "finish_reason": "stop" });
    Reply::json(json!({ "choices": [choice], "usage": { "prompt_tokens": 100, "completion_tokens": 3 } }))
}

/// The questions of answered requests, with how often each was asked.
fn answered(requests: &[Request]) -> BTreeMap<String, usize> {
    let mut counts = BTreeMap::new();
    for request in requests.iter().filter(|request| request.fate == Fate::Answer && request.path == "/v1/chat/completions") {
        *counts.entry(question(request).to_string()).or_default() += 1;
    }
    counts
}

/// The keys of a judge in a pipeline file.
fn judge_keys(server: &Server, template: &str, more: &str) -> String {
    format!("{{ openai: \"{}/v1\", model: known, template: \"{template}\", concurrency: 4{more} }}", server.url)
}

/// The pipeline of [`Workspace`] with 40 held-out prompts and a judge in its evaluation.
fn judged(server: &Server, more: &str) -> Workspace {
    let workspace = Workspace::new();
    let row = |i: usize| {
        let word: String = (0..2 + i % 4).map(|k| char::from(b'a' + ((i * 5 + k * 3) % 8) as u8)).collect();
        format!(
            "{{\"prompt_id\": \"h-{i:03}\", \"prompt\": \"upper {word}=\", \"reference_answer\": \"{}\", \"group\": \"g\"}}\n",
            word.to_uppercase()
        )
    };
    workspace.write("held_out.jsonl", &(0..40).map(row).collect::<String>());
    let judge = judge_keys(server, PAIR_TEMPLATE, more);
    workspace.edit(
        "pipeline.yaml",
        "prompts: held_out, reward: judge, max_new_tokens: 8 }",
        &format!("prompts: held_out, reward: judge, max_new_tokens: 8, judge: {judge} }}"),
    );
    workspace.edit("pipeline.yaml", "iterations: 2", "iterations: 1");
    workspace
}

/// The texts of an evaluation: prompt_id, prompt, the policy's and the baseline's response.
fn texts(workspace: &Workspace, table: &str) -> Vec<[String; 4]> {
    let sql = format!("SELECT prompt_id, prompt, text, baseline_text FROM {table} JOIN held_out USING (prompt_id) ORDER BY 1");
    let json = workspace.succeed(&["sql", "small", &sql, "--format", "json"]);
    let rows: Vec<Value> = json.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let text = |row: &Value, column: &str| row[column].as_str().unwrap().to_string();
    rows.iter().map(|row| ["prompt_id", "prompt", "text", "baseline_text"].map(|column| text(row, column))).collect()
}
