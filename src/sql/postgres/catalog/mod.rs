//! PostgreSQL's catalog, as clients ask it: `pg_catalog`, `information_schema` and their functions.
//!
//! Clients list and describe tables by queries over the catalog. Here they find the tables of the
//! run in it, and no indexes, constraints, functions or other users, because a run has none.
//!
//! | file | contents |
//! |---|---|
//! | `views.sql` | the catalog's tables with rows: views over four tables of names |
//! | `empty.sql` | the catalog's tables without rows |
//! | `relations.rs`, `types.rs` | those tables of names, and oids |
//! | `texts.rs` | the three files of SQL |
//! | `functions.rs` | the scalar functions, such as `format_type` |
//! | `rewrite.rs`, `casts.rs`, `expressions.rs` | statements in PostgreSQL's words as statements in the engine's |
//! | `asyncpg.sql` | a recursive query of asyncpg, as the engine plans it |
//! | `no_rows.rs` | queries and subqueries over tables without rows |
//!
//! A statement that names neither the catalog nor one of its functions never comes here, so it
//! keeps its meaning. `information_schema` here has PostgreSQL's names of types, in place of the
//! engine's. Source: PostgreSQL's documentation of the system catalogs. Knows no protocol.

mod casts;
mod expressions;
mod functions;
mod no_rows;
mod quoting;
mod relations;
mod rewrite;
mod texts;
mod types;

use std::borrow::Cow;
use std::collections::HashMap;
use std::pin::Pin;
use std::sync::{Arc, OnceLock};

use arrow::array::{ArrayRef, RecordBatch, StringArray};
use datafusion::catalog::{SchemaProvider, TableProvider};
use datafusion::common::TableReference;
use datafusion::datasource::{MemTable, TableType};
use datafusion::error::{DataFusionError, Result};
use datafusion::prelude::{SessionConfig, SessionContext};
use sqlparser::dialect::GenericDialect;
use sqlparser::keywords::ALL_KEYWORDS;
use sqlparser::parser::Parser;

use super::settings::SETTINGS;
use super::statement::Query;
use crate::sql::{Session, TableInfo};
use crate::store::StoreError;
use functions::Names;
use relations::Relation;
use texts::{CATALOG, EMPTY, EMPTY_TABLES, INFORMATION, VIEWS};

/// What all sessions share.
static OWN: OnceLock<Own> = OnceLock::new();

struct Own {
    /// The catalog's own tables, which describe themselves too.
    described: Vec<(&'static str, TableInfo)>,
    /// The tables without rows, by schema and name.
    empty: HashMap<&'static str, HashMap<String, Arc<dyn TableProvider>>>,
}

/// The text for the engine of a client's statement over a session with the tables of the run
/// `database`. The session receives the catalog when the first statement names it.
///
/// # Errors
/// The engine refuses the catalog.
pub(super) fn translate<'a>(session: &Session, database: &str, query: &'a Query) -> std::result::Result<Cow<'a, str>, StoreError> {
    let text = query.text.as_str();
    if !rewrite::names_catalog(text) {
        return Ok(Cow::Borrowed(text));
    }
    let catalog = session.context.catalog("datafusion");
    if catalog.as_ref().is_some_and(|catalog| catalog.schema(CATALOG).is_none()) {
        let tables = session.describe_tables()?;
        session.wait(async || attach(&session.context, database, tables).await)?;
    }
    Ok(rewrite::rewritten(text, &session.tables(), &query.declared).map_or(Cow::Borrowed(text), Cow::Owned))
}

/// Adds the catalog to a session with these tables.
async fn attach(context: &SessionContext, database: &str, tables: Vec<TableInfo>) -> Result<()> {
    let own = match OWN.get() {
        Some(own) => own,
        None => {
            let empty = executed(EMPTY, plain_context()).await?;
            let tables =
                [(CATALOG, Hidden::of(&empty, CATALOG).await?.tables), (INFORMATION, Hidden::of(&empty, INFORMATION).await?.tables)];
            let mut described = described(&empty).await?;
            described.extend(self::described(&built(database, &[]).await?).await?);
            OWN.get_or_init(|| Own { described, empty: tables.into() })
        }
    };
    let tables = tables.into_iter().map(|table| ("public", table)).chain(own.described.iter().cloned()).collect();
    let relations = relations::with_oids(tables);
    let built = built(database, &relations).await?;
    for function in functions::all(&Arc::new(Names::new(database, &relations))) {
        context.register_udf(function);
    }
    let Some(catalog) = context.catalog("datafusion") else {
        return Err(DataFusionError::Internal("the session has no catalog".to_string()));
    };
    // `pg_catalog` last: it says that all is there.
    for name in [INFORMATION, CATALOG] {
        let mut schema = Hidden::of(&built, name).await?;
        schema.tables.extend(own.empty.get(name).into_iter().flatten().map(|(name, table)| (name.clone(), table.clone())));
        catalog.register_schema(name, Arc::new(schema))?;
    }
    Ok(())
}

