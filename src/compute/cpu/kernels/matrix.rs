//! Products of matrices. Knows nothing of what they mean.
//!
//! The left factor is laid out in tiles of a few rows when it is used, and the right factor in
//! panels of a few columns, unless it is [`Packed`], which is worth it when it is used often.
//! Threads get tiles times panels.

use std::cell::Cell;
use std::ops::Range;

use super::bf16::{self, Factor, Plain, Unit};
use super::left::Left;
use super::memory::{grown, with_memory};
use super::packed::{Halves, Lines, Packed, Single, transpose};
use super::panel::{PANEL, interleave};
use super::tile::{Slab, TileRows, Tiles, Times};
use super::{arch, threads};
use crate::compute::Precision;

/// Multiply-adds that are worth being given to another thread.
const WORTH_A_SHARE: usize = 1 << 15;

/// Shares of a large product that there are for each thread.
const SHARES_A_THREAD: usize = 4;

/// How much of the inner dimension is worked on at once, at most, so that what is used again is
/// still near. An element's chain goes on where it stopped.
const DEPTH: usize = 768;

/// Numbers of the left factor that are laid out at once: 4 MiB.
const LAID_OUT: usize = 1 << 20;

/// Numbers of the left factor that are worth being laid out by another thread.
const WORTH_LAYING_OUT: usize = 1 << 13;

/// Tiles from which on each is used for several panels while it is near; fewer tiles all stay near,
/// and it is the panels that come from far.
const MANY_TILES: usize = 8;

/// Panels that many tiles are multiplied with at once: with [`DEPTH`] they fit into a CPU's second
/// cache beside what goes by.
const PANELS_TOGETHER: usize = 4;

/// Tiles that are laid out by one thread, at least: where they come from columns, their numbers lie
/// together.
const TILES_TOGETHER: usize = 8;

/// The right factor of a product, `[inner, columns]`.
#[derive(Clone, Copy, Debug)]
pub enum Right<'a> {
    /// Laid out already.
    Packed(&'a Packed),
    /// Row after row, each of so many columns.
    Rows(&'a [f32], usize),
    /// So many columns, one after the other: what is stored is the transpose, `[columns, inner]`,
    /// row after row.
    Columns(&'a [f32], usize),
}

impl<'a> From<&'a Packed> for Right<'a> {
    fn from(packed: &'a Packed) -> Self {
        Self::Packed(packed)
    }
}

impl<'a> Right<'a> {
    /// The inner dimension and the number of columns.
    fn dims(&self) -> [usize; 2] {
        match *self {
            Self::Packed(packed) => [packed.rows(), packed.columns()],
            Self::Rows(values, columns) | Self::Columns(values, columns) => [values.len().checked_div(columns).unwrap_or(0), columns],
        }
    }

    /// The factor as a product in a precision takes it. A packed one has its own precision.
    fn factor(&self, precision: Precision) -> InPrecision<'a> {
        let single = |form| InPrecision::Single(SingleFactor { form, dims: self.dims() });
        match (*self, precision) {
            (Self::Packed(packed), _) => match packed.lines() {
                Lines::Singles(lines) => single(Form::Singles(lines)),
                Lines::Halves(lines) => single(Form::Halves(lines)),
                Lines::Pairs(lines) => InPrecision::Rounded(Factor::Lines(lines, packed.columns())),
            },
            (Self::Rows(values, _), Precision::F32) => single(Form::Rows(values)),
            (Self::Columns(values, _), Precision::F32) => single(Form::Columns(values)),
            (Self::Rows(values, columns), Precision::Bf16) => InPrecision::Rounded(Factor::Plain(Plain::Rows(values, columns))),
            (Self::Columns(values, columns), Precision::Bf16) => InPrecision::Rounded(Factor::Plain(Plain::Columns(values, columns))),
        }
    }
}

/// A right factor in the precision of its product.
enum InPrecision<'a> {
    Single(SingleFactor<'a>),
    Rounded(Factor<'a>),
}

/// The right factor of a product in f32.
struct SingleFactor<'a> {
    form: Form<'a>,
    /// The inner dimension and the number of columns.
    dims: [usize; 2],
}

