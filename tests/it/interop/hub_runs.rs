//! Runs with a model of the hub: the commit at the run's beginning is kept, whatever becomes of its
//! branch.

use std::fs;
use std::process::Output;

use burn::tensor::Device;
use optune::model::{AdapterConfig, Checkpoint, ModuleNames};
use serde_json::Value;

use crate::fixtures::http_server::{Server, well};
use crate::fixtures::hub::{FIRST, Repository, SECOND};
use crate::fixtures::workspace::{PIPELINE, Workspace};

/// A workspace with a model of the hub as `shape`.
fn workspace() -> Workspace {
    let workspace = Workspace::new();
    workspace.write("pipeline.yaml", &PIPELINE.replace("{ model: shape }", "{ model: hf://org/name }").replace("initialize: random, ", ""));
    workspace
}

/// Puts a model with random weights into the hub.
fn put(repository: &Repository, workspace: &Workspace, commit: &str, seed: u64) {
    let folder = tempfile::tempdir().unwrap();
    let blank = Checkpoint::open_blank(&workspace.path("shape")).unwrap();
    blank.save(folder.path(), &blank.init(&Device::flex(), seed)).unwrap();
    for entry in fs::read_dir(folder.path()).unwrap() {
        let entry = entry.unwrap();
        repository.put(commit, entry.file_name().to_str().unwrap(), &fs::read(entry.path()).unwrap());
    }
}

fn run(workspace: &Workspace, endpoint: &str, offline: &str, arguments: &[&str]) -> Output {
    let mut command = workspace.command(arguments);
    command.env("HF_ENDPOINT", endpoint).env("HF_HOME", workspace.path("hf")).env("HF_HUB_OFFLINE", offline).env("HF_TOKEN", "hf_secret");
    for other in ["HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE", "HF_TOKEN_PATH"] {
        command.env_remove(other);
    }
    command.output().unwrap()
}

fn succeed(output: Output) -> String {
    let error = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{error}");
    error
}

#[test]
fn a_run_keeps_the_commit_it_began_with() {
    let (repository, workspace) = (Repository { cut_after: 5_000, ..Repository::default() }, workspace());
    put(&repository, &workspace, FIRST, 1);
    repository.cuts.store(1, std::sync::atomic::Ordering::SeqCst);
    let server = Server::start(well, repository.serve());
    succeed(run(&workspace, &server.url, "0", &["run", "pipeline.yaml"]));
    let sources: Value = serde_json::from_str(&fs::read_to_string(workspace.path("runs/small/sources.json")).unwrap()).unwrap();
    let source = &sources["hf://org/name@main"];
    assert_eq!(source["commit"], FIRST);
    let weights = source["files"].as_array().unwrap().iter().find(|file| file["file"] == "model.safetensors").unwrap();
    let bytes = repository.files.lock().unwrap()[&(FIRST.to_string(), "model.safetensors".to_string())].clone();
    assert_eq!(
        (&weights["bytes"], &weights["blake3"]),
        (&Value::from(bytes.len()), &Value::from(blake3::hash(&bytes).to_hex().to_string()))
    );
    let result = workspace.result("small");
    assert!(!fs::read_to_string(workspace.path("runs/small/pipeline.yaml")).unwrap().contains("hf_secret"));

    // The branch moves. The run says so, and goes on with its first commit.
    put(&repository, &workspace, SECOND, 2);
    let said = succeed(run(&workspace, &server.url, "0", &["run", "pipeline.yaml"]));
    assert!(said.contains(&format!("is at commit {SECOND} now; this run goes on with {FIRST}")), "{said}");
    assert_eq!(workspace.result("small"), result);
    // Without a network too, by both ways to say so.
    succeed(run(&workspace, "http://127.0.0.1:1", "1", &["run", "pipeline.yaml"]));
    succeed(run(&workspace, "http://127.0.0.1:1", "0", &["plan", "pipeline.yaml"]));
    // Another run begins with the branch's present commit.
    succeed(run(&workspace, &server.url, "0", &["run", "pipeline.yaml", "--name", "later"]));
    assert!(fs::read_to_string(workspace.path("runs/later/sources.json")).unwrap().contains(SECOND));
    assert_ne!(workspace.result("later")["tables/base_training/part-00000.parquet"], result["tables/base_training/part-00000.parquet"]);

    // A file of the cache differs from the one at the run's beginning.
    let snapshot = workspace.path("hf/hub/models--org--name/snapshots").join(FIRST);
    let config = snapshot.join("config.json").canonicalize().unwrap();
    let text = fs::read_to_string(&config).unwrap();
    fs::write(&config, text.replace("0.08", "0.09")).unwrap();
    let output = run(&workspace, &server.url, "0", &["run", "pipeline.yaml"]);
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.code() == Some(2) && error.contains("expected the config.json that this run began with"), "{error}");
}

