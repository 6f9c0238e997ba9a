//! Tests of the block steps.
