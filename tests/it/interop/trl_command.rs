//! `command` with TRL's DPOTrainer as the trainer of the loop (OPTUNE_PYTHON): killed in the middle,
//! it goes on from TRL's own checkpoint.

use std::fs;
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crate::fixtures::python::{python_for, scripts};
use crate::fixtures::workspace::Workspace;

const SCRIPT: &str = "trl_dpo_command.py";

/// The loop of two iterations, trained by TRL on the texts of the pairs.
const PIPELINE: &str = r#"optune: 1
name: trl
seed: 5
params: { python: python3 }
inputs:
  prompts:  { table: prompts.jsonl }
  held_out: { table: held_out.jsonl }
  shape:    { model: shape }
  judge:    { reward: { sql: reward.sql } }
nodes:
  base: { sft: { from: shape, initialize: random, demonstrations: prompts, response: reference_answer, epochs: 3, batch_size: 8, learning_rate: 3.0e-3, optimizer: adamw } }
iterate:
  t: 1..2
  start: { policy: base }
  nodes:
    responses: { generate: { policy: "policy[t-1]", prompts: prompts, responses_per_prompt: 4, max_new_tokens: 8 } }
    rewards:   { score: { responses: responses, reward: judge } }
    pool:      { merge: { fresh: rewards } }
    pairs:     { pair: { pool: pool } }
    texts:
      sql:
        query: >
          SELECT prompts.prompt, chosen.text AS chosen, rejected.text AS rejected FROM pairs
          JOIN prompts ON prompts.prompt_id = pairs.prompt_id
          JOIN responses AS chosen ON chosen.prompt_id = pairs.prompt_id AND chosen.response_index = pairs.chosen_index
          JOIN responses AS rejected ON rejected.prompt_id = pairs.prompt_id AND rejected.response_index = pairs.rejected_index
          ORDER BY pairs.prompt_id
    policy:
      command:
        run: ["${python}", trl_dpo_command.py, --epochs, 4, --save-steps, 2, --pause, "0.2"]
        inputs: { policy: "policy[t-1]", pairs: texts }
        output: model
        files: [trl_dpo_command.py]
        timeout_seconds: 900
    evaluation: { evaluate: { policy: policy, baseline: base, prompts: held_out, reward: judge, max_new_tokens: 8 } }
"#;

#[test]
fn trl_trains_the_policy_of_the_loop_and_goes_on_after_a_kill() {
    let Some(python) = python_for(SCRIPT) else { return };
    let workspace = Workspace::new();
    fs::copy(scripts().join(SCRIPT), workspace.path(SCRIPT)).unwrap();
    workspace.write("trl.yaml", PIPELINE);
    let set = format!("python={}", python.display());
    let arguments = ["run", "trl.yaml", "--set", &set];

    // Killed with its process group in the middle of the first training, after a checkpoint.
    let log = workspace.path("runs/trl/logs/policy-1.stdout.log");
    let mut child = workspace.command(&arguments).process_group(0).stdout(Stdio::null()).stderr(Stdio::inherit()).spawn().unwrap();
    let start = Instant::now();
    while !fs::read_to_string(&log).unwrap_or_default().contains("progress: 5/") {
        assert!(child.try_wait().unwrap().is_none(), "the run ended before its fifth step");
        assert!(start.elapsed() < Duration::from_secs(600), "no fifth step: {}", fs::read_to_string(&log).unwrap_or_default());
        std::thread::sleep(Duration::from_millis(50));
    }
    let killed = Command::new("kill").args(["-KILL", "--", &format!("-{}", child.id())]).status();
    assert!(killed.unwrap().success());
    child.wait().unwrap();

    workspace.succeed(&arguments);
    let said = fs::read_to_string(&log).unwrap();
    let attempts: Vec<&str> = said.split("--- policy[1] begins at ").skip(1).collect();
    assert_eq!(attempts.len(), 2, "{said}");
    assert!(attempts[0].contains("begins at step 0\n"), "{said}");
    let resumed = attempts[1].lines().find_map(|line| line.strip_prefix("begins at step ")).unwrap();
    assert!(resumed.parse::<u32>().unwrap() >= 4, "{said}");
    let later = fs::read_to_string(workspace.path("runs/trl/logs/policy-2.stdout.log")).unwrap();
    assert!(later.contains("begins at step 0\n"), "{later}");

    // The policies sample, differ from each other, and are exported.
    let rows = workspace.query(
        "trl",
        "SELECT iteration, count(*), avg(reward), avg(baseline_reward), avg(nll_initial) FROM evaluation GROUP BY 1 ORDER BY 1",
    );
    eprintln!("iteration, prompts, reward, baseline reward, NLL\n{rows}");
    assert_eq!(rows.lines().count(), 2, "{rows}");
    let weights =
        |iteration: u32| fs::read(workspace.path(&format!("runs/trl/models/policy/iteration={iteration}/model.safetensors"))).unwrap();
    let base = fs::read(workspace.path("runs/trl/models/base/model.safetensors")).unwrap();
    assert!(weights(1) != weights(2) && weights(1) != base);
    workspace.succeed(&["export", "policy", "trl", "tuned"]);
    assert!(workspace.path("tuned/model.safetensors").is_file() && workspace.path("tuned/tokenizer.json").is_file());
    let plan = workspace.succeed(&["plan", "trl.yaml", "--set", &set]);
    assert!(plan.lines().filter(|line| !line.starts_with("note: ")).all(|line| line.ends_with("done")), "{plan}");
    assert!(workspace.succeed(&["status", "trl", "--verify"]).contains(", 0 damaged"));
}
