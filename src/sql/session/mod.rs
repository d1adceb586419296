//! SQL over tables: those of a run, batches in memory, files. Queries only; nothing here can change what is on disk, and no query reads a
//! file that was not registered.

use std::collections::HashSet;
use std::future::poll_fn;
use std::path::{Path, PathBuf};
use std::sync::mpsc::Receiver;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use arrow::array::{AsArray, RecordBatch};
use arrow::datatypes::{DataType, Field, Int64Type, Schema, SchemaRef};
use datafusion::catalog::TableProvider;
use datafusion::catalog::streaming::StreamingTable;
use datafusion::common::{ScalarValue, TableReference};
use datafusion::datasource::{MemTable, TableType};
use datafusion::error::DataFusionError;
use datafusion::execution::context::SQLOptions;
use datafusion::execution::disk_manager::{DiskManagerBuilder, DiskManagerMode};
use datafusion::execution::memory_pool::{FairSpillPool, GreedyMemoryPool};
use datafusion::execution::runtime_env::RuntimeEnvBuilder;
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::physical_plan::coalesce_partitions::CoalescePartitionsExec;
use datafusion::physical_plan::stream::RecordBatchReceiverStream;
use datafusion::physical_plan::streaming::PartitionStream;
use datafusion::physical_plan::{ExecutionPlan, ExecutionPlanProperties};
use datafusion::prelude::{DataFrame, SessionConfig, SessionContext};

use super::scan::{Files, ITERATION};
use super::{nesting, views};
use crate::store::{Manifest, OutputKey, OutputKind, Run, StoreError, journal, parquet};
use crate::tables::batch_bytes;
use crate::did_you_mean::nearest;

/// How often a reader looks again at a run that is at work, and after how long.
const LOOKS: u32 = 20;
const BETWEEN_LOOKS: Duration = Duration::from_millis(50);

/// Batches of a query's result that wait to be asked for.
const BATCHES_AHEAD: usize = 2;

/// Queries of several clients that are computed at once: a long join keeps its thread, and the others go on beside it.
const AT_ONCE: usize = 4;

/// Stack for planning and computing: an expression may be nested thousands deep, and each level takes a few calls. Only what is used of it
/// is memory.
pub(super) const STACK_BYTES: usize = 1 << 28;

/// What a statement begins with that is no query.
const NO_QUERIES: [&str; 9] = ["ALTER", "COPY", "CREATE", "DELETE", "DROP", "INSERT", "PREPARE", "SET", "UPDATE"];

/// What the engine says of a statement that is no query, before its kind.
const NOT_SUPPORTED: &str = "Statement not supported: ";

/// The share of a query's memory that its result may take, which is printed or written as text when all of it is there.
const RESULT_SHARE: usize = 8;

/// The memory of a machine that does not say what it has.
const UNKNOWN_MEMORY: usize = 8 << 30;

/// A DataFusion session with a runtime of its own. Every call blocks; it must not be used from asynchronous code.
///
/// One partition, so that a query returns the same rows in the same order, and the same last digits of sums, every time.
pub struct Session {
    context: SessionContext,
    runtime: tokio::runtime::Runtime,
    /// The most memory of a query.
    limit: Option<usize>,
    /// The run that it is over, if it is over one.
    run: Option<Run>,
}

/// A table or view of a session.
#[derive(Clone, Debug)]
pub struct Listed {
    /// Its name.
    pub name: String,
    /// Whether it is a query that runs when it is read.
    pub view: bool,
    /// Its columns.
    pub schema: SchemaRef,
}

impl Session {
    /// A session without tables and without a limit of memory.
    ///
    /// # Errors
    /// The system gives no threads.
    pub fn new() -> Result<Self, StoreError> {
        Self::build(RuntimeEnvBuilder::new(), &mut tokio::runtime::Builder::new_current_thread(), None)
    }

    /// A session for queries that a user writes: one whose sorts, groups and joins take more than half of the memory that is free,
    /// or whose result takes more than an eighth of that, is an error. It does not go on on disk, where groups and sums would come out in another order: so its result is the same
    /// on every machine that gives one.
    ///
    /// # Errors
    /// The system gives no threads.
    pub fn bounded() -> Result<Self, StoreError> {
        Self::bounded_by(crate::memory::available().and_then(|bytes| usize::try_from(bytes).ok()).unwrap_or(UNKNOWN_MEMORY) / 2)
    }

