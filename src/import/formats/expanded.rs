//! The memory that arrays take in their simple form, before they get it.
//!
//! A dictionary, a view or a run stores a value once that many rows have.

use arrow::array::{Array, AsArray, make_array};
use arrow::compute::cast;
use arrow::datatypes::{BinaryViewType, ByteViewType, DataType, StringViewType};

/// A lower bound of the bytes of the array's values in its simple form, which no memory out of
/// proportion exceeds.
pub(super) fn expanded_bytes(array: &dyn Array) -> u64 {
    let children = |array: &dyn Array| array.to_data().child_data().iter().map(|child| expanded_bytes(&make_array(child.clone()))).sum();
    match array.data_type() {
        DataType::Dictionary(..) => {
            let dictionary = array.as_any_dictionary();
            let sizes: Vec<u64> = sizes(dictionary.values().as_ref());
            if sizes.is_empty() {
                return 0;
            }
            // Keys of null rows are within the dictionary.
            let keys = dictionary.normalized_keys();
            keys.into_iter().map(|key| sizes.get(key).copied().unwrap_or(0)).sum()
        }
        DataType::RunEndEncoded(..) => {
            let values = array.to_data().child_data().get(1).map(|values| sizes(make_array(values.clone()).as_ref()));
            let largest = values.and_then(|sizes| sizes.into_iter().max()).unwrap_or(0);
            largest.saturating_mul(array.len() as u64)
        }
        DataType::Utf8View => views::<StringViewType>(array),
        DataType::BinaryView => views::<BinaryViewType>(array),
        DataType::ListView(_) => {
            let lists = array.as_list_view::<i32>();
            let items = lists.value_sizes().iter().map(|size| u64::try_from(*size).unwrap_or(0)).sum();
            of_items(lists.values().as_ref(), items)
        }
        DataType::LargeListView(_) => {
            let lists = array.as_list_view::<i64>();
            let items = lists.value_sizes().iter().map(|size| u64::try_from(*size).unwrap_or(0)).sum();
            of_items(lists.values().as_ref(), items)
        }
        DataType::Struct(_) | DataType::List(_) | DataType::LargeList(_) | DataType::FixedSizeList(..) | DataType::Map(..) => {
            children(array)
        }
        _ => 0,
    }
}

fn views<T: ByteViewType>(array: &dyn Array) -> u64 {
    // The lowest 32 bits of a view are its length.
    array.as_byte_view::<T>().views().iter().map(|view| u64::from(*view as u32)).sum()
}

fn of_items(values: &dyn Array, items: u64) -> u64 {
    let bytes = values.get_array_memory_size() as u64;
    items.saturating_mul((bytes / (values.len() as u64).max(1)).max(1))
}

/// The bytes of each value.
fn sizes(values: &dyn Array) -> Vec<u64> {
    match values.data_type() {
        DataType::Utf8 | DataType::Utf8View | DataType::Binary | DataType::BinaryView | DataType::LargeUtf8 => {
            let binary = cast(values, &DataType::LargeBinary);
            let binary = binary.as_ref().map(|binary| binary.as_binary::<i64>());
            binary.map_or(Vec::new(), |binary| binary.offsets().lengths().map(|length| length as u64).collect())
        }
        _ => {
            let each = values.get_array_memory_size() / values.len().max(1);
            vec![each as u64; values.len()]
        }
    }
}
