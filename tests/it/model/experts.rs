//! Routed experts beyond what all families are tested for: greedy ids, names and forms of weights,
//! adapters, and configurations that are refused. Goldens of `tests/python/experts.py`.

use std::fs;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use optune::compute::Precision;
use optune::generation::{Generator, Penalties, Sampling};
use optune::model::{AdapterConfig, Checkpoint, Dtype, ModelConfig, ModuleNames};
use optune::token_lists::TokenLists;
use serde_json::{Value, json};

use crate::fixtures::files::copy_folder;
use crate::fixtures::models::{all_logits, device, largest_difference, numbers};

fn folder(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/families").join(name)
}

fn json_of(path: &Path) -> Value {
    serde_json::from_slice(&fs::read(path).unwrap()).unwrap()
}

/// The models with routed experts, and their further goldens.
fn models() -> [(&'static str, Value); 4] {
    ["mixtral", "qwen3_moe", "qwen3_moe_fused", "qwen3_moe_lora"].map(|name| (name, json_of(&folder(name).join("experts.json"))))
}

fn ids(value: &Value) -> Vec<i32> {
    serde_json::from_value(value.clone()).unwrap()
}

#[test]
fn greedy_ids_are_those_of_transformers_alone_and_together() {
    for (name, golden) in models() {
        let rows: Vec<Vec<i32>> = json_of(&folder(name).join("golden.json"))["rows"].as_array().unwrap().iter().map(ids).collect();
        let expected: Vec<Vec<i32>> = golden["greedy"].as_array().unwrap().iter().map(ids).collect();
        let prompts = TokenLists::from_rows(&rows[..expected.len()]).unwrap();
        let greedy = Sampling {
            temperature: 0.0,
            top_p: 1.0,
            top_k: 0,
            min_p: 0.0,
            penalties: Penalties::NONE,
            min_new_tokens: 0,
            max_new_tokens: expected[0].len(),
            eos: vec![],
            vocabulary_size: usize::MAX,
            max_total_tokens: 64,
        };
        let checkpoint = Checkpoint::open(&folder(name)).unwrap();
        for batch in [1, 3] {
            let generator = Generator::load(&checkpoint, &device(), Precision::F32).unwrap();
            let seeds = vec![vec![[0; 32]]; expected.len()];
            let found = generator.generate(&prompts, &seeds, &greedy, batch, &mut |_| ControlFlow::Continue(())).unwrap();
            for (row, (expected, prompt)) in expected.iter().zip(&rows).enumerate() {
                assert_eq!(found.sequences.row(row).unwrap()[prompt.len()..], expected[..], "{name}, row {row}, {batch} at a time");
            }
        }
    }
}

/// The names of the tensors in a folder's single file.
fn tensors(folder: &Path) -> Vec<String> {
    let bytes = fs::read(folder.join("model.safetensors")).unwrap();
    let header = u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
    let header: Value = serde_json::from_slice(&bytes[8..8 + header]).unwrap();
    header.as_object().unwrap().keys().cloned().collect()
}

#[test]
fn experts_are_written_under_the_names_of_the_hub_whatever_they_were_read_from() {
    for (name, written) in [
        ("mixtral", "model.layers.1.block_sparse_moe.experts.3.w2.weight"),
        ("qwen3_moe", "model.layers.2.mlp.experts.3.down_proj.weight"),
        ("qwen3_moe_fused", "model.layers.1.mlp.experts.4.up_proj.weight"),
    ] {
        let checkpoint = Checkpoint::open(&folder(name)).unwrap();
        let out = tempfile::tempdir().unwrap();
        checkpoint.export(&out.path().join("export"), Dtype::F32, u64::MAX).unwrap();
        checkpoint.save(&out.path().join("saved"), &checkpoint.load(&device()).unwrap()).unwrap();
        for folder in ["export", "saved"] {
            let names = tensors(&out.path().join(folder));
            assert!(names.iter().any(|name| name == written), "{name}: {names:?}");
            assert!(!names.iter().any(|name| name.ends_with("gate_up_proj")), "{name}: {names:?}");
        }
        let [export, saved] = ["export", "saved"].map(|folder| fs::read(out.path().join(folder).join("model.safetensors")).unwrap());
        assert!(export == saved, "{name}: a model saved is the checkpoint exported");
    }
}

#[test]
fn weights_of_experts_that_do_not_fit_are_named() {
    let copy = tempfile::tempdir().unwrap();
    copy_folder(&folder("qwen3_moe_fused"), copy.path());
    let path = copy.path().join("config.json");
    let config = json_of(&path);
    let refused = |changes: Value| {
        let mut config = config.clone();
        changes.as_object().unwrap().iter().for_each(|(key, value)| config[key] = value.clone());
        fs::write(&path, config.to_string()).unwrap();
        Checkpoint::open(copy.path()).map(|_| ()).unwrap_err().to_string()
    };
    let found = refused(json!({"num_local_experts": 4}));
    assert!(found.contains("model.layers.1.mlp.experts.down_proj has shape [5, 16, 12], config.json asks for [4, 16, 12]"), "{found}");
    let found = refused(json!({"moe_intermediate_size": 24}));
    assert!(found.contains("asks for [5, 16, 24]"), "{found}");
    let found = refused(json!({"decoder_sparse_step": 1}));
    assert!(found.contains("model.layers.0.mlp.experts.0.gate_proj.weight is missing"), "{found}");

    let copy = tempfile::tempdir().unwrap();
    copy_folder(&folder("mixtral_reward"), copy.path());
    let path = copy.path().join("config.json");
    let mut config = json_of(&path);
    config["num_hidden_layers"] = json!(3);
    fs::write(&path, config.to_string()).unwrap();
    let found = Checkpoint::open(copy.path()).map(|_| ()).unwrap_err().to_string();
    assert!(found.contains("model.layers.2.block_sparse_moe.gate.weight is missing"), "{found}");
}

#[test]
fn settings_of_experts_are_read_as_transformers_reads_them() {
    let config = |name: &str| json_of(&folder(name).join("config.json"));
    let read = |name: &str, changes: Value| {
        let mut config = config(name);
        changes.as_object().unwrap().iter().for_each(|(key, value)| config[key] = value.clone());
        ModelConfig::from_json(&config)
    };
    let routed = |config: &ModelConfig| config.layers.iter().map(|layer| layer.routed).collect::<Vec<bool>>();
    let qwen = read("qwen3_moe", json!({})).unwrap();
    assert_eq!(routed(&qwen), [true, false, true]);
    assert_eq!(routed(&read("qwen3_moe", json!({"mlp_only_layers": null, "decoder_sparse_step": 2})).unwrap()), [false, true, false]);
    assert_eq!(read("mixtral", json!({})).unwrap().rms_norm_eps, 1e-5);
    let mut bare = config("mixtral");
    for key in ["num_local_experts", "num_experts_per_tok", "rms_norm_eps"] {
        bare.as_object_mut().unwrap().remove(key);
    }
    let bare = ModelConfig::from_json(&bare).unwrap();
    let experts = bare.experts.unwrap();
    assert_eq!((experts.num_experts, experts.num_experts_per_tok, experts.norm_topk_prob, bare.rms_norm_eps), (8, 2, true, 1e-5));

    for config in [json!({"architectures": ["GptOssForCausalLM"], "model_type": "gpt_oss"}), json!({"model_type": "gpt_oss"})] {
        let found = ModelConfig::from_json(&config).unwrap_err();
        assert!(found.contains("attention sinks, mxfp4 weights, and experts with biases and a clamped activation"), "{found}");
    }
    for (name, changes, said) in [
        ("mixtral", json!({"router_jitter_noise": 0.1}), "router_jitter_noise is 0.1, which is not supported"),
        ("mixtral", json!({"num_experts_per_tok": 5}), "num_experts_per_tok is 5, expected at most the 4 experts of a layer"),
        ("mixtral", json!({"num_experts_per_tok": 0}), "num_experts_per_tok is 0, expected 1 to"),
        ("mixtral", json!({"num_experts": 7}), "num_local_experts is 4, but num_experts says 7"),
        ("mixtral", json!({"num_local_experts": 1_000_000}), "expected at most 131072 experts in all"),
        ("qwen3_moe", json!({"moe_intermediate_size": "wide"}), "moe_intermediate_size: invalid type"),
        ("qwen3_moe", json!({"decoder_sparse_step": 0}), "decoder_sparse_step is 0, expected 1 to"),
        (
            "qwen3_moe",
            json!({"layer_types": ["sliding_attention", "full_attention", "full_attention"], "use_sliding_window": true, "sliding_window": 4}),
            "Qwen3-MoE has the same sliding_window in all of them",
        ),
    ] {
        let found = read(name, changes).unwrap_err();
        assert!(found.contains(said), "{name}: expected {said:?} in: {found}");
    }
}

#[test]
fn memory_is_counted_by_the_experts_of_a_token() {
    let checkpoint = Checkpoint::open(&folder("qwen3_moe")).unwrap();
    // transformers' own number of parameters.
    assert_eq!(checkpoint.parameter_count(), 11_728);
    let config = &checkpoint.config;
    let dense = ModelConfig {
        experts: None,
        layers: config.layers.iter().map(|layer| optune::model::LayerConfig { routed: false, ..*layer }).collect(),
        ..config.clone()
    };
    // Two of three layers have, in place of 2 · 20 gates and ups, those of two experts of 12 and four
    // probabilities.
    let more = 2 * 4 * (2 * 2 * 12 + 4 - 2 * 20);
    assert_eq!(config.kept_bytes_per_token(false), dense.kept_bytes_per_token(false) + more);
}

#[test]
fn adapters_on_experts_give_the_logits_of_peft() {
    for (name, golden) in models().into_iter().filter(|(_, golden)| golden["lora"].is_object()) {
        let sequence = ids(&golden["lora"]["sequence"]);
        let expected: Vec<f32> = numbers(&golden["lora"]["logits"]).into_iter().map(|logit| logit as f32).collect();
        let checkpoint = Checkpoint::open(&folder(name)).unwrap();
        let without = all_logits(&checkpoint.load(&device()).unwrap(), &sequence);
        let checkpoint = checkpoint.with_adapter(&folder(name).join("lora")).unwrap();
        let merged = all_logits(&checkpoint.load(&device()).unwrap(), &sequence);
        let config = checkpoint.adapter().unwrap().clone();
        let model = checkpoint.load_adapted(&device(), &config, 0).unwrap();
        let difference = largest_difference(&merged, &expected).max(largest_difference(&all_logits(&model, &sequence), &expected));
        eprintln!("{name}: largest difference of a logit with an adapter {difference:.1e}");
        assert!(difference < 1e-4 && largest_difference(&merged, &without) > 0.1, "{name}: {difference}");

        // Written again, it has the same bytes of values under the same names.
        let out = tempfile::tempdir().unwrap();
        checkpoint.save_adapter(out.path(), &config, &model).unwrap();
        let again = Checkpoint::open(&folder(name)).unwrap().with_adapter(out.path()).unwrap();
        assert_eq!(all_logits(&again.load(&device()).unwrap(), &sequence), merged, "{name}");
    }
}

#[test]
fn adapters_on_experts_that_peft_has_not_are_refused() {
    for (name, dropout, targets, said) in [
        (
            "mixtral",
            0.1,
            vec!["w2"],
            "dropout is 0.1, expected 0: PEFT has no dropout on experts, and model.layers.0.block_sparse_moe.experts.0.w2",
        ),
        ("qwen3_moe_lora", 0.1, vec!["down_proj"], "experts.0.down_proj is one's"),
        ("mixtral", 0.0, vec!["w1", "w2"], "experts.0.w1 without w3: PEFT has both in one tensor"),
        ("qwen3_moe_lora", 0.0, vec!["up_proj"], "experts.0.up_proj without gate_proj"),
        ("qwen3_moe", 0.0, vec!["down_proj"], "targets have model.layers.1.mlp.down_proj beside model.layers.0.mlp.experts.0.down_proj"),
    ] {
        let checkpoint = Checkpoint::open(&folder(name)).unwrap();
        let config = {
            let targets = ModuleNames::Names(targets.into_iter().map(str::to_string).collect());
            AdapterConfig { rank: 2, alpha: 4.0, dropout, targets, ..AdapterConfig::default() }
        };
        let error = checkpoint.load_adapted(&device(), &config, 0).map(|_| ()).unwrap_err().to_string();
        assert!(error.contains(said), "{name}: expected {said:?} in: {error}");
        let attention = AdapterConfig { dropout: 0.1, targets: ModuleNames::Names(vec!["q_proj".to_string()]), ..config };
        checkpoint.load_adapted(&device(), &attention, 0).unwrap();
    }
}
