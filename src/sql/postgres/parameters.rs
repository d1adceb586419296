//! The values of `$1`, `$2`, …: from the wire to the engine's types.

use arrow::datatypes::DataType;
use datafusion::common::ScalarValue;
use pgwire::api::Type;
use pgwire::api::portal::{Format, Portal};
use pgwire::error::PgWireResult;

use super::errors::{INVALID_PARAMETER, client_error};
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
            Type::TEXT | Type::VARCHAR | Type::BPCHAR | Type::NAME => Ok(ScalarValue::Utf8(portal.parameter(index, &Type::TEXT)?)),
            other => Err(client_error(
                INVALID_PARAMETER,
                &format!("parameter ${}: expected a number, a text or a truth value, found {other}", index + 1),
                None,
            )),
        }
    };
    inferred.iter().enumerate().map(value).collect()
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
