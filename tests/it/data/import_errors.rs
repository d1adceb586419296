//! Import errors: each names the table, the file and the row.

use std::fs;

use serde_json::Value;

use crate::fixtures::import::{Use, folder, imported, rows, says};

/// The error of each broken table: its files, how the pipeline names them, their use, and the whole
/// error.
#[test]
fn what_is_wrong_is_said_with_file_and_row() {
    let known = "\n  rows: prompt (text) or messages, and response, or chosen and rejected (texts)\
        \n  trl: prompt and completion; chosen and rejected with or without prompt; messages that end with the assistant; or, for sft, text\
        \n  sharegpt: conversations, and chosen and rejected\
        \n  alpaca: instruction, and input, output, or chosen and rejected\
        \n  orca: question, and chosen and rejected (texts); maybe system\
        \n  ultrafeedback: chosen and rejected (messages), and prompt (text) or score_chosen and score_rejected\
        \n  rlhflow: chosen and rejected (messages), chosen_score and rejected_score; context_messages; or prompt, responses and rewards";
    let none = format!(
        "table data: expected a column prompt or messages, or those of a known dataset format, found a, b; name columns with `map:`, or say `dataset_format:`{known}"
    );
    let pair = |chosen: &str, rejected: &str| format!("{{\"chosen\": {chosen}, \"rejected\": {rejected}}}");
    let turns =
        |turns: &[(&str, &str)]| Value::from(turns.iter().map(|(role, content)| says(role, content)).collect::<Vec<_>>()).to_string();
    let good = pair(&turns(&[("user", "q"), ("assistant", "a")]), &turns(&[("user", "q"), ("assistant", "b")]));
    let parted =
        pair(&turns(&[("user", "q"), ("assistant", "a"), ("user", "r"), ("assistant", "c")]), &turns(&[("user", "q"), ("assistant", "b")]));
    let alone = pair(&turns(&[("assistant", "a")]), &turns(&[("assistant", "b")]));
    let unanswered = pair(&turns(&[("user", "q"), ("user", "a")]), &turns(&[("user", "q"), ("assistant", "b")]));
    let case = |files: &[(&str, &str)], written: &'static str, used: Use, expected: &str| {
        let files: Vec<(String, String)> = files.iter().map(|(name, text)| (name.to_string(), text.to_string())).collect();
        (files, written, used, expected.to_string())
    };
    let cases = vec![
        case(&[("x.jsonl", "{\"a\": 1, \"b\": 2}\n")], "table: x.jsonl", Use::Prompts, &none),
        case(&[("x.csv", "prompt\n")], "table: x.csv", Use::Prompts, &none.replace("a, b", "prompt without any row")),
        case(&[("x.jsonl", "{\"prompt\": null}\n")], "table: x.jsonl", Use::Prompts, &none.replace("a, b", "prompt (null in every row)")),
        case(
            &[("x.jsonl", "{\"prompt\": [\"q\"], \"b\": 1}\n")],
            "table: x.jsonl",
            Use::Prompts,
            &none.replace("a, b", "prompt (List(Utf8)), b"),
        ),
        case(
            &[("x.jsonl", "{\"system\": \"s\", \"query\": \"q\", \"chosen\": \"I think yes\", \"rejected\": \"I think no\"}\n")],
            "table: x.jsonl",
            Use::Preferences,
            "table data: expected a column prompt, or chosen and rejected that begin with it, found query beside them; if it is the prompt, say \
             `map: { prompt: query }`; if chosen and rejected begin with the prompt, say `dataset_format: trl`",
        ),
        case(
            &[("x.jsonl", "{\"instruction\": \"i\", \"context\": \"c\", \"response\": \"r\"}\n")],
            "table: x.jsonl",
            Use::Demonstrations,
            "table data: expected input beside instruction, found context; if it belongs to the prompt, say `map: { input: context }`, else leave \
             it out with `columns: { context: skip }`",
        ),
        case(
            &[("x.csv", "prompt;response\na;b\n")],
            "table: x.csv",
            Use::Prompts,
            &none.replace("a, b", "\"prompt;response\" (if ';' separates columns, say `delimiter:`)"),
        ),
        case(
            &[("x.csv", "prompt\na, b\n")],
            "table: x.csv",
            Use::Prompts,
            "x.csv:2: expected 1 values, as there are columns, found 2; a value with the delimiter in it needs quotes",
        ),
        case(
            &[("x.jsonl", "{\"prompt\": \"q\", \"instruction\": \"i\"}\n")],
            "table: x.jsonl",
            Use::Prompts,
            "table data: the columns prompt, instruction fit rows and alpaca; say which with `dataset_format:`",
        ),
        case(
            &[("x.jsonl", "{\"prompt\": \"q\"}\n")],
            "table: x.jsonl, dataset_format: sharegpt",
            Use::Prompts,
            "table data: dataset_format sharegpt: expected conversations, and chosen and rejected; found prompt",
        ),
        case(
            &[("x.jsonl", "{\"prompt\": \"q\"}\n")],
            "table: x.jsonl",
            Use::Preferences,
            "table data: expected columns chosen and rejected, found prompt",
        ),
        case(
            &[("x.jsonl", "{\"prompt\": \"q\"}\n\n{\"prompt\": null}\n")],
            "table: x.jsonl",
            Use::Prompts,
            "x.jsonl:3: table data, row 1: expected a prompt or messages, found neither",
        ),
        case(
            &[("x.csv", "prompt,n\n\"two\nlines\",1\n,2\n")],
            "table: x.csv",
            Use::Prompts,
            "x.csv:4: table data, row 1: expected a prompt or messages, found neither",
        ),
        case(
            &[("x.json", "[{\"prompt\": \"q\"},\n {\"prompt\": null}]")],
            "table: x.json",
            Use::Prompts,
            "x.json: row 1: table data, row 1: expected a prompt or messages, found neither",
        ),
        case(
            &[("1.jsonl", "{\"prompt\": \"q\", \"prompt_id\": \"a\"}\n"), ("2.jsonl", "{\"prompt\": \"r\", \"prompt_id\": \"a\"}\n")],
            "table: \"?.jsonl\"",
            Use::Prompts,
            "2.jsonl:1: table data, row 1: prompt_id a is already that of row 0, which has another prompt",
        ),
        case(
            &[("x.jsonl", &format!("{good}\n{parted}\n"))],
            "table: x.jsonl",
            Use::Preferences,
            "x.jsonl:2: table data, row 1: chosen: expected one message of the assistant behind the prompt, found messages of assistant, user, assistant",
        ),
        case(
            &[("x.jsonl", &format!("{good}\n{alone}\n"))],
            "table: x.jsonl",
            Use::Preferences,
            "x.jsonl:2: table data, row 1: expected a prompt: chosen and rejected have no first message in common",
        ),
        case(
            &[("x.jsonl", &format!("{unanswered}\n"))],
            "table: x.jsonl",
            Use::Preferences,
            "x.jsonl:1: table data, row 0: chosen: expected one message of the assistant behind the prompt, found a message of the user",
        ),
        case(
            &[("x.jsonl", "{\"conversations\": [{\"from\": \"robot\", \"value\": \"q\"}]}\n")],
            "table: x.jsonl",
            Use::Prompts,
            "x.jsonl:1: table data, row 0: conversations: message 0: expected it to be from human, user, gpt, assistant or system, found \"robot\"",
        ),
        case(
            &[("x.jsonl", "{\"conversations\": []}\n{\"conversations\": [{\"from\": \"human\", \"value\": \"q\"}]}\n")],
            "table: x.jsonl",
            Use::Prompts,
            "x.jsonl:1: table data, row 0: expected a prompt that the assistant answers, found no message",
        ),
        case(
            &[("x.jsonl", "{\"prompt\": \"q\", \"responses\": [\"a\"], \"rewards\": [1]}\n")],
            "table: x.jsonl",
            Use::Preferences,
            "x.jsonl:1: table data, row 0: expected as many rewards as responses, two or more, found 1 responses and 1 rewards",
        ),
        case(
            &[("x.jsonl", "{\"instruction\": \"q\", \"history\": [[\"a\", \"b\"]]}\n")],
            "table: x.jsonl",
            Use::Prompts,
            "x.jsonl:1: table data, row 0: expected an instruction alone, found a system prompt or a history; bring such rows as messages",
        ),
        case(
            &[("x.jsonl", "{\"instruction\": \"i\", \"prompt_text\": 1}\n")],
            "table: x.jsonl, map: { prompt: text }",
            Use::Prompts,
            "table data: map: expected a column text, found instruction, prompt_text",
        ),
        case(
            &[("x.jsonl", "{\"prompt\": \"q\", \"chosen\": \"a\", \"rejected\": null}\n")],
            "table: x.jsonl, dataset_format: rows",
            Use::Preferences,
            "x.jsonl:1: table data, row 0: rejected: expected a response, found null",
        ),
        case(
            &[("x.jsonl", "{\"prompt\": \"q\", \"chosen\": \"a\", \"rejected\": \"b\", \"weight\": -1}\n")],
            "table: x.jsonl",
            Use::Preferences,
            "x.jsonl:1: table data, row 0: weight: expected 0 or more, found -1",
        ),
        case(
            &[("x.jsonl", "{\"prompt\": \"q\"}\n{\"prompt\": {\"a\": 1}}\n")],
            "table: x.jsonl",
            Use::Prompts,
            "x.jsonl:2: table data, row 1: column prompt: expected text, found an object",
        ),
        case(&[("x.json", "[{\"a\": 1}, 5]")], "table: x.json", Use::Query, "x.json:1: row 1: expected a JSON object, found '5'"),
        case(
            &[("x.json", "[{\"a\": 1}\n {\"a\": 2}]")],
            "table: x.json",
            Use::Query,
            "x.json:2: expected a comma or the array's end, found '{'",
        ),
        case(
            &[("x.json", "[{\"a\": 1}, {\"a\": ")],
            "table: x.json",
            Use::Query,
            "x.json:1: row 1: expected the value's end, found that of the file",
        ),
        case(
            &[("x.json", "[{\"a\": 1}, {\"a\": x}]")],
            "table: x.json",
            Use::Query,
            "x.json: row 1: expected a JSON object, found none: expected a value at byte 7, found 'x'",
        ),
        case(
            &[("x.json", "{\"a\": 1}\n{\"a\": 2}\n")],
            "table: x.json",
            Use::Query,
            "x.json:1: expected an array of objects, found an object without one; for one object a line say `format: jsonl`",
        ),
        case(
            &[("x.json", "{\"a\": [{}], \"b\": [{}]}")],
            "table: x.json",
            Use::Query,
            "x.json:1: expected one array of objects, found a second one; put each into a file of its own",
        ),
        case(
            &[("x.jsonl", "\u{1f}\u{8b}")],
            "table: x.jsonl",
            Use::Query,
            "x.jsonl:1: expected a JSON object, found none: expected a value at byte 1, found '\\u{1f}'",
        ),
        case(&[("x.jsonl", "")], "table: x.jsonl", Use::Prompts, &none.replace("a, b", "no columns")),
    ];
    for (files, written, used, expected) in cases {
        let folder = folder();
        files.iter().for_each(|(name, text)| fs::write(folder.path().join(name), text).unwrap());
        let found = imported(folder.path(), written, used).map_or_else(|error| error, |found| format!("{:?}", rows(&found.batches)));
        assert_eq!(found, expected, "{files:?}, {written}");
    }
    let folder = folder();
    for name in ["x.jsonl", "x.json", "x.csv"] {
        fs::write(folder.path().join(name), [0xff, 0xfe, b'{', 0]).unwrap();
        let error = imported(folder.path(), &format!("table: {name}"), Use::Query).err().unwrap();
        assert_eq!(error, format!("{name}: expected text in UTF-8, found UTF-16"));
    }
    fs::write(folder.path().join("x.arrow"), "no arrow").unwrap();
    assert!(imported(folder.path(), "table: x.arrow", Use::Query).err().unwrap().starts_with("x.arrow: "));
}
