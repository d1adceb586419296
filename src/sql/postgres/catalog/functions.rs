//! The scalar functions of PostgreSQL's catalog: names of types, visibility, privileges, settings.
//!
//! A function about a thing that a run has none of, such as the text of an index, is null. Knows
//! names and oids, not the catalog's tables.

use std::collections::HashMap;
use std::hash::{Hash, Hasher};
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use arrow::array::Array;
use arrow::datatypes::{DataType, Field, Int32Type, TimeUnit};
use datafusion::common::ScalarValue;
use datafusion::error::{DataFusionError, Result};
use datafusion::logical_expr::{ColumnarValue, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, TypeSignature, Volatility};

use super::quoting::{formatted, literal, quoted};
use super::relations::{Relation, SCHEMAS};
use super::types;
use crate::sql::postgres::rows::postgres_type;
use crate::sql::postgres::settings::{SERVER_VERSION, SETTINGS};

/// The only user.
const USER: &str = "optune";

/// The names that functions know.
pub(super) struct Names {
    database: String,
    relations: HashMap<i64, (&'static str, String, Option<String>)>,
}

impl Names {
    pub fn new(database: &str, relations: &[Relation]) -> Self {
        let named = |relation: &Relation| (relation.oid, (relation.schema, relation.name.clone(), relation.definition.clone()));
        Self { database: database.to_string(), relations: relations.iter().map(named).collect() }
    }

    /// The oid of a table by its name as SQL writes it, maybe with its schema.
    fn relation(&self, name: &str) -> Option<i64> {
        let parts: Vec<String> = name.split('.').map(unquoted).collect();
        let (schema, name) = match parts.as_slice() {
            [name] => (None, name),
            [schema, name] => (Some(schema), name),
            [_, schema, name] => (Some(schema), name),
            _ => return None,
        };
        let of = |schema: &str| self.relations.iter().find(|(_, found)| found.0 == schema && found.1 == *name).map(|(oid, _)| *oid);
        match schema {
            Some(schema) => of(schema),
            None => of("public").or_else(|| of("pg_catalog")),
        }
    }
}

/// A name in lower case unless it is quoted.
fn unquoted(name: &str) -> String {
    match name.strip_prefix('"').and_then(|name| name.strip_suffix('"')) {
        Some(quoted) => quoted.replace("\"\"", "\""),
        None => name.trim().to_ascii_lowercase(),
    }
}

/// The arguments of a call.
struct Arguments<'a>(&'a [ScalarValue]);

impl Arguments<'_> {
    fn text(&self, index: usize) -> Option<String> {
        self.0.get(index).and_then(|value| value.try_as_str().flatten()).map(String::from)
    }

    fn long(&self, index: usize) -> Option<i64> {
        match self.0.get(index)?.cast_to(&DataType::Int64) {
            Ok(ScalarValue::Int64(value)) => value,
            _ => None,
        }
    }

    fn boolean(&self, index: usize) -> bool {
        matches!(self.0.get(index), Some(ScalarValue::Boolean(Some(true))))
    }

    /// The length of a list.
    fn length(&self, index: usize) -> Option<i32> {
        match self.0.get(index)? {
            ScalarValue::List(list) if !list.is_null(0) => i32::try_from(list.value(0).len()).ok(),
            _ => None,
        }
    }
}

type Answer<T> = Result<Option<T>>;

/// How a function answers, by the type of its answer.
#[derive(Clone, Copy)]
enum Call {
    Text(fn(&Names, &Arguments) -> Answer<String>),
    Bool(fn(&Names, &Arguments) -> Answer<bool>),
    Int(fn(&Names, &Arguments) -> Answer<i32>),
    Long(fn(&Names, &Arguments) -> Answer<i64>),
    Texts(fn(&Names, &Arguments) -> Answer<Vec<String>>),
    Ints(fn(&Names, &Arguments) -> Answer<Vec<i32>>),
    Time(fn(&Names, &Arguments) -> Answer<i64>),
    /// A pair of an item and its number, always null.
    Pair,
}

