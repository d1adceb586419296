//! Rust types as the values of Arrow columns, and back.
//!
//! Knows types only. Each table file lists its columns.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, ArrowPrimitiveType, AsArray, BooleanArray, FixedSizeBinaryArray, FixedSizeBinaryBuilder, Float64Array, Float64Builder,
    Int32Array, Int64Array, ListArray, ListBuilder, MapArray, MapBuilder, MapFieldNames, PrimitiveBuilder, RecordBatch, StringArray,
    StringBuilder, StructBuilder,
};
use arrow::buffer::NullBuffer;
use arrow::datatypes::{ArrowNativeType, DataType, Field, Fields, Float32Type, Float64Type, Int32Type, Int64Type};

use super::error::{TableError, missing_column};
use super::kind::TableKind;

/// The type of a column's values.
pub(crate) trait Cell: Sized {
    /// Whether the column may be null.
    const NULLABLE: bool = false;

    /// The column as a typed array.
    type Column<'a>;

    /// A value in the column. Texts and token ids are borrowed.
    type View<'a>;

    /// The column's Arrow type.
    fn data_type() -> DataType;

    /// The values as an array; `None` is null.
    fn array<'a>(values: impl Iterator<Item = Option<&'a Self>>) -> ArrayRef
    where
        Self: 'a;

    /// The array as a column of this type; `None` for an array of another type.
    fn column(array: &dyn Array) -> Option<Self::Column<'_>>;

    /// The value in `row`, or a text that says what was found instead.
    fn view<'a>(column: &Self::Column<'a>, row: usize) -> Result<Self::View<'a>, String>;

    /// The value, owned.
    fn owned(view: Self::View<'_>) -> Self;
}

/// The field `name` with the type of `C`.
pub(crate) fn field<C: Cell>(name: &str) -> Field {
    Field::new(name, C::data_type(), C::NULLABLE)
}

/// The column `name` as an array of `C`.
pub(crate) fn column<'a, C: Cell>(kind: TableKind, batch: &'a RecordBatch, name: &str) -> Result<C::Column<'a>, TableError> {
    let array = batch.column_by_name(name).ok_or_else(|| missing_column(kind.name(), batch, name))?;
    C::column(array).ok_or_else(|| TableError::ColumnType {
        table: kind.to_string(),
        column: name.to_string(),
        expected: C::data_type().to_string(),
        found: array.data_type().to_string(),
    })
}

/// The value of the column `name` in `row`.
pub(crate) fn view<'a, C: Cell>(kind: TableKind, column: &C::Column<'a>, name: &str, row: usize) -> Result<C::View<'a>, TableError> {
    C::view(column, row).map_err(|found| TableError::row(kind, row, format!("{name}: {found}")))
}

const NO_NULL: &str = "expected a value, found null";

impl<C: Cell> Cell for Option<C> {
    const NULLABLE: bool = true;

    type Column<'a> = (Option<&'a NullBuffer>, C::Column<'a>);

    type View<'a> = Option<C::View<'a>>;

    fn data_type() -> DataType {
        C::data_type()
    }

    fn array<'a>(values: impl Iterator<Item = Option<&'a Self>>) -> ArrayRef
    where
        Self: 'a,
    {
        C::array(values.map(|value| value.and_then(Option::as_ref)))
    }

    fn column(array: &dyn Array) -> Option<Self::Column<'_>> {
        Some((array.nulls(), C::column(array)?))
    }

    fn view<'a>((nulls, column): &Self::Column<'a>, row: usize) -> Result<Self::View<'a>, String> {
        if nulls.is_some_and(|nulls| nulls.is_null(row)) { Ok(None) } else { C::view(column, row).map(Some) }
    }

    fn owned(view: Self::View<'_>) -> Self {
        view.map(C::owned)
    }
}