    /// As [`Self::bounded`], by so many bytes.
    ///
    /// # Errors
    /// The system gives no threads.
    pub fn bounded_by(bytes: usize) -> Result<Self, StoreError> {
        let no_disk = DiskManagerBuilder::default().with_mode(DiskManagerMode::Disabled);
        let environment =
            RuntimeEnvBuilder::new().with_memory_pool(Arc::new(GreedyMemoryPool::new(bytes))).with_disk_manager_builder(no_disk);
        Self::build(environment, tokio::runtime::Builder::new_multi_thread().worker_threads(AT_ONCE), Some(bytes))
    }

    /// A session that sorts and groups on disk, in `folder`, when it would need more than `bytes` of memory, and whose queries work on
    /// threads of their own while their rows are waited for.
    ///
    /// # Errors
    /// The system gives no threads.
    pub fn with_memory_limit(bytes: usize, folder: &Path) -> Result<Self, StoreError> {
        let environment = RuntimeEnvBuilder::new().with_memory_pool(Arc::new(FairSpillPool::new(bytes))).with_temp_file_path(folder);
        Self::build(environment, &mut tokio::runtime::Builder::new_multi_thread(), None)
    }

    /// A session for a user's queries with every table of the run as far as it is committed, under its node's name, `journal`, `outputs` (what the
    /// manifests say) and the views of `views/*.sql` whose tables are there; a node's table wins over one of these names. A table of several
    /// iterations is one table with the column `iteration` (Int32).
    ///
    /// # Errors
    /// A manifest or the journal cannot be read, or a part is not what its manifest says.
    pub fn over_run(run: &Run) -> Result<Self, StoreError> {
        let mut session = Self::bounded()?;
        session.run = Some(run.clone());
        session.look(|| session.register_run(run))?;
        Ok(session)
    }

    /// Looks again where a run at work took away what was looked at: for a while, and once more when the run is over.
    fn look<T>(&self, look: impl Fn() -> Result<T, StoreError>) -> Result<T, StoreError> {
        for _ in 0..LOOKS {
            match (look(), &self.run) {
                (Err(_), Some(run)) if run.is_locked()? => std::thread::sleep(BETWEEN_LOOKS),
                (Err(_), Some(_)) => break,
                (result, _) => return result,
            }
        }
        look()
    }

    fn build(environment: RuntimeEnvBuilder, runtime: &mut tokio::runtime::Builder, limit: Option<usize>) -> Result<Self, StoreError> {
        let runtime = runtime
            .thread_stack_size(STACK_BYTES)
            .build()
            .map_err(|error| StoreError::Sql { message: format!("cannot start the SQL engine: {error}") })?;
        let config = SessionConfig::new()
            .with_target_partitions(1)
            .with_information_schema(true)
            .set_bool("datafusion.sql_parser.map_string_types_to_utf8view", false)
            // For errors, which say where in the query they are.
            .set_bool("datafusion.sql_parser.collect_spans", true);
        let context = SessionContext::new_with_config_rt(config, environment.build_arc().map_err(sql)?);
        Ok(Self { context, runtime, limit, run: None })
    }

    /// The query `text`, planned.
    async fn frame(&self, text: &str) -> Result<DataFrame, DataFusionError> {
        nesting::check(text).map_err(DataFusionError::Plan)?;
        let frame = self.context.sql_with_options(text, only_queries()).await;
        frame.map_err(|error| match text.split_whitespace().next().map(str::to_ascii_uppercase) {
            // Whatever else is wrong with it.
            Some(word) if NO_QUERIES.contains(&word.as_str()) => DataFusionError::Plan(format!("{NOT_SUPPORTED}{word}")),
            _ => error,
        })
    }

