//! Files of every format, read as other software reads them. `tests/python/table_readers.py` wrote
//! the files and what DuckDB, Python's `json` and its `csv` find in them.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};

use optune::import::{ColumnRules, ColumnType, InputFormat, Rows, read_inputs};
use serde_json::{Value, json};

use crate::fixtures::import::{Use, folder, imported, rows};

fn goldens() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/readers")
}

fn expected() -> Value {
    serde_json::from_str(&fs::read_to_string(goldens().join("expected.json")).unwrap()).unwrap()
}

fn read(paths: &[PathBuf], rules: &ColumnRules) -> Result<Rows, String> {
    let format = InputFormat::from_path(&paths[0]).unwrap();
    read_inputs(&format, rules, paths, 1 << 28).map_err(|error| error.to_string())
}

fn values(found: &Rows) -> Vec<Value> {
    rows(&found.files.concat())
}

/// Columns that are texts, as a table of prompts has them.
fn texts(names: &[&str]) -> ColumnRules {
    ColumnRules { texts: names.iter().map(|name| name.to_string()).collect(), ..ColumnRules::default() }
}

fn given(columns: &[(&str, ColumnType)]) -> ColumnRules {
    ColumnRules { given: columns.iter().map(|(name, given)| (name.to_string(), *given)).collect(), ..ColumnRules::default() }
}

#[test]
fn escaped_json_is_the_same_as_plain_json_in_every_plane() {
    let read = |name: &str| values(&read(&[goldens().join(name)], &ColumnRules::default()).unwrap());
    let plain = fs::read_to_string(goldens().join("plain.jsonl")).unwrap();
    let python: Vec<Value> = plain.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(python.len(), 5);
    assert_eq!(read("escaped.jsonl"), python);
    assert_eq!(read("plain.jsonl"), python);
}

