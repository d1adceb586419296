//! Answers statements of the simple protocol and of the extended one with prepared statements.
//!
//! The engine's calls block and have their own runtime. They run on threads for blocking work, and
//! rows come over a channel.

use std::fmt::Debug;
use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::Schema;
use async_trait::async_trait;
use futures::{Sink, StreamExt, stream};
use pgwire::api::portal::{Format, Portal};
use pgwire::api::query::{ExtendedQueryHandler, SimpleQueryHandler};
use pgwire::api::results::{FieldInfo, QueryResponse, Response, Tag};
use pgwire::api::stmt::QueryParser;
use pgwire::api::store::PortalStore;
use pgwire::api::{ClientInfo, ClientPortalStore, Type};
use pgwire::error::{PgWireError, PgWireResult};
use pgwire::messages::PgWireBackendMessage;

use super::errors::{INTERNAL, SYNTAX_OR_ACCESS, client_error};
use super::parameters::{self, Value};
use super::rows::{self, Encoder};
use super::statement::{Query, Statement};
use crate::sql::{LiveSession, RowStream, Session};
use crate::store::StoreError;

/// Answers the statements of all clients.
pub(super) struct Answerer {
    live: Arc<LiveSession>,
    parser: Arc<Parser>,
}

/// Describes statements: the types of their parameters and the columns of their rows.
pub(super) struct Parser {
    live: Arc<LiveSession>,
}

impl Answerer {
    pub fn new(live: LiveSession) -> Self {
        let live = Arc::new(live);
        Self { parser: Arc::new(Parser { live: live.clone() }), live }
    }

    async fn answer(&self, statement: &Statement, values: Vec<Value>, format: &Format) -> PgWireResult<Response> {
        match statement {
            Statement::Begin => Ok(Response::TransactionStart(Tag::new("BEGIN"))),
            Statement::End(word) => Ok(Response::TransactionEnd(Tag::new(word))),
            Statement::Setting(word) => Ok(Response::Execution(Tag::new(word))),
            Statement::Query(query) => self.rows(query, values, format).await.map(Response::Query),
        }
    }

    /// The rows of a query. It waits for the first ones here, because a client can still cancel the
    /// query here.
    async fn rows(&self, query: &Query, values: Vec<Value>, format: &Format) -> PgWireResult<QueryResponse> {
        let live = self.live.clone();
        let owned = query.clone();
        let streamed = blocking(&query.text, move || {
            let session = live.session()?;
            let values = parameters::scalars(&values, &owned.parameters)?;
            Session::stream(&session, &owned.text, values)
        });
        let mut streamed = BlockingDrop(Some(streamed.await?));
        let encoder = Encoder::new(&streamed.schema(), format)?;
        let fields = encoder.fields();
        let first = streamed.next().await;
        let text = query.text.clone();
        let rest = stream::unfold(streamed, |mut streamed| async move { Some((streamed.next().await?, streamed)) });
        let rows = stream::iter(first).chain(rest).flat_map(move |batch| {
            let rows = match batch {
                Ok(batch) => encoder.rows(&batch).unwrap_or_else(|error| vec![Err(error)]),
                Err(error) => vec![Err(refused(&error, &text))],
            };
            stream::iter(rows)
        });
        Ok(QueryResponse::new(fields, rows))
    }
}

/// A stream of rows, dropped on a thread for blocking work: the drop of its session's runtime
/// blocks.
struct BlockingDrop(Option<RowStream>);

impl BlockingDrop {
    fn schema(&self) -> Arc<Schema> {
        self.0.as_ref().map_or_else(|| Arc::new(Schema::empty()), RowStream::schema)
    }

    /// The next rows; `None` at the end and after it.
    async fn next(&mut self) -> Option<Result<RecordBatch, StoreError>> {
        let next = self.0.as_mut()?.next().await;
        if next.is_none() {
            drop(Self(self.0.take()));
        }
        next
    }
}

