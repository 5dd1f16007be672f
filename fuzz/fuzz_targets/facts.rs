//! libFuzzer's side of the target `facts`.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| targets::facts(bytes));
