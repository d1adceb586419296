//! Every unit against the definition of a product in bf16, bit by bit.

use super::portable::{add_block, flushed, fused};
use super::rounding::rounded;
use super::{Unit, portable};
use crate::compute::Precision;
use crate::compute::cpu::kernels::left::Left;
use crate::compute::cpu::kernels::matrix::{Arithmetic, Right, multiply_with};
use crate::compute::cpu::kernels::packed::{Lines, Packed};

/// Numbers without a pattern: between −2 and 2, and some that are zero, tiny or huge.
fn numbers(count: usize, seed: u64) -> Vec<f32> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        let number = (state >> 40) as f32 / (1 << 23) as f32 - 1.0;
        Some(match state & 63 {
            0 => 0.0,
            1 => -0.0,
            2..6 => number * 2.0_f32.powi(-60 - (state >> 6 & 7) as i32),
            6 => number * f32::MIN_POSITIVE,
            7 => number * 2.0_f32.powi(40),
            bits => number * 2.0_f32.powi((bits & 7) as i32 - 6),
        })
    };
    std::iter::from_fn(next).take(count).collect()
}

fn transposed(values: &[f32], columns: usize) -> Vec<f32> {
    (0..columns).flat_map(|column| values.iter().skip(column).step_by(columns).copied()).collect()
}

/// Bits, all NaN alike.
fn bits(numbers: &[f32]) -> Vec<u32> {
    numbers.iter().map(|number| if number.is_nan() { f32::NAN.to_bits() } else { number.to_bits() }).collect()
}

/// What a product is, written down without blocks in memory, tiles or panels.
struct Expected<'a> {
    left: &'a [f32],
    right: &'a [f32],
    inner: usize,
    columns: usize,
    segments: &'a [usize],
}

impl Expected<'_> {
    fn element(&self, row: usize, column: usize, before: f32) -> f32 {
        let mut ends: Vec<usize> = self.segments.to_vec();
        ends.push(self.inner);
        let (mut element, mut first) = (before, 0);
        for end in ends {
            for start in (first..end).step_by(32) {
                let member = |at: usize| {
                    let inside = at < end;
                    let factor = |number: f32| if inside { rounded(number) } else { 0.0 };
                    [factor(self.left[row * self.inner + at.min(end - 1)]), factor(self.right[at.min(end - 1) * self.columns + column])]
                };
                element = add_block(element, (start..start + 32).map(member));
            }
            first = end;
        }
        element
    }
}

fn units() -> Vec<Unit> {
    let mut units = Unit::usable();
    units.push(Unit::Software);
    units
}

fn assert_same(found: &[f32], expected: &[u32], what: &str) {
    let found = bits(found);
    let different = found.iter().zip(expected).position(|(found, expected)| found != expected);
    if let Some(at) = different {
        panic!("{what}: element {at} of {} is {:x}, expected {:x}", found.len(), found[at], expected[at]);
    }
}

fn check(rows: usize, inner: usize, columns: usize, segments: &[usize], numbers: impl Fn(usize, u64) -> Vec<f32>, threads: &[usize]) {
    let (left, right, before) = (numbers(rows * inner, 1), numbers(inner * columns, 2), numbers(rows * columns, 3));
    let (left_columns, right_columns) = (transposed(&left, inner), transposed(&right, columns));
    let definition = Expected { left: &left, right: &right, inner, columns, segments };
    let expected = [false, true].map(|add| {
        let element = |at: usize| definition.element(at / columns, at % columns, if add { before[at] } else { 0.0 });
        bits(&(0..rows * columns).map(element).collect::<Vec<f32>>())
    });
    let packed = Packed::of_rows(inner, &[(&right, columns)]).rounded();
    let mut rights = vec![Right::Rows(&right, columns), Right::Columns(&right_columns, columns)];
    if segments.is_empty() {
        rights.push(Right::Packed(&packed));
    }
    for unit in units() {
        for (layout, right) in rights.iter().enumerate() {
            for (side, left) in [Left::Rows(&left), Left::Columns(&left_columns)].into_iter().enumerate() {
                for &threads in threads {
                    for add in [false, true] {
                        let mut out = before.clone();
                        let arithmetic = Arithmetic { precision: Precision::Bf16, segments };
                        multiply_with(Some(unit), arithmetic, left, [(*right, &mut out[..])], add, threads);
                        let what = format!(
                            "{rows} x {inner} x {columns} in {segments:?}, {}, left {side}, right {layout}, {threads} threads, add {add}",
                            unit.name()
                        );
                        assert_same(&out, &expected[usize::from(add)], &what);
                    }
                }
            }
        }
    }
}

