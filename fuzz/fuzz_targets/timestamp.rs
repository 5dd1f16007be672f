//! libFuzzer's side of the target `timestamp`.

#![no_main]

#[path = "../seeds.rs"]
mod seeds;

libfuzzer_sys::fuzz_target!(init: seeds::plant("timestamp"), |bytes: &[u8]| targets::timestamp(bytes));
