//! The CPU's arithmetic: matrix products, attention and elementwise work over slices of f32. Knows
//! nothing of models or tensors.
//!
//! Every result is the same bits on any number of threads, in any batch, and with any vector width:
//! an element of a product is one chain of fused multiply-adds over the inner dimension, a
//! reduction has sixteen lanes whatever the CPU has, and functions such as exp are polynomials of
//! our own. Vectors are chosen when the program runs ([`pulp`]); threads are those of the current
//! rayon pool.

mod attention;
mod backward;
mod bf16;
mod elementwise;
mod kept;
mod left;
mod matrix;
mod memory;
mod packed;
mod panel;
mod self_attention;
mod threads;
mod tile;
mod update;
mod vectors;
mod written_out;

pub use attention::{View, attend};
pub use backward::{
    add_column_sums, add_column_sums_of_products, collision, gate, gate_backward, limit_backward, logprob, logprob_backward,
    rms_norm_backward,
};
pub use bf16::{bf16_unit, check_bf16_unit, has_matrix_unit, round};
pub use elementwise::{WEIGHED_TOGETHER, dot, exp, largest, limit, rms_norm, rotate, rotate_back, softmax, softmax_rows, swiglu, weigh};
pub use kept::{BLOCK, Kept, Pair, Segment, keep};
pub use left::Left;
pub use matrix::{Arithmetic, Right, add_product, add_products, add_products_in, product, products, products_in};
pub use memory::{Buffer, Memory};
pub use packed::Packed;
pub use self_attention::{AttentionGradients, Found, SelfAttention, self_attention, self_attention_backward};
pub use threads::{PIECE, awake, each, map, rows_together};
pub use update::{adam_w, rms_prop, scale, sum_of_squares};
pub use vectors::vectors;

use vectors::{LANES, arch, sum_lanes};

#[cfg(test)]
mod tests {
    use pulp::Arch;

    use super::vectors::NARROWER;
    use super::*;
    use crate::model::Activation;

    /// The results of `work` with every vector width of the CPU, widest first.
    fn with_all_widths<R>(work: impl Fn() -> R) -> Vec<R> {
        let mut widths = vec![None, Some(Arch::Scalar)];
        #[cfg(target_arch = "x86_64")]
        widths.extend(pulp::x86::V3::try_new().map(|simd| Some(Arch::V3(simd))));
        let results = widths.into_iter().map(|width| {
            NARROWER.set(width);
            work()
        });
        let results = results.collect();
        NARROWER.set(None);
        results
    }

    /// Numbers without a pattern, between −1 and 1.
    fn numbers(count: usize, seed: u32) -> Vec<f32> {
        let mut state = seed;
        let next = || {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            Some((state >> 8) as f32 / (1 << 23) as f32 - 1.0)
        };
        std::iter::from_fn(next).take(count).collect()
    }

    /// [`numbers`] with no more digits than a bf16 has.
    fn short(count: usize, seed: u32) -> Vec<f32> {
        numbers(count, seed).into_iter().map(|number| f32::from_bits(number.to_bits() & 0xffff_0000)).collect()
    }

    fn assert_all_same(name: &str, work: impl Fn() -> Vec<f32>) {
        let bits = |numbers: Vec<f32>| numbers.into_iter().map(f32::to_bits).collect::<Vec<u32>>();
        let results: Vec<Vec<u32>> = with_all_widths(work).into_iter().map(bits).collect();
        assert!(results.len() > 1 && results.iter().all(|result| *result == results[0]), "{name}");
    }

