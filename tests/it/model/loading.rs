//! Checkpoints in all the ways that transformers loads, and pointers of Git LFS in place of files.

use std::fs;
use std::path::{Path, PathBuf};

use optune::model::{Checkpoint, Dtype, ModelConfig, SpecialTokens};
use serde_json::{Value, json};

use crate::fixtures::files::copy_folder;
use crate::fixtures::models::{all_logits, blank, device, largest_difference, numbers};

/// A folder by the Python script `checkpoints.py`.
fn made(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/checkpoints").join(name)
}

fn read_json(path: &Path) -> Value {
    serde_json::from_slice(&fs::read(path).unwrap()).unwrap()
}

#[test]
fn what_transformers_loads_has_the_logits_of_transformers() {
    let mut names: Vec<_> = fs::read_dir(made("")).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    assert!(names.len() >= 9, "{names:?}");
    for name in names {
        let golden = read_json(&made(&name).join("golden.json"));
        let expected: Vec<f32> = numbers(&golden["logits"]).into_iter().map(|logit| logit as f32).collect();
        let ids: Vec<i32> = numbers(&golden["ids"]).into_iter().map(|id| id as i32).collect();
        let checkpoint = Checkpoint::open(&made(&name)).unwrap_or_else(|error| panic!("{name}: {error}"));
        let difference = largest_difference(&all_logits(&checkpoint.load(&device()).unwrap(), &ids), &expected);
        assert!(difference < 2e-5, "{name}: {difference}");

        // Written anew it is a checkpoint in the usual words.
        let folder = tempfile::tempdir().unwrap();
        checkpoint.export(folder.path(), Dtype::F32, u64::MAX).unwrap();
        assert_eq!(read_json(&folder.path().join("config.json"))["architectures"], json!(["LlamaForCausalLM"]), "{name}");
        let again = Checkpoint::open(folder.path()).unwrap();
        assert!(largest_difference(&all_logits(&again.load(&device()).unwrap(), &ids), &expected) < 2e-5, "{name}");
    }
}

#[test]
fn a_token_beyond_the_vocabulary_is_an_error_in_a_text_that_has_it_only() {
    for (name, token) in [("one_id_beyond", "w24"), ("padding_beyond", "[PAD]")] {
        let tokenizer = Checkpoint::open(&made(name)).unwrap().tokenizer;
        assert_eq!(tokenizer.encode("w3 w23", SpecialTokens::Written).unwrap(), [3, 23], "{name}");
        assert_eq!(tokenizer.token_id(token), None, "{name}");
        let error = tokenizer.encode(&format!("w3 {token}"), SpecialTokens::Written).unwrap_err().to_string();
        let said = format!("expected tokens below the model's vocab_size 24, found 24 ({token:?})");
        assert!(error.contains(&said), "{name}: {error}");
    }
    // A reward model is padded with a token that the model has.
    let reward = Checkpoint::open(&made("padding_beyond")).unwrap().with_reward_head(1);
    let folder = tempfile::tempdir().unwrap();
    reward.export(folder.path(), Dtype::F32, u64::MAX).unwrap();
    let padding = read_json(&folder.path().join("config.json"))["pad_token_id"].as_u64().unwrap();
    assert!(padding < 24, "{padding}");
}

#[test]
fn the_class_says_the_head_and_the_model_type_the_family() {
    let config = |changes: Value| {
        let mut config = json!({"model_type": "llama", "vocab_size": 40, "hidden_size": 24, "intermediate_size": 36,
            "num_hidden_layers": 1, "num_attention_heads": 4});
        config.as_object_mut().unwrap().extend(changes.as_object().unwrap().clone());
        ModelConfig::from_json(&config).map(|config| config.head)
    };
    use optune::model::Head;
    assert_eq!(config(json!({})), Ok(Head::CausalLm));
    assert_eq!(config(json!({"architectures": null})), Ok(Head::CausalLm));
    assert_eq!(config(json!({"architectures": ["LlamaModel"]})), Ok(Head::CausalLm));
    assert_eq!(config(json!({"id2label": {"0": "LABEL_0"}})), Ok(Head::Reward));
    let error = config(json!({"architectures": ["MistralModel"]})).unwrap_err();
    assert!(error.contains("architectures is MistralModel; supported"), "{error}");
    let error = config(json!({"architectures": ["LlamaForQuestionAnswering"]})).unwrap_err();
    assert!(error.contains("architectures is LlamaForQuestionAnswering; supported"), "{error}");
}

