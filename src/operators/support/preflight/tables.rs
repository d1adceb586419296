//! The tables of a task: their columns, and the rows of those from outside.

use std::sync::Arc;

use arrow::datatypes::{DataType, Field, Schema, SchemaRef};

use super::super::OperatorError;
use super::{Known, PROMPTS_TRIED};
use crate::import::Prompts;
use crate::import::import;
use crate::pipeline::graph::{Input, Task};
use crate::pipeline::slot::Slot;
use crate::sql::Session;

impl Known<'_> {
    /// A session with the task's named tables, empty.
    pub(in crate::operators) fn session(&mut self, task: &Task) -> Result<Session, OperatorError> {
        let session = Session::bounded()?;
        for input in task.inputs(Slot::Tables) {
            let schema = self.table(input.input)?;
            let schema = if self.is_partitioned(input.input) { with_iteration(&schema) } else { schema };
            session.register_empty(&input.name, schema)?;
        }
        Ok(session)
    }

    /// Whether an input lies in a partition folder, whose `iteration` queries see as a column.
    fn is_partitioned(&self, input: Input) -> bool {
        self.graph.task(input).is_some_and(|task| task.iteration.is_some())
    }

    /// The columns of a table of prompts, its rows checked if it is an outside one.
    pub(in crate::operators) fn prompts(&mut self, input: Input) -> Result<SchemaRef, OperatorError> {
        let schema = self.table(input)?;
        // Outside tables were checked row by row, and got ids, when they were read.
        if let Input::Task(_) = input {
            if schema.field_with_name("prompt").is_err() && schema.field_with_name("messages").is_err() {
                return Err(OperatorError::Input(format!("expected a column prompt or messages, found {}", names(&schema))));
            }
            if schema.field_with_name("prompt_id").is_err() {
                // A table of the pipeline's own must have ids, for rewards to join by.
                return Err(OperatorError::Input(
                    "prompts made by a query: expected a column prompt_id, found none; select one".to_string(),
                ));
            }
        }
        Ok(schema)
    }

    /// Checks the columns of a table of preferences.
    pub(in crate::operators) fn preferences(&mut self, input: Input) -> Result<(), OperatorError> {
        let schema = self.table(input)?;
        let has = |name: &str| schema.field_with_name(name).is_ok();
        if !(has("prompt") || has("messages")) || !has("chosen") || !has("rejected") {
            let expected = "preferences: expected columns prompt or messages, chosen and rejected";
            return Err(OperatorError::Input(format!("{expected}, found {}", names(&schema))));
        }
        Ok(())
    }

    /// The columns of any table; the rows of an outside one are checked too.
    pub(in crate::operators) fn table(&mut self, input: Input) -> Result<SchemaRef, OperatorError> {
        let index = match input {
            Input::Task(index) => return Ok(self.tasks.get(index).cloned().unwrap_or_else(|| Arc::new(Schema::empty()))),
            Input::Source(index) => index,
        };
        if let Some(schema) = self.sources.get(&index) {
            return Ok(schema.clone());
        }
        let imported = import(self.graph, index)?;
        if let (Some(source), Some(dataset_format)) = (self.graph.sources.get(index), imported.dataset_format) {
            self.dataset_formats.insert(source.name.clone(), dataset_format);
        }
        let schema = imported.schema();
        if let (Some(source), Some(first)) = (self.graph.sources.get(index), imported.batches.first())
            && let Ok(prompts) = Prompts::from_batches(&source.name, vec![first.slice(0, first.num_rows().min(PROMPTS_TRIED))])
        {
            self.asked.insert(index, prompts.iter().map(|prompt| prompt.content.clone()).collect());
        }
        self.sources.insert(index, schema.clone());
        Ok(schema)
    }
}

/// The names of all columns, for an error.
pub(in crate::operators) fn names(schema: &Schema) -> String {
    schema.fields().iter().map(|field| field.name().as_str()).collect::<Vec<_>>().join(", ")
}

fn with_iteration(schema: &Schema) -> SchemaRef {
    let iteration = Arc::new(Field::new("iteration", DataType::Int32, false));
    Arc::new(Schema::new(schema.fields().iter().cloned().chain([iteration]).collect::<Vec<_>>()))
}
