//! `cargo fuzz run store`.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| optune_fuzz::store(bytes));
