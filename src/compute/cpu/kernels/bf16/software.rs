//! A matrix unit in software, for tests on every CPU.

use super::blocks::PAIRS;
use super::left::{TILE, TileBlock};
use super::pairs::Pairs;
use super::portable::add_block;
use super::rounding::parts;
use super::tiles::TileUnit;

/// Eight tiles.
pub(super) struct Software([[[u32; PAIRS]; TILE]; 8]);

impl Default for Software {
    fn default() -> Self {
        // No numbers before the first are written.
        Self([[[f32::NAN.to_bits(); PAIRS]; TILE]; 8])
    }
}

#[allow(unsafe_code)]
impl TileUnit for Software {
    fn zero<const TO: usize>(&mut self) {
        self.0[TO] = [[0; PAIRS]; TILE];
    }

    unsafe fn load<const TO: usize>(&mut self, from: *const f32, stride_bytes: usize) {
        for (row, to) in self.0[TO].iter_mut().enumerate() {
            // SAFETY: the caller's rows.
            *to = unsafe { from.cast::<u8>().wrapping_add(row * stride_bytes).cast::<[u32; PAIRS]>().read() };
        }
    }

    unsafe fn store<const FROM: usize>(&mut self, to: *mut f32, stride_bytes: usize) {
        for (row, from) in self.0[FROM].iter().enumerate() {
            // SAFETY: the caller's rows.
            unsafe { to.cast::<u8>().wrapping_add(row * stride_bytes).cast::<[u32; PAIRS]>().write(*from) };
        }
    }

    fn left<const TO: usize>(&mut self, block: &TileBlock) {
        self.0[TO] = block.0;
    }

    fn right<const TO: usize>(&mut self, lines: &[Pairs; PAIRS], half: usize) {
        for (to, line) in self.0[TO].iter_mut().zip(lines) {
            to.copy_from_slice(&line.0[half * TILE..(half + 1) * TILE]);
        }
    }

    fn multiply<const TO: usize, const LEFT: usize, const RIGHT: usize>(&mut self) {
        let (left, right) = (self.0[LEFT], self.0[RIGHT]);
        for (row, elements) in self.0[TO].iter_mut().enumerate() {
            for (column, element) in elements.iter_mut().enumerate() {
                let members = (0..PAIRS).flat_map(|pair| {
                    let (left, right) = (parts(left[row][pair]), parts(right[pair][column]));
                    [[left[0], right[0]], [left[1], right[1]]]
                });
                *element = add_block(f32::from_bits(*element), members).to_bits();
            }
        }
    }
}
