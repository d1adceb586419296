//! Chat templates write the text of transformers: our own templates against its output kept in a
//! file, and published ones against the cases of `tests/python/chat_templates.py`.

use std::collections::HashMap;
use std::fs;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};

use optune::model::{
    ChatTemplate, Checkpoint, Conversation, EncodedPair, Message, ModelError, PromptContent, SpecialTokens, TemplateSettings,
};
use serde_json::{Value, json};

use crate::fixtures::models::blank_checkpoint;

fn date() -> Option<chrono::NaiveDate> {
    chrono::NaiveDate::from_ymd_opt(2026, 11, 23)
}

fn message(role: &str, content: &str) -> Message {
    Message::new(role, content)
}

fn template(source: &str) -> ChatTemplate {
    let mut template = ChatTemplate::new(source, &[("bos_token", "<s>"), ("eos_token", "</s>")]).unwrap();
    template.set_date(date());
    template
}

#[test]
fn every_construct_is_written_as_transformers_writes_it() {
    let messages = [message("user", " Hi there "), message("assistant", "it's")];
    let mut differences = Vec::new();
    let cases = include_str!("../../chat_templates/constructs.jsonl").lines();
    for case in cases.map(|line| serde_json::from_str::<Value>(line).unwrap()) {
        let source = case["template"].as_str().unwrap();
        let compiled = ChatTemplate::new(source, &[("bos_token", "<s>"), ("eos_token", "</s>")]);
        let written = compiled.and_then(|mut template| {
            template.set_date(date());
            template.render(&messages, false)
        });
        let same = match (&written, case["text"].as_str()) {
            (Ok(written), Some(text)) => written == text,
            (Err(_), None) => true,
            _ => false,
        };
        if !same {
            differences.push(format!("{source:?}: transformers {}{}, we {written:?}", case["text"], case["error"]));
        }
    }
    assert!(differences.is_empty(), "{}", differences.join("\n"));
}

/// Random values of JSON as Python's `str` and `repr`, by every way that a template has to them.
#[test]
fn values_are_written_as_python_writes_them() {
    let mut lines = include_str!("../../chat_templates/values.jsonl").lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    let template = template(lines.next().unwrap()["template"].as_str().unwrap());
    let (mut count, mut differences) = (0, Vec::new());
    for case in lines {
        let variables = [("x".to_string(), case["value"].clone())].into_iter().collect();
        let written = template.render(Conversation { messages: Vec::new(), variables }, false).map_err(|error| error.to_string());
        if written.as_deref() != Ok(case["text"].as_str().unwrap()) {
            differences.push(format!("{}: transformers {}, we {written:?}", case["value"], case["text"]));
        }
        count += 1;
    }
    assert!(
        count == 400 && differences.is_empty(),
        "{} of {count}:\n{}",
        differences.len(),
        differences[..differences.len().min(5)].join("\n")
    );
}

/// Tools, tool calls, reasoning, parts and variables, by templates in the manner of published ones.
#[test]
fn whole_messages_and_variables_are_written_as_transformers_writes_them() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/chat_templates");
    let cases = fs::read_to_string(folder.join("rich.jsonl")).unwrap();
    let mut differences = Vec::new();
    let mut count = 0;
    for case in cases.lines().map(|line| serde_json::from_str::<Value>(line).unwrap()) {
        for (name, texts) in case["written"].as_object().unwrap() {
            let template = template(&fs::read_to_string(folder.join(name)).unwrap());
            for (index, asks) in [false, true].into_iter().enumerate() {
                count += 1;
                let written = template.render(conversation(&case), asks);
                match (&written, texts[index].as_str()) {
                    (Ok(written), Some(text)) if written == text => {}
                    (Err(_), None) => {}
                    _ => differences.push(format!("{name}, {}: transformers {}, we {written:?}", case["name"], texts[index])),
                }
            }
        }
    }
    assert!(count > 200 && differences.is_empty(), "{}", differences.join("\n"));
}

fn conversation(case: &Value) -> Conversation {
    let messages = serde_json::from_value(case["messages"].clone()).unwrap();
    Conversation { messages, variables: case["variables"].as_object().cloned().unwrap_or_default() }
}

