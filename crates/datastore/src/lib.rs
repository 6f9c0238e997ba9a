//! The store, its backends and the syncer.
