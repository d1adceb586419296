//! The ends of texts and conversations: special tokens in a tokenizer's settings, end tokens that
//! files disagree on, and the scored token of a reward model, against transformers; see
//! `tests/python/endings.py`.

use std::fs;
use std::path::Path;

use optune::model::{Checkpoint, Message, PromptContent, SpecialTokens};
use optune::token_lists::TokenLists;
use optune::training::rewards;
use serde_json::{Value, json};

use crate::fixtures::files::copy_folder;
use crate::fixtures::models::{blank_checkpoint, device, numbers};

fn golden() -> Value {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/endings.json");
    serde_json::from_slice(&fs::read(path).unwrap()).unwrap()
}

fn token_ids(value: &Value) -> Vec<i32> {
    numbers(value).into_iter().map(|id| id as i32).collect()
}

fn write(folder: &Path, name: &str, value: &Value) {
    fs::write(folder.join(name), value.to_string()).unwrap();
}

fn read(folder: &Path, name: &str) -> Value {
    serde_json::from_slice(&fs::read(folder.join(name)).unwrap()).unwrap()
}

/// Changes keys of a JSON file.
fn edit(folder: &Path, name: &str, changes: Value) {
    let mut value = read(folder, name);
    value.as_object_mut().unwrap().extend(changes.as_object().unwrap().clone());
    write(folder, name, &value);
}

#[test]
fn a_reward_is_the_score_of_the_last_token_that_is_not_padding_as_in_transformers() {
    let golden = golden();
    let original = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/reward_model");
    let rows: Vec<Vec<i32>> = golden["rewards"]["rows"].as_array().unwrap().iter().map(token_ids).collect();
    for case in golden["rewards"]["cases"].as_array().unwrap() {
        let folder = tempfile::tempdir().unwrap();
        copy_folder(&original, folder.path());
        edit(folder.path(), "config.json", json!({"pad_token_id": case["pad_token_id"]}));
        let checkpoint = Checkpoint::open(folder.path()).unwrap();
        let model = checkpoint.load_reward_model(&device()).unwrap();
        let scored: Vec<Vec<i32>> = rows.iter().map(|row| checkpoint.up_to_score(row.clone())).collect();
        let found = rewards(&model, &TokenLists::from_rows(&scored).unwrap(), &(0..rows.len()).collect::<Vec<_>>(), 3).unwrap();
        for expected in ["alone", "together"].map(|how| &case[how]).into_iter().filter(|expected| !expected.is_null()) {
            for (row, (found, expected)) in found.iter().zip(numbers(expected)).enumerate() {
                assert!((found - expected).abs() < 1e-5, "padding {}, row {row}: {found}, expected {expected}", case["pad_token_id"]);
            }
        }
    }
}

#[test]
fn special_tokens_of_the_settings_are_added_as_transformers_adds_them() {
    let golden = golden();
    let tokenizers = &golden["tokenizers"];
    for case in tokenizers["cases"].as_array().unwrap() {
        let name = case["name"].as_str().unwrap();
        let folder = tempfile::tempdir().unwrap();
        blank_checkpoint(folder.path(), true);
        edit(folder.path(), "config.json", json!({"vocab_size": 42}));
        let mut tokenizer = tokenizers["tokenizer"].clone();
        for (at, token) in case["added"].as_array().unwrap().iter().enumerate() {
            let mut token = token.clone();
            token["id"] = json!(40 + at);
            tokenizer["added_tokens"].as_array_mut().unwrap().push(token);
        }
        if case["processor"] == json!(true) {
            tokenizer["post_processor"] = tokenizers["processor"].clone();
        }
        write(folder.path(), "tokenizer.json", &tokenizer);
        for (file, value) in case["files"].as_object().unwrap() {
            write(folder.path(), file, value);
        }
        let checkpoint = Checkpoint::open_blank(folder.path()).unwrap();
        for text in case["texts"].as_array().unwrap() {
            let mut expected = token_ids(&text["ids"]);
            if expected.starts_with(&[1, 1]) {
                // A text that spells out the opening token does not get a second one here.
                expected.remove(0);
            }
            let found = checkpoint.tokenizer.encode(text["text"].as_str().unwrap(), SpecialTokens::Added).unwrap();
            assert_eq!(found, expected, "{name}: {}", text["text"]);
            assert_eq!(checkpoint.tokenizer.decode(&found).unwrap(), text["decoded"].as_str().unwrap(), "{name}: {}", text["text"]);
        }
        // The end that TRL appends; a tokenizer that splits its special tokens cannot write it.
        if !case["pair"].is_null() && name != "split" {
            let pair = checkpoint.encode_pair(&PromptContent::Text("ab".to_string()), "cd").unwrap();
            assert_eq!(pair.token_ids, token_ids(&case["pair"]), "{name}");
        }
        // A model without embeddings for them.
        edit(folder.path(), "config.json", json!({"vocab_size": 40}));
        if let Ok(small) = Checkpoint::open_blank(folder.path())
            && name == "beyond the model"
        {
            let error = small.tokenizer.encode("a[PAD]", SpecialTokens::Added).unwrap_err().to_string();
            assert!(error.contains("expected tokens below the model's vocab_size 40, found 40 (\"[PAD]\")"), "{error}");
        }
    }
    let folder = tempfile::tempdir().unwrap();
    blank_checkpoint(folder.path(), true);
    for (settings, expected) in [
        (json!({"pad_token": 3}), "pad_token: expected a token as text or with its content, found 3"),
        (json!({"added_tokens_decoder": {"x": "a"}}), "added_tokens_decoder: expected a token id, found \"x\""),
        (json!([]), "expected an object"),
    ] {
        write(folder.path(), "tokenizer_config.json", &settings);
        let error = Checkpoint::open_blank(folder.path()).unwrap_err().to_string();
        assert!(error.contains("tokenizer_config.json") && error.contains(expected), "{error}");
    }
}

