//! Random tables in files of many writers: import finds the same values, or its error names the
//! file.
//!
//! `OPTUNE_RANDOM_TABLES=100000` tries more tables than a usual test run.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs::{self, File};
use std::path::Path;
use std::sync::Arc;

use arrow::array::{
    ArrayRef, BooleanArray, Float64Array, Int64Array, LargeListArray, ListArray, NullArray, RecordBatch, StringArray, StructArray,
    UInt64Array,
};
use arrow::buffer::{NullBuffer, OffsetBuffer};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Field, Fields, Schema};
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};
use serde_json::{Map, Value, json};

use crate::fixtures::import::{Use, folder, imported};
use crate::fixtures::python::run_script;
use crate::fixtures::values::{rows, same, same_text};

/// The number of tables.
fn count(usual: usize) -> usize {
    std::env::var("OPTUNE_RANDOM_TABLES").map_or(usual, |count| count.parse().unwrap())
}

/// Texts that a reader may take for something else.
const TEXTS: [&str; 22] = [
    "",
    " ",
    "007",
    "1e3",
    "1.50",
    "-0",
    "true",
    "False",
    "null",
    "NULL",
    "NaN",
    "inf",
    "2024-01-05",
    "2024-01-05 10:00:00",
    "[1]",
    "{\"a\": 1}",
    "\u{feff}",
    "#x",
    "\\N",
    "\\ud842",
    "a\r\nb",
    "\"",
];
/// Pieces of random texts.
const PIECES: [&str; 20] = [
    "a",
    "Z",
    "0",
    " ",
    ",",
    ";",
    "\"",
    "'",
    "\n",
    "\r\n",
    "\t",
    "\\",
    "{",
    "é",
    "中",
    "\u{200b}",
    "\u{2028}",
    "\u{1f600}",
    "\u{20bb7}",
    "\u{10ffff}",
];

/// Random choices from a seed.
struct Dice(ChaCha8Rng);

impl Dice {
    fn below(&mut self, end: usize) -> usize {
        self.0.next_u64() as usize % end.max(1)
    }

    fn chance(&mut self, percent: usize) -> bool {
        self.below(100) < percent
    }

    fn pick<T: Clone>(&mut self, from: &[T]) -> T {
        from[self.below(from.len())].clone()
    }

    fn text(&mut self) -> String {
        if self.chance(40) { self.pick(&TEXTS).to_string() } else { (0..self.below(12)).map(|_| self.pick(&PIECES)).collect() }
    }
}

/// The type of a column.
#[derive(Clone, Debug)]
enum Kind {
    Bool,
    /// Of at most so many bits.
    Whole(u32),
    /// Without a sign.
    Natural,
    Number,
    Text,
    Null,
    List(Box<Kind>),
    Struct(Vec<(String, Kind)>),
}

impl Kind {
    fn random(dice: &mut Dice, is_flat: bool, depth: usize) -> Self {
        match dice.below(if is_flat || depth > 1 { 7 } else { 10 }) {
            0 => Self::Bool,
            1 => Self::Whole(dice.pick(&[8, 16, 32, 64])),
            2 => Self::Number,
            3 if depth == 0 => Self::Natural,
            4 if dice.chance(30) => Self::Null,
            7 | 8 => Self::List(Box::new(Self::random(dice, false, depth + 1))),
            9 => Self::Struct((0..1 + dice.below(3)).map(|i| (format!("f{i}"), Self::random(dice, false, depth + 1))).collect()),
            _ => Self::Text,
        }
    }

    fn value(&self, dice: &mut Dice) -> Value {
        match self {
            Self::Bool => dice.chance(50).into(),
            Self::Whole(bits) => {
                let any = (dice.0.next_u64() as i64) >> (64 - bits);
                dice.pick(&[any, any % 1000, 0, i64::MIN >> (64 - bits), i64::MAX >> (64 - bits)]).into()
            }
            Self::Natural => {
                let any = dice.0.next_u64();
                dice.pick(&[any, u64::MAX, 0, 1 << 63]).into()
            }
            Self::Number => {
                let any = (dice.0.next_u64() as i64) as f64 / 1e6;
                dice.pick(&[any, 0.5, -1.5, 0.1, 1.0 / 3.0, 1e300, 5e-324, 3.0, -0.0]).into()
            }
            Self::Text => dice.text().into(),
            Self::Null => Value::Null,
            Self::List(item) => (0..dice.below(4)).map(|_| if dice.chance(10) { Value::Null } else { item.value(dice) }).collect(),
            Self::Struct(fields) => {
                let field = |(name, kind): &(String, Kind)| {
                    let value = if dice.chance(20) { Value::Null } else { kind.value(dice) };
                    (name.clone(), value)
                };
                fields.iter().map(field).collect::<Map<_, _>>().into()
            }
        }
    }

