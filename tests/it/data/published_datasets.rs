//! Rows in the layouts of published datasets are TRL's (`tests/python/published_datasets.py`), and
//! train.

use std::fs;
use std::path::{Path, PathBuf};

use optune::import::{Preferences, Prompts, Repeats};
use optune::model::{Checkpoint, Conversation, Message, PromptContent};
use serde_json::{Value, json};

use crate::fixtures::files::copy_folder;
use crate::fixtures::import::{Use, folder, imported, rows};
use crate::fixtures::workspace::Workspace;

const DEMONSTRATIONS: [&str; 3] = ["ultrachat", "no_robots", "capybara"];
const PREFERENCES: [&str; 3] = ["ultrafeedback", "hh", "orca"];
const EXTENSIONS: [&str; 2] = ["jsonl", "parquet"];

fn golden() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/datasets")
}

fn expected(name: &str) -> Vec<Value> {
    let all: Value = serde_json::from_str(&fs::read_to_string(golden().join("expected.json")).unwrap()).unwrap();
    all[name].as_array().unwrap().clone()
}

fn ids(value: &Value) -> Vec<i32> {
    serde_json::from_value(value.clone()).unwrap()
}

/// The batches of a dataset, imported for this use.
fn table(name: &str, extension: &str, used: Use) -> Vec<arrow::array::RecordBatch> {
    let folder = folder();
    let file = format!("{name}.{extension}");
    fs::copy(golden().join(&file), folder.path().join(&file)).unwrap();
    imported(folder.path(), &format!("table: {file}"), used).unwrap_or_else(|error| panic!("{file}: {error}")).batches
}

fn messages(content: &PromptContent) -> &Conversation {
    let PromptContent::Messages(conversation) = content else { panic!("a prompt of text") };
    conversation
}

#[test]
fn conversations_have_the_texts_and_token_ids_of_trl() {
    let checkpoint = Checkpoint::open_blank(&golden().join("model")).unwrap();
    for name in DEMONSTRATIONS {
        for extension in EXTENSIONS {
            let batches = table(name, extension, Use::Demonstrations);
            let answers = rows(&batches);
            let prompts = Prompts::from_batches("data", Repeats::Number, batches).unwrap();
            let expected = expected(name);
            assert_eq!((prompts.len(), answers.len()), (expected.len(), expected.len()));
            for ((prompt, answer), expected) in prompts.iter().zip(&answers).zip(&expected) {
                let answer = answer["response"].as_str().unwrap();
                let mut whole = messages(&prompt.content).clone();
                whole.messages.push(Message::assistant(answer));
                let text = checkpoint.chat_template.as_ref().unwrap().render(&whole, false).unwrap();
                assert_eq!(text, expected["text"], "{name}.{extension}");
                assert_eq!(checkpoint.encode_conversation(&prompt.content, answer).unwrap(), ids(&expected["input_ids"]));
            }
        }
    }
}

