//! Rows on the wire: the PostgreSQL types and values of columns.
//!
//! | Arrow | PostgreSQL |
//! |---|---|
//! | Boolean; Int8, Int16; Int32; other integers | bool; int2; int4; int8 |
//! | Float16, Float32; Float64 | float4; float8 |
//! | Utf8 and its like | text |
//! | Decimal; Binary | numeric; bytea |
//! | Timestamp without and with a time zone; Date32, Date64 | timestamp, timestamptz; date |
//! | lists of Boolean, Int16, Int32, Int64, Float32, Float64, Utf8 | bool[], int2[], int4[], int8[], float4[], float8[], text[] |
//! | all else: structs, maps, lists of those | text, as printed by `optune sql` |

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch};
use arrow::compute::{CastOptions, cast_with_options};
use arrow::datatypes::{
    DataType, Date32Type, Field, Float32Type, Float64Type, Int16Type, Int32Type, Int64Type, Schema, TimeUnit, TimestampMicrosecondType,
    UInt32Type,
};
use arrow::util::display::{ArrayFormatter, FormatOptions};
use chrono::{DateTime, Days, NaiveDate};
use pgwire::api::Type;
use pgwire::api::portal::Format;
use pgwire::api::results::{CopyEncoder, DataRowEncoder, FieldInfo};
use pgwire::error::PgWireResult;
use pgwire::messages::data::DataRow;
use pgwire::types::ToSqlText;
use postgres_types::ToSql;

use super::errors::{NOT_SENT, PROTOCOL, client_error};
use super::numeric::Numeric;

/// The key of a field's metadata for the PostgreSQL type of a text, where it is not text.
pub(super) const AS_TYPE: &str = "postgres";

/// The type of a field on the wire.
fn field_type(field: &Field) -> Type {
    match field.metadata().get(AS_TYPE).map(String::as_str) {
        Some("char") => Type::CHAR,
        _ => postgres_type(field.data_type()),
    }
}

/// The type of a column on the wire.
pub(super) fn postgres_type(kind: &DataType) -> Type {
    match kind {
        DataType::Boolean => Type::BOOL,
        DataType::Int8 | DataType::Int16 | DataType::UInt8 => Type::INT2,
        DataType::Int32 | DataType::UInt16 => Type::INT4,
        DataType::Int64 | DataType::UInt32 | DataType::UInt64 => Type::INT8,
        DataType::Float16 | DataType::Float32 => Type::FLOAT4,
        DataType::Float64 => Type::FLOAT8,
        DataType::Decimal32(..) | DataType::Decimal64(..) | DataType::Decimal128(..) | DataType::Decimal256(..) => Type::NUMERIC,
        DataType::Binary | DataType::LargeBinary | DataType::BinaryView | DataType::FixedSizeBinary(_) => Type::BYTEA,
        DataType::Timestamp(_, None) => Type::TIMESTAMP,
        DataType::Timestamp(_, Some(_)) => Type::TIMESTAMPTZ,
        DataType::Date32 | DataType::Date64 => Type::DATE,
        DataType::List(item) | DataType::LargeList(item) => match item.data_type() {
            DataType::Boolean => Type::BOOL_ARRAY,
            DataType::Int16 => Type::INT2_ARRAY,
            DataType::Float32 => Type::FLOAT4_ARRAY,
            DataType::Int32 => Type::INT4_ARRAY,
            DataType::Int64 => Type::INT8_ARRAY,
            // asyncpg looks types up by a list of oids.
            DataType::UInt32 => Type::OID_ARRAY,
            DataType::Float64 => Type::FLOAT8_ARRAY,
            DataType::Utf8 => Type::TEXT_ARRAY,
            _ => Type::TEXT,
        },
        _ => Type::TEXT,
    }
}

