//! Servers as they are: each refuses and samples as its own code says, and each gets the policy's
//! distribution in its own spelling.
//!
//! The fields and messages are those of llama-cpp-python 0.3 (`llama_cpp/server/types.py`, `errors.py`),
//! transformers 5.23 (`cli/serving/completion.py`), llama.cpp's server, and OpenAI's API.

use serde_json::{Value, json};

use super::{EOS, MOST, answer, assert_right, committed, ids_of, seed_of, text_of, workspace};
use crate::fixtures::http_server::{Reply, Request, Server, well};
use crate::fixtures::workspace::Workspace;

/// The list of one model.
fn models(owner: &str) -> Reply {
    Reply::json(json!({"object": "list", "data": [{"id": "tiny", "object": "model", "owned_by": owner}]}))
}

/// The answer of a server whose sampling is the model's own, or not.
fn sampled(prompt: &[i32], body: &Value, is_neutral: bool) -> (Vec<i32>, &'static str) {
    let seed = body["seed"].as_u64().unwrap_or(0) + u64::from(!is_neutral) * 1_000_000;
    let mut ids = answer(prompt, seed);
    ids.truncate(body["max_tokens"].as_u64().unwrap() as usize);
    let finish = if ids.last() == Some(&EOS) { "stop" } else { "length" };
    (ids, finish)
}

/// A text completion without ids.
fn completion(prompt: &[i32], ids: &[i32], finish: &str) -> Reply {
    let choice = json!({"index": 0, "text": text_of(ids), "logprobs": null, "finish_reason": finish});
    Reply::json(json!({"choices": [choice], "usage": {"prompt_tokens": prompt.len(), "completion_tokens": ids.len()}}))
}

fn is(body: &Value, field: &str, expected: f64) -> bool {
    body[field].as_f64() == Some(expected)
}

/// llama-cpp-python: every refusal is a 500, and what is not said has a default of its own.
fn llama_cpp_python(request: &Request) -> Reply {
    if request.path == "/v1/models" {
        return models("me");
    }
    let body = request.json();
    let refused = |message: &str| {
        let error = json!({"error": {"message": message, "type": "internal_server_error", "param": null, "code": null}});
        Reply::of(500, error.to_string().into_bytes())
    };
    let Some(text) = body["prompt"].as_str() else {
        return refused(
            "[{'type': 'string_type', 'loc': ('body', 'prompt', 'str'), 'msg': 'Input should be a valid string', 'input': [1, 89]}]",
        );
    };
    if body["top_k"].as_i64().is_some_and(|top_k| top_k < 0) {
        return refused(
            "[{'type': 'greater_than_equal', 'loc': ('body', 'top_k'), 'msg': 'Input should be greater than or equal to 0', 'input': -1}]",
        );
    }
    if !body["logprobs"].is_null() {
        return refused("logprobs is not supported for models created with logits_all=False");
    }
    let is_neutral = is(&body, "top_k", 0.0) && is(&body, "min_p", 0.0) && is(&body, "repeat_penalty", 1.0) && is(&body, "top_p", 1.0);
    let prompt = [vec![1], ids_of(text)].concat();
    let (ids, finish) = sampled(&prompt, &body, is_neutral);
    completion(&prompt, &ids, finish)
}

