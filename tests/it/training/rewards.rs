//! Rewards by models, servers and weighted sums, and the training of a reward model, against TRL
//! and across stops.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use optune::compute::RewardModel;
use optune::model::{Checkpoint, Message, PromptContent};
use optune::token_lists::TokenLists;
use optune::training::{Comparison, Decay, OptimizerConfig, Schedule, Settings, Trainer, rewards};
use serde_json::{Value, json};

use crate::fixtures::files::copy_folder;
use crate::fixtures::http_server::{Reply, Request, Server, well};
use crate::fixtures::models::{device, numbers};
use crate::fixtures::workspace::{PIPELINE, Workspace};

/// A tiny reward model, and its results in TRL and PyTorch; see `tests/python/reward_model.py`.
fn golden() -> (PathBuf, Value) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/reward_model");
    let golden = serde_json::from_str(&std::fs::read_to_string(folder.join("golden.json")).unwrap()).unwrap();
    (folder, golden)
}

fn token_ids(value: &Value) -> Vec<Vec<i32>> {
    value.as_array().unwrap().iter().map(|row| numbers(row).into_iter().map(|id| id as i32).collect()).collect()
}

fn largest_difference(one: &[f64], other: &[f64]) -> f64 {
    assert_eq!(one.len(), other.len());
    one.iter().zip(other).map(|(one, other)| (one - other).abs()).fold(0.0, f64::max)
}

/// The golden conversations: first the chosen ones, then the rejected ones.
fn conversations(golden: &Value) -> TokenLists {
    let rows = [token_ids(&golden["chosen"]), token_ids(&golden["rejected"])].concat();
    TokenLists::from_rows(&rows).unwrap()
}

#[test]
fn rewards_are_those_of_transformers_in_any_batch() {
    let (folder, golden) = golden();
    let checkpoint = Checkpoint::open(&folder).unwrap();
    let model = checkpoint.load_reward_model(&device()).unwrap();
    let sequences = conversations(&golden);
    let all: Vec<usize> = (0..8).collect();
    let expected = numbers(&golden["rewards"]);
    for batch in [1, 2, 3, 8, 100] {
        let found = rewards(&model, &sequences, &all, batch).unwrap();
        let difference = largest_difference(&found, &expected);
        assert!(difference < 1e-5, "batches of {batch}: {difference:e}");
    }
    let back: Vec<usize> = all.iter().rev().copied().collect();
    let found: Vec<f64> = rewards(&model, &sequences, &back, 3).unwrap().into_iter().rev().collect();
    assert!(largest_difference(&found, &expected) < 1e-5);
}

#[test]
fn a_conversation_is_scored_in_the_reward_models_own_tokens() {
    let (folder, golden) = golden();
    let checkpoint = Checkpoint::open(&folder).unwrap();
    let messages: Vec<Message> = serde_json::from_value(golden["conversation"]["messages"].clone()).unwrap();
    let expected: Vec<i32> = serde_json::from_value(golden["conversation"]["token_ids"].clone()).unwrap();
    let asked = PromptContent::Messages(messages[..1].to_vec().into());
    let found = checkpoint.encode_conversation(&asked, &messages[1].content).unwrap();
    assert_eq!(found, expected);
    let model = checkpoint.load_reward_model(&device()).unwrap();
    let sequences = TokenLists::from_rows(&[found]).unwrap();
    let reward = rewards(&model, &sequences, &[0], 1).unwrap()[0];
    assert!((reward - golden["conversation"]["reward"].as_f64().unwrap()).abs() < 1e-5);
}

fn trainer(folder: &Path, micro_batch: usize) -> Trainer<RewardModel> {
    let model = Checkpoint::open(folder).unwrap().load_reward_model(&device().autodiff()).unwrap();
    let rule = OptimizerConfig::AdamW { beta_1: 0.9, beta_2: 0.999, eps: 1e-8, weight_decay: 0.01 };
    let schedule = Schedule { peak: 1e-2, decay: Decay::Constant, warmup_ratio: 0.0 };
    Trainer::new(
        model,
        Settings { rule, schedule, gradient_limit: None, micro_batch, gradient_checkpointing: false, skip_non_finite: false },
        4,
    )
    .unwrap()
}

