//! Whatever comes, in the corpus of the fuzz target and at random.

mod exercise;

use std::path::Path;

#[test]
fn the_corpus_of_the_fuzz_target() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let corpus = root.join("../../fuzz/corpus/bfd_packet");
    let mut n = 0;
    for file in std::fs::read_dir(corpus).expect("it is in the tree") {
        let octets = std::fs::read(file.expect("a file").path()).expect("to be read");
        exercise::packets(&octets);
        n += 1;
    }
    assert!(n > 0);
}

/// A conversation in good order, with faults here and there.
#[test]
fn conversations_with_faults() {
    let mut seed = 1_u64;
    let mut dice = move |below: usize| {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (seed >> 33) as usize % below
    };
    for _ in 0..5000 {
        let mut data = Vec::new();
        for _ in 0..dice(8) {
            let state = dice(4) as u8;
            let flags = (dice(4) as u8) << 4;
            data.extend_from_slice(&[dice(8) as u8, dice(256) as u8]);
            data.extend_from_slice(&[0x20, state << 6 | flags, 1 + dice(3) as u8, 24]);
            data.extend_from_slice(&[0, 0, 0, 9, 0, 0, 0, u8::from(state > 1)]);
            let time = [0, dice(8) as u8, dice(256) as u8, 0];
            data.extend_from_slice(&time);
            data.extend_from_slice(&time);
            data.extend_from_slice(&[0; 4]);
        }
        if !data.is_empty() && dice(2) == 0 {
            let at = dice(data.len());
            data[at] ^= 1 << dice(8);
        }
        exercise::packets(&data);
    }
}
