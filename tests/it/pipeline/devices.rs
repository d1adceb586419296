//! Several devices, here replicas on the CPU: the bytes of one, and work that is really shared.

use std::collections::BTreeMap;
use std::fs;
use std::process::Stdio;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::fixtures::workspace::{PIPELINE, Workspace};

/// A pipeline in which every kind of node computes a model in several parts or examples: a reward
/// model, its ranking and its rewards, samples, reference logprobs, trainings and an evaluation.
fn workspace(changes: &[(&str, &str)]) -> Workspace {
    let workspace = Workspace::new();
    let row = |i: usize| {
        let word: String = [i, i / 8, i * 3].into_iter().map(|k| char::from(b'a' + (k % 8) as u8)).collect();
        format!("{}\n", json!({ "prompt": format!("upper {word}="), "chosen": word.to_uppercase(), "rejected": word }))
    };
    workspace.write("preferences.jsonl", &(40..56).map(row).collect::<String>());
    let judge = "  judge: { reward_model: { from: base, preferences: preferences, held_out: 0.5, epochs: 2, batch_size: 4, learning_rate: 3.0e-3 }, \
                 resources: { rows_per_part: 2 } }\niterate:";
    let mut text = PIPELINE.to_string();
    let own = [
        ("  judge:    { reward: { sql: reward.sql } }", "  preferences: { table: preferences.jsonl }"),
        ("iterate:", judge),
        ("rows_per_part: 4", "rows_per_part: 1"),
        ("reward: judge } }\n    pool", "reward: judge }, resources: { rows_per_part: 5 } }\n    pool"),
        (
            "epochs: 2 }, resources: { checkpoint_every: 2 } }\n    evaluation",
            "epochs: 2 }, resources: { checkpoint_every: 2, rows_per_part: 2 } }\n    evaluation",
        ),
    ];
    for (from, to) in own.iter().chain(changes) {
        assert!(text.contains(from), "{from}");
        text = text.replace(from, to);
    }
    workspace.write("pipeline.yaml", &text);
    workspace
}

/// Runs the pipeline on these devices with so many threads.
fn run(workspace: &Workspace, device: &str, threads: usize) {
    let mut command = workspace.command(&["run", "pipeline.yaml", "--device", device]);
    let output = command.env("RAYON_NUM_THREADS", threads.to_string()).output().unwrap();
    assert!(output.status.success(), "{device}: {}", String::from_utf8_lossy(&output.stderr));
}

/// What each replica did, by node and then by replica: its parts, or its examples.
fn shares(workspace: &Workspace) -> BTreeMap<String, BTreeMap<String, f64>> {
    let journal = fs::read_to_string(workspace.path("runs/small/journal.jsonl")).unwrap();
    let mut shares: BTreeMap<String, BTreeMap<String, f64>> = BTreeMap::new();
    for event in journal.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok()) {
        if event["event"] == "replica_used" {
            let detail = &event["detail"];
            let count = detail["parts"].as_f64().or(detail["examples"].as_f64()).unwrap();
            let of_node = shares.entry(event["node"].as_str().unwrap().to_string()).or_default();
            *of_node.entry(event["message"].as_str().unwrap().to_string()).or_default() += count;
        }
    }
    shares
}

#[test]
fn replicas_have_the_bytes_of_one() {
    let one = workspace(&[]);
    run(&one, "cpu", 1);
    assert!(shares(&one).is_empty());
    let expected = one.result("small");
    let count = |sql: &str| one.query("small", sql).parse::<f64>().unwrap();
    let steps = |table: &str| count(&format!("SELECT count(*) FROM {table}"));
    for (device, threads) in [("cpu:2", 4), ("cpu:4", 1)] {
        let several = workspace(&[]);
        run(&several, device, threads);
        assert_eq!(several.result("small"), expected, "{device} with {threads} threads");
        let shares = shares(&several);
        // Nothing is computed twice, and nothing by nobody.
        let sum = |node: &str| shares.get(node).map_or(0.0, |shares| shares.values().sum::<f64>());
        assert_eq!(sum("responses"), count("SELECT count(DISTINCT (iteration, prompt_id)) FROM responses"));
        assert_eq!(sum("rewards"), count("SELECT sum(ceil(n / 5.0)) FROM (SELECT count(*) AS n FROM rewards GROUP BY iteration)"));
        assert_eq!(
            sum("policy_pairs"),
            count("SELECT sum(ceil(n / 2.0)) FROM (SELECT count(*) AS n FROM policy_pairs GROUP BY iteration)")
        );
        assert_eq!(sum("judge_ranking"), count("SELECT ceil(count(*) / 2.0) FROM judge_ranking"));
        assert_eq!(sum("policy"), 2.0 * count("SELECT count(*) FROM policy_pairs"));
        assert_eq!(sum("base"), 3.0 * 20.0);
        assert!(sum("judge") > 0.0 && sum("judge") <= 2.0 * 16.0, "{shares:?}");
        assert!(sum("evaluation") > 1.0, "{shares:?}");
        assert!(steps("policy_training") > 0.0);
        // Every replica has a share where there is much to do.
        let replicas = device.trim_start_matches("cpu:").parse::<usize>().unwrap();
        for node in ["responses", "base", "policy"] {
            assert_eq!(shares[node].len(), replicas, "{node} on {device}: {shares:?}");
            assert!(shares[node].values().all(|share| *share > 0.0), "{node} on {device}: {shares:?}");
        }
    }
}