/// `transformers serve`: unknown fields are refused, and sampling is one text in a field.
fn transformers(request: &Request) -> Reply {
    const FIELDS: [&str; 18] = [
        "model",
        "prompt",
        "best_of",
        "echo",
        "frequency_penalty",
        "logit_bias",
        "logprobs",
        "max_tokens",
        "n",
        "presence_penalty",
        "seed",
        "stop",
        "stream_options",
        "suffix",
        "temperature",
        "top_p",
        "user",
        "generation_config",
    ];
    match request.path.as_str() {
        // The cache of the hub is not there.
        "/v1/models" => return Reply::of(500, b"Internal Server Error".to_vec()),
        "/openapi.json" => {
            let paths = json!({"/v1/chat/completions": {}, "/v1/completions": {}, "/load_model": {}, "/reset": {}, "/v1/models": {}});
            return Reply::json(json!({"openapi": "3.1.0", "info": {"title": "FastAPI", "version": "0.1.0"}, "paths": paths}));
        }
        _ => {}
    }
    let body = request.json();
    let detail = |status: u16, detail: String| Reply::of(status, json!({ "detail": detail }).to_string().into_bytes());
    let unexpected: Vec<String> = body
        .as_object()
        .unwrap()
        .keys()
        .filter(|field| *field != "stream" && !FIELDS.contains(&field.as_str()))
        .map(|field| format!("'{field}'"))
        .collect();
    if !unexpected.is_empty() {
        return detail(422, format!("Unexpected fields in the request: {{{}}}", unexpected.join(", ")));
    }
    let Some(text) = body["prompt"].as_str() else { return detail(400, "prompt must be a string.".to_string()) };
    let config: Value = serde_json::from_str(body["generation_config"].as_str().unwrap_or("{}")).unwrap();
    let is_neutral = config["do_sample"] == json!(true)
        && is(&config, "temperature", 1.0)
        && is(&config, "top_k", 0.0)
        && is(&config, "top_p", 1.0)
        && is(&config, "repetition_penalty", 1.0)
        && config["eos_token_id"] == json!([EOS]);
    let prompt = [vec![1], ids_of(text)].concat();
    let (ids, finish) = sampled(&prompt, &body, is_neutral);
    completion(&prompt, &ids, finish)
}

/// llama.cpp's server: unknown fields are passed over, and the command line may have set samplers.
fn llama_cpp(request: &Request) -> Reply {
    if request.path == "/v1/models" {
        return models("llamacpp");
    }
    let body = request.json();
    let neutral = [
        ("min_p", 0.0),
        ("top_p", 1.0),
        ("typical_p", 1.0),
        ("top_n_sigma", -1.0),
        ("repeat_penalty", 1.0),
        ("presence_penalty", 0.0),
        ("frequency_penalty", 0.0),
        ("dry_multiplier", 0.0),
        ("xtc_probability", 0.0),
        ("dynatemp_range", 0.0),
        ("mirostat", 0.0),
    ];
    let is_neutral =
        body["top_k"].as_i64().is_some_and(|top_k| top_k <= 0) && neutral.iter().all(|(field, value)| is(&body, field, *value));
    let prompt: Vec<i32> = serde_json::from_value(body["prompt"].clone()).unwrap();
    let (ids, finish) = sampled(&prompt, &body, is_neutral);
    let spoken: Vec<i32> = ids.iter().copied().filter(|id| *id != EOS).collect();
    let tokens: Vec<Value> = spoken.iter().map(|id| json!({"id": id, "token": text_of(&[*id]), "logprob": -0.5})).collect();
    let choice = json!({"index": 0, "text": text_of(&ids), "logprobs": {"content": tokens}, "finish_reason": finish});
    Reply::json(json!({"choices": [choice], "usage": {"prompt_tokens": prompt.len(), "completion_tokens": ids.len()}}))
}

/// A gateway with OpenAI's own fields only, which names one unknown field at a time.
fn openai(request: &Request) -> Reply {
    match request.path.as_str() {
        "/v1/models" => return models("gateway"),
        "/v1/completions" => {}
        _ => return Reply::of(404, b"{\"detail\":\"Not Found\"}".to_vec()),
    }
    let body = request.json();
    const FIELDS: [&str; 9] = ["model", "prompt", "max_tokens", "temperature", "top_p", "seed", "n", "stream", "logprobs"];
    if let Some(field) = body.as_object().unwrap().keys().find(|field| !FIELDS.contains(&field.as_str())) {
        let message = format!("Unrecognized request argument supplied: {field}");
        return Reply::of(
            400,
            json!({"error": {"message": message, "type": "invalid_request_error", "param": null}}).to_string().into_bytes(),
        );
    }
    let prompt: Vec<i32> = serde_json::from_value(body["prompt"].clone()).unwrap();
    let (ids, finish) = sampled(&prompt, &body, true);
    completion(&prompt, &ids, finish)
}

