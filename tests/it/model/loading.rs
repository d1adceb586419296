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
