//! Penalties, min-p, the least length and stop strings, on every engine of the CPU, against
//! transformers and vLLM; see `tests/python/sampling.py`.

use std::collections::HashMap;
use std::fs;
use std::ops::ControlFlow;
use std::path::Path;

use optune::compute::CausalLm;
use optune::generation::{FinishReason, Generated, Generator, Penalties, Sampling, StopStrings};
use optune::model::Checkpoint;
use optune::token_lists::TokenLists;
use serde_json::{Value, json};

use crate::fixtures::models::{blank_checkpoint, device, numbers};
use crate::fixtures::workspace::Workspace;

const SEEDS: usize = 150;

fn golden() -> Value {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/sampling.json");
    serde_json::from_slice(&fs::read(path).unwrap()).unwrap()
}

fn tiny_model() -> CausalLm {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/families/llama2");
    Checkpoint::open(&folder).unwrap().load(&device()).unwrap()
}

fn ids(value: &Value) -> Vec<i32> {
    numbers(value).into_iter().map(|id| id as i32).collect()
}

fn sampling(settings: &Value, max_new_tokens: usize) -> Sampling {
    let number = |name: &str, default: f64| settings.get(name).map_or(default, |value| value.as_f64().unwrap());
    Sampling {
        temperature: number("temperature", 1.0),
        top_p: number("top_p", 1.0),
        top_k: number("top_k", 0.0) as usize,
        min_p: number("min_p", 0.0),
        penalties: Penalties { repetition: number("repetition_penalty", 1.0), presence: number("presence_penalty", 0.0) },
        min_new_tokens: number("min_new_tokens", 0.0) as usize,
        max_new_tokens,
        eos: settings.get("eos").map_or(vec![2], ids),
        vocabulary_size: usize::MAX,
        max_total_tokens: 128,
    }
}

fn sample(generator: &Generator, prompt: &[i32], count: usize, sampling: &Sampling) -> Generated {
    let seed = |number: usize| {
        let mut seed = [0; 32];
        seed[..8].copy_from_slice(&(number as u64).to_le_bytes());
        seed
    };
    let seeds = vec![(0..count).map(seed).collect()];
    generator.generate(&TokenLists::from_rows(&[prompt]).unwrap(), &seeds, sampling, 32, &mut |_| ControlFlow::Continue(())).unwrap()
}

fn responses(generated: &Generated) -> Vec<Vec<i32>> {
    let rows = generated.prompt_token_counts.iter().enumerate();
    rows.map(|(row, &prompt)| generated.sequences.row(row).unwrap()[prompt..].to_vec()).collect()
}

