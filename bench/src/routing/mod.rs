//! Route servers under load: ours and others, started alike and fed by the same peers.

pub(crate) mod daemons;
pub(crate) mod feeder;
