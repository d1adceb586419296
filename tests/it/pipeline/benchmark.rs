//! Benchmarks: answers and scores against lm-evaluation-harness, broken tables, the guard, kills.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::fixtures::benchmark::{compare, rows_of};
use crate::fixtures::files::files_under;
use crate::fixtures::rows::Draw;
use crate::fixtures::workspace::Workspace;

fn golden() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/benchmark")
}

/// A workspace with the pipeline of the golden files.
fn workspace() -> Workspace {
    let workspace = Workspace::new();
    let text = std::fs::read_to_string(golden().join("pipeline.yaml")).unwrap();
    let folder = golden().display().to_string();
    workspace.write("pipeline.yaml", &text.replace("tests/golden/benchmark", &folder));
    workspace
}

#[test]
fn answers_and_scores_are_those_of_lm_evaluation_harness() {
    let workspace = workspace();
    workspace.succeed(&["run", "pipeline.yaml"]);
    let expected: BTreeMap<String, Vec<Value>> =
        serde_json::from_str(&std::fs::read_to_string(golden().join("lm_eval.json")).unwrap()).unwrap();
    assert_eq!(expected.keys().collect::<Vec<_>>(), ["gsm8k", "gsm8k_chat", "numbers", "replies", "replies_chat", "truths"]);
    let found = rows_of(&workspace, "small", "kept_items");
    for (task, expected) in &expected {
        // The random model's likeliest tokens are not close to each other.
        compare(task, expected, &found[task], 1e-4);
    }
    // A metric in SQL: the digits in the texts.
    let with_digits = found["gsm8k_chat"].iter().filter(|row| row["text"].as_str().unwrap().contains(|c: char| c.is_ascii_digit())).count();
    let digits: f64 = workspace.query("small", "SELECT sum(value * items) FROM kept WHERE metric = 'digits'").parse().unwrap();
    assert_eq!(digits, with_digits as f64);
    let primary = workspace.query("small", "SELECT string_agg(metric, ' ' ORDER BY task) FROM kept WHERE \"primary\"");
    assert_eq!(primary, "strict last acc acc_norm acc mc2");
    // Some questions are longer than the context of 160 tokens.
    let cut: i64 = workspace.query("small", "SELECT count(*) FROM kept_answers WHERE cut_tokens > 0").parse().unwrap();
    assert!(cut > 0);
}

/// A pipeline with one task on a table of two items.
fn small(task: &str) -> String {
    format!(
        "optune: 1\nname: small\ninputs:\n  model: {{ model: {} }}\n  items: {{ table: items.jsonl }}\n  held_out: {{ table: few.jsonl }}\n\
         nodes:\n  kept: {{ benchmark: {{ policy: model, tasks: {{ arc: {{ items: items, {task} }} }} }} }}\n",
        golden().join("model").display()
    )
}