    #[test]
    fn every_vector_width_gives_the_same_bits() {
        // Small enough for one thread: the width is chosen on this one only.
        let (rows, inner, columns) = (13, 37, 45);
        let (left, right) = (numbers(rows * inner, 1), Packed::of_rows(inner, &[(&numbers(inner * columns, 2), columns)]));
        assert_all_same("product", || {
            let mut out = numbers(rows * columns, 3);
            add_product(Left::Rows(&left), &right, &mut out);
            out
        });
        let halves = Packed::of_rows(inner, &[(&short(inner * columns, 2), columns)]).narrowed();
        assert_all_same("product with halves", || {
            let mut out = vec![0.0; rows * columns];
            product(Left::Rows(&left), &halves, &mut out);
            out
        });
        let weight = numbers(45, 4);
        assert_all_same("rms_norm", || {
            let mut out = vec![0.0; 90];
            rms_norm(&numbers(90, 5), &weight, 1e-5, &mut out);
            out
        });
        for activation in [Activation::Silu, Activation::GeluTanh] {
            assert_all_same("swiglu", || {
                let mut out = vec![0.0; 45];
                swiglu(activation, &numbers(90, 6), 45, &mut out);
                out
            });
            assert_all_same("swiglu back", || {
                let (mut gates, mut ups) = (numbers(45, 6), numbers(45, 7));
                gate_backward(activation, &mut gates, &mut ups, &numbers(45, 8));
                [gates, ups].concat()
            });
        }
        assert_all_same("limit", || {
            let mut out = numbers(90, 6);
            limit(&mut out, 3.0, Some(2.0));
            let mut by = numbers(90, 7);
            limit_backward(&mut by, &out, 3.0, 2.0);
            [out, by].concat()
        });
        let (head_dim, positions) = (24, 37);
        let (keys, values) = (numbers(3 * 2 * head_dim * BLOCK, 7), numbers(positions * 2 * head_dim, 8));
        for cap in [None, Some(0.5)] {
            assert_all_same("attention", || {
                let mut out = vec![0.0; 3 * head_dim];
                let segments = [Segment { keys: &keys, values: &values, length: positions }];
                attend(&numbers(3 * head_dim, 9), head_dim, &segments, [1, 2], View { window: 30, cap }, &mut Vec::new(), &mut out);
                out
            });
        }
        assert_all_same("weights of a vocabulary", || {
            let mut logits = numbers(1234, 10);
            let sums = weigh(&mut logits, 1.0, 3.0);
            logits.extend(sums.into_iter().map(|sum| sum as f32));
            logits
        });
    }

    #[test]
    fn exp_is_that_of_the_standard_library() {
        for step in -870..=885 {
            let x = step as f32 / 10.0 + 0.017;
            let (found, expected) = (f64::from(exp(x)), f64::from(x).exp());
            assert!((found / expected - 1.0).abs() < 3e-7, "e^{x}: {found}, expected {expected}");
        }
        assert_eq!((exp(0.0), exp(-88.0), exp(f32::NEG_INFINITY)), (1.0, 0.0, 0.0));
    }

    #[test]
    fn tanh_and_gelu_are_those_of_the_standard_library() {
        for step in -2000..=2000 {
            let x = step as f32 / 100.0 + 0.003;
            let wide = f64::from(x);
            assert!((f64::from(elementwise::tanh(x)) / wide.tanh() - 1.0).abs() < 3e-7, "tanh {x}");
            let gelu = |x: f64| 0.5 * x * (1.0 + ((2.0 / std::f64::consts::PI).sqrt() * (x + 0.044715 * x * x * x)).tanh());
            let scale = wide.abs().max(1.0);
            assert!((f64::from(elementwise::gelu_tanh(x)) - gelu(wide)).abs() < 5e-7 * scale, "gelu {x}");
            let slope = (gelu(wide + 1e-5) - gelu(wide - 1e-5)) / 2e-5;
            assert!((f64::from(elementwise::gelu_tanh_slope(x)) - slope).abs() < 2e-6 * scale, "slope of gelu {x}");
        }
    }

    #[test]
    fn an_element_of_a_product_is_one_chain_of_fused_multiply_adds() {
        // One row and many, columns that fill panels and that do not, and more of the inner
        // dimension than is worked on at once.
        for (rows, inner, columns) in [(1, 40, 70), (5, 1700, 96), (13, 3, 33), (26, 800, 31), (700, 130, 65), (450, 1, 1)] {
            let (left, right, before) = (numbers(rows * inner, 1), numbers(inner * columns, 2), numbers(rows * columns, 3));
            let chain = |row: usize, column: usize, start: f32| {
                (0..inner).fold(start, |sum, at| left[row * inner + at].mul_add(right[at * columns + column], sum))
            };
            let transpose = |numbers: &[f32], rows: usize| -> Vec<f32> {
                let columns = numbers.len().checked_div(rows).unwrap_or(0);
                (0..columns).flat_map(|column| (0..rows).map(move |row| numbers[row * columns + column])).collect()
            };
            let split = columns / 3;
            let parts = transpose(&right, inner);
            let parts = [transpose(&parts[..split * inner], split), transpose(&parts[split * inner..], columns - split)];
            let parts: Vec<(&[f32], usize)> = [split, columns - split]
                .into_iter()
                .zip(&parts)
                .filter(|(width, _)| *width > 0)
                .map(|(width, part)| (&part[..], width))
                .collect();
            let transposed_left = transpose(&left, rows);
            let transposed_right = transpose(&right, inner);
            let packed = [Packed::of_rows(inner, &parts), Packed::of_columns(inner, columns, &transposed_right)];
            let plain = [Right::Rows(&right, columns), Right::Columns(&transposed_right, columns)];
            for right in packed.iter().map(Right::Packed).chain(plain) {
                for left in [Left::Rows(&left), Left::Columns(&transposed_left)] {
                    for threads in [1, 2, 5] {
                        for add in [false, true] {
                            let mut out = before.clone();
                            matrix::multiply(left, [(right, &mut out[..])], add, threads);
                            let expected =
                                (0..rows * columns).map(|at| chain(at / columns, at % columns, if add { before[at] } else { 0.0 }));
                            assert!(out.iter().copied().eq(expected), "{rows} x {inner} x {columns}, {threads} threads, add: {add}");
                        }
                    }
                }
            }
        }
    }

