//! `cargo fuzz run pipeline`.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| optune_fuzz::pipeline(bytes));
