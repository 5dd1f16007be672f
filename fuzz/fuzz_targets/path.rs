//! libFuzzer's side of the target `path`.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| targets::path(bytes));
