//! SQL over tables: those of a run, batches in memory, files. Queries only; nothing here can change what is on disk.

use std::future::poll_fn;
use std::path::{Path, PathBuf};
use std::sync::mpsc::Receiver;
use std::sync::{Arc, Mutex, PoisonError};

use arrow::array::{AsArray, RecordBatch};
use arrow::datatypes::{Int64Type, SchemaRef};
use datafusion::catalog::TableProvider;
use datafusion::catalog::streaming::StreamingTable;
use datafusion::common::TableReference;
use datafusion::datasource::MemTable;
use datafusion::error::DataFusionError;
use datafusion::execution::context::SQLOptions;
use datafusion::execution::memory_pool::FairSpillPool;
use datafusion::execution::runtime_env::RuntimeEnvBuilder;
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::physical_plan::coalesce_partitions::CoalescePartitionsExec;
use datafusion::physical_plan::stream::RecordBatchReceiverStream;
use datafusion::physical_plan::streaming::PartitionStream;
use datafusion::physical_plan::{ExecutionPlan, ExecutionPlanProperties};
use datafusion::prelude::{DataFrame, SessionConfig, SessionContext};

use super::manifest::Manifest;
use super::scan::Files;
use super::{Place, PlaceKind, Run, StoreError, journal, nesting, parquet};

/// Batches of a query's result that wait to be asked for.
const BATCHES_AHEAD: usize = 2;

/// A DataFusion session with a runtime of its own. Every call blocks; it must not be used from asynchronous code.
///
/// One partition, so that a query returns the same rows in the same order, and the same last digits of sums, every time.
pub struct Session {
    context: SessionContext,
    runtime: tokio::runtime::Runtime,
}

impl Session {
    /// A session without tables and without a limit of memory.
    ///
    /// # Errors
    /// The system gives no threads.
    pub fn new() -> Result<Self, StoreError> {
        Self::build(RuntimeEnvBuilder::new(), &mut tokio::runtime::Builder::new_current_thread())
    }

    /// A session that sorts and groups on disk, in `folder`, when it would need more than `bytes` of memory, and whose queries work on
    /// threads of their own while their rows are waited for.
    ///
    /// # Errors
    /// The system gives no threads.
    pub fn with_memory_limit(bytes: usize, folder: &Path) -> Result<Self, StoreError> {
        let environment = RuntimeEnvBuilder::new().with_memory_pool(Arc::new(FairSpillPool::new(bytes))).with_temp_file_path(folder);
        Self::build(environment, &mut tokio::runtime::Builder::new_multi_thread())
    }

    /// A session with every table of the run as far as it is committed, under its node's name, and `journal`. A table of several
    /// iterations is one table with the column `iteration` (Int32).
    ///
    /// # Errors
    /// A manifest or the journal cannot be read, or a part is not what its manifest says.
    pub fn over_run(run: &Run) -> Result<Self, StoreError> {
        let session = Self::new()?;
        session.register_run(run)?;
        Ok(session)
    }

    fn build(environment: RuntimeEnvBuilder, runtime: &mut tokio::runtime::Builder) -> Result<Self, StoreError> {
        let runtime = runtime.build().map_err(|error| StoreError::Sql { message: format!("cannot start the SQL engine: {error}") })?;
        let config = SessionConfig::new()
            .with_target_partitions(1)
            .with_information_schema(true)
            .set_bool("datafusion.sql_parser.map_string_types_to_utf8view", false);
        let context = SessionContext::new_with_config_rt(config, environment.build_arc().map_err(sql)?);
        Ok(Self { context, runtime })
    }

    /// Adds every table of the run and `journal`, as [`Self::over_run`] does.
    ///
    /// # Errors
    /// As for [`Self::over_run`].
    pub fn register_run(&self, run: &Run) -> Result<(), StoreError> {
        let manifests = run.manifests()?;
        let tables: Vec<_> = manifests.into_iter().filter(|(place, _)| place.kind == PlaceKind::Table).collect();
        for group in tables.chunk_by(|(one, _), (other, _)| one.name == other.name) {
            if let [(place, _), ..] = group {
                self.register_manifests(&place.name, run, group)?;
            }
        }
        let events = journal::batch(&run.journal().read()?).map_err(|error| sql(error.into()))?;
        self.register_batches("journal", vec![events])
    }