    /// The values as Arrow has them, in one of the types for this kind.
    fn array(&self, values: &[Value], dice: &mut Dice) -> ArrayRef {
        match self {
            Self::Bool => Arc::new(BooleanArray::from(values.iter().map(Value::as_bool).collect::<Vec<_>>())),
            Self::Whole(bits) => {
                let wide: ArrayRef = Arc::new(Int64Array::from(values.iter().map(Value::as_i64).collect::<Vec<_>>()));
                let kinds = [(8, DataType::Int8), (16, DataType::Int16), (32, DataType::Int32), (64, DataType::Int64)];
                let fitting: Vec<DataType> = kinds.into_iter().filter(|(width, _)| width >= bits).map(|(_, kind)| kind).collect();
                cast(&wide, &dice.pick(&fitting)).unwrap()
            }
            Self::Natural => Arc::new(UInt64Array::from(values.iter().map(Value::as_u64).collect::<Vec<_>>())),
            Self::Number => Arc::new(Float64Array::from(values.iter().map(Value::as_f64).collect::<Vec<_>>())),
            Self::Text => {
                let texts: ArrayRef = Arc::new(StringArray::from(values.iter().map(Value::as_str).collect::<Vec<_>>()));
                let dictionary = DataType::Dictionary(Box::new(DataType::Int32), Box::new(DataType::Utf8));
                cast(&texts, &dice.pick(&[DataType::Utf8, DataType::Utf8, DataType::LargeUtf8, DataType::Utf8View, dictionary])).unwrap()
            }
            Self::Null => Arc::new(NullArray::new(values.len())),
            Self::List(item) => {
                let lists: Vec<Option<&Vec<Value>>> = values.iter().map(Value::as_array).collect();
                let items: Vec<Value> = lists.iter().flatten().flat_map(|list| list.iter().cloned()).collect();
                let items = item.array(&items, dice);
                let field = Arc::new(Field::new(dice.pick(&["item", "element"]), items.data_type().clone(), true));
                let lengths = || lists.iter().map(|list| list.map_or(0, Vec::len));
                let nulls = Some(NullBuffer::from(lists.iter().map(Option::is_some).collect::<Vec<_>>()));
                if dice.chance(30) {
                    Arc::new(LargeListArray::new(field, OffsetBuffer::from_lengths(lengths()), items, nulls))
                } else {
                    Arc::new(ListArray::new(field, OffsetBuffer::from_lengths(lengths()), items, nulls))
                }
            }
            Self::Struct(fields) => {
                let part = |(name, kind): &(String, Kind)| {
                    let values: Vec<Value> = values.iter().map(|value| value.get(name).cloned().unwrap_or_default()).collect();
                    let array = kind.array(&values, dice);
                    (Arc::new(Field::new(name, array.data_type().clone(), true)), array)
                };
                let (fields, arrays): (Vec<_>, Vec<_>) = fields.iter().map(part).unzip();
                let nulls = NullBuffer::from(values.iter().map(Value::is_object).collect::<Vec<_>>());
                Arc::new(StructArray::new(Fields::from(fields), arrays, Some(nulls)))
            }
        }
    }
}

/// The ways to write a table.
const FORMATS: [&str; 6] = ["parquet", "arrow", "stream.arrow", "csv", "jsonl", "json"];

