//! How the shared JSON spells things: nulls for empties, RFC 3339 seconds, CIDR keys.
//!
//! Promises: what Go's encoder of the peer system writes is read, and what is written here
//! that decoder reads.

use jiff::Timestamp;
use net::{Cidr, Family};
use serde::{Deserialize, Deserializer, Serializer};

/// The root of everything IPAM stores.
pub(crate) const ROOT: &str = "/calico/ipam/v2/";

/// Reads `null` as the default: Go writes nil slices and maps so.
pub(crate) fn null_default<'de, D: Deserializer<'de>, T: Default + Deserialize<'de>>(
    d: D,
) -> Result<T, D::Error> {
    Ok(Option::<T>::deserialize(d)?.unwrap_or_default())
}

/// Reads a bool, or the text that the v1 CRD of block affinities has in its place.
pub(crate) fn bool_or_text<'de, D: Deserializer<'de>>(d: D) -> Result<bool, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Flag {
        Bool(bool),
        Text(String),
    }
    Ok(match Option::<Flag>::deserialize(d)? {
        Some(Flag::Bool(b)) => b,
        Some(Flag::Text(t)) => t == "true",
        None => false,
    })
}

/// The `<address>-<length>` that keys have for a CIDR.
pub(crate) fn cidr_in_key(c: Cidr) -> String {
    format!("{}-{}", c.addr(), c.len())
}

/// The inverse of [`cidr_in_key`].
pub(crate) fn cidr_from_key(s: &str) -> Option<Cidr> {
    let (addr, len) = s.split_once('-')?;
    Cidr::parse_strict(&format!("{addr}/{len}")).ok()
}

/// `ipv4` or `ipv6`.
pub(crate) const fn family_in_key(f: Family) -> &'static str {
    match f {
        Family::V4 => "ipv4",
        Family::V6 => "ipv6",
    }
}

/// A time as whole seconds, rounded up: both users of stored times (cool-down, claim age)
/// ask whether something is old enough, and must never answer yes too early.
pub(crate) fn whole_seconds(t: Timestamp) -> Timestamp {
    let up = t.as_second() + i64::from(t.subsec_nanosecond() > 0);
    Timestamp::from_second(up).unwrap_or(t)
}

/// Optional RFC 3339 times; what does not parse reads as absent.
pub(crate) mod time {
    use super::{Deserialize, Deserializer, Serializer, Timestamp};

    pub(crate) fn serialize<S: Serializer>(t: &Option<Timestamp>, s: S) -> Result<S::Ok, S::Error> {
        match t {
            Some(t) => s.collect_str(t),
            None => s.serialize_none(),
        }
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(
        d: D,
    ) -> Result<Option<Timestamp>, D::Error> {
        Ok(Option::<String>::deserialize(d)?.and_then(|t| t.parse().ok()))
    }
}
