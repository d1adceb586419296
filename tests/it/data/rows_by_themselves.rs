//! Rows are judged one by one: their ends, their prompts and their ids.

use std::fs;
use std::sync::Arc;

use arrow::array::{ArrayRef, BinaryArray, Decimal128Array, FixedSizeBinaryArray, Float64Array, RecordBatch, StringArray, UInt64Array};
use optune::import::{Prompts, Repeats};
use serde_json::{Value, json};

use crate::fixtures::import::{Use, folder, imported, rows, says, write};

fn ids(batches: &[RecordBatch]) -> Vec<String> {
    Prompts::from_batches("data", Repeats::Refuse, batches.to_vec()).unwrap().ids().into_iter().map(str::to_string).collect()
}

#[test]
fn each_conversation_is_taken_by_its_own_end() {
    let (asked, answered) = (json!({"messages": [says("user", "q")]}), json!({"messages": [says("user", "r"), says("assistant", "a")]}));
    let expected = [json!({"messages": [says("user", "q")]}), json!({"messages": [says("user", "r")], "response": "a"})];
    for order in [[0, 1], [1, 0]] {
        let folder = folder();
        let table: Vec<Value> = order.iter().map(|row| [&asked, &answered][*row].clone()).collect();
        write(folder.path(), "x", "jsonl", &table).unwrap();
        let found = imported(folder.path(), "table: x.jsonl", Use::Prompts).unwrap_or_else(|error| panic!("{error}"));
        assert_eq!(rows(&found.batches), order.map(|row| expected[row].clone()));
        // A demonstration needs the answer.
        let bad = order.iter().position(|row| *row == 0).unwrap();
        let error = imported(folder.path(), "table: x.jsonl", Use::Demonstrations).err().unwrap();
        let expected = "expected a response, or a conversation that ends with the assistant, found null";
        assert_eq!(error, format!("x.jsonl:{}: table data, row {bad}: {expected}", bad + 1));
        let found =
            imported(folder.path(), "table: x.jsonl, malformed: skip", Use::Demonstrations).unwrap_or_else(|error| panic!("{error}"));
        assert_eq!((rows(&found.batches).len(), found.left_out.count()), (1, 1));
        // As rows they are prompts, and one of them has no question.
        let error = imported(folder.path(), "table: x.jsonl, dataset_format: rows", Use::Prompts).err().unwrap();
        let expected = "expected a prompt that the assistant answers, found messages of user, assistant";
        assert_eq!(error, format!("x.jsonl:{0}: table data, row {1}: {expected}", 2 - bad, 1 - bad));
    }
}

#[test]
fn prompts_repeat_and_have_several_answers() {
    let folder = folder();
    let row = |prompt: &str, response: &str| json!({"prompt": prompt, "response": response});
    write(folder.path(), "x", "jsonl", &[row("q", "a"), row("r", "b"), row("q", "c"), row("q", "a")]).unwrap();
    for used in [Use::Demonstrations, Use::Prompts] {
        let found = imported(folder.path(), "table: x.jsonl", used).unwrap_or_else(|error| panic!("{error}"));
        let ids = ids(&found.batches);
        assert_eq!((ids[2].clone(), ids[3].clone()), (format!("{}#2", ids[0]), format!("{}#3", ids[0])));
        assert_eq!(found.notes, ["2 rows have the prompt of an earlier row; their ids end with #2 and so on"]);
        assert_eq!(rows(&found.batches), [row("q", "a"), row("r", "b"), row("q", "c"), row("q", "a")]);
    }
    // Given ids repeat with the prompt only.
    let named = |id: &str, prompt: &str| json!({"prompt_id": id, "prompt": prompt, "response": "a"});
    write(folder.path(), "x", "jsonl", &[named("p", "q"), named("p", "q"), named("p#2", "r")]).unwrap();
    let error = imported(folder.path(), "table: x.jsonl", Use::Prompts).err().unwrap();
    let expected = "prompt_id p#2 is that of one prompt and the name of a further row of another; rename the prompt";
    assert_eq!(error, format!("x.jsonl:3: table data, row 2: {expected}"));
    write(folder.path(), "x", "jsonl", &[named("p", "q"), named("p", "r")]).unwrap();
    let error = imported(folder.path(), "table: x.jsonl", Use::Prompts).err().unwrap();
    assert_eq!(error, "x.jsonl:2: table data, row 1: prompt_id p is already that of row 0, which has another prompt");
}

