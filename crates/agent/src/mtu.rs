//! The MTU of pods' links.
//!
//! Promises: a packet that a pod may send fits the fabric with the encapsulation of any pool
//! around it.

use net::Family;
use regex_lite::Regex;

/// What an encapsulation adds to each packet.
pub(crate) const fn vxlan_overhead(outer: Family) -> u32 {
    match outer {
        // Outer IP, UDP, VXLAN and inner Ethernet headers.
        Family::V4 => 20 + 8 + 8 + 14,
        Family::V6 => 40 + 8 + 8 + 14,
    }
}

/// The host's MTU where no interface matches: what every cloud's network carries.
pub(crate) const FALLBACK: u32 = 1460;

/// The smallest MTU of the interfaces that match the pattern and are up, so that a packet fits
/// whichever it leaves through.
pub(crate) fn of_host<'a>(
    pattern: &Regex,
    links: impl IntoIterator<Item = (&'a str, bool, u32)>,
) -> u32 {
    let fits = links
        .into_iter()
        .filter(|(name, up, mtu)| *up && *mtu > 0 && pattern.is_match(name));
    fits.map(|(_, _, mtu)| mtu).min().unwrap_or(FALLBACK)
}

/// The MTU of a pod, given which families' pools are encapsulated in VXLAN.
pub(crate) fn of_pods(host: u32, vxlan: [bool; 2]) -> u32 {
    let overhead = Family::BOTH
        .into_iter()
        .zip(vxlan)
        .filter(|(_, on)| *on)
        .map(|(f, _)| vxlan_overhead(f))
        .max();
    host.saturating_sub(overhead.unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_smallest_uplink_less_the_largest_header() {
        let re = Regex::new("^eth").expect("valid");
        let links = [
            ("lo", true, 65536),
            ("eth0", true, 9000),
            ("eth1", true, 1500),
            ("eth2", false, 576),
        ];
        assert_eq!(of_host(&re, links), 1500);
        assert_eq!(of_host(&re, [("wg0", true, 1420)]), FALLBACK);
        assert_eq!(of_pods(1500, [false, false]), 1500);
        assert_eq!(of_pods(1500, [true, false]), 1450);
        assert_eq!(of_pods(1500, [true, true]), 1430);
    }
}
