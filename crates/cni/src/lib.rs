//! The CNI and IPAM plugins.
