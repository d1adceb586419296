//! Data of every shape and format becomes the same rows; what is wrong is told with file and row.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::json::reader::infer_json_schema_from_iterator;
use optune::import::{Imported, import};
use optune::import::{Preferences, Prompts};
use optune::pipeline::Pipeline;
use optune::pipeline::spec::input::DatasetFormat;
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::workspace::Workspace;

/// What the node that reads the table reads it as.
#[derive(Clone, Copy, PartialEq)]
pub enum Use {
    Prompts,
    Demonstrations,
    Preferences,
    Query,
}

/// A folder with a model directory that pipelines can name.
pub fn folder() -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    fs::create_dir(folder.path().join("base")).unwrap();
    fs::write(folder.path().join("base/config.json"), "{}").unwrap();
    folder
}

/// The table `data`, whose input is `{ table: …, … }` as `written`, as a node that reads it so sees it.
pub fn imported(folder: &Path, written: &str, used: Use) -> Result<Imported, String> {
    let node = match used {
        Use::Prompts => "generate: { policy: base, prompts: data }",
        Use::Demonstrations => "sft: { from: base, demonstrations: data }",
        Use::Preferences => "train: { from: base, reference: base, pairs: data }",
        Use::Query => "sql: { query: select * from data }",
    };
    let text = format!("optune: 1\nname: x\ninputs:\n  data: {{ {written} }}\n  base: {{ model: base }}\nnodes:\n  node: {{ {node} }}\n");
    let graph = Pipeline::read("x.yaml", &text, &[]).and_then(|pipeline| pipeline.graph(folder)).map_err(|error| error.to_string())?;
    let prefix = folder.to_string_lossy().into_owned() + "/";
    import(&graph, 0).map_err(|error| error.to_string().replace(&prefix, ""))
}

/// The rows as JSON, without nulls and without ids.
pub fn rows(batches: &[RecordBatch]) -> Vec<Value> {
    let mut bytes = Vec::new();
    let mut writer = arrow::json::LineDelimitedWriter::new(&mut bytes);
    batches.iter().for_each(|batch| writer.write(batch).unwrap());
    writer.finish().unwrap();
    let row = |line: &str| {
        let mut row: Value = serde_json::from_str(line).unwrap();
        row.as_object_mut().unwrap().remove("prompt_id");
        row
    };
    String::from_utf8(bytes).unwrap().lines().map(row).collect()
}

fn batch(rows: &[Value]) -> RecordBatch {
    let schema = infer_json_schema_from_iterator(rows.iter().map(Ok)).unwrap();
    let mut decoder = arrow::json::ReaderBuilder::new(Arc::new(schema)).build_decoder().unwrap();
    decoder.serialize(rows).unwrap();
    decoder.flush().unwrap().unwrap()
}

/// The extension of each way to write a table; CSV is only for rows of plain values.
const FORMATS: [&str; 7] = ["jsonl", "json", "nested.json", "parquet", "arrow", "stream.arrow", "csv"];

/// Writes rows as `name.<format>`, unless the format cannot hold them.
fn write(folder: &Path, name: &str, format: &str, rows: &[Value]) -> Option<PathBuf> {
    let path = folder.join(format!("{name}.{format}"));
    let create = || File::create(&path).unwrap();
    match format {
        "jsonl" => fs::write(&path, rows.iter().map(|row| format!("{row}\r\n")).collect::<String>()).unwrap(),
        "json" => fs::write(&path, format!("\u{feff}{:#}", Value::from(rows))).unwrap(),
        "nested.json" => fs::write(&path, json!({ "type": "text", "instances": rows, "of": [1] }).to_string()).unwrap(),
        "parquet" => optune::store::write_parquet(&path, &batch(rows)).unwrap(),
        "arrow" => {
            let batch = batch(rows);
            let mut writer = arrow::ipc::writer::FileWriter::try_new(create(), &batch.schema()).unwrap();
            writer.write(&batch).unwrap();
            writer.finish().unwrap();
        }
        "stream.arrow" => {
            let batch = batch(rows);
            let mut writer = arrow::ipc::writer::StreamWriter::try_new(create(), &batch.schema()).unwrap();
            writer.write(&batch).unwrap();
            writer.finish().unwrap();
        }
        _ => {
            let plain = |row: &Value| row.as_object().unwrap().values().all(|value| !value.is_array() && !value.is_object());
            if !rows.iter().all(plain) {
                return None;
            }
            let batch = batch(rows);
            arrow::csv::Writer::new(create()).write(&batch).unwrap();
        }
    }
    Some(path)
}