    /// Adds batches of one schema as the table `name`.
    ///
    /// # Errors
    /// There is no batch, or their schemas differ.
    pub fn register_batches(&self, name: &str, batches: Vec<RecordBatch>) -> Result<(), StoreError> {
        let Some(schema) = batches.first().map(RecordBatch::schema) else {
            return Err(StoreError::Sql { message: format!("table {name}: expected at least one batch, found none") });
        };
        self.register(name, Arc::new(MemTable::try_new(schema, vec![batches]).map_err(sql)?))
    }

    /// Adds Parquet files of one schema, read in this order, as the table `name`; with the column `iteration` if any file has one.
    ///
    /// # Errors
    /// There is no file, or one cannot be read.
    pub fn register_files(&self, name: &str, files: &[(Option<u32>, PathBuf)]) -> Result<(), StoreError> {
        let Some((_, first)) = files.first() else {
            return Err(StoreError::Sql { message: format!("table {name}: expected at least one file, found none") });
        };
        self.register(name, Arc::new(Files::new(parquet::schema(first)?, files).map_err(sql)?))
    }

    /// Adds the committed parts of several outputs of one schema, one after the other, as the table `name`; with the column
    /// `iteration` if the places have one.
    ///
    /// # Errors
    /// There is no place, no output at one of them, or a part is not what its manifest says.
    pub fn register_places(&self, name: &str, run: &Run, places: &[Place]) -> Result<(), StoreError> {
        let output = |place: &Place| {
            let manifest = run.manifest(place)?.ok_or_else(|| StoreError::Missing { place: place.clone(), path: run.path(place) })?;
            Ok((place.clone(), manifest))
        };
        self.register_manifests(name, run, &places.iter().map(output).collect::<Result<Vec<_>, StoreError>>()?)
    }

    /// Adds a table without rows as `name`, to check queries against its columns.
    ///
    /// # Errors
    /// The engine refuses the name.
    pub fn register_empty(&self, name: &str, schema: SchemaRef) -> Result<(), StoreError> {
        self.register_batches(name, vec![RecordBatch::new_empty(schema)])
    }

    /// Adds the query `text` as the table `name`; it runs when that table is read.
    ///
    /// # Errors
    /// As for [`Self::query`], but for what fails only while it runs.
    pub fn register_view(&self, name: &str, text: &str) -> Result<(), StoreError> {
        let frame = self.runtime.block_on(self.frame(text)).map_err(sql)?;
        self.register(name, frame.into_view())
    }

    /// The query, planned.
    async fn frame(&self, text: &str) -> Result<DataFrame, DataFusionError> {
        nesting::check(text).map_err(DataFusionError::Plan)?;
        self.context.sql_with_options(text, only_queries()).await
    }

    /// The names of the tables, sorted.
    pub fn tables(&self) -> Vec<String> {
        let schema = self.context.catalog("datafusion").and_then(|catalog| catalog.schema("public"));
        let mut names = schema.map(|schema| schema.table_names()).unwrap_or_default();
        names.sort();
        names
    }

    /// The columns that a query gives, without running it.
    ///
    /// # Errors
    /// As for [`Self::query`], but for what fails only while it runs.
    pub fn schema_of(&self, text: &str) -> Result<SchemaRef, StoreError> {
        let frame = self.runtime.block_on(self.frame(text)).map_err(sql)?;
        Ok(Arc::new(frame.schema().as_arrow().clone()))
    }

    /// The single whole number that a query gives, such as a count.
    ///
    /// # Errors
    /// As for [`Self::query`], and when the result is something else.
    pub fn count(&self, text: &str) -> Result<i64, StoreError> {
        let batches = self.query(text)?;
        let first = batches.first().filter(|batch| batch.num_rows() == 1 && batch.num_columns() == 1);
        let number = first.and_then(|batch| batch.column(0).as_primitive_opt::<Int64Type>().map(|column| column.value(0)));
        number.ok_or_else(|| StoreError::Sql { message: format!("expected one whole number from {text}") })
    }

    /// The result of a query: at least one batch, maybe without rows, so that its columns are always known.
    ///
    /// # Errors
    /// The text is no SQL, is not a query, names what is not there, or fails while it runs.
    pub fn query(&self, text: &str) -> Result<Vec<RecordBatch>, StoreError> {
        let result = self.runtime.block_on(async {
            let frame = self.frame(text).await?;
            let schema = Arc::new(frame.schema().as_arrow().clone());
            Ok((schema, frame.collect().await?))
        });
        let (schema, mut batches) = result.map_err(sql)?;
        if batches.is_empty() {
            batches.push(RecordBatch::new_empty(schema));
        }
        Ok(batches)
    }

