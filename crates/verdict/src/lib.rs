//! What must happen to a packet, straight from the resources.
//!
//! Promises: reads like the definition of each field, walks everything in order, and
//! says what it consulted; shares no code with calculation or rendering.
//!
//! Never: indexes, caches, does I/O.
