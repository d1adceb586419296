//! Benchmarks on real data against lm-evaluation-harness: stories260K (OPTUNE_REAL_DIR), and
//! SmolLM2-135M-Instruct where `tests/python/greedy.py` has made it (OPTUNE_GREEDY_DIR).

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::path::Path;

use serde_json::Value;

use crate::fixtures::benchmark::{compare, rows_from_json};
use crate::fixtures::python::run_script;
use crate::fixtures::real_data::real_folder;
use crate::fixtures::repository::optune;

/// The tasks of the pipeline, and how many items of each are compared. A small machine takes
/// minutes for a hundred generated answers of SmolLM2.
fn limit(task: &str, generated: usize) -> usize {
    if task == "gsm8k" { generated } else { 200 }
}

/// Runs both on the tables in `data`, of a model with or without a chat template.
fn compare_on(model: &Path, data: &Path, has_chat: bool) {
    let folder = tempfile::tempdir().unwrap();
    let text = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/benchmark/pipeline.yaml")).unwrap();
    let text = if has_chat { text } else { without_chat(&text) };
    std::fs::write(folder.path().join("pipeline.yaml"), text).unwrap();
    let out = folder.path().join("lm_eval.json");
    let arguments: [&OsStr; 4] = [OsStr::new("answers"), model.as_os_str(), data.as_os_str(), out.as_os_str()];
    if run_script("benchmark.py", &arguments).is_none() {
        return;
    }
    let pipeline = folder.path().join("pipeline.yaml").display().to_string();
    let sets = [format!("model={}", model.display()), format!("data={}", data.display())];
    optune(folder.path(), &["run", &pipeline, "--set", &sets[0], "--set", &sets[1]]);
    let found = optune(folder.path(), &["sql", "small", "SELECT * FROM kept_items ORDER BY task, item", "--format", "json"]);
    let found = rows_from_json(&found);
    let expected: BTreeMap<String, Vec<Value>> = serde_json::from_str(&std::fs::read_to_string(&out).unwrap()).unwrap();
    assert!(expected.len() >= 4, "{:?}", expected.keys());
    for (task, expected) in &expected {
        compare(task, expected, &found[task], 1e-4);
    }
}

/// The pipeline without the tasks that need a chat template.
fn without_chat(text: &str) -> String {
    let mut kept = String::new();
    let mut is_left_out = false;
    for line in text.lines() {
        let depth = line.len() - line.trim_start().len();
        if depth <= 8 {
            is_left_out = depth == 8 && line.trim().ends_with("_chat:");
        }
        if !is_left_out {
            kept.extend([line, "\n"]);
        }
    }
    kept
}

#[test]
fn logprobs_accuracies_and_greedy_answers_are_those_of_lm_evaluation_harness() {
    let Some(real) = real_folder() else { return };
    let generated = std::env::var("OPTUNE_BENCHMARK_ITEMS").ok().and_then(|count| count.parse().ok()).unwrap_or(10);
    let data = tempfile::tempdir().unwrap();
    let arguments: [&OsStr; 3] = [OsStr::new("items"), real.as_os_str(), data.path().as_os_str()];
    if run_script("benchmark.py", &arguments).is_none() {
        return;
    }
    for task in ["numbers", "replies", "truths", "gsm8k"] {
        let path = data.path().join(format!("{task}.jsonl"));
        let text = std::fs::read_to_string(&path).unwrap();
        let rows: Vec<&str> = text.lines().take(limit(task, generated)).collect();
        std::fs::write(&path, rows.join("\n") + "\n").unwrap();
    }
    compare_on(&real.join("stories260K"), data.path(), false);
    match std::env::var_os("OPTUNE_GREEDY_DIR") {
        Some(folder) => compare_on(&Path::new(&folder).join("smollm2"), data.path(), true),
        None => eprintln!("skipped: SmolLM2: OPTUNE_GREEDY_DIR is not set"),
    }
}
