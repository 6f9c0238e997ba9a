//! Netlink sockets, framing and errno; the only crate that names netlink packet types.
