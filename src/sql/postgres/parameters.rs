//! The values of `$1`, `$2`, …: from the wire to what the engine compares with.

use arrow::datatypes::DataType;
use datafusion::common::ScalarValue;
use pgwire::api::Type;
use pgwire::api::portal::{Format, Portal};
use pgwire::error::PgWireResult;

use super::answer::failed;
use super::rows::postgres_type;
use super::statement::Statement;
use crate::store::StoreError;

/// SQLSTATE of a value that is not of its type.
const INVALID: &str = "22P02";

/// A value as it came.
pub(super) type Value = ScalarValue;

/// The values that a client bound, in their order. A client says which type each has, or leaves it to the query.
pub(super) fn read(portal: &Portal<Statement>, inferred: &[Option<DataType>]) -> PgWireResult<Vec<Value>> {
    if portal.parameter_len() != inferred.len() {
        let problem = format!("expected {} values of parameters, found {}", inferred.len(), portal.parameter_len());
        return Err(failed(INVALID, &problem, None));
    }
    if let Format::Individual(formats) = &portal.parameter_format
        && formats.len() != inferred.len()
    {
        return Err(failed(INVALID, &format!("expected formats of {} parameters, found {}", inferred.len(), formats.len()), None));
    }
    let value = |(index, inferred): (usize, &Option<DataType>)| {
        let said = portal.statement.parameter_types.get(index).cloned().flatten().filter(|kind| *kind != Type::UNKNOWN);
        let kind = said.unwrap_or_else(|| inferred.as_ref().map_or(Type::TEXT, postgres_type));
        match kind {
            Type::BOOL => Ok(ScalarValue::Boolean(portal.parameter(index, &kind)?)),
            Type::INT2 => Ok(ScalarValue::Int16(portal.parameter(index, &kind)?)),
            Type::INT4 => Ok(ScalarValue::Int32(portal.parameter(index, &kind)?)),
            Type::INT8 => Ok(ScalarValue::Int64(portal.parameter(index, &kind)?)),
            Type::FLOAT4 => Ok(ScalarValue::Float32(portal.parameter(index, &kind)?)),
            Type::FLOAT8 => Ok(ScalarValue::Float64(portal.parameter(index, &kind)?)),
            Type::TEXT | Type::VARCHAR | Type::BPCHAR | Type::NAME => Ok(ScalarValue::Utf8(portal.parameter(index, &Type::TEXT)?)),
            other => {
                Err(failed(INVALID, &format!("parameter ${}: expected a number, a text or a truth value, found {other}", index + 1), None))
            }
        }
    };
    inferred.iter().enumerate().map(value).collect()
}

/// The values in the types that the query compares them in.
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
