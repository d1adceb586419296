//! Policies loaded into servers: no row is of other weights, whatever the servers do in the middle.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use burn::tensor::Device;
use optune::model::Checkpoint;
use optune::operators::support::rng::Stream;
use optune::store::{OutputKey, Runs, read_parquet};
use optune::tables::responses;
use serde_json::json;

use super::check::{self, Way};
use super::weights::{Kind, OLD, State, Weighted, answer, weights_of};
use super::{asked, committed, seed_of, workspace};
use crate::fixtures::http_server::{Fate, Reply, Request, Server, misbehaving, well};
use crate::fixtures::workspace::{PIPELINE, Workspace};

/// A workspace with prompts and these servers, each updated to the model `base`.
fn updated(servers: &[&Server], prompts: usize, engine: &str) -> Workspace {
    let workspace = workspace(servers[0], 3, engine);
    let urls: Vec<String> = servers.iter().map(|server| format!("\"{}/v1\"", server.url)).collect();
    workspace.edit("remote.yaml", &urls[0], &format!("[{}]", urls.join(", ")));
    let row = |i: usize| format!("{{\"prompt_id\": \"p-{i:03}\", \"prompt\": \"upper {i}=\"}}\n");
    workspace.write("prompts.jsonl", &(0..prompts).map(row).collect::<String>());
    workspace
}

/// Checks that a row is an answer of these weights.
fn assert_of(row: &responses::Row, weights: &str, seed: u64) {
    let (prompt, response) = row.token_ids.split_at(row.prompt_token_count as usize);
    assert_eq!(response, answer(weights, prompt, seed), "{row:?}");
    assert_eq!(row.error, None);
}

/// Checks all rows of the pipeline with the input `base`.
fn assert_all_of_base(workspace: &Workspace, rows: usize) {
    let weights = weights_of(&workspace.path("base/model.safetensors"));
    let found = committed(workspace);
    assert_eq!(found.len(), rows);
    found.iter().for_each(|row| assert_of(row, &weights, seed_of(row)));
}