#[test]
fn the_same_model_from_a_folder_is_the_same() {
    let (repository, workspace) = (Repository::default(), workspace());
    put(&repository, &workspace, FIRST, 1);
    let server = Server::start(well, repository.serve());
    succeed(run(&workspace, &server.url, "0", &["run", "pipeline.yaml"]));
    fs::create_dir(workspace.path("base")).unwrap();
    for ((_, name), bytes) in repository.files.lock().unwrap().iter() {
        fs::write(workspace.path("base").join(name), bytes).unwrap();
    }
    workspace.edit("pipeline.yaml", "hf://org/name", "base");
    let plan = workspace.succeed(&["plan", "pipeline.yaml"]);
    assert!(plan.lines().all(|line| line.ends_with("done")), "{plan}");
}

#[test]
fn a_model_that_is_not_there_ends_the_run_before_it_begins() {
    let (repository, workspace) = (Repository::default(), workspace());
    let server = Server::start(well, repository.serve());
    let output = run(&workspace, &server.url, "0", &["run", "pipeline.yaml"]);
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.code() == Some(2) && error.contains("hf://org/name@main: expected a branch, tag or commit"), "{error}");
    let output = run(&workspace, &server.url, "1", &["run", "pipeline.yaml"]);
    assert_eq!(output.status.code(), Some(2));
    assert!(!workspace.path("runs/small").exists());
}

#[test]
fn the_base_of_an_adapter_comes_from_the_hub() {
    let (repository, workspace) = (Repository::default(), workspace());
    put(&repository, &workspace, FIRST, 1);
    let local = tempfile::tempdir().unwrap();
    let blank = Checkpoint::open_blank(&workspace.path("shape")).unwrap();
    blank.save(local.path(), &blank.init(&Device::flex(), 1)).unwrap();
    let base = Checkpoint::open(local.path()).unwrap();
    let targets = ModuleNames::Names(base.projections());
    let config = AdapterConfig { rank: 2, targets, use_dora: true, ..AdapterConfig::default() };
    let model = base.load_adapted(&Device::flex(), &config, 1).unwrap();
    base.save_adapter(&workspace.path("adapter"), &config, &model).unwrap();
    workspace.edit("adapter/adapter_config.json", "\"base_model_name_or_path\": null", "\"base_model_name_or_path\": \"org/name\"");
    workspace.edit("pipeline.yaml", "hf://org/name", "adapter");

    let server = Server::start(well, repository.serve());
    let failed = run(&workspace, &server.url, "1", &["plan", "pipeline.yaml"]);
    let error = String::from_utf8_lossy(&failed.stderr).into_owned();
    let said = "the adapter's base_model_name_or_path is \"org/name\", which is no directory here; on the hub: hf://org/name@main";
    assert!(failed.status.code() == Some(2) && error.contains(said), "{error}");

    succeed(run(&workspace, &server.url, "0", &["run", "pipeline.yaml"]));
    let sources: Value = serde_json::from_str(&fs::read_to_string(workspace.path("runs/small/sources.json")).unwrap()).unwrap();
    assert_eq!(sources["hf://org/name@main"]["commit"], FIRST);
    let result = workspace.result("small");
    succeed(run(&workspace, "http://127.0.0.1:1", "1", &["run", "pipeline.yaml"]));
    assert_eq!(workspace.result("small"), result);
    // Another base is another input.
    put(&repository, &workspace, SECOND, 2);
    succeed(run(&workspace, &server.url, "0", &["run", "pipeline.yaml", "--name", "later"]));
    assert_ne!(workspace.result("later")["tables/base_training/part-00000.parquet"], result["tables/base_training/part-00000.parquet"]);
    // The branch in the cache has left the commit of the first run.
    let failed = run(&workspace, &server.url, "0", &["run", "pipeline.yaml"]);
    let error = String::from_utf8_lossy(&failed.stderr).into_owned();
    assert!(failed.status.code() == Some(2) && error.contains("set `revision` in adapter_config.json to its commit"), "{error}");
}
