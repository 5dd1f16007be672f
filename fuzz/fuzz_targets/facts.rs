//! libFuzzer's side of the target `facts`.

#![no_main]

#[path = "../seeds.rs"]
mod seeds;

libfuzzer_sys::fuzz_target!(init: seeds::plant("facts"), |bytes: &[u8]| targets::facts(bytes));
