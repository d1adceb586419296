//! Answers statements of the simple protocol and of the extended one with prepared statements.
//!
//! The engine's calls block and have their own runtime. They run on threads for blocking work, and
//! rows come over a channel.

use std::fmt::Debug;
use std::sync::Arc;

use arrow::datatypes::{DataType, SchemaRef};
use async_trait::async_trait;
use futures::future::BoxFuture;
use futures::{FutureExt, Sink, StreamExt, stream};
use pgwire::api::portal::{Format, Portal};
use pgwire::api::query::{ExtendedQueryHandler, SimpleQueryHandler, send_describe_response};
use pgwire::api::results::{CopyResponse, DescribePortalResponse, FieldInfo, QueryResponse, Response, Tag};
use pgwire::api::stmt::QueryParser;
use pgwire::api::store::PortalStore;
use pgwire::api::{ClientInfo, ClientPortalStore, Type};
use pgwire::error::{PgWireError, PgWireResult};
use pgwire::messages::PgWireBackendMessage;
use pgwire::messages::extendedquery::{Describe, TARGET_TYPE_BYTE_PORTAL};

use super::catalog;
use super::copy::{CopyFormat, CopyWriter};
use super::cursors::{Cursors, FetchError};
use super::errors::{CURSOR, INTERNAL, SYNTAX_OR_ACCESS, client_error};
use super::parameters::{self, Value};
use super::rows::{self, Encoder};
use super::statement::{Query, Statement, split};
use super::stream::BlockingDrop;
use crate::sql::{LiveSession, Session};
use crate::store::StoreError;

/// What statements ask of a run. The calls block.
///
/// An object, because the compiler checks each asynchronous function for `Send`. Here the check
/// ends; else it would go through all types of the engine, in every function again, and take as
/// long as the rest of this crate.
trait Engine: Send + Sync {
    /// Starts a query.
    fn stream(&self, query: &Query, values: &[Value]) -> Result<BlockingDrop, StoreError>;

    /// The columns of a query and the types of its parameters.
    fn describe(&self, query: &Query) -> Result<(SchemaRef, Vec<Option<DataType>>), StoreError>;
}

impl Engine for LiveSession {
    fn stream(&self, query: &Query, values: &[Value]) -> Result<BlockingDrop, StoreError> {
        let session = self.session()?;
        let text = catalog::translate(&session, self.run().name(), query)?;
        let values = parameters::scalars(values, &query.parameters)?;
        Session::stream(&session, &text, values).map(BlockingDrop::new)
    }

    fn describe(&self, query: &Query) -> Result<(SchemaRef, Vec<Option<DataType>>), StoreError> {
        let session = self.session()?;
        session.describe_query(&catalog::translate(&session, self.run().name(), query)?)
    }
}

/// Answers the statements of all clients.
pub(super) struct Answerer {
    engine: Arc<dyn Engine>,
    parser: Arc<Parser>,
}

/// Describes statements: the types of their parameters and the columns of their rows.
pub(super) struct Parser {
    engine: Arc<dyn Engine>,
}

impl Answerer {
    pub fn new(live: LiveSession) -> Self {
        let engine: Arc<dyn Engine> = Arc::new(live);
        Self { parser: Arc::new(Parser { engine: engine.clone() }), engine }
    }

