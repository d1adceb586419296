//! The model against Hugging Face's own numbers, and its checkpoint, tokenizer and chat template on what users get wrong.

use std::fs;
use std::path::{Path, PathBuf};

use burn::tensor::{DType, Device, Int, Tensor, TensorData};
use optune::model::{ChatTemplate, Checkpoint, DeviceChoice, Llama, Message, Padding, Placement, Sequences, SpecialTokens};
use serde_json::{Value, json};

/// The device that `OPTUNE_DEVICE` names; the processor unless it is set.
pub fn device() -> Device {
    let choice = std::env::var("OPTUNE_DEVICE").map_or(Ok(DeviceChoice::Cpu), |text| text.parse());
    choice.and_then(DeviceChoice::resolve).expect("OPTUNE_DEVICE names a usable device")
}

/// A folder of real data; `None`, with a word about it, where it was not provided.
pub fn real(path: &str) -> Option<PathBuf> {
    match std::env::var_os("OPTUNE_REAL_DIR") {
        Some(folder) => Some(Path::new(&folder).join(path)),
        None => {
            eprintln!("skipped: OPTUNE_REAL_DIR is not set");
            None
        }
    }
}

/// A checkpoint folder without weights: a small untied or tied model, and a tokenizer of single letters.
pub fn blank_checkpoint(folder: &Path, tied: bool) {
    let config = json!({
        "architectures": ["LlamaForCausalLM"], "vocab_size": 40, "hidden_size": 24, "intermediate_size": 36, "num_hidden_layers": 2,
        "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 8, "max_position_embeddings": 64, "rms_norm_eps": 1e-5,
        "tie_word_embeddings": tied, "bos_token_id": 1, "eos_token_id": 2, "initializer_range": 0.2, "torch_dtype": "bfloat16",
    });
    fs::write(folder.join("config.json"), config.to_string()).unwrap();
    let mut vocabulary = serde_json::Map::new();
    for (id, token) in ["<unk>", "<s>", "</s>", " "].into_iter().enumerate() {
        vocabulary.insert(token.to_string(), json!(id));
    }
    for (id, letter) in ('a'..='z').enumerate() {
        vocabulary.insert(letter.to_string(), json!(id + 4));
    }
    let special = |id: u32, content: &str| json!({"id": id, "content": content, "single_word": false, "lstrip": false, "rstrip": false, "normalized": false, "special": true});
    let tokenizer = json!({
        "version": "1.0", "truncation": {"direction": "Right", "max_length": 3, "strategy": "LongestFirst", "stride": 0}, "padding": null,
        "added_tokens": [special(0, "<unk>"), special(1, "<s>"), special(2, "</s>")],
        "normalizer": null, "pre_tokenizer": null, "decoder": {"type": "Fuse"},
        "post_processor": {
            "type": "TemplateProcessing",
            "single": [{"SpecialToken": {"id": "<s>", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}],
            "pair": [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 1}}],
            "special_tokens": {"<s>": {"id": "<s>", "ids": [1], "tokens": ["<s>"]}},
        },
        "model": {"type": "BPE", "dropout": null, "unk_token": "<unk>", "vocab": vocabulary, "merges": []},
    });
    fs::write(folder.join("tokenizer.json"), tokenizer.to_string()).unwrap();
}

fn blank(tied: bool) -> (tempfile::TempDir, Checkpoint) {
    let folder = tempfile::tempdir().unwrap();
    blank_checkpoint(folder.path(), tied);
    let checkpoint = Checkpoint::open_blank(folder.path()).unwrap();
    (folder, checkpoint)
}

fn values<const D: usize>(tensor: Tensor<D>) -> Vec<f32> {
    tensor.into_data().try_into_vec().unwrap()
}

fn ids(rows: &[&[i32]], device: &Device) -> Tensor<2, Int> {
    let shape = [rows.len(), rows[0].len()];
    Tensor::from_data(TensorData::new(rows.concat(), shape), (device, DType::I32))
}

fn largest_difference(left: &[f32], right: &[f32]) -> f32 {
    assert_eq!(left.len(), right.len());
    left.iter().zip(right).map(|(left, right)| (left - right).abs()).fold(0.0, f32::max)
}

/// The logits of every position of one sequence, without a cache.
fn all_logits(model: &Llama, sequence: &[i32]) -> Vec<f32> {
    let device = model.device();
    let placement = Placement::right_padded(sequence.len(), &device);
    values(model.logits(model.hidden(ids(&[sequence], &device), &placement, None)))
}

#[test]
fn stories_logits_and_greedy_ids_are_those_of_hugging_face() {
    let (Some(folder), Some(golden)) = (real("stories260K"), real("golden/stories260K.json")) else { return };
    let golden: Value = serde_json::from_str(&fs::read_to_string(golden).unwrap()).unwrap();
    let numbers = |name: &str| -> Vec<f64> { golden[name].as_array().unwrap().iter().map(|value| value.as_f64().unwrap()).collect() };
    let greedy: Vec<i32> = numbers("greedy_ids").iter().map(|id| *id as i32).collect();
    let prefix: Vec<i32> = numbers("prefix").iter().map(|id| *id as i32).collect();
    let expected: Vec<f32> = numbers("logits_pos8").iter().map(|logit| *logit as f32).collect();

    let device = device();
    let model = Checkpoint::open(&folder).unwrap().load(&device).unwrap();
    let vocabulary = expected.len();
    let logits = all_logits(&model, &prefix);
    assert!(largest_difference(&logits[logits.len() - vocabulary..], &expected) < 1e-4);

    // Without the cache one pass over the whole sequence predicts every next id.
    let predicted: Vec<i32> = all_logits(&model, &greedy[..greedy.len() - 1]).chunks(vocabulary).map(argmax).collect();
    assert_eq!(predicted, greedy[1..]);

    // Through the cache each id is fed back.
    let mut cache = model.new_cache();
    let mut produced = vec![greedy[0]];
    for step in 0..greedy.len() - 1 {
        let placement = Placement::next(&[1], step, &device);
        let placement = if step == 0 { Placement::left_padded(&[1], &device) } else { Placement { ..Placement::next(&[1], step - 1 + 1, &device) } };
        let hidden = model.hidden(ids(&[&produced[step..]], &device), &placement, Some(&mut cache));
        produced.push(argmax(&values(model.logits(hidden))));
    }
    assert_eq!(produced, greedy);
}

fn argmax(logits: &[f32]) -> i32 {
    let best = logits.iter().enumerate().max_by(|left, right| left.1.total_cmp(right.1));
    best.unwrap().0 as i32
}
