//! Every kind of node has the bytes of one process.

use std::time::Instant;

use super::is_built;
use super::processes::{Cluster, Process};
use crate::fixtures::workspace::Workspace;

/// Nodes with a reward model, preferences and a benchmark beside the loop, so that every kind of
/// node with a model is there.
const EVERY_KIND: &str = r#"optune: 1
name: small
seed: 5
inputs:
  prompts:     { table: prompts.jsonl }
  held_out:    { table: held_out.jsonl }
  preferences: { table: preferences.jsonl }
  questions:   { table: questions.jsonl }
  shape:       { model: shape }
nodes:
  base:   { sft: { from: shape, initialize: random, demonstrations: prompts, response: reference_answer, epochs: 3, batch_size: 8, learning_rate: 3.0e-3, optimizer: adamw } }
  judge:  { reward_model: { from: base, preferences: preferences, held_out: 0.3, epochs: 1, batch_size: 4, learning_rate: 1.0e-3, optimizer: adamw } }
iterate:
  t: 1..2
  start: { policy: base, pool: none }
  nodes:
    responses:  { generate: { policy: "policy[t-1]", prompts: prompts, responses_per_prompt: 3, max_new_tokens: 8, stop: ["Z"] }, resources: { rows_per_part: 3 } }
    rewards:    { score: { responses: responses, reward: judge, prompts: prompts }, resources: { rows_per_part: 7 } }
    pool:       { merge: { fresh: rewards, carried: "pool[t-1]" } }
    pairs:      { pair: { pool: pool } }
    policy:     { train: { from: "policy[t-1]", reference: base, pairs: pairs, learning_rate: 1.0e-3, optimizer: adamw, batch_size: 4, lora: { rank: 4 } } }
    evaluation: { evaluate: { policy: policy, baseline: base, prompts: held_out, reward: judge, max_new_tokens: 8 } }
    kept:       { benchmark: { policy: policy, baseline: base, tasks: { choice: { items: questions, question: question, choices: choices, answer: answer }, written: { items: questions, question: question, answer: written, generate: { max_new_tokens: 4 } } } } }
"#;

/// A workspace with every kind of node that a cluster computes.
fn every_kind() -> Workspace {
    let workspace = Workspace::new();
    let word = |i: usize| (0..3).map(|k| char::from(b'a' + ((i * 7 + k * 3) % 8) as u8)).collect::<String>();
    let preference = |i: usize| {
        let word = word(i);
        let upper = word.to_uppercase();
        format!("{{\"prompt\": \"upper {word}=\", \"chosen\": \"{upper}\", \"rejected\": \"{word}\"}}\n")
    };
    let question = |i: usize| {
        let word = word(i);
        let upper = word.to_uppercase();
        format!("{{\"question\": \"upper {word}=\", \"choices\": [\"{word}\", \"{upper}\"], \"answer\": 1, \"written\": \"{upper}\"}}\n")
    };
    workspace.write("preferences.jsonl", &(0..20).map(preference).collect::<String>());
    workspace.write("questions.jsonl", &(0..12).map(question).collect::<String>());
    workspace.write("pipeline.yaml", EVERY_KIND);
    workspace
}

#[test]
fn a_program_without_the_feature_says_how_to_build_it() {
    if is_built() {
        return;
    }
    let workspace = Workspace::new();
    for arguments in
        [vec!["run", "pipeline.yaml", "--cluster", "127.0.0.1:1"], vec!["scheduler"], vec!["executor", "--scheduler", "127.0.0.1:1"]]
    {
        let error = workspace.fail(&arguments, 2);
        assert!(error.contains("this build is without it; build with --features cluster"), "{error}");
    }
}

#[test]
fn every_kind_of_node_has_the_same_bytes_on_a_cluster() {
    if !is_built() {
        return;
    }
    let alone = every_kind();
    let start = Instant::now();
    alone.succeed(&["run", "pipeline.yaml"]);
    eprintln!("in one process: {:.1} s", start.elapsed().as_secs_f64());
    let workspace = every_kind();
    let cluster = Cluster::start(&workspace, 2);
    let plan = workspace.succeed(&["plan", "pipeline.yaml", "--cluster", &cluster.address]);
    assert!(plan.contains("base, judge, policy stay on this machine: a training keeps its state in one process"), "{plan}");
    let start = Instant::now();
    cluster.run().succeed();
    eprintln!("on the cluster: {:.1} s", start.elapsed().as_secs_f64());
    assert_eq!(workspace.result("small"), alone.result("small"));
    let parts = cluster.parts();
    let nodes = ["responses[1]", "responses[2]", "rewards[2]", "policy_pairs[1]", "judge_ranking", "evaluation[1]", "kept"];
    for node in nodes {
        assert!(parts.iter().any(|part| part.starts_with(node)), "no part of {node} on the cluster: {parts:#?}");
    }
    // Both executors took part. Only a late part is asked for twice.
    assert!(cluster.executors.iter().all(|executor: &Process| !executor.parts().is_empty()));
    let mut once = parts.clone();
    once.sort_unstable();
    once.dedup();
    assert!(parts.len() - once.len() <= parts.len() / 4, "{parts:#?}");
    // A part may travel more than once, but it is committed once.
    let mut commits = workspace.journal("small", "part_committed");
    let count = commits.len();
    commits.sort_unstable();
    commits.dedup();
    assert_eq!(commits.len(), count, "{commits:?}");
    // The same run without a cluster has nothing to do.
    let plan = workspace.succeed(&["plan", "pipeline.yaml"]);
    assert!(plan.lines().filter(|line| !line.starts_with("note: ")).all(|line| line.ends_with("done")), "{plan}");
}
