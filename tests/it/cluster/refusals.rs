//! Executors refuse models with other files, tasks of other versions and other devices, in words for
//! the user of the run.

use std::path::Path;
use std::sync::Arc;
use std::thread::sleep;
use std::time::{Duration, Instant};

use arrow::array::{Int32Array, ListArray, RecordBatch};
use arrow::datatypes::Int32Type;
use arrow::ipc::writer::StreamWriter;
use optune::cluster::Client;
use serde_json::{Value, json};

use super::processes::Cluster;
use crate::fixtures::workspace::Workspace;

/// A task as `operators/support/part_task.rs` packs it: the rewards of one conversation by the model
/// in `folder` with this hash.
fn task(version: &str, folder: &Path, hash: &str) -> Vec<u8> {
    let header = json!({
        "format": 1,
        "version": version,
        "name": "a part",
        "on_cpu": true,
        "precision": "f32",
        "memory_gb": null,
        "models": [{ "folders": { "folder": folder, "adapter": null }, "hash": hash }],
        "works": [{ "model": 0, "job": { "Rewards": { "batch_size": 1 } } }],
    });
    let ids = ListArray::from_iter_primitive::<Int32Type, _, _>([Some([Some(1), Some(2)])]);
    assert_eq!(ids.value(0).as_ref(), &Int32Array::from(vec![1, 2]) as &dyn arrow::array::Array);
    let batch = RecordBatch::try_from_iter([("token_ids", Arc::new(ids) as _)]).unwrap();
    let mut writer = StreamWriter::try_new(Vec::new(), &batch.schema()).unwrap();
    writer.write(&batch).unwrap();
    let mut blocks = Vec::new();
    for block in [serde_json::to_vec(&header).unwrap(), writer.into_inner().unwrap()] {
        blocks.extend((block.len() as u64).to_le_bytes());
        blocks.extend(block);
    }
    let mut bytes = blake3::hash(&blocks).as_bytes().to_vec();
    bytes.extend(blocks);
    bytes
}

/// The failure in an executor's answer to a task.
fn failure(client: &Client, task: &[u8]) -> String {
    let begin = Instant::now();
    let given_up = || begin.elapsed() > Duration::from_secs(120);
    let answer = client.ask(task, &given_up, &|problem| eprintln!("{problem}")).unwrap();
    let rest = &answer[32..];
    let length = u64::from_le_bytes(rest[..8].try_into().unwrap()) as usize;
    let header: Value = serde_json::from_slice(&rest[8..8 + length]).unwrap();
    assert!(header["failure"]["is_input"].as_bool().unwrap(), "{header}");
    header["failure"]["message"].as_str().unwrap().to_string()
}

#[test]
fn other_models_and_other_versions_are_refused() {
    let workspace = Workspace::new();
    let cluster = Cluster::start(&workspace, 1);
    let client = Client::new(&cluster.address).unwrap();
    let own = env!("CARGO_PKG_VERSION");

    let error = failure(&client, &task("0.0.0", &workspace.path("shape"), "0"));
    assert_eq!(error, format!("expected a task of optune {own}, found one of 0.0.0; run the same version everywhere"));

    let stale = "5".repeat(64);
    let error = failure(&client, &task(own, &workspace.path("shape"), &stale));
    assert!(error.contains("expected the coordinator's files (555555555555), found others ("), "{error}");
    assert!(error.ends_with("the two see different folders, or the model was changed"), "{error}");

    let error = failure(&client, &task(own, &workspace.path("nowhere"), &stale));
    assert!(error.contains("expected the folder of a model on a file system shared with the coordinator, found none"), "{error}");

    // A refusal costs nothing but itself: the executor is there for the next task.
    sleep(Duration::from_millis(100));
    assert!(client.state().ends_with("has executors"), "{}", client.state());
    let lines = cluster.executors[0].lines();
    assert_eq!(lines.iter().filter(|line| line.starts_with("failed after")).count(), 3, "{lines:#?}");
}

#[test]
fn a_part_for_a_gpu_is_refused_by_an_executor_on_the_cpu() {
    let workspace = Workspace::new();
    workspace.edit("pipeline.yaml", "resources: { rows_per_part: 4 }", "resources: { rows_per_part: 4, device: cuda }");
    let cluster = Cluster::start(&workspace, 1);
    let mut run = cluster.run();
    let status = run.end_within(Duration::from_secs(300));
    assert!(!status.success(), "{:#?}", run.lines());
    run.say_within("expected an executor with a GPU, found one started with --device cpu", Duration::from_secs(5));
    run.say_within("executor ", Duration::from_secs(5));
    // What went before is kept, and the run goes on with another device.
    workspace.edit("pipeline.yaml", "device: cuda", "device: cpu");
    cluster.run().succeed();
}