#[test]
fn broken_tables_are_told_at_plan_with_their_row() {
    let workspace = Workspace::new();
    let rows = r#"{"q": "one", "options": ["a", "b"], "right": 0, "letter": "A", "labels": [1, 0], "empty": [], "blank": ["a", ""], "none": null}
{"q": "two", "options": ["c", "d"], "right": 2, "letter": "E", "labels": [0, 0], "empty": [], "blank": ["a", "b"], "none": "x"}
"#;
    workspace.write("items.jsonl", rows);
    workspace.write("few.jsonl", &rows.lines().next().map(|line| format!("{line}\n")).unwrap());
    let cases = [
        (
            "question: qq, choices: options, answer: right",
            "task arc: table items: question: expected a column or a template such as \"{{ … }}\", found \"qq\"; columns: q, options",
        ),
        (
            "question: '{{ qestion }}', choices: options, answer: right",
            "question: the template reads \"qestion\", and there is no such column; columns: q, options",
        ),
        (
            "question: q, choices: options, answer: right",
            "table items, row 1: answer: expected the number of a choice from 0 to 1, found 2",
        ),
        (
            "question: q, choices: options, answer: letter",
            "table items, row 0: answer: expected one of the choices \"a\", \"b\", found \"A\"; a letter becomes a number with",
        ),
        ("question: q, choices: options, answer: \"{{ 'ABCD'.index(letter) }}\"", "table items, row 1: answer: template: "),
        ("question: q, choices: q, answer: right", "table items, row 0: choices: expected a list of texts, found text"),
        ("question: q, choices: empty, answer: 0", "table items, row 0: choices: expected at least 2, found 0"),
        (
            "question: q, choices: blank, answer: 0",
            "table items, row 0: choices: expected texts with at least one character, found an empty one, choice 1",
        ),
        ("question: q, choices: options, labels: options", "labels: expected a whole number, found \"a\""),
        ("question: q, choices: options, labels: empty", "table items, row 0: labels: expected one for each of 2 choices, found 0"),
        ("question: q, choices: options, labels: labels", "table items, row 1: labels: expected at least one right choice, found none"),
        ("question: none, answer: q", "table items, row 0: question: expected a value in the column none, found null"),
        ("question: q, answer: q, few_shot: { count: 2 }", "item 0: expected 2 examples, found 1"),
        ("question: q, answer: q, few_shot: { count: 2, from: held_out }", "item 0: expected 2 examples, found 1"),
        ("question: q, answer: q, few_shot: { count: 1, group: letter }", "item 0: expected 1 examples of the group \"A\", found 0"),
        ("question: q, answer: q, id: labels", "table items, row 0: id: expected a text, found a list"),
        ("question: q, answer: q, metrics: { m: { sql: 'length(texts)' } }", "task arc: metric m: "),
        ("question: q, answer: q, metrics: { m: { sql: text } }", "sql: expected a number or a truth value, found Utf8"),
    ];
    for (task, expected) in cases {
        workspace.write("pipeline.yaml", &small(task));
        let error = workspace.fail(&["plan", "pipeline.yaml"], 2);
        assert!(error.contains(expected) && error.contains("line 8: kept_"), "{task}\n  expected {expected}\n  found    {error}");
    }
    workspace.write("items.jsonl", "");
    workspace.write("pipeline.yaml", &small("question: q, answer: q"));
    let error = workspace.fail(&["plan", "pipeline.yaml"], 2);
    assert!(error.contains("table items: expected at least one item, found none"), "{error}");
}

/// A loop whose policy has hardly learned what its baseline knows.
const LOOP: &str = r#"optune: 1
name: small
tracking: { tensorboard: true }
inputs:
  prompts: { table: prompts.jsonl }
  shape:   { model: shape }
nodes:
  base:  { sft: { from: shape, initialize: random, demonstrations: prompts, response: reference_answer, epochs: 6, batch_size: 8, learning_rate: 3.0e-3, optimizer: adamw } }
  worse: { sft: { from: shape, initialize: random, demonstrations: prompts, response: reference_answer, epochs: 1, batch_size: 8, learning_rate: 1.0e-6, optimizer: adamw } }
iterate:
  t: 1..2
  nodes:
    kept:
      benchmark:
        policy: worse
        baseline: base
        guard: { max_drop: 0.1, on_drop: stop }
        tasks:
          upper: { items: prompts, question: prompt, choices: ["{{ reference_answer }}", "@@@"], answer: 0, delimiter: "" }
"#;

#[test]
fn a_guard_stops_later_iterations_or_warns_and_is_no_reason_to_ask_again() {
    let workspace = Workspace::new();
    workspace.write("pipeline.yaml", LOOP);
    let error = workspace.fail(&["run", "pipeline.yaml"], 1);
    assert!(error.contains("kept[1]: tuning lost more than max_drop 0.1: upper acc "), "{error}");
    assert!(error.contains("not run because of that: ") && error.contains("kept[2]"), "{error}");
    assert!(error.contains("go on with a higher `max_drop` or with `on_drop: warn`"), "{error}");
    let again = workspace.fail(&["run", "pipeline.yaml"], 1);
    assert!(again.contains("tuning lost more than max_drop"), "{again}");
    let answered = workspace.journal("small", "part_committed").into_iter().filter(|(node, ..)| node.ends_with("_answers")).count();
    workspace.edit("pipeline.yaml", "on_drop: stop", "on_drop: warn");
    let output = workspace.optune(&["run", "pipeline.yaml", "--json"]);
    let warned = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success() && warned.contains("tuning lost more than max_drop 0.1"), "{warned}");
    let summary: Value = serde_json::from_slice(&output.stdout).unwrap();
    let kept = summary["benchmarks"].as_array().unwrap();
    assert_eq!(kept.len(), 2);
    for row in kept {
        let number = |key: &str| row[key].as_f64().unwrap();
        assert!((number("value") - number("baseline") - number("change")).abs() < 1e-12, "{row}");
        assert!(number("change_low") <= number("change") && number("change") <= number("change_high") && number("change") < -0.1, "{row}");
    }
    // The second iteration answers; the first one's answers and the baseline's are kept.
    let parts = workspace.journal("small", "part_committed").into_iter().filter(|(node, ..)| node.ends_with("_answers"));
    assert_eq!(parts.filter(|(node, iteration, _)| node == "kept_answers" && *iteration == 1).count(), 1);
    assert!(answered >= 2);
    let text = workspace.succeed(&["run", "pipeline.yaml"]);
    assert!(text.contains("kept upper") && text.contains("change: the mean over items of policy minus baseline"), "{text}");
    let curves: Vec<u8> =
        files_under(&workspace.path("runs/small/tensorboard/kept")).iter().flat_map(|path| std::fs::read(path).unwrap()).collect();
    for tag in ["benchmark/upper/acc", "benchmark/upper/acc/change", "benchmark/upper/acc_norm"] {
        assert!(curves.windows(tag.len()).any(|bytes| bytes == tag.as_bytes()), "{tag}");
    }
    workspace.succeed(&["report", "small", "--output", "report.html"]);
    let html = std::fs::read_to_string(workspace.path("report.html")).unwrap();
    assert!(html.contains("What tuning kept") && html.contains("Change against the baseline: kept"));
    assert!(html.contains("<dt>upper acc (kept)</dt>") || html.contains("<dt>upper acc_norm (kept)</dt>"), "in the overview");
}