#[test]
fn preferences_have_the_prompts_answers_and_token_ids_of_trl() {
    let checkpoint = Checkpoint::open_blank(&golden().join("model")).unwrap();
    for name in PREFERENCES {
        for extension in EXTENSIONS {
            let batches = table(name, extension, Use::Preferences);
            let scores: Vec<Value> = rows(&batches).iter().map(|row| json!([row["chosen_score"], row["rejected_score"]])).collect();
            // Sorted by their ids; the rows' own order is that of the golden.
            let ids_in_order: Vec<String> =
                Prompts::from_batches("data", Repeats::Number, batches.clone()).unwrap().ids().iter().map(|id| (*id).to_string()).collect();
            let preferences = Preferences::from_batches("data", batches).unwrap();
            let expected = expected(name);
            for ((id, expected), scores) in ids_in_order.iter().zip(&expected).zip(&scores) {
                let row = preferences.iter().find(|row| row.id == *id).unwrap();
                let of = &expected["of"];
                let found = match &row.prompt {
                    PromptContent::Text(text) => json!({"prompt": text, "chosen": row.chosen, "rejected": row.rejected}),
                    PromptContent::Messages(conversation) => {
                        let says = |text: &str| json!([Message::assistant(text)]);
                        json!({"prompt": conversation.messages, "chosen": says(&row.chosen), "rejected": says(&row.rejected)})
                    }
                };
                assert_eq!(&found, of, "{name}.{extension}");
                assert_eq!(scores == &json!([null, null]), name != "ultrafeedback", "{name}: {scores}");
                for (side, answer) in [("chosen_ids", row.chosen()), ("rejected_ids", row.rejected())] {
                    let pair = checkpoint.encode_pair(&row.prompt, answer).unwrap();
                    // The line end behind the end of a turn is no part of it here.
                    let mut answer = ids(&expected[side]);
                    let end = answer.iter().position(|id| checkpoint.generation.eos_token_ids.contains(id)).unwrap();
                    answer.truncate(end + 1);
                    let (asked, answered) = pair.token_ids.split_at(pair.prompt_token_count);
                    assert_eq!((asked, answered), (&ids(&expected["prompt_ids"])[..], &answer[..]), "{name}.{extension}: {side}");
                }
            }
        }
    }
}

#[test]
fn published_datasets_are_planned_and_trained_on() {
    for extension in EXTENSIONS {
        let workspace = Workspace::new();
        copy_folder(&golden().join("model"), &workspace.path("model"));
        for name in DEMONSTRATIONS.iter().chain(&PREFERENCES) {
            let file = format!("{name}.{extension}");
            fs::copy(golden().join(&file), workspace.path(&file)).unwrap();
        }
        let table = |name: &&str| format!("  {name}: {{ table: {name}.{extension} }}\n");
        let inputs: String = DEMONSTRATIONS.iter().chain(&PREFERENCES).map(table).collect();
        let step = "epochs: 1, batch_size: 2, warmup_ratio: 0, learning_rate: 1.0e-4";
        let imitate =
            |name: &str| format!("  of_{name}: {{ sft: {{ from: model, demonstrations: {name}, train_on: all_assistant, {step} }} }}\n");
        let prefer = |name: &str| format!("  of_{name}: {{ train: {{ from: model, reference: model, pairs: {name}, {step} }} }}\n");
        let nodes: String = DEMONSTRATIONS.iter().map(|name| imitate(name)).chain(PREFERENCES.iter().map(|name| prefer(name))).collect();
        workspace.write("pipeline.yaml", &format!("optune: 1\nname: small\ninputs:\n  model: {{ model: model }}\n{inputs}nodes:\n{nodes}"));
        let plan = workspace.succeed(&["plan", "pipeline.yaml"]);
        for format in ["trl", "ultrafeedback", "orca"] {
            assert!(plan.contains(format), "{format}: {plan}");
        }
        workspace.succeed(&["run", "pipeline.yaml"]);
    }
}

/// Texts beside a question answer it. They are never cut by their common beginning.
#[test]
fn a_question_that_no_layout_knows_is_refused() {
    let folder = folder();
    for (question, is_known) in [("question", true), ("input", false), ("query", false)] {
        let row = json!({question: "How?", "chosen": "The one", "rejected": "The other"});
        fs::write(folder.path().join("x.jsonl"), format!("{row}\n")).unwrap();
        match imported(folder.path(), "table: x.jsonl", Use::Preferences) {
            Ok(found) if is_known => assert_eq!(
                rows(&found.batches)[0],
                json!({"messages": [{"role": "user", "content": "How?"}], "chosen": "The one", "rejected": "The other"})
            ),
            Err(error) if !is_known => assert!(error.contains(&format!("say `map: {{ prompt: {question} }}`")), "{error}"),
            other => panic!("{question}: {:?}", other.map(|found| rows(&found.batches))),
        }
        let map = imported(folder.path(), &format!("table: x.jsonl, map: {{ prompt: {question} }}"), Use::Preferences).unwrap();
        assert_eq!(rows(&map.batches)[0]["prompt"], "How?");
    }
}