/// Both engines of the CPU.
fn engines() -> [(&'static str, Generator); 2] {
    let model = tiny_model();
    [("cpu", Generator::new(model.clone()).unwrap()), ("reference", Generator::with_reference(model))]
}

#[test]
fn distributions_are_those_of_transformers_with_every_setting() {
    let golden = golden();
    for (engine, generator) in engines() {
        for case in golden["distributions"].as_array().unwrap() {
            let name = format!("{engine}: {} behind {}", case["settings"], case["prompt"]);
            let generated = sample(&generator, &ids(&case["prompt"]), SEEDS, &sampling(&case["settings"], 2));
            let mut shares: HashMap<String, f64> = HashMap::new();
            for ((response, found), of_tokens) in responses(&generated).iter().zip(&generated.logprobs).zip(&generated.token_logprobs) {
                let [first, rest @ ..] = &response[..] else { panic!("{name}: an empty response") };
                let first = first.to_string();
                let mut expected = vec![case["first"][&first].as_f64().unwrap_or_else(|| panic!("{name}: {first} cannot be drawn"))];
                if let [second] = rest {
                    let second = case["second"][&first][second.to_string()].as_f64();
                    expected.push(second.unwrap_or_else(|| panic!("{name}: {response:?} cannot be drawn")));
                }
                let sum: f64 = expected.iter().sum();
                assert!((found - sum).abs() < 1e-4, "{name}: {response:?} has {found}, expected {sum}");
                assert_eq!(of_tokens.len(), expected.len(), "{name}: {response:?}");
                for (found, expected) in of_tokens.iter().zip(&expected) {
                    assert!((f64::from(*found) - expected).abs() < 1e-4, "{name}: {response:?} has {of_tokens:?}, expected {expected}");
                }
                *shares.entry(first).or_default() += 1.0 / SEEDS as f64;
            }
            for (token, logprob) in case["first"].as_object().unwrap() {
                let (share, found) = (logprob.as_f64().unwrap().exp(), shares.get(token).copied().unwrap_or(0.0));
                let deviation = (share * (1.0 - share) / SEEDS as f64).sqrt();
                assert!((found - share).abs() < 4.0 * deviation + 0.01, "{name}: {token} was drawn {found}, expected {share}");
            }
        }
    }
}

#[test]
fn the_likeliest_tokens_with_penalties_and_a_least_length_are_those_of_transformers() {
    let golden = golden();
    for (engine, generator) in engines() {
        for case in golden["greedy"].as_array().unwrap() {
            let greedy = Sampling { temperature: 0.0, ..sampling(&case["settings"], 20) };
            let generated = sample(&generator, &ids(&case["prompt"]), 1, &greedy);
            assert_eq!(responses(&generated)[0], ids(&case["response"]), "{engine}: {}", case["settings"]);
        }
    }
}

#[test]
fn a_response_ends_and_is_cut_at_a_stop_string_as_in_vllm() {
    let golden = golden();
    let folder = tempfile::tempdir().unwrap();
    blank_checkpoint(folder.path(), true);
    let path = folder.path().join("config.json");
    let mut config: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    config["vocab_size"] = json!(300);
    fs::write(path, config.to_string()).unwrap();
    fs::write(folder.path().join("tokenizer.json"), golden["stop_strings"]["tokenizer"].to_string()).unwrap();
    let tokenizer = Checkpoint::open_blank(folder.path()).unwrap().tokenizer;
    let mut ended_count = 0;
    for case in golden["stop_strings"]["cases"].as_array().unwrap() {
        let strings: Vec<String> = serde_json::from_value(case[0].clone()).unwrap();
        let stop = StopStrings::new(&tokenizer, &strings, case[1].as_u64().unwrap() as usize).unwrap();
        let mut text = stop.behind(&ids(&case[2]));
        let mut found = None;
        for (at, token) in ids(&case[3]).into_iter().enumerate() {
            if let Some(cut) = text.push(token).unwrap() {
                found = Some((at + 1, text.text().strip_suffix(&cut).unwrap().to_string()));
                break;
            }
        }
        let expected = case[4].as_u64().map(|tokens| (tokens as usize, case[5].as_str().unwrap().to_string()));
        ended_count += usize::from(expected.is_some());
        assert_eq!(found, expected, "{case}");
    }
    assert!(ended_count > 100);
    assert!(StopStrings::new(&tokenizer, &[], 0).is_none());
}

#[test]
fn a_stop_string_ends_responses_alike_on_every_engine() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("datasets/tasks/model");
    let checkpoint = Checkpoint::open_blank(&folder).unwrap();
    let model = checkpoint.init(&device(), 5);
    let settings = Sampling { vocabulary_size: checkpoint.tokenizer.vocabulary_size(), ..sampling(&json!({}), 24) };
    let prompt = checkpoint.tokenizer.encode("upper ab=", optune::model::SpecialTokens::Opening).unwrap();
    let with = |generator: Generator, strings: &[&str]| {
        let strings: Vec<String> = strings.iter().map(|string| string.to_string()).collect();
        sample(&generator.stopping_at(StopStrings::new(&checkpoint.tokenizer, &strings, 0)), &prompt, 40, &settings)
    };
    let engines = || [Generator::new(model.clone()).unwrap(), Generator::with_reference(model.clone())];
    let [free, _] = engines().map(|generator| with(generator, &[]));
    let stop = ["a", "Q", "9"];
    for found in engines().map(|generator| with(generator, &stop)) {
        let mut stopped = 0;
        for (row, (response, whole)) in responses(&found).iter().zip(responses(&free)).enumerate() {
            // The tokens are the same ones, up to the first with a letter that stops.
            let has_stop = |id: &i32| stop.contains(&checkpoint.tokenizer.decode(&[*id]).unwrap().as_str());
            let end = whole.iter().position(has_stop).map_or(whole.len(), |at| at + 1);
            assert_eq!(response[..], whole[..end]);
            let cut = &found.cuts[row];
            assert_eq!(!cut.is_empty(), response.last().is_some_and(has_stop));
            stopped += usize::from(!cut.is_empty());
            if !cut.is_empty() {
                assert_eq!((found.finish_reasons[row], cut.len()), (FinishReason::Stop, 1));
            }
        }
        assert!(stopped > 5, "{stopped}");
    }
}

#[test]
fn settings_of_a_run_reach_its_responses() {
    let workspace = Workspace::new();
    workspace.edit("pipeline.yaml", "max_new_tokens: 8 }", "max_new_tokens: 8, min_new_tokens: 3, stop: [\"e\", \"A\"], min_p: 0.01 }");
    workspace.succeed(&["run", "pipeline.yaml"]);
    let count = |condition: &str| workspace.query("small", &format!("SELECT count(*) FROM responses WHERE {condition}"));
    let tokens = "array_length(token_ids) - prompt_token_count";
    assert_eq!(count(&format!("finish_reason = 'stop' AND {tokens} < 3")), "0");
    // The text ends before the stop string, the tokens with it.
    let stopped = "finish_reason = 'stop' AND array_element(token_ids, -1) <> 2";
    assert_ne!(count(stopped), "0");
    assert_eq!(count(&format!("{stopped} AND length(text) <> {tokens} - 1")), "0");
    assert_eq!(count(&format!("{stopped} AND array_element(token_ids, -1) NOT IN (73, 37)")), "0");
}
