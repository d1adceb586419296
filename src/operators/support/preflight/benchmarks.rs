//! Checks of a benchmark's tables: every question, choice and right answer of outside tables, and
//! the columns of the others.

use arrow::array::RecordBatch;

use super::super::OperatorError;
use super::super::benchmark_items::{check_columns, examples_of, items};
use super::Preflight;
use crate::operators::grade;
use crate::pipeline::graph::{Binding, Input, Task};
use crate::pipeline::slot::Slot;
use crate::pipeline::spec::benchmark::answer::{Answer, Question};
use crate::pipeline::spec::benchmark::grade::MetricKind;
use crate::pipeline::spec::operator::Operator;

/// This module in internal errors.
const PLACE: &str = "operators::support::preflight::benchmarks";

impl Preflight<'_> {
    /// Makes the items of a benchmark as its tasks will. Iterations ask the same questions.
    pub(super) fn benchmark_items(&mut self, task: &Task) -> Result<(), OperatorError> {
        match &task.operator {
            Operator::Answer(settings) if task.iteration.is_none_or(|iteration| iteration == 1) => self.questions(task, settings),
            Operator::Grade(settings) if task.iteration.is_none_or(|iteration| iteration == 1) => {
                for ((name, graded), table) in settings.tasks.iter().zip(task.inputs(Slot::Items)) {
                    let Some(schema) = self.table(table.input)? else { continue };
                    for (metric, graded) in &graded.metrics {
                        if let MetricKind::Sql(expression) = &graded.kind {
                            let checked = grade::check_expression(expression, &schema);
                            checked.map_err(|error| error.of(&format!("task {name}: metric {metric}")))?;
                        }
                    }
                }
                Ok(())
            }
            _ => Ok(()),
        }
    }

    fn questions(&mut self, task: &Task, settings: &Answer) -> Result<(), OperatorError> {
        let missing = || OperatorError::internal(PLACE, format!("{}: a task without a table", task.label()));
        let mut tables = task.inputs(Slot::Items);
        let mut examples = task.inputs(Slot::Examples);
        for (name, question) in &settings.questions {
            let of_task = |error: OperatorError| error.of(&format!("task {name}"));
            let table = tables.next().ok_or_else(missing)?;
            let own = self.items_of(question, table).map_err(of_task)?;
            let Some(few_shot) = &question.few_shot else { continue };
            let others = if few_shot.has_table {
                Some(self.items_of(question, examples.next().ok_or_else(missing)?).map_err(of_task)?)
            } else {
                None
            };
            // Tables of the pipeline's own have rows only when it runs.
            let (Some(own), Some(examples)) = (&own, others.as_ref().unwrap_or(&own)) else { continue };
            for item in own {
                examples_of(item, examples, few_shot.count as usize, !few_shot.has_table).map_err(of_task)?;
            }
        }
        Ok(())
    }

    /// The items of an outside table. Of a table that a query makes only the columns are checked,
    /// of one that a command makes not even they.
    fn items_of(
        &mut self,
        question: &Question,
        table: &Binding,
    ) -> Result<Option<Vec<super::super::benchmark_items::Item>>, OperatorError> {
        let Some(schema) = self.table(table.input)? else { return Ok(None) };
        let batches: Option<&Vec<RecordBatch>> = match table.input {
            Input::Source(index) => self.items.get(&index),
            Input::Task(_) => None,
        };
        match batches {
            Some(batches) => items(question, &table.name, batches).map(Some),
            None => check_columns(question, &table.name, &schema).map(|()| None),
        }
    }
}
