//! Whole clusters made of network namespaces.
