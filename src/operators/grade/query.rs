//! Scores from an SQL expression over an item and its answer.

use std::sync::Arc;

use arrow::array::{AsArray, Float64Array, Int64Array, RecordBatch, StringArray};
use arrow::compute::{cast, concat_batches};
use arrow::datatypes::{DataType, Field, Int64Type, Schema, SchemaRef};

use super::OperatorError;
use crate::operators::Context;
use crate::operators::support::benchmark_items::{Item, Right};
use crate::sql::Session;
use crate::tables::answers;

/// The table of the expression, and its column with the item's row.
const TABLE: &str = "answered";
const ROW: &str = "item_row";
/// The columns besides those of the item.
const OURS: [&str; 4] = ["text", "extracted", "answer", ROW];

/// The columns for an expression: ours, and those of the items with other names.
fn schema(items: &Schema) -> SchemaRef {
    let theirs = items.fields().iter().filter(|field| !OURS.contains(&field.name().as_str())).cloned();
    let text = |name: &str, nullable| Arc::new(Field::new(name, DataType::Utf8, nullable));
    let ours = [text("text", false), text("extracted", false), text("answer", true), Arc::new(Field::new(ROW, DataType::Int64, false))];
    Arc::new(Schema::new(theirs.chain(ours).collect::<Vec<_>>()))
}

fn query(expression: &str) -> String {
    format!("SELECT {ROW}, ({expression}) AS score FROM {TABLE}")
}

/// Checks an expression, before there are answers.
///
/// # Errors
/// It is no expression over the columns, or no number.
pub fn check(expression: &str, items: &Schema) -> Result<(), OperatorError> {
    let session = Session::bounded()?;
    session.register_empty(TABLE, schema(items))?;
    check_type(&*session.schema_of(&query(expression))?)
}

fn check_type(schema: &Schema) -> Result<(), OperatorError> {
    let found = schema.field_with_name("score")?.data_type().clone();
    if found.is_numeric() || matches!(found, DataType::Boolean | DataType::Null) {
        return Ok(());
    }
    Err(OperatorError::Input(format!("sql: expected a number or a truth value, found {found}")))
}

/// The score of each item; `None` for null.
pub(super) fn scores(
    context: &Context,
    expression: &str,
    batches: &[RecordBatch],
    answers: &[answers::Row],
    extracted: &[String],
    items: &[Item],
) -> Result<Vec<Option<f64>>, OperatorError> {
    let Some(first) = batches.first() else { return Ok(Vec::new()) };
    let table = concat_batches(&first.schema(), batches)?;
    let schema = schema(&table.schema());
    let right = items.iter().map(|item| if item.right == Right::Unknown { None } else { Some(item.answer()) });
    let mut columns = Vec::with_capacity(schema.fields().len());
    for (field, column) in table.schema().fields().iter().zip(table.columns()) {
        if !OURS.contains(&field.name().as_str()) {
            columns.push(column.clone());
        }
    }
    columns.push(Arc::new(StringArray::from_iter_values(answers.iter().map(|answer| &answer.text))));
    columns.push(Arc::new(StringArray::from_iter_values(extracted)));
    columns.push(Arc::new(right.collect::<StringArray>()));
    columns.push(Arc::new(Int64Array::from_iter_values(items.iter().map(|item| item.row as i64))));
    let session = context.query_session()?;
    session.register_batches(TABLE, vec![RecordBatch::try_new(schema, columns)?])?;
    let mut scores = vec![None; items.len()];
    for batch in session.query(&query(expression))? {
        check_type(&batch.schema())?;
        let rows = batch.column(0).as_primitive::<Int64Type>();
        let values = cast(batch.column(1), &DataType::Float64)?;
        let values: &Float64Array = values.as_primitive();
        for (row, value) in rows.iter().zip(values) {
            let score = row.and_then(|row| scores.get_mut(usize::try_from(row).ok()?));
            if let (Some(score), Some(value)) = (score, value) {
                if !value.is_finite() {
                    return Err(OperatorError::Input(format!("sql: expected a finite score, found {value}")));
                }
                *score = Some(value);
            }
        }
    }
    Ok(scores)
}
