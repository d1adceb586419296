//! Values of Arrow columns as JSON values. Knows no column by name.

use arrow::array::{Array, ArrayRef, AsArray};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Field, FieldRef};
use arrow::util::display::array_value_to_string;
use serde_json::{Map, Value};

use super::formats::is_json;

/// A JSON text as a value; `name` is for the error.
///
/// # Errors
/// It is no JSON, or has an integer beyond 64 bits.
pub(super) fn parse(name: &str, text: &str) -> Result<Value, String> {
    let beginning = || text.chars().take(60).collect::<String>();
    if let Some(integer) = too_large(text) {
        return Err(format!("{name}: expected integers of at most 64 bits, found {integer}; write it as text"));
    }
    serde_json::from_str(text).map_err(|error| format!("{name}: expected JSON, found {:?} ({error})", beginning()))
}

/// The first integer of a JSON text that is beyond 64 bits: as a value it would lose digits.
fn too_large(text: &str) -> Option<&str> {
    let mut in_text = false;
    let mut escaped = false;
    let mut begin = None;
    for (at, byte) in text.bytes().chain([b' ']).enumerate() {
        let is_number = !in_text && (byte.is_ascii_digit() || b"-+.eE".contains(&byte));
        match (begin, is_number) {
            (None, true) => begin = Some(at),
            (Some(start), false) => {
                let number = &text[start..at];
                let is_integer = number.bytes().all(|byte| byte.is_ascii_digit() || byte == b'-');
                if is_integer && number.len() > 18 && number.parse::<i64>().is_err() && number.parse::<u64>().is_err() {
                    return Some(number);
                }
                begin = None;
            }
            _ => {}
        }
        match byte {
            _ if escaped => escaped = false,
            b'\\' if in_text => escaped = true,
            b'"' => in_text = !in_text,
            _ => {}
        }
    }
    None
}

/// The value in a row. Null fields of a struct are left out: every row has all fields, also those
/// of other rows.
///
/// # Errors
/// A type or a number that JSON has not.
pub(super) fn value_at(field: &Field, array: &dyn Array, row: usize) -> Result<Value, String> {
    let name = field.name();
    let unsupported = || format!("{name}: expected values that JSON has, found {}", array.data_type());
    if array.is_null(row) {
        return Ok(Value::Null);
    }
    match array.data_type() {
        DataType::Null => Ok(Value::Null),
        DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View | DataType::Dictionary(..) => match text_at(array, row) {
            Some(text) if is_json(field) => parse(name, &text),
            Some(text) => Ok(Value::String(text)),
            None => Err(unsupported()),
        },
        DataType::Boolean => Ok(Value::Bool(array.as_boolean().value(row))),
        data_type if data_type.is_signed_integer() => {
            let wide = cast(&array.slice(row, 1), &DataType::Int64).map_err(|error| error.to_string())?;
            Ok(Value::from(wide.as_primitive::<arrow::datatypes::Int64Type>().value(0)))
        }
        data_type if data_type.is_unsigned_integer() => {
            let wide = cast(&array.slice(row, 1), &DataType::UInt64).map_err(|error| error.to_string())?;
            Ok(Value::from(wide.as_primitive::<arrow::datatypes::UInt64Type>().value(0)))
        }
        data_type if data_type.is_floating() => {
            let wide = cast(&array.slice(row, 1), &DataType::Float64).map_err(|error| error.to_string())?;
            let number = wide.as_primitive::<arrow::datatypes::Float64Type>().value(0);
            serde_json::Number::from_f64(number)
                .map(Value::Number)
                .ok_or_else(|| format!("{name}: expected a finite number, found {number}"))
        }
        DataType::Struct(fields) => {
            let columns = array.as_struct();
            let mut object = Map::new();
            for (field, column) in fields.iter().zip(columns.columns()) {
                if column.is_valid(row) && *column.data_type() != DataType::Null {
                    object.insert(field.name().clone(), value_at(field, column, row)?);
                }
            }
            Ok(Value::Object(object))
        }
        DataType::List(item)
        | DataType::LargeList(item)
        | DataType::FixedSizeList(item, _)
        | DataType::ListView(item)
        | DataType::LargeListView(item) => {
            let items = items_at(array, row).ok_or_else(unsupported)?;
            (0..items.len()).map(|index| value_at(item, &items, index)).collect()
        }
        DataType::Map(..) => {
            let entries = array.as_map().value(row);
            let [keys, values] = [0, 1].map(|index| entries.columns().get(index).cloned());
            let (Some(keys), Some(values)) = (keys, values) else { return Err(unsupported()) };
            let field = Field::new(name, values.data_type().clone(), true);
            let mut object = Map::new();
            for index in 0..entries.len() {
                let key = text_at(&keys, index).ok_or_else(unsupported)?;
                object.insert(key, value_at(&field, &values, index)?);
            }
            Ok(Value::Object(object))
        }
        _ => Err(unsupported()),
    }
}

