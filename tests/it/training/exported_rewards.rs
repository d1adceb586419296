//! A reward model trained by a node, exported, and scored by transformers.

use std::fs;
use std::path::Path;

use serde_json::{Value, json};

use crate::fixtures::files::copy_folder;
use crate::fixtures::python::run_script;
use crate::fixtures::workspace::Workspace;

const PIPELINE: &str = "optune: 1
name: small
inputs:
  model:       { model: model }
  preferences: { table: ultrafeedback.jsonl }
  prompts:     { table: prompts.jsonl }
nodes:
  judge:     { reward_model: { from: model, preferences: preferences, epochs: 4, batch_size: 2, warmup_ratio: 0, learning_rate: 3.0e-3 } }
  responses: { generate: { policy: model, prompts: prompts, responses_per_prompt: 4, max_new_tokens: 12 } }
  rewards:   { score: { responses: responses, reward: judge } }
";

#[test]
fn transformers_scores_a_trained_and_exported_reward_model_as_its_node_does() {
    let workspace = Workspace::new();
    let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/datasets");
    copy_folder(&golden.join("model"), &workspace.path("model"));
    fs::copy(golden.join("ultrafeedback.jsonl"), workspace.path("ultrafeedback.jsonl")).unwrap();
    let questions = ["What is 7?", "Name two colours.\n", "世界?"];
    let prompt = |(at, text): (usize, &&str)| format!("{}\n", json!({"prompt_id": at.to_string(), "prompt": text}));
    workspace.write("prompts.jsonl", &questions.iter().enumerate().map(prompt).collect::<String>());
    workspace.write("pipeline.yaml", PIPELINE);
    workspace.succeed(&["run", "pipeline.yaml"]);
    fs::create_dir(workspace.path("exported")).unwrap();
    workspace.succeed(&["export", "policy", "small", "exported/judge", "--node", "judge"]);

    let rows = workspace.succeed(&[
        "sql",
        "small",
        "SELECT prompt_id, text, reward FROM rewards JOIN responses USING (prompt_id, response_index)",
        "--format",
        "json",
    ]);
    let rows: Vec<Value> = rows.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let rewards: std::collections::BTreeSet<String> = rows.iter().map(|row| row["reward"].to_string()).collect();
    assert!(rows.len() == 12 && rewards.len() > 6, "{rewards:?}");
    let conversation = |row: &Value| {
        let asked = questions[row["prompt_id"].as_str().unwrap().parse::<usize>().unwrap()];
        let messages = json!([{"role": "user", "content": asked}, {"role": "assistant", "content": row["text"]}]);
        json!({"messages": messages, "reward": row["reward"]})
    };
    let parity = json!({"conversations": rows.iter().map(conversation).collect::<Vec<_>>()});
    fs::write(workspace.path("exported/judge/parity.json"), parity.to_string()).unwrap();
    let Some(said) = run_script("export_parity.py", &[workspace.path("exported").as_os_str()]) else { return };
    eprint!("{}", String::from_utf8_lossy(&said));
}