    /// Boxed for the same reason as [`Engine`].
    fn answer<'a>(
        &'a self,
        cursors: &'a Cursors,
        statement: &'a Statement,
        values: Vec<Value>,
        format: &'a Format,
    ) -> BoxFuture<'a, PgWireResult<Response>> {
        self.answered(cursors, statement, values, format).boxed()
    }

    async fn answered(&self, cursors: &Cursors, statement: &Statement, values: Vec<Value>, format: &Format) -> PgWireResult<Response> {
        match statement {
            Statement::Begin => Ok(Response::TransactionStart(Tag::new("BEGIN"))),
            Statement::End(word) => {
                cursors.end_transaction().await;
                Ok(Response::TransactionEnd(Tag::new(word)))
            }
            Statement::Setting(word) => Ok(Response::Execution(Tag::new(word))),
            Statement::Query(query) => self.rows(query, values, format).await.map(Response::Query),
            Statement::Copy { query, format } => self.copy(query, values, format).await.map(Response::CopyOut),
            Statement::Declare { name, query, hold } => {
                let streamed = self.stream(query, values).await?;
                cursors.open(name, streamed, *hold).await.map_err(|problem| client_error(CURSOR, &problem, None))?;
                Ok(Response::Execution(Tag::new("DECLARE CURSOR")))
            }
            Statement::Fetch { name, count, .. } => {
                let (schema, batches) = cursors.fetch(name, *count).await.map_err(|error| match error {
                    FetchError::Name(problem) => client_error(CURSOR, &problem, None),
                    FetchError::Query(error) => refused(&error),
                })?;
                let encoder = Encoder::new(&schema, format)?;
                let rows = batches.iter().map(|batch| encoder.rows(batch)).collect::<PgWireResult<Vec<_>>>()?;
                let mut response = QueryResponse::new(encoder.fields(), stream::iter(rows.into_iter().flatten()));
                response.set_command_tag("FETCH");
                Ok(Response::Query(response))
            }
            Statement::Close(name) => {
                cursors.close(name.as_deref()).await.map_err(|problem| client_error(CURSOR, &problem, None))?;
                Ok(Response::Execution(Tag::new("CLOSE CURSOR")))
            }
        }
    }

    /// The file of a query's rows.
    async fn copy(&self, query: &Query, values: Vec<Value>, format: &CopyFormat) -> PgWireResult<CopyResponse> {
        let streamed = self.stream(query, values).await?;
        let fields = Encoder::new(&streamed.schema(), &Format::UnifiedText)?.fields();
        let columns = fields.len();
        let writer = CopyWriter::new(fields, format.clone());
        let pieces = stream::unfold((Some(streamed), writer), move |(streamed, mut writer)| async move {
            let mut streamed = streamed?;
            match streamed.next().await {
                Some(Ok(batch)) => {
                    let pieces = writer.rows(&batch).unwrap_or_else(|error| vec![Err(error)]);
                    Some((pieces, (Some(streamed), writer)))
                }
                Some(Err(error)) => Some((vec![Err(refused(&error))], (None, writer))),
                None => Some((writer.end().into_iter().collect(), (None, writer))),
            }
        });
        Ok(CopyResponse::new(format.code(), columns, pieces.flat_map(stream::iter)))
    }

    /// A running query.
    async fn stream(&self, query: &Query, values: Vec<Value>) -> PgWireResult<BlockingDrop> {
        let engine = self.engine.clone();
        let owned = query.clone();
        blocking(move || engine.stream(&owned, &values)).await
    }

    /// The rows of a query. It waits for the first ones here, because a client can still cancel the
    /// query here.
    async fn rows(&self, query: &Query, values: Vec<Value>, format: &Format) -> PgWireResult<QueryResponse> {
        let mut streamed = self.stream(query, values).await?;
        let encoder = Encoder::new(&streamed.schema(), format)?;
        let fields = encoder.fields();
        let first = streamed.next().await;
        let rest = stream::unfold(streamed, |mut streamed| async move { Some((streamed.next().await?, streamed)) });
        let rows = stream::iter(first).chain(rest).flat_map(move |batch| {
            let rows = match batch {
                Ok(batch) => encoder.rows(&batch).unwrap_or_else(|error| vec![Err(error)]),
                Err(error) => vec![Err(refused(&error))],
            };
            stream::iter(rows)
        });
        Ok(QueryResponse::new(fields, rows))
    }
}

/// Does `work` on a thread for blocking work.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T, StoreError> + Send + 'static) -> PgWireResult<T> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result.map_err(|error| refused(&error)),
        Err(error) => Err(client_error(INTERNAL, &format!("the SQL engine cannot run this query: {error}"), None)),
    }
}

fn parse(text: &str) -> PgWireResult<Statement> {
    Statement::parse(text).map_err(|problem| client_error(SYNTAX_OR_ACCESS, &problem, None))
}

/// The store's error for a client.
fn refused(error: &StoreError) -> PgWireError {
    client_error(if error.is_input() { SYNTAX_OR_ACCESS } else { INTERNAL }, &error.to_string(), None)
}

