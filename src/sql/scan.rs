//! A SQL table over a given list of Parquet files, with the iteration as a column.
//!
//! It scans the files in the order of the list, so results have the same order every time. Filters
//! skip files, row groups and pages.

use std::future;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;

use arrow::datatypes::{DataType, Field, SchemaRef};
use datafusion::catalog::{Session, TableProvider};
use datafusion::common::ScalarValue;
use datafusion::datasource::TableType;
use datafusion::datasource::listing::PartitionedFile;
use datafusion::datasource::physical_plan::{FileGroup, FileScanConfigBuilder, ParquetSource};
use datafusion::datasource::source::DataSourceExec;
use datafusion::datasource::table_schema::TableSchema;
use datafusion::error::{DataFusionError, Result};
use datafusion::execution::object_store::ObjectStoreUrl;
use datafusion::logical_expr::{Expr, TableProviderFilterPushDown};
use datafusion::object_store::path::Path as ObjectPath;
use datafusion::physical_plan::ExecutionPlan;

/// The column with the iteration of a row's file.
pub(super) const ITERATION: &str = "iteration";

/// Parquet files as one table.
#[derive(Debug)]
pub(super) struct Files {
    schema: TableSchema,
    files: Vec<PartitionedFile>,
}

impl Files {
    /// A table over files of this schema. If any file has an iteration, the table also has the
    /// column `iteration` (Int32).
    pub(super) fn new(schema: SchemaRef, files: &[(Option<u32>, PathBuf)]) -> Result<Self> {
        let iterated = files.iter().any(|(iteration, _)| iteration.is_some());
        let iteration_field = iterated.then(|| Arc::new(Field::new(ITERATION, DataType::Int32, true)));
        let files = files.iter().map(|(iteration, path)| {
            let file = PartitionedFile::new("", path.metadata()?.len());
            let iteration = iteration.map(i32::try_from).transpose().map_err(|error| DataFusionError::External(error.into()))?;
            let mut file = file.with_partition_values(if iterated { vec![ScalarValue::Int32(iteration)] } else { Vec::new() });
            // Without `..` and links, of which an object store knows nothing.
            let path = path.canonicalize()?;
            file.object_meta.location = ObjectPath::from_absolute_path(path).map_err(datafusion::object_store::Error::from)?;
            Ok(file)
        });
        let schema = TableSchema::builder(schema).with_table_partition_cols(iteration_field.into_iter().collect::<Vec<_>>()).build();
        Ok(Self { schema, files: files.collect::<Result<_>>()? })
    }

    fn plan(&self, state: &dyn Session, projection: Option<&Vec<usize>>, limit: Option<usize>) -> Result<Arc<dyn ExecutionPlan>> {
        let options = state.default_table_options().parquet;
        let source = ParquetSource::new(self.schema.clone()).with_table_parquet_options(options);
        let config = FileScanConfigBuilder::new(ObjectStoreUrl::local_filesystem(), Arc::new(source))
            .with_file_group(FileGroup::new(self.files.clone()))
            .with_projection_indices(projection.cloned())?
            .with_limit(limit)
            .with_preserve_order(true)
            .build();
        Ok(DataSourceExec::from_data_source(config))
    }
}

impl TableProvider for Files {
    fn schema(&self) -> SchemaRef {
        self.schema.table_schema().clone()
    }

    fn table_type(&self) -> TableType {
        TableType::Base
    }

    /// Inexact: the scan skips only whole pages. The plan above it filters the remaining rows.
    fn supports_filters_pushdown(&self, filters: &[&Expr]) -> Result<Vec<TableProviderFilterPushDown>> {
        Ok(vec![TableProviderFilterPushDown::Inexact; filters.len()])
    }

    // `async fn scan` as expanded by the trait's attribute macro.
    fn scan<'s, 'state, 'projection, 'filters, 'scan>(
        &'s self,
        state: &'state dyn Session,
        projection: Option<&'projection Vec<usize>>,
        _filters: &'filters [Expr],
        limit: Option<usize>,
    ) -> Pin<Box<dyn Future<Output = Result<Arc<dyn ExecutionPlan>>> + Send + 'scan>>
    where
        's: 'scan,
        'state: 'scan,
        'projection: 'scan,
        'filters: 'scan,
        Self: 'scan,
    {
        Box::pin(future::ready(self.plan(state, projection, limit)))
    }
}
