//! Import: data of every shape in every format becomes the same rows.

use std::fs;

use optune::import::{Preferences, Prompts, Repeats};
use optune::pipeline::spec::input::DatasetFormat;
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};
use serde_json::{Value, json};

use crate::fixtures::import::{FORMATS, Use, batch, folder, from, imported, rows, says, write};
use crate::fixtures::real_data::real_folder;
use crate::fixtures::workspace::Workspace;

/// One row of a shape, its use, the settings it needs, and the expected row.
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

#[test]
fn several_files_are_one_table_in_the_order_of_their_paths() {
    let folder = folder();
    for (name, format, from) in [("b", "parquet", 2), ("a", "parquet", 0), ("c", "parquet", 5)] {
        let rows: Vec<Value> = (from..from + 2).map(|n| json!({"prompt": format!("q{n}"), "n": n})).collect();
        write(folder.path(), name, format, &rows);
    }
    // A file of JSON lines may lack a column of another file only if one of its own rows has the
    // column. Types are those of all files.
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

#[test]
fn real_files_come_in_as_they_are() {
    let Some(real) = real_folder() else { return };
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
    assert_eq!(Prompts::from_batches("data", Repeats::Refuse, found.batches).unwrap().len(), 541);
}