#[test]
fn every_unit_gives_the_bits_of_the_definition() {
    // One row and many, tiles and panels that are full and that are not, several slabs.
    for (rows, inner, columns) in [(1, 1, 1), (1, 40, 70), (2, 64, 16), (5, 100, 96), (13, 3, 33), (17, 31, 31), (26, 800, 31)] {
        check(rows, inner, columns, &[], numbers, &[1, 2]);
    }
}

#[test]
fn many_rows_and_columns_on_many_threads() {
    for (rows, inner, columns) in [(33, 66, 48), (70, 130, 65), (450, 1, 1), (160, 70, 330), (48, 2000, 32)] {
        check(rows, inner, columns, &[], numbers, &[1, 2, 5]);
    }
}

#[test]
fn segments_are_apart() {
    for segments in [&[0, 33][..], &[1], &[70], &[10, 10, 64]] {
        check(19, 70, 40, segments, numbers, &[1, 2]);
    }
    // Bit by bit what one segment after the other adds.
    let (rows, inner, columns) = (20, 100, 50);
    let (left, right) = (numbers(inner * rows, 1), numbers(inner * columns, 2));
    for unit in units() {
        let (mut whole, mut parts) = (vec![0.0; rows * columns], vec![0.0; rows * columns]);
        let arithmetic = Arithmetic { precision: Precision::Bf16, segments: &[0, 37, 41] };
        multiply_with(Some(unit), arithmetic, Left::Columns(&left), [(Right::Rows(&right, columns), &mut whole[..])], false, 1);
        for range in [0..37, 37..41, 41..100] {
            let (left, right) = (&left[range.start * rows..range.end * rows], &right[range.start * columns..range.end * columns]);
            multiply_with(
                Some(unit),
                Precision::Bf16.into(),
                Left::Columns(left),
                [(Right::Rows(right, columns), &mut parts[..])],
                true,
                1,
            );
        }
        assert_same(&whole, &bits(&parts), unit.name());
    }
}

#[test]
fn tiny_numbers_count_as_zero_in_every_unit() {
    // Products and sums about as small as the smallest number of full precision.
    let tiny = |count: usize, seed: u64| -> Vec<f32> {
        let scale = |(at, number): (usize, f32)| number * 2.0_f32.powi(-60 - (at % 5) as i32);
        numbers(count, seed).into_iter().enumerate().map(scale).collect()
    };
    check(21, 75, 40, &[], tiny, &[1]);
    // One step below and above it, where rounding before and after differ.
    let edges = |count: usize, seed: u64| -> Vec<f32> {
        let exponents = [-63, -63, -75, -76, -88];
        let digits = numbers(count, seed);
        let edge = |(at, digit): (usize, f32)| {
            let exponent = exponents[(at * 7 + at / 5 + seed as usize) % exponents.len()];
            (1.0 + f32::from(u8::from(digit > 0.5)) * 0.5) * 2.0_f32.powi(exponent) * if digit < -0.2 { -1.0 } else { 1.0 }
        };
        digits.into_iter().enumerate().map(edge).collect()
    };
    check(40, 64, 40, &[], edges, &[1]);
    check(40, 6, 80, &[], edges, &[1]);
}

#[test]
fn what_is_no_number_stays_none() {
    let odd = |count: usize, seed: u64| -> Vec<f32> {
        let mut values = numbers(count, seed);
        for (at, value) in values.iter_mut().enumerate() {
            match (at * 31 + seed as usize) % 97 {
                3 => *value = f32::INFINITY,
                4 => *value = f32::NEG_INFINITY,
                5 => *value = f32::NAN,
                6 => *value = f32::MAX,
                _ => {}
            }
        }
        values
    };
    check(18, 40, 36, &[], odd, &[1]);
}

#[test]
fn rounding_is_before_flushing() {
    // 2⁻¹²⁶ less three quarters of a step of half its precision is flushed, less a quarter is not.
    let unit = f32::MIN_POSITIVE;
    let step = 2.0_f32.powi(-75);
    assert_eq!(fused(-step, 0.75 * step, unit), 0.0);
    assert_eq!(fused(-step, 0.25 * step, unit), unit);
    assert_eq!(fused(-step, 0.5 * step, unit), unit, "a tie goes to the even one");
    assert_eq!(fused(step, 0.75 * step, -unit).to_bits(), (-0.0_f32).to_bits());
    assert_eq!(flushed(-unit / 2.0).to_bits(), (-0.0_f32).to_bits());
    assert_eq!(portable::add_block(unit / 2.0, [].into_iter()), 0.0);
}