/// The description of the columns for a client.
pub(super) fn fields(schema: &Schema, format: &Format) -> PgWireResult<Vec<FieldInfo>> {
    if let Format::Individual(formats) = format
        && formats.len() != schema.fields().len()
    {
        let problem = format!("expected formats of {} columns, found {}", schema.fields().len(), formats.len());
        return Err(client_error(PROTOCOL, &problem, None));
    }
    let field = |(index, field): (usize, &Arc<Field>)| {
        FieldInfo::new(field.name().clone(), None, None, field_type(field), format.format_for(index))
    };
    Ok(schema.fields().iter().enumerate().map(field).collect())
}

/// Writes the rows of one result.
pub(super) struct Encoder {
    fields: Arc<Vec<FieldInfo>>,
}

impl Encoder {
    /// For rows of this schema.
    pub fn new(schema: &Schema, format: &Format) -> PgWireResult<Self> {
        Ok(Self { fields: Arc::new(fields(schema, format)?) })
    }

    /// The description of the columns.
    pub fn fields(&self) -> Arc<Vec<FieldInfo>> {
        self.fields.clone()
    }

    /// The rows of a batch.
    pub fn rows(&self, batch: &RecordBatch) -> PgWireResult<Vec<PgWireResult<DataRow>>> {
        let columns = Columns::new(batch, &self.fields)?;
        let mut encoder = DataRowEncoder::new(self.fields.clone());
        let row = |row| {
            columns.write(row, &mut encoder)?;
            Ok(encoder.take_row())
        };
        Ok((0..batch.num_rows()).map(row).collect())
    }
}

/// Where the values of a row go, one after the other.
pub(super) trait Values {
    /// Adds a value.
    fn add<T: ToSql + ToSqlText + Sized>(&mut self, value: &T) -> PgWireResult<()>;
}

impl Values for DataRowEncoder {
    fn add<T: ToSql + ToSqlText + Sized>(&mut self, value: &T) -> PgWireResult<()> {
        self.encode_field(value)
    }
}

impl Values for CopyEncoder {
    fn add<T: ToSql + ToSqlText + Sized>(&mut self, value: &T) -> PgWireResult<()> {
        self.encode_field(value)
    }
}

/// The columns of a batch in the types of their fields.
pub(super) struct Columns(Vec<Column>);

impl Columns {
    pub fn new(batch: &RecordBatch, fields: &[FieldInfo]) -> PgWireResult<Self> {
        let columns = batch.columns().iter().zip(fields);
        columns.map(|(array, field)| Column::new(array, field.datatype())).collect::<PgWireResult<_>>().map(Self)
    }

    /// Writes a row.
    pub fn write(&self, row: usize, values: &mut impl Values) -> PgWireResult<()> {
        self.0.iter().try_for_each(|column| column.write(row, values))
    }
}

/// A column's values in the type of its field.
struct Column {
    array: ArrayRef,
    kind: Type,
}

