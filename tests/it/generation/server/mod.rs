//! Responses by a server: every row right or an error row whatever the server does, and none asked
//! for twice but those in flight at a kill.

mod check;
mod fleets;
mod kinds;
mod policies;
mod real;
mod updates;
mod weights;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use burn::tensor::Device;
use optune::model::Checkpoint;
use optune::operators::support::rng::Stream;
use optune::store::{OutputKey, Runs, read_parquet};
use optune::tables::{FinishReason, responses};
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};
use serde_json::{Value, json};

use crate::fixtures::http_server::{Fate, Reply, Request, Server, misbehaving, well};
use crate::fixtures::workspace::Workspace;

/// The most new tokens; one more than any answer's tokens in text.
const MOST: usize = 8;
const EOS: i32 = 2;

/// How a server answers.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Style {
    /// Ids in, ids out, the end token among them.
    Vllm,
    /// Ids in; ids spelled among the logprobs.
    OldVllm,
    /// Ids in; described logprobs with ids, without the end token.
    LlamaCpp,
    /// Text in, text out.
    Text,
    /// The same, with a beginning-of-sequence token whatever it is told.
    TextWithAnotherBos,
}

/// The model's answer to a prompt and a seed: its ids, with the end token at the end unless it was
/// cut.
pub fn answer(prompt: &[i32], seed: u64) -> Vec<i32> {
    let hash = blake3::hash(format!("{prompt:?} {seed}").as_bytes());
    let length = 1 + usize::from(hash.as_bytes()[0]) % MOST;
    let mut ids: Vec<i32> = hash.as_bytes()[1..=length].iter().map(|byte| 36 + i32::from(byte % 60)).collect();
    if length < MOST {
        ids.push(EOS);
    }
    ids
}

/// The tokenizer of `datasets/tasks/model` has a token a character.
fn ids_of(text: &str) -> Vec<i32> {
    text.bytes().map(|byte| i32::from(byte) - 28).collect()
}

pub fn text_of(ids: &[i32]) -> String {
    ids.iter().filter(|id| **id > 3).map(|id| char::from((id + 28) as u8)).collect()
}

pub fn serve(style: Style) -> impl Fn(&Request) -> Reply + Send + Sync + 'static {
    move |request| {
        if request.path == "/v1/models" {
            return Reply::json(json!({"object": "list", "data": [
                {"id": "other"}, {"id": "tiny", "owned_by": "vllm", "created": 1, "root": "/m", "max_model_len": 64, "permission": []},
            ]}));
        }
        let body = request.json();
        let is_text = matches!(style, Style::Text | Style::TextWithAnotherBos);
        let prompt: Vec<i32> = match &body["prompt"] {
            Value::Array(ids) if !is_text => ids.iter().map(|id| id.as_i64().unwrap() as i32).collect(),
            Value::String(text) if is_text => [vec![1], ids_of(text)].concat(),
            _ => return Reply::of(422, b"{\"error\": \"prompt: wrong type\"}".to_vec()),
        };
        let most = body["max_tokens"].as_u64().unwrap() as usize;
        let mut ids = answer(&prompt, body["seed"].as_u64().unwrap());
        ids.truncate(most);
        let mut finish = if ids.last() == Some(&EOS) { "stop" } else { "length" };
        // Only this one knows stop strings; they are single letters here.
        let strings: Vec<String> = serde_json::from_value(body["stop"].clone()).unwrap_or_default();
        let stopped = ids.iter().position(|id| strings.contains(&text_of(&[*id]))).filter(|_| style == Style::Vllm);
        if let Some(at) = stopped {
            ids.truncate(at + 1);
            finish = "stop";
        }
        let spoken: Vec<i32> = ids.iter().copied().filter(|id| *id != EOS).collect();
        let count = prompt.len() + usize::from(style == Style::TextWithAnotherBos);
        let mut choice = json!({"index": 0, "text": text_of(&ids), "finish_reason": finish});
        if let Some(at) = stopped {
            choice["text"] = json!(text_of(&ids[..at]));
            choice["stop_reason"] = json!(text_of(&ids[at..]));
        }
        match style {
            Style::Vllm => {
                choice["prompt_token_ids"] = json!(prompt);
                choice["token_ids"] = json!(ids);
                choice["logprobs"] = json!({"token_logprobs": vec![-0.5; ids.len()], "tokens": []});
            }
            Style::OldVllm => {
                let tokens: Vec<String> = ids.iter().map(|id| format!("token_id:{id}")).collect();
                choice["logprobs"] = json!({"token_logprobs": vec![-0.5; ids.len()], "tokens": tokens});
            }
            Style::LlamaCpp => {
                let tokens: Vec<Value> = spoken.iter().map(|id| json!({"id": id, "token": "?", "logprob": -0.5})).collect();
                choice["logprobs"] = json!({"content": tokens});
            }
            Style::Text | Style::TextWithAnotherBos => {}
        }
        Reply::json(json!({"choices": [choice], "usage": {"prompt_tokens": count}}))
    }
}