/// As in [`Right`]; of packed factors their lines.
enum Form<'a> {
    Singles(&'a [Single]),
    Halves(&'a [Halves]),
    Rows(&'a [f32]),
    Columns(&'a [f32]),
}

impl SingleFactor<'_> {
    /// The rows of some panels, of a part of the inner dimension: laid out in `memory`, if they are
    /// not yet.
    fn panels<'p>(&'p self, panels: Range<usize>, inner: Range<usize>, memory: &'p mut Vec<Single>) -> Panels<'p> {
        let [whole, columns] = self.dims;
        match self.form {
            Form::Singles(lines) => return Panels::Singles(&lines[panels.start * whole + inner.start..], whole),
            Form::Halves(lines) => return Panels::Halves(&lines[panels.start * whole + inner.start..], whole),
            Form::Rows(values) => {
                let lines = grown(memory, panels.len() * inner.len());
                for (at, row) in values[inner.start * columns..inner.end * columns].chunks_exact(columns).enumerate() {
                    for (panel, columns) in row[panels.start * PANEL..].chunks(PANEL).take(panels.len()).enumerate() {
                        lines[panel * inner.len() + at] = Single::of(columns);
                    }
                }
            }
            Form::Columns(values) => {
                let lines = grown(memory, panels.len() * inner.len());
                for (panel, lines) in panels.zip(lines.chunks_exact_mut(inner.len())) {
                    let columns = panel * PANEL..((panel + 1) * PANEL).min(columns);
                    transpose(&values[columns.start * whole..columns.end * whole], whole, inner.start, lines);
                }
            }
        }
        Panels::Singles(memory, inner.len())
    }
}

/// Rows of panels, and how many rows after one panel's first is the next panel's. More rows may
/// follow.
enum Panels<'a> {
    Singles(&'a [Single], usize),
    Halves(&'a [Halves], usize),
}

/// How a product is computed.
#[derive(Clone, Copy, Debug, Default)]
pub struct Arithmetic<'a> {
    /// Of factors that are not packed. With a packed one, a product is in the precision that it was
    /// packed in.
    pub precision: Precision,
    /// Where segments of the inner dimension begin, in ascending order. In bf16 members are summed
    /// in blocks of 32, none of which is of two segments: what a segment adds does not depend on
    /// those beside it. In f32 there are no blocks.
    pub segments: &'a [usize],
}

impl From<Precision> for Arithmetic<'_> {
    fn from(precision: Precision) -> Self {
        Self { precision, segments: &[] }
    }
}

/// `out = left · right`, in f32 unless the right factor is packed in bf16.
///
/// # Shapes
/// - left: `[rows, inner]`
/// - right: `[inner, columns]`
/// - out: `[rows, columns]`, row after row; its length says how many rows there are
///
/// # Panics
/// When the shapes do not fit.
pub fn product<'a>(left: Left<'_>, right: impl Into<Right<'a>>, out: &mut [f32]) {
    products(left, [(right.into(), out)]);
}

/// `out += left · right`, see [`product`].
///
/// # Panics
/// When the shapes do not fit.
pub fn add_product<'a>(left: Left<'_>, right: impl Into<Right<'a>>, out: &mut [f32]) {
    add_products(left, [(right.into(), out)]);
}

/// [`product`] of one left factor with several right ones, each into its own `out`.
///
/// # Panics
/// When the shapes do not fit.
pub fn products<'r, 'o>(left: Left<'_>, rights: impl IntoIterator<Item = (Right<'r>, &'o mut [f32])>) {
    products_in(Arithmetic::default(), left, rights);
}

/// [`add_product`] of one left factor with several right ones, each into its own `out`.
///
/// # Panics
/// When the shapes do not fit.
pub fn add_products<'r, 'o>(left: Left<'_>, rights: impl IntoIterator<Item = (Right<'r>, &'o mut [f32])>) {
    add_products_in(Arithmetic::default(), left, rights);
}

/// [`products`] in a precision, and by segments of the inner dimension.
///
/// # Panics
/// When the shapes do not fit, segments are not in order, a right factor is packed in f32 and the
/// precision is another, or one is packed in bf16 and there are segments.
pub fn products_in<'a, 'r, 'o>(
    arithmetic: impl Into<Arithmetic<'a>>,
    left: Left<'_>,
    rights: impl IntoIterator<Item = (Right<'r>, &'o mut [f32])>,
) {
    multiply_with(None, arithmetic.into(), left, rights, false, rayon::current_num_threads());
}

