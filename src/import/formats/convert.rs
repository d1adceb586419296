//! Arrays of one type as arrays of another, without loss.
//!
//! Knows types and values. Knows no file.

use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, FixedSizeListArray, ListArray, MapArray, NullArray, StringArray, StructArray, new_null_array,
};
use arrow::compute::{CastOptions, cast, cast_with_options};
use arrow::datatypes::{DataType, Field, Fields, Int64Type, UInt64Type};
use arrow::error::ArrowError;

use super::columns::ColumnType;

/// A value that cannot be converted.
pub(super) struct Problem {
    /// Its row in the array, from 0; `None` for a problem of the whole array.
    pub(super) row: Option<usize>,
    pub(super) problem: String,
}

impl From<ArrowError> for Problem {
    fn from(error: ArrowError) -> Self {
        Self { row: None, problem: super::batches::arrow_message(error) }
    }
}

/// The array as `target`, a type that the union of types made of the array's own.
pub(super) fn convert(array: &ArrayRef, target: &DataType) -> Result<ArrayRef, Problem> {
    if array.data_type() == target {
        return Ok(array.clone());
    }
    match (array.data_type(), target) {
        (DataType::Null, _) => Ok(new_null_array(target, array.len())),
        (DataType::Struct(fields), DataType::Null) if fields.is_empty() => Ok(Arc::new(NullArray::new(array.len()))),
        (DataType::Dictionary(_, values), _) => convert(&cast(array, values)?, target),
        (DataType::RunEndEncoded(_, values), _) => convert(&cast(array, values.data_type())?, target),
        (DataType::LargeList(item) | DataType::ListView(item) | DataType::LargeListView(item), DataType::List(_)) => {
            convert(&cast(array, &DataType::List(item.clone()))?, target)
        }
        (DataType::FixedSizeList(..), DataType::List(item)) => Ok(from_fixed(array.as_fixed_size_list(), item)?),
        (DataType::List(_), DataType::List(item)) => {
            let lists: &ListArray = array.as_list();
            let values = convert(lists.values(), item.data_type()).map_err(|problem| Problem { row: None, ..problem })?;
            Ok(Arc::new(ListArray::try_new(item.clone(), lists.offsets().clone(), values, lists.nulls().cloned())?))
        }
        (DataType::Struct(_), DataType::Struct(fields)) => {
            let columns = by_name(array.as_struct(), fields)?;
            Ok(Arc::new(StructArray::try_new(fields.clone(), columns, array.nulls().cloned())?))
        }
        (DataType::Map(..), DataType::Map(entries, sorted)) => {
            let map = array.as_map();
            let DataType::Struct(fields) = entries.data_type() else { return Err(loses(array, target, None)) };
            let columns = map.entries().columns().iter().zip(fields).map(|(column, field)| convert(column, field.data_type()));
            let columns = columns.collect::<Result<_, _>>().map_err(|problem| Problem { row: None, ..problem })?;
            let values = StructArray::try_new(fields.clone(), columns, None)?;
            Ok(Arc::new(MapArray::try_new(entries.clone(), map.offsets().clone(), values, map.nulls().cloned(), *sorted)?))
        }
        _ => exact(array, target),
    }
}

/// The array cast to `target`. Fails if a value is not the same again when it is cast back.
fn exact(array: &ArrayRef, target: &DataType) -> Result<ArrayRef, Problem> {
    let lenient = CastOptions { safe: true, ..CastOptions::default() };
    let converted = cast_with_options(array, target, &lenient)?;
    if let Some(row) = (0..array.len()).find(|row| array.is_valid(*row) && converted.is_null(*row)) {
        return Err(loses(array, target, Some(row)));
    }
    // Texts of numbers are equal by construction.
    if array.data_type().is_numeric() && target.is_numeric() {
        let back = cast_with_options(&converted, array.data_type(), &lenient)?;
        if let Some(row) = rounded(array, target).or_else(|| differing(array, &back)) {
            return Err(loses(array, target, Some(row)));
        }
    }
    Ok(converted)
}

/// The first row whose values differ. NaN equals NaN.
fn differing(one: &ArrayRef, other: &ArrayRef) -> Option<usize> {
    if one == other {
        return None;
    }
    let rows = one.len();
    let options = arrow::util::display::FormatOptions::default();
    let texts = |array| arrow::util::display::ArrayFormatter::try_new(array, &options);
    let (Ok(one), Ok(other)) = (texts(one.as_ref()), texts(other.as_ref())) else { return Some(0) };
    // Floats are written so that equal texts are equal numbers.
    (0..rows).find(|row| one.value(*row).to_string() != other.value(*row).to_string())
}