fn assert_all_right(workspace: &Workspace) {
    let rows = committed(workspace);
    assert_eq!(rows.len(), 40);
    rows.iter().for_each(assert_right);
}

/// The lines of the journal about servers.
fn told(workspace: &Workspace, event: &str) -> String {
    let journal = std::fs::read_to_string(workspace.path("runs/remote/journal.jsonl")).unwrap();
    journal.lines().filter(|line| line.contains(event)).collect::<Vec<_>>().join("\n")
}

#[test]
fn every_known_server_samples_the_policy_in_its_own_spelling() {
    for (name, serve) in [
        ("llama-cpp-python", llama_cpp_python as fn(&Request) -> Reply),
        ("transformers", transformers),
        ("llamacpp", llama_cpp),
        ("openai", openai),
    ] {
        for server in ["auto", name] {
            let loopback = Server::start(well, serve);
            let workspace = workspace(&loopback, 2, &format!("concurrency: 4, server: {server}"));
            let output = workspace.optune(&["run", "remote.yaml"]);
            let said = String::from_utf8_lossy(&output.stderr);
            assert!(output.status.success(), "{name}, server: {server}: {said}");
            assert_all_right(&workspace);
            let found = told(&workspace, "server_found");
            let kind = if server == "auto" && name == "openai" { "unknown" } else { name };
            assert!(found.contains(&format!("; {kind}, prompts as ")), "{found}");
            if kind == "llama-cpp-python" {
                assert!(found.contains("prompts as text, without logprobs"), "{found}");
                assert_eq!(said.matches("refuses logprobs; left out of the requests").count(), 1, "{said}");
            }
            if kind == "unknown" {
                assert!(said.contains("refuses ") && said.contains("min_p") && said.contains("return_token_ids"), "{said}");
            }
            // Each refusal costs a request once, not once a response.
            let completions = loopback.seen().iter().filter(|request| request.path == "/v1/completions").count();
            assert!(completions <= 40 + 16, "{name}, server: {server}: {completions} requests");
        }
    }
}

#[test]
fn a_setting_that_a_server_has_not_is_refused() {
    for (serve, server, setting, said) in [
        (
            llama_cpp as fn(&Request) -> Reply,
            "auto",
            "repetition_penalty: 1.2",
            "repetition_penalty cannot be asked of the server llamacpp",
        ),
        (llama_cpp_python, "auto", "presence_penalty: 0.5", "presence_penalty cannot be asked of the server llama-cpp-python"),
        (transformers, "transformers", "presence_penalty: 0.5", "presence_penalty cannot be asked of the server transformers"),
        (openai, "openai", "top_k: 5, min_p: 0.1", "top_k, min_p cannot be asked of the server openai"),
        // A server that nobody knows says it itself.
        (openai, "auto", "min_p: 0.1", "expected it to take min_p: 0.1, which the distribution of the responses depends on"),
    ] {
        let loopback = Server::start(well, serve);
        let workspace = workspace(&loopback, 1, &format!("concurrency: 4, server: {server}"));
        workspace.edit("remote.yaml", &format!("max_new_tokens: {MOST}"), &format!("max_new_tokens: {MOST}, {setting}"));
        let error = workspace.fail(&["run", "remote.yaml"], 2);
        assert!(error.contains(said), "{error}");
        assert!(committed(&workspace).is_empty());
    }
}