/// The value in a row, of any type: with null fields of structs. A number that is not finite is
/// null, and a value without a form in JSON, as a date, is its text.
///
/// # Errors
/// A text of JSON is none.
pub(crate) fn whole_value_at(field: &Field, array: &dyn Array, row: usize) -> Result<Value, String> {
    // A column of the type Null says of no row that it is null.
    if array.is_null(row) || array.data_type().is_null() {
        return Ok(Value::Null);
    }
    match array.data_type() {
        DataType::Struct(fields) => {
            let columns = fields.iter().zip(array.as_struct().columns());
            let value = |(field, column): (&FieldRef, &ArrayRef)| Ok((field.name().clone(), whole_value_at(field, column, row)?));
            columns.map(value).collect::<Result<Map<_, _>, String>>().map(Value::Object)
        }
        DataType::List(item)
        | DataType::LargeList(item)
        | DataType::FixedSizeList(item, _)
        | DataType::ListView(item)
        | DataType::LargeListView(item) => {
            let items = items_at(array, row).ok_or_else(|| format!("{}: expected a list, found none", field.name()))?;
            (0..items.len()).map(|index| whole_value_at(item, &items, index)).collect()
        }
        DataType::Dictionary(_, values) if !values.is_string() => {
            let value = cast(&array.slice(row, 1), values).map_err(|error| format!("{}: {error}", field.name()))?;
            whole_value_at(field, &value, 0)
        }
        data_type if data_type.is_floating() => Ok(value_at(field, array, row).unwrap_or(Value::Null)),
        DataType::Boolean | DataType::Map(..) => value_at(field, array, row),
        data_type if data_type.is_string() || data_type.is_integer() => value_at(field, array, row),
        DataType::Dictionary(..) => value_at(field, array, row),
        _ => array_value_to_string(array, row).map(Value::String).map_err(|error| format!("{}: {error}", field.name())),
    }
}

/// The text in a row; `None` for a null, and for a column of another type.
pub(super) fn text_at(array: &dyn Array, row: usize) -> Option<String> {
    if array.is_null(row) {
        return None;
    }
    match array.data_type() {
        DataType::Utf8 => Some(array.as_string::<i32>().value(row).to_string()),
        DataType::LargeUtf8 => Some(array.as_string::<i64>().value(row).to_string()),
        DataType::Utf8View => Some(array.as_string_view().value(row).to_string()),
        DataType::Dictionary(_, values) if !matches!(**values, DataType::Dictionary(..)) => {
            let value = cast(&array.slice(row, 1), values).ok()?;
            text_at(&value, 0)
        }
        _ => None,
    }
}

/// The items of the list in a row; `None` for a column of another type.
pub(super) fn items_at(array: &dyn Array, row: usize) -> Option<ArrayRef> {
    match array.data_type() {
        DataType::List(_) => Some(array.as_list::<i32>().value(row)),
        DataType::LargeList(_) => Some(array.as_list::<i64>().value(row)),
        DataType::FixedSizeList(..) => Some(array.as_fixed_size_list().value(row)),
        DataType::ListView(_) => Some(array.as_list_view::<i32>().value(row)),
        DataType::LargeListView(_) => Some(array.as_list_view::<i64>().value(row)),
        _ => None,
    }
}