/// Writes rows as one file.
fn write(path: &Path, format: &str, columns: &[(String, Kind)], rows: &[Value], dice: &mut Dice) {
    let text = |lines: Vec<String>, between: &str| fs::write(path, lines.join(between)).unwrap();
    // A null may be left out.
    let leave_out = dice.chance(30);
    let object = |row: &Value| {
        let row = row.as_object().unwrap().iter().filter(|(_, value)| !leave_out || !value.is_null());
        row.map(|(name, value)| (name.clone(), value.clone())).collect::<Map<_, _>>()
    };
    match format {
        "jsonl" => text(rows.iter().map(|row| format!("{}\n", Value::from(object(row)))).collect(), ""),
        "json" => fs::write(path, Value::from(rows.iter().map(|row| Value::from(object(row))).collect::<Vec<_>>()).to_string()).unwrap(),
        "csv" => {
            let style = dice.pick(&[csv::QuoteStyle::Necessary, csv::QuoteStyle::Always, csv::QuoteStyle::NonNumeric]);
            let mut writer = csv::WriterBuilder::new().quote_style(style).from_path(path).unwrap();
            writer.write_record(columns.iter().map(|(name, _)| name)).unwrap();
            for row in rows {
                writer.write_record(columns.iter().map(|(name, _)| csv_text(&row[name]))).unwrap();
            }
            writer.flush().unwrap();
        }
        _ => {
            let values = |name: &str| rows.iter().map(|row| row[name].clone()).collect::<Vec<_>>();
            let arrays: Vec<(&str, ArrayRef)> =
                columns.iter().map(|(name, kind)| (name.as_str(), kind.array(&values(name), dice))).collect();
            let fields: Vec<Field> = arrays.iter().map(|(name, array)| Field::new(*name, array.data_type().clone(), true)).collect();
            let schema = Arc::new(Schema::new(fields));
            let batch = RecordBatch::try_new(schema.clone(), arrays.into_iter().map(|(_, array)| array).collect()).unwrap();
            let file = File::create(path).unwrap();
            // In pieces of a few rows.
            let step = dice.pick(&[1, 3, 1000]);
            let pieces = (0..batch.num_rows()).step_by(step).map(|begin| batch.slice(begin, step.min(batch.num_rows() - begin)));
            match format {
                "parquet" => {
                    let mut writer = parquet::arrow::ArrowWriter::try_new(file, schema, None).unwrap();
                    pieces.for_each(|piece| writer.write(&piece).unwrap());
                    writer.close().unwrap();
                }
                "arrow" => {
                    let mut writer = arrow::ipc::writer::FileWriter::try_new(file, &schema).unwrap();
                    // A file has one dictionary a column.
                    writer.write(&batch).unwrap();
                    writer.finish().unwrap();
                }
                _ => {
                    let mut writer = arrow::ipc::writer::StreamWriter::try_new(file, &schema).unwrap();
                    pieces.for_each(|piece| writer.write(&piece).unwrap());
                    writer.finish().unwrap();
                }
            }
        }
    }
}

