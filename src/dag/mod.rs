//! The graph of a run without its meaning: fingerprints, and the order of nodes.
//!
//! Knows nothing of Arrow, burn, or files.

pub mod fingerprint;
pub mod schedule;
