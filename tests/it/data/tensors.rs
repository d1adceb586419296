//! Token ids between Arrow and the lists that are computed on: the same ids, in the same memory.

use arrow::array::{AsArray, ListArray};
use arrow::datatypes::Int32Type;
use optune::operators::support::tensors::{list_array, token_lists};

fn column(rows: &[&[i32]]) -> ListArray {
    ListArray::from_iter_primitive::<Int32Type, _, _>(rows.iter().map(|row| Some(row.iter().copied().map(Some).collect::<Vec<_>>())))
}

#[test]
fn on_the_processor_nothing_is_copied_there_or_back() {
    let there = column(&[&[1, 2, 3], &[4], &[5, 6]]);
    let memory = there.values().as_primitive::<Int32Type>().values().as_ptr();
    let (ids, lengths) = token_lists(&there).unwrap().into_parts();
    assert_eq!(lengths, [3, 1, 2]);
    let back = list_array(ids, lengths).unwrap();
    let back: &ListArray = back.as_list();
    assert_eq!(back.values().as_primitive::<Int32Type>().values().as_ptr(), memory);
    assert_eq!(back.value(2).as_primitive::<Int32Type>().values(), &[5, 6]);
}

#[test]
fn a_slice_of_a_column_is_its_own_rows_and_outlives_it() {
    let there = column(&[&[1, 2, 3], &[4], &[5, 6]]);
    let slice = there.slice(1, 2);
    let memory = there.values().as_primitive::<Int32Type>().values()[3..].as_ptr();
    let lists = token_lists(&slice).unwrap();
    drop((there, slice));
    let (ids, lengths) = lists.into_parts();
    let back = list_array(ids, lengths).unwrap();
    let back: &ListArray = back.as_list();
    assert_eq!(back.values().as_primitive::<Int32Type>().values(), &[4, 5, 6]);
    assert_eq!(back.values().as_primitive::<Int32Type>().values().as_ptr(), memory);
}

#[test]
fn nulls_and_other_types_are_refused() {
    let nulls = ListArray::from_iter_primitive::<Int32Type, _, _>([Some(vec![Some(1), None])]);
    assert!(token_lists(&nulls).unwrap_err().to_string().contains("no nulls"));
    let wide = ListArray::from_iter_primitive::<arrow::datatypes::Int64Type, _, _>([Some(vec![Some(1)])]);
    assert!(token_lists(&wide).unwrap_err().to_string().contains("expected a list of Int32"));
}
