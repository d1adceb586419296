//! The comparison of a server with the policy, against a server that computes a model itself.

use std::ops::ControlFlow;
use std::path::Path;
use std::sync::Mutex;

use burn::tensor::Device;
use optune::compute::Precision;
use optune::generation::{Generator, Sampling};
use optune::model::Checkpoint;
use optune::token_lists::TokenLists;
use optune::training::{Responses, response_logprobs};
use serde_json::{Value, json};

use super::{MOST, committed, workspace};
use crate::fixtures::http_server::{Reply, Request, Server, well};
use crate::fixtures::workspace::Workspace;

/// How a server answers beside the model's greedy response.
#[derive(Clone, Copy, PartialEq)]
pub enum Way {
    /// With ids and logprobs.
    Ids,
    /// With text alone.
    Text,
    /// With ids, and logprobs of another temperature.
    WarmLogprobs,
    /// It goes on behind the end token.
    Endless,
    /// With ids that the policy does not have.
    Foreign,
}

/// A server of the model in `folder`, which answers with its likeliest tokens.
pub fn serve(folder: &Path, way: Way) -> impl Fn(&Request) -> Reply + Send + Sync + 'static {
    let checkpoint = Checkpoint::open(folder).unwrap();
    let model = Mutex::new(checkpoint.load(&Device::flex()).unwrap());
    let generator = Generator::load(&checkpoint, &Device::flex(), Precision::F32).unwrap();
    move |request| {
        if request.path == "/v1/models" {
            return Reply::json(json!({"data": [{"id": "tiny", "owned_by": "vllm"}]}));
        }
        let body = request.json();
        let is_text = way == Way::Text;
        let prompt: Vec<i32> = match &body["prompt"] {
            Value::Array(ids) if !is_text => ids.iter().map(|id| id.as_i64().unwrap() as i32).collect(),
            Value::String(text) if is_text => checkpoint.tokenizer.encode(text, optune::model::SpecialTokens::Opening).unwrap(),
            _ => return Reply::of(422, b"{\"detail\": \"prompt: wrong type\"}".to_vec()),
        };
        let eos = if way == Way::Endless { Vec::new() } else { checkpoint.generation.eos_token_ids.clone() };
        let most = body["max_tokens"].as_u64().unwrap() as usize;
        let sampling = Sampling { eos: eos.clone(), ..Sampling::greedy(&checkpoint, most) };
        let prompts = TokenLists::from_rows(&[prompt.as_slice()]).unwrap();
        let made = generator.generate(&prompts, &[vec![[0; 32]]], &sampling, 1, &mut |_| ControlFlow::Continue(())).unwrap();
        let ids = made.sequences.row(0).unwrap()[prompt.len()..].to_vec();
        let finish = if ids.last().is_some_and(|last| eos.contains(last)) { "stop" } else { "length" };
        let usage = json!({"prompt_tokens": prompt.len(), "completion_tokens": ids.len()});
        let mut choice = json!({"index": 0, "text": checkpoint.tokenizer.decode(&ids).unwrap(), "finish_reason": finish});
        if !is_text {
            let rows: Vec<Vec<i32>> = (1..=ids.len()).map(|end| [&prompt, &ids[..end]].concat()).collect();
            let lists = TokenLists::from_rows(&rows.iter().map(Vec::as_slice).collect::<Vec<_>>()).unwrap();
            let responses = Responses::new(lists, vec![prompt.len(); rows.len()]).unwrap();
            let all: Vec<usize> = (0..rows.len()).collect();
            let sums = response_logprobs(&model.lock().unwrap(), &responses, &all, rows.len()).unwrap();
            let factor = if way == Way::WarmLogprobs { 3.0 } else { 1.0 };
            let each: Vec<f64> = (0..sums.len()).map(|at| factor * (sums[at] - if at == 0 { 0.0 } else { sums[at - 1] })).collect();
            choice["token_ids"] = if way == Way::Foreign { json!(vec![1_000_000; ids.len()]) } else { json!(ids) };
            choice["logprobs"] = json!({"token_logprobs": each, "tokens": []});
        }
        Reply::json(json!({"choices": [choice], "usage": usage}))
    }
}

