//! The script for TRL's trainer with weighted pairs (OPTUNE_PYTHON): its losses are those of our own
//! `train` on the same pairs, as a command and as the engine of a `train`, on one process and on two.

use std::fs;
use std::path::Path;
use std::process::Output;

use serde_json::Value;

use crate::fixtures::python::python_for;
use crate::fixtures::workspace::Workspace;

const SCRIPT: &str = "../../pipelines/train/trl_weighted_dpo.py";

/// Our training and TRL's of the same pairs, each step with all of them. `accelerate launch` starts
/// more than one process on a CPU only through MPI.
const PIPELINE: &str = r#"optune: 1
name: weighted
seed: 5
params: { python: python3, processes: "1" }
inputs:
  prompts:  { table: prompts.jsonl }
  shape:    { model: shape }
  judge:    { reward: { sql: reward.sql } }
nodes:
  base:      { sft: { from: shape, initialize: random, demonstrations: prompts, response: reference_answer, epochs: 3, batch_size: 8, learning_rate: 3.0e-3, optimizer: adamw } }
  responses: { generate: { policy: base, prompts: prompts, responses_per_prompt: 4, max_new_tokens: 8 } }
  rewards:   { score: { responses: responses, reward: judge } }
  pool:      { merge: { fresh: rewards } }
  pairs:     { pair: { pool: pool, weight: { kind: linear, normalize: mean } } }
  tokens:
    sql:
      query: >
        SELECT pairs.prompt_id, array_slice(chosen.token_ids, 1, CAST(chosen.prompt_token_count AS BIGINT)) AS prompt_ids,
        array_slice(chosen.token_ids, CAST(chosen.prompt_token_count AS BIGINT) + 1, CAST(array_length(chosen.token_ids) AS BIGINT)) AS chosen_ids,
        array_slice(rejected.token_ids, CAST(rejected.prompt_token_count AS BIGINT) + 1, CAST(array_length(rejected.token_ids) AS BIGINT)) AS rejected_ids,
        pairs.weight FROM pairs
        JOIN responses AS chosen ON chosen.prompt_id = pairs.prompt_id AND chosen.response_index = pairs.chosen_index
        JOIN responses AS rejected ON rejected.prompt_id = pairs.prompt_id AND rejected.response_index = pairs.rejected_index
        ORDER BY pairs.prompt_id
  ours:   { train: { from: base, reference: base, pairs: pairs, optimizer: { adamw: { weight_decay: 0.0 } }, learning_rate: 1.0e-3, schedule: constant, warmup_ratio: 0.0, max_gradient_norm: 1.0, batch_size: 32, epochs: 20 } }
  theirs:
    command:
      run: ["${python}", -m, torch.distributed.run, --standalone, --nproc_per_node, "${processes}", trl_weighted_dpo.py, --cpu, --batch-size, "32", --epochs, "20", --learning-rate, "1e-3", --save-steps, "5"]
      inputs: { policy: base, reference: base, pairs: tokens }
      output: model
      files: [trl_weighted_dpo.py]
      timeout_seconds: 900
  engine:
    train:
      from: base
      reference: base
      pairs: pairs
      optimizer: { adamw: { weight_decay: 0.0 } }
      learning_rate: 1.0e-3
      schedule: constant
      warmup_ratio: 0.0
      max_gradient_norm: 1.0
      batch_size: 32
      epochs: 20
      engine:
        command: ["${python}", -m, torch.distributed.run, --standalone, --nproc_per_node, "${processes}", trl_weighted_dpo.py, --cpu]
        files: [trl_weighted_dpo.py]
        timeout_seconds: 900
"#;

/// Our training and that of an engine with RMSprop, a warm-up and a falling learning rate.
const SCHEDULED: &str = "optimizer: rmsprop, learning_rate: 1.0e-3, schedule: cosine, warmup_ratio: 0.2, batch_size: 32, epochs: 10";

fn losses(log: &str) -> Vec<f64> {
    let lines = log.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    lines.filter(|line| line.get("rewards/margins").is_some()).map(|line| line["loss"].as_f64().unwrap()).collect()
}