impl Call {
    fn returns(self) -> DataType {
        let list = |item| DataType::List(Arc::new(Field::new_list_field(item, true)));
        match self {
            Self::Text(_) => DataType::Utf8,
            Self::Bool(_) => DataType::Boolean,
            Self::Int(_) => DataType::Int32,
            Self::Long(_) => DataType::Int64,
            Self::Texts(_) => list(DataType::Utf8),
            Self::Ints(_) => list(DataType::Int32),
            Self::Time(_) => DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into())),
            Self::Pair => DataType::Struct(vec![Field::new("x", DataType::Int64, true), Field::new("n", DataType::Int32, true)].into()),
        }
    }

    fn answer(self, names: &Names, arguments: &Arguments) -> Result<ScalarValue> {
        Ok(match self {
            Self::Text(call) => ScalarValue::Utf8(call(names, arguments)?),
            Self::Bool(call) => ScalarValue::Boolean(call(names, arguments)?),
            Self::Int(call) => ScalarValue::Int32(call(names, arguments)?),
            Self::Long(call) => ScalarValue::Int64(call(names, arguments)?),
            Self::Texts(call) => match call(names, arguments)? {
                Some(texts) => {
                    let texts: Vec<ScalarValue> = texts.into_iter().map(ScalarValue::from).collect();
                    ScalarValue::List(ScalarValue::new_list_nullable(&texts, &DataType::Utf8))
                }
                None => ScalarValue::try_from(&self.returns())?,
            },
            Self::Ints(call) => {
                let list = call(names, arguments)?.map(|items| items.into_iter().map(Some));
                ScalarValue::List(Arc::new(arrow::array::ListArray::from_iter_primitive::<Int32Type, _, _>([list])))
            }
            Self::Time(call) => ScalarValue::TimestampMicrosecond(call(names, arguments)?, Some("UTC".into())),
            Self::Pair => ScalarValue::try_from(&self.returns())?,
        })
    }
}