#[test]
fn without_ids_a_text_that_is_too_long_or_has_the_prompt_is_an_error_row() {
    // From the second answer on; the first look is answered well.
    let serve = |wrong: &'static str, counts: bool| {
        move |request: &Request| {
            if request.path == "/v1/models" {
                return models("gateway");
            }
            if request.path != "/v1/completions" {
                return Reply::of(404, Vec::new());
            }
            let body = request.json();
            let Some(text) = body["prompt"].as_str() else { return Reply::of(400, b"no lists".to_vec()) };
            let prompt = [vec![1], ids_of(text)].concat();
            let (ids, finish) = sampled(&prompt, &body, true);
            let mut text_answer = text_of(&ids);
            let mut count = ids.len();
            if body["max_tokens"] != 1 && body["seed"].as_u64().unwrap().is_multiple_of(3) {
                match wrong {
                    "long" => {
                        text_answer = "x".repeat(MOST + 5);
                        count = MOST + 5;
                    }
                    _ => text_answer = format!("{text}{text_answer}"),
                }
            }
            let mut usage = json!({"prompt_tokens": prompt.len()});
            if counts {
                usage["completion_tokens"] = json!(count);
            }
            Reply::json(json!({"choices": [{"index": 0, "text": text_answer, "finish_reason": finish}], "usage": usage}))
        }
    };
    for (wrong, counts, said) in [
        ("long", true, "expected at most 8 tokens, found 13"),
        ("long", false, "expected at most 8 tokens, found a text of 13"),
        ("echo", true, "expected the response alone, found the prompt before it"),
        ("echo", false, "expected the response alone, found the prompt before it"),
    ] {
        let loopback = Server::start(well, serve(wrong, counts));
        let workspace = workspace(&loopback, 2, "concurrency: 4, retries: 0, failures: keep");
        workspace.succeed(&["run", "remote.yaml"]);
        let (failed, right): (Vec<_>, Vec<_>) = committed(&workspace).into_iter().partition(|row| row.error.is_some());
        assert!(failed.len() > 5 && failed.len() + right.len() == 40, "{wrong}: {} failed", failed.len());
        assert!(
            failed.iter().all(|row| seed_of(row).is_multiple_of(3) && row.error.as_ref().unwrap().contains(said)),
            "{:?}",
            failed[0].error
        );
        right.iter().for_each(assert_right);
    }
}

#[test]
fn a_server_that_always_repeats_the_prompt_is_refused_at_the_first_look() {
    let loopback = Server::start(well, |request: &Request| {
        if request.path == "/v1/models" {
            return models("vllm");
        }
        let body = request.json();
        let prompt: Vec<i32> = serde_json::from_value(body["prompt"].clone()).unwrap();
        let choice = json!({"index": 0, "text": format!("{}A", text_of(&prompt)), "finish_reason": "length"});
        Reply::json(json!({"choices": [choice], "usage": {"prompt_tokens": prompt.len()}}))
    });
    let workspace = workspace(&loopback, 1, "concurrency: 4, retries: 0");
    let error = workspace.fail(&["run", "remote.yaml"], 1);
    assert!(error.contains("the server repeats prompts in its answers"), "{error}");
    assert!(committed(&workspace).is_empty());
}

