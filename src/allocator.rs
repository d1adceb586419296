//! The program's memory allocator. Knows nothing of what the memory is for.

use std::ffi::c_long;

use libmimalloc_sys::{mi_option_set_default, mi_option_t};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// `mi_option_purge_delay` of mimalloc.h, which the bindings have no name for: after how many milliseconds freed memory goes back to the kernel.
const PURGE_DELAY: mi_option_t = 15;

/// Longer than what lies between two uses of the same memory in most training steps.
const DELAY_MILLISECONDS: c_long = 60_000;

/// Keeps memory that is freed for what is allocated next, for a while. A layer's activations are as large as the next layer's, and the kernel clears
/// every page that it gives: with mimalloc's own second, that is a quarter of a training step.
pub fn keep_freed_memory() {
    // SAFETY: sets a number that the allocator reads; it is not to be called by two threads at once, and `main` calls it before there are others.
    #[allow(unsafe_code)]
    unsafe {
        mi_option_set_default(PURGE_DELAY, DELAY_MILLISECONDS);
    }
}
