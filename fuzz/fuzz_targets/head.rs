//! libFuzzer's side of the target `head`.

#![no_main]

#[path = "../seeds.rs"]
mod seeds;

libfuzzer_sys::fuzz_target!(init: seeds::plant("head"), |bytes: &[u8]| targets::head(bytes));
