//! Several baselines: a model, the last iteration's policy and a table of texts; and evaluation by a
//! server.

use std::collections::BTreeSet;

use crate::fixtures::http_server::{Server, well};
use crate::fixtures::workspace::Workspace;
use crate::generation::server::{Style, answer, serve, text_of};

/// The pipeline of [`Workspace`] compared with three baselines, the last one the table in `texts`.
fn compared(texts: &str) -> Workspace {
    let workspace = Workspace::new();
    workspace.write("texts.jsonl", texts);
    workspace.edit("pipeline.yaml", "  shape:    {", "  other:    { table: texts.jsonl }\n  shape:    {");
    workspace.edit("pipeline.yaml", "baseline: base", "baseline: [base, \"policy[t-1]\", other]");
    workspace
}

/// The held-out prompts with texts, without the last one.
fn texts(row: impl Fn(&str, &str, usize) -> String) -> String {
    let workspace = Workspace::new();
    let held_out = std::fs::read_to_string(workspace.path("held_out.jsonl")).unwrap();
    let rows = held_out.lines().enumerate().take(7).map(|(index, line)| {
        let prompt: serde_json::Value = serde_json::from_str(line).unwrap();
        row(prompt["prompt_id"].as_str().unwrap(), prompt["prompt"].as_str().unwrap(), index)
    });
    rows.collect()
}

#[test]
fn a_policy_is_compared_with_a_model_the_last_policy_and_a_table_of_texts() {
    let workspace = compared(&texts(|_, prompt, index| format!("{{\"prompt\": \"{prompt}\", \"response\": \"TEXT{index}\"}}\n")));
    let output = workspace.optune(&["run", "pipeline.yaml"]);
    let told = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.success(), "{told}");
    assert!(told.contains("1 of 8 prompts have no text in the baseline's table"), "{told}");
    let count = |sql: &str| workspace.query("small", sql);
    assert_eq!(count("SELECT count(*), count(DISTINCT iteration) FROM evaluation"), "16,2");
    assert_eq!(count("SELECT count(*), count(DISTINCT iteration) FROM evaluation_vs_policy"), "16,2");
    assert_eq!(count("SELECT count(*), count(DISTINCT iteration) FROM evaluation_vs_other"), "14,2");
    // The policy's side is the same everywhere.
    for other in ["evaluation_vs_policy", "evaluation_vs_other"] {
        let different = format!(
            "SELECT count(*) FROM evaluation AS e JOIN {other} AS o USING (iteration, prompt_id) WHERE e.text <> o.text OR e.reward <> o.reward"
        );
        assert_eq!(count(&different), "0");
    }
    // The last policy's responses are those that it was evaluated by; before the first it was base.
    let of_last = "SELECT count(*) FROM evaluation_vs_policy AS o JOIN evaluation AS e USING (prompt_id)
        WHERE (o.iteration = 2 AND e.iteration = 1 AND o.baseline_text = e.text AND o.baseline_reward = e.reward)
           OR (o.iteration = 1 AND e.iteration = 1 AND o.baseline_text = e.baseline_text)";
    assert_eq!(count(of_last), "16");
    assert!(!workspace.path("runs/small/tables/evaluation_vs_policy_responses").exists(), "nothing is sampled twice");
    // The texts are found by their prompts.
    assert_eq!(count("SELECT min(baseline_text), max(baseline_text) FROM evaluation_vs_other"), "TEXT0,TEXT6");
    assert_eq!(count("SELECT count(*), count(error) FROM evaluation_vs_other_responses"), "8,1");
    assert_eq!(count("SELECT count(*) FROM evaluation_vs_other WHERE baseline_nll_initial > 0"), "14");
    // The report has a section for each.
    workspace.succeed(&["report", "small", "--output", "report.html"]);
    let report = std::fs::read_to_string(workspace.path("report.html")).unwrap();
    assert!(report.contains("Evaluation: evaluation_vs_policy") && report.contains("Evaluation: evaluation_vs_other"));
}

#[test]
fn texts_may_be_named_by_their_prompts_ids() {
    let workspace = compared(&texts(|id, _, index| format!("{{\"prompt_id\": \"{id}\", \"response\": \"TEXT{index}\"}}\n")));
    workspace.edit("pipeline.yaml", "[base, \"policy[t-1]\", other]", "[other, base]");
    workspace.succeed(&["run", "pipeline.yaml"]);
    assert_eq!(workspace.query("small", "SELECT min(baseline_text), max(baseline_text), count(*) FROM evaluation"), "TEXT0,TEXT6,14");
    assert_eq!(workspace.query("small", "SELECT count(*) FROM evaluation_vs_base"), "16");
    // Texts of other prompts, and none at all.
    workspace.write("texts.jsonl", "{\"prompt_id\": \"unknown\", \"response\": \"X\"}\n");
    let error = workspace.fail(&["run", "pipeline.yaml"], 2);
    assert!(error.contains("expected texts for the prompts, found none"), "{error}");
    workspace.write("texts.jsonl", "{\"prompt_id\": \"h\", \"answer\": \"X\"}\n");
    let error = workspace.fail(&["plan", "pipeline.yaml"], 2);
    assert!(error.contains("a table as baseline: expected a column response") && error.contains("prompt_id, answer"), "{error}");
}

#[test]
fn a_server_samples_the_evaluation_of_every_model() {
    let server = Server::start(well, serve(Style::Vllm));
    let workspace = Workspace::new();
    let engine =
        format!("engine: {{ openai: \"{}/v1\", model: tiny, check: never, serve: 'echo \"$OPTUNE_MODEL\" >> loaded.txt' }}", server.url);
    workspace.edit(
        "pipeline.yaml",
        "reward: judge, max_new_tokens: 8 }",
        &format!("reward: judge, max_new_tokens: 8, temperature: 0, {engine} }}"),
    );
    workspace.succeed(&["run", "pipeline.yaml"]);
    let loaded = std::fs::read_to_string(workspace.path("loaded.txt")).unwrap();
    let loaded: BTreeSet<&str> = loaded.lines().map(|line| line.rsplit_once("models/").unwrap().1).collect();
    assert_eq!(loaded, BTreeSet::from(["base", "policy/iteration=1", "policy/iteration=2"]));
    let requests: Vec<_> = server.seen().into_iter().filter(|request| request.path == "/v1/completions").collect();
    assert!(requests.iter().all(|request| request.json()["temperature"] == 0.0));
    // Each text is one of the server's.
    let given: BTreeSet<String> = requests
        .iter()
        .map(|request| {
            let body = request.json();
            let prompt: Vec<i32> = serde_json::from_value(body["prompt"].clone()).unwrap();
            let ids = answer(&prompt, body["seed"].as_u64().unwrap());
            text_of(&ids)
        })
        .collect();
    let rows = workspace.query("small", "SELECT text FROM evaluation_responses UNION ALL SELECT text FROM evaluation_baseline_responses");
    let rows: Vec<&str> = rows.lines().map(|line| line.trim_matches('"')).collect();
    assert_eq!(rows.len(), 24);
    let found = rows.iter().filter(|text| given.contains(**text)).count();
    // A text with a comma or a quotation mark is quoted in CSV.
    assert!(found >= 20, "{found} of {rows:?}");
    // The same command asks for nothing.
    let before = server.seen().len();
    workspace.succeed(&["run", "pipeline.yaml"]);
    assert_eq!(server.seen().len(), before);
}