/// A message in TRL's form.
pub fn says(role: &str, content: &str) -> Value {
    json!({ "role": role, "content": content })
}

/// A message in ShareGPT's form.
fn from(from: &str, value: &str) -> Value {
    json!({ "from": from, "value": value })
}

/// One row of a shape, what it is used as, the settings it needs, and what it becomes.
struct Case {
    shape: DatasetFormat,
    used: Use,
    settings: &'static str,
    row: Value,
    expected: Value,
}

fn cases() -> Vec<Case> {
    use Use::{Demonstrations, Preferences};
    let case = |shape, used, settings, row, expected| Case { shape, used, settings, row, expected };
    let (q, a, b) = (says("user", "q"), says("assistant", "a"), says("assistant", "b"));
    let asked = json!([q]);
    vec![
        case(
            DatasetFormat::Rows,
            Use::Prompts,
            "",
            json!({"prompt": "q", "extra": {"n": [1]}}),
            json!({"prompt": "q", "extra": {"n": [1]}}),
        ),
        case(DatasetFormat::Rows, Use::Prompts, "", json!({"messages": [q]}), json!({"messages": asked})),
        case(
            DatasetFormat::Rows,
            Use::Prompts,
            "map: { prompt: question, reference_answer: answer }",
            json!({"question": "q", "answer": "a"}),
            json!({"prompt": "q", "reference_answer": "a"}),
        ),
        case(
            DatasetFormat::Rows,
            Use::Prompts,
            "map: { prompt: data.text.en }",
            json!({"data": {"text": {"en": "q"}}}),
            json!({"prompt": "q", "data": {"text": {"en": "q"}}}),
        ),
        case(
            DatasetFormat::Rows,
            Preferences,
            "",
            json!({"prompt": "q", "chosen": "a", "rejected": "b", "weight": 0.5}),
            json!({"prompt": "q", "chosen": "a", "rejected": "b", "weight": 0.5}),
        ),
        case(DatasetFormat::Trl, Use::Prompts, "", json!({"prompt": [q]}), json!({"messages": asked})),
        case(
            DatasetFormat::Trl,
            Demonstrations,
            "",
            json!({"prompt": "q", "completion": "a", "n": 1}),
            json!({"prompt": "q", "response": "a", "n": 1}),
        ),
        case(
            DatasetFormat::Trl,
            Demonstrations,
            "",
            json!({"prompt": [q], "completion": [a]}),
            json!({"messages": asked, "response": "a"}),
        ),
        case(DatasetFormat::Trl, Demonstrations, "", json!({"messages": [q, a]}), json!({"messages": asked, "response": "a"})),
        case(
            DatasetFormat::Trl,
            Preferences,
            "",
            json!({"prompt": [q], "chosen": [a], "rejected": [b]}),
            json!({"messages": asked, "chosen": "a", "rejected": "b"}),
        ),
        case(
            DatasetFormat::Trl,
            Preferences,
            "",
            json!({"prompt": [q], "chosen": [q, a], "rejected": [q, b]}),
            json!({"messages": asked, "chosen": "a", "rejected": "b"}),
        ),
        case(
            DatasetFormat::Trl,
            Preferences,
            "",
            json!({"chosen": [says("system", "s"), q, a], "rejected": [says("system", "s"), q, b]}),
            json!({"messages": [says("system", "s"), q], "chosen": "a", "rejected": "b"}),
        ),
        case(
            DatasetFormat::Trl,
            Preferences,
            "dataset_format: trl",
            json!({"prompt": "q", "chosen": "a", "rejected": "b"}),
            json!({"prompt": "q", "chosen": "a", "rejected": "b"}),
        ),
        case(
            DatasetFormat::Sharegpt,
            Demonstrations,
            "",
            json!({"conversations": [from("human", "q"), from("gpt", "a")]}),
            json!({"messages": asked, "response": "a"}),
        ),
        case(
            DatasetFormat::Sharegpt,
            Use::Prompts,
            "",
            json!({"conversations": [from("user", "q")], "system": "s"}),
            json!({"messages": [says("system", "s"), q]}),
        ),
        case(
            DatasetFormat::Sharegpt,
            Preferences,
            "",
            json!({"conversations": [from("human", "q")], "chosen": from("gpt", "a"), "rejected": from("gpt", "b")}),
            json!({"messages": asked, "chosen": "a", "rejected": "b"}),
        ),
        case(
            DatasetFormat::Alpaca,
            Demonstrations,
            "",
            json!({"instruction": "i", "input": "x", "output": "a"}),
            json!({"prompt": "i\n\nx", "response": "a"}),
        ),
        case(
            DatasetFormat::Alpaca,
            Use::Prompts,
            "",
            json!({"instruction": "i", "input": "", "tag": "t"}),
            json!({"prompt": "i", "tag": "t"}),
        ),
        case(
            DatasetFormat::Alpaca,
            Preferences,
            "",
            json!({"instruction": "i", "chosen": "a", "rejected": "b"}),
            json!({"prompt": "i", "chosen": "a", "rejected": "b"}),
        ),
        case(
            DatasetFormat::Ultrafeedback,
            Preferences,
            "",
            json!({"prompt": "q", "chosen": [q, a], "rejected": [q, b], "messages": [q, a], "score_chosen": 8.5, "score_rejected": 6.0, "prompt_id": "p"}),
            json!({"messages": asked, "chosen": "a", "rejected": "b", "chosen_score": 8.5, "rejected_score": 6.0}),
        ),
        case(
            DatasetFormat::Ultrafeedback,
            Preferences,
            "",
            json!({"prompt": "q", "chosen": [a], "rejected": [b]}),
            json!({"messages": asked, "chosen": "a", "rejected": "b"}),
        ),
        case(
            DatasetFormat::Rlhflow,
            Preferences,
            "",
            json!({"chosen": [q, a], "rejected": [q, b], "chosen_score": 5.0, "rejected_score": 2.0, "source": "s"}),
            json!({"messages": asked, "chosen": "a", "rejected": "b", "chosen_score": 5.0, "rejected_score": 2.0, "source": "s"}),
        ),
        case(
            DatasetFormat::Rlhflow,
            Use::Prompts,
            "dataset_format: rlhflow",
            json!({"context_messages": [q], "prompt": "q", "source": "s"}),
            json!({"messages": asked, "source": "s"}),
        ),
        case(
            DatasetFormat::Rlhflow,
            Preferences,
            "",
            json!({"prompt": "q", "responses": ["c", "a", "b"], "rewards": [0.5, 2.5, -1.5]}),
            json!({"prompt": "q", "chosen": "a", "rejected": "b", "chosen_score": 2.5, "rejected_score": -1.5}),
        ),
    ]
}

