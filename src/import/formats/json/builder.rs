//! Arrow arrays from JSON values of known types.
//!
//! Knows no file and no row.

use std::sync::Arc;

use arrow::array::{
    ArrayRef, BooleanBuilder, Float64Builder, Int64Builder, ListArray, NullArray, NullBufferBuilder, StringBuilder, StructArray,
    UInt64Builder,
};
use arrow::buffer::{OffsetBuffer, ScalarBuffer};
use arrow::datatypes::{FieldRef, Fields};
use arrow::error::ArrowError;
use indexmap::IndexMap;

use super::shape::ValueType;
use super::value::{Item, Value};

/// The builder of a column.
pub(super) enum Builder {
    Null(usize),
    Boolean(BooleanBuilder),
    Int64(Int64Builder),
    UInt64(UInt64Builder),
    Float64(Float64Builder),
    Text(StringBuilder),
    Json(StringBuilder),
    List { field: FieldRef, item: Box<Builder>, offsets: Vec<i32>, nulls: NullBufferBuilder },
    Struct { fields: Fields, columns: IndexMap<String, Builder>, nulls: NullBufferBuilder },
}

impl Builder {
    /// The builder of a column of this type.
    pub(super) fn new(value_type: &ValueType) -> Self {
        match value_type {
            ValueType::Null => Self::Null(0),
            ValueType::Boolean => Self::Boolean(BooleanBuilder::new()),
            ValueType::Int64 => Self::Int64(Int64Builder::new()),
            ValueType::UInt64 => Self::UInt64(UInt64Builder::new()),
            ValueType::Float64 => Self::Float64(Float64Builder::new()),
            ValueType::Text => Self::Text(StringBuilder::new()),
            ValueType::Json => Self::Json(StringBuilder::new()),
            ValueType::List(item) => Self::List {
                field: item.field(arrow::datatypes::Field::LIST_FIELD_DEFAULT_NAME).into(),
                item: Box::new(Self::new(item)),
                offsets: vec![0],
                nulls: NullBufferBuilder::new(0),
            },
            ValueType::Struct(fields) => Self::Struct {
                fields: fields.iter().map(|(name, value_type)| value_type.field(name)).collect(),
                columns: fields.iter().map(|(name, value_type)| (name.clone(), Self::new(value_type))).collect(),
                nulls: NullBufferBuilder::new(0),
            },
        }
    }

    /// Appends a value. Fails if it has not the builder's type.
    pub(super) fn append(&mut self, item: &Item) -> Result<(), String> {
        if matches!(item.value, Value::Null) {
            self.append_null();
            return Ok(());
        }
        match (self, &item.value) {
            (Self::Null(length), value) => match value {
                // An object without members, in all rows.
                Value::Object(members) if members.is_empty() => *length += 1,
                _ => return Err(format!("expected null, found {}", value.kind())),
            },
            (Self::Boolean(values), Value::Boolean(value)) => values.append_value(*value),
            (Self::Int64(values), Value::Number(written)) => values.append_value(number(written, "an integer of 64 bits")?),
            (Self::UInt64(values), Value::Number(written)) => values.append_value(number(written, "an integer of 64 bits")?),
            (Self::Float64(values), Value::Number(written)) => values.append_value(float(written)?),
            (Self::Text(texts), Value::Text(text)) => texts.append_value(text),
            (Self::Text(texts), Value::Number(_) | Value::Boolean(_)) | (Self::Json(texts), _) => texts.append_value(item.raw),
            (Self::List { item, offsets, nulls, .. }, Value::List(items)) => {
                items.iter().try_for_each(|value| item.append(value))?;
                let before = offsets.last().copied().unwrap_or(0);
                let end = i32::try_from(items.len()).ok().and_then(|count| before.checked_add(count));
                offsets.push(end.ok_or("expected lists of at most 2^31 items in a batch, found more")?);
                nulls.append_non_null();
            }
            (Self::Struct { columns, nulls, .. }, Value::Object(members)) => {
                append_members(columns, nulls.len(), members)?;
                nulls.append_non_null();
            }
            (builder, value) => return Err(format!("expected {}, found {}", builder.kind(), value.kind())),
        }
        Ok(())
    }

