//! The first steps of a user: a pipeline file from flags, `doctor`, completions and manual pages.

use std::fs;

use crate::fixtures::workspace::Workspace;

#[test]
fn init_writes_a_pipeline_that_passes_plan_and_runs() {
    let workspace = Workspace::finished();
    let inputs = ["--model", "runs/small/models/base", "--data", "prompts.jsonl", "--reward", "new.sql"];
    let said = workspace.succeed(&[&["init", "mine.yaml"][..], &inputs].concat());
    assert!(said.contains("new.sql: written") && said.contains("mine.yaml: written; see what it will do: optune plan mine.yaml"), "{said}");
    let text = fs::read_to_string(workspace.path("mine.yaml")).unwrap();
    assert!(
        text.contains("  base: { model: \"runs/small/models/base\" }\n") && text.contains("evaluate:") && !text.contains("yours"),
        "{text}"
    );
    // One of eight different prompts is set apart; batches of 1 leave a step for each other row.
    assert!(text.contains("  prompts: { table: \"prompts.jsonl\", split: { held_out: 0.1, take: training } }\n"), "{text}");
    assert!(text.contains("  held_out: { table: \"prompts.jsonl\", split: { held_out: 0.1, take: held_out } }\n"), "{text}");
    assert!(text.contains("        batch_size: 1  ") && text.contains(" prompts; the paper's is 128\n"), "{text}");
    assert!(said.contains("mine.yaml: a share of 0.1 of the prompts is set apart for evaluation; batch_size is 1 for 1"), "{said}");
    assert!(text.contains("\nprecision: bf16 ") && text.contains("# (?)"), "the remarks come along: {text}");
    let plan = workspace.succeed(&["plan", "mine.yaml"]);
    assert!(plan.contains("policy[3]"), "{plan}");
    let refused = workspace.fail(&[&["init", "mine.yaml"][..], &inputs].concat(), 2);
    assert!(refused.contains("mine.yaml: exists already"), "{refused}");

    let more = ["--held-out", "held_out.jsonl", "--lora", "--name", "a-run"];
    workspace.succeed(&[&["init", "other.yaml"][..], &inputs, &more].concat());
    let text = fs::read_to_string(workspace.path("other.yaml")).unwrap();
    assert!(text.contains("  held_out: { table: \"held_out.jsonl\" }\n") && text.contains("        batch_size: 2  "), "{text}");
    assert!(text.contains("name: \"a-run\"\n") && text.contains("        lora: {}\n        learning_rate: 5.0e-6"), "{text}");
    workspace.edit("other.yaml", "iterations: 3", "iterations: 1");
    workspace.edit("other.yaml", "max_new_tokens: 512", "max_new_tokens: 8");
    let ran = workspace.optune(&["run", "other.yaml"]);
    // Its model may answer nothing right; everything up to the pairs runs all the same.
    let said = String::from_utf8_lossy(&ran.stderr);
    assert!(ran.status.success() || said.contains("expected at least one pair to train on"), "{said}");
    assert_eq!(workspace.query("a-run", "SELECT count(*) FROM pool"), "40");
}

#[test]
fn init_says_what_is_missing_and_what_is_not_right() {
    let workspace = Workspace::new();
    let said = workspace.fail(&["init", "new.yaml", "--model", "shape"], 2);
    assert!(said.contains("expected --model, --data and --reward"), "{said}");
    let said = workspace.fail(&["init", "--model", "shape", "--data", "prompts.jsonl", "--reward", "reward.sql"], 2);
    assert!(said.contains("pipeline.yaml: exists already"), "{said}");
    let said = workspace.fail(&["init", "new.yaml", "--model", "shape", "--data", "prompts.jsonl", "--reward", "reward.sql"], 2);
    assert!(said.contains("new.yaml: written, but not right yet: ") && said.contains("model.safetensors"), "{said}");
}

#[test]
fn a_training_without_a_learning_rate_is_refused_by_plan() {
    let workspace = Workspace::new();
    let file = fs::read_to_string(workspace.path("pipeline.yaml")).unwrap();
    // 20 prompts: a batch of all of them, one epoch, and the default warm-up.
    workspace.edit("pipeline.yaml", "epochs: 3, batch_size: 8, learning_rate: 3.0e-3", "learning_rate: 3.0e-3");
    let said = workspace.fail(&["plan", "pipeline.yaml"], 2);
    let expected = "base: expected a step with a learning rate above 0, found none: at most 20 examples in batches of 32 for 1 epoch(s) are 1 step(s), \
                    and the warm-up, ceil(0.1 · 1) = 1 step(s), begins at 0; say `warmup_ratio: 0`, lower `batch_size`, or raise `epochs`";
    assert!(said.contains(expected), "{said}");
    workspace.edit("pipeline.yaml", "learning_rate: 3.0e-3", "warmup_ratio: 0, learning_rate: 3.0e-3");
    workspace.succeed(&["plan", "pipeline.yaml"]);
    // The pairs of an iteration are at most the prompts.
    workspace.write("pipeline.yaml", &file.replace("batch_size: 4, epochs: 2", "batch_size: 20"));
    let said = workspace.fail(&["plan", "pipeline.yaml"], 2);
    assert!(
        said.contains("policy[1]: expected a step with a learning rate above 0, found none: at most 20 examples in batches of 20"),
        "{said}"
    );
}

#[test]
fn doctor_completions_and_manual_pages() {
    let workspace = Workspace::new();
    let said = workspace.succeed(&["doctor"]);
    for line in ["version    ", "CPU        ", "memory     ", "disk       runs: ", "NVIDIA GPU "] {
        assert!(said.contains(line), "{said}");
    }
    assert!(said.contains(" GB free"), "{said}");
    for shell in ["bash", "zsh", "fish"] {
        let script = workspace.succeed(&["completions", shell]);
        assert!(script.contains("optune") && script.contains("doctor"), "{shell}");
    }
    workspace.succeed(&["man", "pages/of/optune"]);
    let page = fs::read_to_string(workspace.path("pages/of/optune/optune-run.1")).unwrap();
    assert!(page.contains(".TH") && page.contains("Run a pipeline"), "{page}");
}
