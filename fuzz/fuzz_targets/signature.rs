//! libFuzzer's side of the target `signature`.

#![no_main]

#[path = "../seeds.rs"]
mod seeds;

libfuzzer_sys::fuzz_target!(init: seeds::plant("signature"), |bytes: &[u8]| targets::signature(bytes));
