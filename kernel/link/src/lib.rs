//! Interfaces, addresses, neighbours, forwarding entries and their sysctls.
