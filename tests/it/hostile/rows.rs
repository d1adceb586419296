//! Invalid rows, and small files of large tables: each is refused with its place and its
//! arithmetic.

use std::fs::File;
use std::path::Path;
use std::sync::Arc;

use optune::import::{ColumnRules, InputFormat, read_input};
use parquet::basic::{Compression, ZstdLevel};
use parquet::data_type::{ByteArray, ByteArrayType, DataType, Int64Type};
use parquet::file::properties::{WriterProperties, WriterPropertiesBuilder};
use parquet::file::writer::SerializedFileWriter;
use parquet::schema::parser::parse_message_type;
use serde_json::json;

use crate::fixtures::import::{Use, folder, imported};
use crate::fixtures::workspace::Workspace;

/// Writes a Parquet file of one required column; as wrong as its values are.
fn column<T: DataType>(path: &Path, column: &str, values: &[T::T], properties: WriterPropertiesBuilder) {
    let schema = Arc::new(parse_message_type(&format!("message rows {{ required {column}; }}")).unwrap());
    let compression = Compression::ZSTD(ZstdLevel::try_new(1).unwrap());
    let properties = Arc::new(properties.set_compression(compression).build());
    let mut writer = SerializedFileWriter::new(File::create(path).unwrap(), schema, properties).unwrap();
    let mut row_group = writer.next_row_group().unwrap();
    let mut written = row_group.next_column().unwrap().unwrap();
    for values in values.chunks(1 << 16) {
        written.typed::<T>().write_batch(values, None, None).unwrap();
    }
    written.close().unwrap();
    row_group.close().unwrap();
    writer.close().unwrap();
}

fn refused(folder: &Path, written: &str, used: Use, said: &[&str]) {
    let error = imported(folder, written, used).err().unwrap_or_else(|| panic!("{written}: expected an error"));
    assert!(said.iter().all(|said| error.contains(said)), "{written}: expected {said:?} in: {error}");
}

#[test]
fn text_that_is_not_utf_8_is_an_error_in_every_format() {
    let folder = folder();
    let path = |name: &str| folder.path().join(name);
    let texts: Vec<ByteArray> = (0..100).map(|i| ByteArray::from(if i == 60 { vec![b'a', 0xff, 0xfe] } else { vec![b'a'] })).collect();
    for dictionary in [true, false] {
        let properties = WriterProperties::builder().set_dictionary_enabled(dictionary);
        column::<ByteArrayType>(&path("x.parquet"), "binary prompt (UTF8)", &texts, properties);
        refused(folder.path(), "table: x.parquet", Use::Prompts, &["x.parquet", "non UTF-8 data"]);
    }
    std::fs::write(path("x.jsonl"), b"{\"prompt\": \"a\"}\n{\"prompt\": \"a\xff\"}\n").unwrap();
    refused(folder.path(), "table: x.jsonl", Use::Prompts, &["x.jsonl:2: expected a JSON object, found none: expected text in UTF-8"]);
    std::fs::write(path("x.json"), b"[{\"prompt\": \"a\xff\"}]").unwrap();
    refused(folder.path(), "table: x.json", Use::Prompts, &["x.json: row 0: expected a JSON object, found none: expected text in UTF-8"]);
    std::fs::write(path("x.csv"), b"prompt\na\nb\xff\n").unwrap();
    refused(folder.path(), "table: x.csv", Use::Prompts, &["x.csv:3: ", "UTF-8"]);
}

#[test]
fn a_small_parquet_file_of_a_large_table_is_refused_before_it_is_read() {
    let folder = folder();
    let path = folder.path().join("x.parquet");
    column::<Int64Type>(&path, "int64 same", &vec![7; 4_000_000], WriterProperties::builder());
    assert!(path.metadata().unwrap().len() < 1 << 17);
    let said = [
        "x.parquet: expected a table whose rows take at most 1000000 bytes of memory",
        "found about 32000000 in 4000000 rows, of them 32000000 in column same: 4000000 values of 8 bytes or more",
        "max_bytes",
    ];
    refused(folder.path(), "table: x.parquet, max_bytes: 1000000", Use::Query, &said);
    assert_eq!(imported(folder.path(), "table: x.parquet, max_bytes: 40000000", Use::Query).unwrap().rows(), 4_000_000);
    // Texts held once in a dictionary: only reading them shows their length.
    let texts = vec![ByteArray::from(vec![b'a'; 1 << 16]); 20_000];
    column::<ByteArrayType>(&path, "binary prompt (UTF8)", &texts, WriterProperties::builder());
    assert!(path.metadata().unwrap().len() < 1 << 17);
    let said = ["expected a table whose rows take at most 67108864 bytes of memory, found 268451844 after 4096 rows"];
    refused(folder.path(), "table: x.parquet, max_bytes: 67108864", Use::Query, &said);
}