    /// Waits for `work` on a thread with a stack for the deepest query; a panic there is an error.
    fn wait<T: Send>(&self, work: impl AsyncFnOnce() -> Result<T, DataFusionError> + Send) -> Result<T, StoreError> {
        let broken = |problem: String| StoreError::Sql { message: format!("the SQL engine cannot run this query: {problem}") };
        let outcome = std::thread::scope(|scope| {
            let thread = std::thread::Builder::new().stack_size(STACK_BYTES);
            let thread = thread.spawn_scoped(scope, || self.runtime.block_on(work())).map_err(|error| broken(error.to_string()))?;
            thread.join().map_err(|_| broken("it broke down".to_string()))
        })?;
        outcome.map_err(|error| self.explained(error))
    }

    /// The engine's error; of a query that takes too much memory, in words of our own.
    fn explained(&self, error: DataFusionError) -> StoreError {
        match (error.find_root(), self.limit) {
            (DataFusionError::ResourcesExhausted(_), Some(limit)) => StoreError::Sql { message: too_large("a query", limit) },
            _ => self.nearer(&error),
        }
    }

    /// The engine's error, with the table that was meant, and where in the query it is.
    fn nearer(&self, error: &DataFusionError) -> StoreError {
        let mut message = match said(error) {
            StoreError::Sql { message } => message,
            other => return other,
        };
        let table = message.strip_prefix("table '").and_then(|rest| rest.strip_suffix("' not found"));
        let tables = self.tables();
        if let Some(near) = table.and_then(|table| nearest(table, tables.iter().map(String::as_str))) {
            message.push_str(&format!("; did you mean \"{near}\"?"));
        }
        if let Some(span) = error.diagnostic().and_then(|diagnostic| diagnostic.span) {
            message.push_str(&format!(" at Line: {}, Column: {}", span.start.line, span.start.column));
        }
        StoreError::Sql { message }
    }