/// [`add_products`], see [`products_in`].
///
/// # Panics
/// As [`products_in`] does.
pub fn add_products_in<'a, 'r, 'o>(
    arithmetic: impl Into<Arithmetic<'a>>,
    left: Left<'_>,
    rights: impl IntoIterator<Item = (Right<'r>, &'o mut [f32])>,
) {
    multiply_with(None, arithmetic.into(), left, rights, true, rayon::current_num_threads());
}

/// `out = left · right` for each right factor, or with `add` `out += left · right`, on at most so
/// many threads; see [`product`].
///
/// # Panics
/// When the shapes do not fit.
pub(super) fn multiply<'r, 'o>(left: Left<'_>, rights: impl IntoIterator<Item = (Right<'r>, &'o mut [f32])>, add: bool, threads: usize) {
    multiply_with(None, Arithmetic::default(), left, rights, add, threads);
}

/// [`multiply`] in some arithmetic, bf16 by the named unit or else by the process's.
pub(super) fn multiply_with<'r, 'o>(
    unit: Option<Unit>,
    Arithmetic { precision, segments }: Arithmetic<'_>,
    left: Left<'_>,
    rights: impl IntoIterator<Item = (Right<'r>, &'o mut [f32])>,
    add: bool,
    threads: usize,
) {
    let (rights, mut outs): (Vec<Right<'r>>, Vec<&mut [f32]>) = rights.into_iter().unzip();
    if rights.is_empty() {
        return;
    }
    let (Left::Rows(values) | Left::Columns(values)) = left;
    let [inner, columns] = rights.first().map_or([0, 0], Right::dims);
    let rows = outs.first().map_or(0, |out| out.len().checked_div(columns).unwrap_or(0));
    for (right, out) in rights.iter().zip(&outs) {
        let [found, columns] = right.dims();
        assert!(found == inner && out.len() == rows * columns, "expected [{inner}, {columns}] and [{rows}, {columns}]");
        if let Right::Rows(values, _) | Right::Columns(values, _) = right {
            assert_eq!(values.len(), inner * columns, "expected whole rows");
        }
    }
    assert_eq!(values.len(), rows * inner, "expected [{rows}, {inner}]");
    if rows == 0 {
        return;
    }
    if inner == 0 {
        if !add {
            outs.iter_mut().for_each(|out| out.fill(0.0));
        }
        return;
    }
    let (mut singles, mut pairs) = ((Vec::new(), Vec::new()), Vec::new());
    for (right, out) in rights.into_iter().zip(outs) {
        match right.factor(precision) {
            InPrecision::Rounded(factor) => pairs.push((factor, out)),
            InPrecision::Single(factor) => {
                assert_eq!(precision, Precision::F32, "expected a factor packed in bf16");
                singles.0.push(factor);
                singles.1.push(out);
            }
        }
    }
    let (singles, outs) = singles;
    if !pairs.is_empty() {
        let product = bf16::Product { left, rows, inner, starts: segments, add, threads };
        product.compute(unit.unwrap_or_else(bf16::unit), pairs);
    }
    if !singles.is_empty() {
        Product { left, rows, inner, add, threads }.compute(&singles, outs);
    }
}

/// A left factor to be multiplied; no dimension is 0.
#[derive(Clone, Copy)]
struct Product<'a> {
    left: Left<'a>,
    rows: usize,
    inner: usize,
    add: bool,
    threads: usize,
}

/// A thread's share of a product: some rows of some columns.
struct Share<'r, 'o> {
    right: &'r SingleFactor<'r>,
    /// The first tile, and the tiles counted from it.
    first: usize,
    tiles: Tiles,
    panels: Range<usize>,
    /// A slice of each row, as wide as the panels.
    out: Vec<&'o mut [f32]>,
}

