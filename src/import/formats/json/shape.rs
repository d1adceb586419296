//! The types of JSON columns, found from the values of all rows.
//!
//! A column whose values have no exact common type becomes JSON text, as in DuckDB. Knows no file.

use std::collections::BTreeSet;

use arrow::datatypes::{DataType, Field};
use indexmap::IndexMap;

use super::value::{Item, Value};
use crate::import::formats::columns::{ColumnType, json_field};

/// A row: its file's index, and its line or number for an error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) file: usize,
    pub(super) line: u64,
    pub(super) row: usize,
}

/// The kinds of values that a column has, each with its first place.
#[derive(Default)]
pub(super) struct Shape {
    boolean: Option<Place>,
    number: Option<(Place, Numbers)>,
    text: Option<Place>,
    list: Option<(Place, Box<Shape>)>,
    object: Option<(Place, IndexMap<String, Shape>)>,
}

/// What the numbers of a column need of a type.
#[derive(Clone, Copy, Default)]
struct Numbers {
    /// One is written with a point or an exponent.
    fraction: bool,
    /// One integer has no equal 64-bit float.
    inexact: bool,
    below_zero: bool,
    /// One integer is above the range of signed 64-bit integers.
    above_signed: bool,
    /// One integer is beyond 64 bits.
    beyond: bool,
    /// One is beyond the range of floats.
    infinite: bool,
}

impl Numbers {
    fn add(&mut self, written: &str) {
        if written.contains(['.', 'e', 'E']) {
            self.fraction = true;
            self.infinite |= written.parse::<f64>().is_ok_and(f64::is_infinite);
            return;
        }
        self.below_zero |= written.starts_with('-') && written != "-0";
        self.inexact |= !has_equal_float(written);
        if written.parse::<i64>().is_err() {
            self.above_signed = true;
            self.beyond |= written.parse::<u64>().is_err();
        }
    }

    fn value_type(self) -> ValueType {
        match self {
            Numbers { infinite: true, .. } | Numbers { fraction: true, inexact: true, .. } => ValueType::Json,
            Numbers { fraction: true, .. } => ValueType::Float64,
            Numbers { beyond: true, .. } | Numbers { above_signed: true, below_zero: true, .. } => ValueType::Json,
            Numbers { above_signed: true, .. } => ValueType::UInt64,
            _ => ValueType::Int64,
        }
    }
}

/// Whether a 64-bit float equals an integer.
pub(in crate::import::formats) fn has_equal_float(integer: &str) -> bool {
    match integer.parse::<i64>() {
        // 2^53: all smaller integers are floats.
        Ok(number) if number.unsigned_abs() <= 1 << 53 => true,
        _ => integer.parse::<f64>().is_ok_and(|number| number.is_finite() && format!("{number:.0}") == integer),
    }
}

/// The type that a column is built with.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum ValueType {
    Null,
    Boolean,
    Int64,
    UInt64,
    Float64,
    /// Texts; numbers and Booleans as they are written.
    Text,
    /// Any value, as it is written.
    Json,
    List(Box<ValueType>),
    /// At least one field.
    Struct(Vec<(String, ValueType)>),
}

impl ValueType {
    /// The type that the user gives a column.
    pub(super) fn given(column_type: ColumnType) -> Self {
        match column_type {
            ColumnType::Text => Self::Text,
            ColumnType::Integer => Self::Int64,
            ColumnType::Number => Self::Float64,
            ColumnType::Boolean => Self::Boolean,
            ColumnType::Json => Self::Json,
            ColumnType::Skip => Self::Null,
        }
    }

    /// The Arrow field.
    pub(super) fn field(&self, name: &str) -> Field {
        let data_type = match self {
            Self::Null => DataType::Null,
            Self::Boolean => DataType::Boolean,
            Self::Int64 => DataType::Int64,
            Self::UInt64 => DataType::UInt64,
            Self::Float64 => DataType::Float64,
            Self::Text => DataType::Utf8,
            Self::Json => return json_field(name),
            Self::List(item) => DataType::List(item.field(Field::LIST_FIELD_DEFAULT_NAME).into()),
            Self::Struct(fields) => DataType::Struct(fields.iter().map(|(name, value_type)| value_type.field(name)).collect()),
        };
        Field::new(name, data_type, true)
    }
}