#[test]
fn json_is_what_python_reads_or_an_error_with_its_line() {
    let folder = folder();
    let path = folder.path().join("x.jsonl");
    for case in expected()["json"].as_array().unwrap() {
        let line = case["line"].as_str().unwrap();
        fs::write(&path, format!("\n{line}\n")).unwrap();
        let found = read(std::slice::from_ref(&path), &ColumnRules::default());
        if case["refused"] == true {
            let error = found.err().unwrap_or_else(|| panic!("{line} was read"));
            assert!(error.contains("x.jsonl:2: "), "{line}: {error}");
        } else {
            let found = values(&found.unwrap_or_else(|error| panic!("{line}: {error}")));
            let without_nulls = |value: &Value| value.to_string();
            assert_eq!(without_nulls(&found[0]["a"]), without_nulls(&case["value"]), "{line}");
        }
    }
    for (line, problem) in [
        (r#"{"a": "x\ud842"}"#, "expected a pair of surrogates, found \\ud842 alone"),
        (r#"{"a": "\udfb7\ud842"}"#, "expected a pair of surrogates, found \\udfb7 alone"),
        (r#"{"\ud842": 1}"#, "expected a pair of surrogates, found \\ud842 alone"),
        (r#"{"a": 1, "a": 2}"#, "expected different keys in an object, found \"a\" twice"),
        (r#"{"b": {"a": 1, "\u0061": 2}}"#, "expected different keys in an object, found \"a\" twice"),
        (r#"{"a": NaN}"#, "x.jsonl:2: expected JSON, found NaN at byte 7: NaN is not JSON; write null"),
        (r#"{"a": [1, -Infinity]}"#, "x.jsonl:2: expected JSON, found -Infinity at byte 11: -Infinity is not JSON; write null"),
        (r#"{"a": "\\ud800\ud800\n"}"#, "expected a pair of surrogates, found \\ud800 alone at byte 15"),
        (r#"{"a": "\ud800\ud801"}"#, "expected a pair of surrogates, found \\ud800 alone at byte 8"),
        (r#"{"a": "x\ud83"}"#, "expected a text at byte 7, found none: invalid escape at byte"),
        (r#"{"a": 01}"#, "expected a number at byte 7, found none: invalid number at byte"),
        (r#"{"a": 1.}"#, "expected a number at byte 7, found none: invalid number at byte"),
        (r#"{"a": nul}"#, "expected a value at byte 7, found none: expected ident at byte"),
        ("{\"a\": \"x\u{1}\"}", "expected a text at byte 7, found none: control character"),
    ] {
        fs::write(&path, format!("{{\"a\": 1}}\n{line}\n")).unwrap();
        let error = read(std::slice::from_ref(&path), &ColumnRules::default()).err().unwrap_or_else(|| panic!("{line} was read"));
        assert!(error.contains("x.jsonl:2: ") && error.contains(problem), "{line}: {error}");
    }
}

#[test]
fn csv_is_what_python_reads_strictly_or_an_error_with_its_line() {
    let folder = folder();
    let path = folder.path().join("x.csv");
    for case in expected()["csv"].as_array().unwrap() {
        let text = case["text"].as_str().unwrap();
        fs::write(&path, text).unwrap();
        let found = read(std::slice::from_ref(&path), &texts(&["p", "q"])).map(|found| values(&found));
        match case["rows"].as_array() {
            Some(rows) => assert_eq!(found.as_ref(), Ok(rows), "{text}"),
            None => {
                let error = found.err().unwrap_or_else(|| panic!("{text} was read"));
                assert!(error.contains("x.csv:2: expected"), "{text}: {error}");
            }
        }
    }
    let refused = |text: &str, problem: &str| {
        fs::write(&path, text).unwrap();
        let error = read(std::slice::from_ref(&path), &texts(&["p"])).err().unwrap_or_else(|| panic!("{text} was read"));
        assert!(error.contains(problem), "{text}: {error}");
    };
    refused("p,p\n1,2\n", "x.csv:1: expected different names of columns, found \"p\" twice");
    refused("p,q\n1,2\n3\n", "x.csv:3: expected 2 values, as there are columns, found 1");
    refused("p,q\n1,2\n3,4,5\n", "x.csv:3: expected 2 values, as there are columns, found 3");
    refused("p,q\na,\"b\nc\"\n\"a,1\nb,2\n", "x.csv:4: expected the closing quote of the value that begins here");
    // A line without anything is a value that is missing only where a row has one value.
    for (text, expected) in [
        ("p\na\n\n\"\"\nb\n", json!([{"p": "a"}, {}, {"p": ""}, {"p": "b"}])),
        ("p,q\na,1\n\nb,\"\"\n,2\n", json!([{"p": "a", "q": 1}, {"p": "b"}, {"q": 2}])),
    ] {
        fs::write(&path, text).unwrap();
        let found = read(std::slice::from_ref(&path), &texts(&["p"])).unwrap();
        assert_eq!(Value::from(values(&found)), expected, "{text}");
    }
}

#[test]
fn columns_that_are_read_as_text_keep_every_character() {
    let folder = folder();
    let kept = |name: &str, text: &str, used: Use, column: &str, expected: &[&str]| {
        fs::write(folder.path().join(name), text).unwrap();
        let found = imported(folder.path(), &format!("table: {name}"), used).unwrap_or_else(|error| panic!("{text}: {error}"));
        let found: Vec<String> = rows(&found.batches).iter().map(|row| row[column].as_str().unwrap_or("no text").to_string()).collect();
        assert_eq!(found, expected, "{text}");
    };
    let csv = ["007", "1.50", "True", "1e5", "2024-01-05 10:00:00", "-0", "1e3", "null", "9223372036854775808"];
    let lines = |pattern: &dyn Fn(usize, &str) -> String| csv.iter().enumerate().map(|(row, text)| pattern(row, text)).collect::<String>();
    for text in csv {
        kept("x.csv", &format!("prompt\n{text}\n"), Use::Prompts, "prompt", &[text]);
        kept("x.csv", &format!("prompt,response\nq,{text}\n"), Use::Demonstrations, "response", &[text]);
        kept("x.csv", &format!("instruction,output\nq,{text}\n"), Use::Demonstrations, "response", &[text]);
        let pairs = format!("prompt,chosen,rejected\n{text},{text},b\n");
        kept("x.csv", &pairs, Use::Preferences, "chosen", &[text]);
        kept("x.csv", &pairs, Use::Preferences, "prompt", &[text]);
    }
    kept("x.csv", &format!("prompt\n{}", lines(&|_, text| format!("{text}\n"))), Use::Prompts, "prompt", &csv);
    let answers = format!("prompt,reference_answer\n{}", lines(&|row, text| format!("{row},{text}\n")));
    kept("x.csv", &answers, Use::Prompts, "reference_answer", &csv);
    // In JSON, numbers and words without quotes are texts as they are written.
    let written = ["1.50", "1e3", "true", "-0", "18446744073709551616", "\"7\""];
    let json: String = written.iter().enumerate().map(|(row, text)| format!("{{\"prompt\": \"{row}\", \"response\": {text}}}\n")).collect();
    kept("x.jsonl", &json, Use::Demonstrations, "response", &["1.50", "1e3", "true", "-0", "18446744073709551616", "7"]);
    let mapped = "{\"question\": 1.0, \"a\": {\"b\": 2.50}}\n";
    fs::write(folder.path().join("x.jsonl"), mapped).unwrap();
    let found = imported(folder.path(), "table: x.jsonl, map: { prompt: question, reference_answer: a.b }", Use::Prompts).unwrap();
    assert_eq!(rows(&found.batches)[0]["prompt"], "1.0");
}

#[test]
fn lists_and_structs_where_text_is_read_are_refused_with_their_row() {
    let folder = folder();
    let refused = |name: &str, settings: &str, used: Use, problem: &str| {
        let error = imported(folder.path(), &format!("table: {name}{settings}"), used).err().unwrap_or_else(|| panic!("{name} was read"));
        assert!(error.contains(problem), "{error}");
    };
    let write = |text: &str| fs::write(folder.path().join("x.jsonl"), text).unwrap();
    write("{\"prompt\": \"q\", \"response\": [\"yes\", \"no\"]}\n");
    refused("x.jsonl", "", Use::Demonstrations, "x.jsonl:1: table data, row 0: column response: expected text, found List(");
    write("{\"prompt\": \"q\", \"response\": \"a\"}\n\n{\"prompt\": \"r\", \"response\": [\"yes\", \"no\"]}\n");
    refused("x.jsonl", "", Use::Demonstrations, "x.jsonl:3: table data, row 1: column response: expected text, found a list");
    write("{\"prompt\": \"q\", \"response\": \"a\"}\n{\"prompt\": \"r\", \"response\": {\"a\": 1}}\n");
    refused("x.jsonl", "", Use::Demonstrations, "x.jsonl:2: table data, row 1: column response: expected text, found an object");
    write("{\"prompt\": \"q\", \"reference_answer\": null}\n{\"prompt\": \"r\", \"reference_answer\": [1]}\n");
    refused("x.jsonl", "", Use::Prompts, "x.jsonl:2: table data, row 1: column reference_answer: expected text, found List(");
    write("{\"prompt\": \"q\", \"chosen\": \"a\", \"rejected\": [\"b\"]}\n");
    refused(
        "x.jsonl",
        ", dataset_format: rows",
        Use::Preferences,
        "x.jsonl:1: table data, row 0: column rejected: expected text, found List(",
    );
    write("{\"instruction\": \"q\", \"output\": [\"b\"]}\n");
    refused("x.jsonl", "", Use::Demonstrations, "x.jsonl:1: table data, row 0: column output: expected text, found List(");
    fs::copy(goldens().join("json_column.parquet"), folder.path().join("x.parquet")).unwrap();
    refused(
        "x.parquet",
        ", map: { prompt: response }",
        Use::Prompts,
        "x.parquet: row 1: table data, row 1: column prompt: expected text, found a list",
    );
    // Floats, times and the like have no one spelling.
    write("{\"prompt\": \"q\", \"extra\": [1]}\n");
    assert!(imported(folder.path(), "table: x.jsonl", Use::Prompts).is_ok());
}

#[test]
fn shards_have_the_rows_of_duckdbs_union_by_name() {
    for (name, expected) in expected()["shards"].as_object().unwrap() {
        for extension in ["parquet", "arrow"] {
            let path = |index: usize| goldens().join(format!("{name}.{index}.{extension}"));
            let paths: Vec<PathBuf> = (0..).map(path).take_while(|path| path.is_file()).collect();
            assert!(paths.len() >= 2, "{name}");
            let found = read(&paths, &ColumnRules::default()).unwrap_or_else(|error| panic!("{name}: {error}"));
            assert_eq!(Value::from(values(&found)), *expected, "{name}.{extension}");
            let silent = ["kinds_of_text", "child_names", "dictionary", "dictionary_without_values", "null_and_text", "empty"];
            let silent = silent.contains(&name.as_str());
            assert_eq!(found.notes.is_empty(), silent, "{name}.{extension}: {:?}", found.notes);
            // In the other order, the same rows the other way around.
            let reversed: Vec<PathBuf> = paths.iter().rev().cloned().collect();
            let found = read(&reversed, &ColumnRules::default()).unwrap_or_else(|error| panic!("{name}, reversed: {error}"));
            let mut files: Vec<Vec<Value>> = found.files.iter().map(|batches| rows(batches)).collect();
            files.reverse();
            assert_eq!(Value::from(files.concat()), *expected, "{name}.{extension}, reversed");
        }
    }
    let views = values(&read(&[goldens().join("list_view.arrow")], &ColumnRules::default()).unwrap());
    assert_eq!(views, [json!({"x": ["a"]}), json!({"x": []}), json!({}), json!({"x": ["b", "c"]})]);
}

#[test]
fn notes_say_what_was_joined() {
    let notes = |names: &[&str]| {
        let paths: Vec<PathBuf> = names.iter().map(|name| goldens().join(name)).collect();
        let prefix = format!("{}/", goldens().display());
        read(&paths, &ColumnRules::default()).unwrap().notes.iter().map(|note| note.replace(&prefix, "")).collect::<Vec<_>>()
    };
    assert_eq!(
        notes(&["widths.0.parquet", "widths.1.parquet"]),
        ["column x: Int32 in widths.0.parquet, Int64 in widths.1.parquet, read as Int64"]
    );
    let optional = notes(&["optional.0.parquet", "optional.1.parquet", "optional.2.parquet"]);
    assert_eq!(
        optional,
        [
            "column a: null in optional.2.parquet, which has no such column",
            "column b: null in optional.1.parquet, which has no such column",
            "column c: null in optional.0.parquet and 1 more, which has no such column",
        ]
    );
}

#[test]
fn shards_that_conflict_are_refused_with_both_files_and_both_types() {
    let refused = |names: [&str; 2], problem: &str| {
        let paths: Vec<PathBuf> = names.iter().map(|name| goldens().join(name)).collect();
        let prefix = format!("{}/", goldens().display());
        let error = read(&paths, &ColumnRules::default()).err().unwrap_or_else(|| panic!("{names:?} was read")).replace(&prefix, "");
        assert!(error.contains(problem), "{names:?}: {error}");
    };
    refused(
        ["widths.1.parquet", "kinds_of_list.0.parquet"],
        "column x: expected one type in all files, found Int64 in widths.1.parquet, List(Int32) in kinds_of_list.0.parquet",
    );
    refused(["floats.1.parquet", "kinds_of_text.0.parquet"], "found Float64 in floats.1.parquet, Utf8 in kinds_of_text.0.parquet");
    // 2^62 + 1 is no float.
    refused(["floats.1.parquet", "widths.1.parquet"], "widths.1.parquet: row 0: column x: expected a value that Float64 holds");
}

#[test]
fn values_that_would_become_others_are_refused_or_kept() {
    let error = read(&[goldens().join("interval.parquet")], &ColumnRules::default()).err().unwrap();
    assert!(error.contains("interval.parquet: column x: expected a type that can be stored, found INTERVAL; leave it out"), "{error}");
    let found = read(&[goldens().join("interval.parquet")], &given(&[("x", ColumnType::Skip)])).unwrap();
    assert_eq!(values(&found), [json!({"prompt": "a"})]);
    let found = read(&[goldens().join("int96.parquet")], &ColumnRules::default()).unwrap();
    assert_eq!(values(&found), [json!({"x": "1600-01-01T00:00:00"}), json!({"x": "2500-01-01T00:00:00"})]);
    let error = read(&[goldens().join("int96_nested.parquet")], &ColumnRules::default()).err().unwrap();
    assert!(error.contains("column x.list.element: expected no timestamps of 96 bits inside a list or struct"), "{error}");
    let found = read(&[goldens().join("int96_nested.parquet")], &given(&[("x", ColumnType::Skip)])).unwrap();
    assert_eq!(values(&found), [json!({"prompt": "a"})]);
}

#[test]
fn integers_keep_all_digits_or_stay_as_they_are_written() {
    let folder = folder();
    let path = folder.path().join("x.jsonl");
    for (written, expected, notes) in [
        (&["9223372036854775807", "1"][..], json!([9223372036854775807_u64, 1]), 0),
        (&["18446744073709551615", "9223372036854775808"], json!([u64::MAX, 1_u64 << 63]), 0),
        (&["-1", "9223372036854775808"], json!(["-1", "9223372036854775808"]), 1),
        (&["18446744073709551616", "1"], json!(["18446744073709551616", "1"]), 1),
        (&["9007199254740993", "1.5"], json!(["9007199254740993", "1.5"]), 1),
        (&["9007199254740992", "1.5"], json!([9007199254740992.0, 1.5]), 0),
        (&["1e400"], json!(["1e400"]), 1),
    ] {
        let lines: String = written.iter().map(|number| format!("{{\"n\": {number}}}\n")).collect();
        fs::write(&path, &lines).unwrap();
        let found = read(std::slice::from_ref(&path), &ColumnRules::default()).unwrap();
        assert_eq!(Value::from(values(&found).iter().map(|row| row["n"].clone()).collect::<Vec<_>>()), expected, "{written:?}");
        assert_eq!(found.notes.len(), notes, "{written:?}: {:?}", found.notes);
        let error = read(std::slice::from_ref(&path), &given(&[("n", ColumnType::Integer)])).err();
        assert_eq!(error.is_some(), notes > 0 || written.contains(&"1.5") || written[0] == "18446744073709551615", "{written:?}");
    }
}

#[test]
fn fields_of_several_types_are_kept_as_json_if_nobody_reads_them() {
    let folder = folder();
    let text = "{\"prompt\": \"a\", \"meta\": {\"id\": 7, \"tags\": [\"x\", 1]}, \"n\": 1}\n\
                {\"prompt\": \"b\", \"meta\": {\"id\": \"x7\", \"tags\": null}, \"n\": {\"a\": 1}}\n";
    fs::write(folder.path().join("x.jsonl"), text).unwrap();
    let found = imported(folder.path(), "table: x.jsonl", Use::Prompts).unwrap();
    let expected = [
        json!({"prompt": "a", "meta": {"id": "7", "tags": ["\"x\"", "1"]}, "n": "1"}),
        json!({"prompt": "b", "meta": {"id": "\"x7\""}, "n": "{\"a\": 1}"}),
    ];
    assert_eq!(rows(&found.batches), expected);
    assert_eq!(found.notes.len(), 3, "{:?}", found.notes);
    assert!(found.notes[0].contains("column meta.id: values of several types (a number at "), "{:?}", found.notes);
    assert!(
        found.notes[0].contains("x.jsonl:1, text at ") && found.notes[0].ends_with("x.jsonl:2), kept as JSON text"),
        "{:?}",
        found.notes
    );
    let typed = imported(folder.path(), "table: x.jsonl, columns: { n: json, meta: skip }", Use::Prompts).unwrap();
    assert_eq!(rows(&typed.batches), [json!({"prompt": "a", "n": "1"}), json!({"prompt": "b", "n": "{\"a\": 1}"})]);
    assert!(typed.notes.is_empty());
}

#[test]
fn columns_have_the_types_that_the_user_gives_in_every_format() {
    let folder = folder();
    let write = |name: &str, text: &str| fs::write(folder.path().join(name), text).unwrap();
    write("x.jsonl", "{\"n\": 1, \"t\": 1.50, \"b\": true, \"s\": [1]}\n");
    write("x.json", "[{\"n\": 1, \"t\": 1.50, \"b\": true, \"s\": [1]}]");
    write("x.csv", "n,t,b,s\n1,1.50,true,x\n");
    for name in ["x.jsonl", "x.json", "x.csv"] {
        let written = format!("table: {name}, columns: {{ n: float64, t: text, b: boolean, s: skip }}");
        let found = imported(folder.path(), &written, Use::Query).unwrap_or_else(|error| panic!("{error}"));
        assert_eq!(rows(&found.batches), [json!({"n": 1.0, "t": "1.50", "b": true})], "{name}");
        assert_eq!(found.schema().fields().len(), 3);
        let error = imported(folder.path(), &format!("table: {name}, columns: {{ o: text }}"), Use::Query).err().unwrap();
        assert_eq!(error, format!("{name}: expected a column o, as `columns:` says, found n, t, b, s"));
    }
    let error = imported(folder.path(), "table: x.jsonl, columns: { t: int64 }", Use::Query).err().unwrap();
    assert_eq!(error, "x.jsonl:1: column t: expected an integer of 64 bits, found 1.50");
    let error = imported(folder.path(), "table: x.jsonl, columns: { s: text }", Use::Query).err().unwrap();
    assert_eq!(error, "x.jsonl:1: column s: expected text, found a list");
    let floats = |column_type| read(&[goldens().join("floats.0.parquet")], &given(&[("x", column_type)]));
    assert_eq!(values(&floats(ColumnType::Text).unwrap()), [json!({"x": "0.5"})]);
    let error = floats(ColumnType::Integer).err().unwrap();
    assert!(error.contains("floats.0.parquet: row 0: column x: expected"), "{error}");
    let error = read(&[goldens().join("kinds_of_list.0.parquet")], &given(&[("x", ColumnType::Text)])).err().unwrap();
    assert!(error.contains("row 0: column x: expected text, found List("), "{error}");
}

#[test]
fn compressed_texts_are_read_as_they_are_packed() {
    let folder = folder();
    let gzip = |text: &str| {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
        encoder.write_all(text.as_bytes()).unwrap();
        encoder.finish().unwrap()
    };
    let zstd = |text: &str| zstd::encode_all(text.as_bytes(), 3).unwrap();
    let lines = "{\"prompt\": \"é\"}\n{\"prompt\": \"b\"}\n";
    let expected = [json!({"prompt": "é"}), json!({"prompt": "b"})];
    let files = [
        ("jsonl", lines.to_string()),
        ("csv", "prompt\né\nb\n".to_string()),
        ("json", "[{\"prompt\": \"é\"}, {\"prompt\": \"b\"}]".to_string()),
    ];
    for (extension, text) in files {
        // Two members one after the other are one text.
        let (one, two) = text.split_at(text.len() - 3);
        for (ending, bytes) in
            [("gz", gzip(&text)), ("gz", [gzip(one), gzip(two)].concat()), ("zst", zstd(&text)), ("zst", [zstd(one), zstd(two)].concat())]
        {
            let name = format!("x.{extension}.{ending}");
            fs::write(folder.path().join(&name), &bytes).unwrap();
            let found = imported(folder.path(), &format!("table: {name}"), Use::Prompts).unwrap_or_else(|error| panic!("{name}: {error}"));
            assert_eq!(rows(&found.batches), expected, "{name}");
            fs::write(folder.path().join(&name), &bytes[..bytes.len() - 5]).unwrap();
            let error =
                imported(folder.path(), &format!("table: {name}"), Use::Prompts).err().unwrap_or_else(|| panic!("half of {name} was read"));
            assert!(error.contains(&name) && error.contains("broken or cut short"), "{error}");
        }
    }
    // A small file may hold a large text.
    let bomb = format!("{{\"prompt\": \"{}\"}}\n", "a".repeat(1000)).repeat(20_000);
    fs::write(folder.path().join("x.jsonl.gz"), gzip(&bomb)).unwrap();
    let error = imported(folder.path(), "table: x.jsonl.gz, max_bytes: 1000000", Use::Prompts).err().unwrap();
    assert!(error.contains("expected a table whose rows take at most 1000000 bytes"), "{error}");
}
