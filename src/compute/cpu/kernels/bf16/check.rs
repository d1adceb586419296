//! A small product as a test of a unit. Knows nothing of the choice.

use super::pairs::Plain;
use super::product::{Factor, Product};
use super::unit::Unit;
use crate::compute::cpu::kernels::left::Left;

/// Two tiles of a matrix unit by two halves of a panel, and two blocks of the inner dimension.
const SHAPE: [usize; 3] = [17, 33, 18];

/// Whether a small product, tiny numbers and zeros among its factors, is that of plain f32.
pub(super) fn is_right(unit: Unit) -> bool {
    let [rows, inner, columns] = SHAPE;
    let (left, right, before) = (numbers(rows * inner, 1), numbers(inner * columns, 2), numbers(rows * columns, 3));
    let product = |unit: Unit| {
        let mut out = before.clone();
        let product = Product { left: Left::Rows(&left), rows, inner, starts: &[], add: true, threads: 1 };
        product.compute(unit, vec![(Factor::Plain(Plain::Rows(&right, columns)), &mut out)]);
        out.into_iter().map(f32::to_bits).collect::<Vec<u32>>()
    };
    matches!(unit, Unit::Portable) || product(unit) == product(Unit::Portable)
}

/// Numbers of all sizes without a pattern, every eighth below 2⁻⁶⁰.
fn numbers(count: usize, seed: u32) -> Vec<f32> {
    let mut state = seed;
    let next = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        let number = (state >> 8) as f32 / (1 << 23) as f32 - 1.0;
        let exponent = if state >> 29 == 0 { -60 - (state >> 24 & 7) as i32 } else { (state >> 16 & 15) as i32 - 8 };
        Some(number * 2.0_f32.powi(exponent))
    };
    std::iter::from_fn(next).take(count).collect()
}
