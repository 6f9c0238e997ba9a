//! Addresses: blocks, affinities and handles.