#[async_trait]
impl SimpleQueryHandler for Answerer {
    async fn do_query<C>(&self, client: &mut C, text: &str) -> PgWireResult<Vec<Response>>
    where
        C: ClientInfo + ClientPortalStore + Sink<PgWireBackendMessage> + Unpin + Send + Sync,
        C::PortalStore: PortalStore,
        C::Error: Debug,
        PgWireError: From<<C as Sink<PgWireBackendMessage>>::Error>,
    {
        let cursors = client.session_extensions().get_or_insert_with(Cursors::default);
        let mut responses = Vec::new();
        for text in split(text) {
            let answered = match parse(&text) {
                Ok(statement) => self.answer(&cursors, &statement, Vec::new(), &Format::UnifiedText).await,
                Err(error) => Err(error),
            };
            match answered {
                Ok(response) => responses.push(response),
                // The answers to the statements before it are sent first.
                Err(PgWireError::UserError(error)) if !responses.is_empty() => {
                    responses.push(Response::Error(error));
                    break;
                }
                Err(error) => return Err(error),
            }
        }
        if responses.is_empty() {
            responses.push(Response::EmptyQuery);
        }
        Ok(responses)
    }
}

#[async_trait]
impl ExtendedQueryHandler for Answerer {
    type Statement = Statement;
    type QueryParser = Parser;

    fn query_parser(&self) -> Arc<Parser> {
        self.parser.clone()
    }

    /// A cursor has the columns of a portal of its name, which psycopg asks for.
    async fn on_describe<C>(&self, client: &mut C, message: Describe) -> PgWireResult<()>
    where
        C: ClientInfo + ClientPortalStore + Sink<PgWireBackendMessage> + Unpin + Send + Sync,
        C::PortalStore: PortalStore<Statement = Statement>,
        C::Error: Debug,
        PgWireError: From<<C as Sink<PgWireBackendMessage>>::Error>,
    {
        let name = message.name.as_deref().filter(|_| message.target_type == TARGET_TYPE_BYTE_PORTAL);
        let cursors = client.session_extensions().get_or_insert_with(Cursors::default);
        if let Some(name) = name
            && client.portal_store().get_portal(name).is_none()
            && let Ok(columns) = cursors.schema(name).await
        {
            let described = DescribePortalResponse::new(rows::fields(&columns, &Format::UnifiedText)?);
            return send_describe_response(client, &described).await;
        }
        self._on_describe(client, message).await
    }

    async fn do_query<C>(&self, client: &mut C, portal: &Portal<Statement>, _: usize) -> PgWireResult<Response>
    where
        C: ClientInfo + ClientPortalStore + Sink<PgWireBackendMessage> + Unpin + Send + Sync,
        C::PortalStore: PortalStore<Statement = Statement>,
        C::Error: Debug,
        PgWireError: From<<C as Sink<PgWireBackendMessage>>::Error>,
    {
        let cursors = client.session_extensions().get_or_insert_with(Cursors::default);
        let statement = &portal.statement.statement;
        let values = statement.query().map_or(Ok(Vec::new()), |query| parameters::decode(portal, &query.parameters))?;
        self.answer(&cursors, statement, values, &portal.result_column_format).await
    }
}

#[async_trait]
impl QueryParser for Parser {
    type Statement = Statement;

    async fn parse_sql<C>(&self, client: &C, text: &str, types: &[Option<Type>]) -> PgWireResult<Option<Statement>>
    where
        C: ClientInfo + Unpin + Send + Sync,
    {
        let mut statement = parse(text)?;
        if let Statement::Fetch { name, columns, .. } = &mut statement {
            let cursors = client.session_extensions().get_or_insert_with(Cursors::default);
            *columns = Some(cursors.schema(name).await.map_err(|problem| client_error(CURSOR, &problem, None))?);
        }
        if let Some(query) = statement.query_mut() {
            let engine = self.engine.clone();
            query.declared = types.to_vec();
            let owned = query.clone();
            let (columns, parameters) = blocking(move || engine.describe(&owned)).await?;
            (query.columns, query.parameters) = (Some(columns), parameters);
        }
        Ok(Some(statement))
    }

    fn get_parameter_types(&self, statement: &Statement) -> PgWireResult<Vec<Type>> {
        let Some(query) = statement.query() else { return Ok(Vec::new()) };
        Ok(query.parameters.iter().map(|kind| kind.as_ref().map_or(Type::TEXT, rows::postgres_type)).collect())
    }

    fn get_result_schema(&self, statement: &Statement, format: Option<&Format>) -> PgWireResult<Vec<FieldInfo>> {
        match statement {
            Statement::Query(Query { columns: Some(columns), .. }) | Statement::Fetch { columns: Some(columns), .. } => {
                rows::fields(columns, format.unwrap_or(&Format::UnifiedText))
            }
            _ => Ok(Vec::new()),
        }
    }
}