/// A workspace whose server is compared with the trained model of another workspace.
fn checked(server: &Server, policy: &Path, check: &str) -> Workspace {
    let workspace = workspace(server, 2, "concurrency: 2, retries: 0");
    workspace.edit("remote.yaml", "base: { model: base }", &format!("base: {{ model: \"{}\" }}", policy.display()));
    workspace.edit("remote.yaml", "check: never", &format!("check: {check}"));
    workspace
}

#[test]
fn a_server_is_compared_with_the_policy_before_it_is_asked() {
    let trained = Workspace::finished();
    let policy = trained.path("runs/small/models/base");
    let journal = |workspace: &Workspace| std::fs::read_to_string(workspace.path("runs/remote/journal.jsonl")).unwrap();

    for way in [Way::Ids, Way::Text] {
        let server = Server::start(well, serve(&policy, way));
        let workspace = checked(&server, &policy, "always");
        workspace.succeed(&["run", "remote.yaml"]);
        assert!(journal(&workspace).contains("the policy's distribution in 2 greedy responses"), "{}", journal(&workspace));
        let rows = committed(&workspace);
        assert!(rows.len() == 40 && rows.iter().all(|row| row.error.is_none()));
    }

    // The policy of the iteration after, and the model before its training.
    let blank = Checkpoint::open_blank(&trained.path("shape")).unwrap();
    let other = trained.path("other");
    blank.save(&other, &blank.init(&Device::flex(), 7)).unwrap();
    for (way, served, said) in [
        (Way::Ids, trained.path("runs/small/models/policy/iteration=1"), "nats"),
        (Way::Ids, other.clone(), "nats"),
        (Way::Text, other, "nats"),
        (Way::WarmLogprobs, policy.clone(), "expected the logprobs of the policy"),
        (Way::Endless, policy.clone(), "expected"),
        (Way::Foreign, policy.clone(), "found 1000000; the server serves another model"),
    ] {
        let server = Server::start(well, serve(&served, way));
        let workspace = checked(&server, &policy, "auto");
        let error = workspace.fail(&["run", "remote.yaml"], 1);
        assert!(error.contains(said) && error.contains("`check: never` in engine asks it all the same"), "{error}");
        assert!(committed(&workspace).is_empty());
        // One look and the compared responses; no response of the node was asked for.
        let asked =
            server.seen().iter().filter(|request| request.path == "/v1/completions" && request.json()["temperature"] != json!(0.0)).count();
        assert!(asked <= 2, "{asked}");
    }
}

#[test]
fn a_comparison_that_is_not_possible_is_said() {
    let trained = Workspace::finished();
    let policy = trained.path("runs/small/models/base");
    let server = Server::start(well, serve(&policy, Way::Ids));
    let workspace = checked(&server, &policy, "auto");
    workspace.edit("remote.yaml", "concurrency: 2, retries: 0 } } }", "concurrency: 2, retries: 0 } }, resources: { memory_gb: 0.01 } }");
    let output = workspace.optune(&["run", "remote.yaml"]);
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && said.contains("not compared with the policy: needs at least"), "{said}");
    assert_eq!(committed(&workspace).iter().filter(|row| row.error.is_none()).count(), 40);
    workspace.edit("remote.yaml", "check: auto", "check: always");
    workspace.edit("remote.yaml", "seed: 5", "seed: 6");
    let error = workspace.fail(&["run", "remote.yaml"], 2);
    assert!(error.contains("expected to compare it with the policy, found that it is not possible: needs at least"), "{error}");
    assert_eq!(MOST, 8, "the rows end where the server's do");
}
