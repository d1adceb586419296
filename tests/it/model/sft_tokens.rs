//! The token ids of demonstrations beside TRL's `SFTTrainer` (`tests/python/sft_tokens.py`): texts,
//! prompts with completions, and every message of the assistant in a conversation.

use std::fs;
use std::path::Path;

use optune::model::{Checkpoint, Message, PromptContent};
use serde_json::Value;

fn golden() -> Value {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/sft_tokens.json");
    serde_json::from_slice(&fs::read(path).unwrap()).unwrap()
}

/// The model of the golden rows, maybe with another chat template.
fn checkpoint(template: Option<&str>) -> Checkpoint {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/datasets/model");
    let Some(template) = template else { return Checkpoint::open_blank(&folder).unwrap() };
    let copy = tempfile::tempdir().unwrap();
    for file in ["config.json", "tokenizer.json", "tokenizer_config.json"] {
        fs::copy(folder.join(file), copy.path().join(file)).unwrap();
    }
    fs::write(copy.path().join("chat_template.jinja"), template).unwrap();
    Checkpoint::open_blank(copy.path()).unwrap()
}

fn ids(value: &Value) -> Vec<i32> {
    serde_json::from_value(value.clone()).unwrap()
}

/// Where the labels are those of tokens to train on: start and end of each stretch.
fn stretches(labels: &[i32]) -> Vec<(usize, usize)> {
    let mut found: Vec<(usize, usize)> = Vec::new();
    for position in (0..labels.len()).filter(|position| labels[*position] >= 0) {
        match found.last_mut() {
            Some((_, end)) if *end == position => *end += 1,
            _ => found.push((position, position + 1)),
        }
    }
    found
}

#[test]
fn texts_and_completions_have_the_tokens_and_labels_of_trl() {
    let (golden, checkpoint) = (golden(), checkpoint(None));
    for case in golden["texts"].as_array().unwrap() {
        let found = checkpoint.encode_text(case["text"].as_str().unwrap()).unwrap();
        assert_eq!(found.token_ids, ids(&case["ids"]), "{}", case["text"]);
        // Its labels are the ids; nothing precedes the first one.
        assert_eq!((found.prompt_token_count, &case["labels"]), (1, &case["ids"]));
    }
    for case in golden["completions"].as_array().unwrap() {
        let asked = PromptContent::Text(case["prompt"].as_str().unwrap().to_string());
        let found = checkpoint.encode_pair(&asked, case["completion"].as_str().unwrap()).unwrap();
        assert_eq!(found.token_ids, ids(&case["ids"]), "{}", case["completion"]);
        let labels = ids(&case["labels"]);
        assert_eq!(stretches(&labels), [(found.prompt_token_count, labels.len())], "{}", case["completion"]);
    }
}

/// TRL has one row for a conversation, with labels at every message of the assistant. Each of them
/// is an example of `train_on: all_assistant`: the same tokens up to the end of the message.
#[test]
fn every_message_of_the_assistant_has_the_tokens_and_labels_of_trl() {
    let mut count = 0;
    for case in golden()["conversations"].as_array().unwrap() {
        let checkpoint = checkpoint(case["template"].as_str());
        let has_end = case["name"] != "no end";
        for row in case["rows"].as_array().unwrap() {
            let messages: Vec<Message> = serde_json::from_value(row["messages"].clone()).unwrap();
            // Without an end an empty message has no token.
            let is_trained = |at: &usize| messages[*at].role == "assistant" && (has_end || !messages[*at].content.is_empty());
            let answers: Vec<usize> = (0..messages.len()).filter(is_trained).collect();
            let (whole, trained) = (ids(&row["ids"]), stretches(&ids(&row["labels"])));
            assert_eq!(answers.len(), trained.len(), "{}: {}", case["name"], row["messages"]);
            for (at, (start, end)) in answers.into_iter().zip(trained) {
                let asked = PromptContent::Messages(messages[..at].to_vec().into());
                let turn = checkpoint.encode_pair(&asked, messages[at].content.as_str()).unwrap();
                // A line end behind the end tokens, the first three ids, is no part of the turn.
                let last = whole[start..end].iter().rposition(|id| *id < 3);
                assert_eq!(last.is_some(), has_end, "{}: {}", case["name"], row["messages"]);
                let expected = &whole[..last.map_or(end, |last| start + last + 1)];
                assert_eq!(turn.token_ids, expected, "{}: {}", case["name"], row["messages"]);
                assert_eq!(turn.prompt_token_count, start, "{}: {}", case["name"], row["messages"]);
                count += 1;
            }
        }
    }
    assert!(count > 30, "{count}");
}
