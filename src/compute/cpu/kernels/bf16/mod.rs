//! Products of factors in bf16, summed in f32. Knows nothing of precisions, models or settings.
//!
//! Factors are rounded to the nearest bf16. An element is the sum of blocks of 32 members of the
//! inner dimension, in the order that AMX has ([`portable`]): on every CPU the same bits, with any
//! number of threads. AVX-512, AVX2 and NEON compute it with fused multiply-adds of f32, as fast as
//! f32 products where arithmetic is the limit, and twice as fast where memory is.
//!
//! Not used: `VDPBF16PS` of AVX-512 BF16 (Zen 4, Cooper Lake) and NEON's `BFMMLA`. They sum in
//! other orders, so their bits differ. A CPU with the first, and without AMX, would multiply up to
//! twice as fast.

#[cfg(target_arch = "x86_64")]
mod amx;
mod blocks;
mod check;
mod choice;
mod flush;
mod left;
mod pairs;
mod portable;
mod product;
mod rounding;
mod slab;
#[cfg(test)]
mod software;
#[cfg(test)]
mod tests;
mod tiles;
mod unit;
mod vectors;
mod window;

pub(super) use choice::unit;
pub use choice::{bf16_unit, check_bf16_unit, has_matrix_unit};
pub(super) use pairs::{Pairs, Plain, lines};
pub(super) use product::{Factor, Product};
pub use rounding::round;
pub(super) use unit::Unit;