#[test]
fn steps_on_comparisons_are_those_of_trl_and_pytorch() {
    let (folder, golden) = golden();
    let sequences = conversations(&golden);
    for (form, micro_batch) in golden["forms"].as_array().unwrap().iter().flat_map(|form| [(form, 4), (form, 1)]) {
        let margins = if form["margins"].is_null() { vec![0.0; 4] } else { numbers(&form["margins"]) };
        let comparisons: Vec<Comparison> = (0..4).map(|row| Comparison { chosen: row, rejected: 4 + row, margin: margins[row] }).collect();
        let mut trainer = trainer(&folder, micro_batch);
        let mut losses = Vec::new();
        for step in 0..4 {
            let metrics = trainer.ranking_step(&sequences, &comparisons, form["center_rewards_coefficient"].as_f64()).unwrap();
            assert_eq!((metrics.step, metrics.tokens, metrics.logprob_chosen), (step, 45, None));
            losses.push(metrics.loss);
        }
        let difference = largest_difference(&losses, &numbers(&form["losses"]));
        assert!(difference < 2e-5, "{}: losses differ by {difference:e}", form["name"]);
        let found = rewards(&trainer.model(), &sequences, &(0..8).collect::<Vec<_>>(), 8).unwrap();
        let difference = largest_difference(&found, &numbers(&form["rewards_after"]));
        assert!(difference < 1e-3, "{}: rewards differ by {difference:e}", form["name"]);
    }
}

/// A pipeline with a reward model of its own. It scores by it, by a query, and by another query as
/// a reward of its own.
fn learned() -> Workspace {
    let workspace = Workspace::new();
    let word = |i: usize| -> String { [i, i / 8, i * 3].into_iter().map(|k| char::from(b'a' + (k % 8) as u8)).collect() };
    let row = |i: usize| {
        let (word, other) = (word(i), word(i + 1));
        // Every third prompt has a second pair.
        let again = json!({ "prompt": format!("upper {word}="), "chosen": word.to_uppercase(), "rejected": other });
        let row = json!({ "prompt": format!("upper {word}="), "chosen": word.to_uppercase(), "rejected": word, "chosen_score": 1.5, "rejected_score": 0.25 });
        if i.is_multiple_of(3) { format!("{row}\n{again}\n") } else { format!("{row}\n") }
    };
    workspace.write("preferences.jsonl", &(40..64).map(row).collect::<String>());
    let node = "judge: { reward_model: { from: base, preferences: preferences, held_out: 0.2, epochs: 3, batch_size: 4, \
                learning_rate: 3.0e-3 }, resources: { checkpoint_every: 2 } }";
    let mixed = "[{ reward: judge }, { weight: -0.25, name: length, sql: \"SELECT prompt_id, response_index, \
                 character_length(text) AS reward FROM responses\" }, { weight: 2.0, reward: exact }]";
    let text = PIPELINE
        .replace("  judge:    { reward: { sql: reward.sql } }", &format!("  preferences: {{ table: preferences.jsonl }}\n  exact:    {{ reward: {{ sql: reward.sql }} }}\n  mixed:    {{ reward: {mixed} }}"))
        .replace("iterate:", &format!("  {node}\niterate:"))
        .replace("reward: judge } }\n    pool", "reward: mixed }, resources: { rows_per_part: 7 } }\n    pool");
    workspace.write("pipeline.yaml", &text);
    workspace
}

