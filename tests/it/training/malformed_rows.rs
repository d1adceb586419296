//! Rows that a model cannot read: an error at `plan`, or left out and counted.

use std::fs;

use serde_json::{Value, json};

use crate::fixtures::preferences::offline;
use crate::fixtures::workspace::{PIPELINE, Workspace};

/// A count of an output's manifest in `runs/`.
fn count(workspace: &Workspace, output: &str, name: &str) -> Option<i64> {
    let path = match output.split_once("/tables/") {
        Some((run, table)) => format!("runs/{run}/manifests/{table}.json"),
        None => format!("runs/{output}/manifest.json"),
    };
    let manifest = fs::read_to_string(workspace.path(&path)).unwrap();
    let manifest: Value = serde_json::from_str(&manifest).unwrap();
    manifest["counts"][name].as_i64()
}

/// A workspace with supervised training alone, on 20 demonstrations.
fn imitating() -> Workspace {
    let workspace = Workspace::new();
    let (head, _) = PIPELINE.split_once("iterate:").unwrap();
    let unused = [
        "  held_out: { table: held_out.jsonl }\n",
        "  judge:    { reward: { sql: reward.sql } }\n",
        "params: { ratio: 0.5, iterations: 2, learning_rate: 1.0e-3 }\n",
    ];
    workspace.write("pipeline.yaml", &unused.iter().fold(head.to_string(), |text, line| text.replace(line, "")));
    workspace
}

/// Replaces the answer, and maybe the prompt, of a demonstration.
fn answer(workspace: &Workspace, row: usize, prompt: Option<&str>, answer: &str) {
    let text = fs::read_to_string(workspace.path("prompts.jsonl")).unwrap();
    let mut rows: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    rows[row]["reference_answer"] = json!(answer);
    if let Some(prompt) = prompt {
        rows[row]["prompt"] = json!(prompt);
    }
    workspace.write("prompts.jsonl", &rows.iter().map(|row| format!("{row}\n")).collect::<String>());
}

const HINT: &str = "; with `malformed: skip` the node leaves such rows out and counts them";

#[test]
fn demonstrations_that_cannot_be_read_stop_at_plan_or_are_left_out() {
    let workspace = imitating();
    answer(&workspace, 3, None, "A<eos>B");
    let error = workspace.fail(&["plan", "pipeline.yaml"], 2);
    let expected = "base: demonstrations, row 3 (p-003): tokenizer: expected a response with an end token at its end only, \
                    found token 2 after 1 of its 3 tokens, in \"A<eos>B\"";
    assert!(error.contains(&format!("{expected}{HINT}")), "{error}");
    // Two spaces are one token, so the response's first one would be part of the prompt's last.
    let path = workspace.path("shape/tokenizer.json");
    let mut tokenizer: Value = serde_json::from_str(&fs::read_to_string(&path).unwrap()).unwrap();
    tokenizer["model"]["vocab"]["  "] = json!(99);
    tokenizer["model"]["merges"] = json!([[" ", " "]]);
    fs::write(&path, tokenizer.to_string()).unwrap();
    workspace.edit("shape/config.json", "\"vocab_size\": 99", "\"vocab_size\": 100");
    answer(&workspace, 1, Some("upper abc= "), " ABC");
    let error = workspace.fail(&["plan", "pipeline.yaml"], 2);
    assert!(error.contains("base: demonstrations, row 1 (p-001): tokenizer: the prompt's "), "{error}");
    let hint = "both meet in white space, which becomes one token; remove it from the response's start";
    assert!(error.contains(&format!("{hint}{HINT}")), "{error}");
    // The last row is tried too.
    answer(&workspace, 19, None, &"A".repeat(65));
    workspace.edit("pipeline.yaml", "epochs: 3,", "epochs: 3, malformed: skip,");
    let plan = workspace.succeed(&["plan", "pipeline.yaml"]);
    let note = plan.lines().find(|line| line.starts_with("note: base: of a sample of prompts, 3 of 20 rows are left out: "));
    assert!(note.is_some_and(|note| note.contains("1 × expected at most N tokens (first: demonstrations, row 19 (p-019))")), "{plan}");
    let output = workspace.optune(&["run", "pipeline.yaml"]);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success() && said.contains("base: warning: 3 of 20 rows are left out: "), "{said}");
    // ceil(17 / 8) · 3
    assert_eq!((count(&workspace, "small/models/base", "left_out"), count(&workspace, "small/models/base", "steps")), (Some(3), Some(9)));
    // All of them are too many.
    for row in 0..20 {
        answer(&workspace, row, None, "A<eos>B");
    }
    let error = workspace.fail(&["plan", "pipeline.yaml"], 2);
    assert!(error.contains("base: prompts: expected usable rows; of a sample, 20 of 20 rows are left out: 20 × tokenizer: "), "{error}");
}

#[test]
fn preferences_that_cannot_be_read_stop_at_plan_or_are_left_out() {
    let workspace = offline(false);
    workspace.edit("prefs/a.jsonl", "\"chosen\":\"", "\"chosen\":\"A<eos>");
    let error = workspace.fail(&["plan", "pipeline.yaml"], 2);
    assert!(error.contains("policy: preference p00: tokenizer: expected a response with an end token at its end only"), "{error}");
    assert!(error.contains(HINT), "{error}");
    workspace.edit("pipeline.yaml", "optimizer: adamw, batch_size: 4", "malformed: skip, optimizer: adamw, batch_size: 4");
    let output = workspace.optune(&["run", "pipeline.yaml"]);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    // One of the eight has equal scores too, and is counted for that.
    assert!(output.status.success() && said.contains("reference logprobs of 8 pairs, 7 malformed, 1 without gap"), "{said}");
    assert!(
        said.contains("policy_pairs: warning: 7 of 16 rows are left out: 7 × tokenizer: expected a response with an end token"),
        "{said}"
    );
    assert_eq!(count(&workspace, "offline/tables/policy_pairs", "malformed"), Some(7));
    assert_eq!(workspace.query("offline", "SELECT count(*) FROM policy_pairs"), "8");
}

#[test]
fn a_reward_model_leaves_out_what_its_template_refuses() {
    let workspace = offline(true);
    let template = fs::read_to_string(workspace.path("shape/chat_template.jinja")).unwrap();
    let refusal =
        "{% for message in messages %}{% if 'ADG' in message['content'] %}{{ raise_exception('no such word') }}{% endif %}{% endfor %}";
    workspace.write("shape/chat_template.jinja", &format!("{refusal}{template}"));
    let text = fs::read_to_string(workspace.path("pipeline.yaml")).unwrap();
    let (head, _) = text.split_once("  policy:").unwrap();
    let judge = "  judge: { reward_model: { from: base, preferences: prefs, held_out: 0.2, epochs: 2, batch_size: 4 } }\n";
    workspace.write("pipeline.yaml", &format!("{head}{judge}"));
    let error = workspace.fail(&["plan", "pipeline.yaml"], 2);
    assert!(error.contains("judge: preference p00: chat template: ") && error.contains("no such word"), "{error}");
    workspace.edit("pipeline.yaml", "held_out: 0.2,", "held_out: 0.2, malformed: skip,");
    workspace.succeed(&["run", "pipeline.yaml"]);
    let training = count(&workspace, "offline/models/judge", "left_out").unwrap_or(0);
    let held_out = count(&workspace, "offline/tables/judge_ranking", "malformed").unwrap_or(0);
    let ranked = count(&workspace, "offline/tables/judge_ranking", "preferences").unwrap();
    assert!(training + held_out >= 1 && ranked >= 1, "{training}, {held_out}, {ranked}");
}