impl Drop for BlockingDrop {
    fn drop(&mut self) {
        let streamed = self.0.take();
        tokio::task::spawn_blocking(move || drop(streamed));
    }
}

/// Does `work` on a thread for blocking work.
async fn blocking<T: Send + 'static>(text: &str, work: impl FnOnce() -> Result<T, StoreError> + Send + 'static) -> PgWireResult<T> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result.map_err(|error| refused(&error, text)),
        Err(error) => Err(client_error(INTERNAL, &format!("the SQL engine cannot run this query: {error}"), None)),
    }
}

/// The store's error for a client.
fn refused(error: &StoreError, text: &str) -> PgWireError {
    let asks_catalog = text.contains("pg_catalog") || text.contains("pg_class");
    let hint = "there is no pg_catalog here, which psql's \\d and some tools ask; SHOW TABLES lists the tables, information_schema.columns the columns";
    client_error(if error.is_input() { SYNTAX_OR_ACCESS } else { INTERNAL }, &error.to_string(), asks_catalog.then_some(hint))
}

#[async_trait]
impl SimpleQueryHandler for Answerer {
    async fn do_query<C>(&self, _: &mut C, text: &str) -> PgWireResult<Vec<Response>>
    where
        C: ClientInfo + ClientPortalStore + Sink<PgWireBackendMessage> + Unpin + Send + Sync,
        C::PortalStore: PortalStore,
        C::Error: Debug,
        PgWireError: From<<C as Sink<PgWireBackendMessage>>::Error>,
    {
        Ok(vec![self.answer(&Statement::parse(text), Vec::new(), &Format::UnifiedText).await?])
    }
}

#[async_trait]
impl ExtendedQueryHandler for Answerer {
    type Statement = Statement;
    type QueryParser = Parser;

    fn query_parser(&self) -> Arc<Parser> {
        self.parser.clone()
    }

    async fn do_query<C>(&self, _: &mut C, portal: &Portal<Statement>, _: usize) -> PgWireResult<Response>
    where
        C: ClientInfo + ClientPortalStore + Sink<PgWireBackendMessage> + Unpin + Send + Sync,
        C::PortalStore: PortalStore<Statement = Statement>,
        C::Error: Debug,
        PgWireError: From<<C as Sink<PgWireBackendMessage>>::Error>,
    {
        let values = match &portal.statement.statement {
            Statement::Query(query) => parameters::decode(portal, &query.parameters)?,
            _ => Vec::new(),
        };
        self.answer(&portal.statement.statement, values, &portal.result_column_format).await
    }
}

#[async_trait]
impl QueryParser for Parser {
    type Statement = Statement;

    async fn parse_sql<C>(&self, _: &C, text: &str, _: &[Option<Type>]) -> PgWireResult<Option<Statement>>
    where
        C: ClientInfo + Unpin + Send + Sync,
    {
        let mut statement = Statement::parse(text);
        if let Statement::Query(query) = &mut statement {
            let live = self.live.clone();
            let text = query.text.clone();
            let (columns, parameters) = blocking(&query.text, move || live.session()?.describe_query(&text)).await?;
            (query.columns, query.parameters) = (Some(columns), parameters);
        }
        Ok(Some(statement))
    }

    fn get_parameter_types(&self, statement: &Statement) -> PgWireResult<Vec<Type>> {
        let Statement::Query(query) = statement else { return Ok(Vec::new()) };
        Ok(query.parameters.iter().map(|kind| kind.as_ref().map_or(Type::TEXT, rows::postgres_type)).collect())
    }

    fn get_result_schema(&self, statement: &Statement, format: Option<&Format>) -> PgWireResult<Vec<FieldInfo>> {
        match statement {
            Statement::Query(Query { columns: Some(columns), .. }) => rows::fields(columns, format.unwrap_or(&Format::UnifiedText)),
            _ => Ok(Vec::new()),
        }
    }
}
