//! The graph of a run, without its meaning: fingerprints, and what to do in which order.
//!
//! Knows nothing of Arrow, burn, or files.

pub mod fingerprint;
pub mod schedule;
