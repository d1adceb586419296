//! Query results as a whole, and the columns of tables and queries.

use std::collections::HashMap;
use std::future::poll_fn;
use std::sync::Arc;

use arrow::array::{AsArray, RecordBatch};
use arrow::datatypes::{DataType, Int64Type, SchemaRef};
use datafusion::common::TableReference;
use datafusion::common::tree_node::{TreeNode, TreeNodeRecursion};
use datafusion::datasource::TableType;
use datafusion::error::DataFusionError;
use datafusion::logical_expr::{Expr, LogicalPlan};

use super::Session;
use super::errors::too_large;
use crate::store::StoreError;
use crate::tables::batch_bytes;

/// The share of a query's memory for its result: a result is complete in memory before it is
/// printed or written.
const RESULT_SHARE: usize = 8;

/// A table or view of a session.
#[derive(Clone, Debug)]
pub struct TableInfo {
    /// Its name.
    pub name: String,
    /// Whether it is a view: a query, run on each read.
    pub view: bool,
    /// The query of a view, if it is known.
    pub definition: Option<String>,
    /// Its columns.
    pub schema: SchemaRef,
}

/// The types of parameters inside of a cast: `$1` in `CAST($1 AS int[])`, which the engine takes
/// for a text.
fn cast_parameters(plan: &LogicalPlan) -> Result<HashMap<String, DataType>, DataFusionError> {
    let mut types = HashMap::new();
    plan.apply_with_subqueries(|plan| {
        plan.apply_expressions(|expr| {
            expr.apply(|expr| {
                if let Expr::Cast(cast) = expr
                    && let Expr::Placeholder(parameter) = cast.expr.as_ref()
                {
                    types.insert(parameter.id.clone(), cast.field.data_type().clone());
                }
                Ok(TreeNodeRecursion::Continue)
            })
        })
    })?;
    Ok(types)
}

impl Session {
    /// Every table and view with its columns, by name.
    ///
    /// # Errors
    /// The engine breaks down.
    pub fn describe_tables(&self) -> Result<Vec<TableInfo>, StoreError> {
        self.wait(async || {
            let mut infos = Vec::new();
            for name in self.tables() {
                let table = self.context.table_provider(TableReference::bare(name.as_str())).await?;
                let definition = table.get_table_definition().map(String::from);
                infos.push(TableInfo { name, view: table.table_type() == TableType::View, definition, schema: table.schema() });
            }
            Ok(infos)
        })
    }

    /// The columns of a query, and the types of its parameters `$1`, `$2`, … as far as it
    /// determines them. It does not run the query.
    ///
    /// # Errors
    /// The errors of [`Self::query`] before the query runs.
    pub fn describe_query(&self, text: &str) -> Result<(SchemaRef, Vec<Option<DataType>>), StoreError> {
        self.wait(async || {
            let frame = self.frame(text).await?;
            let types = frame.logical_plan().get_parameter_types()?;
            let cast = cast_parameters(frame.logical_plan())?;
            let kind = |number: usize| {
                let name = format!("${number}");
                cast.get(&name).or(types.get(&name).and_then(Option::as_ref)).cloned()
            };
            let parameters = (1..=types.len()).map(kind).collect();
            Ok((Arc::new(frame.schema().as_arrow().clone()), parameters))
        })
    }

    /// The columns of a query. It does not run the query.
    ///
    /// # Errors
    /// The errors of [`Self::query`] before the query runs.
    pub fn schema_of(&self, text: &str) -> Result<SchemaRef, StoreError> {
        self.wait(async || Ok(Arc::new(self.frame(text).await?.schema().as_arrow().clone())))
    }

    /// The single integer of a query such as a count.
    ///
    /// # Errors
    /// As for [`Self::query`]; the result is anything else.
    pub fn count(&self, text: &str) -> Result<i64, StoreError> {
        let batches = self.query(text)?;
        let first = batches.first().filter(|batch| batch.num_rows() == 1 && batch.num_columns() == 1);
        let number = first.and_then(|batch| batch.column(0).as_primitive_opt::<Int64Type>().map(|column| column.value(0)));
        number.ok_or_else(|| StoreError::Sql { message: format!("expected one whole number from {text}") })
    }

    /// The result of a query: at least one batch, possibly without rows, so its columns are always
    /// known.
    ///
    /// # Errors
    /// The text is not valid SQL, is not a query, has an unknown name, or fails while it runs. In a
    /// bounded session: it takes too much memory.
    pub fn query(&self, text: &str) -> Result<Vec<RecordBatch>, StoreError> {
        match (self.query_once(text), &self.run) {
            // An active run has removed or replaced a registered file.
            (Err(StoreError::Unreadable { .. }), Some(run)) => self.retry(|| {
                self.register_run(run)?;
                self.query_once(text)
            }),
            (result, _) => result,
        }
    }

    fn query_once(&self, text: &str) -> Result<Vec<RecordBatch>, StoreError> {
        let (schema, mut batches) = self.wait(async || {
            let frame = self.frame(text).await?;
            let schema = Arc::new(frame.schema().as_arrow().clone());
            let limit = self.limit.map(|limit| limit / RESULT_SHARE);
            let mut rows = frame.execute_stream().await?;
            let mut batches = Vec::new();
            let mut bytes = 0_usize;
            while let Some(batch) = poll_fn(|context| rows.as_mut().poll_next(context)).await {
                let batch = batch?;
                bytes = bytes.saturating_add(batch_bytes(&batch));
                if let Some(limit) = limit
                    && bytes > limit
                {
                    return Err(DataFusionError::Execution(too_large("the result of a query", limit)));
                }
                batches.push(batch);
            }
            Ok((schema, batches))
        })?;
        if batches.is_empty() {
            batches.push(RecordBatch::new_empty(schema));
        }
        Ok(batches)
    }
}