/// The first row with an integer that no 64-bit float equals. Cast back, one near 2^63 would seem
/// equal.
fn rounded(array: &ArrayRef, target: &DataType) -> Option<usize> {
    if *target != DataType::Float64 {
        return None;
    }
    let rounds = |value: i128| (value as f64) as i128 != value;
    match array.data_type() {
        DataType::Int64 => array.as_primitive::<Int64Type>().iter().position(|value| value.is_some_and(|value| rounds(value.into()))),
        DataType::UInt64 => array.as_primitive::<UInt64Type>().iter().position(|value| value.is_some_and(|value| rounds(value.into()))),
        _ => None,
    }
}

fn loses(array: &ArrayRef, target: &DataType, row: Option<usize>) -> Problem {
    let value = row.and_then(|row| arrow::util::display::array_value_to_string(array, row).ok());
    let value = value.map_or(String::new(), |value| format!(" {value}"));
    Problem { row, problem: format!("expected a value that {target} holds, as other files need, found {}{value}", array.data_type()) }
}

/// Lists of one length as lists of any; null lists become empty ones.
fn from_fixed(lists: &FixedSizeListArray, item: &Arc<Field>) -> Result<ArrayRef, Problem> {
    let length = usize::try_from(lists.value_length()).unwrap_or(0);
    let values = lists.values().slice(lists.value_offset(0) as usize * usize::from(!lists.is_empty()), length * lists.len());
    let values = convert(&values, item.data_type()).map_err(|problem| Problem { row: None, ..problem })?;
    let offsets = arrow::buffer::OffsetBuffer::from_repeated_length(length, lists.len());
    Ok(Arc::new(ListArray::try_new(item.clone(), offsets, values, lists.nulls().cloned())?))
}

/// The fields of a struct in the order of `fields`; null where the struct has none of the name.
fn by_name(structs: &StructArray, fields: &Fields) -> Result<Vec<ArrayRef>, Problem> {
    let column = |field: &Arc<Field>| match structs.column_by_name(field.name()) {
        Some(column) => convert(column, field.data_type())
            .map_err(|problem| Problem { problem: format!("{}: {}", field.name(), problem.problem), ..problem }),
        None => Ok(new_null_array(field.data_type(), structs.len())),
    };
    fields.iter().map(column).collect()
}

/// The array with the type that the user gives its column.
pub(super) fn given(array: &ArrayRef, column_type: ColumnType) -> Result<ArrayRef, Problem> {
    let target = column_type.data_type();
    let nested = array.data_type().is_nested();
    let wrong = |row: usize| {
        let value = arrow::util::display::array_value_to_string(array, row).unwrap_or_default();
        Problem { row: Some(row), problem: format!("expected {}, found {} {value}", column_type.expected(), array.data_type()) }
    };
    let first = (0..array.len()).find(|row| array.is_valid(*row));
    match (array.data_type(), column_type) {
        (DataType::Null, _) => Ok(new_null_array(&target, array.len())),
        _ if nested => match first {
            Some(row) => Err(wrong(row)),
            None => Ok(new_null_array(&target, array.len())),
        },
        (DataType::Utf8, ColumnType::Json) => {
            let texts: &StringArray = array.as_string();
            let bad = (0..texts.len()).find(|row| texts.is_valid(*row) && super::json::check(texts.value(*row)).is_err());
            bad.map_or_else(|| Ok(array.clone()), |row| Err(wrong(row)))
        }
        (_, ColumnType::Text) => {
            let texts = cast_with_options(array, &target, &CastOptions { safe: true, ..CastOptions::default() })?;
            let lost = (0..array.len()).find(|row| array.is_valid(*row) && texts.is_null(*row));
            lost.map_or(Ok(texts), |row| Err(wrong(row)))
        }
        _ => {
            let lenient = CastOptions { safe: true, ..CastOptions::default() };
            let converted = cast_with_options(array, &target, &lenient)?;
            if let Some(row) = (0..array.len()).find(|row| array.is_valid(*row) && converted.is_null(*row)) {
                return Err(wrong(row));
            }
            if array.data_type().is_numeric() { exact(array, &target) } else { Ok(converted) }
        }
    }
}
