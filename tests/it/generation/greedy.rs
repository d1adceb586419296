//! Greedy answers of a real instruct model, against transformers' (`tests/python/greedy.py`).

use std::fs;
use std::path::PathBuf;

use burn::tensor::Device;
use optune::compute::{CpuDecoder, Span};
use optune::model::{Checkpoint, Message, PromptContent};
use serde_json::Value;

/// The likeliest token, the first of equals.
fn likeliest(logits: &[f32]) -> i32 {
    let mut best = 0;
    for (token, logit) in logits.iter().enumerate() {
        if *logit > logits[best] {
            best = token;
        }
    }
    best as i32
}

fn answer(decoder: &CpuDecoder, prompt: &[i32], ends: &[i32], most: usize) -> Vec<i32> {
    let mut cache = decoder.new_cache();
    let sequence = cache.open(None, 8);
    let mut tokens = prompt.to_vec();
    let mut answer = Vec::new();
    while answer.len() < most && answer.last().is_none_or(|last| !ends.contains(last)) {
        let hidden = decoder.forward(&[Span { sequence, tokens: &tokens }], &mut cache).unwrap();
        let mut logits = Vec::new();
        decoder.head(&hidden[hidden.len() - decoder.hidden_size()..], &mut logits);
        tokens = vec![likeliest(&logits)];
        answer.extend_from_slice(&tokens);
    }
    answer
}

#[test]
fn greedy_answers_of_a_real_model_are_those_of_transformers() {
    let Some(folder) = std::env::var_os("OPTUNE_GREEDY_DIR").map(PathBuf::from) else {
        eprintln!("skipped: OPTUNE_GREEDY_DIR is not set");
        return;
    };
    let golden: Value = serde_json::from_slice(&fs::read(folder.join("greedy.json")).unwrap()).unwrap();
    let ids = |value: &Value| -> Vec<Vec<i32>> { serde_json::from_value(value.clone()).unwrap() };
    let conversations: Vec<Vec<Message>> = serde_json::from_value(golden["conversations"].clone()).unwrap();
    let prompts = ids(&golden["prompts"]);
    assert_eq!(prompts.len(), 20);
    for name in ["smollm2", "smollm2-bf16"] {
        let checkpoint = Checkpoint::open(&folder.join(name)).unwrap();
        let decoder = CpuDecoder::from_causal_lm(checkpoint.load(&Device::flex()).unwrap()).unwrap();
        let mut tokens = 0;
        for ((messages, prompt), expected) in conversations.iter().zip(&prompts).zip(ids(&golden["answers"][name])) {
            let encoded = checkpoint.encode_prompt(&PromptContent::Messages(messages.clone().into())).unwrap();
            assert_eq!(encoded, *prompt, "{name}: {messages:?}");
            let most = golden["new_tokens"].as_u64().unwrap() as usize;
            assert_eq!(answer(&decoder, prompt, &checkpoint.generation.eos_token_ids, most), expected, "{name}: {messages:?}");
            tokens += expected.len();
        }
        eprintln!("{name}: {tokens} tokens of {} answers are transformers'", prompts.len());
    }
}
