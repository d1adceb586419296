//! Responses and answers as Arrow IPC streams.
//!
//! Knows the columns of both, not the process.

use std::collections::BTreeMap;
use std::io::{self, BufReader, Read};
use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, Float64Array, Int32Array, ListBuilder, PrimitiveBuilder, RecordBatch, StringArray, StructArray,
};
use arrow::buffer::Buffer;
use arrow::compute::{cast, interleave_record_batch};
use arrow::datatypes::{DataType, Field, Int32Type, Schema, SchemaRef};
use arrow::error::ArrowError;
use arrow::ipc::reader::StreamDecoder;
use arrow::ipc::root_as_message;

use super::super::OperatorError;
use super::super::score_error::ScoreError;
use super::answers::{Word, score};
use super::in_hand::InHand;
use crate::catch_panic::catch_panic;

/// Name of this module in internal errors.
const PLACE: &str = "operators::score::process::stream";

/// Each message of a stream begins with this.
const CONTINUATION: [u8; 4] = [0xff; 4];
/// The longest message and the longest body.
const MOST_MESSAGE_BYTES: u32 = 64 << 20;
const MOST_BODY_BYTES: i64 = 1 << 30;
/// The bytes shown of anything else.
const SHOWN_BYTES: usize = 60;
/// The columns of an answer besides components.
const OWN_COLUMNS: [&str; 3] = ["id", "reward", "error"];

/// The columns of responses whose prompts have this schema.
pub(super) fn schema(prompts: &Schema) -> SchemaRef {
    let text = |name: &str| Field::new(name, DataType::Utf8, false);
    let number = |name: &str| Field::new(name, DataType::Int32, false);
    Arc::new(Schema::new(vec![
        text("id"),
        text("prompt_id"),
        number("sampled_iteration"),
        number("response_index"),
        text("text"),
        Field::new_list("token_ids", Field::new_list_field(DataType::Int32, true), false),
        number("token_count"),
        text("finish_reason"),
        Field::new_struct("columns", prompts.fields().clone(), false),
    ]))
}

/// Some responses as one batch of this schema. `batches` are the table of their prompts.
pub(super) fn batch(schema: &SchemaRef, batches: &[RecordBatch], in_hand: &[InHand]) -> Result<RecordBatch, OperatorError> {
    let places = in_hand.iter().map(|item| Ok(item.response.prompt()?.place)).collect::<Result<Vec<_>, OperatorError>>()?;
    let prompts = interleave_record_batch(&batches.iter().collect::<Vec<_>>(), &places)?;
    let texts = |of: fn(&InHand) -> String| Arc::new(in_hand.iter().map(|item| Some(of(item))).collect::<StringArray>()) as ArrayRef;
    let numbers = |of: fn(&InHand) -> i32| Arc::new(in_hand.iter().map(of).collect::<Int32Array>()) as ArrayRef;
    let mut token_ids = ListBuilder::new(PrimitiveBuilder::<Int32Type>::new());
    for item in in_hand {
        token_ids.append_value(item.response.token_ids().iter().copied().map(Some));
    }
    Ok(RecordBatch::try_new(
        schema.clone(),
        vec![
            texts(|item| item.id.clone()),
            texts(|item| item.response.row.prompt_id.clone()),
            numbers(|item| item.response.row.sampled_iteration),
            numbers(|item| item.response.row.response_index),
            texts(|item| item.response.row.text.clone()),
            Arc::new(token_ids.finish()),
            numbers(|item| i32::try_from(item.response.token_ids().len()).unwrap_or(i32::MAX)),
            texts(|item| item.response.row.finish_reason.to_string()),
            Arc::new(StructArray::from(prompts)),
        ],
    )?)
}

/// Reads the answers of a process.
pub(super) struct AnswerStream<R> {
    input: BufReader<R>,
    decoder: StreamDecoder,
}

impl<R: Read> AnswerStream<R> {
    pub(super) fn new(input: R) -> Self {
        Self { input: BufReader::new(input), decoder: StreamDecoder::new() }
    }

    /// The answers of the next batch; `None` at the end of the stream.
    ///
    /// # Errors
    /// The expected and the found content.
    pub(super) fn next(&mut self, scorer: &str) -> Result<Option<Vec<Word>>, String> {
        let failed = |error: String| format!("expected an Arrow IPC stream of answers on standard output: {error}");
        while let Some(message) = self.message().map_err(failed)? {
            let mut buffer = Buffer::from_vec(message);
            let decoded = catch_panic(|| self.decoder.decode(&mut buffer)).and_then(|decoded| decoded.map_err(|error| error.to_string()));
            if let Some(batch) = decoded.map_err(failed)? {
                return words(scorer, &batch).map(Some);
            }
        }
        Ok(None)
    }