/// Implements [`Cell`] for a type with an Arrow array of its own.
macro_rules! plain_cell {
    ($type:ty, $data_type:expr, $array:ty, $view:ty, |$value:ident| $plain:expr, |$cells:ident| $typed:expr) => {
        impl Cell for $type {
            type Column<'a> = &'a $array;

            type View<'a> = $view;

            fn data_type() -> DataType {
                $data_type
            }

            fn array<'a>(values: impl Iterator<Item = Option<&'a Self>>) -> ArrayRef {
                Arc::new(values.map(|value| value.map(|$value| $plain)).collect::<$array>())
            }

            fn column($cells: &dyn Array) -> Option<Self::Column<'_>> {
                $typed
            }

            fn view<'a>(column: &Self::Column<'a>, row: usize) -> Result<Self::View<'a>, String> {
                if column.is_null(row) { Err(NO_NULL.to_string()) } else { Ok(column.value(row)) }
            }

            fn owned(view: Self::View<'_>) -> Self {
                view.into()
            }
        }
    };
}

plain_cell!(String, DataType::Utf8, StringArray, &'a str, |text| text.as_str(), |cells| cells.as_string_opt::<i32>());
plain_cell!(bool, DataType::Boolean, BooleanArray, bool, |value| *value, |cells| cells.as_boolean_opt());
plain_cell!(i32, DataType::Int32, Int32Array, i32, |value| *value, |cells| cells.as_primitive_opt::<Int32Type>());
plain_cell!(i64, DataType::Int64, Int64Array, i64, |value| *value, |cells| cells.as_primitive_opt::<Int64Type>());
plain_cell!(f64, DataType::Float64, Float64Array, f64, |value| *value, |cells| cells.as_primitive_opt::<Float64Type>());

/// The range of the items of the list or map in `row`.
fn items_of(offsets: &[i32], nulls: Option<&NullBuffer>, row: usize) -> Result<Range<usize>, String> {
    match offsets.get(row..row + 2) {
        Some(&[start, end]) if nulls.is_none_or(|nulls| nulls.is_valid(row)) => Ok(start as usize..end as usize),
        _ => Err(NO_NULL.to_string()),
    }
}

/// A hash.
impl Cell for [u8; 32] {
    type Column<'a> = &'a FixedSizeBinaryArray;

    type View<'a> = Self;

    fn data_type() -> DataType {
        DataType::FixedSizeBinary(32)
    }

    fn array<'a>(values: impl Iterator<Item = Option<&'a Self>>) -> ArrayRef {
        let mut builder = FixedSizeBinaryBuilder::new(32);
        for value in values {
            match value {
                // The type fixes the size: 32 bytes.
                Some(value) => builder.append_value(value).expect("32 bytes"),
                None => builder.append_null(),
            }
        }
        Arc::new(builder.finish())
    }

    fn column(array: &dyn Array) -> Option<Self::Column<'_>> {
        array.as_fixed_size_binary_opt().filter(|hashes| hashes.value_length() == 32)
    }

    fn view<'a>(column: &Self::Column<'a>, row: usize) -> Result<Self::View<'a>, String> {
        if column.is_null(row) {
            return Err(NO_NULL.to_string());
        }
        Self::try_from(column.value(row)).map_err(|_| format!("expected 32 bytes, found {}", column.value_length()))
    }

    fn owned(view: Self) -> Self {
        view
    }
}

/// A number as an item of a list.
pub(crate) trait ListItem: ArrowNativeType {
    /// Its Arrow type.
    type Arrow: ArrowPrimitiveType<Native = Self>;
}

impl ListItem for i32 {
    type Arrow = Int32Type;
}

impl ListItem for f32 {
    type Arrow = Float32Type;
}

impl ListItem for f64 {
    type Arrow = Float64Type;
}

/// Token ids and numbers: a list whose items are never null.
impl<T: ListItem> Cell for Vec<T> {
    type Column<'a> = (&'a ListArray, &'a [T]);

    type View<'a> = &'a [T];

    fn data_type() -> DataType {
        DataType::List(Arc::new(Field::new_list_field(T::Arrow::DATA_TYPE, false)))
    }

