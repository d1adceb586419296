//! Messages with all their fields, from every layout that a table may have them in.

use std::fs;
use std::path::{Path, PathBuf};

use optune::import::{Imported, Preferences, Prompts, Repeats};
use optune::model::{Message, PromptContent};
use serde_json::{Value, json};

use crate::fixtures::import::{Use, folder, from, imported, rows, says};
use crate::fixtures::workspace::Workspace;

fn golden(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/messages").join(name)
}

fn json_of(name: &str) -> Value {
    serde_json::from_str(&fs::read_to_string(golden(name)).unwrap()).unwrap()
}

/// Rows as JSON lines, imported.
fn lines(written: &[Value], settings: &str, used: Use) -> Result<Imported, String> {
    let folder = folder();
    fs::write(folder.path().join("x.jsonl"), written.iter().map(|row| format!("{row}\n")).collect::<String>()).unwrap();
    imported(folder.path(), &format!("table: x.jsonl{settings}"), used)
}

fn row(written: Value, settings: &str, used: Use) -> Value {
    let found = lines(std::slice::from_ref(&written), settings, used).unwrap_or_else(|error| panic!("{written}: {error}"));
    rows(&found.batches).remove(0)
}

fn error(written: &[Value], used: Use) -> String {
    lines(written, "", used).err().unwrap()
}

/// The messages of a table's prompts with the answers behind them, and the variables.
fn whole(found: Imported) -> Vec<Value> {
    let answers: Vec<Value> = rows(&found.batches);
    let prompts = Prompts::from_batches("data", Repeats::Number, found.batches).unwrap();
    let row = |(prompt, answer): (&optune::import::Prompt, &Value)| {
        let PromptContent::Messages(conversation) = &prompt.content else { panic!("a prompt of text") };
        let answer = match answer.get("response_json") {
            Some(json) => serde_json::from_str(json.as_str().unwrap()).unwrap(),
            None => says("assistant", answer["response"].as_str().unwrap()),
        };
        let messages: Vec<Value> =
            conversation.messages.iter().map(|message| serde_json::to_value(message).unwrap()).chain([answer]).collect();
        json!([messages, conversation.variables])
    };
    prompts.iter().zip(&answers).map(row).collect()
}

#[test]
fn hugging_face_tables_of_messages_are_read_as_trl_reads_them() {
    let expected: Vec<Value> = json_of("rows.json")
        .as_array()
        .unwrap()
        .iter()
        .map(|row| {
            let mut variables = row.get("chat_template_kwargs").cloned().unwrap_or(json!({}));
            if let Some(tools) = row.get("tools") {
                variables["tools"] = tools.clone();
            }
            json!([row["messages"], variables])
        })
        .collect();
    for name in ["structs", "json", "json_rows", "texts"] {
        let folder = folder();
        fs::copy(golden(&format!("{name}.parquet")), folder.path().join("x.parquet")).unwrap();
        let found = imported(folder.path(), "table: x.parquet", Use::Demonstrations).unwrap_or_else(|error| panic!("{name}: {error}"));
        assert_eq!(Value::from(whole(found)), Value::from(expected.clone()), "{name}");
    }
}