#[test]
fn every_component_of_a_weighted_sum_is_kept() {
    let workspace = learned();
    workspace.succeed(&["run", "pipeline.yaml"]);
    let sum = "r.components['judge'] - 0.25 * r.components['length'] + 2.0 * r.components['exact']";
    let wrong = format!("SELECT count(*) FROM rewards AS r WHERE r.reward IS NULL OR abs(r.reward - ({sum})) > 1e-9");
    assert_eq!(workspace.query("small", &wrong), "0");
    assert!(workspace.query("small", "SELECT count(*) FROM rewards").parse::<i64>().unwrap() >= 60);
    // The query's own further column stays too, under its reward's name.
    let exact = "SELECT count(*) FROM rewards AS r JOIN responses AS a USING (iteration, prompt_id, sampled_iteration, response_index) JOIN prompts AS p USING (prompt_id)
        WHERE r.components['exact.exact'] IS DISTINCT FROM CAST(a.text = p.reference_answer AS DOUBLE)";
    assert_eq!(workspace.query("small", exact), "0");
    assert_eq!(workspace.query("small", "SELECT count(DISTINCT reward_fingerprint) FROM rewards"), "1");
    // A reward model of the pipeline is also a reward by itself.
    assert_eq!(workspace.query("small", "SELECT count(*) FROM evaluation_rewards WHERE components IS NOT NULL"), "0");

    // 5 of the 24 prompts are held out, with all their pairs, and none of them is trained on.
    let held_out: i64 = workspace.query("small", "SELECT count(*) FROM judge_ranking").parse().unwrap();
    assert!((5..=10).contains(&held_out), "{held_out}");
    assert_eq!(workspace.query("small", "SELECT count(DISTINCT split_part(preference_id, '#', 1)) FROM judge_ranking"), "5");
    assert_eq!(workspace.query("small", "SELECT count(*) FROM judge_ranking WHERE reward_gap = 1.25"), "5");
    let steps = (32 - held_out as usize).div_ceil(4) * 3;
    assert_eq!(workspace.query("small", "SELECT max(step) FROM judge_training"), steps.to_string());
    let fitted: f64 = workspace.query("small", "SELECT avg(accuracy) FROM judge_training WHERE epoch = 3").parse().unwrap();
    assert!(fitted > 0.9, "{fitted}");
    let accuracy: f64 = workspace.query("small", "SELECT avg(CAST(correct AS DOUBLE)) FROM judge_ranking").parse().unwrap();
    assert!(accuracy > 0.6, "{accuracy}");
    // The committed rewards stay; nothing runs again.
    let again = workspace.succeed(&["run", "pipeline.yaml", "--json"]);
    assert!(serde_json::from_str::<Value>(&again).is_ok(), "{again}");
    let config = std::fs::read_to_string(workspace.path("runs/small/models/judge/config.json")).unwrap();
    assert!(config.contains("LlamaForSequenceClassification"), "{config}");
}

