//! Sampling of responses: on the CPU, on a GPU, by a server.

#[cfg(feature = "cuda")]
mod gpu;
mod greedy;
mod local;
mod sampling;
pub mod server;