impl Product<'_> {
    fn compute(self, rights: &[SingleFactor<'_>], mut outs: Vec<&mut [f32]>) {
        let tiles = Tiles::new(self.rows, arch().dispatch(TileRows));
        let slabs = slabs(self.inner);
        let depth = slabs[0].len();
        // As many rows as are laid out at once, and as many slabs of them.
        let high = (LAID_OUT / (depth * tiles.rows.div_ceil(tiles.count))).clamp(1, tiles.count);
        for first in (0..tiles.count).step_by(high) {
            let (first, block) = (tiles.row(first), tiles.part(first, high));
            let mut shares = self.share_out(block, rights, &mut outs);
            with_memory(&TILES, |laid_out| {
                for slabs in slabs.chunks((LAID_OUT / (block.rows * depth)).max(1)) {
                    self.lay_out(first, block, slabs, laid_out);
                    match &mut shares[..] {
                        [share] => self.compute_share(block, share, slabs, laid_out),
                        shares => threads::each(shares, |share| self.compute_share(block, share, slabs, laid_out)),
                    }
                }
            });
        }
    }

    /// The shares of the next rows, as high as `block`, of all `outs`.
    fn share_out<'r, 'o>(&self, block: Tiles, rights: &'r [SingleFactor<'r>], outs: &mut [&'o mut [f32]]) -> Vec<Share<'r, 'o>> {
        let panels = |right: &SingleFactor<'_>| right.dims[1].div_ceil(PANEL);
        let all: usize = rights.iter().map(panels).sum();
        let most = if self.threads == 1 { 1 } else { SHARES_A_THREAD * self.threads };
        let count = (block.rows * all * PANEL * self.inner / WORTH_A_SHARE).clamp(1, most);
        let mut shares = Vec::with_capacity(2 * count + rights.len());
        for (right, out) in rights.iter().zip(outs) {
            let (here, after) = std::mem::take(out).split_at_mut(block.rows * right.dims[1]);
            *out = after;
            cut(block, right, here, (count * panels(right)).div_ceil(all).max(1), &mut shares);
        }
        shares
    }

    /// Adds what some slabs contribute, whose tiles are laid out.
    fn compute_share(&self, tiles: Tiles, share: &mut Share<'_, '_>, slabs: &[Range<usize>], laid_out: &[f32]) {
        let arch = arch();
        let together = if tiles.count > MANY_TILES { PANELS_TOGETHER } else { 1 };
        with_memory(&LINES, |memory| {
            for first in share.panels.clone().step_by(together) {
                let group = first..(first + together).min(share.panels.end);
                for inner in slabs {
                    let left = &laid_out[(inner.start - slabs[0].start) * tiles.rows..];
                    let slab = Slab {
                        tiles: share.tiles,
                        left: &left[tiles.row(share.first) * inner.len()..][..share.tiles.rows * inner.len()],
                        count: group.len(),
                        depth: inner.len(),
                        out: &mut share.out,
                        first: (group.start - share.panels.start) * PANEL,
                        add: self.add || inner.start > 0,
                    };
                    match share.right.panels(group.clone(), inner.clone(), memory) {
                        Panels::Singles(lines, stride) => arch.dispatch(Times { slab, lines, stride }),
                        Panels::Halves(lines, stride) => arch.dispatch(Times { slab, lines, stride }),
                    }
                }
            }
        });
    }

    /// The tiles from row `first` on, slab after slab, each in the order in which its numbers are
    /// used: tile after tile, the rows of the first column, of the second, and so on.
    fn lay_out(&self, first: usize, tiles: Tiles, slabs: &[Range<usize>], to: &mut Vec<f32>) {
        let numbers = tiles.rows * slabs.iter().map(Range::len).sum::<usize>();
        let to = grown(to, numbers);
        let threads = if self.threads == 1 { 1 } else { SHARES_A_THREAD * self.threads };
        let parts = (numbers / WORTH_LAYING_OUT).clamp(1, threads).div_ceil(slabs.len()).min(tiles.count);
        let together = tiles.count.div_ceil(parts).next_multiple_of(TILES_TOGETHER).min(tiles.count);
        let mut pieces = Vec::with_capacity(slabs.len() * tiles.count.div_ceil(together));
        let mut rest = to;
        for columns in slabs {
            for tile in (0..tiles.count).step_by(together) {
                let part = tiles.part(tile, together);
                let (here, after) = rest.split_at_mut(part.rows * columns.len());
                pieces.push((first + tiles.row(tile), part, columns.clone(), here));
                rest = after;
            }
        }
        let work = |(first, tiles, columns, to): (usize, Tiles, Range<usize>, &mut [f32])| self.lay_out_piece(first, tiles, columns, to);
        match parts {
            1 => pieces.into_iter().for_each(work),
            _ => threads::each(pieces, work),
        }
    }

    /// The tiles from row `first` on.
    fn lay_out_piece(&self, first: usize, tiles: Tiles, columns: Range<usize>, to: &mut [f32]) {
        for tile in 0..tiles.count {
            let (start, end) = (tiles.row(tile), tiles.row(tile + 1));
            let to = &mut to[start * columns.len()..end * columns.len()];
            match end - start {
                1 => self.lay_out_tile::<1>(first + start, columns.clone(), to),
                2 => self.lay_out_tile::<2>(first + start, columns.clone(), to),
                3 => self.lay_out_tile::<3>(first + start, columns.clone(), to),
                4 => self.lay_out_tile::<4>(first + start, columns.clone(), to),
                5 => self.lay_out_tile::<5>(first + start, columns.clone(), to),
                6 => self.lay_out_tile::<6>(first + start, columns.clone(), to),
                7 => self.lay_out_tile::<7>(first + start, columns.clone(), to),
                8 => self.lay_out_tile::<8>(first + start, columns.clone(), to),
                9 => self.lay_out_tile::<9>(first + start, columns.clone(), to),
                10 => self.lay_out_tile::<10>(first + start, columns.clone(), to),
                11 => self.lay_out_tile::<11>(first + start, columns.clone(), to),
                _ => self.lay_out_tile::<12>(first + start, columns.clone(), to),
            }
        }
    }

    /// The tile of the `ROWS` rows from `first` on.
    fn lay_out_tile<const ROWS: usize>(&self, first: usize, columns: Range<usize>, to: &mut [f32]) {
        let (to, _) = to.as_chunks_mut::<ROWS>();
        match self.left {
            Left::Rows(values) => {
                let rows: [&[f32]; ROWS] = std::array::from_fn(|row| &values[(first + row) * self.inner..][columns.clone()]);
                interleave(rows, to, |column| column);
            }
            Left::Columns(values) => {
                for (to, values) in to.iter_mut().zip(values[columns.start * self.rows + first..].chunks(self.rows)) {
                    if let Some(values) = values.first_chunk() {
                        *to = *values;
                    }
                }
            }
        }
    }
}

