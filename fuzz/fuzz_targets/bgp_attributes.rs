//! Attributes of an UPDATE: an octet of session, the attributes.
#![no_main]

#[allow(dead_code, reason = "each target uses a part")]
#[path = "../../crates/bgp/tests/wire/exercise.rs"]
mod exercise;

libfuzzer_sys::fuzz_target!(|data: &[u8]| exercise::attributes_target(data));