#[test]
fn preferences_can_be_held_out_as_a_table_and_too_long_ones_are_left_out() {
    let workspace = learned();
    let row = |word: &str, more: &str| {
        format!("{{\"prompt\": \"upper {word}=\", \"chosen\": \"{}\", \"rejected\": \"{word}\"{more}}}\n", word.to_uppercase())
    };
    let gap = ", \"reward_gap\": 0.5";
    workspace.write("preferences.jsonl", &(row("ab", gap) + &row("cd", gap) + &row("abcdefghabcdefgh", gap)));
    workspace.write("tested.jsonl", &(row("ef", "") + &row("gh", "")));
    let node = "judge: { reward_model: { from: base, preferences: preferences, held_out: tested, max_tokens: 20, margin: true, epochs: 4, batch_size: 2, learning_rate: 1.0e-3 } }";
    let text = PIPELINE.split("iterate:").next().unwrap().replace(
        "  judge:    { reward: { sql: reward.sql } }",
        "  preferences: { table: preferences.jsonl }\n  tested: { table: tested.jsonl }",
    );
    workspace.write("pipeline.yaml", &format!("{text}  {node}\n"));
    let output = workspace.optune(&["run", "pipeline.yaml"]);
    let told = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.success(), "{told}");
    assert!(told.contains("judge: warning: 1 of 3 preferences are left out: more than 20 tokens"), "{told}");
    assert_eq!(workspace.query("small", "SELECT count(*) FROM judge_ranking"), "2");
    assert_eq!(workspace.query("small", "SELECT count(*) FROM judge_training"), "4");

    workspace.edit("pipeline.yaml", "max_tokens: 20", "max_tokens: 5");
    let error = workspace.fail(&["run", "pipeline.yaml"], 2);
    let said = "preferences: expected at least one to train on, found none (3 are longer than the model or max_tokens allow)";
    assert!(error.contains(said), "{error}");
    workspace.edit("pipeline.yaml", "max_tokens: 5", "max_tokens: 20");
    workspace.write("preferences.jsonl", &(row("ab", gap) + &row("cd", "")));
    let error = workspace.fail(&["plan", "pipeline.yaml"], 2);
    let said =
        "preferences.jsonl:2: table preferences, row 1: margin: expected a reward_gap, or a chosen_score and a rejected_score, found none";
    assert!(error.contains(said), "{error}");
    workspace.edit("pipeline.yaml", "preferences.jsonl }", "preferences.jsonl, malformed: skip }");
    let output = workspace.optune(&["plan", "pipeline.yaml"]);
    let told = String::from_utf8(output.stderr).unwrap() + &String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success() && told.contains("1 of 2 rows are left out: 1 × margin: expected a reward_gap"), "{told}");
    workspace.edit("pipeline.yaml", "preferences.jsonl, malformed: skip }", "preferences.jsonl }");
    workspace.write("preferences.jsonl", &(row("ab", gap) + &row("cd", gap)));
    workspace.write("tested.jsonl", "{\"prompt\": \"a\", \"chosen\": \"b\"}\n");
    let error = workspace.fail(&["run", "pipeline.yaml"], 2);
    assert!(error.contains("judge: table tested: expected columns chosen and rejected, found prompt, chosen"), "{error}");
}

#[test]
fn a_reward_model_may_be_made_anew_in_every_iteration() {
    let workspace = learned();
    let text = std::fs::read_to_string(workspace.path("pipeline.yaml")).unwrap();
    let start = text.find("  judge: {").unwrap();
    let (node, end) = text[start..].split_once('\n').map(|(node, _)| (node.trim().to_string(), start + node.len() + 1)).unwrap();
    let text = format!("{}{}", &text[..start], &text[end..]);
    let text = text.replace("  nodes:\n    selection", &format!("  nodes:\n    {node}\n    selection"));
    let text = text
        .replace("reward: mixed }, resources", "reward: judge }, resources")
        .replace("prompts: held_out, reward: judge", "prompts: held_out, reward: exact");
    // A sum is an input, and an input cannot name a changing node.
    let text = text.lines().filter(|line| !line.starts_with("  mixed:")).map(|line| format!("{line}\n")).collect::<String>();
    workspace.write("pipeline.yaml", &text);
    workspace.succeed(&["run", "pipeline.yaml"]);
    assert_eq!(workspace.query("small", "SELECT count(DISTINCT iteration) FROM judge_ranking"), "2");
    assert_eq!(workspace.query("small", "SELECT count(DISTINCT reward_fingerprint) FROM rewards"), "2");
}

#[test]
fn killed_in_the_middle_a_learned_reward_ends_in_the_same_bytes() {
    let whole = learned();
    let start = Instant::now();
    whole.succeed(&["run", "pipeline.yaml"]);
    let time = start.elapsed();
    let expected = whole.result("small");
    for share in [0.15, 0.3, 0.45, 0.6, 0.8] {
        let workspace = learned();
        let mut command = workspace.command(&["run", "pipeline.yaml"]);
        let mut child = command.stderr(std::process::Stdio::null()).stdout(std::process::Stdio::null()).spawn().unwrap();
        std::thread::sleep(time.mul_f64(share));
        child.kill().unwrap();
        child.wait().unwrap();
        workspace.succeed(&["run", "pipeline.yaml"]);
        assert_eq!(workspace.result("small"), expected, "killed after {share} of the time");
    }
}