impl Column {
    fn new(array: &ArrayRef, kind: &Type) -> PgWireResult<Self> {
        let target = match *kind {
            Type::INT2 => DataType::Int16,
            Type::INT4 => DataType::Int32,
            Type::INT8 => DataType::Int64,
            Type::FLOAT4 => DataType::Float32,
            Type::FLOAT8 => DataType::Float64,
            Type::TIMESTAMP => DataType::Timestamp(TimeUnit::Microsecond, None),
            Type::TIMESTAMPTZ => DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into())),
            Type::BYTEA => DataType::Binary,
            Type::DATE => DataType::Date32,
            Type::TEXT if matches!(array.data_type(), DataType::LargeUtf8 | DataType::Utf8View | DataType::Dictionary(..)) => {
                DataType::Utf8
            }
            _ => array.data_type().clone(),
        };
        let options = CastOptions { safe: false, ..CastOptions::default() };
        let array = cast_with_options(array, &target, &options).map_err(|error| client_error(NOT_SENT, &error.to_string(), None))?;
        Ok(Self { array, kind: kind.clone() })
    }

    fn write(&self, row: usize, values: &mut impl Values) -> PgWireResult<()> {
        let array = &self.array;
        // An array of the type of nothing has no bits for it.
        if array.is_null(row) || *array.data_type() == DataType::Null {
            return values.add(&None::<i32>);
        }
        match self.kind {
            Type::BOOL => values.add(&array.as_boolean().value(row)),
            Type::INT2 => values.add(&array.as_primitive::<Int16Type>().value(row)),
            Type::INT4 => values.add(&array.as_primitive::<Int32Type>().value(row)),
            Type::INT8 => values.add(&array.as_primitive::<Int64Type>().value(row)),
            Type::FLOAT4 => values.add(&array.as_primitive::<Float32Type>().value(row)),
            Type::FLOAT8 => values.add(&array.as_primitive::<Float64Type>().value(row)),
            Type::TIMESTAMP => {
                let micros = array.as_primitive::<TimestampMicrosecondType>().value(row);
                values.add(&DateTime::from_timestamp_micros(micros).map(|time| time.naive_utc()))
            }
            Type::TIMESTAMPTZ => {
                let micros = array.as_primitive::<TimestampMicrosecondType>().value(row);
                values.add(&DateTime::from_timestamp_micros(micros))
            }
            Type::NUMERIC => values.add(&Numeric(printed(array, row)?)),
            Type::BYTEA => values.add(&array.as_binary::<i32>().value(row)),
            Type::DATE => values.add(&date(array.as_primitive::<Date32Type>().value(row))),
            Type::BOOL_ARRAY => values.add(&item(array, row).as_boolean().iter().collect::<Vec<_>>()),
            Type::INT2_ARRAY => values.add(&item(array, row).as_primitive::<Int16Type>().iter().collect::<Vec<_>>()),
            Type::FLOAT4_ARRAY => values.add(&item(array, row).as_primitive::<Float32Type>().iter().collect::<Vec<_>>()),
            Type::INT4_ARRAY => values.add(&item(array, row).as_primitive::<Int32Type>().iter().collect::<Vec<_>>()),
            Type::OID_ARRAY => values.add(&item(array, row).as_primitive::<UInt32Type>().iter().collect::<Vec<_>>()),
            Type::INT8_ARRAY => values.add(&item(array, row).as_primitive::<Int64Type>().iter().collect::<Vec<_>>()),
            Type::FLOAT8_ARRAY => values.add(&item(array, row).as_primitive::<Float64Type>().iter().collect::<Vec<_>>()),
            Type::TEXT_ARRAY => {
                let items = item(array, row);
                values.add(&items.as_string::<i32>().iter().map(|text| text.map(String::from)).collect::<Vec<_>>())
            }
            _ => match array.as_string_opt::<i32>() {
                Some(texts) => values.add(&texts.value(row)),
                None => values.add(&printed(array, row)?),
            },
        }
    }
}

/// The items of a list.
fn item(array: &ArrayRef, row: usize) -> ArrayRef {
    match array.as_list_opt::<i32>() {
        Some(list) => list.value(row),
        None => array.as_list::<i64>().value(row),
    }
}

/// The date this many days after 1970-01-01; `None` outside the range of dates.
fn date(days: i32) -> Option<NaiveDate> {
    let epoch = NaiveDate::from_ymd_opt(1970, 1, 1)?;
    let count = Days::new(u64::from(days.unsigned_abs()));
    if days < 0 { epoch.checked_sub_days(count) } else { epoch.checked_add_days(count) }
}

/// A value as `optune sql` prints it.
fn printed(array: &ArrayRef, row: usize) -> PgWireResult<String> {
    let failed = |error: arrow::error::ArrowError| client_error(NOT_SENT, &error.to_string(), None);
    let options = FormatOptions::default();
    ArrayFormatter::try_new(array.as_ref(), &options).map_err(failed)?.value(row).try_to_string().map_err(failed)
}