    fn append_null(&mut self) {
        match self {
            Self::Null(length) => *length += 1,
            Self::Boolean(values) => values.append_null(),
            Self::Int64(values) => values.append_null(),
            Self::UInt64(values) => values.append_null(),
            Self::Float64(values) => values.append_null(),
            Self::Text(texts) | Self::Json(texts) => texts.append_null(),
            Self::List { offsets, nulls, .. } => {
                offsets.push(offsets.last().copied().unwrap_or(0));
                nulls.append_null();
            }
            Self::Struct { columns, nulls, .. } => {
                columns.values_mut().for_each(Self::append_null);
                nulls.append_null();
            }
        }
    }

    fn kind(&self) -> &'static str {
        match self {
            Self::Null(_) => "null",
            Self::Boolean(_) => "a Boolean",
            Self::Int64(_) | Self::UInt64(_) => "an integer",
            Self::Float64(_) => "a number",
            Self::Text(_) => "text",
            Self::Json(_) => "JSON",
            Self::List { .. } => "a list",
            Self::Struct { .. } => "an object",
        }
    }

    fn len(&self) -> usize {
        use arrow::array::ArrayBuilder;
        match self {
            Self::Null(length) => *length,
            Self::Boolean(values) => values.len(),
            Self::Int64(values) => values.len(),
            Self::UInt64(values) => values.len(),
            Self::Float64(values) => values.len(),
            Self::Text(texts) | Self::Json(texts) => texts.len(),
            Self::List { offsets, .. } => offsets.len() - 1,
            Self::Struct { nulls, .. } => nulls.len(),
        }
    }

    /// The array of all values so far; the builder is empty again.
    pub(super) fn finish(&mut self) -> Result<ArrayRef, ArrowError> {
        Ok(match self {
            Self::Null(length) => Arc::new(NullArray::new(std::mem::take(length))),
            Self::Boolean(values) => Arc::new(values.finish()),
            Self::Int64(values) => Arc::new(values.finish()),
            Self::UInt64(values) => Arc::new(values.finish()),
            Self::Float64(values) => Arc::new(values.finish()),
            Self::Text(texts) | Self::Json(texts) => Arc::new(texts.finish()),
            Self::List { field, item, offsets, nulls } => {
                let offsets = OffsetBuffer::new(ScalarBuffer::from(std::mem::replace(offsets, vec![0])));
                Arc::new(ListArray::try_new(field.clone(), offsets, item.finish()?, nulls.finish())?)
            }
            Self::Struct { fields, columns, nulls } => {
                let arrays = columns.values_mut().map(Self::finish).collect::<Result<_, _>>()?;
                Arc::new(StructArray::try_new(fields.clone(), arrays, nulls.finish())?)
            }
        })
    }
}

/// Appends the members of an object to the columns of their names, which have `row` values each.
/// Other columns get null. Members without a column are left out.
pub(super) fn append_members(
    columns: &mut IndexMap<String, Builder>,
    row: usize,
    members: &[(std::borrow::Cow<str>, Item)],
) -> Result<(), String> {
    for (name, item) in members {
        if let Some(column) = columns.get_mut(name.as_ref()) {
            column.append(item).map_err(|problem| format!("{name}: {problem}"))?;
        }
    }
    columns.values_mut().filter(|column| column.len() == row).for_each(Builder::append_null);
    Ok(())
}

fn number<T: std::str::FromStr>(written: &str, expected: &str) -> Result<T, String> {
    written.parse().map_err(|_| format!("expected {expected}, found {written}"))
}

fn float(written: &str) -> Result<f64, String> {
    let number: f64 = number(written, "a number")?;
    let exact = number.is_finite() && (written.contains(['.', 'e', 'E']) || super::shape::has_equal_float(written));
    if exact { Ok(number) } else { Err(format!("expected a number of 64 bits, found {written}: no such number equals it")) }
}
