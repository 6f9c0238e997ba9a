//! Tens of thousands of damaged messages through the entry points of the fuzz targets, from
//! a fixed seed, so that each run is the same.

use crate::bytes::{hex, message, update};
use crate::exercise;

/// SplitMix64: small, and good enough to choose where to damage.
struct Dice(u64);

impl Dice {
    fn roll(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ self.0 >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ z >> 31
    }

    fn below(&mut self, n: usize) -> usize {
        usize::try_from(self.roll() % u64::try_from(n.max(1)).unwrap()).unwrap()
    }

    fn octet(&mut self) -> u8 {
        // The interesting ones often.
        match self.below(4) {
            0 => [0, 1, 2, 4, 14, 15, 16, 127, 128, 255][self.below(10)],
            _ => self.roll().to_le_bytes()[0],
        }
    }
}

fn corpus() -> Vec<Vec<u8>> {
    let rest = "40 01 01 00 40 02 0e 02 02 0000fde8 0001fde8 01 01 00000001";
    let rare = "80 04 04 0000000a 40 05 04 00000064 40 06 00 c0 07 08 0001fde8 0a000001
        c0 08 08 fde80001 ffffff01 80 09 04 0a000002 80 0a 08 0a000003 0a000004
        c0 10 08 0002fde800000064 e0 14 01 aa 80 1a 0b 01 000b 0000000000000064
        c0 20 0c 0001fde8 00000001 00000002 c0 23 04 0000fde8 e0 c8 02 beef";
    let short = "40 01 01 00 40 02 08 02 03 fde8 5ba0 5ba0 40 03 04 c0000201
        c0 07 06 5ba0 0a000001 c0 11 0a 02 02 00010000 00010001 c0 12 08 00010000 0a000001";
    let hop = "20010db8000000000000000000000001";
    let link = "fe800000000000000000000000000001";
    let reach = format!("90 0e 0032 0002 01 20 {hop} {link} 00 20 20010db8 30 20010db80001 00");
    let over = format!("80 0e 1b 0001 01 10 {hop} 00 18 cb0071 08 0a");
    vec![
        message(1, &hex("04 fde8 00f0 0a000001 00")),
        message(
            1,
            &hex("04 5ba0 00f0 0a000001 4b 02 49
                01 04 00010001 01 04 00020001 02 00 05 06 000100010002 06 00 09 01 03
                40 06 c078 00010180 41 04 00010000 45 08 00010103 00020101 46 00
                47 07 00010180 000e10 49 05 03 726f62 00 4b 05 04 4d616e78"),
        ),
        message(
            1,
            &hex("04 5ba0 00f0 0a000001 ff ff 000b 02 0008 02 00 41 04 00010000"),
        ),
        update(
            "08 0a 18 0a0000",
            &format!("{rest} 40 03 04 c0000201 {rare}"),
            "08 0a 20 0a000001",
        ),
        update("", &format!("{reach} {rest} {rare}"), ""),
        update("", &format!("{over} {rest}"), ""),
        update("", short, "08 0a 18 cb0071"),
        update(
            "00000001 08 0a",
            &format!("{rest} 40 03 04 c0000201"),
            "00000002 08 0a",
        ),
        update("", "80 0f 08 0002 01 20 20010db8", ""),
        update("", "80 0f 03 0002 01", ""),
        update("", "", ""),
        message(3, &hex("06 02 04 62796521")),
        message(3, &hex("06 09 06 04 03 627965")),
        message(4, &[]),
        message(5, &hex("0001 01 01")),
    ]
}

/// Damages a message in one to four places.
fn damage(m: &mut Vec<u8>, other: &[u8], dice: &mut Dice) {
    for _ in 0..=dice.below(4) {
        // The header is left alone mostly, or little would be reached.
        let from = if dice.below(20) == 0 {
            0
        } else {
            19.min(m.len())
        };
        let at = from + dice.below(m.len() - from);
        match dice.below(6) {
            _ if at >= m.len() => m.push(dice.octet()),
            0 => m[at] ^= 1 << dice.below(8),
            1 | 2 => m[at] = dice.octet(),
            3 => m.insert(at, dice.octet()),
            4 => {
                m.remove(at);
            }
            _ => {
                let start = 19 + dice.below(other.len() - 19);
                let piece = other.get(start..).unwrap_or_default();
                let piece = &piece[..dice.below(piece.len() + 1)];
                m.splice(at..at, piece.iter().copied());
            }
        }
    }
    m.truncate(4096);
}

/// Makes the lengths of message and attributes fit again, so that what is inside is read.
fn mend(m: &mut [u8]) {
    if m.len() < 23 {
        return;
    }
    let len = u16::try_from(m.len()).unwrap();
    m[16..18].copy_from_slice(&len.to_be_bytes());
    if m[18] == 2 && m[19..21] == [0, 0] {
        let attributes = usize::from(u16::from_be_bytes([m[21], m[22]]));
        let len = u16::try_from(attributes.min(m.len() - 23)).unwrap();
        m[21..23].copy_from_slice(&len.to_be_bytes());
    }
}

#[test]
fn the_corpus_itself() {
    for m in corpus() {
        for bits in 0..=255 {
            exercise::message(&m, &exercise::session(bits));
        }
    }
}

/// Where the seeds of a fuzz target lie, and what it has found.
fn seeds(target: &str) -> std::path::PathBuf {
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR"));
    root.join("../../fuzz/corpus").join(target)
}

/// Everything in the fuzz targets' corpus, through the fuzz targets.
#[test]
fn the_corpus_of_the_fuzz_targets() {
    for (name, target) in exercise::TARGETS {
        let mut found = 0;
        for entry in std::fs::read_dir(seeds(name)).unwrap() {
            target(&std::fs::read(entry.unwrap().path()).unwrap());
            found += 1;
        }
        assert!(found > 0, "{name} has no seeds");
    }
}

/// Writes the seeds anew from the corpus above:
/// `cargo test -p bgp --test wire write_seeds -- --ignored`.
#[test]
#[ignore = "writes into the source tree"]
fn write_seeds() {
    let write = |target: &str, n: usize, data: &[u8]| {
        std::fs::create_dir_all(seeds(target)).unwrap();
        std::fs::write(seeds(target).join(format!("seed-{n:02}")), data).unwrap();
    };
    for (n, m) in corpus().iter().enumerate() {
        // Internal; four-octet numbers, IPv4 over IPv6, both families.
        let bits = [0b01_0101];
        write("bgp_message", n, &[&bits, &m[18..]].concat());
        if m[18] == 2 && m[19..21] == [0, 0] && m[21..23] != [0, 0] {
            let end = 23 + usize::from(u16::from_be_bytes([m[21], m[22]]));
            write("bgp_attributes", n, &[&bits, &m[23..end]].concat());
        }
        if m[18] == 1 && m[28] > 2 && m[28] < 255 {
            write("bgp_capabilities", n, &m[31..]);
        }
    }
}

#[test]
fn damaged_messages() {
    let corpus = corpus();
    let mut dice = Dice(2026);
    for _ in 0..60_000 {
        let mut m = corpus[dice.below(corpus.len())].clone();
        let other = &corpus[dice.below(corpus.len())];
        damage(&mut m, other, &mut dice);
        if dice.below(8) != 0 {
            mend(&mut m);
        }
        exercise::message(&m, &exercise::session(dice.octet()));
    }
}
