//! All tables and views of a run, and their rows a page at a time: judges' verdicts, items of
//! benchmarks, and any other.
//!
//! Knows no route.

use serde::Serialize;

use super::error::ViewError;
use super::parameters::Parameters;
use super::prompts::shorten;
use super::viewed::{Object, Viewed, literal, quoted};
use crate::sql::Condition;
use crate::tables::TableKind;

/// Rows on a page.
const PAGE: usize = 50;

/// A table or view.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct TableSummary {
    /// Its name.
    pub name: String,
    /// Its kind; none for a view, or a table with the user's own columns.
    pub kind: Option<&'static str>,
    /// Whether it is a view.
    pub view: bool,
    /// Committed rows; none for a view.
    pub rows: Option<u64>,
    /// Its iterations.
    pub iterations: Vec<u32>,
    /// Its columns with their types.
    pub columns: Vec<(String, String)>,
    /// The columns that name a row within an iteration.
    pub key: &'static [&'static str],
    /// The prompts that its rows are about.
    pub prompts: Option<String>,
}

/// A page of rows.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct RowPage {
    /// The table.
    pub table: TableSummary,
    /// The place of the first row among all that pass the filters.
    pub offset: usize,
    /// The rows, long texts shortened unless one row alone is asked for.
    pub rows: Vec<Object>,
    /// Whether there are more behind them.
    pub more: bool,
}

impl Viewed {
    /// The tables and views.
    ///
    /// # Errors
    /// The run cannot be read.
    pub fn tables(&self) -> Result<Vec<TableSummary>, ViewError> {
        let state = self.state()?;
        let session = self.session()?;
        let summary = |info: crate::sql::TableInfo| {
            let kind = state.kind(&info.name);
            let is_output = state.manifests(&info.name).next().is_some();
            TableSummary {
                kind: kind.map(TableKind::name),
                view: info.view,
                rows: is_output.then(|| state.manifests(&info.name).map(|(_, manifest)| manifest.rows()).sum()),
                iterations: state.iterations(&info.name),
                columns: info.schema.fields().iter().map(|field| (field.name().clone(), field.data_type().to_string())).collect(),
                key: kind.map(TableKind::key).unwrap_or_default(),
                prompts: state.prompts_of(&info.name).map(str::to_string),
                name: info.name,
            }
        };
        // Names with a blank are of tables that other pages keep in memory.
        Ok(session.describe_tables()?.into_iter().filter(|info| !info.name.contains(' ')).map(summary).collect())
    }

    /// A page of the rows of a table.
    ///
    /// # Errors
    /// There is no such table, a filter is wrong, or the query fails.
    pub fn table_rows(&self, parameters: &Parameters) -> Result<RowPage, ViewError> {
        let (table, filter) = self.filtered(parameters)?;
        let offset = parameters.number("offset")?.unwrap_or(0);
        let one = parameters.flag("one")? == Some(true);
        let page = if one { 1 } else { PAGE };
        let order = match parameters.text("sort") {
            // The order of the files.
            None => String::new(),
            Some(column) => {
                let direction = if parameters.flag("descending")? == Some(true) { "DESC" } else { "ASC" };
                format!(" ORDER BY {} {direction} NULLS LAST{}", quoted(&known(&table, column)?), ties(&table))
            }
        };
        let query = format!("SELECT * FROM {}{filter}{order} LIMIT {} OFFSET {offset}", quoted(&table.name), page + 1);
        let mut rows = self.objects(&self.session()?, &query)?;
        let more = rows.len() > page;
        rows.truncate(page);
        if !one {
            rows.iter_mut().flat_map(|row| row.values_mut()).for_each(shorten);
        }
        Ok(RowPage { table, offset, rows, more })
    }

    /// The number of rows that pass the filters of a request.
    ///
    /// # Errors
    /// As for [`Self::table_rows`].
    pub fn row_count(&self, parameters: &Parameters) -> Result<u64, ViewError> {
        let (table, filter) = self.filtered(parameters)?;
        self.count(&self.session()?, &format!("SELECT count(*) AS n FROM {}{filter}", quoted(&table.name)))
    }

    /// The table of a request, and its filters.
    fn filtered(&self, parameters: &Parameters) -> Result<(TableSummary, String), ViewError> {
        let name = parameters.required("table")?;
        let tables = self.tables()?;
        let names = || tables.iter().map(|table| table.name.as_str()).collect::<Vec<_>>().join(", ");
        let table = tables.iter().find(|table| table.name == name);
        let table = table.ok_or_else(|| ViewError::NotFound(format!("expected a table, one of: {}; found {name:?}", names())))?.clone();
        let mut conditions = Vec::new();
        if let Some(iteration) = parameters.number::<u32>("iteration")?.filter(|_| !table.iterations.is_empty()) {
            conditions.push(format!("iteration = {iteration}"));
        }
        if let Some(text) = parameters.text("text") {
            let is_text = |(_, data_type): &&(String, String)| ["Utf8", "LargeUtf8", "Utf8View"].contains(&data_type.as_str());
            let sought = literal(&text.to_lowercase());
            let any = table.columns.iter().filter(is_text).map(|(column, _)| format!("contains(lower({}), {sought})", quoted(column)));
            let any: Vec<String> = any.collect();
            conditions.push(if any.is_empty() { "FALSE".to_string() } else { format!("({})", any.join(" OR ")) });
        }
        if let (Some(column), Some(value)) = (parameters.text("column"), parameters.text("value")) {
            conditions.push(format!("CAST({} AS VARCHAR) = {}", quoted(&known(&table, column)?), literal(value)));
        }
        if let Some(text) = parameters.text("where") {
            conditions.push(format!("({})", Condition::parse(text)?.text));
        }
        let filter = if conditions.is_empty() { String::new() } else { format!(" WHERE {}", conditions.join(" AND ")) };
        Ok((table, filter))
    }
}

/// The further columns of an order. Rows with the same value go by what tells them apart: by the
/// iteration and the key, or else by all columns of plain values. So no row is on two pages.
fn ties(table: &TableSummary) -> String {
    let is_plain = |data_type: &str| {
        ["Utf8", "LargeUtf8", "Utf8View", "Boolean"].contains(&data_type)
            || ["Int", "UInt", "Float"].iter().any(|start| data_type.starts_with(start))
    };
    let is_tie = |(column, data_type): &&(String, String)| match table.key {
        [] => is_plain(data_type),
        key => column == "iteration" || key.contains(&column.as_str()),
    };
    table.columns.iter().filter(is_tie).map(|(column, _)| format!(", {}", quoted(column))).collect()
}

/// A column that there is.
fn known(table: &TableSummary, column: &str) -> Result<String, ViewError> {
    if table.columns.iter().any(|(name, _)| name == column) {
        return Ok(column.to_string());
    }
    let all = table.columns.iter().map(|(name, _)| name.as_str()).collect::<Vec<_>>().join(", ");
    Err(ViewError::Input(format!("expected a column of {}, one of: {all}; found {column:?}", table.name)))
}
