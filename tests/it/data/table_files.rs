//! Table files of the user, and the inputs of a file's or folder's fingerprint.

use std::fs;
use std::path::PathBuf;

use arrow::array::{Array, AsArray};
use arrow::datatypes::{DataType, Float64Type, Int64Type};
use optune::import::{ColumnRules, ColumnType, InputFormat, read_input};
use optune::store::fingerprint_of;

use crate::fixtures::store::{Space, rows_of};
use optune::dag::fingerprint::Fingerprint;

fn file(space: &Space, name: &str, text: &str) -> PathBuf {
    let path = space.path().join(name);
    fs::write(&path, text).unwrap();
    path
}

fn csv(delimiter: u8, header: bool) -> InputFormat {
    InputFormat::Csv { delimiter, header }
}

fn given(columns: &[(&str, ColumnType)]) -> ColumnRules {
    ColumnRules { given: columns.iter().map(|(name, column_type)| (name.to_string(), *column_type)).collect(), ..ColumnRules::default() }
}

#[test]
fn csv_with_a_header_and_inferred_types() {
    let space = Space::new();
    let path = file(&space, "a.csv", "prompt,score,n\n\"one, two\",0.5,1\nthree,,2\n");
    let batches = read_input(&InputFormat::from_path(&path).unwrap(), &given(&[]), &path).unwrap();
    assert_eq!(batches[0].column_by_name("prompt").unwrap().as_string::<i32>().value(0), "one, two");
    assert_eq!(batches[0].column_by_name("score").unwrap().as_primitive::<Float64Type>().iter().collect::<Vec<_>>(), [Some(0.5), None]);
    assert_eq!(batches[0].column_by_name("n").unwrap().as_primitive::<Int64Type>().values(), &[1, 2]);
}

#[test]
fn csv_without_a_header_and_with_given_columns() {
    let space = Space::new();
    let path = file(&space, "lexicon.txt", "good\t1.9\nbad\t-2.5\n");
    let batches = read_input(&csv(b'\t', false), &given(&[("word", ColumnType::Text), ("valence", ColumnType::Number)]), &path).unwrap();
    assert_eq!(batches[0].column(1).as_primitive::<Float64Type>().values(), &[1.9, -2.5]);
    // With a header, the types of some of them, by name.
    let path = file(&space, "c.csv", "id,n,score\n007,3,1\n");
    let batches = read_input(&csv(b',', true), &given(&[("score", ColumnType::Number), ("id", ColumnType::Text)]), &path).unwrap();
    let (id, n, score) = (batches[0].column(0), batches[0].column(1), batches[0].column(2));
    assert_eq!((id.as_string::<i32>().value(0), n.as_primitive::<Int64Type>().value(0)), ("007", 3));
    assert_eq!(score.as_primitive::<Float64Type>().value(0), 1.0);
    let wrong = read_input(&csv(b',', true), &given(&[("scor", ColumnType::Number)]), &path).unwrap_err().to_string();
    assert!(wrong.ends_with("c.csv: expected a column scor, as `columns:` says, found id, n, score"), "{wrong}");
}

#[test]
fn json_lines_have_lists_structs_and_nulls() {
    let space = Space::new();
    let path = file(
        &space,
        "p.jsonl",
        "{\"prompt_id\": 5, \"messages\": [{\"role\": \"user\", \"content\": \"hi\"}], \"group\": null}\n{\"prompt_id\": 6, \"prompt\": \"plain\", \"extra\": {\"a\": 1}}\n",
    );
    let batch = &read_input(&InputFormat::JsonLines, &given(&[]), &path).unwrap()[0];
    assert_eq!(batch.column_by_name("prompt_id").unwrap().as_primitive::<Int64Type>().values(), &[5, 6]);
    let messages = batch.column_by_name("messages").unwrap().as_list::<i32>().value(0);
    assert_eq!(messages.as_struct().column_by_name("content").unwrap().as_string::<i32>().value(0), "hi");
    assert!(batch.column_by_name("prompt").unwrap().is_null(0) && batch.column_by_name("messages").unwrap().is_null(1));
}