/// A session for the catalog's own tables.
fn plain_context() -> SessionContext {
    let config = SessionConfig::new().set_bool("datafusion.sql_parser.map_string_types_to_utf8view", false);
    SessionContext::new_with_config(config.with_default_catalog_and_schema("datafusion", CATALOG))
}

/// The session after the statements of a text.
async fn executed(text: &str, context: SessionContext) -> Result<SessionContext> {
    context.sql(&format!("CREATE SCHEMA {INFORMATION}")).await?;
    let statements = Parser::parse_sql(&GenericDialect {}, text).map_err(|error| DataFusionError::SQL(Box::new(error), None))?;
    for statement in statements {
        context.sql(&statement.to_string()).await?;
    }
    Ok(context)
}

/// A session with the catalog's views over these relations.
async fn built(database: &str, relations: &[Relation]) -> Result<SessionContext> {
    let context = plain_context();
    let texts = |texts: &[&str]| Arc::new(StringArray::from_iter_values(texts)) as ArrayRef;
    let names: Vec<&str> = SETTINGS.iter().map(|(name, _)| *name).collect();
    let values: Vec<&str> = SETTINGS.iter().map(|(_, value)| *value).collect();
    let words: Vec<String> = ALL_KEYWORDS.iter().map(|word| word.to_ascii_lowercase()).collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    for (name, batch) in [
        ("schemas", relations::schemas()?),
        ("relations", relations::relations(relations)?),
        ("columns", relations::columns(relations)?),
        ("types", types::batch()?),
        ("databases", RecordBatch::try_from_iter([("name", texts(&[database]))])?),
        ("settings", RecordBatch::try_from_iter([("name", texts(&names)), ("value", texts(&values))])?),
        ("keywords", RecordBatch::try_from_iter([("word", texts(&words))])?),
    ] {
        context.register_table(TableReference::bare(name), Arc::new(MemTable::try_new(batch.schema(), vec![vec![batch]])?))?;
    }
    executed(VIEWS, context).await
}

/// The catalog's tables, in the schemas that clients see.
async fn described(context: &SessionContext) -> Result<Vec<(&'static str, TableInfo)>> {
    let mut described = Vec::new();
    for (name, shown) in [(CATALOG, CATALOG), (INFORMATION, "information_schema")] {
        for (name, table) in Hidden::of(context, name).await?.tables {
            described.push((shown, TableInfo { name, view: true, definition: None, schema: table.schema() }));
        }
    }
    Ok(described)
}

/// A schema whose tables are not listed among the tables of the run.
#[derive(Debug)]
struct Hidden {
    tables: HashMap<String, Arc<dyn TableProvider>>,
}

impl Hidden {
    /// The views and empty tables of a schema of `context`.
    async fn of(context: &SessionContext, name: &str) -> Result<Self> {
        let schema = context.catalog("datafusion").and_then(|catalog| catalog.schema(name));
        let mut tables = HashMap::new();
        for name in schema.iter().flat_map(|schema| schema.table_names()) {
            let Some(table) = schema.as_ref().map(|schema| schema.table(&name)) else { continue };
            match table.await? {
                Some(table) if table.table_type() == TableType::View || EMPTY_TABLES.contains(name.as_str()) => {
                    tables.insert(name, table);
                }
                _ => {}
            }
        }
        Ok(Self { tables })
    }
}

impl SchemaProvider for Hidden {
    fn table_names(&self) -> Vec<String> {
        Vec::new()
    }

    // `async fn table` as expanded by the trait's attribute macro.
    fn table<'s, 'name, 'table>(
        &'s self,
        name: &'name str,
    ) -> Pin<Box<dyn Future<Output = Result<Option<Arc<dyn TableProvider>>>> + Send + 'table>>
    where
        's: 'table,
        'name: 'table,
        Self: 'table,
    {
        Box::pin(std::future::ready(Ok(self.tables.get(name).cloned())))
    }

    fn table_exist(&self, name: &str) -> bool {
        self.tables.contains_key(name)
    }
}