    /// Adds every table and view of the run, as [`Self::over_run`] does, in the place of those that have their names.
    ///
    /// # Errors
    /// As for [`Self::over_run`].
    pub fn register_run(&self, run: &Run) -> Result<(), StoreError> {
        let manifests = run.manifests()?;
        let tables: Vec<_> = manifests.iter().filter(|(key, _)| key.kind == OutputKind::Table).cloned().collect();
        let own: HashSet<&str> = tables.iter().map(|(key, _)| key.name.as_str()).collect();
        let names = ["journal", views::OUTPUTS].into_iter().chain(views::names());
        for name in names.chain(own.iter().copied()) {
            self.context.deregister_table(TableReference::bare(name)).map_err(sql)?;
        }
        for group in tables.chunk_by(|(one, _), (other, _)| one.name == other.name) {
            if let [(key, _), ..] = group {
                self.register_manifests(&key.name, run, group)?;
            }
        }
        if !own.contains("journal") {
            let events = journal::batch(&run.journal().read()?).map_err(|error| sql(error.into()))?;
            self.register_batches("journal", vec![events])?;
        }
        if !own.contains(views::OUTPUTS) {
            let outputs = views::outputs(&manifests).map_err(|error| sql(error.into()))?;
            self.register_batches(views::OUTPUTS, vec![outputs])?;
        }
        for (name, text) in views::over(&manifests).into_iter().filter(|(name, _)| !own.contains(name)) {
            // A name that the text needs can be that of a table of the user's own with other columns: then there is no such view.
            match self.register_view(name, &text) {
                Ok(()) | Err(StoreError::Sql { .. }) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
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
    pub fn register_places(&self, name: &str, run: &Run, places: &[OutputKey]) -> Result<(), StoreError> {
        let output = |key: &OutputKey| {
            let manifest = run.manifest(key)?.ok_or_else(|| StoreError::Missing { key: key.clone(), path: run.path(key) })?;
            Ok((key.clone(), manifest))
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
        let view = self.wait(async || Ok(self.frame(text).await?.into_view()))?;
        self.register(name, view)
    }

    /// The names of the tables, sorted.
    pub fn tables(&self) -> Vec<String> {
        let schema = self.context.catalog("datafusion").and_then(|catalog| catalog.schema("public"));
        let mut names = schema.map(|schema| schema.table_names()).unwrap_or_default();
        names.sort();
        names
    }

    /// Every table and view with its columns, by name.
    ///
    /// # Errors
    /// The engine breaks down.
    pub fn listed(&self) -> Result<Vec<Listed>, StoreError> {
        self.wait(async || {
            let mut listed = Vec::new();
            for name in self.tables() {
                let table = self.context.table_provider(TableReference::bare(name.as_str())).await?;
                listed.push(Listed { name, view: table.table_type() == TableType::View, schema: table.schema() });
            }
            Ok(listed)
        })
    }

    /// The columns that a query gives and the types of its parameters `$1`, `$2`, … as far as the query tells them, without running it.
    ///
    /// # Errors
    /// As for [`Self::query`], but for what fails only while it runs.
    pub fn described(&self, text: &str) -> Result<(SchemaRef, Vec<Option<DataType>>), StoreError> {
        self.wait(async || {
            let frame = self.frame(text).await?;
            let mut types = frame.logical_plan().get_parameter_types()?;
            let parameters = (1..=types.len()).map(|number| types.remove(&format!("${number}")).flatten()).collect();
            Ok((Arc::new(frame.schema().as_arrow().clone()), parameters))
        })
    }

    /// The columns that a query gives, without running it.
    ///
    /// # Errors
    /// As for [`Self::query`], but for what fails only while it runs.
    pub fn schema_of(&self, text: &str) -> Result<SchemaRef, StoreError> {
        self.wait(async || Ok(Arc::new(self.frame(text).await?.schema().as_arrow().clone())))
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
    /// The text is no SQL, is not a query, names what is not there, or fails while it runs; in a bounded session, it takes too much memory.
    pub fn query(&self, text: &str) -> Result<Vec<RecordBatch>, StoreError> {
        match (self.query_once(text), &self.run) {
            // A run at work took a file away since it was registered, or has another in its place.
            (Err(StoreError::Unreadable { .. }), Some(run)) => self.look(|| {
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
            let (mut rows, mut batches, mut bytes) = (frame.execute_stream().await?, Vec::new(), 0_usize);
            while let Some(batch) = poll_fn(|context| rows.as_mut().poll_next(context)).await {
                let batch = batch?;
                bytes = bytes.saturating_add(batch_bytes(&batch));
                if let Some(limit) = self.limit.map(|limit| limit / RESULT_SHARE).filter(|limit| bytes > *limit) {
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

    /// The rows of a query as they come, so that they need not all be in memory.
    ///
    /// # Errors
    /// As for [`Self::query`]; of what fails only while it runs, the rows are errors.
    pub fn rows(&self, text: &str) -> Result<Rows<'_>, StoreError> {
        let stream = self.wait(async || self.streamed(self.frame(text).await?).await)?;
        Ok(Rows { session: self, stream })
    }

    /// As [`Self::rows`], for asynchronous code, with values for the query's parameters `$1`, `$2`, …; dropped before its end, the query ends.
    ///
    /// # Errors
    /// As for [`Self::rows`], and when there are too few values or one has another type.
    pub fn stream(self: &Arc<Self>, text: &str, parameters: Vec<ScalarValue>) -> Result<Streamed, StoreError> {
        let stream = self.wait(async || {
            let frame = self.frame(text).await?;
            self.streamed(if parameters.is_empty() { frame } else { frame.with_param_values(parameters)? }).await
        })?;
        Ok(Streamed { stream, session: self.clone() })
    }

    /// Runs a query on a thread of this session's.
    async fn streamed(&self, frame: DataFrame) -> Result<SendableRecordBatchStream, DataFusionError> {
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

    /// Adds rows that come as they are asked for as the table `name`, which a query can read once.
    ///
    /// # Errors
    /// The engine refuses the name.
    pub fn register_rows(&self, name: &str, schema: SchemaRef, rows: Receiver<RecordBatch>) -> Result<(), StoreError> {
        let partition: Arc<dyn PartitionStream> = Arc::new(Once { schema: schema.clone(), rows: Mutex::new(Some(rows)) });
        self.register(name, Arc::new(StreamingTable::try_new(schema, vec![partition]).map_err(sql)?))
    }

    /// Adds the committed parts that the manifests list. A table without any part yet has its fixed schema and no rows.
    fn register_manifests(&self, name: &str, run: &Run, outputs: &[(OutputKey, Manifest)]) -> Result<(), StoreError> {
        let mut files = Vec::new();
        for (key, manifest) in outputs {
            run.check_bytes(key, manifest)?;
            files.extend(manifest.parts.iter().map(|part| (key.iteration, run.path(key).join(&part.file))));
        }
        let kind = outputs.iter().find_map(|(_, manifest)| manifest.table);
        match kind {
            _ if !files.is_empty() => self.register_files(name, &files),
            Some(kind) => {
                let iteration =
                    outputs.iter().any(|(key, _)| key.iteration.is_some()).then(|| Field::new(ITERATION, DataType::Int32, true));
                let fields = kind.schema().fields().iter().cloned().chain(iteration.map(Arc::new)).collect::<Vec<_>>();
                self.register_empty(name, Arc::new(Schema::new(fields)))
            }
            None => Ok(()),
        }
    }

    fn register(&self, name: &str, table: Arc<dyn TableProvider>) -> Result<(), StoreError> {
        self.context.register_table(TableReference::bare(name), table).map(drop).map_err(sql)
    }
}

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
        next.map(|batch| batch.map_err(|error| self.session.explained(error)))
    }
}

/// The rows of a query for asynchronous code. Must not be dropped in it, as the session that it holds must not.
pub struct Streamed {
    stream: SendableRecordBatchStream,
    session: Arc<Session>,
}

impl Streamed {
    /// The columns.
    pub fn schema(&self) -> SchemaRef {
        self.stream.schema()
    }

    /// The next rows; `None` after the last ones.
    pub async fn next(&mut self) -> Option<Result<RecordBatch, StoreError>> {
        let next = poll_fn(|context| self.stream.as_mut().poll_next(context)).await;
        next.map(|batch| batch.map_err(|error| self.session.explained(error)))
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
    said(&error)
}

fn said(error: &DataFusionError) -> StoreError {
    let message = match error.find_root() {
        DataFusionError::SQL(error, _) => error.to_string(),
        other => other.message().into_owned(),
    };
    let message = message.split(DataFusionError::BACK_TRACE_SEP).next().unwrap_or_default();
    if let DataFusionError::ObjectStore(_) | DataFusionError::ParquetError(_) | DataFusionError::IoError(_) = error.find_root() {
        return StoreError::Unreadable { message: message.trim().to_string() };
    }
    // All tables are in one place, whose name nobody asked for.
    let message = message.trim().replace("'datafusion.public.", "'");
    StoreError::Sql { message: refusal(&message).unwrap_or(message) }
}

/// What to do instead of what no query can do: `None` for another error of the engine.
fn refusal(message: &str) -> Option<String> {
    const WRITE: &str = "to write rows to a file, use `optune sql RUN QUERY --format parquet --output FILE`";
    const READ: &str = "to read a file, make it an input table of the pipeline, or name it by `optune sql RUN --table NAME=FILE`";
    let not_a_query = ["DDL not supported: ", "DML not supported: ", NOT_SUPPORTED];
    if let Some(found) = not_a_query.iter().find_map(|words| message.strip_prefix(words)) {
        return Some(format!("expected a query, found {found}: queries change nothing, inside the run or outside; {WRITE}; {READ}"));
    }
    if message.contains("only supports a single SQL statement") {
        return Some("expected one query, found several statements; ask them one after the other".to_string());
    }
    let no_table = message.starts_with("table '") && (message.contains('/') || has_extension(message));
    let names_a_file = message.ends_with("not found") && (no_table || message.starts_with("table function"));
    names_a_file.then(|| format!("{message}; queries read no files by their names: {READ}"))
}

/// Whether a message is about a name that ends as files of tables do.
fn has_extension(message: &str) -> bool {
    ["parquet", "csv", "json", "jsonl", "arrow"].iter().any(|extension| message.contains(&format!(".{extension}'")))
}

fn too_large(what: &str, limit: usize) -> String {
    let advice = "filter rows or choose columns before they are joined, sorted or grouped, or add a LIMIT";
    format!("expected {what} to take at most {limit} bytes of memory, found more; {advice}")
}