#[test]
fn several_products_of_one_left_factor_are_what_each_is() {
    let (rows, inner) = (40, 90);
    let left = numbers(rows * inner, 1);
    let rights: Vec<Vec<f32>> = [7, 200, 33].map(|columns| numbers(inner * columns, columns as u64)).into();
    let columns = |right: &[f32]| right.len() / inner;
    let packed = Packed::of_rows(inner, &[(&rights[2], 33)]).rounded();
    for unit in units() {
        let mut outs: Vec<Vec<f32>> = rights.iter().map(|right| vec![1.0; rows * columns(right)]).collect();
        let mut factors: Vec<Right<'_>> = rights.iter().map(|right| Right::Rows(right, columns(right))).collect();
        factors[2] = Right::Packed(&packed);
        let each = factors.iter().copied().zip(outs.iter_mut().map(|out| &mut out[..]));
        multiply_with(Some(unit), Precision::Bf16.into(), Left::Rows(&left), each, true, 2);
        for (right, out) in factors.iter().zip(&outs) {
            let mut alone = vec![1.0; out.len()];
            multiply_with(Some(unit), Precision::Bf16.into(), Left::Rows(&left), [(*right, &mut alone[..])], true, 1);
            assert_same(out, &bits(&alone), unit.name());
        }
    }
    // In one call, a factor packed in bf16 beside one in f32.
    let (mut first, mut second) = (vec![0.0; rows * 7], vec![0.0; rows * 33]);
    let mixed = [(Right::Rows(&rights[0], 7), &mut first[..]), (Right::Packed(&packed), &mut second[..])];
    multiply_with(None, Arithmetic::default(), Left::Rows(&left), mixed, false, 1);
    let mut alone = vec![0.0; rows * 7];
    multiply_with(None, Arithmetic::default(), Left::Rows(&left), [(Right::Rows(&rights[0], 7), &mut alone[..])], false, 1);
    assert_eq!(first, alone);
    let mut alone = vec![0.0; rows * 33];
    multiply_with(None, Precision::Bf16.into(), Left::Rows(&left), [(Right::Rows(&rights[2], 33), &mut alone[..])], false, 1);
    assert_eq!(bits(&second), bits(&alone));
}

#[test]
fn a_rounded_factor_has_the_rounded_numbers() {
    for (inner, columns) in [(5, 40), (33, 31), (64, 64)] {
        let values = numbers(inner * columns, 7);
        let packed = Packed::of_rows(inner, &[(&values, columns)]).rounded();
        assert!(matches!(packed.lines(), Lines::Pairs(_)));
        for column in 0..columns {
            let mut found = vec![0.0; inner];
            packed.column(column, &mut found);
            let expected: Vec<f32> = values.iter().skip(column).step_by(columns).map(|value| rounded(*value)).collect();
            assert_eq!(bits(&found), bits(&expected));
        }
    }
}

#[test]
fn the_mode_of_arithmetic_is_restored() {
    let (left, right) = (numbers(64, 1), numbers(64, 2));
    let mut out = [0.0];
    multiply_with(None, Precision::Bf16.into(), Left::Rows(&left), [(Right::Rows(&right, 1), &mut out[..])], false, 1);
    let half = std::hint::black_box(f32::MIN_POSITIVE) / 2.0;
    assert!(half.is_subnormal() && half > 0.0);
}

#[test]
#[should_panic(expected = "one segment")]
fn a_packed_factor_has_no_segments() {
    let values = numbers(64, 1);
    let packed = Packed::of_rows(64, &[(&values, 1)]).rounded();
    let arithmetic = Arithmetic { precision: Precision::Bf16, segments: &[10] };
    multiply_with(None, arithmetic, Left::Rows(&values), [(Right::Packed(&packed), &mut [0.0][..])], false, 1);
}

#[test]
#[should_panic(expected = "packed in bf16")]
fn a_factor_packed_in_f32_is_not_taken_for_bf16() {
    let values = numbers(64, 1);
    let packed = Packed::of_rows(64, &[(&values, 1)]);
    multiply_with(None, Precision::Bf16.into(), Left::Rows(&values), [(Right::Packed(&packed), &mut [0.0][..])], false, 1);
}
