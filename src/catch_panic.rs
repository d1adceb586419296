//! Calls into libraries that panic at corrupt files: the panic becomes an error.
//!
//! Our own code does not panic and is not called from here.

use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind, set_hook, take_hook};

thread_local! {
    static WITHIN: Cell<bool> = const { Cell::new(false) };
}

/// The result of `call`, or the message of its panic. After a panic, drop everything the call
/// worked on.
pub(crate) fn catch_panic<T>(call: impl FnOnce() -> T) -> Result<T, String> {
    let before = WITHIN.replace(true);
    let result = catch_unwind(AssertUnwindSafe(call));
    WITHIN.set(before);
    result.map_err(|payload| {
        let text = payload.downcast_ref::<String>().cloned().or_else(|| payload.downcast_ref::<&str>().map(|text| text.to_string()));
        text.unwrap_or_else(|| "no reason is known".to_string())
    })
}

/// Silences the reports of caught panics. The owner of the process calls it once.
pub fn silence_caught_panics() {
    let report = take_hook();
    set_hook(Box::new(move |panic| {
        if !WITHIN.get() {
            report(panic);
        }
    }));
}

#[cfg(test)]
mod tests {
    use super::catch_panic;

    #[test]
    fn a_panic_is_an_error_with_its_words() {
        assert_eq!(catch_panic(|| 7), Ok(7));
        assert_eq!(
            catch_panic(|| [1, 2][catch_panic(|| 5).unwrap_or(0)]),
            Err("index out of bounds: the len is 2 but the index is 5".to_string())
        );
    }
}
