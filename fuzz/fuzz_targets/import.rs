//! `cargo fuzz run import`.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| optune_fuzz::import(bytes));
