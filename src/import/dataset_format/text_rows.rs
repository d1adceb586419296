//! Rows of one text to imitate as a whole, TRL's format for language modelling.
//!
//! Knows their columns, not how they are trained on.

use std::sync::Arc;

use arrow::array::{ArrayRef, BooleanArray, RecordBatch, StringArray};

use super::columns::{ColumnContent, Texts};
use super::rename::batch_of;

/// The columns of prompts and answers, without which a column `text` is the demonstration.
const OTHERS: [&str; 10] =
    [IS_TEXT, "prompt", "messages", "completion", "response", "conversations", "instruction", "chosen", "rejected", "context_messages"];

/// The column that marks such rows.
pub(crate) const IS_TEXT: &str = "is_text";

/// A batch of rows with `text` as responses to an empty prompt; another batch as it is. The id of a
/// row without one is the hash of its text.
///
/// # Errors
/// Arrow refuses the columns.
pub(in crate::import) fn text_rows(batch: &RecordBatch) -> Result<RecordBatch, String> {
    let is_text = ColumnContent::of(batch, "text") == Some(ColumnContent::Text);
    let Some(texts) = batch.column_by_name("text").filter(|_| is_text && !OTHERS.iter().any(|name| batch.column_by_name(name).is_some()))
    else {
        return Ok(batch.clone());
    };
    let prompts: ArrayRef = Arc::new(StringArray::from(vec![""; batch.num_rows()]));
    let marks: ArrayRef = Arc::new(BooleanArray::from(vec![true; batch.num_rows()]));
    let mut columns = vec![("prompt".to_string(), prompts), (IS_TEXT.to_string(), marks)];
    for (field, array) in batch.schema().fields().iter().zip(batch.columns()) {
        let name = if field.name() == "text" { "response" } else { field.name().as_str() };
        columns.push((name.to_string(), array.clone()));
    }
    if batch.column_by_name("prompt_id").is_none() {
        let texts = Texts::new("text", texts)?;
        let id = |row: usize| texts.value(row).map(|text| blake3::hash(text.as_bytes()).to_hex().to_string());
        columns.push(("prompt_id".to_string(), Arc::new((0..batch.num_rows()).map(id).collect::<StringArray>())));
    }
    batch_of(columns)
}
