//! What one node's kernel should hold: the contract between calculation and programming.