#[test]
fn killed_at_random_and_run_again_the_answers_are_the_same() {
    let whole = workspace();
    let start = Instant::now();
    whole.succeed(&["run", "pipeline.yaml"]);
    let time = start.elapsed();
    let expected = whole.result("small");
    let mut random = Draw(11);
    for _ in 0..4 {
        let workspace = workspace();
        for _ in 0..2 {
            let mut child = workspace.start(&["run", "pipeline.yaml"]);
            std::thread::sleep(Duration::from_micros(random.bits() % (time.as_micros() as u64 * 8 / 10).max(1)));
            child.kill().unwrap();
            child.wait().unwrap();
        }
        workspace.succeed(&["run", "pipeline.yaml"]);
        assert_eq!(workspace.result("small"), expected);
        let mut commits: BTreeMap<(String, i64, i64), usize> = BTreeMap::new();
        for part in workspace.journal("small", "part_committed") {
            *commits.entry(part).or_default() += 1;
        }
        assert!(commits.values().all(|count| *count == 1), "{commits:?}");
    }
}

#[test]
fn a_renamed_table_or_another_metric_asks_nothing_again() {
    let workspace = workspace();
    workspace.succeed(&["run", "pipeline.yaml"]);
    let plan = |workspace: &Workspace| workspace.succeed(&["plan", "pipeline.yaml"]);
    workspace.edit("pipeline.yaml", "primary: acc_norm", "primary: acc_bytes");
    workspace.edit("pipeline.yaml", "'(-?[0-9.,]*[0-9])'", "'([0-9]+)'");
    workspace.edit("pipeline.yaml", "numbers: { table", "sums: { table");
    workspace.edit("pipeline.yaml", "items: numbers", "items: sums");
    let text = plan(&workspace);
    let line = |name: &str| text.lines().find(|line| line.contains(name)).unwrap_or_else(|| panic!("{text}")).to_string();
    assert!(line("kept_answers").contains("done"), "{text}");
    assert!(line("kept_items").contains("stale"), "{text}");
}

#[test]
fn rewards_are_metrics_of_generated_answers() {
    let workspace = Workspace::new();
    workspace.write("items.jsonl", "{\"prompt\": \"one\", \"n\": 1}\n{\"prompt\": \"two\", \"n\": 2}\n");
    workspace.write(
        "length.sql",
        "SELECT prompt_id, response_index, CAST(n AS DOUBLE) AS reward, CAST(length(text) AS DOUBLE) AS characters
         FROM responses JOIN prompts USING (prompt_id)",
    );
    let task = "question: prompt, generate: { max_new_tokens: 4 }, metrics: { checked: { reward: length } }, primary: checked.characters";
    let pipeline = small(task).replace("  held_out: { table: few.jsonl }\n", "  length: { reward: { sql: length.sql } }\n");
    workspace.write("pipeline.yaml", &pipeline);
    workspace.succeed(&["run", "pipeline.yaml"]);
    assert_eq!(workspace.query("small", "SELECT value FROM kept WHERE metric = 'checked'"), "1.5");
    let characters = workspace.query("small", "SELECT value FROM kept WHERE metric = 'checked.characters' AND \"primary\"");
    assert_eq!(characters, workspace.query("small", "SELECT avg(CAST(length(text) AS DOUBLE)) FROM kept_items"));
}
