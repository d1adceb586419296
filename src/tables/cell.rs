//! Rust types as the values of Arrow columns, and back.
//!
//! Knows types only: which columns there are is each table's business.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, BooleanArray, FixedSizeBinaryBuilder, Float64Array, Float64Builder, Int32Array, Int32Builder, Int64Array,
    ListBuilder, MapBuilder, MapFieldNames, RecordBatch, StringArray, StringBuilder, StructBuilder,
};
use arrow::datatypes::{DataType, Field, Fields, Float64Type, Int32Type, Int64Type};

use super::error::missing_column;
use super::{TableError, TableKind};

/// A type whose values fill a column.
pub(crate) trait Cell: Sized {
    /// Whether the column may be null.
    const NULLABLE: bool = false;

    /// The column's Arrow type.
    fn data_type() -> DataType;

    /// The values as an array; `None` is null.
    fn array<'a>(values: impl Iterator<Item = Option<&'a Self>>) -> ArrayRef
    where
        Self: 'a;

    /// The value in `row`, or what was found instead.
    fn value(array: &dyn Array, row: usize) -> Result<Self, String>;
}

/// The field `name` with the type of `C`.
pub(crate) fn field<C: Cell>(name: &str) -> Field {
    Field::new(name, C::data_type(), C::NULLABLE)
}

/// All values of the column `name`.
pub(crate) fn cells<C: Cell>(kind: TableKind, batch: &RecordBatch, name: &str) -> Result<Vec<C>, TableError> {
    let array = batch.column_by_name(name).ok_or_else(|| missing_column(kind.name(), batch, name))?;
    let cell = |row| C::value(array, row).map_err(|found| TableError::row(kind, row, format!("{name}: {found}")));
    (0..batch.num_rows()).map(cell).collect()
}

fn mismatch<C: Cell>(array: &dyn Array) -> String {
    format!("expected {}, found {}", C::data_type(), array.data_type())
}

impl<C: Cell> Cell for Option<C> {
    const NULLABLE: bool = true;

    fn data_type() -> DataType {
        C::data_type()
    }

    fn array<'a>(values: impl Iterator<Item = Option<&'a Self>>) -> ArrayRef
    where
        Self: 'a,
    {
        C::array(values.map(|value| value.and_then(Option::as_ref)))
    }

    fn value(array: &dyn Array, row: usize) -> Result<Self, String> {
        if array.is_null(row) { Ok(None) } else { C::value(array, row).map(Some) }
    }
}

/// Implements [`Cell`] for a type that one Arrow array holds as it is.
macro_rules! plain_cell {
    ($type:ty, $data_type:expr, $array:ty, |$value:ident| $owned:expr, |$cells:ident| $typed:expr) => {
        impl Cell for $type {
            fn data_type() -> DataType {
                $data_type
            }

            fn array<'a>(values: impl Iterator<Item = Option<&'a Self>>) -> ArrayRef {
                Arc::new(values.map(|value| value.map(|$value| $owned)).collect::<$array>())
            }

            fn value($cells: &dyn Array, row: usize) -> Result<Self, String> {
                let typed = $typed.ok_or_else(|| mismatch::<Self>($cells))?;
                if typed.is_null(row) { Err("expected a value, found null".to_string()) } else { Ok(typed.value(row).into()) }
            }
        }
    };
}

plain_cell!(String, DataType::Utf8, StringArray, |text| text.as_str(), |cells| cells.as_string_opt::<i32>());
plain_cell!(bool, DataType::Boolean, BooleanArray, |value| *value, |cells| cells.as_boolean_opt());
plain_cell!(i32, DataType::Int32, Int32Array, |value| *value, |cells| cells.as_primitive_opt::<Int32Type>());
plain_cell!(i64, DataType::Int64, Int64Array, |value| *value, |cells| cells.as_primitive_opt::<Int64Type>());
plain_cell!(f64, DataType::Float64, Float64Array, |value| *value, |cells| cells.as_primitive_opt::<Float64Type>());

/// A hash.
impl Cell for [u8; 32] {
    fn data_type() -> DataType {
        DataType::FixedSizeBinary(32)
    }

    fn array<'a>(values: impl Iterator<Item = Option<&'a Self>>) -> ArrayRef {
        let mut builder = FixedSizeBinaryBuilder::new(32);
        for value in values {
            match value {
                // It fails only for values of another size.
                Some(value) => builder.append_value(value).expect("32 bytes"),
                None => builder.append_null(),
            }
        }
        Arc::new(builder.finish())
    }

    fn value(array: &dyn Array, row: usize) -> Result<Self, String> {
        let typed = array.as_fixed_size_binary_opt().ok_or_else(|| mismatch::<Self>(array))?;
        if typed.is_null(row) {
            Err("expected a value, found null".to_string())
        } else {
            Self::try_from(typed.value(row)).map_err(|_| mismatch::<Self>(array))
        }
    }
}

/// Token ids: a list without nulls in it.
impl Cell for Vec<i32> {
    fn data_type() -> DataType {
        DataType::List(Arc::new(Field::new_list_field(DataType::Int32, false)))
    }

