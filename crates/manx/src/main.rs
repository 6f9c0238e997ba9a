//! The binary: dispatch on the name it is called by and on the subcommand.
fn main() {}
