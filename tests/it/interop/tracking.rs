//! The data of a run in TensorBoard and MLflow, against its tables.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::fixtures::http_server::{Fate, Reply, Request, Server, well};
use crate::fixtures::python::run_script;
use crate::fixtures::workspace::Workspace;

/// Series by folder (or the beginning of a metric's name) and tag, each the values by step.
type Curves = BTreeMap<(String, String), Vec<(i64, f64)>>;

/// A field of a protocol buffer: its number and its contents.
enum Field<'a> {
    Number(u64),
    Bytes(&'a [u8]),
}

/// Decodes a protocol buffer, as its specification has it.
fn fields(mut bytes: &[u8]) -> Vec<(u64, Field<'_>)> {
    fn varint(bytes: &mut &[u8]) -> u64 {
        let mut value = 0;
        for shift in 0.. {
            let (byte, rest) = bytes.split_first().unwrap();
            *bytes = rest;
            value |= u64::from(byte & 0x7f) << (7 * shift);
            if byte & 0x80 == 0 {
                break;
            }
        }
        value
    }
    let mut found = Vec::new();
    while !bytes.is_empty() {
        let key = varint(&mut bytes);
        let width = match key & 7 {
            0 => {
                found.push((key >> 3, Field::Number(varint(&mut bytes))));
                continue;
            }
            1 => 8,
            2 => varint(&mut bytes) as usize,
            5 => 4,
            other => panic!("wire type {other}"),
        };
        let (value, rest) = bytes.split_at(width);
        bytes = rest;
        found.push((key >> 3, Field::Bytes(value)));
    }
    found
}

/// The records of an event file, their checksums compared.
fn records(path: &Path) -> Vec<Vec<u8>> {
    let file = std::fs::read(path).unwrap();
    let masked = |bytes: &[u8]| crc32c::crc32c(bytes).rotate_right(15).wrapping_add(0xa282_ead8).to_le_bytes();
    let (mut rest, mut found) = (&file[..], Vec::new());
    while !rest.is_empty() {
        let length = u64::from_le_bytes(rest[..8].try_into().unwrap()) as usize;
        assert_eq!(rest[8..12], masked(&rest[..8]));
        let bytes = &rest[12..12 + length];
        assert_eq!(rest[12 + length..16 + length], masked(bytes));
        found.push(bytes.to_vec());
        rest = &rest[16 + length..];
    }
    found
}

/// The curves of all event files under a run's folder `tensorboard`: one file a node.
fn curves(workspace: &Workspace) -> Curves {
    let mut curves = Curves::new();
    for folder in std::fs::read_dir(workspace.path("runs/small/tensorboard")).unwrap() {
        let folder = folder.unwrap();
        let files: Vec<PathBuf> = std::fs::read_dir(folder.path()).unwrap().map(|file| file.unwrap().path()).collect();
        assert_eq!(files.len(), 1, "{files:?}");
        let node = folder.file_name().to_string_lossy().into_owned();
        let records = records(&files[0]);
        assert!(records[0].ends_with(b"brain.Event:2"));
        for record in &records[2..] {
            let event = fields(record);
            let step = event.iter().find_map(|(field, value)| match value {
                Field::Number(step) if *field == 2 => Some(*step as i64),
                _ => None,
            });
            let Some(Field::Bytes(summary)) = event.iter().find(|(field, _)| *field == 5).map(|(_, value)| value) else {
                panic!("no summary")
            };
            let summary = fields(summary);
            let (1, Field::Bytes(value)) = &summary[0] else { panic!("no value") };
            let value = fields(value);
            let (Field::Bytes(tag), Field::Bytes(number)) = (&value[0].1, &value[1].1) else { panic!("no tag") };
            let number = f64::from(f32::from_le_bytes((*number).try_into().unwrap()));
            let key = (node.clone(), String::from_utf8(tag.to_vec()).unwrap());
            curves.entry(key).or_default().push((step.unwrap_or(0), number));
        }
    }
    curves
}

/// A query's rows as steps and values.
fn asked(workspace: &Workspace, query: &str) -> Vec<(i64, f64)> {
    let rows = workspace.query("small", query);
    let row = |line: &str| {
        let (step, value) = line.split_once(',').unwrap();
        (step.parse().unwrap(), value.parse().unwrap())
    };
    rows.lines().map(row).collect()
}