/// A value in a CSV file.
fn csv_text(value: &Value) -> String {
    match value {
        Value::Null => String::new(),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

/// The faults of the read rows against the expected ones.
fn compare(format: &str, found: &[Value], expected: &[Value]) -> Result<(), String> {
    if found.len() != expected.len() {
        return Err(format!("{} rows, expected {}", found.len(), expected.len()));
    }
    for (row, (ours, theirs)) in found.iter().zip(expected).enumerate() {
        let is_same = if format == "csv" {
            theirs.as_object().unwrap().iter().all(|(name, text)| same_text(&ours[name], &csv_text(text)))
        } else {
            same(ours, theirs)
        };
        if !is_same {
            return Err(format!("row {row} is {ours}, expected {theirs}"));
        }
    }
    Ok(())
}

/// What became of the tables.
#[derive(Default)]
struct Tally {
    wrong: Vec<String>,
    /// The errors of tables whose files all have the same types, by format.
    refused: BTreeMap<String, Vec<String>>,
    read: usize,
}

impl Tally {
    /// Imports a table and compares it.
    fn check(&mut self, folder: &Path, label: &str, format: &str, files: &[String], expected: &[Value]) {
        let written = format!("table: [{}]", files.iter().map(|file| format!("{file:?}")).collect::<Vec<_>>().join(", "));
        match imported(folder, &written, Use::Query) {
            Ok(table) => match compare(format, &rows(&table.batches), expected) {
                Ok(()) => self.read += 1,
                Err(problem) => self.wrong.push(format!("{label}: {problem}")),
            },
            Err(error) if files.iter().any(|file| error.contains(file.as_str())) => {
                self.refused.entry(format.to_string()).or_default().push(format!("{label}: {error}"));
            }
            Err(error) => self.wrong.push(format!("{label}: the error names no file: {error}")),
        }
    }

    /// Fails if a value was wrong, or if more than `percent` of the tables were refused.
    fn finish(self, percent: usize) {
        let refused: usize = self.refused.values().map(Vec::len).sum();
        eprintln!("{} tables read, {refused} refused, {} wrong", self.read, self.wrong.len());
        for (format, errors) in &self.refused {
            eprintln!("{format}: {} refused, as {}", errors.len(), errors[0]);
        }
        assert!(
            self.wrong.is_empty(),
            "{} of {} tables:\n{}",
            self.wrong.len(),
            self.read,
            self.wrong.iter().take(20).cloned().collect::<Vec<_>>().join("\n")
        );
        assert!(refused * 100 <= (self.read + refused) * percent, "{refused} of {} tables are refused", self.read + refused);
    }
}

#[test]
fn random_tables_have_the_same_values_or_an_error_that_names_the_file() {
    let folder = folder();
    let mut tally = Tally::default();
    for number in 0..count(2_000) {
        let dice = &mut Dice(ChaCha8Rng::seed_from_u64(number as u64));
        let format = FORMATS[number % FORMATS.len()];
        let columns: Vec<(String, Kind)> =
            (0..1 + dice.below(4)).map(|i| (format!("c{i}"), Kind::random(dice, format == "csv", 0))).collect();
        let nulls = dice.pick(&[0, 20, 90]);
        let mut row = |_: usize| {
            let value = |(name, kind): &(String, Kind)| (name.clone(), if dice.chance(nulls) { Value::Null } else { kind.value(dice) });
            Value::from(columns.iter().map(value).collect::<Map<_, _>>())
        };
        let length = [0, 1, 2, 5, 20][number / FORMATS.len() % 5];
        let all: Vec<Value> = (0..length).map(&mut row).collect();
        let dice = &mut Dice(ChaCha8Rng::seed_from_u64(!(number as u64)));
        let mut files = Vec::new();
        let mut left = all.as_slice();
        for shard in 0..1 + dice.below(3) {
            let is_last = shard == 2 || dice.chance(40);
            let (rows, rest) = left.split_at(if is_last { left.len() } else { dice.below(left.len() + 1) });
            left = rest;
            files.push(format!("case-{shard}.{format}"));
            write(&folder.path().join(files.last().unwrap()), format, &columns, rows, dice);
            if is_last {
                break;
            }
        }
        let expected = &all[..all.len() - left.len()];
        tally.check(folder.path(), &format!("seed {number} ({format}, {columns:?})"), format, &files, expected);
    }
    tally.finish(5);
}

#[test]
fn random_texts_of_prompts_and_responses_are_texts_in_every_format() {
    let folder = folder();
    for number in 0..count(2_000) / 4 {
        let dice = &mut Dice(ChaCha8Rng::seed_from_u64(number as u64));
        let format = FORMATS[number % FORMATS.len()];
        let mut text = || match dice.text() {
            text if text.trim().is_empty() => "x".to_string(),
            text => text,
        };
        let row =
            |id: usize, prompt: String, response: String| json!({ "prompt_id": format!("p{id}"), "prompt": prompt, "response": response });
        let all: Vec<Value> = (0..4).map(|id| row(id, text(), text())).collect();
        let columns = ["prompt_id", "prompt", "response"].map(|name| (name.to_string(), Kind::Text));
        let files = [format!("case-0.{format}"), format!("case-1.{format}")];
        for (file, rows) in files.iter().zip(all.chunks(2)) {
            write(&folder.path().join(file), format, &columns, rows, dice);
        }
        let table = imported(folder.path(), &format!("table: [{}, {}]", files[0], files[1]), Use::Demonstrations);
        let table = table.unwrap_or_else(|error| panic!("seed {number}: {error}"));
        for (ours, theirs) in rows(&table.batches).iter().zip(&all) {
            assert!(
                ["prompt", "response"].iter().all(|name| ours[name] == theirs[name]),
                "seed {number}, {format}: {ours}, expected {theirs}"
            );
        }
        assert_eq!(table.rows(), 4, "seed {number}");
    }
}

#[test]
fn tables_of_other_writers_have_the_values_that_other_readers_find() {
    let folder = folder();
    let into = folder.path().join("tables");
    let count = count(2_000).to_string();
    if run_script("random_tables.py", &[into.as_os_str(), OsStr::new("17"), OsStr::new(&count)]).is_none() {
        return;
    }
    let mut tally = Tally::default();
    for line in fs::read_to_string(into.join("cases.jsonl")).unwrap().lines() {
        let case: Value = serde_json::from_str(line).unwrap();
        let format = case["format"].as_str().unwrap();
        let files: Vec<String> =
            case["files"].as_array().unwrap().iter().map(|file| format!("tables/{}", file.as_str().unwrap())).collect();
        let label = format!("{} {} ({})", case["writer"], files[0], case["types"]);
        tally.check(folder.path(), &label, format, &files, case["rows"].as_array().unwrap());
    }
    tally.finish(15);
}
