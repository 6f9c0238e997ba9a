//! Resources in, one node's desired state out, by increments.