fn same(found: &[(i64, f64)], expected: &[(i64, f64)], what: &str) {
    assert!(!expected.is_empty(), "{what}");
    assert_eq!(found.iter().map(|(step, _)| step).collect::<Vec<_>>(), expected.iter().map(|(step, _)| step).collect::<Vec<_>>(), "{what}");
    for ((step, one), (_, other)) in found.iter().zip(expected) {
        assert!((one - other).abs() <= 1e-6 * other.abs().max(1.0), "{what} at {step}: {one}, expected {other}");
    }
}

/// The curves agree with the tables of a finished run.
fn are_those_of_the_tables(workspace: &Workspace, curves: &Curves) {
    let curve = |node: &str, tag: &str| {
        let found = curves.get(&(node.to_string(), tag.to_string()));
        found.unwrap_or_else(|| panic!("no {node} {tag} in {:?}", curves.keys())).clone()
    };
    let all_steps = |column: &str| {
        format!(
            "SELECT t.step + coalesce(sum(earlier.steps), 0) AS step, t.{column} FROM policy_training t
             LEFT JOIN (SELECT iteration, max(step) AS steps FROM policy_training GROUP BY iteration) AS earlier ON earlier.iteration < t.iteration
             GROUP BY t.iteration, t.step, t.{column} ORDER BY 1"
        )
    };
    for (tag, column) in [
        ("train/loss", "loss"),
        ("train/rewards/margins", "reward_margin"),
        ("train/rewards/accuracies", "accuracy"),
        ("train/logps/chosen", "logprob_chosen"),
        ("train/logps/rejected", "logprob_rejected"),
        ("train/objective/kl", "kl"),
        ("train/grad_norm", "gradient_norm"),
        ("train/learning_rate", "learning_rate"),
    ] {
        same(&curve("policy", tag), &asked(workspace, &all_steps(column)), tag);
    }
    same(&curve("base", "train/loss"), &asked(workspace, "SELECT step, loss FROM base_training ORDER BY 1"), "base");
    let by_iteration = |what: &str, table: &str| format!("SELECT iteration, {what} FROM {table} GROUP BY iteration ORDER BY iteration");
    same(&curve("rewards", "reward"), &asked(workspace, &by_iteration("avg(reward)", "rewards")), "reward");
    let length = by_iteration("avg(CAST(array_length(token_ids) AS DOUBLE) - prompt_token_count)", "responses");
    same(&curve("responses", "completions/mean_length"), &asked(workspace, &length), "length");
    same(&curve("evaluation", "eval/reward"), &asked(workspace, &by_iteration("avg(reward)", "evaluation")), "evaluation");
    let score =
        "50.0 + 50.0 * (sum(CASE WHEN outcome = 'win' THEN 1 ELSE 0 END) - sum(CASE WHEN outcome = 'loss' THEN 1 ELSE 0 END)) / count(*)";
    same(&curve("evaluation", "eval/win_score"), &asked(workspace, &by_iteration(score, "evaluation")), "win score");
}

fn with_tracking(tracking: &str) -> Workspace {
    let workspace = Workspace::new();
    workspace.edit("pipeline.yaml", "inputs:\n", &format!("tracking: {tracking}\ninputs:\n"));
    workspace
}

#[test]
fn event_files_have_the_curves_of_the_tables_and_tensorboard_reads_them() {
    let workspace = with_tracking("{ tensorboard: true }");
    workspace.succeed(&["run", "pipeline.yaml"]);
    let found = curves(&workspace);
    are_those_of_the_tables(&workspace, &found);
    for tag in ["train/tokens_per_second", "train/num_tokens", "train/epoch"] {
        assert!(found.contains_key(&("policy".to_string(), tag.to_string())), "{tag}");
    }
    assert!(found[&("responses".to_string(), "tokens_per_second".to_string())].iter().all(|(_, rate)| *rate > 0.0));
    // Tracking is no part of a run's result.
    let other = Workspace::new();
    other.succeed(&["run", "pipeline.yaml"]);
    let made =
        |workspace: &Workspace| workspace.result("small").into_iter().filter(|(name, _)| name != "pipeline.yaml").collect::<Vec<_>>();
    assert!(made(&workspace) == made(&other));

    let folder = workspace.path("runs/small/tensorboard");
    let Some(read) = run_script("event_files.py", &["read".as_ref(), folder.as_os_str()]) else { return };
    let read: BTreeMap<String, BTreeMap<String, Vec<(i64, f64)>>> = serde_json::from_slice(&read).unwrap();
    let read: Curves =
        read.into_iter().flat_map(|(node, tags)| tags.into_iter().map(move |(tag, curve)| ((node.clone(), tag), curve))).collect();
    assert_eq!(read, found);

    // The script compares what both have with what TensorBoard reads.
    let files = workspace.path("imported");
    std::fs::create_dir(&files).unwrap();
    let Some(said) = run_script("import_curves.py", &[folder.as_os_str(), files.as_os_str()]) else { return };
    let said = String::from_utf8(said).unwrap();
    let counts: Value = serde_json::from_str(said.lines().last().unwrap()).unwrap();
    let values: usize = found.values().map(Vec::len).sum();
    assert_eq!(counts, json!({ "trackio": values, "wandb": values }));
}

