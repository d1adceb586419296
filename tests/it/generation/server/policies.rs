//! Policies that change: each is loaded into the server before its iteration. Does not know how
//! the server samples.

use std::path::Path;

use optune::remote::command;

use super::{Style, asked, serve};
use crate::fixtures::http_server::{Server, well};
use crate::fixtures::workspace::{PIPELINE, Workspace};

/// The pipeline of [`Workspace`], its responses by a server.
fn whole_loop(server: &Server, serve: &str) -> Workspace {
    let workspace = Workspace::new();
    let engine =
        format!("engine: {{ openai: \"{}/v1\", model: tiny, check: never, serve_timeout_seconds: 20, serve: '{serve}' }}", server.url);
    assert!(PIPELINE.contains("max_new_tokens: 8 }, resources: { rows_per_part: 4 }"));
    workspace.edit("pipeline.yaml", "max_new_tokens: 8 }, resources: { rows_per_part: 4 }", &format!("max_new_tokens: 8, {engine} }}"));
    workspace
}

#[test]
fn a_policy_that_changes_is_loaded_before_each_iteration() {
    let server = Server::start(well, serve(Style::Vllm));
    let workspace = whole_loop(&server, "test -f {model}/model.safetensors && echo \"$OPTUNE_MODEL\" >> loaded.txt");
    workspace.succeed(&["run", "pipeline.yaml"]);
    let loaded = std::fs::read_to_string(workspace.path("loaded.txt")).unwrap();
    let loaded: Vec<&str> = loaded.lines().collect();
    assert_eq!(loaded.len(), 2);
    assert!(Path::new(loaded[0]).is_absolute() && loaded[0].ends_with("models/base"), "{loaded:?}");
    assert!(loaded[1].ends_with("models/policy/iteration=1"), "{loaded:?}");
    let prints = workspace.query("small", "SELECT count(DISTINCT policy_fingerprint) FROM responses");
    assert_eq!(prints, "2");
}

#[test]
fn of_an_adapter_the_server_gets_the_merged_model() {
    let server = Server::start(well, serve(Style::Vllm));
    let workspace = whole_loop(&server, "test -f {model}/model.safetensors && cp -r {model} served.$(ls | wc -l)");
    workspace.edit("pipeline.yaml", "batch_size: 4, epochs: 2 }", "batch_size: 4, epochs: 2, lora: { rank: 2 } }");
    workspace.succeed(&["run", "pipeline.yaml"]);
    workspace.succeed(&["export", "policy", "small", "exported", "--iteration", "1"]);
    let weights = |folder: &str| std::fs::read(workspace.path(folder).join("model.safetensors")).unwrap();
    let served: Vec<String> = std::fs::read_dir(workspace.path(""))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| name.starts_with("served."))
        .collect();
    assert_eq!(served.len(), 2);
    assert!(served.iter().any(|folder| weights(folder) == weights("exported")));
}

#[test]
fn a_policy_that_changes_needs_a_command_that_loads_it() {
    let server = Server::start(well, serve(Style::Vllm));
    let workspace = whole_loop(&server, "true");
    workspace.edit("pipeline.yaml", ", serve_timeout_seconds: 20, serve: 'true'", "");
    let error = workspace.fail(&["run", "pipeline.yaml"], 2);
    assert!(error.contains("the policy \"policy[t-1]\" is made by this pipeline") && error.contains("pipeline.yaml:17:"), "{error}");
    assert!(server.seen().is_empty());

    let workspace = whole_loop(&server, "echo out of luck >&2; exit 3");
    let error = workspace.fail(&["run", "pipeline.yaml"], 1);
    assert!(error.contains("ended with exit status: 3: out of luck"), "{error}");
    assert!(asked(&server.seen()).is_empty());

    // A command that loads another model, and one without an end.
    let workspace = whole_loop(&server, "true");
    workspace.edit("pipeline.yaml", "model: tiny, check: never, serve_timeout_seconds: 20", "model: huge, serve_timeout_seconds: 0.8");
    let error = workspace.fail(&["run", "pipeline.yaml"], 1);
    assert!(error.contains("did not serve the model within 0.8 seconds") && error.contains("found other, tiny"), "{error}");
    let workspace = whole_loop(&server, "sleep 60");
    workspace.edit("pipeline.yaml", "serve_timeout_seconds: 20", "serve_timeout_seconds: 0.3");
    assert!(workspace.fail(&["run", "pipeline.yaml"], 1).contains("did not end within 0.3 seconds"));
}

#[test]
fn a_models_path_is_quoted_for_the_shell() {
    assert_eq!(command("load {model} --again {model}", Path::new("/a b/it's")), "load '/a b/it'\\''s' --again '/a b/it'\\''s'");
}