    fn array<'a>(values: impl Iterator<Item = Option<&'a Self>>) -> ArrayRef {
        let items = PrimitiveBuilder::<T::Arrow>::new();
        let mut builder = ListBuilder::new(items).with_field(Field::new_list_field(T::Arrow::DATA_TYPE, false));
        for value in values {
            builder.values().append_slice(value.map_or(&[], Vec::as_slice));
            builder.append(value.is_some());
        }
        Arc::new(builder.finish())
    }

    fn column(array: &dyn Array) -> Option<Self::Column<'_>> {
        let lists = array.as_list_opt::<i32>()?;
        Some((lists, lists.values().as_primitive_opt::<T::Arrow>()?.values()))
    }

    fn view<'a>((lists, items): &Self::Column<'a>, row: usize) -> Result<Self::View<'a>, String> {
        items_of(lists.value_offsets(), lists.nulls(), row).map(|range| &items[range])
    }

    fn owned(view: Self::View<'_>) -> Self {
        view.to_vec()
    }
}

/// One message of a conversation, with the fields of chat templates and TRL.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    /// The speaker: `system`, `user`, `assistant`.
    pub role: String,
    /// The text.
    pub content: String,
}

fn message_fields() -> Fields {
    Fields::from(vec![field::<String>("role"), field::<String>("content")])
}

/// A conversation: a list of messages.
impl Cell for Vec<Message> {
    type Column<'a> = (&'a ListArray, &'a StringArray, &'a StringArray);

    type View<'a> = Self;

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

    fn column(array: &dyn Array) -> Option<Self::Column<'_>> {
        let lists = array.as_list_opt::<i32>()?;
        let items = lists.values().as_struct_opt()?;
        Some((lists, String::column(items.column_by_name("role")?)?, String::column(items.column_by_name("content")?)?))
    }

    fn view<'a>((lists, roles, contents): &Self::Column<'a>, row: usize) -> Result<Self::View<'a>, String> {
        let message = |index| Ok(Message { role: String::view(roles, index)?.into(), content: String::view(contents, index)?.into() });
        items_of(lists.value_offsets(), lists.nulls(), row)?.map(message).collect()
    }

    fn owned(view: Self) -> Self {
        view
    }
}

/// Named numbers, ordered by name.
impl Cell for BTreeMap<String, f64> {
    type Column<'a> = (&'a MapArray, &'a StringArray, &'a Float64Array);

    type View<'a> = Self;

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
            // Keys and values are appended together, so their numbers are equal.
            builder.append(value.is_some()).expect("as many keys as values");
        }
        Arc::new(builder.finish())
    }

    fn column(array: &dyn Array) -> Option<Self::Column<'_>> {
        let maps = array.as_map_opt()?;
        Some((maps, String::column(maps.keys())?, f64::column(maps.values())?))
    }

    fn view<'a>((maps, keys, values): &Self::Column<'a>, row: usize) -> Result<Self::View<'a>, String> {
        let entry = |index| Ok((String::view(keys, index)?.into(), f64::view(values, index)?));
        items_of(maps.value_offsets(), maps.nulls(), row)?.map(entry).collect()
    }

    fn owned(view: Self) -> Self {
        view
    }
}

/// An enum whose values are stored as words.
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
            type Column<'a> = &'a StringArray;

            type View<'a> = Self;

            fn data_type() -> DataType {
                DataType::Utf8
            }

            fn array<'a>(values: impl Iterator<Item = Option<&'a Self>>) -> ArrayRef {
                Arc::new(values.map(|value| value.map(|word| word.as_str())).collect::<StringArray>())
            }

            fn column(array: &dyn Array) -> Option<Self::Column<'_>> {
                String::column(array)
            }

            fn view<'a>(column: &Self::Column<'a>, row: usize) -> Result<Self::View<'a>, String> {
                let found = String::view(column, row)?;
                let words = || [$($word),+].join(", ");
                Self::ALL.iter().copied().find(|word| word.as_str() == found).ok_or_else(|| format!("expected one of {}, found {found:?}", words()))
            }

            fn owned(view: Self) -> Self {
                view
            }
        }
    };
}

words! {
    /// The reason why a response ended.
    pub enum FinishReason {
        /// An end-of-sequence token or a stop string.
        Stop = "stop",
        /// The length limit. No end-of-sequence token was appended.
        Length = "length",
        /// Generation failed. The row's `error` has the reason.
        Error = "error",
    }
}

words! {
    /// The policy's reward compared with the baseline's.
    pub enum Outcome {
        /// The policy's reward is higher.
        Win = "win",
        /// The rewards are equal.
        Tie = "tie",
        /// The baseline's reward is higher.
        Loss = "loss",
    }
}