#[test]
fn every_shape_in_every_format_becomes_the_same_rows() {
    let folder = folder();
    for (index, case) in cases().iter().enumerate() {
        let mut written = 0;
        for format in FORMATS {
            let Some(path) = write(folder.path(), &format!("case{index}"), format, std::slice::from_ref(&case.row)) else { continue };
            let name = path.file_name().unwrap().to_string_lossy().into_owned();
            let found = imported(folder.path(), &format!("table: {name}, {}", case.settings), case.used);
            let found = found.unwrap_or_else(|error| panic!("{name}, {}: {error}", case.row));
            assert_eq!(found.dataset_format, Some(case.shape), "{name}: {}", case.row);
            assert_eq!(rows(&found.batches), std::slice::from_ref(&case.expected), "{name}: {}", case.row);
            let id = found.batches[0].column_by_name("prompt_id");
            assert!(id.is_some() || case.used == Use::Preferences, "{name}: no prompt_id");
            written += 1;
        }
        assert!(written >= 6, "only {written} formats held {}", case.row);
    }
}

#[test]
fn the_same_random_rows_are_the_same_from_every_format() {
    let folder = folder();
    let mut random = ChaCha8Rng::seed_from_u64(11);
    let pieces = ["word", "é", "\"", ",", "\n", "\t", "'", "{", "]", "\\", "🙂", " ", "#", ";", "\u{2028}", "x: y"];
    let text = |random: &mut ChaCha8Rng| {
        let length = 1 + random.next_u64() % 9;
        format!("a{}z", (0..length).map(|_| pieces[(random.next_u64() % pieces.len() as u64) as usize]).collect::<String>())
    };
    for round in 0..20 {
        let count = 1 + random.next_u64() % 30;
        let plain: Vec<Value> = (0..count)
            .map(|row| json!({"prompt_id": format!("p{row}"), "prompt": text(&mut random), "chosen": text(&mut random), "rejected": text(&mut random), "chosen_score": row, "rejected_score": -0.5}))
            .collect();
        let conversations: Vec<Value> = (0..count)
            .map(|_| {
                let turns: Vec<Value> = (0..=2 * (random.next_u64() % 3)).map(|turn| says(["user", "assistant"][turn as usize % 2], &text(&mut random))).collect();
                let with = |answer: String| Value::from([turns.clone(), vec![says("assistant", &answer)]].concat());
                json!({"chosen": with(format!("1{}", text(&mut random))), "rejected": with(format!("2{}", text(&mut random))), "kwargs": [{}, {"n": 1}]})
            })
            .collect();
        for (kind, table) in [("plain", &plain), ("conversations", &conversations)] {
            let mut expected: Option<(Vec<Value>, Preferences)> = None;
            for format in FORMATS {
                let Some(path) = write(folder.path(), &format!("{kind}{round}"), format, table) else { continue };
                let name = path.file_name().unwrap().to_string_lossy().into_owned();
                let found =
                    imported(folder.path(), &format!("table: {name}"), Use::Preferences).unwrap_or_else(|error| panic!("{name}: {error}"));
                let found = (rows(&found.batches), Preferences::from_batches("data", found.batches).unwrap());
                assert_eq!(found.1.len() as u64, count);
                match &expected {
                    None => expected = Some(found),
                    Some(expected) => assert!(found == *expected, "{name} differs: {:?} from {:?}", found.0, expected.0),
                }
            }
        }
    }
}