#[test]
fn ids_are_texts_or_refused() {
    let read = |ids: ArrayRef| {
        let folder = folder();
        let prompts: ArrayRef = Arc::new(StringArray::from(vec!["q", "r"]));
        let batch = RecordBatch::try_from_iter([("prompt_id", ids), ("prompt", prompts)]).unwrap();
        optune::store::write_parquet(&folder.path().join("x.parquet"), &batch).unwrap();
        imported(folder.path(), "table: x.parquet", Use::Prompts).map(|found| self::ids(&found.batches))
    };
    let uuid = |last: u8| (0..15).chain([last]).collect::<Vec<u8>>();
    let cases: [(ArrayRef, [&str; 2]); 3] = [
        (
            Arc::new(FixedSizeBinaryArray::try_from_iter([uuid(15), uuid(255)].into_iter()).unwrap()),
            // uuid.UUID(bytes=bytes(range(16))) in Python
            ["00010203-0405-0607-0809-0a0b0c0d0e0f", "00010203-0405-0607-0809-0a0b0c0d0eff"],
        ),
        (
            Arc::new(Decimal128Array::from(vec![12345, -5]).with_precision_and_scale(20, 2).unwrap()),
            // str(decimal.Decimal("123.45")) in Python
            ["123.45", "-0.05"],
        ),
        (Arc::new(UInt64Array::from(vec![u64::MAX, 7])), ["18446744073709551615", "7"]),
    ];
    for (ids, expected) in cases {
        assert_eq!(read(ids).unwrap(), expected);
    }
    for (ids, found) in [
        (Arc::new(BinaryArray::from_vec(vec![b"a", b"b"])) as ArrayRef, "Binary"),
        (Arc::new(Float64Array::from(vec![1.0, 2.0])) as ArrayRef, "Float64"),
    ] {
        let expected = "prompt_id: expected texts, whole or decimal numbers, or UUIDs";
        let fix = "write them as texts, or name another column with `map:`";
        assert_eq!(read(ids), Err(format!("x.parquet: row 0: table data, row 0: {expected}, found {found}; {fix}")));
    }
}

#[test]
fn two_parts_of_a_table_share_no_prompt() {
    let folder = folder();
    let table: Vec<Value> =
        (0..40).map(|row| json!({"prompt": format!("q{}", row % 20), "prompt_id": format!("p{row}"), "n": row})).collect();
    let part = |take: &str| {
        let found = imported(folder.path(), &format!("table: x.jsonl, split: {{ held_out: 0.11, take: {take} }}"), Use::Prompts);
        rows(&found.unwrap_or_else(|error| panic!("{error}")).batches)
    };
    write(folder.path(), "x", "jsonl", &table).unwrap();
    let (training, held_out) = (part("training"), part("held_out"));
    // ceil(0.11 · 20) = 3 prompts, two rows each.
    assert_eq!((training.len(), held_out.len()), (34, 6));
    assert!(training.iter().all(|row| held_out.iter().all(|other| other["prompt"] != row["prompt"])));
    let mut all: Vec<i64> = training.iter().chain(&held_out).map(|row| row["n"].as_i64().unwrap()).collect();
    all.sort_unstable();
    assert_eq!(all, (0..40).collect::<Vec<_>>());
    // The order of the rows does not matter.
    let mut turned = table.clone();
    turned.reverse();
    write(folder.path(), "x", "jsonl", &turned).unwrap();
    let mut again = part("held_out");
    again.reverse();
    assert_eq!(again, held_out);
    fs::write(folder.path().join("x.jsonl"), "{\"prompt\": \"q\"}\n").unwrap();
    let error = imported(folder.path(), "table: x.jsonl, split: { held_out: 0.1, take: training }", Use::Prompts).err().unwrap();
    assert_eq!(error, "table data: split: expected prompts for both parts, found 1 of them, of which 1 are held out");
}
