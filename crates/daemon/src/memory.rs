//! Memory that is free, given back to the system.
//!
//! The C library keeps what a process frees, for the next time. A node that has read a
//! snapshot of a large cluster needs that much again only when it reads the next one, so what is
//! kept is kept for nothing, on each node.
//!
//! Never: changes what a program computes. Where the C library has no such call, nothing happens.

/// One heap for all threads: a node's work is done by one, and heaps that others leave half
/// empty are never given back. Call it before there is a second thread.
pub fn configure() {
    #[cfg(target_env = "gnu")]
    // SAFETY: the call sets a number; it is made before any other thread exists.
    unsafe {
        libc::mallopt(libc::M_ARENA_MAX, 1);
    }
}

/// Gives back what is free. Takes milliseconds with a heap of tens of megabytes.
pub fn trim() {
    #[cfg(target_env = "gnu")]
    // SAFETY: the call is thread-safe and touches no memory in use.
    unsafe {
        libc::malloc_trim(0);
    }
}
