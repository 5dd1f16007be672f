//! libFuzzer's side of the target `token`.

#![no_main]

#[path = "../seeds.rs"]
mod seeds;

libfuzzer_sys::fuzz_target!(init: seeds::plant("token"), |bytes: &[u8]| targets::token(bytes));
