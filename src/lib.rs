//! optune