/// A construct unknown to minijinja must be an error with its name, never another text.
#[test]
fn a_construct_that_is_not_supported_is_named() {
    for (source, said) in [
        ("{{ 'a b' | wordcount }}", "wordcount"),
        ("{{ '%s' % 'x' }}", "% operator"),
        ("{{ range is callable }}", "callable"),
        ("{{ 'a'.swapcase() }}", "swapcase"),
        ("{{ cycler('a') }}", "cycler"),
        ("a\n{% trans %}b{% endtrans %}", "trans (in chat_template:2)"),
        ("{{ strftime_now('%f') }}", "%f"),
    ] {
        let error = ChatTemplate::new(source, &[]).and_then(|mut template| {
            template.set_date(date());
            template.render(&[message("user", "x")], true)
        });
        let error = error.unwrap_err().to_string();
        assert!(error.contains(said), "{source}: expected {said:?} in: {error}");
    }
}

#[test]
fn translating_the_syntax_leaves_text_strings_comments_and_raw_blocks_alone() {
    let said =
        "{'a': 1} {% raw %}{% generation %}{{ {'b': '}}'} }}{% endraw %} {{ \"{% generation %} {'c': 1}\" }}{# {% generation %} {'d' #}";
    assert_eq!(template(said).render(&[], false).unwrap(), "{'a': 1} {% generation %}{{ {'b': '}}'} }} {% generation %} {'c': 1}");
    for unfinished in
        ["{{ 'a", "{% raw %}", "{#", "{%", "{{", "{% raw", "{% generation", "{{ {'a': ", "{{ \"\\", "{", "%}", "}}", "{% generation %}"]
    {
        // An error or a text, no panic.
        let _ = ChatTemplate::new(unfinished, &[]).and_then(|template| template.render(&[], true));
    }
    // A user's text is data, whatever it looks like.
    let content = "{{ x }}{% raw %}{# #}{% generation %}";
    assert_eq!(template("{{ messages[0].content }}").render(&[message("user", content)], true).unwrap(), content);
}

#[test]
fn a_template_that_refuses_says_why_and_is_told_apart_from_one_that_fails() {
    let refusing = template(
        "{% macro check(m) %}{% if m.role == 'dog' %}{{ raise_exception('no dogs') }}{% endif %}{% endmacro %}{{ check(messages[0]) }}",
    );
    let refused = refusing.render(&[message("dog", "woof")], true).unwrap_err();
    assert!(matches!(&refused, ModelError::Refused(text) if text.contains("no dogs")), "{refused:?}");
    assert!(matches!(template("{{ nothing.more }}").render(&[], true), Err(ModelError::Chat(_))));
}

#[test]
fn the_date_is_the_pipelines_and_without_one_the_error_says_what_to_add() {
    let mut dated = template("{{ strftime_now('%d %b %Y') }}|{{ strftime_now('%A %-d. %B %y, day %j') }}");
    assert_eq!(dated.render(&[], true).unwrap(), "23 Nov 2026|Monday 23. November 26, day 327");
    dated.set_date(None);
    let error = dated.render(&[], true).unwrap_err().to_string();
    assert!(error.contains("date: 2026-11-23") && error.contains("pipeline file"), "{error}");
}

#[test]
fn templates_and_special_tokens_are_found_where_transformers_writes_them() {
    let folder = tempfile::tempdir().unwrap();
    blank_checkpoint(folder.path(), true);
    let write = |name: &str, text: &str| {
        fs::create_dir_all(folder.path().join("chat_templates")).unwrap();
        fs::write(folder.path().join(name), text).unwrap();
    };
    let said = || {
        let template = Checkpoint::open_blank(folder.path()).unwrap().chat_template?;
        Some(template.render(&[message("user", "abc")], true).unwrap())
    };
    assert_eq!(said(), None);
    let source = "{{ bos_token }}|{{ eos_token }}|{{ pad_token }}|{{ unk_token is defined }}";
    let named = json!([{"name": "tool_use", "template": "tools"}, {"name": "default", "template": source}]);
    let mut settings =
        json!({"chat_template": named, "bos_token": {"content": "<s>"}, "eos_token": "</s>", "pad_token": "</s>", "unk_token": null});
    write("tokenizer_config.json", &settings.to_string());
    assert_eq!(said().unwrap(), "<s>|</s>|</s>|False");
    // The older file of special tokens counts only where the newer one does not describe the added
    // tokens.
    write("special_tokens_map.json", "{\"pad_token\": {\"content\": \"<unk>\"}}");
    assert_eq!(said().unwrap(), "<s>|</s>|<unk>|False");
    settings["added_tokens_decoder"] = json!({});
    write("tokenizer_config.json", &settings.to_string());
    assert_eq!(said().unwrap(), "<s>|</s>|</s>|False");
    // A folder of its own holds the templates beside the default.
    write("chat_templates/tool_use.jinja", "tools");
    assert_eq!(said().unwrap(), "<s>|</s>|</s>|False");
    write("chat_template.jinja", "file");
    assert_eq!(said().unwrap(), "file");
    write("chat_template.jinja", "{{ broken");
    let error = Checkpoint::open_blank(folder.path()).unwrap_err().to_string();
    assert!(error.contains("chat template") && error.contains("chat_template:1"), "{error}");
}