#[test]
fn errors_name_the_file_and_the_line() {
    let space = Space::new();
    let says = |format: &InputFormat, columns: &[(&str, ColumnType)], path: &PathBuf, words: &[&str]| {
        let error = read_input(format, &given(columns), path).unwrap_err().to_string();
        assert!(words.iter().all(|words| error.contains(words)), "expected {words:?} in: {error}");
    };
    says(
        &InputFormat::JsonLines,
        &[],
        &file(&space, "a.jsonl", "{\"a\": 1}\n\n{\"a\": \n"),
        &["a.jsonl:3: expected a JSON object, found none: expected a value at byte 8, found the end"],
    );
    says(&InputFormat::JsonLines, &[], &file(&space, "b.jsonl", "{\"a\": 1}\n[1]\n"), &["b.jsonl:2: expected a JSON object, found a list"]);
    says(
        &csv(b',', true),
        &[],
        &file(&space, "c.csv", "a,b\n1,2\n3\n"),
        &["c.csv:3: ", "expected 2 values, as there are columns, found 1"],
    );
    let two = [("a", ColumnType::Integer), ("b", ColumnType::Integer)];
    says(
        &csv(b',', true),
        &two,
        &file(&space, "c2.csv", "a,b\n1,2\n3\n"),
        &["c2.csv:3: ", "expected 2 values, as there are columns, found 1"],
    );
    says(
        &csv(b',', false),
        &two,
        &file(&space, "d2.csv", "1,2\n3,x\n"),
        &["d2.csv:2: column b: expected an integer of 64 bits, found \"x\""],
    );
    says(
        &csv(b',', true),
        &[("a", ColumnType::Integer)],
        &file(&space, "d.csv", "a\n1\nx\n"),
        &["d.csv:3: column a: expected an integer of 64 bits, found \"x\""],
    );
    says(&InputFormat::Parquet, &[], &file(&space, "e.parquet", "no parquet at all"), &["e.parquet: "]);
    says(&InputFormat::Parquet, &[], &space.path().join("none.parquet"), &["cannot read", "none.parquet"]);
    assert_eq!(InputFormat::from_path(&space.path().join("x.txt")), None);
}

#[test]
fn empty_files_are_tables_without_rows() {
    let space = Space::new();
    let batches = read_input(&csv(b',', true), &given(&[]), &file(&space, "a.csv", "a,b\n")).unwrap();
    assert_eq!((batches.len(), rows_of(&batches), batches[0].num_columns()), (1, 0, 2));
    let batches = read_input(&InputFormat::JsonLines, &given(&[]), &file(&space, "a.jsonl", "")).unwrap();
    assert_eq!((batches.len(), rows_of(&batches)), (1, 0));
}

#[test]
fn a_fingerprint_is_of_contents_and_names_not_of_places() {
    let space = Space::new();
    let path = file(&space, "a.csv", "a\n1\n");
    assert_eq!(fingerprint_of(&path).unwrap(), Fingerprint::from_contents(b"a\n1\n"));
    let model = |name: &str, config: &str, weights: &str| {
        let folder = space.path().join(name);
        fs::create_dir_all(folder.join("inner")).unwrap();
        fs::write(folder.join("config.json"), config).unwrap();
        fs::write(folder.join("inner").join(weights), "w").unwrap();
        folder
    };
    let one = fingerprint_of(&model("one", "{}", "weights")).unwrap();
    let two = model("two", "{}", "weights");
    fs::write(two.join(".gitattributes"), "x").unwrap();
    assert_eq!(fingerprint_of(&two).unwrap(), one);
    assert_ne!(fingerprint_of(&model("three", "{ }", "weights")).unwrap(), one);
    assert_ne!(fingerprint_of(&model("four", "{}", "weight")).unwrap(), one);
    let empty = space.path().join("empty");
    fs::create_dir(&empty).unwrap();
    assert!(fingerprint_of(&empty).unwrap_err().to_string().contains("expected files, found an empty folder"));
    assert!(fingerprint_of(&space.path().join("none")).is_err());
    assert_eq!(
        read_input(&InputFormat::from_path(&path).unwrap(), &given(&[]), &path).unwrap()[0].schema().field(0).data_type(),
        &DataType::Int64
    );
}