/// A folder with the end tokens `<e>` (30) and `<f>` (31) beside `</s>` (2), and this template.
fn chat_folder(template: &str) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    blank_checkpoint(folder.path(), true);
    let token = |content: &str| json!({"content": content, "special": true, "normalized": false});
    let added = json!({"30": token("<e>"), "31": token("<f>")});
    write(folder.path(), "tokenizer_config.json", &json!({"added_tokens_decoder": added, "eos_token": "<f>"}));
    fs::write(folder.path().join("chat_template.jinja"), template).unwrap();
    folder
}

fn turns(end: &str) -> String {
    format!(
        "{{% for m in messages %}}{{{{ m.role[0] }}}} {{{{ m.content }}}}{end}{{% endfor %}}{{% if add_generation_prompt %}}a {{% endif %}}"
    )
}

#[test]
fn the_ends_of_all_files_are_joined_and_what_is_saved_names_them_all() {
    let folder = chat_folder(&turns("<e> "));
    let checkpoint = Checkpoint::open_blank(folder.path()).unwrap();
    // config.json has 2, the tokenizer 31, the template writes 30.
    assert_eq!(checkpoint.generation.eos_token_ids, [2, 31, 30]);
    let warning = checkpoint.end_token_warning().unwrap();
    let expected = "transformers stops at 2 (\"</s>\"), but the tokenizer's eos_token is 31 (\"<f>\"), and the chat template ends a turn with 30 (\"<e>\")";
    assert!(warning.contains(expected), "{warning}");
    let asked = PromptContent::Messages(vec![Message::new("user", "hi")].into());
    assert_eq!((checkpoint.end_token(&asked), checkpoint.end_token(&PromptContent::Text("hi".to_string()))), (Some(30), Some(31)));
    let saved = tempfile::tempdir().unwrap();
    checkpoint.save(saved.path(), &checkpoint.init(&device(), 1)).unwrap();
    assert_eq!(read(saved.path(), "generation_config.json"), json!({"bos_token_id": 1, "eos_token_id": [2, 31, 30]}));
    assert_eq!(Checkpoint::open(saved.path()).unwrap().end_token_warning(), None);
    // What is there stays.
    write(folder.path(), "generation_config.json", &json!({"eos_token_id": 31, "temperature": 0.7}));
    let checkpoint = Checkpoint::open_blank(folder.path()).unwrap();
    assert!(checkpoint.end_token_warning().unwrap().contains("config.json has 2 (\"</s>\")"));
    checkpoint.save(saved.path(), &checkpoint.init(&device(), 1)).unwrap();
    assert_eq!(read(saved.path(), "generation_config.json"), json!({"eos_token_id": [31, 2, 30], "temperature": 0.7}));
    // Files that agree are copied byte by byte.
    write(folder.path(), "generation_config.json", &json!({"eos_token_id": [30, 31, 2]}));
    let checkpoint = Checkpoint::open_blank(folder.path()).unwrap();
    assert_eq!(checkpoint.end_token_warning(), None);
    checkpoint.save(saved.path(), &checkpoint.init(&device(), 1)).unwrap();
    assert_eq!(fs::read(saved.path().join("generation_config.json")).unwrap(), br#"{"eos_token_id":[30,31,2]}"#);
}

/// As Cohere's and Phi's templates end turns and conversations.
#[test]
fn of_several_added_tokens_a_known_end_ends_the_turn() {
    let closing = "{% if not add_generation_prompt %}<f>{% endif %}";
    for (name, template, config, turn) in [
        ("the second one is known", turns("<e><f>"), json!({}), 31),
        ("the first one is known too", turns("<e><f>"), json!({"eos_token_id": [31, 30]}), 30),
        ("none is known", turns("<e>"), json!({}), 30),
        ("behind the last turn only", turns("<e>") + closing, json!({}), 30),
        ("behind a line end", turns("<e>\n<f>"), json!({}), 30),
    ] {
        let folder = chat_folder(&template);
        edit(folder.path(), "config.json", config);
        let checkpoint = Checkpoint::open_blank(folder.path()).unwrap();
        let asked = PromptContent::Messages(vec![Message::new("user", "hi")].into());
        assert_eq!(checkpoint.end_token(&asked), Some(turn), "{name}");
        let pair = checkpoint.encode_pair(&asked, "yo").unwrap();
        assert_eq!(pair.token_ids.last(), Some(&turn), "{name}");
    }
}

#[test]
fn a_template_without_an_end_of_turn_teaches_none_and_is_told() {
    for (end, written) in
        [("", "writes nothing behind"), ("\n### ", "writes \"###\", which is no token, behind"), ("<x>", "writes \"<x>\"")]
    {
        let warning = Checkpoint::open_blank(chat_folder(&turns(end)).path()).unwrap().unended_warning().unwrap();
        assert!(warning.contains(written) && warning.contains("the model does not learn to stop"), "{end:?}: {warning}");
    }
    assert_eq!(Checkpoint::open_blank(chat_folder(&turns("<e>")).path()).unwrap().unended_warning(), None);
}

#[test]
fn a_model_whose_responses_never_end_is_found() {
    let endless = |template: &str, config: Value, messages: bool| {
        let folder = chat_folder(template);
        edit(folder.path(), "config.json", config);
        edit(folder.path(), "tokenizer_config.json", json!({"eos_token": null}));
        Checkpoint::open_blank(folder.path()).unwrap().endless(messages)
    };
    let with = json!({"eos_token_id": 2});
    let without = json!({"eos_token_id": null});
    assert_eq!(endless(&turns("<e>"), without.clone(), true), None);
    assert_eq!(endless(&turns(""), with.clone(), true), None);
    assert_eq!(endless(&turns("\n### "), with.clone(), true), None);
    assert_eq!(endless(&turns("<x>"), with.clone(), false), None);
    let split = endless(&turns("<x>"), with, true).unwrap();
    assert!(split.contains("found \"<x>\", which the tokenizer splits like other text"), "{split}");
    for messages in [true, false] {
        let none = endless(&turns(""), without.clone(), messages).unwrap();
        assert!(none.contains("expected an end token, found none") && none.contains("add eos_token_id"), "{none}");
    }
}

#[test]
fn a_new_reward_model_and_its_tokenizer_pad_with_the_same_token() {
    let folder = chat_folder(&turns("<e>"));
    let started = |settings: Value| {
        edit(folder.path(), "tokenizer_config.json", settings);
        let checkpoint = Checkpoint::open_blank(folder.path()).unwrap();
        checkpoint.save(folder.path(), &checkpoint.init(&device(), 1)).unwrap();
        let started = Checkpoint::open(folder.path()).unwrap().with_reward_head(1);
        let saved = tempfile::tempdir().unwrap();
        started.save_reward_model(saved.path(), &started.load_reward_model(&device()).unwrap()).unwrap();
        let padding =
            [read(saved.path(), "config.json")["pad_token_id"].clone(), read(saved.path(), "tokenizer_config.json")["pad_token"].clone()];
        (padding, Checkpoint::open(saved.path()).unwrap().padding_warning())
    };
    // Ends of texts and turns are no padding; else the model's own choice stays.
    for (pad_token, expected) in
        [(json!("<e>"), (1, "<s>")), (json!("<f>"), (1, "<s>")), (json!("<unk>"), (0, "<unk>")), (Value::Null, (1, "<s>"))]
    {
        let (padding, warning) = started(json!({"pad_token": pad_token}));
        assert_eq!((padding, warning), ([json!(expected.0), json!(expected.1)], None), "{pad_token}");
    }
    // A token made for it comes before the unknown and the first one.
    let decoder = json!({"30": {"content": "<e>", "special": true}, "31": {"content": "<f>", "special": true}, "32": {"content": "<|fill_pad|>", "special": true}});
    let (padding, _) = started(json!({"pad_token": "<e>", "added_tokens_decoder": decoder}));
    assert_eq!(padding, [json!(32), json!("<|fill_pad|>")]);
    // A reward model from outside stays as it is, with a warning.
    let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/reward_model");
    let outside = tempfile::tempdir().unwrap();
    copy_folder(&golden, outside.path());
    edit(outside.path(), "config.json", json!({"pad_token_id": 1}));
    assert_eq!(Checkpoint::open(outside.path()).unwrap().padding_warning(), None);
    // Its template ends with a space, and the tokenizer knows none: the padding is "<unk>" too.
    let warning = Checkpoint::open(&golden).unwrap().padding_warning().unwrap();
    assert!(warning.contains("may end with pad_token_id 0 (\"<unk>\")"), "{warning}");
    edit(outside.path(), "config.json", json!({"pad_token_id": 2}));
    let warning = Checkpoint::open(outside.path()).unwrap().padding_warning().unwrap();
    assert!(
        warning.contains("pad_token_id 2 (\"</s>\"); as in transformers, the reward is the score of the last token before it"),
        "{warning}"
    );
}
