//! One type for a column of several files, by the rules of DuckDB's `union_by_name`, as far as no
//! value loses anything.
//!
//! Types are first made simple: a dictionary is its values, all lists are `List`, all texts are
//! `Utf8`. Knows no file.

use std::sync::Arc;

use arrow::datatypes::{DataType, Field, FieldRef, Fields, IntervalUnit, TimeUnit};

use super::columns::is_json;

/// The most digits of a decimal of 128 bits.
const DECIMAL_DIGITS: u8 = 38;

/// The type in its simple form.
pub(super) fn simple(data_type: &DataType) -> DataType {
    match data_type {
        DataType::Dictionary(_, values) => simple(values),
        DataType::RunEndEncoded(_, values) => simple(values.data_type()),
        DataType::LargeUtf8 | DataType::Utf8View => DataType::Utf8,
        DataType::LargeBinary | DataType::BinaryView => DataType::Binary,
        DataType::Decimal32(digits, scale) | DataType::Decimal64(digits, scale) => DataType::Decimal128(*digits, *scale),
        DataType::List(item)
        | DataType::LargeList(item)
        | DataType::FixedSizeList(item, _)
        | DataType::ListView(item)
        | DataType::LargeListView(item) => list_of(simple_field(item)),
        // Parquet has no struct without fields.
        DataType::Struct(fields) if fields.is_empty() => DataType::Null,
        DataType::Struct(fields) => DataType::Struct(fields.iter().map(|field| simple_field(field)).collect()),
        DataType::Map(entries, _) => match entries.data_type() {
            DataType::Struct(fields) => map_of(fields.iter().map(|field| simple_field(field)).collect()),
            _ => data_type.clone(),
        },
        other => other.clone(),
    }
}

/// A nullable field of the simple type, with its extension type.
pub(super) fn simple_field(field: &Field) -> Field {
    Field::new(field.name(), simple(field.data_type()), true).with_metadata(field.metadata().clone())
}

fn list_of(item: Field) -> DataType {
    DataType::List(Arc::new(item.with_name(Field::LIST_FIELD_DEFAULT_NAME)))
}

/// A map of these two fields.
fn map_of(fields: Vec<Field>) -> DataType {
    let named = fields.into_iter().zip([("key", false), ("value", true)]);
    let fields: Fields = named.map(|(field, (name, nullable))| field.with_name(name).with_nullable(nullable)).collect();
    DataType::Map(Arc::new(Field::new("entries", DataType::Struct(fields), false)), false)
}

/// A field that has the values of both; `None` if there is none.
pub(super) fn union_field(one: &Field, other: &Field) -> Option<Field> {
    let empty = |field: &Field| *field.data_type() == DataType::Null;
    if empty(one) || empty(other) {
        let known = if empty(one) { other } else { one };
        return Some(known.clone().with_name(one.name()));
    }
    // JSON text and plain text are no common type: one has quotes.
    if is_json(one) != is_json(other) {
        return None;
    }
    Some(one.clone().with_data_type(union(one.data_type(), other.data_type())?))
}

