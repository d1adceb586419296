//! The table made by a program: Parquet, checked against its kind and its readers, then written
//! into the run folder like any other table.
//!
//! Knows the columns that the readers need, not what they do with them.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use arrow::array::{ArrayRef, Int32Array, RecordBatch, StringArray, new_null_array};
use arrow::compute::{SortColumn, concat_batches, lexsort_to_indices, take_record_batch};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};

use crate::did_you_mean::nearest;
use crate::disk;
use crate::import::{ColumnRules, ImportError, InputFormat, Preferences, Prompts, Repeats, read_inputs};
use crate::operators::{Context, OperatorError, Summary};
use crate::pipeline::graph::{Input, Task};
use crate::pipeline::slot::Slot;
use crate::pipeline::spec::command::{Command, Made};
use crate::pipeline::spec::operator::Operator;
use crate::store::StoreError;
use crate::tables::TableKind;

/// Columns with a value of this node where the program leaves them out.
const FILLED: [&str; 3] = ["sampled_iteration", "policy_fingerprint", "reward_fingerprint"];

/// Takes the table at `path`: a Parquet file, or a folder of Parquet files.
///
/// # Errors
/// No table, or one that does not fit its kind or a node that reads it.
pub(super) fn take(context: &Context, settings: &Command, path: &Path) -> Result<Summary, OperatorError> {
    let files = files(path)?;
    let found = read_inputs(&InputFormat::Parquet, &ColumnRules::default(), &files, u64::MAX).map_err(of_program)?;
    let batches: Vec<RecordBatch> = found.files.into_iter().flatten().collect();
    let label = context.task.label();
    found.notes.iter().for_each(|note| context.progress.warned(&label, note));
    let rows = match context.task.table_kind() {
        Some(kind) => {
            let batch = fitted(context, kind, &batches).map_err(|problem| of_kind(kind, &problem))?;
            kind.check(&batch).map_err(|error| of_kind(kind, &error.to_string()))?;
            context.write_relation(kind, |relation| relation.write(&batch).map(|()| [("rows", batch.num_rows() as i64)]))?
        }
        None => {
            let batches = own(context, settings, batches)?;
            let schema = batches.first().map_or_else(|| Arc::new(Schema::empty()), |batch| batch.schema());
            check_readers(context, &schema, &batches)?;
            context.write_own_table(schema, &batches)?
        }
    };
    Ok(Summary::new(format!("{rows} rows")))
}

/// The files of a table, in the order of their names.
fn files(path: &Path) -> Result<Vec<PathBuf>, OperatorError> {
    if path.is_file() {
        return Ok(vec![path.to_path_buf()]);
    }
    let mut files = if path.is_dir() { disk::list(path).map_err(StoreError::io("list", path))? } else { Vec::new() };
    files.retain(|file| file.extension().is_some_and(|extension| extension == "parquet"));
    files.sort();
    if files.is_empty() {
        let found = if path.is_dir() { "a folder without one" } else { "nothing" };
        let problem = format!("expected a Parquet file at {}, the path in OPTUNE_OUTPUT, found {found}", path.display());
        return Err(OperatorError::Failed(problem));
    }
    Ok(files)
}

/// A fault of the program's output.
fn of_program(error: ImportError) -> OperatorError {
    match error {
        ImportError::Store(error) => error.into(),
        error => OperatorError::Failed(format!("the table that the program made cannot be used: {error}")),
    }
}

fn of_kind(kind: TableKind, problem: &str) -> OperatorError {
    OperatorError::Failed(format!("the table that the program made is no table of {kind}: {problem}"))
}

/// A table of the user's own: prompts with their ids, or rows as they are.
fn own(context: &Context, settings: &Command, batches: Vec<RecordBatch>) -> Result<Vec<RecordBatch>, OperatorError> {
    let name = &context.task.name;
    match settings.output {
        Made::Prompts => Ok(Prompts::from_batches(name, Repeats::Refuse, batches).map_err(of_program)?.batches),
        Made::Preferences => {
            Preferences::from_batches(name, batches.clone()).map_err(of_program)?;
            Ok(batches)
        }
        _ => Ok(batches),
    }
}