#[test]
fn a_git_lfs_pointer_is_named_as_such() {
    let pointer = "version https://git-lfs.github.com/spec/v1\noid sha256:4d7a214614ab2935c943f9e0ff69d22eadbb8f32b1258daaa5e2ca24d17e2393\nsize 12345\n";
    for name in ["model.safetensors", "tokenizer.json", "config.json"] {
        let folder = tempfile::tempdir().unwrap();
        copy_folder(&made("doubles"), folder.path());
        fs::write(folder.path().join(name), pointer).unwrap();
        let error = Checkpoint::open(folder.path()).unwrap_err().to_string();
        assert!(error.contains(name) && error.contains("found a Git LFS pointer") && error.contains("git lfs pull"), "{error}");
    }
    // A file that is copied only.
    let (folder, checkpoint) = blank(true);
    fs::write(folder.path().join("tokenizer.model"), pointer).unwrap();
    let error = checkpoint.save(&folder.path().join("saved"), &checkpoint.init(&device(), 1)).unwrap_err().to_string();
    assert!(error.contains("tokenizer.model") && error.contains("found a Git LFS pointer"), "{error}");
}

/// Copies a safetensors file under other names of its tensors.
fn renamed(from: &Path, to: &Path, rename: impl Fn(&str) -> String) {
    let bytes = fs::read(from).unwrap();
    let header_bytes = u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
    let header: serde_json::Map<String, Value> = serde_json::from_slice(&bytes[8..8 + header_bytes]).unwrap();
    let header: serde_json::Map<String, Value> = header.into_iter().map(|(name, entry)| (rename(&name), entry)).collect();
    let header = Value::Object(header).to_string();
    fs::write(to, [&(header.len() as u64).to_le_bytes()[..], header.as_bytes(), &bytes[8 + header_bytes..]].concat()).unwrap();
}

/// The logits are in `families.rs`.
#[test]
fn a_model_with_images_is_read_and_written_as_its_language_model() {
    let original = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/families/gemma3_images");
    let checkpoint = Checkpoint::open(&original).unwrap();
    assert_eq!((checkpoint.config.family, checkpoint.config.layers.len()), ("Gemma3", 3));
    assert_eq!((checkpoint.config.bos_token_id, &checkpoint.generation.eos_token_ids), (Some(1), &vec![2]));
    let norm = checkpoint.parameter("model.norm.weight").unwrap();

    // The names in the hub's files, and those of transformers 5 in memory.
    let hub = |name: &str| match name.strip_prefix("model.language_model.") {
        Some(inner) => format!("language_model.model.{inner}"),
        None => name.strip_prefix("model.").unwrap_or(name).to_string(),
    };
    let new = |name: &str| match name.strip_prefix("language_model.model.") {
        Some(inner) => format!("model.language_model.{inner}"),
        None if name.starts_with("model.") || name.starts_with("__") => name.to_string(),
        None => format!("model.{name}"),
    };
    for rename in [&hub as &dyn Fn(&str) -> String, &new] {
        let folder = tempfile::tempdir().unwrap();
        for file in ["config.json", "tokenizer.json"] {
            fs::copy(original.join(file), folder.path().join(file)).unwrap();
        }
        renamed(&original.join("model.safetensors"), &folder.path().join("model.safetensors"), rename);
        assert_eq!(Checkpoint::open(folder.path()).unwrap().parameter("model.norm.weight").unwrap(), norm);
    }

    let exported = tempfile::tempdir().unwrap();
    checkpoint.export(exported.path(), Dtype::Bf16, u64::MAX).unwrap();
    let config: Value = serde_json::from_slice(&fs::read(exported.path().join("config.json")).unwrap()).unwrap();
    assert_eq!((&config["architectures"], &config["model_type"]), (&json!(["Gemma3ForCausalLM"]), &json!("gemma3_text")));
    assert!(config.get("vision_config").is_none() && config.get("text_config").is_none());
    assert_eq!(Checkpoint::open(exported.path()).unwrap().parameter("model.norm.weight").unwrap(), norm);

    // What a file of the hub leaves out is what transformers takes.
    let small = json!({"architectures": ["Gemma3ForConditionalGeneration"], "model_type": "gemma3", "eos_token_id": [1, 106], "text_config": {
        "hidden_size": 2560, "intermediate_size": 10240, "model_type": "gemma3_text", "num_hidden_layers": 34,
        "rope_scaling": {"factor": 8.0, "rope_type": "linear"}, "sliding_window": 1024}, "vision_config": {"hidden_size": 1152}});
    let config = ModelConfig::from_json(&small).unwrap();
    let sizes = (config.vocab_size, config.num_attention_heads, config.num_key_value_heads, config.head_dim);
    assert_eq!((sizes, config.tie_word_embeddings, config.eos_token_ids), ((262_208, 8, 4, 256), true, vec![1, 106]));
    // Another class of this type, and one without a language model of its own, are no such models.
    for wrong in [json!({"architectures": ["Gemma3Other"]}), json!({"text_config": null})] {
        let mut config = small.clone();
        config.as_object_mut().unwrap().extend(wrong.as_object().unwrap().clone());
        assert!(ModelConfig::from_json(&config).unwrap_err().contains("architectures is Gemma3"), "{wrong}");
    }
}
