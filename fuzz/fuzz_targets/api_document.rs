//! Files that users apply: YAML or JSON, any kind.
#![no_main]

#[allow(dead_code, reason = "each target uses a part")]
#[path = "../../crates/api/tests/api/exercise.rs"]
mod exercise;

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    if let Ok(text) = std::str::from_utf8(data) {
        exercise::document(text);
    }
});