fn run(workspace: &Workspace, python: &Path, processes: usize, batch: usize) -> Output {
    workspace.write("weighted.yaml", &PIPELINE.replace("--batch-size, \"32\"", &format!("--batch-size, \"{batch}\"")));
    let sets = [format!("python={}", python.display()), format!("processes={processes}")];
    let mut command = workspace.command(&["run", "weighted.yaml", "--set", &sets[0], "--set", &sets[1]]);
    command.env("OMP_NUM_THREADS", "1").output().unwrap()
}

#[test]
fn trl_with_weights_has_the_losses_of_our_own_training() {
    let Some(python) = python_for(SCRIPT) else { return };
    let python = Path::new(&python);
    let workspace = Workspace::new();
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("pipelines/train/trl_weighted_dpo.py");
    fs::copy(script, workspace.path("trl_weighted_dpo.py")).unwrap();
    let output = run(&workspace, python, 1, 32);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let ours: Vec<f64> =
        workspace.query("weighted", "SELECT loss FROM ours_training ORDER BY step").lines().map(|loss| loss.parse().unwrap()).collect();
    let log = workspace.path("runs/weighted/logs/theirs.stdout.log");
    let theirs = losses(&fs::read_to_string(&log).unwrap());
    assert_eq!((ours.len(), theirs.len()), (20, 20));
    let engine = losses(&fs::read_to_string(workspace.path("runs/weighted/logs/engine.stdout.log")).unwrap());
    let off = |theirs: &[f64]| ours.iter().zip(theirs).map(|(ours, theirs)| (ours - theirs).abs()).fold(0.0, f64::max);
    eprintln!("one process: {ours:?}, {theirs:?}");
    assert!(off(&theirs) < 1e-3, "{}", off(&theirs));
    assert!(ours[19] < ours[0], "nothing was learned: {ours:?}");
    assert!(engine.len() == 20 && off(&engine) < 1e-3, "{engine:?}");

    // Half of the pairs on each of two processes.
    let count: usize = workspace.query("weighted", "SELECT count(*) FROM pairs").parse().unwrap();
    fs::remove_file(&log).unwrap();
    let output = run(&workspace, python, 2, count.div_ceil(2));
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let theirs = losses(&fs::read_to_string(&log).unwrap());
    eprintln!("two processes, {count} pairs: {theirs:?}");
    assert_eq!(theirs.len(), 20);
    if count.is_multiple_of(2) {
        assert!(off(&theirs) < 1e-3, "{}", off(&theirs));
    }
    for node in ["theirs", "engine"] {
        workspace.succeed(&["export", "policy", "weighted", &format!("by-{node}"), "--node", node]);
    }

    // RMSprop and a schedule, both from the settings of the node.
    let nodes = PIPELINE.split("  ours:").next().unwrap();
    let engine = "[\"${python}\", trl_weighted_dpo.py, --cpu]";
    let both = format!(
        "{nodes}  ours: {{ train: {{ from: base, reference: base, pairs: pairs, {SCHEDULED} }} }}\n  \
         engine: {{ train: {{ from: base, reference: base, pairs: pairs, {SCHEDULED}, engine: {{ command: {engine}, timeout_seconds: 900 }} }} }}\n"
    );
    workspace.write("scheduled.yaml", &both.replace("name: weighted", "name: scheduled"));
    let set = format!("python={}", python.display());
    workspace.succeed(&["run", "scheduled.yaml", "--set", &set]);
    let ours = workspace.query("scheduled", "SELECT loss FROM ours_training ORDER BY step");
    let ours: Vec<f64> = ours.lines().map(|loss| loss.parse().unwrap()).collect();
    let theirs = losses(&fs::read_to_string(workspace.path("runs/scheduled/logs/engine.stdout.log")).unwrap());
    eprintln!("scheduled: {ours:?}, {theirs:?}");
    assert_eq!((ours.len(), theirs.len()), (10, 10));
    assert!(ours.iter().zip(&theirs).all(|(ours, theirs)| (ours - theirs).abs() < 1e-3), "{ours:?}, {theirs:?}");
    assert!(ours[9] < ours[0], "nothing was learned: {ours:?}");
}
