//! The values of `$1`, `$2`, …: from the wire to the engine's types.

use arrow::datatypes::DataType;
use chrono::{DateTime, FixedOffset, NaiveDate, NaiveDateTime};
use datafusion::common::ScalarValue;
use pgwire::api::Type;
use pgwire::api::portal::{Format, Portal};
use pgwire::error::PgWireResult;
use pgwire::types::FromSqlText;
use pgwire::types::format::FormatOptions;
use postgres_types::{FromSqlOwned, Kind};

use super::errors::{INVALID_PARAMETER, client_error};
use super::list_text;
use super::numeric;
use super::rows::postgres_type;
use super::statement::Statement;
use crate::store::StoreError;

/// A value in the client's type.
pub(super) type Value = ScalarValue;

/// The values bound by a client, in their order. The client or the query determines the type of
/// each.
pub(super) fn decode(portal: &Portal<Statement>, inferred: &[Option<DataType>]) -> PgWireResult<Vec<Value>> {
    if portal.parameter_len() != inferred.len() {
        let problem = format!("expected {} values of parameters, found {}", inferred.len(), portal.parameter_len());
        return Err(client_error(INVALID_PARAMETER, &problem, None));
    }
    if let Format::Individual(formats) = &portal.parameter_format
        && formats.len() != inferred.len()
    {
        return Err(client_error(
            INVALID_PARAMETER,
            &format!("expected formats of {} parameters, found {}", inferred.len(), formats.len()),
            None,
        ));
    }
    let value = |(index, inferred): (usize, &Option<DataType>)| {
        let declared = portal.statement.parameter_types.get(index).cloned().flatten().filter(|kind| *kind != Type::UNKNOWN);
        let kind = declared.unwrap_or_else(|| inferred.as_ref().map_or(Type::TEXT, postgres_type));
        match kind {
            Type::BOOL => Ok(ScalarValue::Boolean(portal.parameter(index, &kind)?)),
            Type::INT2 => Ok(ScalarValue::Int16(portal.parameter(index, &kind)?)),
            Type::INT4 => Ok(ScalarValue::Int32(portal.parameter(index, &kind)?)),
            Type::INT8 => Ok(ScalarValue::Int64(portal.parameter(index, &kind)?)),
            Type::FLOAT4 => Ok(ScalarValue::Float32(portal.parameter(index, &kind)?)),
            Type::FLOAT8 => Ok(ScalarValue::Float64(portal.parameter(index, &kind)?)),
            Type::OID => Ok(ScalarValue::Int64(portal.parameter::<u32>(index, &kind)?.map(i64::from))),
            Type::TEXT | Type::VARCHAR | Type::BPCHAR | Type::NAME => Ok(ScalarValue::Utf8(portal.parameter(index, &Type::TEXT)?)),
            Type::NUMERIC => numeric(portal, index).map(ScalarValue::Utf8),
            Type::DATE => Ok(ScalarValue::Date32(portal.parameter(index, &kind)?.map(days))),
            Type::TIMESTAMP => {
                let time: Option<NaiveDateTime> = portal.parameter(index, &kind)?;
                Ok(ScalarValue::TimestampMicrosecond(time.map(|time| time.and_utc().timestamp_micros()), None))
            }
            Type::TIMESTAMPTZ => {
                let time: Option<DateTime<FixedOffset>> = portal.parameter(index, &kind)?;
                Ok(ScalarValue::TimestampMicrosecond(time.map(|time| time.timestamp_micros()), None))
            }
            // Texts in the engine.
            Type::UUID => uuid(portal, index).map(ScalarValue::Utf8),
            Type::JSON => Ok(ScalarValue::Utf8(portal.parameter(index, &Type::TEXT)?)),
            Type::BYTEA => Ok(ScalarValue::Binary(portal.parameter::<Vec<u8>>(index, &kind)?)),
            Type::BOOL_ARRAY => list::<bool>(portal, index, &kind, &DataType::Boolean, ScalarValue::Boolean),
            Type::INT2_ARRAY => list::<i16>(portal, index, &kind, &DataType::Int16, ScalarValue::Int16),
            Type::INT4_ARRAY => list::<i32>(portal, index, &kind, &DataType::Int32, ScalarValue::Int32),
            Type::OID_ARRAY => list::<u32>(portal, index, &kind, &DataType::UInt32, ScalarValue::UInt32),
            Type::INT8_ARRAY => list::<i64>(portal, index, &kind, &DataType::Int64, ScalarValue::Int64),
            Type::FLOAT4_ARRAY => list::<f32>(portal, index, &kind, &DataType::Float32, ScalarValue::Float32),
            Type::FLOAT8_ARRAY => list::<f64>(portal, index, &kind, &DataType::Float64, ScalarValue::Float64),
            Type::TEXT_ARRAY | Type::VARCHAR_ARRAY => list::<String>(portal, index, &Type::TEXT_ARRAY, &DataType::Utf8, ScalarValue::Utf8),
            other => Err(client_error(
                INVALID_PARAMETER,
                &format!(
                    "parameter ${}: expected a number, text, truth value, date, timestamp, uuid, bytes, or a list, found {other}",
                    index + 1
                ),
                None,
            )),
        }
    };
    inferred.iter().enumerate().map(value).collect()
}