#[test]
fn a_run_that_was_killed_has_whole_curves_with_each_step_once() {
    let workspace = with_tracking("{ tensorboard: true }");
    let journal = workspace.path("runs/small/journal.jsonl");
    // Killed in the training of the base, then in the training of the first policy.
    for node in ["base", "policy"] {
        let mut run = workspace.start(&["run", "pipeline.yaml"]);
        let begun = Instant::now();
        let checkpoint = |line: &str| line.contains("part_committed") && line.contains(&format!("\"node\":\"{node}\""));
        while !std::fs::read_to_string(&journal).is_ok_and(|text| text.lines().any(checkpoint)) {
            assert!(begun.elapsed() < Duration::from_secs(120), "{node}");
            std::thread::sleep(Duration::from_millis(1));
        }
        run.kill().unwrap();
        run.wait().unwrap();
    }
    workspace.succeed(&["run", "pipeline.yaml"]);
    are_those_of_the_tables(&workspace, &curves(&workspace));
    // And again, when nothing is left to do.
    workspace.succeed(&["run", "pipeline.yaml"]);
    are_those_of_the_tables(&workspace, &curves(&workspace));
}

/// The answer of an MLflow server. As the real one, it takes no param twice.
fn mlflow(request: &Request) -> Reply {
    let body = request.json();
    let params: Vec<&str> = body["params"].as_array().into_iter().flatten().filter_map(|param| param["key"].as_str()).collect();
    if (1..params.len()).any(|index| params[..index].contains(&params[index])) {
        return Reply::of(400, b"Duplicate parameter keys".to_vec());
    }
    let answer = match request.path.as_str() {
        "/api/2.0/mlflow/experiments/search" => json!({}),
        "/api/2.0/mlflow/experiments/create" => json!({ "experiment_id": "7" }),
        "/api/2.0/mlflow/runs/create" => json!({ "run": { "info": { "run_id": "abc" } } }),
        "/api/2.0/mlflow/runs/log-batch" | "/api/2.0/mlflow/runs/update" => json!({}),
        other => return Reply::of(404, format!("no {other}").into_bytes()),
    };
    Reply::json(answer)
}

/// The metrics of the answered requests, in the order of their steps.
fn metrics(requests: &[Request]) -> Curves {
    let mut curves = Curves::new();
    for request in requests.iter().filter(|request| request.fate == Fate::Answer && request.path.ends_with("log-batch")) {
        let body = request.json();
        assert_eq!(body["run_id"], "abc");
        let metrics = body["metrics"].as_array().cloned().unwrap_or_default();
        assert!(metrics.len() <= 1_000);
        for metric in metrics {
            let (node, tag) = metric["key"].as_str().unwrap().split_once('/').unwrap();
            assert!(metric["timestamp"].as_i64().unwrap() > 1_500_000_000_000);
            let curve = curves.entry((node.to_string(), tag.to_string())).or_default();
            curve.push((metric["step"].as_i64().unwrap(), metric["value"].as_f64().unwrap()));
        }
    }
    curves
}

fn bodies(requests: &[Request], path: &str) -> Vec<Value> {
    requests.iter().filter(|request| request.path.ends_with(path)).map(Request::json).collect()
}

