//! A piece of a bf16 product for a unit. Knows nothing of units or threads.

use std::ops::Range;

use super::blocks::PAIRS;
use super::left::Strips;
use super::pairs::Pairs;
use super::window::Window;

/// Tiles times panels, along some blocks of the inner dimension.
pub(super) struct Slab<'a> {
    pub(super) strips: Strips,
    /// Blocks of the inner dimension, all of which tiles and panels have.
    pub(super) whole: usize,
    /// The blocks to be added.
    pub(super) blocks: Range<usize>,
    /// The panels, one after the other. More may follow.
    pub(super) lines: &'a [Pairs],
    pub(super) panels: usize,
    /// The elements: as many columns as the panels have.
    pub(super) out: Window<'a>,
    /// Whether `out` counts too.
    pub(super) add: bool,
}

impl<'a> Slab<'a> {
    /// The lines of a panel's blocks.
    pub(super) fn lines(&self, panel: usize) -> &'a [Pairs] {
        &self.lines[(panel * self.whole + self.blocks.start) * PAIRS..][..self.blocks.len() * PAIRS]
    }

    /// The lines in a panel's place in the next slab, as far as they are known.
    pub(super) fn lines_ahead(&self, panel: usize) -> &'a [Pairs] {
        self.lines.get(((panel + self.panels) * self.whole + self.blocks.start) * PAIRS..).unwrap_or_default()
    }
}
