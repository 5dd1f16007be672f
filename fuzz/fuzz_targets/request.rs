//! libFuzzer's side of the target `request`.

#![no_main]

#[path = "../seeds.rs"]
mod seeds;

libfuzzer_sys::fuzz_target!(init: seeds::plant("request"), |bytes: &[u8]| targets::request(bytes));
