//! A session: the DataFusion context, its runtime and its memory limit. Knows nothing of the tables
//! in it.

use std::collections::HashSet;
use std::path::Path;
use std::sync::Arc;

use datafusion::error::DataFusionError;
use datafusion::execution::context::SQLOptions;
use datafusion::execution::disk_manager::{DiskManagerBuilder, DiskManagerMode};
use datafusion::execution::memory_pool::{FairSpillPool, GreedyMemoryPool};
use datafusion::execution::runtime_env::RuntimeEnvBuilder;
use datafusion::execution::session_state::SessionStateBuilder;
use datafusion::functions::{crypto, datetime, encoding};
use datafusion::logical_expr::ScalarUDF;
use datafusion::prelude::{DataFrame, SessionConfig, SessionContext};

use super::errors::{NOT_SUPPORTED, explain, sql};
use super::extract;
use crate::sql::nesting::{self, STACK_BYTES};
use crate::sql::precedence;
use crate::store::{Run, StoreError};

/// Threads for the queries of several clients: a long join occupies one, the others stay free.
const QUERY_THREADS: usize = 4;

/// The first words of statements other than queries.
const NO_QUERIES: [&str; 9] = ["ALTER", "COPY", "CREATE", "DELETE", "DROP", "INSERT", "PREPARE", "SET", "UPDATE"];

/// The assumed memory in bytes of a machine without a report of it.
const UNKNOWN_MEMORY: usize = 8 << 30;

/// A DataFusion session with its own runtime. Every call blocks; it must not be used from
/// asynchronous code.
///
/// It has one partition. So a query returns the same rows in the same order, with the same last
/// digits of sums, every time.
pub struct Session {
    pub(in crate::sql) context: SessionContext,
    pub(super) runtime: tokio::runtime::Runtime,
    /// The memory limit of a query in bytes.
    pub(super) limit: Option<usize>,
    /// The run with the session's tables, for a session over a run.
    pub(super) run: Option<Run>,
}

impl Session {
    /// A session without tables and without a memory limit.
    ///
    /// # Errors
    /// The system gives no threads.
    pub fn new() -> Result<Self, StoreError> {
        Self::build(RuntimeEnvBuilder::new(), &mut tokio::runtime::Builder::new_current_thread(), None)
    }

    /// A session for a user's queries, with half of the free memory as the limit for sorts, groups
    /// and joins, and an eighth of that limit for the result. A query above a limit fails. It does
    /// not spill to disk: groups and sums would come out in another order. So a result is the same
    /// on every machine.
    ///
    /// # Errors
    /// The system gives no threads.
    pub fn bounded() -> Result<Self, StoreError> {
        Self::bounded_by(crate::memory::available().and_then(|bytes| usize::try_from(bytes).ok()).unwrap_or(UNKNOWN_MEMORY) / 2)
    }

    /// As [`Self::bounded`], with this limit in bytes.
    ///
    /// # Errors
    /// The system gives no threads.
    pub fn bounded_by(bytes: usize) -> Result<Self, StoreError> {
        let no_disk = DiskManagerBuilder::default().with_mode(DiskManagerMode::Disabled);
        let environment =
            RuntimeEnvBuilder::new().with_memory_pool(Arc::new(GreedyMemoryPool::new(bytes))).with_disk_manager_builder(no_disk);
        Self::build(environment, tokio::runtime::Builder::new_multi_thread().worker_threads(QUERY_THREADS), Some(bytes))
    }

    /// A session for operators. Above `bytes` of memory it sorts and groups on disk, in `folder`.
    /// Queries run on their own threads while the caller waits for rows.
    ///
    /// # Errors
    /// The system gives no threads.
    pub fn with_memory_limit(bytes: usize, folder: &Path) -> Result<Self, StoreError> {
        let environment = RuntimeEnvBuilder::new().with_memory_pool(Arc::new(FairSpillPool::new(bytes))).with_temp_file_path(folder);
        Self::build(environment, &mut tokio::runtime::Builder::new_multi_thread(), None)
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
            // For the position in the query in error messages.
            .set_bool("datafusion.sql_parser.collect_spans", true);
        let mut state = SessionStateBuilder::new().with_config(config).with_runtime_env(environment.build_arc().map_err(sql)?);
        state = state.with_default_features();
        leave_out(state.scalar_functions().get_or_insert_default());
        extract::register(&mut state);
        let context = SessionContext::new_with_state(state.build());
        Ok(Self { context, runtime, limit, run: None })
    }

    /// The names of the tables and views, sorted.
    pub fn tables(&self) -> Vec<String> {
        let schema = self.context.catalog("datafusion").and_then(|catalog| catalog.schema("public"));
        let mut names = schema.map(|schema| schema.table_names()).unwrap_or_default();
        names.sort();
        names
    }

    /// Plans the query `text`.
    pub(super) async fn frame(&self, text: &str) -> Result<DataFrame, DataFusionError> {
        nesting::check(text).and_then(|()| precedence::check(text)).map_err(DataFusionError::Plan)?;
        let frame = self.context.sql_with_options(text, only_queries()).await;
        frame.map_err(|error| match text.split_whitespace().next().map(str::to_ascii_uppercase) {
            // The wrong kind of statement comes before its other errors.
            Some(word) if NO_QUERIES.contains(&word.as_str()) => DataFusionError::Plan(format!("{NOT_SUPPORTED}{word}")),
            _ => error,
        })
    }

    /// Waits for `work` on a thread with a stack for the deepest query. A panic there is an error.
    pub(in crate::sql) fn wait<T: Send>(&self, work: impl AsyncFnOnce() -> Result<T, DataFusionError> + Send) -> Result<T, StoreError> {
        let broken = |problem: String| StoreError::Sql { message: format!("the SQL engine cannot run this query: {problem}") };
        let outcome = std::thread::scope(|scope| {
            let thread = std::thread::Builder::new().stack_size(STACK_BYTES);
            let thread = thread.spawn_scoped(scope, || self.runtime.block_on(work())).map_err(|error| broken(error.to_string()))?;
            thread.join().map_err(|_| broken("it broke down".to_string()))
        })?;
        outcome.map_err(|error| self.explained(&error))
    }

    /// The engine's error in our words.
    pub(super) fn explained(&self, error: &DataFusionError) -> StoreError {
        explain(error, self.limit, &self.tables())
    }
}

/// Leaves out the functions that a build without other features does not have: the crates of a
/// cluster switch them on for all. A query means the same in every build.
fn leave_out(functions: &mut Vec<Arc<ScalarUDF>>) {
    let others = [crypto::functions(), datetime::functions(), encoding::functions()];
    let others: HashSet<&str> = others.iter().flatten().map(|function| function.name()).collect();
    functions.retain(|function| !others.contains(function.name()));
}

fn only_queries() -> SQLOptions {
    SQLOptions::new().with_allow_ddl(false).with_allow_dml(false).with_allow_statements(false)
}

#[cfg(test)]
mod tests {
    use super::Session;

    #[test]
    fn a_query_means_the_same_in_a_build_with_other_features() {
        let session = Session::new().unwrap();
        for query in ["SELECT sha256('a')", "SELECT now()", "SELECT encode('a', 'hex')", "SELECT datepart('year', DATE '2026-01-01')"] {
            assert!(session.query(query).is_err(), "{query}");
        }
        assert_eq!(session.count("SELECT CAST(2 * EXTRACT(second FROM TIMESTAMP '2026-02-28 01:02:03.5') AS BIGINT)").unwrap(), 7);
    }
}