/// A list of values.
fn list<T>(
    portal: &Portal<Statement>,
    index: usize,
    kind: &Type,
    item: &DataType,
    scalar: impl Fn(Option<T>) -> ScalarValue,
) -> PgWireResult<Value>
where
    T: for<'t> FromSqlText<'t>,
    Vec<Option<T>>: FromSqlOwned + for<'t> FromSqlText<'t>,
{
    let problem = |found: &str| client_error(INVALID_PARAMETER, &format!("parameter ${}: expected {kind}, found {found}", index + 1), None);
    let values = if portal.parameter_format.is_binary(index) {
        portal.parameter::<Vec<Option<T>>>(index, kind)?
    } else {
        let Some(Some(bytes)) = portal.parameters.get(index) else { return Ok(ScalarValue::Null) };
        let text = std::str::from_utf8(bytes).map_err(|_| problem("other bytes than UTF-8"))?;
        let items = list_text::items(text).ok_or_else(|| problem(text))?;
        let Kind::Array(item_kind) = kind.kind() else { return Err(problem("an item")) };
        let options = FormatOptions::default();
        let value = |item: Option<String>| {
            item.map(|item| {
                T::from_sql_text(item_kind, item.as_bytes(), &options).map_err(|error| problem(&format!("\"{item}\" ({error})")))
            })
            .transpose()
        };
        Some(items.into_iter().map(value).collect::<PgWireResult<Vec<Option<T>>>>()?)
    };
    Ok(match values {
        Some(values) => {
            let values: Vec<ScalarValue> = values.into_iter().map(scalar).collect();
            ScalarValue::List(ScalarValue::new_list_nullable(&values, item))
        }
        None => ScalarValue::Null,
    })
}

/// An UUID as text.
fn uuid(portal: &Portal<Statement>, index: usize) -> PgWireResult<Option<String>> {
    let Some(Some(bytes)) = portal.parameters.get(index) else { return Ok(None) };
    if !portal.parameter_format.is_binary(index) {
        return portal.parameter(index, &Type::TEXT);
    }
    let digits: Vec<String> = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    let [a, b, c, d, e] = [0..4, 4..6, 6..8, 8..10, 10..16].map(|range| digits.get(range).map(|digits| digits.concat()));
    match (a, b, c, d, e) {
        (Some(a), Some(b), Some(c), Some(d), Some(e)) if bytes.len() == 16 => Ok(Some(format!("{a}-{b}-{c}-{d}-{e}"))),
        _ => Err(client_error(
            INVALID_PARAMETER,
            &format!("parameter ${}: expected 16 bytes of a uuid, found {}", index + 1, bytes.len()),
            None,
        )),
    }
}

/// A number of type numeric as text, which the engine reads as the type that the query wants.
fn numeric(portal: &Portal<Statement>, index: usize) -> PgWireResult<Option<String>> {
    let Some(Some(bytes)) = portal.parameters.get(index) else { return Ok(None) };
    let text = if portal.parameter_format.is_binary(index) {
        numeric::decimal(bytes)
    } else {
        std::str::from_utf8(bytes).ok().map(|text| text.trim().to_string())
    };
    let problem = || client_error(INVALID_PARAMETER, &format!("parameter ${}: expected a numeric, found other bytes", index + 1), None);
    text.map(Some).ok_or_else(problem)
}

/// The days from 1970-01-01 to a date.
fn days(date: NaiveDate) -> i32 {
    let epoch = NaiveDate::default();
    i32::try_from(date.signed_duration_since(epoch).num_days()).unwrap_or(i32::MAX)
}

/// The values in the types of the query's parameters.
pub(super) fn scalars(values: &[Value], inferred: &[Option<DataType>]) -> Result<Vec<ScalarValue>, StoreError> {
    let cast = |(index, (value, kind)): (usize, (&Value, &Option<DataType>))| match kind {
        Some(kind) if !value.is_null() => {
            value.cast_to(kind).map_err(|error| StoreError::Sql { message: format!("parameter ${}: {error}", index + 1) })
        }
        Some(kind) => ScalarValue::try_from(kind).map_err(|error| StoreError::Sql { message: error.to_string() }),
        None => Ok(value.clone()),
    };
    values.iter().zip(inferred).enumerate().map(cast).collect()
}