    /// The bytes of the next message with its body. They are in memory only once they have come.
    fn message(&mut self) -> Result<Option<Vec<u8>>, String> {
        let mut message = Vec::new();
        if !self.read(&mut message, 4)? {
            return Ok(None);
        }
        if message != CONTINUATION {
            // No wait for more of a process that may be waiting itself.
            message.extend(self.input.buffer().iter().take(SHOWN_BYTES));
            let text = String::from_utf8_lossy(&message).into_owned();
            return Err(format!("found the bytes {:?}; write anything else to standard error", text.trim_end()));
        }
        if !self.read(&mut message, 4)? {
            return Ok(None);
        }
        let length = message.get(4..8).and_then(|bytes| bytes.try_into().ok()).map_or(0, u32::from_le_bytes);
        if length == 0 {
            return Ok(None);
        }
        if length > MOST_MESSAGE_BYTES {
            return Err(format!("found a message of {length} bytes, more than {MOST_MESSAGE_BYTES}"));
        }
        if !self.read(&mut message, u64::from(length))? {
            return Ok(None);
        }
        let body = root_as_message(message.get(8..).unwrap_or_default()).map_err(|error| error.to_string())?.bodyLength();
        match u64::try_from(body) {
            Ok(length) if body <= MOST_BODY_BYTES => Ok(if self.read(&mut message, length)? { Some(message) } else { None }),
            _ => Err(format!("found a batch of {body} bytes, more than {MOST_BODY_BYTES}")),
        }
    }

    /// Appends `count` bytes; false if the stream ends before.
    fn read(&mut self, bytes: &mut Vec<u8>, count: u64) -> Result<bool, String> {
        let read: io::Result<usize> = self.input.by_ref().take(count).read_to_end(bytes);
        read.map(|read| read as u64 == count).map_err(|error| error.to_string())
    }
}

/// The answers in a batch.
fn words(scorer: &str, batch: &RecordBatch) -> Result<Vec<Word>, String> {
    let column = |name: &str, data_type: &DataType| -> Result<Option<ArrayRef>, String> {
        let Some(array) = batch.column_by_name(name) else { return Ok(None) };
        let is_text = matches!(data_type, DataType::Utf8);
        let found = array.data_type();
        let fits = if is_text { found.is_string() } else { found.is_numeric() || matches!(found, DataType::Boolean) };
        if !(fits || found.is_null()) {
            return Err(format!("expected {} in the column {name} of answers, found {found}", if is_text { "texts" } else { "numbers" }));
        }
        cast(array, data_type).map(Some).map_err(|error: ArrowError| format!("column {name} of answers: {error}"))
    };
    let names = || batch.schema().fields().iter().map(|field| field.name().clone()).collect::<Vec<_>>().join(", ");
    let ids = column("id", &DataType::Utf8)?.ok_or_else(|| format!("expected a column id of answers, found {}", names()))?;
    let rewards = column("reward", &DataType::Float64)?.ok_or_else(|| format!("expected a column reward of answers, found {}", names()))?;
    let errors = column("error", &DataType::Utf8)?;
    let mut components: Vec<(String, Float64Array)> = Vec::new();
    for field in batch.schema().fields().iter().filter(|field| !OWN_COLUMNS.contains(&field.name().as_str())) {
        let values = column(field.name(), &DataType::Float64)?;
        components.extend(values.map(|values| (field.name().clone(), values.as_primitive().clone())));
    }
    let ids = ids.as_string::<i32>();
    let rewards: &Float64Array = rewards.as_primitive();
    let mut words = Vec::with_capacity(batch.num_rows());
    for row in 0..batch.num_rows() {
        if ids.is_null(row) {
            return Err(format!("expected the id of a response in row {row} of answers, found null"));
        }
        let error = errors.as_ref().filter(|errors| errors.is_valid(row)).map(|errors| errors.as_string::<i32>().value(row));
        let reward = rewards.is_valid(row).then(|| rewards.value(row));
        let scored = match (reward, error) {
            (Some(_), Some(_)) => return Err(format!("expected a reward or an error in row {row} of answers, found both")),
            (None, Some(error)) => Err(ScoreError::Other(format!("{scorer}: {error}"))),
            (reward, None) => {
                let valid = components.iter().filter(|(_, values)| values.is_valid(row));
                let numbers: BTreeMap<String, f64> = valid.map(|(name, values)| (name.clone(), values.value(row))).collect();
                score(scorer, reward, numbers)
            }
        };
        words.push(Word::Answer(ids.value(row).to_string(), scored));
    }
    Ok(words)
}

/// The bytes of a stream's buffers.
pub(super) fn joined(buffers: Result<Vec<Buffer>, ArrowError>) -> Result<Vec<u8>, OperatorError> {
    let buffers = buffers.map_err(|error| OperatorError::internal(PLACE, format!("responses as Arrow IPC: {error}")))?;
    Ok(buffers.iter().flat_map(|buffer| buffer.as_slice()).copied().collect())
}
