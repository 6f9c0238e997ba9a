//! Desired state rendered as values of the kernel rooms.
