//! libFuzzer's side of the target `config`.

#![no_main]

#[path = "../seeds.rs"]
mod seeds;

libfuzzer_sys::fuzz_target!(init: seeds::plant("config"), |bytes: &[u8]| targets::config(bytes));
