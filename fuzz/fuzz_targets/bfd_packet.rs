//! Packets of BFD, to a session.
#![no_main]

#[path = "../../crates/bfd/tests/octets/exercise.rs"]
mod exercise;

libfuzzer_sys::fuzz_target!(|data: &[u8]| exercise::packets(data));