/// The rows as a table of `kind`: columns that may be null and columns with a value of this node
/// may be missing, and rows may be in any order.
fn fitted(context: &Context, kind: TableKind, batches: &[RecordBatch]) -> Result<RecordBatch, String> {
    let expected = kind.schema();
    let found = batches.first().map_or_else(|| Arc::new(Schema::empty()), |batch| batch.schema());
    let names: Vec<&str> = expected.fields().iter().map(|field| field.name().as_str()).collect();
    if let Some(other) = found.fields().iter().find(|field| !names.contains(&field.name().as_str())) {
        let near = nearest(other.name(), names.iter().copied()).map_or(String::new(), |near| format!("; did you mean {near}?"));
        return Err(format!("expected the columns {}, found {} too{near}", names.join(", "), other.name()));
    }
    let whole = concat_batches(&found, batches).map_err(|error| error.to_string())?;
    let rows = whole.num_rows();
    let mut fields = found.fields().to_vec();
    let mut columns = whole.columns().to_vec();
    for field in expected.fields().iter().filter(|field| found.field_with_name(field.name()).is_err()) {
        if let Some(column) = filled(context, field, rows)? {
            fields.push(field.clone());
            columns.push(column);
        }
    }
    let schema: SchemaRef = Arc::new(Schema::new(fields));
    let whole = RecordBatch::try_new(schema, columns).map_err(|error| error.to_string())?;
    let whole = kind.conform(&whole).map_err(|error| error.to_string())?;
    let order = kind.order().iter().filter_map(|name| whole.column_by_name(name).cloned());
    let order: Vec<SortColumn> = order.map(|values| SortColumn { values, options: None }).collect();
    let order = lexsort_to_indices(&order, None).map_err(|error| error.to_string())?;
    take_record_batch(&whole, &order).map_err(|error| error.to_string())
}

/// The values of a column that the program left out; none if it must make them.
fn filled(context: &Context, field: &Field, rows: usize) -> Result<Option<ArrayRef>, String> {
    if field.is_nullable() {
        return Ok(Some(new_null_array(field.data_type(), rows)));
    }
    if !FILLED.contains(&field.name().as_str()) {
        return Ok(None);
    }
    Ok(match field.data_type() {
        DataType::Int32 => {
            let iteration = context.sampled_iteration().map_err(|error| error.to_string())?;
            Some(Arc::new(Int32Array::from(vec![iteration; rows])))
        }
        _ => Some(Arc::new(StringArray::from(vec![context.recipe.fingerprint().as_str(); rows]))),
    })
}

/// Checks a table of the user's own against every node that reads it, before any of them runs.
fn check_readers(context: &Context, schema: &Schema, batches: &[RecordBatch]) -> Result<(), OperatorError> {
    let name = &context.task.name;
    let own = |input: Input| context.graph.task(input).is_some_and(|task| task.name == *name && task.iteration == context.task.iteration);
    for reader in &context.graph.tasks {
        for binding in reader.inputs.iter().filter(|binding| own(binding.input)) {
            check_reader(reader, binding.slot, name, schema, batches).map_err(|problem| {
                OperatorError::Failed(format!("the table that the program made does not fit {}, which reads it: {problem}", reader.label()))
            })?;
        }
    }
    Ok(())
}

/// Checks a table against one of its readers.
fn check_reader(reader: &Task, slot: Slot, name: &str, schema: &Schema, batches: &[RecordBatch]) -> Result<(), String> {
    let has = |column: &str| schema.field_with_name(column).is_ok();
    let names = || schema.fields().iter().map(|field| field.name().as_str()).collect::<Vec<_>>().join(", ");
    match slot {
        Slot::Prompts | Slot::Demonstrations => {
            if !has("prompt_id") {
                return Err(format!("expected a column prompt_id, found {}; or say `output: prompts` for ids of their contents", names()));
            }
            if let Operator::Sft(settings) = &reader.operator
                && !has(&settings.response)
            {
                return Err(format!("expected a column {}, found {}; name it with `response:`", settings.response, names()));
            }
            let repeats = if slot == Slot::Demonstrations { Repeats::Number } else { Repeats::Refuse };
            Prompts::from_batches(name, repeats, batches.to_vec()).map(drop).map_err(|error| error.to_string())
        }
        Slot::Preferences | Slot::HeldOut => Preferences::from_batches(name, batches.to_vec()).map(drop).map_err(|error| error.to_string()),
        Slot::Pool if !(has("prompt_id") && has("reward")) => Err(format!("expected the columns prompt_id and reward, found {}", names())),
        _ => Ok(()),
    }
}