#[test]
fn mlflow_is_told_everything_once() {
    let server = Server::start(well, mlflow);
    let workspace = with_tracking(&format!("{{ mlflow: {{ uri: \"{}\", experiment: \"small things\" }} }}", server.url));
    workspace.edit("pipeline.yaml", "seed: 5\n", "seed: \"${seed}\"\n");
    workspace.edit("pipeline.yaml", "params: { ratio", "params: { seed: 5, ratio");
    workspace.succeed(&["run", "pipeline.yaml"]);
    let seen = server.seen();
    are_those_of_the_tables(&workspace, &metrics(&seen));
    assert_eq!(bodies(&seen, "experiments/create"), [json!({ "name": "small things" })]);
    let begun = bodies(&seen, "runs/create");
    assert_eq!((begun.len(), &begun[0]["run_name"], &begun[0]["experiment_id"]), (1, &json!("small"), &json!("7")));
    let params: Vec<Value> = bodies(&seen, "log-batch").iter().filter_map(|body| body["params"].as_array().cloned()).flatten().collect();
    assert!(
        params.contains(&json!({ "key": "ratio", "value": "0.5" })) && params.contains(&json!({ "key": "seed", "value": "5" })),
        "{params:?}"
    );
    let statuses: Vec<Value> = bodies(&seen, "runs/update").iter().map(|body| body["status"].clone()).collect();
    assert_eq!(statuses, ["RUNNING", "FINISHED"]);

    // The same command goes on with the same run there and has no more to tell.
    workspace.succeed(&["run", "pipeline.yaml"]);
    assert_eq!(metrics(&server.seen()), metrics(&seen));
    assert_eq!(bodies(&server.seen(), "runs/create").len(), 1);
    // More iterations are more of the same; another learning rate is another run.
    workspace.succeed(&["run", "pipeline.yaml", "--set", "iterations=3"]);
    assert_eq!(bodies(&server.seen(), "runs/create").len(), 1);
    are_those_of_the_tables(&workspace, &metrics(&server.seen()));
    workspace.succeed(&["run", "pipeline.yaml", "--set", "learning_rate=2.0e-3"]);
    assert_eq!(bodies(&server.seen(), "runs/create").len(), 2);
}

#[test]
fn a_server_that_is_down_does_not_fail_the_run_and_is_told_later() {
    let up = Arc::new(AtomicBool::new(false));
    let is_up = up.clone();
    let server = Server::start(move |_| if is_up.load(Ordering::SeqCst) { Fate::Answer } else { Fate::Drop }, mlflow);
    let workspace = with_tracking(&format!("{{ mlflow: {{ uri: \"{}\" }} }}", server.url));
    let output = workspace.optune(&["run", "pipeline.yaml"]);
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
    assert_eq!(said.matches("mlflow: ").count(), 1, "{said}");
    assert!(said.contains("the run goes on"), "{said}");
    assert!(metrics(&server.seen()).is_empty());
    up.store(true, Ordering::SeqCst);
    workspace.succeed(&["run", "pipeline.yaml"]);
    are_those_of_the_tables(&workspace, &metrics(&server.seen()));
}

#[test]
fn a_server_that_fails_now_and_then_is_told_everything() {
    let server = Server::start(|number| if number % 3 == 1 { Fate::Broken } else { Fate::Answer }, mlflow);
    let workspace = with_tracking(&format!("{{ mlflow: {{ uri: \"{}\" }} }}", server.url));
    workspace.succeed(&["run", "pipeline.yaml"]);
    workspace.succeed(&["run", "pipeline.yaml"]);
    workspace.succeed(&["run", "pipeline.yaml"]);
    are_those_of_the_tables(&workspace, &metrics(&server.seen()));
}

#[test]
fn what_is_wrong_with_tracking_is_said_with_its_place() {
    for (tracking, expected) in [
        ("{ mlflow: { uri: nonsense } }", "expected an address such as http://localhost:5000, found \"nonsense\""),
        ("{ mlflow: { uri: \"http://me:secret@host\" } }", "without user and password"),
        ("{ mlflow: { uri: \"http://host\", experiment: \"it's\" } }", "expected a name without quotes"),
        ("{ mlflow: {} }", "uri"),
        ("{ tensorbord: true }", "tensorboard"),
    ] {
        let workspace = with_tracking(tracking);
        let error = workspace.fail(&["plan", "pipeline.yaml"], 2);
        assert!(error.contains(expected) && error.contains("pipeline.yaml:5:"), "{tracking}: {error}");
    }
    let schema: Value = serde_json::from_str(&Workspace::new().succeed(&["schema"])).unwrap();
    let described = |pointer: &str| schema.pointer(pointer).is_some_and(Value::is_string);
    assert!(
        described("/$defs/Tracking/properties/tensorboard/description") && described("/$defs/Mlflow/properties/uri/description"),
        "{schema}"
    );
}
