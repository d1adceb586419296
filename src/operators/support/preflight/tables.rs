//! Checks of a task's tables: their columns, and the rows of outside tables.

use std::sync::Arc;

use arrow::datatypes::{DataType, Field, Schema, SchemaRef};

use super::super::OperatorError;
use super::{Preflight, samples};
use crate::import::import;
use crate::pipeline::graph::{Input, SourceKind, Task};
use crate::pipeline::slot::Slot;
use crate::sql::Session;

/// This module in internal errors.
const PLACE: &str = "operators::support::preflight::tables";

impl Preflight<'_> {
    /// A session with the task's named tables, empty; none where the columns of one are not known
    /// yet.
    pub(super) fn session(&mut self, task: &Task) -> Result<Option<Session>, OperatorError> {
        let session = Session::bounded()?;
        for input in task.inputs(Slot::Tables) {
            let Some(schema) = self.table(input.input)? else { return Ok(None) };
            let schema = if self.is_partitioned(input.input) { with_iteration(&schema) } else { schema };
            session.register_empty(&input.name, schema)?;
        }
        Ok(Some(session))
    }

    /// Whether an input is a table.
    pub(super) fn is_table(&self, input: Input) -> bool {
        match (self.graph.source(input), self.graph.task(input)) {
            (Some(source), _) => matches!(source.kind, SourceKind::Table { .. }),
            (_, Some(task)) => task.output().is_table(),
            (None, None) => false,
        }
    }

    /// Whether an input lies in a partition folder; queries see its `iteration` as a column.
    fn is_partitioned(&self, input: Input) -> bool {
        self.graph.task(input).is_some_and(|task| task.iteration.is_some())
    }

    /// The columns of a table of prompts, if they are known yet; the rows of an outside one are
    /// checked too.
    pub(super) fn prompts(&mut self, input: Input) -> Result<Option<SchemaRef>, OperatorError> {
        let Some(schema) = self.table(input)? else { return Ok(None) };
        // The import checks outside tables row by row, and gives them ids.
        if let Input::Task(_) = input {
            if schema.field_with_name("prompt").is_err() && schema.field_with_name("messages").is_err() {
                return Err(OperatorError::Input(format!("expected a column prompt or messages, found {}", names(&schema))));
            }
            if schema.field_with_name("prompt_id").is_err() {
                // A table of the pipeline's own needs ids: rewards are joined by them.
                return Err(OperatorError::Input(
                    "prompts made by a query: expected a column prompt_id, found none; select one".to_string(),
                ));
            }
        }
        Ok(Some(schema))
    }

    /// Checks the columns of a table of preferences.
    pub(super) fn preferences(&mut self, input: Input) -> Result<(), OperatorError> {
        let Some(schema) = self.table(input)? else { return Ok(()) };
        let has = |name: &str| schema.field_with_name(name).is_ok();
        if !(has("prompt") || has("messages")) || !has("chosen") || !has("rejected") {
            let expected = "preferences: expected columns prompt or messages, chosen and rejected";
            return Err(OperatorError::Input(format!("{expected}, found {}", names(&schema))));
        }
        Ok(())
    }

    /// The columns of any table, if they are known yet; the rows of an outside one are checked too.
    pub(super) fn table(&mut self, input: Input) -> Result<Option<SchemaRef>, OperatorError> {
        let index = match input {
            Input::Task(index) => {
                let problem = || OperatorError::internal(PLACE, format!("task {index} is read before it is checked"));
                return self.tasks.get(index).cloned().ok_or_else(problem);
            }
            Input::Source(index) => index,
        };
        if let Some(schema) = self.sources.get(&index) {
            return Ok(Some(schema.clone()));
        }
        let Some(source) = self.graph.sources.get(index) else {
            return Err(OperatorError::internal(PLACE, format!("source {index} does not exist")));
        };
        let imported = import(self.graph, index)?;
        if let Some(dataset_format) = imported.dataset_format {
            self.checked.dataset_formats.insert(source.name.clone(), dataset_format);
        }
        self.checked.notes.extend(imported.notes.iter().map(|note| (source.name.clone(), note.clone())));
        let schema = imported.schema();
        let is_of_benchmark = |task: &Task| [Slot::Items, Slot::Examples].iter().any(|slot| task.inputs(*slot).any(|of| of.input == input));
        if self.graph.tasks.iter().any(is_of_benchmark) {
            self.items.insert(index, imported.batches.clone());
        }
        if imported.dataset_format.is_some() {
            self.samples.insert(index, samples::of(&schema, &imported.batches)?);
        }
        self.sources.insert(index, schema.clone());
        self.rows.insert(index, imported.rows());
        Ok(Some(schema))
    }
}

/// The names of all columns, for an error.
pub(super) fn names(schema: &Schema) -> String {
    schema.fields().iter().map(|field| field.name().as_str()).collect::<Vec<_>>().join(", ")
}

fn with_iteration(schema: &Schema) -> SchemaRef {
    let iteration = Arc::new(Field::new("iteration", DataType::Int32, false));
    Arc::new(Schema::new(schema.fields().iter().cloned().chain([iteration]).collect::<Vec<_>>()))
}