#[test]
fn a_server_with_chats_only_gets_the_messages() {
    const TEMPLATE: &str = "{% for message in messages %}{{ message.content }}{% if message.role == 'assistant' %}{{ eos_token }}{% endif %}\
                            {% endfor %}{% if add_generation_prompt %}={% endif %}";
    let chat = |request: &Request| {
        match request.path.as_str() {
            "/v1/models" => return models("gateway"),
            "/v1/chat/completions" => {}
            _ => return Reply::of(404, b"{\"detail\":\"Not Found\"}".to_vec()),
        }
        let body = request.json();
        if body.get("min_p").is_some() || body.get("return_token_ids").is_some() {
            return Reply::of(
                422,
                b"{\"detail\":[{\"type\":\"extra_forbidden\",\"loc\":[\"body\",\"min_p\"]},{\"loc\":[\"body\",\"return_token_ids\"]}]}"
                    .to_vec(),
            );
        }
        let text: String = body["messages"].as_array().unwrap().iter().map(|message| message["content"].as_str().unwrap()).collect();
        let prompt = ids_of(&format!("{text}="));
        let (ids, finish) = sampled(&prompt, &body, true);
        let choice = json!({"index": 0, "message": {"role": "assistant", "content": text_of(&ids)}, "finish_reason": finish});
        Reply::json(json!({"choices": [choice], "usage": {"prompt_tokens": prompt.len(), "completion_tokens": ids.len()}}))
    };
    let loopback = Server::start(well, chat);
    let texts = workspace(&loopback, 1, "concurrency: 4");
    let error = texts.fail(&["run", "remote.yaml"], 2);
    assert!(error.contains("expected a server with /completions because the prompts are texts"), "{error}");

    let workspace = workspace(&loopback, 2, "concurrency: 4");
    workspace.write("base/chat_template.jinja", TEMPLATE);
    let row = |i: usize| format!("{{\"prompt_id\": \"p-{i:03}\", \"messages\": [{{\"role\": \"user\", \"content\": \"upper {i}\"}}]}}\n");
    workspace.write("prompts.jsonl", &(0..20).map(row).collect::<String>());
    workspace.succeed(&["run", "remote.yaml"]);
    let rows = committed(&workspace);
    assert_eq!(rows.len(), 40);
    for row in &rows {
        let (prompt, response) = row.token_ids.split_at(row.prompt_token_count as usize);
        assert!(text_of(prompt).starts_with("upper ") && text_of(prompt).ends_with('='), "{row:?}");
        assert_eq!((response, &row.error), (answer(prompt, seed_of(row)).as_slice(), &None));
    }
    assert!(told(&workspace, "server_found").contains("prompts as messages, without "));
    // A server with another chat template reads other prompts.
    workspace.write("base/chat_template.jinja", &TEMPLATE.replace("%}={%", "%}=={%"));
    let error = workspace.fail(&["run", "remote.yaml"], 1);
    assert!(error.contains("another chat template or tokenizer"), "{error}");
}

#[test]
fn a_version_is_part_of_the_policy_and_an_address_is_not() {
    let loopback = Server::start(well, llama_cpp);
    let workspace = workspace(&loopback, 1, "concurrency: 4");
    workspace.succeed(&["run", "remote.yaml"]);
    let before = loopback.seen().len();
    workspace.edit("remote.yaml", "/v1\"", "/v1/\"");
    workspace.succeed(&["run", "remote.yaml"]);
    assert_eq!(loopback.seen().len(), before);
    workspace.edit("remote.yaml", "model: tiny", "model: tiny, version: \"2\"");
    assert!(
        workspace.succeed(&["plan", "remote.yaml"]).contains("engine was {\"model\":\"tiny\"}, is {\"model\":\"tiny\",\"version\":\"2\"}")
    );
    workspace.succeed(&["run", "remote.yaml"]);
    assert!(loopback.seen().len() >= before + 20);
    assert!(loopback.seen().iter().all(|request| !request.path.contains("//")));
}

#[test]
fn words_of_a_server_cannot_steer_the_terminal() {
    let loopback = Server::start(well, |request: &Request| {
        if request.path == "/v1/models" {
            return models("vllm");
        }
        Reply::of(418, "\u{1b}]0;owned\u{7}\u{1b}[2J\u{9b}31mred \u{202e}txt".as_bytes().to_vec())
    });
    let workspace = workspace(&loopback, 1, "concurrency: 2, retries: 0");
    let output = workspace.optune(&["run", "remote.yaml"]);
    assert_eq!(output.status.code(), Some(1));
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(said.contains("status 418: \u{fffd}]0;owned"), "{said}");
    assert!(!said.contains('\u{1b}') && !said.contains('\u{9b}') && !said.contains('\u{202e}') && !said.contains('\u{7}'), "{said:?}");
}