/// The rewards of a run, by response.
fn rewards_of(workspace: &Workspace, runs: &str) -> Vec<(String, f64)> {
    let sql =
        "SELECT prompt_id || '/' || CAST(sampled_iteration AS TEXT) || '/' || CAST(response_index AS TEXT), reward FROM rewards ORDER BY 1";
    let csv = workspace.succeed(&["--runs", runs, "sql", "small", sql, "--format", "csv"]);
    let rows = csv.lines().skip(1).filter_map(|line| line.split_once(','));
    rows.map(|(key, reward)| (key.to_string(), reward.parse().unwrap())).collect()
}

#[test]
fn a_responses_reward_does_not_depend_on_its_neighbours() {
    let workspace = learned();
    workspace.edit(
        "pipeline.yaml",
        "reward: mixed }, resources: { rows_per_part: 7 }",
        "reward: judge }, resources: { rows_per_part: 64, batch_size: 64 }",
    );
    workspace.edit("pipeline.yaml", "iterations: 2", "iterations: 1");
    workspace.succeed(&["--runs", "together", "run", "pipeline.yaml"]);
    workspace.edit("pipeline.yaml", "{ rows_per_part: 64, batch_size: 64 }", "{ rows_per_part: 5, batch_size: 1 }");
    workspace.succeed(&["--runs", "alone", "run", "pipeline.yaml"]);
    let (together, alone) = (rewards_of(&workspace, "together"), rewards_of(&workspace, "alone"));
    assert_eq!(together.len(), 60);
    let difference = together.iter().zip(&alone).map(|(one, other)| (one.1 - other.1).abs()).fold(0.0, f64::max);
    eprintln!("largest difference between batches of 64 and of 1: {difference:e}");
    assert!(difference < 1e-5, "{difference:e}");
    assert!(together.iter().zip(&alone).all(|(one, other)| one.0 == other.0));
    assert!(together.iter().any(|(_, reward)| (reward - together[0].1).abs() > 1e-2));
}

/// A pipeline of one iteration with a server as reward.
fn served(url: &str, settings: &str) -> Workspace {
    let workspace = Workspace::new();
    workspace.edit(
        "pipeline.yaml",
        "{ sql: reward.sql }",
        &format!("{{ http: \"{url}/score\", batch_size: 4, concurrency: 2{settings} }}"),
    );
    workspace.edit("pipeline.yaml", "iterations: 2", "iterations: 1");
    workspace.edit("pipeline.yaml", "reward: judge } }\n    pool", "reward: judge }, resources: { rows_per_part: 20 } }\n    pool");
    workspace
}

/// The length of each response. At least some differ.
fn lengths(request: &Request) -> Reply {
    let asked = request.json();
    let scores: Vec<usize> = asked["responses"].as_array().unwrap().iter().map(|text| text.as_str().unwrap().chars().count()).collect();
    Reply::json(json!({ "scores": scores }))
}

#[test]
fn a_server_scores_batches_and_only_the_missing_ones_again() {
    let broken = Arc::new(AtomicBool::new(true));
    let breaks = broken.clone();
    // While it is broken, a batch with the last prompts is refused.
    let server = Server::start(well, move |request| {
        if breaks.load(Ordering::SeqCst) && request.body.contains("UPPER") {
            Reply::of(400, b"out of order".to_vec())
        } else {
            lengths(request)
        }
    });
    let workspace = served(&server.url, "");
    workspace.edit("prompts.jsonl", "{\"prompt_id\": \"p-013\", \"prompt\": \"upper ", "{\"prompt_id\": \"p-013\", \"prompt\": \"UPPER ");
    let error = workspace.fail(&["run", "pipeline.yaml"], 1);
    assert!(error.contains("rewards[1]") && error.contains("status 400: out of order") && error.contains("prompt_id p-0"), "{error}");
    let before = server.seen().len();
    let committed = workspace.journal("small", "part_committed").iter().filter(|(node, ..)| node == "rewards").count();
    assert!((1..3).contains(&committed), "{committed}");
    broken.store(false, Ordering::SeqCst);
    workspace.succeed(&["run", "pipeline.yaml"]);
    assert_eq!(workspace.query("small", "SELECT count(*) FROM rewards"), "60");
    let wrong = "SELECT count(*) FROM rewards JOIN responses USING (iteration, prompt_id, sampled_iteration, response_index) WHERE reward <> character_length(text)";
    assert_eq!(workspace.query("small", wrong), "0");
    let asked = server.seen().iter().skip(before).count();
    // 20 responses a part, 4 a request; of the evaluation's 8 responses of each model, the
    // baseline's were scored before.
    assert_eq!(asked, (3 - committed) * 5 + 2);
    assert!(server.most_in_flight() <= 2);
    for request in server.seen() {
        assert_eq!((request.method.as_str(), request.path.as_str()), ("POST", "/score"));
        let asked = request.json();
        assert_eq!(asked["prompts"].as_array().unwrap().len(), asked["responses"].as_array().unwrap().len());
    }
    let count = server.seen().len();
    workspace.succeed(&["run", "pipeline.yaml"]);
    assert_eq!(server.seen().len(), count);
    // Another version of the server's model: the user says so, and all is scored again.
    workspace.edit("pipeline.yaml", "concurrency: 2", "concurrency: 2, version: \"2\"");
    workspace.succeed(&["run", "pipeline.yaml"]);
    assert!(server.seen().len() > count);
}

