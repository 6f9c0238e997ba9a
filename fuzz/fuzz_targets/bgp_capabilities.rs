//! Capabilities of an OPEN.
#![no_main]

#[allow(dead_code, reason = "each target uses a part")]
#[path = "../../crates/bgp/tests/wire/exercise.rs"]
mod exercise;

libfuzzer_sys::fuzz_target!(|data: &[u8]| exercise::capabilities_target(data));
