//! The graph of a run, without its meaning: fingerprints, and in which order nodes run.
//!
//! Knows nothing of Arrow, burn, or files.

pub mod fingerprint;
pub mod schedule;