/// The functions by name. Those of `rewrite.rs` have the names of what they stand for.
const CALLS: &[(&str, Call)] = &[
    ("version", Call::Text(|_, _| Ok(Some(format!("PostgreSQL {SERVER_VERSION} (optune {})", env!("CARGO_PKG_VERSION")))))),
    ("current_database", Call::Text(|names, _| Ok(Some(names.database.clone())))),
    ("current_catalog", Call::Text(|names, _| Ok(Some(names.database.clone())))),
    ("current_schema", Call::Text(|_, _| Ok(Some("public".to_string())))),
    ("current_user", Call::Text(|_, _| Ok(Some(USER.to_string())))),
    ("current_role", Call::Text(|_, _| Ok(Some(USER.to_string())))),
    ("session_user", Call::Text(|_, _| Ok(Some(USER.to_string())))),
    (
        "pg_get_userbyid",
        Call::Text(|_, arguments| {
            Ok(arguments.long(0).map(|oid| if oid == 10 { USER.to_string() } else { format!("unknown (OID={oid})") }))
        }),
    ),
    ("format_type", Call::Text(|_, arguments| Ok(arguments.long(0).map(|oid| type_name(oid, "???"))))),
    (
        "pg_encoding_to_char",
        Call::Text(|_, arguments| Ok(arguments.long(0).map(|code| if code == 6 { "UTF8".to_string() } else { String::new() }))),
    ),
    ("pg_client_encoding", Call::Text(|_, _| Ok(Some("UTF8".to_string())))),
    ("getdatabaseencoding", Call::Text(|_, _| Ok(Some("UTF8".to_string())))),
    ("quote_ident", Call::Text(|_, arguments| Ok(arguments.text(0).map(|name| quoted(&name))))),
    ("quote_literal", Call::Text(|_, arguments| Ok(arguments.text(0).map(|text| literal(&text))))),
    ("quote_nullable", Call::Text(|_, arguments| Ok(Some(arguments.text(0).map_or("NULL".to_string(), |text| literal(&text)))))),
    ("format", Call::Text(|_, arguments| formatted(arguments.0))),
    ("current_setting", Call::Text(|_, arguments| setting(arguments))),
    ("set_config", Call::Text(|_, arguments| Ok(arguments.text(1)))),
    (
        "pg_typeof",
        Call::Text(|_, arguments| {
            Ok(arguments.0.first().map(|value| type_name(i64::from(postgres_type(&value.data_type()).oid()), "unknown")))
        }),
    ),
    ("pg_get_viewdef", Call::Text(|names, arguments| Ok(relation(names, arguments).and_then(|oid| names.relations.get(&oid)?.2.clone())))),
    ("regclass_name", Call::Text(|names, arguments| Ok(arguments.long(0).map(|oid| relation_name(names, oid))))),
    (
        "regtype_name",
        Call::Text(|_, arguments| {
            Ok(arguments.long(0).map(|oid| if oid == 0 { "-".to_string() } else { type_name(oid, &oid.to_string()) }))
        }),
    ),
    (
        "regnamespace_name",
        Call::Text(|_, arguments| Ok(arguments.long(0).map(|oid| schema_name(oid).map_or(oid.to_string(), String::from)))),
    ),
    ("regclass_oid", Call::Long(|names, arguments| found(arguments, "relation", |name| names.relation(name)))),
    ("regtype_oid", Call::Long(|_, arguments| found(arguments, "type", types::oid))),
    ("regnamespace_oid", Call::Long(|_, arguments| found(arguments, "schema", schema_oid))),
    ("to_regclass", Call::Long(|names, arguments| Ok(arguments.text(0).and_then(|name| names.relation(&name))))),
    ("to_regtype", Call::Long(|_, arguments| Ok(arguments.text(0).and_then(|name| types::oid(&name))))),
    ("to_regnamespace", Call::Long(|_, arguments| Ok(arguments.text(0).and_then(|name| schema_oid(&name))))),
    ("txid_current", Call::Long(|_, _| Ok(Some(1)))),
    ("pg_my_temp_schema", Call::Long(|_, _| Ok(Some(0)))),
    ("pg_relation_size", Call::Long(|_, _| Ok(None))),
    ("pg_table_size", Call::Long(|_, _| Ok(None))),
    ("pg_total_relation_size", Call::Long(|_, _| Ok(None))),
    ("pg_indexes_size", Call::Long(|_, _| Ok(None))),
    ("pg_database_size", Call::Long(|_, _| Ok(None))),
    ("pg_backend_pid", Call::Int(|_, _| Ok(i32::try_from(std::process::id()).ok()))),
    ("inet_server_port", Call::Int(|_, _| Ok(None))),
    ("array_lower", Call::Int(|_, arguments| Ok(dimension(arguments).map(|_| 1)))),
    ("array_upper", Call::Int(|_, arguments| Ok(dimension(arguments)))),
    ("pg_relation_is_updatable", Call::Int(|_, _| Ok(Some(0)))),
    ("pg_subscripts", Call::Ints(|_, arguments| Ok(arguments.length(0).map(|length| (1..=length).collect())))),
    ("current_schemas", Call::Texts(|_, arguments| Ok(Some(schemas(arguments.boolean(0)))))),
    ("parse_ident", Call::Texts(|_, arguments| Ok(arguments.text(0).map(|name| name.split('.').map(unquoted).collect())))),
    (
        "pg_table_is_visible",
        Call::Bool(|names, arguments| {
            Ok(arguments.long(0).and_then(|oid| names.relations.get(&oid)).map(|found| found.0 != "information_schema"))
        }),
    ),
    ("pg_type_is_visible", Call::Bool(|_, arguments| Ok(arguments.long(0).and_then(types::sql_name).map(|_| true)))),
    ("pg_is_in_recovery", Call::Bool(|_, _| Ok(Some(false)))),
    ("pg_is_other_temp_schema", Call::Bool(|_, _| Ok(Some(false)))),
    ("pg_advisory_unlock_all", Call::Text(|_, _| Ok(Some(String::new())))),
    ("now", Call::Time(now)),
    ("current_timestamp", Call::Time(now)),
    ("transaction_timestamp", Call::Time(now)),
    ("statement_timestamp", Call::Time(now)),
    ("clock_timestamp", Call::Time(now)),
    ("_pg_expandarray", Call::Pair),
];