fn said(output: &std::process::Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// The answer to a request; of a completion after so many milliseconds.
fn after(weighted: &Weighted, request: &Request, milliseconds: u64) -> Reply {
    if request.path == "/v1/completions" {
        std::thread::sleep(Duration::from_millis(milliseconds));
    }
    weighted.answer(request)
}

const PATIENT: &str = "concurrency: 4, timeout_seconds: 1.5, serve_timeout_seconds: 1.5, retries: 12";

#[test]
fn of_four_servers_that_misbehave_and_restart_no_answer_of_other_weights_is_a_row() {
    for (kind, update) in [(Kind::Vllm, "vllm"), (Kind::Sglang, "sglang")] {
        // One loses its weights in the middle and answers with those of its start until found.
        let forgetful = Weighted::new(kind).with(|state| state.restarts_after = Some(15));
        let failing = Weighted::new(kind).with(|state| {
            state.failing_updates = 1;
            state.lost = vec!["/start_weight_update", "/finish_weight_update", "/update_weights_from_disk"];
        });
        let lying = Weighted::new(kind).with(|state| state.keeps_version = true);
        let (dying, joining) = (Weighted::new(kind), Weighted::new(kind));
        // Slow until the one with failing updates has joined.
        let slow = |weighted: &Weighted| {
            let (weighted, failing) = (weighted.clone(), failing.clone());
            move |request: &Request| {
                let wait = if failing.read(|state| state.answers.is_empty()) { 120 } else { 80 };
                after(&weighted, request, wait)
            }
        };
        let updated_late = failing.clone();
        let answers = Arc::new(AtomicUsize::new(0));
        let (count, begins) = (answers.clone(), answers.clone());
        let counted = slow(&forgetful);
        let servers = [
            Server::start(misbehaving(3, 20), move |request| {
                count.fetch_add(1, Ordering::SeqCst);
                counted(request)
            }),
            Server::start(misbehaving(4, 20), move |request| after(&updated_late, request, 80)),
            Server::start(|number| if number < 60 { Fate::Answer } else { Fate::Drop }, slow(&dying)),
            Server::start(move |_| if begins.load(Ordering::SeqCst) > 20 { Fate::Answer } else { Fate::Drop }, slow(&joining)),
            Server::start(well, lying.serve()),
        ];
        let workspace = updated(&servers.each_ref(), 200, &format!("{PATIENT}, update: {update}"));
        let output = workspace.optune(&["run", "remote.yaml"]);
        assert!(output.status.success(), "{}", said(&output));
        assert_all_of_base(&workspace, 600);
        let base = weights_of(&workspace.path("base/model.safetensors"));
        let of = |server: &Weighted, weights: &str| server.read(|state| state.answers.get(weights).copied().unwrap_or(0));
        for server in [&forgetful, &failing, &dying, &joining] {
            assert!(of(server, &base) > 0, "{kind:?}: a server was not used");
            assert_eq!(server.read(|state| state.violations.clone()), Vec::<String>::new(), "{kind:?}");
        }
        // The stale answers were there, and were refused.
        assert!(of(&forgetful, OLD) > 0, "{kind:?}: no stale answer");
        assert!(forgetful.read(|state| state.loaded.len()) >= 2, "{kind:?}: it was not updated again");
        assert!(failing.read(|state| state.loaded.len()) >= 2, "{kind:?}: it was not updated until it succeeded");
        assert!(said(&output).contains("left until it has the policy again"), "{}", said(&output));
        // One whose version does not change is never asked.
        assert_eq!(lying.read(|state| state.answers.values().sum::<usize>()), 0);
        assert!(said(&output).contains("expected the policy optune-"), "{}", said(&output));
        // How the policy gets there has no effect on what is made.
        let before: usize = servers.iter().map(|server| server.seen().len()).sum();
        workspace.edit("remote.yaml", &format!(", update: {update}"), "");
        workspace.succeed(&["run", "remote.yaml"]);
        assert_eq!(servers.iter().map(|server| server.seen().len()).sum::<usize>(), before);
    }
}

#[test]
fn killed_at_any_step_of_an_update_the_same_command_updates_again() {
    let steps = [
        "/pause",
        "/update_weight_version",
        "/init_weight_transfer_engine",
        "/start_weight_update",
        "/update_weights",
        "/finish_weight_update",
        "/resume",
        "/v1/completions",
    ];
    for lasting in [30, 0] {
        let weighted = Weighted::new(Kind::Vllm).with(|state| state.pause = Duration::from_millis(lasting));
        let serving = weighted.clone();
        let server = Server::start(well, move |request| after(&serving, request, 10));
        let workspace = updated(&[&server], 20, "concurrency: 4, retries: 4, update: vllm");
        for step in steps {
            let done: BTreeSet<u64> = committed(&workspace).iter().filter(|row| row.error.is_none()).map(seed_of).collect();
            let before = server.seen().len();
            let mut child = workspace.start(&["run", "remote.yaml"]);
            let has = || server.seen()[before..].iter().any(|request| request.path == step && is_of_the_node(request));
            // A server that has the policy already is not updated.
            while !has() && child.try_wait().unwrap().is_none() {
                std::thread::sleep(Duration::from_millis(1));
            }
            child.kill().unwrap();
            child.wait().unwrap();
            let again: Vec<u64> = asked(&server.seen()[before..]).into_keys().filter(|seed| done.contains(seed)).collect();
            assert!(again.is_empty(), "{step}: committed responses were asked for again: {again:?}");
        }
        workspace.succeed(&["run", "remote.yaml"]);
        assert_all_of_base(&workspace, 60);
        weighted.read(|state| {
            assert!(!state.is_paused);
            assert_eq!(state.violations, Vec::<String>::new());
            assert!(state.loaded.len() >= 2 || lasting == 0, "{:?}", state.loaded);
        });
    }
}

/// Whether a request is no look at how prompts can be sent.
fn is_of_the_node(request: &Request) -> bool {
    request.path != "/v1/completions" || request.json()["max_tokens"] != 1
}

/// The rows of the responses of an iteration.
fn of_iteration(workspace: &Workspace, iteration: u32) -> Vec<responses::Row> {
    let run = Runs::open(workspace.path("runs")).unwrap().run("small").unwrap();
    let place = OutputKey::table("responses", Some(iteration));
    let parts = run.manifest(&place).unwrap().unwrap().parts;
    parts.iter().flat_map(|part| responses::rows(&read_parquet(&run.path(&place).join(&part.file)).unwrap()).unwrap()).collect()
}

/// Checks the rows of an iteration against the weights in a file.
fn assert_iteration(workspace: &Workspace, iteration: u32, weights: &str) {
    let rows = of_iteration(workspace, iteration);
    // At first no prompt has a reward, and all are selected.
    assert_eq!(rows.len(), if iteration == 1 { 60 } else { 30 });
    for row in &rows {
        let seed = Stream { seed: 5, iteration }.number("generate", &row.prompt_id, row.response_index as u32) >> 33;
        assert_of(row, weights, seed);
    }
}

/// The pipeline of [`Workspace`], its responses by these servers.
fn whole_loop(servers: &[&Server], engine: &str) -> Workspace {
    let workspace = Workspace::new();
    let urls: Vec<String> = servers.iter().map(|server| format!("\"{}/v1/\"", server.url)).collect();
    let engine = format!("engine: {{ openai: [{}], model: tiny, check: never, {engine} }}", urls.join(", "));
    assert!(PIPELINE.contains("max_new_tokens: 8 }, resources: { rows_per_part: 4 }"));
    workspace.edit("pipeline.yaml", "max_new_tokens: 8 }, resources: { rows_per_part: 4 }", &format!("max_new_tokens: 8, {engine} }}"));
    workspace
}

/// A server that takes long enough for others to join beside it.
fn slowly(weighted: &Weighted) -> Server {
    let weighted = weighted.clone();
    Server::start(well, move |request| after(&weighted, request, 50))
}

#[test]
fn each_iteration_samples_from_its_own_policy() {
    for (kind, update) in [(Kind::Vllm, "vllm"), (Kind::Sglang, "sglang")] {
        let weighted = [Weighted::new(kind), Weighted::new(kind)];
        let servers = weighted.each_ref().map(slowly);
        let admins = servers.each_ref().map(|server| format!("\"{}\"", server.url)).join(", ");
        let workspace = whole_loop(&servers.each_ref(), &format!("concurrency: 2, update: {update}, admin: [{admins}]"));
        workspace.succeed(&["run", "pipeline.yaml"]);
        for (iteration, model) in [(1, "base"), (2, "policy/iteration=1")] {
            let file = workspace.path("runs/small/models").join(model).join("model.safetensors");
            assert_iteration(&workspace, iteration, &weights_of(&file));
        }
        for weighted in &weighted {
            weighted.read(|state| {
                let loaded: Vec<&str> = state.loaded.iter().map(|path| path.split_once("/models/").unwrap().1).collect();
                assert_eq!(loaded, ["base", "policy/iteration=1"]);
                assert_eq!(state.violations, Vec::<String>::new());
            });
        }
        // The journal says which policy each server had.
        let journal = std::fs::read_to_string(workspace.path("runs/small/journal.jsonl")).unwrap();
        let found: BTreeSet<&str> = journal.match_indices("optune-").map(|(at, _)| &journal[at..at + 39]).collect();
        assert_eq!(found.len(), 2, "{found:?}");
        assert!(found.contains(weighted[0].read(|state| state.version.clone()).as_str()));
    }
}

#[test]
fn adapters_are_loaded_under_the_policys_version_and_replaced() {
    let weighted = [Weighted::new(Kind::Vllm), Weighted::new(Kind::Vllm).with(|state| state.restarts_after = Some(20))];
    let servers = weighted.each_ref().map(slowly);
    let workspace = whole_loop(&servers.each_ref(), "concurrency: 2, retries: 8, update: lora");
    let blank = Checkpoint::open_blank(&workspace.path("shape")).unwrap();
    blank.save(&workspace.path("base"), &blank.init(&Device::flex(), 1)).unwrap();
    workspace.edit("pipeline.yaml", "batch_size: 4, epochs: 2 }", "batch_size: 4, epochs: 2, lora: { rank: 2 } }");
    // On a model of the pipeline's own no server has its weights.
    let error = workspace.fail(&["run", "pipeline.yaml"], 2);
    assert!(error.contains("`update: lora` loads adapters on a model of `inputs`"), "{error}");
    let text = std::fs::read_to_string(workspace.path("pipeline.yaml")).unwrap();
    let without = [text.find("nodes:\n  base").unwrap(), text.find("iterate:").unwrap()];
    workspace.write("pipeline.yaml", &format!("{}{}", &text[..without[0]], &text[without[1]..]));
    workspace.edit("pipeline.yaml", "  shape:    { model: shape }", "  base:    { model: base }");
    workspace.edit("pipeline.yaml", "iterations: 2", "iterations: 3");
    let output = workspace.optune(&["run", "pipeline.yaml"]);
    assert!(output.status.success(), "{}", said(&output));
    // The first policy is the servers' own model.
    assert_iteration(&workspace, 1, OLD);
    for iteration in [2, 3] {
        let folder = workspace.path(&format!("runs/small/models/policy/iteration={}", iteration - 1));
        assert_iteration(&workspace, iteration, &weights_of(&folder.join("adapter_model.safetensors")));
    }
    for weighted in &weighted {
        weighted.read(|state| {
            assert!(state.adapters.len() == 1 && state.adapters.keys().all(|name| name.starts_with("optune-")), "{:?}", state.adapters);
            assert!(state.loaded.len() >= 2);
        });
    }
}

#[test]
fn behind_a_router_all_servers_have_the_policy() {
    let weighted = [Weighted::new(Kind::Vllm), Weighted::new(Kind::Vllm).with(|state| state.restarts_after = Some(15))];
    let behind = weighted.each_ref().map(|weighted| Server::start(well, weighted.serve()));
    let (turn, servers) = (AtomicUsize::new(0), weighted.clone());
    let router = Server::start(well, move |request| {
        if request.path == "/v1/completions" {
            std::thread::sleep(Duration::from_millis(20));
        }
        servers[turn.fetch_add(1, Ordering::SeqCst) % 2].answer(request)
    });
    let admins = behind.each_ref().map(|server| format!("\"{}\"", server.url)).join(", ");
    let workspace = updated(&[&router], 20, &format!("{PATIENT}, update: vllm, admin: [{admins}]"));
    let output = workspace.optune(&["run", "remote.yaml"]);
    assert!(output.status.success(), "{}", said(&output));
    assert_all_of_base(&workspace, 60);
    assert_eq!(weighted.each_ref().map(|weighted| weighted.read(|state| state.loaded.len())), [1, 2]);
    assert!(weighted[1].read(|state| state.answers[OLD]) > 0);
    // Servers with the policy are not updated to it again.
    workspace.edit("remote.yaml", "max_new_tokens: 8", "max_new_tokens: 7");
    workspace.succeed(&["run", "remote.yaml"]);
    assert_eq!(weighted.each_ref().map(|weighted| weighted.read(|state| state.loaded.len())), [1, 2]);
    // Its own address is asked for responses only.
    assert!(router.seen().iter().all(|request| request.path.starts_with("/v1/")));
}

#[test]
fn a_server_that_says_it_has_the_policy_and_answers_with_another_is_found_by_the_comparison() {
    let trained = Workspace::finished();
    let policy = trained.path("runs/small/models/base");
    let other = trained.path("runs/small/models/policy/iteration=1");
    let serving = |served: &Path| {
        let (weighted, completions) = (Weighted::new(Kind::Vllm), check::serve(served, Way::Ids));
        Server::start(well, move |request| if request.path == "/v1/completions" { completions(request) } else { weighted.answer(request) })
    };
    let [honest, lying] = [policy.as_path(), &other].map(serving);
    let workspace = updated(&[&honest, &lying], 20, "concurrency: 2, retries: 2, update: vllm");
    workspace.edit("remote.yaml", "base: { model: base }", &format!("base: {{ model: \"{}\" }}", policy.display()));
    workspace.edit("remote.yaml", "check: never", "check: always");
    let output = workspace.optune(&["run", "remote.yaml"]);
    assert!(output.status.success() && said(&output).contains("nats"), "{}", said(&output));
    let sampled = |request: &Request| request.path == "/v1/completions" && request.json()["temperature"] != json!(0.0);
    assert_eq!(asked(&lying.seen().into_iter().filter(sampled).collect::<Vec<_>>()).len(), 0);
    assert!(committed(&workspace).len() == 60 && committed(&workspace).iter().all(|row| row.error.is_none()));
}

#[test]
fn a_program_of_the_users_loads_the_policy() {
    // It tells the version that the program left for it.
    let loaded = Arc::new(std::sync::Mutex::new(std::path::PathBuf::new()));
    let told = |folder: Arc<std::sync::Mutex<std::path::PathBuf>>, tells: bool| {
        let weighted = Weighted::new(Kind::Vllm);
        move |request: &Request| {
            let file = folder.lock().unwrap().join("loaded.txt");
            let version = std::fs::read_to_string(file).ok().and_then(|text| Some(text.lines().last()?.split(' ').nth(2)?.to_string()));
            match (request.path.as_str(), version) {
                ("/weight_info", Some(version)) if tells => Reply::json(json!({ "weight_version": version })),
                ("/weight_info", _) => Reply::of(404, b"{\"detail\":\"Not Found\"}".to_vec()),
                _ => after(&weighted, request, 50),
            }
        }
    };
    for tells in [true, false] {
        let servers = [(); 2].map(|()| Server::start(well, told(loaded.clone(), tells)));
        let script = "test -f $OPTUNE_MODEL/model.safetensors && \
                      echo $OPTUNE_URL $OPTUNE_MODEL $OPTUNE_VERSION $OPTUNE_NODE $OPTUNE_ITERATION >> loaded.txt";
        let workspace = whole_loop(&servers.each_ref(), "update: { command: [sh, load.sh] }, concurrency: 2");
        *loaded.lock().unwrap() = workspace.path("");
        workspace.write("load.sh", script);
        let output = workspace.optune(&["run", "pipeline.yaml"]);
        assert!(output.status.success(), "{}", said(&output));
        assert_eq!(said(&output).contains("does not tell the policy's version"), !tells, "{}", said(&output));
        let text = std::fs::read_to_string(workspace.path("loaded.txt")).unwrap();
        let mut by_server: BTreeMap<&str, Vec<Vec<&str>>> = BTreeMap::new();
        for line in text.lines() {
            let words: Vec<&str> = line.split(' ').collect();
            by_server.entry(words[0]).or_default().push(words[1..].to_vec());
        }
        assert_eq!(by_server.keys().copied().collect::<BTreeSet<_>>(), servers.iter().map(|server| server.url.as_str()).collect());
        for lines in by_server.values() {
            for (model, iteration) in [("models/base", "1"), ("models/policy/iteration=1", "2")] {
                let has = |words: &Vec<&str>| words[0].ends_with(model) && words[2..] == ["responses", iteration];
                assert!(lines.iter().any(has), "{text}");
            }
            let versions: BTreeSet<&str> = lines.iter().map(|words| words[1]).collect();
            assert!(versions.len() == 2 && versions.iter().all(|version| version.len() == 39), "{versions:?}");
        }
        assert_iteration(&workspace, 2, OLD);
    }
    let server = Server::start(well, told(loaded, true));
    for (script, problem) in
        [("echo out of luck >&2; exit 3", "ended with exit status: 3: out of luck"), ("sleep 60", "did not end within 0.5 seconds")]
    {
        let workspace = whole_loop(&[&server], "update: { command: [sh, load.sh] }, serve_timeout_seconds: 0.5");
        workspace.write("load.sh", script);
        let error = workspace.fail(&["run", "pipeline.yaml"], 1);
        assert!(error.contains(problem) && error.contains(&format!("update: the program sh for {}", server.url)), "{error}");
    }
    assert!(asked(&server.seen()).is_empty());
}

#[test]
fn what_a_server_lacks_is_said_and_nothing_is_asked() {
    let plain = |kind: Kind, change: fn(&mut State)| Weighted::new(kind).with(change);
    let without = |weighted: Weighted, path: &'static str, status: u16, body: &'static str| {
        Server::start(
            well,
            move |request: &Request| {
                if request.path == path { Reply::of(status, body.as_bytes().to_vec()) } else { weighted.answer(request) }
            },
        )
    };
    let none = |_: &mut State| {};
    let not_found = "{\"detail\":\"Not Found\"}";
    let not_configured = "{\"error\":{\"message\":\"Weight transfer not configured. Please set weight_transfer_config\"}}";
    for (server, update, problem) in [
        (without(plain(Kind::Vllm, none), "/weight_info", 404, not_found), "vllm", "serve vLLM with VLLM_SERVER_DEV_MODE=1"),
        (without(plain(Kind::Vllm, none), "/init_weight_transfer_engine", 500, not_configured), "vllm", "--weight-transfer-config"),
        (without(plain(Kind::Vllm, none), "/update_weights", 500, "disk is gone"), "vllm", "/update_weights: status 500: disk is gone"),
        (without(plain(Kind::Sglang, none), "/model_info", 404, not_found), "sglang", "weight_version"),
        (without(plain(Kind::Sglang, |state| state.failing_updates = 99), "/none", 404, not_found), "sglang", "status 400"),
        (without(plain(Kind::Vllm, |state| state.keeps_version = true), "/none", 404, not_found), "vllm", "found optune-unfinished"),
    ] {
        let workspace = updated(&[&server], 20, &format!("concurrency: 2, retries: 1, update: {update}"));
        let error = workspace.fail(&["run", "remote.yaml"], 1);
        assert!(error.contains(problem), "{error}");
        assert!(asked(&server.seen()).is_empty());
        // Weights that are whole are served again; after a failed update nothing is.
        let paths: Vec<String> = server.seen().iter().map(|request| request.path.clone()).collect();
        let is_begun = paths.iter().any(|path| path.starts_with("/update_weights"));
        let is_paused = paths.iter().any(|path| path == "/pause");
        assert_eq!(paths.last().is_some_and(|path| path == "/resume"), is_paused && !is_begun, "{paths:?}");
    }
}
