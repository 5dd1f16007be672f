//! libFuzzer's side of the target `signature`.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| targets::signature(bytes));