#[test]
fn a_server_in_openrlhfs_shape_gets_query_prompt_and_label() {
    let server = Server::start(well, |request| {
        let asked = request.json();
        let texts = |key: &str| -> Vec<String> { serde_json::from_value(asked[key].clone()).unwrap() };
        let (queries, prompts, labels) = (texts("query"), texts("prompts"), texts("labels"));
        assert!(queries.iter().zip(&prompts).all(|(query, prompt)| query.starts_with(prompt.as_str())));
        assert!(labels.iter().all(|label| label.len() == 3 && label.to_uppercase() == *label), "{labels:?}");
        Reply::json(json!({ "rewards": queries.iter().map(|query| query.len()).collect::<Vec<_>>() }))
    });
    let workspace = served(&server.url, ", protocol: openrlhf, api_key_env: OPTUNE_TEST_REWARD_KEY");
    let error = workspace.fail(&["run", "pipeline.yaml"], 2);
    assert!(
        error.contains("api_key_env: expected the key in the environment variable OPTUNE_TEST_REWARD_KEY, found no such variable"),
        "{error}"
    );
    assert!(!workspace.path("runs/small/tables").exists() && server.seen().is_empty());
    let output = workspace.command(&["run", "pipeline.yaml"]).env("OPTUNE_TEST_REWARD_KEY", "hush-5923").output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert!(server.seen().iter().all(|request| request.headers["authorization"] == "Bearer hush-5923"));
    assert!(!workspace.path("runs").exists() || !holds(&workspace.path("runs"), "hush-5923"));
}

/// Whether any file in a folder holds a text.
fn holds(folder: &Path, text: &str) -> bool {
    std::fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .any(|path| if path.is_dir() { holds(&path, text) } else { String::from_utf8_lossy(&std::fs::read(&path).unwrap()).contains(text) })
}

#[test]
fn what_is_no_reward_is_said_before_anything_runs() {
    let refused = |reward: &str, said: &str| {
        let workspace = Workspace::new();
        let (golden, _) = golden();
        let text = PIPELINE.replace("{ sql: reward.sql }", &reward.replace("GOLDEN", &golden.to_string_lossy()));
        workspace.write("pipeline.yaml", &text);
        let error = workspace.fail(&["run", "pipeline.yaml"], 2);
        assert!(error.contains(said), "expected {said:?} in: {error}");
        assert!(!workspace.path("runs/small/tables").exists(), "{error}");
    };
    refused("{ model: shape }", "safetensors");
    refused("[{ name: helpful, model: shape }]", "component helpful: shape");
    refused("{ http: \"http://localhost:1/x?key=5\" }", "it has a query after \"?\"");
    refused(
        "[{ sql: reward.sql }, { sql: \"SELECT prompt_id, response_index, 1.0 AS points FROM responses\" }]",
        "component sql_2: reward query: expected a column reward, found",
    );
    let language_model = |edit: (&str, &str), said: &str| {
        let (golden, _) = golden();
        let workspace = Workspace::new();
        workspace.edit("pipeline.yaml", edit.0, &edit.1.replace("GOLDEN", &golden.to_string_lossy()));
        let error = workspace.fail(&["run", "pipeline.yaml"], 2);
        assert!(error.contains(said), "expected {said:?} in: {error}");
    };
    let found = "config.json: expected a language model, found a reward model: architectures is [\"LlamaForSequenceClassification\"]";
    language_model(("shape:    { model: shape }", "shape:    { model: \"GOLDEN\" }"), found);
}