/// Reads the cases of `OPTUNE_TEMPLATE_CASES`. `python tests/python/chat_templates.py` makes them
/// and runs this.
#[test]
fn published_chat_templates_give_the_text_and_the_token_ids_that_transformers_gives() {
    let Some(path) = std::env::var_os("OPTUNE_TEMPLATE_CASES") else {
        eprintln!("skipped: OPTUNE_TEMPLATE_CASES is not set");
        return;
    };
    let mut checkpoints: HashMap<PathBuf, Checkpoint> = HashMap::new();
    let (mut count, mut refused, mut differences) = (0, 0, Vec::new());
    let (mut pairs, mut changed, mut joined) = (0, 0, 0);
    for line in BufReader::new(fs::File::open(path).unwrap()).lines() {
        let case: Value = serde_json::from_str(&line.unwrap()).unwrap();
        let folder = Path::new(case["folder"].as_str().unwrap());
        let settings = || TemplateSettings { date: case["date"].as_str().unwrap().parse().ok(), ..TemplateSettings::default() };
        let open = || Checkpoint::open_blank(folder).unwrap().with_template_settings(settings());
        let checkpoint = checkpoints.entry(folder.to_path_buf()).or_insert_with(open);
        let conversation = conversation(&case);
        let messages = &conversation.messages;
        let is_prompt = case["add_generation_prompt"].as_bool().unwrap();
        let text = checkpoint.chat_template.as_ref().unwrap().render(&conversation, is_prompt);
        let same = match (&text, case["text"].as_str()) {
            (Ok(text), Some(expected)) => text == expected && token_ids(checkpoint, &conversation, is_prompt, text) == case["token_ids"],
            (Err(error), None) => {
                refused += 1;
                // By the template's own word in both, or by a failure in both.
                matches!(error, ModelError::Refused(_)) == case["error"].as_str().unwrap().starts_with("TemplateError")
            }
            _ => false,
        };
        count += 1;
        if let (Some(trained), Some((last, before))) = (case["trained_ids"].as_array(), messages.split_last()) {
            match checkpoint.encode_pair(&PromptContent::Messages(before.to_vec().into()), &last.content) {
                Ok(pair) if is_trained(&pair, trained) => pairs += 1,
                Err(ModelError::Chat(error)) if error.contains("changes the prompt") => changed += 1,
                Err(ModelError::Text(error)) if error.contains("not the first ones") => joined += 1,
                other => differences.push(format!("{}: trained on {trained:?}, we {other:?}", case["name"])),
            }
        }
        if !same {
            differences.push(format!("{}: transformers {}{}, we {text:?}", case["name"], case["text"], case["error"]));
        }
    }
    eprintln!("{} templates, {count} cases, {refused} refused by both, {} differences", checkpoints.len(), differences.len());
    eprintln!(
        "{pairs} responses of the very tokens that TRL trains on, {changed} refused because the template changes the prompt, {joined} because a token joins both"
    );
    assert!(count > 0 && differences.is_empty(), "{}", differences.iter().take(5).map(String::as_str).collect::<Vec<_>>().join("\n"));
}

/// Whether a pair ends in the tokens of TRL's training. Its templates count their text before the
/// response as well.
fn is_trained(pair: &EncodedPair, trained: &[Value]) -> bool {
    let trained: Vec<i32> = trained.iter().map(|id| id.as_i64().unwrap() as i32).collect();
    pair.token_ids.ends_with(&trained) && trained.ends_with(&pair.token_ids[pair.prompt_token_count..])
}

/// The ids by the way of a stage: as a prompt, or as a conversation with the response as its last
/// message.
fn token_ids(checkpoint: &Checkpoint, conversation: &Conversation, is_prompt: bool, text: &str) -> Value {
    let ids = match conversation.messages.split_last() {
        _ if text.is_empty() => Ok(Vec::new()),
        _ if is_prompt => checkpoint.encode_prompt(&PromptContent::Messages(conversation.clone())),
        Some((last, before)) if last.role == "assistant" => {
            let before = Conversation { messages: before.to_vec(), variables: conversation.variables.clone() };
            checkpoint.encode_conversation(&PromptContent::Messages(before), last)
        }
        _ => checkpoint.tokenizer.encode(text, SpecialTokens::Written),
    };
    json!(ids.unwrap())
}