#[test]
fn fields_keep_their_order_and_stay_readable_by_sql() {
    let call = json!({"z": 1, "a": {"y": null, "b": [1.5]}});
    let found = row(
        json!({"messages": [says("user", "q"), {"name": "n", "role": "assistant", "content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}], "tool_calls": call}, says("user", "r"), says("assistant", "c")]}),
        "",
        Use::Demonstrations,
    );
    assert_eq!(found["response"], "c");
    assert_eq!((&found["messages"][1]["role"], &found["messages"][1]["content"]), (&json!("assistant"), &json!("ab")));
    let whole = found["messages"][1]["json"].as_str().unwrap();
    assert!(
        whole.starts_with("{\"name\":\"n\",\"role\":\"assistant\",\"content\":[{") && whole.contains("\"tool_calls\":{\"z\":1,\"a\":{"),
        "{whole}"
    );
    // Plain messages are a role and a content, and nothing else.
    let plain = row(json!({"messages": [says("user", "q")]}), "", Use::Prompts);
    assert_eq!(plain, json!({"messages": [says("user", "q")]}));
}

#[test]
fn speakers_have_many_names() {
    let (q, a) = (says("user", "q"), says("assistant", "a"));
    let expected = json!({"messages": [q], "response": "a"});
    for (human, model) in [("human", "gpt"), ("Human", "Assistant"), ("user", "model"), ("User", "chatgpt"), ("prompter", "bot")] {
        for column in ["messages", "conversations"] {
            for make in [says, from] {
                let written = json!({ column: [make(human, "q"), make(model, "a")] });
                let found = lines(std::slice::from_ref(&written), "", Use::Demonstrations);
                match found {
                    Ok(found) => assert_eq!(rows(&found.batches), std::slice::from_ref(&expected), "{written}"),
                    Err(error) => panic!("{written}: {error}"),
                }
            }
        }
    }
    let text = json!([q, a]).to_string();
    assert_eq!(row(json!({"messages": text}), "", Use::Demonstrations), expected, "messages as JSON text");
}

#[test]
fn a_prompt_beside_a_whole_conversation_is_its_question() {
    let (system, q, a) = (says("system", "Be  short."), says("user", "What is\n2 + 2?"), says("assistant", "4"));
    for prompt in ["What is 2 + 2?", "Be short. What is\n2 + 2?"] {
        let written = json!({"prompt": prompt, "prompt_id": "p", "messages": [system, q, a], "category": "math"});
        let expected = json!({"messages": [system, q], "response": "4", "category": "math"});
        assert_eq!(row(written, "", Use::Demonstrations), expected);
    }
    let other = json!({"prompt": "other", "messages": [q, a]});
    assert!(error(&[other], Use::Demonstrations).contains("expected the prompt among the messages, found another one: \"other\""));
}

#[test]
fn pairs_of_texts_are_cut_as_trl_cuts_them() {
    for case in json_of("pairs.json").as_array().unwrap() {
        let found = row(case["of"].clone(), "", Use::Preferences);
        assert_eq!(found, case["is"], "{}", case["of"]);
    }
    let nothing = json!({"chosen": "ab", "rejected": "cd"});
    assert!(error(&[nothing], Use::Preferences).contains("chosen and rejected have no beginning in common"));
}

#[test]
fn answers_of_pairs_keep_their_fields() {
    let call = json!({"role": "assistant", "tool_calls": [{"name": "f"}]});
    let found = lines(
        &[json!({"chosen": [says("user", "q"), call], "rejected": [says("user", "q"), says("assistant", "b")]})],
        "",
        Use::Preferences,
    );
    let found = Preferences::from_batches("data", found.unwrap_or_else(|error| panic!("{error}")).batches).unwrap();
    let row = found.iter().next().unwrap();
    let chosen: Value = serde_json::to_value(row.messages[0].as_ref().unwrap()).unwrap();
    assert_eq!((chosen, &row.messages[1], row.rejected.as_str()), (call, &None::<Message>, "b"));
}

#[test]
fn what_is_no_message_is_refused_by_name() {
    let with = |message: Value| json!({"messages": [says("user", "q"), message, says("user", "r")]});
    for (message, said) in [
        (json!({"role": "user", "content": 5, "x": [1]}), "messages: message 1: content: expected text or a list of parts, found a number"),
        (
            json!({"role": "user", "content": [{"type": "text", "text": "a"}, {"type": "image", "url": "u"}]}),
            "messages: message 1: content: part 1: expected a part of type text, found one of type image",
        ),
        (json!({"role": "user", "content": ["yes", "no"]}), "messages: message 1: content: part 0: expected a part such as"),
        (json!({"role": "user", "content": null}), "messages: message 1: expected a role and a content, found null"),
        (json!({"content": "x", "role": null}), "messages: message 1: expected a role and a content, found null"),
    ] {
        let written = json!({"messages": with(message.clone())["messages"].to_string()});
        let error = error(&[written], Use::Prompts);
        assert!(error.starts_with("x.jsonl:1: table data") && error.contains(said), "{message}: {error}");
    }
    for (written, said) in [
        (
            json!({"prompt": "q", "tools": [{"name": "f"}]}),
            "tools: expected messages, for a chat template to read it, found a prompt of text",
        ),
        (json!({"messages": [says("user", "q")], "tools": ["f"]}), "tools: expected tools that are objects, found text"),
        (
            json!({"messages": [says("user", "q")], "chat_template_kwargs": {"messages": 1}}),
            "chat_template_kwargs: expected variables of the template, found \"messages\"",
        ),
        (json!({"messages": "not JSON"}), "messages: expected JSON, found \"not JSON\""),
    ] {
        let error = error(std::slice::from_ref(&written), Use::Prompts);
        assert!(error.contains(said), "{written}: {error}");
    }
}

#[test]
fn prompts_of_other_tools_or_fields_are_other_prompts() {
    let id = |row: Value| {
        let found = lines(&[row], "", Use::Prompts).unwrap_or_else(|error| panic!("{error}"));
        Prompts::from_batches("data", Repeats::Number, found.batches).unwrap().ids()[0].to_string()
    };
    let plain = json!({"messages": [says("user", "q")]});
    let ids = [
        id(plain.clone()),
        id(json!({"messages": [{"role": "user", "content": "q", "name": "n"}]})),
        id(json!({"messages": [says("user", "q")], "tools": [{"name": "f"}]})),
        id(json!({"messages": [says("user", "q")], "chat_template_kwargs": {"enable_thinking": false}})),
    ];
    let distinct: std::collections::BTreeSet<&String> = ids.iter().collect();
    assert_eq!(distinct.len(), ids.len());
    assert_eq!(id(json!({"messages": [{"role": "user", "content": "q", "name": null}], "tools": null})), ids[0]);
}

/// A workspace whose pipeline is an sft node with these demonstrations.
fn sft_workspace(rows: &[Value], settings: &str) -> Workspace {
    let workspace = Workspace::new();
    workspace.write("data.jsonl", &rows.iter().map(|row| format!("{row}\n")).collect::<String>());
    let template = "{% for m in messages %}{% if m.role == 'user' %}u{% else %}a{% endif %}{{ m.content }}{{ m.note }}{{ '<eos>' }}{% endfor %}{% if add_generation_prompt %}a{% endif %}";
    workspace.write("shape/chat_template.jinja", template);
    let inputs = "inputs:\n  data: { table: data.jsonl }\n  shape: { model: shape }\n";
    let sft = "from: shape, initialize: random, demonstrations: data, epochs: 1, batch_size: 1, warmup_ratio: 0, learning_rate: 1.0e-3";
    workspace.write("pipeline.yaml", &format!("optune: 1\nname: small\n{inputs}nodes:\n  base: {{ sft: {{ {sft}{settings} }} }}\n"));
    workspace
}

/// The steps of the training, and its tokens.
fn sft(rows: &[Value], settings: &str) -> String {
    let workspace = sft_workspace(rows, settings);
    workspace.succeed(&["run", "pipeline.yaml"]);
    workspace.query("small", "SELECT count(*), sum(tokens) FROM base_training")
}

#[test]
fn every_message_of_the_assistant_is_trained_on_where_the_pipeline_says_so() {
    let turn = |role: &str, text: &str, more: Value| {
        let mut message = says(role, text);
        message.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        message
    };
    let none = json!({});
    let conversation = |weights: [Value; 2]| {
        let [first, last] = weights;
        json!({"messages": [says("user", "q"), turn("assistant", "bc", first), says("user", "d"), turn("assistant", "e", last)]})
    };
    // uq<eos> abc<eos> ud<eos> ae<eos>: 13 tokens, and 3 + 4 of the first turn alone.
    let all = ", train_on: all_assistant";
    assert_eq!(sft(&[conversation([none.clone(), none.clone()])], ""), "1,13");
    assert_eq!(sft(&[conversation([none.clone(), none.clone()])], all), "2,20");
    assert_eq!(sft(&[conversation([json!({"weight": 0}), none.clone()])], all), "1,13");
    assert_eq!(sft(&[conversation([json!({"train": true}), json!({"train": false})])], all), "1,7");
    assert_eq!(
        sft(&[conversation([none.clone(), json!({"weight": 0})]), json!({"messages": [says("user", "q"), says("assistant", "a")]})], ""),
        "1,6"
    );
    for (weights, settings, said) in [
        (
            [json!({"weight": 1}), none.clone()],
            "",
            "message 1: found weight or train of 1, but only the last message of the assistant is trained on",
        ),
        ([json!({"weight": 0.5}), none.clone()], all, "message 1: weight: expected 0 or 1, found 0.5"),
        ([none.clone(), json!({"train": 0})], "", "found weight or train of 0 in all"),
    ] {
        let error = sft_workspace(&[conversation(weights)], settings).fail(&["run", "pipeline.yaml"], 2);
        assert!(error.contains(said), "{error}");
    }
}

#[test]
fn what_a_template_ignores_is_told_once() {
    let row = |text: &str| {
        let answer = json!({"role": "assistant", "content": text, "note": "b", "citations": [1]});
        json!({"messages": [{"role": "user", "content": "q", "name": "n"}, answer], "tools": [{"name": "f"}]})
    };
    let workspace = sft_workspace(&[row("a"), row("b")], "");
    workspace.edit("pipeline.yaml", "name: small", "name: small\nchat_template_kwargs: { enable_thinking: false }");
    let output = workspace.optune(&["run", "pipeline.yaml"]);
    let told = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && told.matches("ignores citations, enable_thinking, name, tools:").count() == 1, "{told}");
}

#[test]
fn rows_of_text_alone_are_demonstrations_as_a_whole() {
    // TRL: the text behind the tokenizer's first token, and an end token.
    assert_eq!(sft(&[json!({"text": "abc"})], ""), "1,5");
    assert!(error(&[json!({"text": "abc"})], Use::Prompts).contains("expected a column prompt or messages"));
}
