//! Entries of the store: a byte for the kind, then the value.
#![no_main]

#[allow(dead_code, reason = "each target uses a part")]
#[path = "../../crates/api/tests/api/exercise.rs"]
mod exercise;

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    exercise::stored(data);
});