    fn array<'a>(values: impl Iterator<Item = Option<&'a Self>>) -> ArrayRef {
        let mut builder = ListBuilder::new(Int32Builder::new()).with_field(Field::new_list_field(DataType::Int32, false));
        for value in values {
            builder.values().append_slice(value.map_or(&[], Vec::as_slice));
            builder.append(value.is_some());
        }
        Arc::new(builder.finish())
    }

    fn value(array: &dyn Array, row: usize) -> Result<Self, String> {
        let items = array.as_list_opt::<i32>().ok_or_else(|| mismatch::<Self>(array))?.value(row);
        Ok(items.as_primitive_opt::<Int32Type>().ok_or_else(|| mismatch::<Self>(array))?.values().to_vec())
    }
}

/// One message of a conversation, as chat templates and TRL have it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    /// Who speaks: `system`, `user`, `assistant`.
    pub role: String,
    /// What is said.
    pub content: String,
}

fn message_fields() -> Fields {
    Fields::from(vec![field::<String>("role"), field::<String>("content")])
}

/// A conversation: a list of messages.
impl Cell for Vec<Message> {
    fn data_type() -> DataType {
        DataType::List(Arc::new(Field::new_list_field(DataType::Struct(message_fields()), false)))
    }

    fn array<'a>(values: impl Iterator<Item = Option<&'a Self>>) -> ArrayRef {
        let messages = StructBuilder::from_fields(message_fields(), 0);
        let mut builder = ListBuilder::new(messages).with_field(Field::new_list_field(DataType::Struct(message_fields()), false));
        for value in values {
            for message in value.into_iter().flatten() {
                for (index, text) in [&message.role, &message.content].into_iter().enumerate() {
                    if let Some(texts) = builder.values().field_builder::<StringBuilder>(index) {
                        texts.append_value(text);
                    }
                }
                builder.values().append(true);
            }
            builder.append(value.is_some());
        }
        Arc::new(builder.finish())
    }

    fn value(array: &dyn Array, row: usize) -> Result<Self, String> {
        let items = array.as_list_opt::<i32>().ok_or_else(|| mismatch::<Self>(array))?.value(row);
        let items = items.as_struct_opt().ok_or_else(|| mismatch::<Self>(array))?;
        let text = |name, index| match items.column_by_name(name) {
            Some(texts) => String::value(texts, index),
            None => Err(mismatch::<Self>(array)),
        };
        (0..items.len()).map(|index| Ok(Message { role: text("role", index)?, content: text("content", index)? })).collect()
    }
}

/// Named numbers, ordered by name.
impl Cell for BTreeMap<String, f64> {
    fn data_type() -> DataType {
        let entry = Fields::from(vec![field::<String>("key"), field::<f64>("value")]);
        DataType::Map(Arc::new(Field::new("key_value", DataType::Struct(entry), false)), false)
    }

    fn array<'a>(values: impl Iterator<Item = Option<&'a Self>>) -> ArrayRef {
        let names = MapFieldNames { entry: "key_value".into(), key: "key".into(), value: "value".into() };
        let mut builder =
            MapBuilder::new(Some(names), StringBuilder::new(), Float64Builder::new()).with_values_field(field::<f64>("value"));
        for value in values {
            for (name, number) in value.into_iter().flatten() {
                builder.keys().append_value(name);
                builder.values().append_value(*number);
            }
            // It fails only when there are more keys than values; both were appended together.
            builder.append(value.is_some()).expect("as many keys as values");
        }
        Arc::new(builder.finish())
    }

    fn value(array: &dyn Array, row: usize) -> Result<Self, String> {
        let entries = array.as_map_opt().ok_or_else(|| mismatch::<Self>(array))?.value(row);
        (0..entries.len()).map(|index| Ok((String::value(entries.column(0), index)?, f64::value(entries.column(1), index)?))).collect()
    }
}

/// An enum that is stored as a word.
macro_rules! words {
    ($(#[$attribute:meta])* pub enum $name:ident { $($(#[$variant_attribute:meta])* $variant:ident = $word:literal,)+ }) => {
        $(#[$attribute])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum $name { $($(#[$variant_attribute])* $variant,)+ }

        impl $name {
            /// Every value.
            pub const ALL: &'static [$name] = &[$($name::$variant),+];

            /// The word in the table.
            pub fn as_str(self) -> &'static str {
                match self { $($name::$variant => $word),+ }
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(self.as_str())
            }
        }

        impl Cell for $name {
            fn data_type() -> DataType {
                DataType::Utf8
            }

            fn array<'a>(values: impl Iterator<Item = Option<&'a Self>>) -> ArrayRef {
                Arc::new(values.map(|value| value.map(|word| word.as_str())).collect::<StringArray>())
            }

            fn value(array: &dyn Array, row: usize) -> Result<Self, String> {
                let found = String::value(array, row)?;
                let words = [$($word),+].join(", ");
                Self::ALL.iter().copied().find(|word| word.as_str() == found).ok_or_else(|| format!("expected one of {words}, found {found:?}"))
            }
        }
    };
}

words! {
    /// Why a response ended.
    pub enum FinishReason {
        /// An end-of-sequence token or a stop string.
        Stop = "stop",
        /// The length limit; no end-of-sequence token was appended.
        Length = "length",
        /// Generation failed; the row's `error` says why.
        Error = "error",
    }
}

words! {
    /// How the policy's reward compares with the baseline's.
    pub enum Outcome {
        /// The policy's reward is higher.
        Win = "win",
        /// The rewards are equal.
        Tie = "tie",
        /// The baseline's reward is higher.
        Loss = "loss",
    }
}
