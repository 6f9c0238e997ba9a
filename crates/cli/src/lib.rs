//! The command line for resources and addresses.