#[test]
fn adapters_bf16_and_every_term_of_the_loss_have_the_bytes_of_one() {
    let changes = [
        ("iterations: 2", "iterations: 1"),
        ("name: small", "name: small\nprecision: bf16"),
        (
            "optimizer: adamw, batch_size: 4, epochs: 2 }",
            "optimizer: adamw, batch_size: 7, epochs: 2, wpo: {}, optimism: 0.01, lora: { rank: 2, dropout: 0.2, use_dora: true } }",
        ),
        (
            "checkpoint_every: 2, rows_per_part: 2",
            "checkpoint_every: 2, rows_per_part: 2, micro_batch_size: 2, gradient_checkpointing: true",
        ),
    ];
    let one = workspace(&changes);
    run(&one, "cpu", 1);
    let expected = one.result("small");
    let several = workspace(&changes);
    run(&several, "cpu:3", 2);
    assert_eq!(several.result("small"), expected);
}

#[test]
fn devices_in_the_file_change_no_fingerprint() {
    let workspace = workspace(&[]);
    run(&workspace, "cpu", 1);
    workspace.edit("pipeline.yaml", "resources: { rows_per_part: 1 }", "resources: { rows_per_part: 1, devices: [cpu:2] }");
    workspace.edit("pipeline.yaml", "resources: { rows_per_part: 5 }", "resources: { rows_per_part: 5, devices: [cpu] }");
    let plan = workspace.succeed(&["plan", "pipeline.yaml"]);
    assert!(plan.lines().all(|line| line.ends_with("done")), "{plan}");
    // The run keeps them as they are written.
    workspace.succeed(&["run", "pipeline.yaml"]);
    let kept = fs::read_to_string(workspace.path("runs/small/pipeline.yaml")).unwrap();
    assert!(kept.contains("cpu:2") && kept.contains("cpu:1"), "{kept}");
    fs::remove_dir_all(workspace.path("runs")).unwrap();
    workspace.succeed(&["run", "pipeline.yaml"]);
    let shares = shares(&workspace);
    assert_eq!(shares.keys().collect::<Vec<_>>(), ["responses"], "{shares:?}");
}

#[test]
fn killed_on_two_replicas_a_run_goes_on_with_four() {
    let one = workspace(&[]);
    run(&one, "cpu", 1);
    let killed = workspace(&[]);
    let mut command = killed.command(&["run", "pipeline.yaml", "--device", "cpu:2"]);
    let mut child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    let start = Instant::now();
    let committed = |workspace: &Workspace| {
        let events =
            if workspace.path("runs/small/journal.jsonl").exists() { workspace.journal("small", "part_committed") } else { Vec::new() };
        events.into_iter().filter(|(node, ..)| node == "responses").count()
    };
    while committed(&killed) < 3 {
        assert!(child.try_wait().unwrap().is_none(), "the run ended before it was killed");
        assert!(start.elapsed() < Duration::from_secs(300), "no part of the responses");
        std::thread::sleep(Duration::from_millis(2));
    }
    child.kill().unwrap();
    child.wait().unwrap();
    run(&killed, "cpu:4", 2);
    assert_eq!(killed.result("small"), one.result("small"));
    let mut parts: BTreeMap<(String, i64, i64), usize> = BTreeMap::new();
    killed.journal("small", "part_committed").into_iter().for_each(|part| *parts.entry(part).or_default() += 1);
    assert!(parts.values().all(|count| *count == 1), "{parts:?}");
}

#[test]
fn devices_that_are_not_there_are_told_before_anything_runs() {
    let workspace = workspace(&[]);
    for (device, expected) in [
        ("cpu:0", "expected 1 to 64 replicas on the CPU, as cpu:2, found \"cpu:0\""),
        ("cpu:2,cuda:0", "expected GPUs or the CPU, found both"),
        ("tpu", "expected auto, cpu or cuda, found \"tpu\""),
    ] {
        let said = workspace.fail(&["run", "pipeline.yaml", "--device", device], 2);
        assert!(said.contains(expected), "{said}");
    }
    if cfg!(not(feature = "cuda")) {
        let said = workspace.fail(&["run", "pipeline.yaml", "--device", "cuda:0,cuda:1"], 2);
        assert!(said.contains("cuda:0 was asked for, but this build is without it; build with --features cuda"), "{said}");
    }
    assert!(!workspace.path("runs/small/tables").exists());
}