/// Functions about things that a run has none of, or has said nothing about.
const NULLS: &[&str] = &[
    "col_description",
    "obj_description",
    "shobj_description",
    "pg_get_constraintdef",
    "pg_get_expr",
    "pg_get_function_arguments",
    "pg_get_function_identity_arguments",
    "pg_get_function_result",
    "pg_get_functiondef",
    "pg_get_indexdef",
    "pg_get_partition_constraintdef",
    "pg_get_partkeydef",
    "pg_get_ruledef",
    "pg_get_serial_sequence",
    "pg_get_statisticsobjdef_columns",
    "pg_get_triggerdef",
    "pg_size_pretty",
    "pg_tablespace_location",
    "inet_server_addr",
    "inet_client_addr",
];

/// Whether an object of the kind is found by its bare name: all are, in one schema.
const VISIBLE: &[&str] = &[
    "pg_collation_is_visible",
    "pg_conversion_is_visible",
    "pg_function_is_visible",
    "pg_opclass_is_visible",
    "pg_operator_is_visible",
    "pg_opfamily_is_visible",
    "pg_statistics_obj_is_visible",
    "pg_ts_config_is_visible",
    "pg_ts_dict_is_visible",
    "pg_ts_parser_is_visible",
    "pg_ts_template_is_visible",
];

/// Whether a user may do something with an object.
const PRIVILEGES: &[&str] = &[
    "has_any_column_privilege",
    "has_column_privilege",
    "has_database_privilege",
    "has_foreign_data_wrapper_privilege",
    "has_function_privilege",
    "has_language_privilege",
    "has_schema_privilege",
    "has_sequence_privilege",
    "has_server_privilege",
    "has_table_privilege",
    "has_tablespace_privilege",
    "has_type_privilege",
    "pg_has_role",
];

fn calls() -> impl Iterator<Item = (&'static str, Call)> {
    let nulls = NULLS.iter().map(|name| (*name, Call::Text(|_, _| Ok(None))));
    let visible = VISIBLE.iter().map(|name| (*name, Call::Bool(|_, _| Ok(Some(true)))));
    let privileges = PRIVILEGES.iter().map(|name| (*name, Call::Bool(privilege)));
    CALLS.iter().copied().chain(nulls).chain(visible).chain(privileges)
}

/// Whether a function of this name is here.
pub(super) fn is_known(name: &str) -> bool {
    calls().any(|(known, _)| known == name)
}

/// The functions, for a session.
pub(super) fn all(names: &Arc<Names>) -> Vec<ScalarUDF> {
    let signature = || Signature::one_of(vec![TypeSignature::Nullary, TypeSignature::VariadicAny], Volatility::Stable);
    let function = |(name, call)| ScalarUDF::new_from_impl(Function { name, call, signature: signature(), names: names.clone() });
    calls().map(function).collect()
}

fn schemas(with_catalog: bool) -> Vec<String> {
    let names: &[&str] = if with_catalog { &["pg_catalog", "public"] } else { &["public"] };
    names.iter().map(|name| (*name).to_string()).collect()
}

fn relation(names: &Names, arguments: &Arguments) -> Option<i64> {
    arguments.text(0).and_then(|name| names.relation(&name)).or_else(|| arguments.long(0))
}

fn relation_name(names: &Names, oid: i64) -> String {
    match names.relations.get(&oid) {
        Some(("information_schema", name, _)) => format!("information_schema.{}", quoted(name)),
        Some((_, name, _)) => quoted(name),
        None if oid == 0 => "-".to_string(),
        None => oid.to_string(),
    }
}

fn type_name(oid: i64, unknown: &str) -> String {
    types::sql_name(oid).unwrap_or_else(|| unknown.to_string())
}

fn schema_name(oid: i64) -> Option<&'static str> {
    SCHEMAS.iter().find(|(_, own)| *own == oid).map(|(name, _)| *name)
}

