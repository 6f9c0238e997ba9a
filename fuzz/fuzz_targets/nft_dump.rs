//! What the kernel says about a table: messages of netlink.
#![no_main]

use nftables::{TableFamily, TableName};

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let Ok(table) = TableName::new("manx") else {
        return;
    };
    for family in [TableFamily::Inet, TableFamily::Arp] {
        drop(nftables::parse_dump(family, &table, data));
    }
});