    #[test]
    fn several_products_of_one_left_factor_are_what_each_is() {
        let (rows, inner) = (40, 90);
        let left = numbers(rows * inner, 1);
        let rights: Vec<Vec<f32>> = [7, 200, 33].map(|columns| numbers(inner * columns, columns as u32)).into();
        let columns = |right: &[f32]| right.len() / inner;
        let mut outs: Vec<Vec<f32>> = rights.iter().map(|right| vec![1.0; rows * columns(right)]).collect();
        let each = rights.iter().zip(&mut outs).map(|(right, out)| (Right::Rows(right, columns(right)), &mut out[..]));
        add_products(Left::Rows(&left), each);
        for (right, out) in rights.iter().zip(&outs) {
            let mut alone = vec![1.0; out.len()];
            add_product(Left::Rows(&left), Right::Rows(right, columns(right)), &mut alone);
            assert_eq!(*out, alone);
        }
    }

    #[test]
    fn what_fits_into_halves_is_the_same_in_them() {
        for (rows, inner, columns) in [(1, 40, 70), (30, 900, 96), (300, 3, 33)] {
            let (left, right) = (numbers(rows * inner, 1), short(inner * columns, 2));
            let singles = Packed::of_rows(inner, &[(&right, columns)]);
            let halves = singles.clone().narrowed();
            assert!(matches!(halves.lines(), packed::Lines::Halves(_)));
            let product = |right: &Packed| {
                let mut out = vec![0.0; rows * columns];
                product(Left::Rows(&left), right, &mut out);
                out
            };
            assert_eq!(product(&halves), product(&singles));
            for column in 0..columns {
                let mut numbers = [vec![0.0; inner], vec![0.0; inner]];
                singles.column(column, &mut numbers[0]);
                halves.column(column, &mut numbers[1]);
                assert_eq!(numbers[0], numbers[1]);
            }
        }
        let mut right = short(64, 3);
        right[63] = 0.1;
        assert!(matches!(Packed::of_rows(2, &[(&right, 32)]).narrowed().lines(), packed::Lines::Singles(_)));
    }

    #[test]
    fn attention_does_not_depend_on_where_segments_begin() {
        let (head_dim, positions, window) = (24, 37, 30);
        // The second of two heads; keys position after position, to be laid out in blocks for each
        // segment.
        let (keys, values, queries) =
            (numbers(positions * 2 * head_dim, 1), numbers(positions * 2 * head_dim, 2), numbers(3 * head_dim, 3));
        let blocks = |range: std::ops::Range<usize>| {
            let mut blocks = vec![0.0; range.len().div_ceil(BLOCK) * 2 * head_dim * BLOCK];
            for (past, keys) in keys[range.start * 2 * head_dim..range.end * 2 * head_dim].chunks_exact(2 * head_dim).enumerate() {
                let block = &mut blocks[past / BLOCK * 2 * head_dim * BLOCK..][past % BLOCK..];
                block.iter_mut().step_by(BLOCK).zip(keys).for_each(|(to, from)| *to = *from);
            }
            blocks
        };
        let found = |split: usize| {
            let (before, after) = (blocks(0..split), blocks(split..positions));
            let segments = [
                Segment { keys: &before, values: &values, length: split },
                Segment { keys: &after, values: &values[split * 2 * head_dim..], length: positions - split },
            ];
            let mut out = vec![0.0; 3 * head_dim];
            attend(&queries, head_dim, &segments, [1, 2], View { window, cap: None }, &mut Vec::new(), &mut out);
            out
        };
        for split in 1..=positions {
            assert_eq!(found(split), found(0), "split at {split}");
        }
    }
}
