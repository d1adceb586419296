//! Query results batch by batch, and tables from batches on their way.

use std::future::poll_fn;
use std::sync::mpsc::Receiver;
use std::sync::{Arc, Mutex, PoisonError};

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use datafusion::catalog::streaming::StreamingTable;
use datafusion::common::ScalarValue;
use datafusion::error::DataFusionError;
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::physical_plan::coalesce_partitions::CoalescePartitionsExec;
use datafusion::physical_plan::stream::RecordBatchReceiverStream;
use datafusion::physical_plan::streaming::PartitionStream;
use datafusion::physical_plan::{ExecutionPlan, ExecutionPlanProperties};
use datafusion::prelude::DataFrame;

use super::Session;
use super::errors::sql;
use crate::store::StoreError;

/// Batches of a result in the queue before the reader asks for them.
const BATCHES_AHEAD: usize = 2;

/// The rows of a query, batch by batch.
pub struct Rows<'a> {
    session: &'a Session,
    stream: SendableRecordBatchStream,
}

impl Rows<'_> {
    /// The columns.
    pub fn schema(&self) -> SchemaRef {
        self.stream.schema()
    }
}

impl Iterator for Rows<'_> {
    type Item = Result<RecordBatch, StoreError>;

    fn next(&mut self) -> Option<Self::Item> {
        let stream = &mut self.stream;
        let next = self.session.runtime.block_on(poll_fn(|context| stream.as_mut().poll_next(context)));
        next.map(|batch| batch.map_err(|error| self.session.explained(&error)))
    }
}

/// The rows of a query for asynchronous code. Asynchronous code must not drop it, because it must
/// not drop the session inside.
pub struct RowStream {
    stream: SendableRecordBatchStream,
    session: Arc<Session>,
}

impl RowStream {
    /// The columns.
    pub fn schema(&self) -> SchemaRef {
        self.stream.schema()
    }

    /// The next rows; `None` at the end.
    pub async fn next(&mut self) -> Option<Result<RecordBatch, StoreError>> {
        let next = poll_fn(|context| self.stream.as_mut().poll_next(context)).await;
        next.map(|batch| batch.map_err(|error| self.session.explained(&error)))
    }
}

impl Session {
    /// The rows of a query, batch by batch: they need not fit into memory.
    ///
    /// # Errors
    /// As for [`Self::query`]. Errors of the running query come with the rows.
    pub fn rows(&self, text: &str) -> Result<Rows<'_>, StoreError> {
        let stream = self.wait(async || self.spawn(self.frame(text).await?).await)?;
        Ok(Rows { session: self, stream })
    }

    /// As [`Self::rows`], for asynchronous code, with values for the query's parameters `$1`, `$2`,
    /// …. A drop of the stream ends the query.
    ///
    /// # Errors
    /// As for [`Self::rows`]; there are too few values, or one has the wrong type.
    pub fn stream(self: &Arc<Self>, text: &str, parameters: Vec<ScalarValue>) -> Result<RowStream, StoreError> {
        let stream = self.wait(async || {
            let frame = self.frame(text).await?;
            self.spawn(if parameters.is_empty() { frame } else { frame.with_param_values(parameters)? }).await
        })?;
        Ok(RowStream { stream, session: self.clone() })
    }

    /// Runs a query on a thread of this session.
    async fn spawn(&self, frame: DataFrame) -> Result<SendableRecordBatchStream, DataFusionError> {
        let plan = frame.create_physical_plan().await?;
        let mut rows = coalesced(plan).execute(0, self.context.task_ctx())?;
        let mut stream = RecordBatchReceiverStream::builder(rows.schema(), BATCHES_AHEAD);
        let sender = stream.tx();
        stream.spawn(async move {
            while let Some(batch) = poll_fn(|context| rows.as_mut().poll_next(context)).await {
                if sender.send(batch).await.is_err() {
                    break;
                }
            }
            Ok(())
        });
        Ok(stream.build())
    }

    /// Adds rows from a channel as the table `name`. A query can read it once.
    ///
    /// # Errors
    /// The engine refuses the name.
    pub fn register_rows(&self, name: &str, schema: SchemaRef, rows: Receiver<RecordBatch>) -> Result<(), StoreError> {
        let partition: Arc<dyn PartitionStream> = Arc::new(ChannelTable { schema: schema.clone(), rows: Mutex::new(Some(rows)) });
        self.register(name, Arc::new(StreamingTable::try_new(schema, vec![partition]).map_err(sql)?))
    }
}

/// A table from a channel; it can be read once.
#[derive(Debug)]
struct ChannelTable {
    schema: SchemaRef,
    rows: Mutex<Option<Receiver<RecordBatch>>>,
}

impl PartitionStream for ChannelTable {
    fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    fn execute(&self, _: Arc<TaskContext>) -> SendableRecordBatchStream {
        let mut stream = RecordBatchReceiverStream::builder(self.schema.clone(), BATCHES_AHEAD);
        let rows = self.rows.lock().unwrap_or_else(PoisonError::into_inner).take();
        let sender = stream.tx();
        stream.spawn_blocking(move || {
            let rows = rows.ok_or_else(|| DataFusionError::Plan("expected to be read once, found a second reader".to_string()))?;
            // An error means: the query needs no more rows.
            rows.iter().try_for_each(|batch| sender.blocking_send(Ok(batch))).ok();
            Ok(())
        });
        stream.build()
    }
}

/// The plan with one partition. Almost every plan has one already; a `UNION ALL` has one for each
/// part.
fn coalesced(plan: Arc<dyn ExecutionPlan>) -> Arc<dyn ExecutionPlan> {
    if plan.output_partitioning().partition_count() == 1 { plan } else { Arc::new(CoalescePartitionsExec::new(plan)) }
}
