//! A file of a model directory; the first line says which one.
//!
//! A safetensors file that begins with a brace is a header alone: its length comes before it and as many zeros behind it as it says, up to a
//! limit. All other files are as they are.

use std::fs;
use std::path::Path;

use optune::model::{Checkpoint, Message, SpecialTokens};

const FILES: [&str; 10] = [
    "config.json",
    "generation_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "chat_template.jinja",
    "model.safetensors",
    "model.safetensors.index.json",
    "adapter_config.json",
    "adapter_model.safetensors",
];

const CONFIG: &str = r#"{"architectures": ["LlamaForCausalLM"], "vocab_size": 8, "hidden_size": 4, "intermediate_size": 4,
"num_hidden_layers": 1, "num_attention_heads": 2, "num_key_value_heads": 1, "head_dim": 2, "tie_word_embeddings": true}"#;
const TOKENIZER: &str = r#"{"version": "1.0", "truncation": null, "padding": null, "added_tokens": [], "normalizer": null,
"pre_tokenizer": null, "post_processor": null, "decoder": {"type": "Fuse"}, "model": {"type": "BPE", "dropout": null,
"unk_token": "?", "vocab": {"?": 0, "a": 1, "b": 2, "ab": 3, " ": 4}, "merges": ["a b"]}}"#;
const ADAPTER: &str = r#"{"peft_type": "LORA", "base_model_name_or_path": "base", "r": 1, "lora_alpha": 2, "target_modules": ["q_proj"]}"#;
const LAYER: &str = "model.layers.0";

/// The names and shapes of the model's parameters.
fn parameters() -> Vec<(String, Vec<usize>)> {
    let mut all = vec![("model.embed_tokens.weight".to_string(), vec![8, 4]), ("model.norm.weight".to_string(), vec![4])];
    for (name, rows) in [("q_proj", 4), ("k_proj", 2), ("v_proj", 2), ("o_proj", 4)] {
        all.push((format!("{LAYER}.self_attn.{name}.weight"), vec![rows, 4]));
    }
    all.extend(["gate_proj", "up_proj", "down_proj"].map(|name| (format!("{LAYER}.mlp.{name}.weight"), vec![4, 4])));
    all.extend(["input_layernorm", "post_attention_layernorm"].map(|name| (format!("{LAYER}.{name}.weight"), vec![4])));
    all
}

/// The header of a file with these tensors.
fn header(tensors: &[(String, Vec<usize>)]) -> String {
    let mut start = 0;
    let entry = |(name, shape): &(String, Vec<usize>)| {
        let end = start + shape.iter().product::<usize>() * 4;
        let entry = format!("{name:?}:{{\"dtype\":\"F32\",\"shape\":{shape:?},\"data_offsets\":[{start},{end}]}}");
        start = end;
        entry
    };
    format!("{{{}}}", tensors.iter().map(entry).collect::<Vec<_>>().join(","))
}

/// A safetensors file from its header.
fn weights(header: &[u8]) -> Vec<u8> {
    let entries: serde_json::Value = serde_json::from_slice(header).unwrap_or_default();
    let ends = entries.as_object().into_iter().flat_map(|entries| entries.values()).filter_map(|entry| entry["data_offsets"][1].as_u64());
    let values = usize::try_from(ends.max().unwrap_or(0)).unwrap_or(usize::MAX).min(1 << 16);
    [&(header.len() as u64).to_le_bytes()[..], header, &vec![0; values]].concat()
}

fn fill(folder: &Path) {
    let write = |name: &str, bytes: &[u8]| fs::write(folder.join(name), bytes).unwrap();
    for inner in ["base", "sharded", "adapter"] {
        fs::create_dir(folder.join(inner)).unwrap();
    }
    for model in ["base", "sharded"] {
        write(&format!("{model}/config.json"), CONFIG.as_bytes());
        write(&format!("{model}/tokenizer.json"), TOKENIZER.as_bytes());
    }
    let all = parameters();
    write("base/model.safetensors", &weights(header(&all).as_bytes()));
    write("sharded/one.safetensors", &weights(header(&all[..3]).as_bytes()));
    write("sharded/two.safetensors", &weights(header(&all[3..]).as_bytes()));
    write("adapter/adapter_config.json", ADAPTER.as_bytes());
    let factors = ["lora_A", "lora_B"].map(|factor| format!("base_model.model.{LAYER}.self_attn.q_proj.{factor}.weight"));
    write(
        "adapter/adapter_model.safetensors",
        &weights(header(&[(factors[0].clone(), vec![1, 4]), (factors[1].clone(), vec![4, 1])]).as_bytes()),
    );
    Checkpoint::open(&folder.join("base")).unwrap();
    Checkpoint::open(&folder.join("adapter")).unwrap();
}

/// Opens the model, and does what a run does with its tokenizer and its weights.
pub fn model(bytes: &[u8]) {
    let folder = super::folder("model", fill);
    let (line, rest) = super::headed(bytes);
    let name = FILES.into_iter().find(|name| *name == line.trim()).unwrap_or(FILES[0]);
    let inner = match name {
        "model.safetensors.index.json" => "sharded",
        name if name.starts_with("adapter") => "adapter",
        _ => "base",
    };
    let path = folder.join(inner).join(name);
    let before = fs::read(&path).ok();
    let bytes = if name.ends_with(".safetensors") && rest.starts_with(b"{") { weights(rest) } else { rest.to_vec() };
    fs::write(&path, bytes).unwrap();
    match Checkpoint::open(&folder.join(inner)) {
        Ok(checkpoint) => used(&checkpoint),
        Err(error) => super::said(error),
    }
    match before {
        Some(bytes) => fs::write(&path, bytes).unwrap(),
        None => fs::remove_file(&path).unwrap(),
    }
}

fn used(checkpoint: &Checkpoint) {
    assert!(checkpoint.parameter_count() > 0);
    for (name, shape) in parameters() {
        match checkpoint.parameter(&name) {
            Ok(values) => assert_eq!(values.len(), shape.iter().product::<usize>(), "{name}"),
            Err(error) => super::said(error),
        }
    }
    for text in ["ab a", "", "é漢\u{0} ba\n"] {
        for special in [SpecialTokens::Added, SpecialTokens::Opening, SpecialTokens::Written] {
            match checkpoint.tokenizer.encode(text, special) {
                Ok(ids) => checkpoint.tokenizer.decode(&ids).map(drop).unwrap_or_else(super::said),
                Err(error) => super::said(error),
            }
        }
        checkpoint.tokenizer.encode_pair(text, &format!("{text}ab"), SpecialTokens::Added).map(drop).unwrap_or_else(super::said);
    }
    checkpoint.tokenizer.decode(&[0, 1, 7, i32::MAX]).map(drop).unwrap_or_else(super::said);
    if let Some(template) = &checkpoint.chat_template {
        let message = Message::new("user", "ab");
        template.render(&[message], true).map(drop).unwrap_or_else(super::said);
    }
}