/// A column, or a field of one, whose values have no exact common type.
pub(super) struct Mixed {
    /// The names from the column to the field, with points between; `[]` is a list's item.
    pub(super) path: String,
    /// The kinds of values, each with its first place.
    pub(super) kinds: Vec<(&'static str, Place)>,
}

impl Shape {
    /// Adds a value of a row at `place`.
    pub(super) fn add(&mut self, item: &Item, place: Place) {
        match &item.value {
            Value::Null => {}
            Value::Boolean(_) => drop(self.boolean.get_or_insert(place)),
            Value::Number(written) => self.number.get_or_insert_with(|| (place, Numbers::default())).1.add(written),
            Value::Text(_) => drop(self.text.get_or_insert(place)),
            Value::List(items) => {
                let (_, shape) = self.list.get_or_insert_with(|| (place, Box::default()));
                items.iter().for_each(|item| shape.add(item, place));
            }
            Value::Object(members) => {
                let (_, fields) = self.object.get_or_insert_with(|| (place, IndexMap::new()));
                for (name, item) in members {
                    match fields.get_mut(name.as_ref()) {
                        Some(shape) => shape.add(item, place),
                        None => fields.entry(name.to_string()).or_default().add(item, place),
                    }
                }
            }
        }
    }

    /// The type of a column at `path`; `texts` are the paths that are texts if all values are
    /// scalars. Adds what has no common type to `mixed`.
    pub(super) fn value_type(&self, path: &str, texts: &BTreeSet<String>, mixed: &mut Vec<Mixed>) -> ValueType {
        let of_lists = self.list.as_ref().map(|(place, _)| ("a list", *place));
        let of_objects = self.object.as_ref().map(|(place, _)| ("an object", *place));
        let of_numbers = self.number.as_ref().map(|(place, _)| ("a number", *place));
        let kinds =
            [of_lists, of_objects, of_numbers, self.text.map(|place| ("text", place)), self.boolean.map(|place| ("a Boolean", place))];
        let mut kinds: Vec<(&'static str, Place)> = kinds.into_iter().flatten().collect();
        if self.list.is_none() && self.object.is_none() && !kinds.is_empty() && texts.contains(path) {
            return ValueType::Text;
        }
        let value_type = match (kinds.as_slice(), self) {
            ([], _) => ValueType::Null,
            ([_], Shape { list: Some((_, item)), .. }) => ValueType::List(Box::new(item.value_type(&format!("{path}[]"), texts, mixed))),
            ([_], Shape { object: Some((_, fields)), .. }) => {
                let field = |(name, shape): (&String, &Shape)| (name.clone(), shape.value_type(&format!("{path}.{name}"), texts, mixed));
                let fields: Vec<(String, ValueType)> = fields.iter().map(field).collect();
                // Parquet has no struct without fields.
                if fields.is_empty() { ValueType::Null } else { ValueType::Struct(fields) }
            }
            ([_], Shape { number: Some((_, numbers)), .. }) => numbers.value_type(),
            ([_], Shape { text: Some(_), .. }) => ValueType::Text,
            ([_], Shape { boolean: Some(_), .. }) => ValueType::Boolean,
            _ => ValueType::Json,
        };
        if value_type == ValueType::Json {
            kinds.sort_by_key(|(_, place)| (place.file, place.row));
            mixed.push(Mixed { path: path.to_string(), kinds });
        }
        value_type
    }

    /// Whether values are objects, or lists of objects.
    pub(super) fn has_objects(&self) -> bool {
        self.object.is_some() || self.list.as_ref().is_some_and(|(_, item)| item.object.is_some())
    }

    /// The columns and fields of this shape, itself counted.
    pub(super) fn count(&self) -> u64 {
        let items = self.list.as_ref().map_or(0, |(_, item)| item.count());
        let fields = self.object.as_ref().map_or(0, |(_, fields)| fields.values().map(Shape::count).sum());
        1 + items + fields
    }
}
