//! The transformer on a GPU: matrix products of cubek, and kernels of our own in cubecl between
//! them.

#[cfg(feature = "cuda")]
mod backend;
mod decoder;
mod kernels;
#[cfg(feature = "cuda")]
mod optimizer;
#[cfg(feature = "cuda")]
mod training;

use cubecl::ir::{ElemType, FloatKind, IntKind};

#[cfg(feature = "cuda")]
pub use backend::{GpuBackend, gpu_number};
pub use decoder::{GpuCache, GpuChange, GpuDecoder, GpuElement, GpuSample, GpuSampling};
use kernels::TILE;
#[cfg(feature = "cuda")]
pub use training::{ScoredTokens, hidden};

const F32: ElemType = ElemType::Float(FloatKind::F32);
const BF16: ElemType = ElemType::Float(FloatKind::BF16);
const I32: ElemType = ElemType::Int(IntKind::I32);

/// A product computes at most so many rows more than it is asked for.
const ROWS: usize = 4 * TILE;