/// A workspace with a model with weights, and a pipeline with a server. `engine` holds further
/// settings beside address and name.
fn workspace(server: &Server, responses_per_prompt: usize, engine: &str) -> Workspace {
    let workspace = Workspace::new();
    let blank = Checkpoint::open_blank(&workspace.path("shape")).unwrap();
    blank.save(&workspace.path("base"), &blank.init(&Device::flex(), 1)).unwrap();
    workspace.write(
        "remote.yaml",
        &format!(
            "optune: 1\nname: remote\nseed: 5\ninputs:\n  prompts: {{ table: prompts.jsonl }}\n  base: {{ model: base }}\nnodes:\n  \
             responses: {{ generate: {{ policy: base, prompts: prompts, responses_per_prompt: {responses_per_prompt}, max_new_tokens: {MOST}, \
             engine: {{ openai: \"{}/v1\", model: tiny, check: never, {engine} }} }} }}\n",
            server.url
        ),
    );
    workspace
}

/// The rows of the committed parts.
fn committed(workspace: &Workspace) -> Vec<responses::Row> {
    let run = Runs::open(workspace.path("runs")).unwrap().run("remote").unwrap();
    let place = OutputKey::table("responses", None);
    let Some(manifest) = run.manifest(&place).unwrap() else { return Vec::new() };
    let parts = manifest.parts.iter().map(|part| read_parquet(&run.path(&place).join(&part.file)).unwrap());
    parts.flat_map(|batch| responses::rows(&batch).unwrap()).collect()
}

/// The seed in a row's request.
fn seed_of(row: &responses::Row) -> u64 {
    Stream { seed: 5, iteration: 0 }.number("generate", &row.prompt_id, row.response_index as u32) >> 33
}

/// Checks a row against the model's answer. The prompts are those of [`Workspace`].
fn assert_right(row: &responses::Row) {
    let prompt = &row.token_ids[..row.prompt_token_count as usize];
    assert!(prompt[0] == 1 && text_of(prompt).starts_with("upper "), "{row:?}");
    let ids = answer(prompt, seed_of(row));
    assert_eq!(row.token_ids[prompt.len()..], ids, "{row:?}");
    assert_eq!(row.text, text_of(&ids));
    assert_eq!(row.finish_reason, if ids.last() == Some(&EOS) { FinishReason::Stop } else { FinishReason::Length });
    assert_eq!(row.error, None);
}

/// The seeds of the requested completions, with their counts. Probes for one token are left out.
fn asked(requests: &[Request]) -> BTreeMap<u64, usize> {
    let mut asked = BTreeMap::new();
    for request in requests.iter().filter(|request| request.path == "/v1/completions") {
        let body = request.json();
        if body["max_tokens"] != 1 {
            *asked.entry(body["seed"].as_u64().unwrap()).or_default() += 1;
        }
    }
    asked
}