/// A type that has the values of both simple types; `None` if there is none.
fn union(one: &DataType, other: &DataType) -> Option<DataType> {
    use DataType::{Date32, Date64, Decimal128, Decimal256, FixedSizeBinary, Float16, Float32, Float64, Time32, Time64, Timestamp};
    Some(match (one, other) {
        _ if one == other => one.clone(),
        (DataType::Null, known) | (known, DataType::Null) => known.clone(),
        (DataType::List(one), DataType::List(other)) => list_of(union_field(one, other)?),
        (DataType::Struct(one), DataType::Struct(other)) => DataType::Struct(union_fields(one, other)?.into()),
        (DataType::Map(one, _), DataType::Map(other, _)) => match (one.data_type(), other.data_type()) {
            (DataType::Struct(one), DataType::Struct(other)) => {
                let both = one.iter().zip(other).map(|(one, other)| union_field(one, other));
                map_of(both.collect::<Option<_>>()?)
            }
            _ => return None,
        },
        (integer, DataType::Utf8) | (DataType::Utf8, integer) if integer.is_integer() => DataType::Utf8,
        (one, other) if one.is_integer() && other.is_integer() => union_integers(one, other),
        (integer, Decimal128(digits, scale)) | (Decimal128(digits, scale), integer) if integer.is_integer() => {
            decimal(20.max(digits.saturating_sub((*scale).try_into().ok()?)), *scale)?
        }
        (Float16 | Float32 | Float64, number) | (number, Float16 | Float32 | Float64) if number.is_numeric() => match (one, other) {
            (Float16, Float32) | (Float32, Float16) => Float32,
            (_, Decimal128(..) | Decimal256(..)) | (Decimal128(..) | Decimal256(..), _) => return None,
            _ => Float64,
        },
        (Decimal128(one, scale), Decimal128(other, other_scale)) => {
            let whole = |digits: u8, scale: i8| digits.checked_sub(scale.try_into().ok()?);
            decimal(whole(*one, *scale)?.max(whole(*other, *other_scale)?), *scale.max(other_scale))?
        }
        (Date32, Date64) | (Date64, Date32) => Date64,
        (Date32 | Date64, time @ Timestamp(_, None)) | (time @ Timestamp(_, None), Date32 | Date64) => time.clone(),
        (Timestamp(one, zone), Timestamp(other, other_zone)) if zone.is_some() == other_zone.is_some() => {
            Timestamp(finer(*one, *other), zone.clone())
        }
        (Time32(one) | Time64(one), Time32(other) | Time64(other)) => match finer(*one, *other) {
            unit @ (TimeUnit::Second | TimeUnit::Millisecond) => Time32(unit),
            unit => Time64(unit),
        },
        (DataType::Binary, FixedSizeBinary(_)) | (FixedSizeBinary(_), DataType::Binary | FixedSizeBinary(_)) => DataType::Binary,
        _ => return None,
    })
}

/// The fields of both, those of the first in front.
fn union_fields(one: &Fields, other: &Fields) -> Option<Vec<FieldRef>> {
    let mut fields = Vec::with_capacity(one.len());
    for field in one {
        fields.push(match other.find(field.name()) {
            Some((_, other)) => union_field(field, other)?.into(),
            None => field.clone(),
        });
    }
    fields.extend(other.iter().filter(|field| one.find(field.name()).is_none()).cloned());
    Some(fields)
}

fn union_integers(one: &DataType, other: &DataType) -> DataType {
    use DataType::{Decimal128, Int16, Int32, Int64};
    let bytes = |data_type: &DataType| data_type.primitive_width().unwrap_or(8);
    let wider = if bytes(one) >= bytes(other) { one } else { other };
    if one.is_signed_integer() == other.is_signed_integer() {
        return wider.clone();
    }
    let (signed, unsigned) = if one.is_signed_integer() { (one, other) } else { (other, one) };
    match bytes(unsigned) {
        width if width < bytes(signed) => signed.clone(),
        1 => Int16,
        2 => Int32,
        4 => Int64,
        // Both ranges are within 20 digits. DuckDB has integers of 128 bits.
        _ => Decimal128(20, 0),
    }
}

/// A decimal with `whole` digits before and `scale` behind the point, if there is one.
fn decimal(whole: u8, scale: i8) -> Option<DataType> {
    let digits = whole.checked_add(u8::try_from(scale).ok()?)?;
    (digits <= DECIMAL_DIGITS).then_some(DataType::Decimal128(digits, scale))
}

fn finer(one: TimeUnit, other: TimeUnit) -> TimeUnit {
    let rank = |unit: TimeUnit| match unit {
        TimeUnit::Second => 0,
        TimeUnit::Millisecond => 1,
        TimeUnit::Microsecond => 2,
        TimeUnit::Nanosecond => 3,
    };
    if rank(one) >= rank(other) { one } else { other }
}

/// The name of a type, or of one inside, that is not read; `None` if all are.
pub(super) fn unreadable(data_type: &DataType) -> Option<&'static str> {
    match data_type {
        // Parquet's months would be lost, and Parquet cannot hold Arrow's.
        DataType::Interval(IntervalUnit::YearMonth | IntervalUnit::DayTime | IntervalUnit::MonthDayNano) => Some("INTERVAL"),
        DataType::Union(..) => Some("UNION"),
        DataType::List(item) | DataType::Map(item, _) => unreadable(item.data_type()),
        DataType::Struct(fields) => fields.iter().find_map(|field| unreadable(field.data_type())),
        _ => None,
    }
}
