//! libFuzzer's side of the target `token`.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| targets::token(bytes));
