//! Limits on a template's variables: values must be written, compared and dropped in bounded time
//! and stack.
//!
//! A template that names a list of itself and itself, again and again, has a value of a few
//! kilobytes that is 2^60 items to whoever walks through it, and minijinja's fuel does not see
//! that. So what is bound to a name, which is how values grow beyond the template's own length, is
//! walked through once, by [`super::syntax`]'s doing. Knows nothing of what templates are for.

use minijinja::value::ObjectRepr;
use minijinja::{Error, ErrorKind, State, Value};

/// Deeper than the arguments of tools, the deepest values of templates.
const DEEPEST: usize = 64;

/// Items for one fuel.
const ITEMS_A_FUEL: u64 = 8;

/// The value of a variable, checked.
pub(super) fn variable(state: &mut State, value: Value) -> Result<Value, Error> {
    walked(state, &value, 0)?;
    Ok(value)
}

/// The value, which an attribute of a namespace is about to be; so it must be none, or one could
/// hold itself.
pub(super) fn attribute(state: &mut State, value: Value) -> Result<Value, Error> {
    if is_namespace(&value) { Err(nested_namespace()) } else { variable(state, value) }
}

/// Walks through a value, for fuel.
pub(super) fn walked(state: &State, value: &Value, depth: usize) -> Result<(), Error> {
    let Some(object) = value.as_object() else { return Ok(()) };
    if depth > 0 && is_namespace(value) {
        return Err(nested_namespace());
    }
    if depth > DEEPEST {
        return Err(refused("a value is nested more than 64 deep"));
    }
    let is_map = match object.repr() {
        ObjectRepr::Plain => return Ok(()),
        repr => repr == ObjectRepr::Map,
    };
    // What cannot be walked through by this cannot be by anything else.
    let Ok(inner) = value.try_iter() else { return Ok(()) };
    let mut items: u64 = 0;
    for item in inner {
        items += 1;
        if items.is_multiple_of(ITEMS_A_FUEL) {
            state.consume_fuel(1)?;
        }
        walked(state, &item, depth + 1)?;
        if is_map {
            walked(state, &value.get_item(&item)?, depth + 1)?;
        }
    }
    // One more, so that lists of empty lists are not for nothing.
    state.consume_fuel(1)
}

pub(super) fn is_namespace(value: &Value) -> bool {
    value.as_object().is_some_and(|object| object.type_name().ends_with("::Namespace"))
}

fn nested_namespace() -> Error {
    refused("a namespace may not be in another, or in a list or a dictionary")
}

fn refused(problem: &'static str) -> Error {
    Error::new(ErrorKind::InvalidOperation, problem)
}
