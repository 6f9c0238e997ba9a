//! Routes of this node.