/// What each broken table is told: its files, how they are named, what they are used as, and the whole error.
#[test]
fn what_is_wrong_is_said_with_file_and_row() {
    let known = "\n  rows: prompt (text) or messages, and response, or chosen and rejected (texts)\
        \n  trl: prompt and completion; chosen and rejected (messages) with or without prompt; or messages that end with the assistant\
        \n  sharegpt: conversations, and chosen and rejected\
        \n  alpaca: instruction, and input, output, or chosen and rejected\
        \n  ultrafeedback: chosen and rejected (messages), and prompt (text) or score_chosen and score_rejected\
        \n  rlhflow: chosen and rejected (messages), chosen_score and rejected_score; context_messages; or prompt, responses and rewards";
    let none = format!(
        "table data: expected a column prompt or messages, or those of a known dataset format, found a, b; name columns with `map:`, or say `shape:`{known}"
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
            "table data: shape sharegpt: expected conversations, and chosen and rejected; found prompt",
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
            "2.jsonl:1: table data, row 1: prompt_id a is already that of row 0",
        ),
        case(
            &[("x.jsonl", &format!("{good}\n{parted}\n"))],
            "table: x.jsonl",
            Use::Preferences,
            "x.jsonl:2: table data: chosen: expected one message of the assistant behind the prompt, found messages of assistant, user, assistant",
        ),
        case(
            &[("x.jsonl", &format!("{good}\n{alone}\n"))],
            "table: x.jsonl",
            Use::Preferences,
            "x.jsonl:2: table data: expected a prompt: chosen and rejected have no first message in common",
        ),
        case(
            &[("x.jsonl", &format!("{unanswered}\n"))],
            "table: x.jsonl",
            Use::Preferences,
            "x.jsonl:1: table data: chosen: expected one message of the assistant behind the prompt, found a message of the user",
        ),
        case(
            &[("x.jsonl", "{\"conversations\": [{\"from\": \"robot\", \"value\": \"q\"}]}\n")],
            "table: x.jsonl",
            Use::Prompts,
            "x.jsonl:1: table data: conversations: message 0: expected it to be from human, user, gpt, assistant or system, found \"robot\"",
        ),
        case(
            &[("x.jsonl", "{\"conversations\": []}\n{\"conversations\": [{\"from\": \"human\", \"value\": \"q\"}]}\n")],
            "table: x.jsonl",
            Use::Prompts,
            "x.jsonl:1: table data: expected a prompt that the assistant answers, found no message",
        ),
        case(
            &[("x.jsonl", "{\"prompt\": \"q\", \"responses\": [\"a\"], \"rewards\": [1]}\n")],
            "table: x.jsonl",
            Use::Preferences,
            "x.jsonl:1: table data: expected as many rewards as responses, two or more, found 1 responses and 1 rewards",
        ),
        case(
            &[("x.jsonl", "{\"instruction\": \"q\", \"history\": [[\"a\", \"b\"]]}\n")],
            "table: x.jsonl",
            Use::Prompts,
            "x.jsonl:1: table data: expected an instruction alone, found a system prompt or a history; bring such rows as messages",
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
            Use::Query,
            "x.jsonl:2: a value does not fit those before it: Expected object json type, found: Scalar({Utf8})",
        ),
        case(
            &[("x.jsonl", "{\"prompt\": \"q\"}\n{\"prompt\": 5}\n")],
            "table: x.jsonl",
            Use::Query,
            "x.jsonl:2: whilst decoding field 'prompt': expected string got 5",
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
            "x.json: row 1: expected a JSON object, found expected value at byte 7",
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
            &[("a.jsonl", "{\"p\": 1}\n"), ("b.jsonl", "{\"p\": 1, \"q\": 2}\n")],
            "table: [b.jsonl, a.jsonl]",
            Use::Query,
            "b.jsonl: expected files of one table to have the same columns, but a.jsonl has no column q",
        ),
        case(
            &[("a.csv", "p,q\n1,2\n"), ("b.csv", "q,p\n1,2\n")],
            "table: \"*.csv\"",
            Use::Query,
            "b.csv: expected the columns in the order of a.csv, found q where p is",
        ),
        case(
            &[("x.jsonl", "\u{1f}\u{8b}")],
            "table: x.jsonl",
            Use::Query,
            "x.jsonl:1: expected a JSON object, found expected value at byte 1",
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
    for (bytes, found) in [(&[0x1f, 0x8b, 8, 0][..], "gzip; unpack it first"), (&[0xff, 0xfe, b'{', 0], "UTF-16")] {
        for name in ["x.jsonl", "x.json", "x.csv"] {
            fs::write(folder.path().join(name), bytes).unwrap();
            let error = imported(folder.path(), &format!("table: {name}"), Use::Query).err().unwrap();
            assert_eq!(error, format!("{name}: expected text in UTF-8, found {found}"));
        }
    }
    fs::write(folder.path().join("x.arrow"), "no arrow").unwrap();
    assert!(imported(folder.path(), "table: x.arrow", Use::Query).err().unwrap().starts_with("x.arrow: "));
}

#[test]
fn several_files_are_one_table_in_the_order_of_their_paths() {
    let folder = folder();
    for (name, format, from) in [("b", "parquet", 2), ("a", "parquet", 0), ("c", "parquet", 5)] {
        let rows: Vec<Value> = (from..from + 2).map(|n| json!({"prompt": format!("q{n}"), "n": n})).collect();
        write(folder.path(), name, format, &rows);
    }
    // A file of JSON lines may lack what another one has in some row only if some row of it has it too; types are those of all files.
    fs::write(folder.path().join("1.jsonl"), "{\"prompt\": \"a\", \"x\": 1}\n").unwrap();
    fs::write(folder.path().join("2.jsonl"), "{\"prompt\": \"b\", \"x\": 1.5}\n{\"prompt\": \"c\"}\n").unwrap();
    let numbers = |written: &str| {
        let found = imported(folder.path(), written, Use::Prompts).unwrap_or_else(|error| panic!("{error}"));
        rows(&found.batches).iter().map(|row| row["n"].as_i64().unwrap()).collect::<Vec<_>>()
    };
    assert_eq!(numbers("table: \"*.parquet\""), [0, 1, 2, 3, 5, 6]);
    assert_eq!(numbers("table: [c.parquet, \"[ab].parquet\", a.parquet]"), [0, 1, 2, 3, 5, 6]);
    let found = imported(folder.path(), "table: [2.jsonl, 1.jsonl]", Use::Prompts).unwrap_or_else(|error| panic!("{error}"));
    let expected = [json!({"prompt": "a", "x": 1.0}), json!({"prompt": "b", "x": 1.5}), json!({"prompt": "c"})];
    assert_eq!(rows(&found.batches), expected);
}

#[test]
fn columns_that_hold_nothing_are_kept_as_nulls() {
    let workspace = Workspace::new();
    workspace
        .write("empty.jsonl", "{\"prompt\": \"q\", \"a\": {}, \"b\": [{}, {}], \"c\": {\"d\": {}, \"e\": 1}, \"f\": [], \"g\": null}\n");
    let text = "optune: 1\nname: empty\ninputs:\n  data: { table: empty.jsonl }\nnodes:\n  node: { sql: { query: select * from data } }\n";
    workspace.write("pipeline.yaml", text);
    workspace.succeed(&["run", "pipeline.yaml"]);
    assert_eq!(workspace.query("empty", "SELECT prompt, a IS NULL, array_length(b), c['e'] FROM node"), "q,true,2,1");
}

#[test]
fn a_table_that_only_queries_read_keeps_its_columns() {
    let folder = folder();
    let row = json!({"conversations": [from("human", "q")], "prompt": "p", "instruction": "i"});
    write(folder.path(), "x", "jsonl", std::slice::from_ref(&row));
    let found = imported(folder.path(), "table: x.jsonl", Use::Query).unwrap_or_else(|error| panic!("{error}"));
    assert_eq!((found.dataset_format, rows(&found.batches)), (None, vec![row]));
    let found = imported(folder.path(), "table: x.jsonl, dataset_format: alpaca, map: { text: prompt }", Use::Query)
        .unwrap_or_else(|error| panic!("{error}"));
    assert_eq!(rows(&found.batches), [json!({"prompt": "i", "conversations": [from("human", "q")], "text": "p"})]);
}

#[test]
fn several_pairs_of_a_prompt_are_told_apart_whatever_their_order() {
    let rows = |order: &[usize]| -> Vec<Value> {
        let all = [
            json!({"prompt_id": "p", "prompt": "q", "chosen": "a", "rejected": "b"}),
            json!({"prompt_id": "p", "prompt": "q", "chosen": "a", "rejected": "c"}),
            json!({"prompt_id": "o", "prompt": "q", "chosen": "d", "rejected": "c"}),
        ];
        order.iter().map(|index| all[*index].clone()).collect()
    };
    let read = |order: &[usize]| Preferences::from_batches("data", vec![batch(&rows(order))]).unwrap();
    let ids: Vec<String> = read(&[0, 1, 2]).iter().map(|row| format!("{} {} {}", row.id, row.chosen, row.rejected)).collect();
    assert_eq!(ids, ["o d c", "p a b", "p#2 a c"]);
    assert_eq!(read(&[0, 1, 2]), read(&[2, 1, 0]));
    let taken = json!({"prompt_id": "p#2", "prompt": "q", "chosen": "d", "rejected": "c"});
    let error = Preferences::from_batches("data", vec![batch(&[rows(&[0, 1]), vec![taken]].concat())]).err().unwrap().to_string();
    assert!(error.starts_with("table data: \"p#2\" is the id of one prompt and the name of a further pair"), "{error}");
}

pub fn real() -> Option<PathBuf> {
    let real = std::env::var_os("OPTUNE_REAL_DIR").map(|folder| Path::new(&folder).canonicalize().unwrap());
    if real.is_none() {
        eprintln!("skipped: OPTUNE_REAL_DIR is not set");
    }
    real
}

#[test]
fn real_files_come_in_as_they_are() {
    let Some(real) = real() else { return };
    let folder = folder();
    let data = |file: &str| format!("table: \"{}\"", real.join("data").join(file).display());
    let found = imported(folder.path(), &data("sharegpt_dpo_300.json"), Use::Preferences).unwrap_or_else(|error| panic!("{error}"));
    assert_eq!((found.dataset_format, found.rows()), (Some(DatasetFormat::Sharegpt), 300));
    let text = fs::read_to_string(real.join("data/sharegpt_dpo_300.json")).unwrap();
    let theirs: Vec<Value> = serde_json::from_str(&text).unwrap();
    for (row, theirs) in rows(&found.batches).iter().zip(&theirs) {
        assert_eq!((&row["chosen"], &row["rejected"]), (&theirs["chosen"]["value"], &theirs["rejected"]["value"]));
        let (ours, theirs) = (row["messages"].as_array().unwrap(), theirs["conversations"].as_array().unwrap());
        assert_eq!(ours.len(), theirs.len());
        for (ours, theirs) in ours.iter().zip(theirs) {
            let role = match theirs["from"].as_str().unwrap() {
                "human" => "user",
                "gpt" => "assistant",
                other => other,
            };
            assert_eq!((&ours["role"], &ours["content"]), (&json!(role), &theirs["value"]));
        }
    }
    assert_eq!(Preferences::from_batches("data", found.batches).unwrap().len(), 300);
    let mapped = data("gsm8k_test.jsonl") + ", map: { prompt: question, reference_answer: answer }";
    let found = imported(folder.path(), &mapped, Use::Prompts).unwrap_or_else(|error| panic!("{error}"));
    assert_eq!((found.dataset_format, found.rows()), (Some(DatasetFormat::Rows), 1319));
    assert!(rows(&found.batches)[0]["reference_answer"].as_str().unwrap().ends_with("#### 18"));
    let found = imported(folder.path(), &data("ifeval_prompts.jsonl"), Use::Prompts).unwrap_or_else(|error| panic!("{error}"));
    assert_eq!((found.dataset_format, found.rows()), (Some(DatasetFormat::Rows), 541));
    assert_eq!(rows(&found.batches)[0]["kwargs"][1]["num_highlights"], 3);
    assert_eq!(Prompts::from_batches("data", found.batches).unwrap().len(), 541);
}