#[test]
fn a_server_that_misbehaves_gives_every_row_right() {
    let server = Server::start(misbehaving(23, 20), serve(Style::Vllm));
    let workspace = workspace(&server, 3, "concurrency: 8, timeout_seconds: 1.5, retries: 8");
    let output = workspace.optune(&["run", "remote.yaml"]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let rows = committed(&workspace);
    assert_eq!(rows.len(), 60);
    rows.iter().for_each(assert_right);
    let fates: BTreeSet<Fate> = server.seen().iter().map(|request| request.fate).collect();
    assert!(fates.len() == 6, "not every mishap came: {fates:?}");
    assert!(server.most_in_flight() <= 8 + server.seen().iter().filter(|request| request.fate == Fate::Hang).count());
    // Every response has a seed of its own, and an answered one is not requested again.
    let answered: Vec<Request> = server.seen().into_iter().filter(|request| request.fate == Fate::Answer).collect();
    assert_eq!(asked(&answered).len(), 60);
    assert!(asked(&answered).values().all(|count| *count == 1), "{:?}", asked(&answered));
    assert_eq!(rows.iter().map(seed_of).collect::<BTreeSet<_>>(), asked(&answered).into_keys().collect());
    // The server's own description is stored.
    let found = std::fs::read_to_string(workspace.path("runs/remote/journal.jsonl")).unwrap();
    assert!(found.contains("server_found") && found.contains("max_model_len"), "{found}");

    let before = server.seen().len();
    workspace.succeed(&["run", "remote.yaml"]);
    assert_eq!(server.seen().len(), before, "a finished node asks nothing");
    // The address of the server and the way of asking are no part of its description.
    workspace.edit("remote.yaml", "concurrency: 8, timeout_seconds: 1.5", "concurrency: 2, failures: keep");
    workspace.succeed(&["run", "remote.yaml"]);
    assert_eq!(server.seen().len(), before);
    workspace.edit("remote.yaml", "model: tiny", "model: other");
    assert!(workspace.succeed(&["plan", "remote.yaml"]).contains("engine was {\"model\":\"tiny\"}, is {\"model\":\"other\"}"));
}

#[test]
fn without_retries_every_row_is_right_or_an_error_row() {
    let fate = misbehaving(31, 20);
    // The list of models and the first question, whether ids are taken, are answered.
    let server = Server::start(move |number| if number < 2 { Fate::Answer } else { fate(number) }, serve(Style::Vllm));
    let workspace = workspace(&server, 3, "concurrency: 8, timeout_seconds: 1.5, retries: 0, failures: keep");
    workspace.succeed(&["run", "remote.yaml"]);
    let rows = committed(&workspace);
    let (failed, right): (Vec<_>, Vec<_>) = rows.iter().partition(|row| row.finish_reason == FinishReason::Error);
    right.iter().for_each(|row| assert_right(row));
    assert!(right.len() + failed.len() == 60 && failed.len() >= 4, "{} failed", failed.len());
    let said: BTreeSet<&str> = ["the connection failed", "status 429", "status 500", "no answer within", "expected JSON"]
        .into_iter()
        .filter(|said| failed.iter().any(|row| row.error.as_ref().is_some_and(|error| error.contains(said))))
        .collect();
    assert!(said.len() >= 3, "{said:?}");
    assert!(failed.iter().all(|row| row.token_ids.is_empty() && row.logprob.is_none() && row.error.is_some()));
}

#[test]
fn killed_and_run_again_only_what_was_in_flight_is_asked_twice() {
    let seed = std::env::var("OPTUNE_SEED").ok().and_then(|text| text.parse().ok()).unwrap_or(11);
    eprintln!("seed {seed}");
    let mut random = ChaCha8Rng::seed_from_u64(seed);
    let serving = serve(Style::Vllm);
    let server = Server::start(misbehaving(seed, 20), move |request| {
        std::thread::sleep(Duration::from_millis(20));
        serving(request)
    });
    let workspace = workspace(&server, 1, "concurrency: 4, timeout_seconds: 1.5, retries: 8");
    let row = |i: usize| format!("{{\"prompt_id\": \"p-{i:03}\", \"prompt\": \"upper {i}=\"}}\n");
    workspace.write("prompts.jsonl", &(0..120).map(row).collect::<String>());
    let (mut kills, mut again) = (0, 0);
    loop {
        let before = server.seen().len();
        let done: BTreeSet<u64> = committed(&workspace).iter().map(seed_of).collect();
        let null = std::process::Stdio::null;
        let mut child = workspace.command(&["run", "remote.yaml"]).stderr(null()).stdout(null()).spawn().unwrap();
        // From the first completion on: every kill comes in the middle.
        let begun = |request: &Request| request.path == "/v1/completions";
        while !server.seen()[before..].iter().any(begun) && child.try_wait().unwrap().is_none() {
            std::thread::sleep(Duration::from_millis(1));
        }
        std::thread::sleep(Duration::from_millis(random.next_u64() % 400));
        child.kill().unwrap();
        let ended = child.wait().unwrap().success();
        let seen = server.seen();
        let repeated: Vec<u64> = asked(&seen[before..]).into_keys().filter(|seed| done.contains(seed)).collect();
        assert!(repeated.is_empty(), "kill {kills}, seed {seed}: committed responses were asked for again: {repeated:?}");
        if ended {
            break;
        }
        kills += 1;
        let answered: Vec<Request> = seen[before..].iter().filter(|request| request.fate == Fate::Answer).cloned().collect();
        let now: BTreeSet<u64> = committed(&workspace).iter().map(seed_of).collect();
        // Requested and not there: one a thread, and the one in its commit.
        let lost = asked(&answered).into_keys().filter(|seed| !now.contains(seed)).count();
        assert!(lost <= 5, "kill {kills}, seed {seed}: {lost} answers were lost");
        again += lost;
    }
    workspace.succeed(&["run", "remote.yaml"]);
    let rows = committed(&workspace);
    assert_eq!(rows.len(), 120);
    rows.iter().for_each(assert_right);
    let answered: Vec<Request> = server.seen().into_iter().filter(|request| request.fate == Fate::Answer).collect();
    let twice: usize = asked(&answered).values().map(|count| count - 1).sum();
    eprintln!("{kills} kills, {twice} answers were asked for twice");
    assert!(kills >= 2 && twice <= again, "{kills} kills, {twice} asked for twice, {again} lost");
}

#[test]
fn what_failed_for_good_is_an_error_row_and_only_that_is_asked_again() {
    let broken = Arc::new(AtomicBool::new(true));
    let (is_broken, serving) = (broken.clone(), serve(Style::Vllm));
    let server = Server::start(well, move |request| {
        let fails =
            is_broken.load(Ordering::SeqCst) && request.path == "/v1/completions" && request.json()["seed"].as_u64().unwrap() % 5 == 0;
        if fails && request.json()["max_tokens"] != 1 { Reply::of(500, b"no memory".to_vec()) } else { serving(request) }
    });
    let workspace = workspace(&server, 3, "concurrency: 4, retries: 0");
    let prompts = std::fs::read_to_string(workspace.path("prompts.jsonl")).unwrap();
    let long = format!("{{\"prompt_id\": \"p-999\", \"prompt\": \"{}\"}}\n", "x".repeat(100));
    workspace.write("prompts.jsonl", &(prompts + &long));
    let error = workspace.fail(&["run", "remote.yaml"], 1);
    let rows = committed(&workspace);
    let failed: BTreeSet<u64> =
        rows.iter().filter(|row| row.error.as_ref().is_some_and(|error| error.contains("no memory"))).map(seed_of).collect();
    assert!(!failed.is_empty() && failed.iter().all(|seed| seed % 5 == 0), "{failed:?}");
    assert!(
        error.contains(&format!(
            "{} of 63 responses failed, the first: {}/v1/completions: status 500: no memory",
            failed.len(),
            server.url
        )),
        "{error}"
    );
    assert!(error.contains("the same command asks only for these again"), "{error}");
    rows.iter().filter(|row| row.error.is_none()).for_each(assert_right);
    let long: Vec<_> = rows.iter().filter(|row| row.prompt_id == "p-999").collect();
    assert!(
        long.len() == 3 && long.iter().all(|row| row.error.as_ref().is_some_and(|error| error.contains("at most 63 tokens, found 101")))
    );

    // Still broken: the same rows and no others.
    let before = server.seen().len();
    workspace.fail(&["run", "remote.yaml"], 1);
    assert_eq!(asked(&server.seen()[before..]).into_keys().collect::<BTreeSet<_>>(), failed);
    broken.store(false, Ordering::SeqCst);
    let before = server.seen().len();
    workspace.succeed(&["run", "remote.yaml"]);
    assert_eq!(asked(&server.seen()[before..]).into_keys().collect::<BTreeSet<_>>(), failed);
    let rows = committed(&workspace);
    rows.iter().filter(|row| row.prompt_id != "p-999").for_each(assert_right);
    assert_eq!(workspace.query("remote", "SELECT count(*), count(error) FROM responses"), "63,3");
}

#[test]
fn failures_can_be_kept() {
    let serving = serve(Style::Vllm);
    let server = Server::start(well, move |request| {
        let fails = request.path == "/v1/completions" && request.json()["seed"].as_u64().unwrap() % 4 == 0;
        if fails { Reply::of(400, b"no".to_vec()) } else { serving(request) }
    });
    let workspace = workspace(&server, 1, "token_ids: always, failures: keep");
    workspace.succeed(&["run", "remote.yaml"]);
    let failed = committed(&workspace).iter().filter(|row| row.error.is_some()).inspect(|row| assert_eq!(seed_of(row) % 4, 0)).count();
    assert!(failed > 0);
    let before = server.seen().len();
    workspace.succeed(&["run", "remote.yaml"]);
    assert_eq!(server.seen().len(), before);
}

#[test]
fn every_kind_of_server_gives_the_same_ids() {
    for style in [Style::Vllm, Style::OldVllm, Style::LlamaCpp, Style::Text] {
        let server = Server::start(well, serve(style));
        let workspace = workspace(&server, 2, "concurrency: 4");
        workspace.succeed(&["run", "remote.yaml"]);
        let rows = committed(&workspace);
        assert_eq!(rows.len(), 40);
        for row in &rows {
            assert_right(row);
            let tokens = row.token_ids.len() - row.prompt_token_count as usize;
            // The end token added here has no logprob, so the sum is unknown.
            let known = match style {
                Style::Vllm | Style::OldVllm => true,
                Style::LlamaCpp => row.finish_reason == FinishReason::Length,
                _ => false,
            };
            assert_eq!(row.logprob, known.then_some(-0.5 * tokens as f64), "{style:?}");
        }
        // The logprobs of servers are not of a cut distribution.
        workspace.edit("remote.yaml", "max_new_tokens: 8", "max_new_tokens: 8, top_p: 0.9");
        workspace.succeed(&["run", "remote.yaml"]);
        assert!(committed(&workspace).iter().all(|row| row.logprob.is_none() && row.error.is_none()), "{style:?}");
        let last = server.seen().last().unwrap().json();
        assert_eq!((&last["top_p"], &last["top_k"], &last["n"], &last["stream"]), (&json!(0.9), &json!(-1), &json!(1), &json!(false)));
    }
}

#[test]
fn settings_are_sent_and_a_response_ends_at_a_stop_string_or_is_an_error() {
    let settings =
        "max_new_tokens: 8, stop: [\"E\", \"n\", \"a\", \"T\", \"Z\", \"q\"], min_p: 0.1, repetition_penalty: 1.2, presence_penalty: 0.5";
    let with = |style: Style, settings: &str| {
        let server = Server::start(well, serve(style));
        let workspace = workspace(&server, 2, "concurrency: 4, retries: 0, failures: keep");
        workspace.edit("remote.yaml", "max_new_tokens: 8", settings);
        workspace.succeed(&["run", "remote.yaml"]);
        (committed(&workspace), server.seen().last().unwrap().json())
    };
    let is_stop = |id: &i32| ["E", "n", "a", "T", "Z", "q"].contains(&text_of(&[*id]).as_str());
    let (rows, sent) = with(Style::Vllm, settings);
    let mut stopped = 0;
    for row in &rows {
        let (prompt, response) = row.token_ids.split_at(row.prompt_token_count as usize);
        let whole = answer(prompt, seed_of(row));
        let end = whole.iter().position(is_stop);
        assert_eq!(response, &whole[..end.map_or(whole.len(), |at| at + 1)]);
        assert_eq!(row.text, text_of(&whole[..end.unwrap_or(whole.len())]));
        assert!(end.is_none() || row.finish_reason == FinishReason::Stop);
        assert_eq!((&row.error, row.logprob), (&None, None));
        stopped += usize::from(end.is_some());
    }
    assert!(stopped > 5 && stopped < rows.len(), "{stopped}");
    assert_eq!((&sent["stop"][0], &sent["stop_token_ids"], &sent["min_p"]), (&json!("E"), &json!([EOS]), &json!(0.1)));
    assert_eq!((&sent["repetition_penalty"], &sent["presence_penalty"]), (&json!(1.2), &json!(0.5)));
    // A server that goes on, and one without ids.
    let (rows, _) = with(Style::OldVllm, settings);
    let errors: Vec<&str> = rows.iter().filter_map(|row| row.error.as_deref()).collect();
    assert!(errors.len() > 5 && errors.iter().all(|error| error.contains("the server does not know `stop`")), "{errors:?}");
    let (rows, _) = with(Style::Text, settings);
    assert!(rows.iter().all(|row| row.error.as_deref().is_some_and(|error| error.contains("expected the response's token ids"))));
    // One that ends too early.
    let (rows, sent) = with(Style::Vllm, "max_new_tokens: 8, min_new_tokens: 4");
    assert_eq!(sent["min_tokens"], json!(4));
    let mut early = 0;
    for row in rows {
        match row.error {
            None => assert!(row.token_ids.len() - row.prompt_token_count as usize > 4, "{:?}", row.token_ids),
            Some(error) => {
                assert!(error.contains("expected more than 4 tokens"), "{error}");
                early += 1;
            }
        }
    }
    assert!(early > 5, "{early}");
}

#[test]
fn a_doubled_beginning_is_an_error() {
    let server = Server::start(well, serve(Style::TextWithAnotherBos));
    let workspace = workspace(&server, 1, "concurrency: 4");
    let error = workspace.fail(&["run", "remote.yaml"], 1);
    assert!(error.contains("beginning-of-sequence token") && error.contains("11 tokens") && error.contains("found 12"), "{error}");
    assert!(committed(&workspace).is_empty());
}

#[test]
fn what_cannot_work_is_said_before_anything_is_asked() {
    let server = Server::start(well, serve(Style::Vllm));
    let workspace = workspace(&server, 1, "concurrency: 4");
    workspace.edit("remote.yaml", "model: tiny", "model: huge");
    let error = workspace.fail(&["run", "remote.yaml"], 2);
    assert!(error.contains("expected the model \"huge\" among what is served, found other, tiny"), "{error}");
    workspace.edit("remote.yaml", "model: huge", "model: tiny, api_key_env: OPTUNE_NOT_SET");
    let error = workspace.fail(&["run", "remote.yaml"], 2);
    assert!(error.contains("OPTUNE_NOT_SET") && error.contains("line 8: responses"), "{error}");
    workspace.edit("remote.yaml", "http://", "htp://");
    assert!(workspace.fail(&["run", "remote.yaml"], 2).contains("begin with http://"));
    assert!(asked(&server.seen()).is_empty());
}

#[cfg(unix)]
#[test]
fn interrupted_it_stops_soon_and_keeps_what_came() {
    let serving = serve(Style::Vllm);
    // Every third completion hangs.
    let hang = |number: usize| if number >= 8 && number.is_multiple_of(3) { Fate::Hang } else { Fate::Answer };
    let server = Server::start(hang, move |request| serving(request));
    let workspace = workspace(&server, 3, "concurrency: 4, timeout_seconds: 3600");
    let child = workspace
        .command(&["run", "remote.yaml"])
        .stderr(std::process::Stdio::piped())
        .stdout(std::process::Stdio::null())
        .spawn()
        .unwrap();
    while server.seen().iter().filter(|request| request.fate == Fate::Hang).count() < 4 {
        std::thread::sleep(Duration::from_millis(5));
    }
    assert!(std::process::Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap().success());
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(130), "{}", String::from_utf8_lossy(&output.stderr));
    let rows = committed(&workspace);
    let came: BTreeSet<u64> = rows.iter().filter(|row| row.error.is_none()).inspect(|row| assert_right(row)).map(seed_of).collect();
    let answered: Vec<Request> = server.seen().into_iter().filter(|request| request.fate == Fate::Answer).collect();
    assert_eq!(came, asked(&answered).into_keys().collect(), "every answer is kept");
    assert!(rows.iter().filter_map(|row| row.error.as_deref()).all(|error| error == "not asked yet: the run was stopped"));

    let other = Server::start(well, serve(Style::Vllm));
    workspace.edit("remote.yaml", &server.url, &other.url);
    workspace.succeed(&["run", "remote.yaml"]);
    assert_eq!(asked(&other.seen()).len(), 60 - came.len());
    let rows = committed(&workspace);
    assert_eq!(rows.len(), 60);
    rows.iter().for_each(assert_right);
}