#[test]
fn a_language_model_is_no_reward_model() {
    let workspace = Workspace::new();
    workspace.succeed(&["run", "pipeline.yaml"]);
    workspace.succeed(&["export", "policy", "small", "tuned"]);
    workspace.edit("pipeline.yaml", "{ sql: reward.sql }", "{ model: tuned }");
    let error = workspace.fail(&["run", "pipeline.yaml"], 2);
    let said = "tuned/config.json: expected a reward model, found a language model: architectures is [\"LlamaForCausalLM\"]";
    assert!(error.contains(said), "{error}");
}

#[test]
fn a_reward_that_is_no_number_names_its_response() {
    let workspace = Workspace::new();
    let (golden, _) = golden();
    std::fs::create_dir(workspace.path("judge")).unwrap();
    for entry in std::fs::read_dir(golden).unwrap() {
        let path = entry.unwrap().path();
        let mut bytes = std::fs::read(&path).unwrap();
        if path.extension().is_some_and(|extension| extension == "safetensors") {
            let header = u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
            let names: Value = serde_json::from_slice(&bytes[8..8 + header]).unwrap();
            let start = 8 + header + names["score.weight"]["data_offsets"][0].as_u64().unwrap() as usize;
            bytes[start..start + 4].copy_from_slice(&f32::NAN.to_le_bytes());
        }
        std::fs::write(workspace.path("judge").join(path.file_name().unwrap()), bytes).unwrap();
    }
    workspace.edit("pipeline.yaml", "{ sql: reward.sql }", "[{ name: sane, sql: reward.sql }, { name: mad, model: judge }]");
    let error = workspace.fail(&["run", "pipeline.yaml"], 2);
    let said = "component mad: reward model: expected a finite reward for prompt_id p-000, response_index 0, found NaN: the weights score.weight of ";
    assert!(error.contains(said) && error.contains("are not finite; the model is broken"), "{error}");
}

#[test]
fn a_conversation_too_long_for_the_reward_model_has_an_error_in_place_of_a_reward() {
    let workspace = Workspace::new();
    let (golden, _) = golden();
    workspace.edit(
        "pipeline.yaml",
        "{ sql: reward.sql }",
        &format!("[{{ sql: reward.sql }}, {{ weight: 0.0, model: \"{}\" }}]", golden.display()),
    );
    workspace.edit("pipeline.yaml", "iterations: 2", "iterations: 1");
    // 70 words. The policy's tokenizer makes more tokens of them than its own limit, so they are in
    // the demonstrations only.
    workspace.succeed(&["run", "pipeline.yaml"]);
    assert_eq!(workspace.query("small", "SELECT count(*) FROM rewards WHERE reward IS NULL"), "0");
    let short = workspace.path("short");
    copy_folder(&golden, &short);
    workspace.edit("short/config.json", "\"max_position_embeddings\": 64", "\"max_position_embeddings\": 7");
    workspace.edit("pipeline.yaml", &golden.to_string_lossy(), "short");
    workspace.optune(&["run", "pipeline.yaml"]);
    let errors = workspace.query("small", "SELECT count(*) FROM rewards WHERE reward IS NULL AND error LIKE 'component model: expected 1 to 7 tokens of prompt and response for the reward model, found %'");
    assert_ne!(errors, "0");
}