/// About `count` shares of one factor's product: by columns, since each share reads its part of the
/// right factor, and where there are many rows by these too, so that shares are small enough to
/// come out even.
fn cut<'r, 'o>(tiles: Tiles, right: &'r SingleFactor<'r>, out: &'o mut [f32], count: usize, shares: &mut Vec<Share<'r, 'o>>) {
    let [_, columns] = right.dims;
    let panels = columns.div_ceil(PANEL);
    let wide = panels.div_ceil(count.min(panels));
    let across = panels.div_ceil(wide);
    let down = if tiles.count > MANY_TILES { count.div_ceil(across).min(tiles.count) } else { 1 };
    let high = tiles.count.div_ceil(down);
    let mut rest = out;
    for first in (0..tiles.count).step_by(high) {
        let tiles = tiles.part(first, high);
        let (here, after) = rest.split_at_mut(tiles.rows * columns);
        let start = shares.len();
        shares.extend((0..panels).step_by(wide).map(|panel| {
            let panels = panel..(panel + wide).min(panels);
            Share { right, first, tiles, panels, out: Vec::with_capacity(tiles.rows) }
        }));
        for row in here.chunks_exact_mut(columns) {
            shares[start..].iter_mut().zip(row.chunks_mut(wide * PANEL)).for_each(|(share, columns)| share.out.push(columns));
        }
        rest = after;
    }
}

/// The inner dimension in pieces of nearly equal length, the first the longest.
fn slabs(inner: usize) -> Vec<Range<usize>> {
    let depth = inner.div_ceil(inner.div_ceil(DEPTH));
    (0..inner).step_by(depth).map(move |first| first..(first + depth).min(inner)).collect()
}

thread_local! {
    /// Tiles, whoever uses them.
    static TILES: Cell<Vec<f32>> = const { Cell::new(Vec::new()) };
    /// Panels.
    static LINES: Cell<Vec<Single>> = const { Cell::new(Vec::new()) };
}