    /// The rows of a query as they come, so that they need not all be in memory.
    ///
    /// # Errors
    /// As for [`Self::query`]; of what fails only while it runs, the rows are errors.
    pub fn rows(&self, text: &str) -> Result<Rows<'_>, StoreError> {
        let stream = self.runtime.block_on(async {
            let plan = self.frame(text).await?.create_physical_plan().await?;
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
        });
        Ok(Rows { runtime: &self.runtime, stream: stream.map_err(sql)? })
    }

    /// Adds rows that come as they are asked for as the table `name`, which a query can read once.
    ///
    /// # Errors
    /// The engine refuses the name.
    pub fn register_rows(&self, name: &str, schema: SchemaRef, rows: Receiver<RecordBatch>) -> Result<(), StoreError> {
        let partition: Arc<dyn PartitionStream> = Arc::new(Once { schema: schema.clone(), rows: Mutex::new(Some(rows)) });
        self.register(name, Arc::new(StreamingTable::try_new(schema, vec![partition]).map_err(sql)?))
    }

    /// Adds the committed parts that the manifests list. A table without any part yet has its fixed schema and no rows.
    fn register_manifests(&self, name: &str, run: &Run, outputs: &[(Place, Manifest)]) -> Result<(), StoreError> {
        let mut files = Vec::new();
        for (place, manifest) in outputs {
            run.check_bytes(place, manifest)?;
            files.extend(manifest.parts.iter().map(|part| (place.iteration, run.path(place).join(&part.file))));
        }
        let kind = outputs.iter().find_map(|(_, manifest)| manifest.table);
        match kind {
            _ if !files.is_empty() => self.register_files(name, &files),
            Some(kind) => self.register_batches(name, vec![RecordBatch::new_empty(kind.schema())]),
            None => Ok(()),
        }
    }

    fn register(&self, name: &str, table: Arc<dyn TableProvider>) -> Result<(), StoreError> {
        self.context.register_table(TableReference::bare(name), table).map(drop).map_err(sql)
    }
}

/// The rows of a query, batch by batch.
pub struct Rows<'a> {
    runtime: &'a tokio::runtime::Runtime,
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
        let next = self.runtime.block_on(poll_fn(|context| stream.as_mut().poll_next(context)));
        next.map(|batch| batch.map_err(sql))
    }
}

/// A table that is read once, as its rows come.
#[derive(Debug)]
struct Once {
    schema: SchemaRef,
    rows: Mutex<Option<Receiver<RecordBatch>>>,
}

impl PartitionStream for Once {
    fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    fn execute(&self, _: Arc<TaskContext>) -> SendableRecordBatchStream {
        let mut stream = RecordBatchReceiverStream::builder(self.schema.clone(), BATCHES_AHEAD);
        let rows = self.rows.lock().unwrap_or_else(PoisonError::into_inner).take();
        let sender = stream.tx();
        stream.spawn_blocking(move || {
            let rows = rows.ok_or_else(|| DataFusionError::Plan("expected to be read once, found a second reader".to_string()))?;
            // An error is a query that needs no more rows.
            rows.iter().try_for_each(|batch| sender.blocking_send(Ok(batch))).ok();
            Ok(())
        });
        stream.build()
    }
}

/// The plan with one stream of rows, as it almost always is: only the parts of a `UNION ALL` are streams of their own.
fn coalesced(plan: Arc<dyn ExecutionPlan>) -> Arc<dyn ExecutionPlan> {
    match plan.output_partitioning().partition_count() {
        1 => plan,
        _ => Arc::new(CoalescePartitionsExec::new(plan)),
    }
}

fn only_queries() -> SQLOptions {
    SQLOptions::new().with_allow_ddl(false).with_allow_dml(false).with_allow_statements(false)
}

/// The engine's message without the chain of contexts and without its own name for the kind of error.
fn sql(error: DataFusionError) -> StoreError {
    let message = match error.find_root() {
        DataFusionError::SQL(error, _) => error.to_string(),
        other => other.message().into_owned(),
    };
    let message = message.split(DataFusionError::BACK_TRACE_SEP).next().unwrap_or_default();
    StoreError::Sql { message: message.trim().to_string() }
}
