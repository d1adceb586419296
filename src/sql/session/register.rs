//! Adds tables to a session: batches, files, outputs of a run, views.

use std::collections::HashSet;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use arrow::array::RecordBatch;
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use datafusion::catalog::TableProvider;
use datafusion::common::TableReference;
use datafusion::datasource::{MemTable, ViewTable};

use super::Session;
use super::errors::sql;
use crate::sql::scan::{Files, ITERATION};
use crate::sql::views;
use crate::store::{Manifest, OutputKey, OutputKind, Run, StoreError, journal, parquet};

/// The name of the table of annotations.
const ANNOTATIONS: &str = "annotations";

/// How often and in which intervals a reader retries over an active run.
const RETRIES: u32 = 20;
const RETRY_INTERVAL: Duration = Duration::from_millis(50);

impl Session {
    /// A session for a user's queries over a run. It has the committed rows of every table under
    /// its node's name, `journal`, `outputs` (the manifests), `annotations`, and the views of
    /// `views/*.sql` with existing tables. The name of a node's table has priority. A table of
    /// several iterations is one table with the column `iteration` (Int32).
    ///
    /// # Errors
    /// A manifest or the journal cannot be read, or a part is damaged.
    pub fn over_run(run: &Run) -> Result<Self, StoreError> {
        let mut session = Self::bounded()?;
        session.run = Some(run.clone());
        // `timestamptz` is UTC, not a timestamp without a zone.
        session.context.state_ref().write().config_mut().options_mut().execution.time_zone = Some("+00:00".to_string());
        session.retry(|| session.register_run(run))?;
        Ok(session)
    }

    /// Repeats a failed read over an active run: its files may just have been replaced. It retries
    /// for a while, and once more after the end of the run.
    pub(super) fn retry<T>(&self, read: impl Fn() -> Result<T, StoreError>) -> Result<T, StoreError> {
        for _ in 0..RETRIES {
            match (read(), &self.run) {
                (Err(_), Some(run)) if run.is_locked() == Some(true) => std::thread::sleep(RETRY_INTERVAL),
                (Err(_), Some(_)) => break,
                (result, _) => return result,
            }
        }
        read()
    }

    /// Adds every table and view of the run, as [`Self::over_run`] does. They replace tables of the
    /// same names.
    ///
    /// # Errors
    /// As for [`Self::over_run`].
    pub fn register_run(&self, run: &Run) -> Result<(), StoreError> {
        let manifests = run.manifests()?;
        let tables: Vec<_> = manifests.iter().filter(|(key, _)| key.kind == OutputKind::Table).cloned().collect();
        let own: HashSet<&str> = tables.iter().map(|(key, _)| key.name.as_str()).collect();
        let names = ["journal", views::OUTPUTS, ANNOTATIONS].into_iter().chain(views::names());
        for name in names.chain(own.iter().copied()) {
            self.context.deregister_table(TableReference::bare(name)).map_err(sql)?;
        }
        for group in tables.chunk_by(|(one, _), (other, _)| one.name == other.name) {
            if let [(key, _), ..] = group {
                self.register_manifests(&key.name, run, group)?;
            }
        }
        if !own.contains("journal") {
            self.register_batches("journal", vec![journal::batch(&run.journal().read()?)?])?;
        }
        if !own.contains(views::OUTPUTS) {
            self.register_batches(views::OUTPUTS, vec![views::outputs(&manifests)?])?;
        }
        if !own.contains(ANNOTATIONS) {
            self.register_batches(ANNOTATIONS, vec![run.annotations().batch()?])?;
        }
        for (name, text) in views::queries(&manifests).into_iter().filter(|(name, _)| !own.contains(name)) {
            // A user's table can have the name of a table in the view's text, but other columns.
            // Then the view is left out.
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

    /// Adds Parquet files of one schema, read in this order, as the table `name`. It has the column
    /// `iteration` if any file has an iteration.
    ///
    /// # Errors
    /// There is no file, or one cannot be read.
    pub fn register_files(&self, name: &str, files: &[(Option<u32>, PathBuf)]) -> Result<(), StoreError> {
        let Some((_, first)) = files.first() else {
            return Err(StoreError::Sql { message: format!("table {name}: expected at least one file, found none") });
        };
        self.register(name, Arc::new(Files::new(parquet::schema(first)?, files).map_err(sql)?))
    }

    /// Adds the committed parts of several outputs of one schema, one after the other, as the table
    /// `name`. It has the column `iteration` if the keys have an iteration.
    ///
    /// # Errors
    /// There is no key, an output is missing, or a part is damaged.
    pub fn register_outputs(&self, name: &str, run: &Run, keys: &[OutputKey]) -> Result<(), StoreError> {
        let output = |key: &OutputKey| {
            let manifest = run.manifest(key)?.ok_or_else(|| StoreError::Missing { key: key.clone(), path: run.path(key) })?;
            Ok((key.clone(), manifest))
        };
        self.register_manifests(name, run, &keys.iter().map(output).collect::<Result<Vec<_>, StoreError>>()?)
    }

    /// Adds a table without rows as `name`, to check queries against its columns.
    ///
    /// # Errors
    /// The engine refuses the name.
    pub fn register_empty(&self, name: &str, schema: SchemaRef) -> Result<(), StoreError> {
        self.register_batches(name, vec![RecordBatch::new_empty(schema)])
    }

    /// Adds the query `text` as the view `name`; each read of the view runs it.
    ///
    /// # Errors
    /// The errors of [`Self::query`] before the query runs.
    pub fn register_view(&self, name: &str, text: &str) -> Result<(), StoreError> {
        let plan = self.wait(async || Ok(self.frame(text).await?.into_unoptimized_plan()))?;
        self.register(name, Arc::new(ViewTable::new(plan, Some(text.to_string()))))
    }

    /// Adds the committed parts of these manifests. A table without parts has its fixed schema and
    /// no rows.
    fn register_manifests(&self, name: &str, run: &Run, outputs: &[(OutputKey, Manifest)]) -> Result<(), StoreError> {
        let mut files = Vec::new();
        for (key, manifest) in outputs {
            run.check_bytes(key, manifest)?;
            files.extend(manifest.parts.iter().map(|part| (key.iteration, run.path(key).join(&part.file))));
        }
        if !files.is_empty() {
            return self.register_files(name, &files);
        }
        // A table with the user's own columns and no parts has no known schema.
        let Some(kind) = outputs.iter().find_map(|(_, manifest)| manifest.table) else { return Ok(()) };
        let mut fields: Vec<_> = kind.schema().fields().iter().cloned().collect();
        if outputs.iter().any(|(key, _)| key.iteration.is_some()) {
            fields.push(Arc::new(Field::new(ITERATION, DataType::Int32, true)));
        }
        self.register_empty(name, Arc::new(Schema::new(fields)))
    }

    pub(super) fn register(&self, name: &str, table: Arc<dyn TableProvider>) -> Result<(), StoreError> {
        self.context.register_table(TableReference::bare(name), table).map(drop).map_err(sql)
    }
}
