//! The transformer on the CPU, in kernels of our own.

mod backend;
mod cache;
mod decoder;
pub mod kernels;
mod mlp;
mod routed;
mod routes;
mod training;

pub use backend::CpuBackend;
pub use cache::CpuCache;
pub use decoder::CpuDecoder;
pub use training::{CpuGradients, CpuTraining, CpuWeights, PrefixGroup};
