//! libFuzzer's side of the target `timestamp`.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| targets::timestamp(bytes));