#[test]
fn text_files_are_refused_where_they_or_their_rows_are_too_large() {
    let folder = folder();
    let write = |name: &str, text: String| std::fs::write(folder.path().join(name), text).unwrap();
    write("x.jsonl", "{\"prompt\": \"a\"}\n".repeat(1000));
    let said = ["x.jsonl: expected a table whose rows take at most 1000 bytes of memory, found a file of 16000"];
    refused(folder.path(), "table: x.jsonl, max_bytes: 1000", Use::Prompts, &said);
    let wide: Vec<String> = (0..1000).map(|i| format!("\"c{i}\": 1")).collect();
    write("x.jsonl", format!("{{{}}}\n", wide.join(", ")) + &"{}\n".repeat(20_000));
    let said = ["expected a table whose rows take at most 50000000 bytes of memory, found ", " after 8192 rows"];
    refused(folder.path(), "table: x.jsonl, max_bytes: 50000000", Use::Query, &said);
    let long = "a".repeat(65 << 20);
    write("x.jsonl", format!("{{\"prompt\": \"b\"}}\n{{\"prompt\": \"{long}\"}}\n"));
    refused(folder.path(), "table: x.jsonl", Use::Prompts, &["x.jsonl:2: expected a row of at most 67108864 bytes, found a longer one"]);
    write("x.json", format!("[{{\"prompt\": \"b\"}}, {{\"prompt\": \"{long}\"}}]"));
    refused(folder.path(), "table: x.json", Use::Prompts, &["x.json:1: row 1: expected a row of at most 67108864 bytes"]);
    write("x.csv", format!("prompt\nb\n{long}\n"));
    refused(folder.path(), "table: x.csv", Use::Prompts, &["x.csv", "expected a row of at most 67108864 bytes"]);
}

#[test]
fn ten_thousand_columns_are_read_and_more_than_16384_are_not() {
    let folder = folder();
    let table = |columns: usize| {
        let names: Vec<String> = (0..columns).map(|i| format!("c{i}")).collect();
        let objects: Vec<String> = names.iter().map(|name| format!("\"{name}\": 1")).collect();
        std::fs::write(folder.path().join("x.jsonl"), format!("{{{}}}\n", objects.join(", ")).repeat(3)).unwrap();
        std::fs::write(folder.path().join("x.csv"), format!("{}\n{}\n", names.join(","), vec!["1"; columns].join(","))).unwrap();
    };
    table(10_000);
    let jsonl = imported(folder.path(), "table: x.jsonl", Use::Query).unwrap();
    assert_eq!((jsonl.rows(), jsonl.schema().fields().len()), (3, 10_000));
    assert_eq!(imported(folder.path(), "table: x.csv", Use::Query).unwrap().schema().fields().len(), 10_000);
    let batch = read_input(&InputFormat::JsonLines, &ColumnRules::default(), &folder.path().join("x.jsonl")).unwrap().remove(0);
    optune::store::write_parquet(&folder.path().join("x.parquet"), &batch).unwrap();
    assert_eq!(imported(folder.path(), "table: x.parquet", Use::Query).unwrap().schema().fields().len(), 10_000);
    table(20_000);
    for file in ["x.jsonl", "x.csv"] {
        let said = ["expected at most 16384 columns, fields of nested ones counted, found 20000"];
        refused(folder.path(), &format!("table: {file}"), Use::Query, &said);
    }
}

#[test]
fn scores_whose_difference_is_no_number_are_refused_with_their_row() {
    let folder = folder();
    let row = |chosen: f64| json!({ "prompt": "a", "chosen": "b", "rejected": "c", "chosen_score": chosen, "rejected_score": -1.7e308 });
    std::fs::write(folder.path().join("x.jsonl"), format!("{}\n{}\n", row(0.0), row(1.7e308))).unwrap();
    let said = ["x.jsonl:2: ", "expected scores whose difference is a finite number, found 1.7e308 and -1.7e308"];
    refused(folder.path(), "table: x.jsonl, dataset_format: rows", Use::Preferences, &said);
}

#[test]
fn a_prompt_of_a_megabyte_and_an_empty_one_are_rows_that_say_why() {
    let workspace = Workspace::new();
    workspace.edit("pipeline.yaml", "iterations: 2", "iterations: 1");
    let held_out =
        |id: &str, prompt: &str| format!("{}\n", json!({ "prompt_id": id, "prompt": prompt, "reference_answer": "X", "group": "g" }));
    let before = std::fs::read_to_string(workspace.path("held_out.jsonl")).unwrap();
    let large = held_out("large", &"upper ".repeat(170_000)) + &held_out("larger", &"a".repeat((8 << 20) + 1));
    workspace.write("held_out.jsonl", &(before + &large + &held_out("nothing", "")));
    let output = workspace.optune(&["run", "pipeline.yaml"]);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    let warning = "warning: 2 of 11 responses failed, the first: prompt large: expected a prompt of at most 63 tokens, found 1020001";
    assert!(output.status.success() && said.contains(warning), "{said}");
    let errors = "SELECT prompt_id, error FROM evaluation_responses WHERE error IS NOT NULL ORDER BY 1";
    let larger = "larger,\"tokenizer: expected a text of at most 8388608 bytes, found 8388609\"";
    assert!(workspace.query("small", errors).ends_with(larger), "{}", workspace.query("small", errors));
    // Behind the tokenizer's opening token there is something to go on from even where the prompt
    // says nothing.
    assert_eq!(workspace.query("small", "SELECT count(*) FROM evaluation WHERE prompt_id = 'nothing'"), "1");
    // Without one there is not.
    let tokenizer = std::fs::read_to_string(workspace.path("shape/tokenizer.json")).unwrap();
    let mut tokenizer: serde_json::Value = serde_json::from_str(&tokenizer).unwrap();
    tokenizer["post_processor"] = serde_json::Value::Null;
    workspace.write("shape/tokenizer.json", &tokenizer.to_string());
    workspace.succeed(&["run", "pipeline.yaml"]);
    let nothing = "SELECT error FROM evaluation_responses WHERE prompt_id = 'nothing'";
    let error = workspace.query("small", nothing);
    assert!(error.contains("expected at least one token, found none in"), "{error}");
    workspace.write("prompts.jsonl", &held_out("nothing", ""));
    let error = workspace.fail(&["run", "pipeline.yaml"], 2);
    assert!(error.contains("demonstrations, row 0 (nothing): tokenizer: expected at least one token, found none"), "{error}");
}
