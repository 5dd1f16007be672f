//! libFuzzer's side of the target `head`.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| targets::head(bytes));
