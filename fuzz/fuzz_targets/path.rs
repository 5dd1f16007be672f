//! libFuzzer's side of the target `path`.

#![no_main]

#[path = "../seeds.rs"]
mod seeds;

libfuzzer_sys::fuzz_target!(init: seeds::plant("path"), |bytes: &[u8]| targets::path(bytes));