fn schema_oid(name: &str) -> Option<i64> {
    SCHEMAS.iter().find(|(own, _)| *own == unquoted(name)).map(|(_, oid)| *oid)
}

/// The oid of a name or, as PostgreSQL reads it, of its digits.
fn found(arguments: &Arguments, kind: &str, find: impl Fn(&str) -> Option<i64>) -> Answer<i64> {
    let Some(name) = arguments.text(0) else { return Ok(arguments.long(0)) };
    match find(&name).or_else(|| name.parse().ok()) {
        Some(oid) => Ok(Some(oid)),
        None => Err(DataFusionError::Plan(format!("{kind} \"{name}\" does not exist"))),
    }
}

/// The length of a list in its only dimension.
fn dimension(arguments: &Arguments) -> Option<i32> {
    arguments.length(0).filter(|length| *length > 0 && arguments.long(1) == Some(1))
}

/// Reading is allowed, nothing else. A list of privileges asks for any of them.
fn privilege(_: &Names, arguments: &Arguments) -> Answer<bool> {
    let asked = arguments.text(arguments.0.len().saturating_sub(1));
    let allowed =
        |word: &str| ["SELECT", "USAGE", "CONNECT", "EXECUTE", "MEMBER", "SET"].contains(&word.trim().to_ascii_uppercase().as_str());
    Ok(asked.map(|asked| asked.split(',').any(allowed)))
}

fn setting(arguments: &Arguments) -> Answer<String> {
    let Some(name) = arguments.text(0) else { return Ok(None) };
    match SETTINGS.iter().find(|(known, _)| known.eq_ignore_ascii_case(&name)) {
        Some((_, value)) => Ok(Some((*value).to_string())),
        None if arguments.boolean(1) => Ok(None),
        None => Err(DataFusionError::Plan(format!("unrecognized configuration parameter \"{name}\""))),
    }
}

fn now(_: &Names, _: &Arguments) -> Answer<i64> {
    Ok(SystemTime::now().duration_since(UNIX_EPOCH).ok().and_then(|since| i64::try_from(since.as_micros()).ok()))
}

/// A function for the engine: any number of arguments, row by row.
struct Function {
    name: &'static str,
    call: Call,
    signature: Signature,
    names: Arc<Names>,
}

impl std::fmt::Debug for Function {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str(self.name)
    }
}

impl PartialEq for Function {
    fn eq(&self, other: &Self) -> bool {
        self.name == other.name && Arc::ptr_eq(&self.names, &other.names)
    }
}

impl Eq for Function {}

impl Hash for Function {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.name.hash(state);
    }
}

impl ScalarUDFImpl for Function {
    fn name(&self) -> &str {
        self.name
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _: &[DataType]) -> Result<DataType> {
        Ok(self.call.returns())
    }

    fn invoke_with_args(&self, call: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let is_constant = call.args.iter().all(|argument| matches!(argument, ColumnarValue::Scalar(_)));
        let answer = |row: usize| {
            let value = |argument: &ColumnarValue| match argument {
                ColumnarValue::Scalar(value) => Ok(value.clone()),
                ColumnarValue::Array(values) => ScalarValue::try_from_array(values, row),
            };
            let values = call.args.iter().map(value).collect::<Result<Vec<_>>>()?;
            self.call.answer(&self.names, &Arguments(&values))
        };
        if is_constant {
            return answer(0).map(ColumnarValue::Scalar);
        }
        if call.number_rows == 0 {
            return Ok(ColumnarValue::Array(arrow::array::new_empty_array(&self.call.returns())));
        }
        let values = (0..call.number_rows).map(answer).collect::<Result<Vec<_>>>()?;
        ScalarValue::iter_to_array(values).map(ColumnarValue::Array)
    }
}

#[cfg(test)]
mod tests {
    use super::calls;

    #[test]
    fn every_function_is_there_once() {
        let mut names: Vec<&str> = calls().map(|(name, _)| name).collect();
        let count = names.len();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), count);
    }
}
