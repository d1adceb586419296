//! Exports: other number formats, shards, and refusals. Weights of all kinds and places are read on
//! the way.

use std::fs;
use std::path::Path;

use optune::model::{Checkpoint, Dtype};
use serde_json::{Value, json};

use crate::fixtures::models::{blank, blank_checkpoint, device};
use crate::fixtures::real_data::real;
use crate::fixtures::workspace::Workspace;

/// A checkpoint with weights on disk.
fn checkpoint(tied: bool) -> (tempfile::TempDir, Checkpoint) {
    let (folder, checkpoint) = blank(tied);
    checkpoint.save(folder.path(), &checkpoint.init(&device(), 3)).unwrap();
    let checkpoint = Checkpoint::open(folder.path()).unwrap();
    (folder, checkpoint)
}

fn read_json(path: &Path) -> Value {
    serde_json::from_slice(&fs::read(path).unwrap()).unwrap()
}

/// The names of a folder's files, in order.
fn files(folder: &Path) -> Vec<String> {
    let mut names: Vec<String> = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

const NAMES: [&str; 3] = ["model.embed_tokens.weight", "model.layers.1.self_attn.k_proj.weight", "model.norm.weight"];

/// A safetensors file of these tensors: name, dtype, shape, bytes.
fn safetensors(path: &Path, tensors: &[(&str, &str, Value, &[u8])]) {
    let (mut header, mut data) = (serde_json::Map::new(), Vec::new());
    for (name, dtype, shape, bytes) in tensors {
        header.insert((*name).to_string(), json!({"dtype": dtype, "shape": shape, "data_offsets": [data.len(), data.len() + bytes.len()]}));
        data.extend_from_slice(bytes);
    }
    let header = Value::Object(header).to_string();
    fs::write(path, [&(header.len() as u64).to_le_bytes()[..], header.as_bytes(), &data].concat()).unwrap();
}

/// Copies a safetensors file with more tensors in it.
fn with_tensors(path: &Path, tensors: &[(&str, &str, Value, &[u8])]) {
    let bytes = fs::read(path).unwrap();
    let header_bytes = u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
    let mut header: Value = serde_json::from_slice(&bytes[8..8 + header_bytes]).unwrap();
    let mut data = bytes[8 + header_bytes..].to_vec();
    for (name, dtype, shape, bytes) in tensors {
        header[*name] = json!({"dtype": dtype, "shape": shape, "data_offsets": [data.len(), data.len() + bytes.len()]});
        data.extend_from_slice(bytes);
    }
    let header = header.to_string();
    fs::write(path, [&(header.len() as u64).to_le_bytes()[..], header.as_bytes(), &data].concat()).unwrap();
}

#[test]
fn single_precision_is_kept_bit_for_bit_and_half_is_rounded_once() {
    let (folder, original) = checkpoint(false);
    fs::write(folder.path().join("merges.txt"), "#version: 0.2\n").unwrap();
    fs::write(folder.path().join("chat_template.jinja"), "{{ messages[0].content }}").unwrap();
    let exports = tempfile::tempdir().unwrap();
    for (dtype, name) in [(Dtype::F32, "float32"), (Dtype::Bf16, "bfloat16"), (Dtype::F16, "float16")] {
        let output = exports.path().join(name);
        original.export(&output, dtype, u64::MAX).unwrap();
        assert_eq!(read_json(&output.join("config.json"))["torch_dtype"], name);
        for file in ["merges.txt", "chat_template.jinja", "tokenizer.json"] {
            assert_eq!(fs::read(output.join(file)).unwrap(), fs::read(folder.path().join(file)).unwrap());
        }
        let exported = Checkpoint::open(&output).unwrap();
        for parameter in NAMES {
            let (before, after) = (original.parameter(parameter).unwrap(), exported.parameter(parameter).unwrap());
            // Half of the last place in bf16 and f16, for a number below 1.
            let bound = |value: f32| match dtype {
                Dtype::F32 => 0.0,
                Dtype::Bf16 => value.abs() / 256.0,
                Dtype::F16 => value.abs() / 2048.0 + 3e-8,
            };
            assert!(before.iter().zip(&after).all(|(before, after)| (before - after).abs() <= bound(*before)), "{parameter} as {dtype}");
        }
        // Rounded weights stay as they are: the same bytes again.
        let again = exports.path().join(format!("{name} again"));
        exported.export(&again, dtype, u64::MAX).unwrap();
        assert_eq!(files(&again), files(&output));
        for file in files(&output) {
            assert_eq!(fs::read(again.join(&file)).unwrap(), fs::read(output.join(&file)).unwrap(), "{file}");
        }
    }
    let bytes = |name: &str| fs::read(exports.path().join(name).join("model.safetensors")).unwrap();
    assert_eq!(bytes("float32"), fs::read(folder.path().join("model.safetensors")).unwrap());
}

#[test]
fn large_models_go_into_shards_with_an_index() {
    let (_folder, original) = checkpoint(false);
    let output = tempfile::tempdir().unwrap();
    let limit = 9_000;
    original.export(output.path(), Dtype::Bf16, limit).unwrap();
    let index = read_json(&output.path().join("model.safetensors.index.json"));
    assert_eq!(index["metadata"]["total_size"], 2 * original.parameter_count());
    let shards: Vec<String> = files(output.path()).into_iter().filter(|name| name.ends_with(".safetensors")).collect();
    assert!(shards.len() > 1 && shards[0] == format!("model-00001-of-{:05}.safetensors", shards.len()), "{shards:?}");
    for shard in &shards {
        assert!(index["weight_map"].as_object().unwrap().values().any(|name| name == shard));
        let bytes = fs::read(output.path().join(shard)).unwrap();
        let header = u64::from_le_bytes(bytes[..8].try_into().unwrap());
        assert!(bytes.len() as u64 - 8 - header <= limit, "{shard}");
    }
    let whole = tempfile::tempdir().unwrap();
    original.export(whole.path(), Dtype::Bf16, u64::MAX).unwrap();
    assert!(!files(whole.path()).contains(&"model.safetensors.index.json".to_string()));
    let (sharded, whole) = (Checkpoint::open(output.path()).unwrap(), Checkpoint::open(whole.path()).unwrap());
    for parameter in NAMES {
        assert_eq!(sharded.parameter(parameter).unwrap(), whole.parameter(parameter).unwrap(), "{parameter}");
    }
    // A tensor is never divided.
    let single = tempfile::tempdir().unwrap();
    original.export(single.path(), Dtype::F32, 1).unwrap();
    let count = files(single.path()).into_iter().filter(|name| name.ends_with(".safetensors")).count();
    assert_eq!(count, index["weight_map"].as_object().unwrap().len());
}

#[test]
fn reward_models_are_exported_with_their_score() {
    let (_folder, policy) = checkpoint(true);
    let started = policy.with_reward_head(4);
    let output = tempfile::tempdir().unwrap();
    started.export(output.path(), Dtype::F32, u64::MAX).unwrap();
    let exported = Checkpoint::open(output.path()).unwrap();
    assert_eq!(exported.parameter("score.weight").unwrap(), started.parameter("score.weight").unwrap());
    assert!(exported.load_reward_model(&device()).is_ok());
}

#[test]
fn what_cannot_be_exported_says_why() {
    let (folder, _) = checkpoint(true);
    let path = folder.path().join("model.safetensors");
    let mut bytes = fs::read(&path).unwrap();
    let last = bytes.len() - 4;
    bytes[last..].copy_from_slice(&70_000f32.to_le_bytes());
    fs::write(&path, bytes).unwrap();
    let output = tempfile::tempdir().unwrap();
    let large = Checkpoint::open(folder.path()).unwrap();
    let error = large.export(&output.path().join("f16"), Dtype::F16, u64::MAX).unwrap_err().to_string();
    assert!(error.contains("model.norm.weight has the value 70000, which f16 cannot hold"), "{error}");
    assert!(!output.path().join("f16/config.json").exists());
    large.export(&output.path().join("bf16"), Dtype::Bf16, u64::MAX).unwrap();
    let error = large.export(&output.path().join("bf16"), Dtype::Bf16, u64::MAX).unwrap_err().to_string();
    assert!(error.contains("expected an empty folder"), "{error}");
    let blank = Checkpoint::open_blank(folder.path()).unwrap();
    assert!(blank.export(&output.path().join("blank"), Dtype::F32, u64::MAX).unwrap_err().to_string().contains("opened without weights"));
    assert!("fp8".parse::<Dtype>().unwrap_err().to_string().contains("expected f32, bf16 or f16, found \"fp8\""));
}

#[test]
fn shards_that_do_not_hold_what_the_index_says_are_refused() {
    let (_folder, original) = checkpoint(true);
    let sharded = tempfile::tempdir().unwrap();
    let path = sharded.path();
    original.export(path, Dtype::F32, 9_000).unwrap();
    let index_path = path.join("model.safetensors.index.json");
    let index = read_json(&index_path);
    let refused = || Checkpoint::open(path).unwrap_err().to_string();
    let count = files(path).into_iter().filter(|name| name.ends_with(".safetensors")).count();

    let with = |changes: &[(&str, Value)]| {
        let mut index = index.clone();
        for (name, shard) in changes {
            index["weight_map"][*name] = shard.clone();
        }
        fs::write(&index_path, index.to_string()).unwrap();
    };
    let first = format!("model-00001-of-{count:05}.safetensors");
    // As in transformers, only the files count.
    with(&[("model.norm.weight", json!(first)), ("model.extra.weight", json!(first))]);
    assert!(Checkpoint::open(path).is_ok());
    with(&[("model.norm.weight", json!("model-00009-of-00009.safetensors"))]);
    assert!(refused().contains("index.json: names model-00009-of-00009.safetensors, which is not there; download"), "{}", refused());
    with(&[]);
    assert!(Checkpoint::open(path).is_ok());
    fs::write(&index_path, "{}").unwrap();
    assert!(refused().contains("index.json: missing field `weight_map`"), "{}", refused());
    with(&[]);

    let last = path.join(format!("model-{count:05}-of-{count:05}.safetensors"));
    let norm = 1f32.to_le_bytes().repeat(24);
    with_tensors(&last, &[("model.embed_tokens.weight", "F32", json!([24]), &norm)]);
    assert!(refused().contains("tensor model.embed_tokens.weight is in ") && refused().contains(" too"), "{}", refused());
}

#[test]
fn tensors_beside_the_models_own_are_tolerated_only_where_nobody_reads_them() {
    let (folder, original) = checkpoint(true);
    let path = folder.path().join("model.safetensors");
    let clean = fs::read(&path).unwrap();
    let embedding: Vec<u8> = original.parameter(NAMES[0]).unwrap().iter().flat_map(|value| value.to_le_bytes()).collect();
    let opened = |tensors: &[(&str, &str, Value, &[u8])]| {
        fs::write(&path, &clean).unwrap();
        with_tensors(&path, tensors);
        Checkpoint::open(folder.path()).map_err(|error| error.to_string())
    };
    let frequencies = [0; 16];
    assert!(opened(&[("model.layers.0.self_attn.rotary_emb.inv_freq", "F32", json!([4]), &frequencies)]).is_ok());
    assert!(opened(&[("model.rotary_emb.inv_freq", "F64", json!([2]), &frequencies)]).is_ok());
    assert!(opened(&[("model.position_ids", "I64", json!([2]), &frequencies)]).is_ok());
    assert!(opened(&[("lm_head.weight", "F32", json!([40, 24]), &embedding)]).is_ok());
    let mut other = embedding.clone();
    other[2] ^= 1;
    let error = opened(&[("lm_head.weight", "F32", json!([40, 24]), &other)]).unwrap_err();
    assert!(error.contains("lm_head.weight differs from model.embed_tokens.weight, but config.json ties them"), "{error}");
    let error = opened(&[("model.layers.0.self_attn.q_proj.bias", "F32", json!([4]), &frequencies)]).unwrap_err();
    assert!(error.contains("model.layers.0.self_attn.q_proj.bias is not part of the model that config.json describes"), "{error}");
    let error = opened(&[("model.extra", "I64", json!([2]), &frequencies)]).unwrap_err();
    assert!(error.contains("tensor model.extra: dtype is I64; supported: F64, F32, F16, BF16"), "{error}");

    // A reward model may have kept its policy's logits, tied or not.
    let reward = tempfile::tempdir().unwrap();
    let started = original.with_reward_head(1);
    started.export(reward.path(), Dtype::F32, u64::MAX).unwrap();
    with_tensors(&reward.path().join("model.safetensors"), &[("lm_head.weight", "F32", json!([40, 24]), &other)]);
    assert!(Checkpoint::open(reward.path()).unwrap().load_reward_model(&device()).is_ok());
    let score = reward.path().join("model.safetensors");
    safetensors(&score, &[("score.weight", "F32", json!([2, 2]), &frequencies)]);
    let error = Checkpoint::open(reward.path()).unwrap_err().to_string();
    assert!(error.contains("model.embed_tokens.weight is missing") && error.contains("more"), "{error}");

    let empty = tempfile::tempdir().unwrap();
    blank_checkpoint(empty.path(), true);
    fs::write(empty.path().join("pytorch_model.bin"), b"").unwrap();
    let error = Checkpoint::open(empty.path()).unwrap_err().to_string();
    assert!(error.contains("found pytorch_model.bin: convert it to safetensors"), "{error}");
}

#[test]
fn a_policy_of_a_run_is_exported_as_asked() {
    let workspace = Workspace::new();
    workspace.succeed(&["run", "pipeline.yaml"]);
    let said = workspace.succeed(&["export", "policy", "small", "half", "--dtype", "bf16", "--max-shard-size", "2kB"]);
    assert!(said.contains("policy of iteration 2 in half"), "{said}");
    let half = workspace.path("half");
    assert_eq!(read_json(&half.join("config.json"))["torch_dtype"], "bfloat16");
    assert!(half.join("model.safetensors.index.json").exists() && half.join("tokenizer.json").exists());
    assert!(Checkpoint::open(&half).unwrap().load(&device()).is_ok());
    for (arguments, expected) in [
        (["--dtype", "fp8"], "expected f32, bf16 or f16"),
        (["--max-shard-size", "5 parsecs"], "expected a number of B, kB, MB"),
        (["--max-shard-size", "GB"], "expected a size such as 500MB or 5GB"),
        (["--node", "polcy"], "expected a finished model polcy, found:"),
    ] {
        let error = workspace.fail(&[&["export", "policy", "small", "other"], &arguments[..]].concat(), 2);
        assert!(error.contains(expected), "{error}");
        assert!(!workspace.path("other").exists());
    }
}

#[test]
fn a_trained_model_survives_its_export() {
    let Some(stories) = real("stories260K") else { return };
    let output = tempfile::tempdir().unwrap();
    let original = Checkpoint::open(&stories).unwrap();
    original.export(output.path(), Dtype::F16, 100_000).unwrap();
    let exported = Checkpoint::open(output.path()).unwrap();
    assert_eq!(exported.parameter_count(), 260_032);
    let (before, after) = (original.parameter(NAMES[0]).unwrap(), exported.parameter(NAMES[0]).unwrap());
    assert!(before.iter().zip(&after).all(|(before, after)| (before - after).abs() <= before.abs() / 2048.0 + 3e-8));
}
