//! The processor's arithmetic: matrix products, attention and elementwise work over slices of f32. Knows nothing of models or tensors.
//!
//! Every result is the same bits on any number of threads, in any batch, and with any vector width: an element of a product is one chain
//! of fused multiply-adds over the inner dimension, a reduction has sixteen lanes whatever the processor has, and functions such as exp
//! are polynomials of our own. Vectors are chosen when the program runs ([`pulp`]); threads are those of the current rayon pool.

mod attention;
mod attention_backward;
mod backward;
mod elementwise;
mod matrix;
mod update;

pub use attention::{BLOCK, Segment, attend, attend_and_normalize};
pub use attention_backward::{Attended, AttentionGradients, attend_backward};
pub use backward::{add_column_sums, add_column_sums_of_products, gate, gate_backward, logprob, logprob_backward, rms_norm_backward};
pub use elementwise::{WEIGHED_TOGETHER, dot, exp, largest, rms_norm, rotate, rotate_back, softmax, swiglu, weigh};
pub use matrix::{Left, Packed, add_product, product};
pub use update::{AdamW, RmsProp, adam_w, rms_prop, scale, sum_of_squares};

/// The lanes of every reduction.
const LANES: usize = 16;

/// The sum of a reduction's lanes, always in this order.
#[inline(always)]
fn sum_lanes(mut lanes: [f32; LANES]) -> f32 {
    let mut width = LANES / 2;
    while width > 0 {
        for lane in 0..width {
            lanes[lane] += lanes[lane + width];
        }
        width /= 2;
    }
    lanes[0]
}
