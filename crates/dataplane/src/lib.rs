//! The loop that makes the kernel hold what is desired.
