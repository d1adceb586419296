//! Keys and values of sequences of any lengths. A sequence may begin at the end of another one.
//! Knows nothing of tokens or weights.

use std::ops::Range;

use super::kernels::{self, BLOCK, Kept, Pair, Segment};
use super::mlp::MlpScratch;
use crate::compute::Precision;

/// Numbers that are worth being copied on another thread.
const WORTH_A_THREAD: usize = 1 << 11;

/// The keys and values of many sequences, every layer.
///
/// A sequence may have a prefix, another sequence that is read before it and must not grow any more
/// once something follows it: a prompt is held once for all of its responses. Memory of closed
/// sequences is used again.
#[derive(Debug)]
pub struct CpuCache {
    sequences: Vec<Sequence>,
    closed: Vec<usize>,
    layers: usize,
    key_value_heads: usize,
    head_dim: usize,
    precision: Precision,
    pub(super) scratch: Scratch,
}

#[derive(Debug, Default)]
struct Sequence {
    prefix: Option<usize>,
    /// Positions of its own.
    length: usize,
    layers: Vec<LayerCache>,
}

/// One layer's part.
#[derive(Debug)]
enum LayerCache {
    Singles(Lists<f32>),
    Pairs(Lists<Pair>),
}

/// Keys and values in the layout of [`Segment`].
#[derive(Debug, Default)]
struct Lists<T> {
    keys: Vec<T>,
    values: Vec<T>,
}

/// What a position sees: of its sequence's prefix, and of its own sequence.
#[derive(Debug)]
pub(super) enum Segments<'a> {
    /// In f32.
    Singles([Segment<'a, f32>; 2]),
    /// In bf16.
    Pairs([Segment<'a, Pair>; 2]),
}

impl<T: Kept> Lists<T> {
    /// Room for `positions`, if the lists are empty.
    fn reserve(&mut self, positions: usize, [heads, head_dim]: [usize; 2]) {
        let width = heads * head_dim.div_ceil(T::NUMBERS);
        self.keys.reserve_exact(positions.next_multiple_of(BLOCK) * width);
        self.values.reserve_exact(positions * width);
    }

    /// The first positions.
    fn segment(&self, length: usize) -> Segment<'_, T> {
        Segment { keys: &self.keys, values: &self.values, length }
    }
}

impl LayerCache {
    fn new(precision: Precision) -> Self {
        match precision {
            Precision::F32 => Self::Singles(Lists::default()),
            Precision::Bf16 => Self::Pairs(Lists::default()),
        }
    }

    fn clear(&mut self) {
        match self {
            Self::Singles(Lists { keys, values }) => {
                keys.clear();
                values.clear();
            }
            Self::Pairs(Lists { keys, values }) => {
                keys.clear();
                values.clear();
            }
        }
    }

    /// How many positions there are, of so many heads.
    fn positions(&self, heads: usize, head_dim: usize) -> usize {
        let (values, width) = match self {
            Self::Singles(lists) => (lists.values.len(), heads * head_dim),
            Self::Pairs(lists) => (lists.values.len(), heads * head_dim.div_ceil(2)),
        };
        values.checked_div(width).unwrap_or(0)
    }
}

/// Memory of a forward pass, reused by every layer and the next pass.
#[derive(Debug, Default)]
pub(super) struct Scratch {
    pub(super) normed: Vec<f32>,
    pub(super) qkv: Vec<f32>,
    pub(super) attended: Vec<f32>,
    pub(super) mlp: MlpScratch,
    pub(super) change: Vec<f32>,
}

impl CpuCache {
    /// A cache without sequences for a model of these sizes.
    pub(super) fn new(layers: usize, key_value_heads: usize, head_dim: usize, precision: Precision) -> Self {
        Self { sequences: Vec::new(), closed: Vec::new(), layers, key_value_heads, head_dim, precision, scratch: Scratch::default() }
    }

    /// Begins a sequence, after the positions of `prefix` if one is named, and returns its number.
    /// Takes memory for `positions` of its own, which it fills as the sequence grows; more than
    /// that are possible, with copies.
    ///
    /// # Panics
    /// When there is no such prefix.
    pub fn open(&mut self, prefix: Option<usize>, positions: usize) -> usize {
        assert!(prefix.is_none_or(|prefix| self.sequences[prefix].prefix.is_none()), "a prefix has no prefix of its own");
        let number = self.closed.pop().unwrap_or_else(|| {
            self.sequences
                .push(Sequence { layers: (0..self.layers).map(|_| LayerCache::new(self.precision)).collect(), ..Sequence::default() });
            self.sequences.len() - 1
        });
        let sequence = &mut self.sequences[number];
        (sequence.prefix, sequence.length) = (prefix, 0);
        let shape = [self.key_value_heads, self.head_dim];
        for layer in &mut sequence.layers {
            match layer {
                LayerCache::Singles(lists) => lists.reserve(positions, shape),
                LayerCache::Pairs(lists) => lists.reserve(positions, shape),
            }
        }
        number
    }

    /// Ends a sequence, whose number may then be given to another one. None that has it as its
    /// prefix may be used any more.
    ///
    /// # Panics
    /// When there is no such sequence.
    pub fn close(&mut self, number: usize) {
        self.sequences[number].layers.iter_mut().for_each(LayerCache::clear);
        self.closed.push(number);
    }

    /// Positions of a sequence, its prefix included.
    ///
    /// # Panics
    /// When there is no such sequence.
    pub fn length(&self, number: usize) -> usize {
        let Sequence { prefix, length, .. } = &self.sequences[number];
        prefix.map_or(0, |prefix| self.sequences[prefix].length) + length
    }

    /// The sequence that a sequence follows.
    pub(super) fn prefix(&self, number: usize) -> Option<usize> {
        self.sequences[number].prefix
    }

    /// Bytes a position takes in all layers.
    pub fn bytes_per_position(&self) -> usize {
        let of_head = match self.precision {
            Precision::F32 => self.head_dim * size_of::<f32>(),
            Precision::Bf16 => self.head_dim.div_ceil(2) * size_of::<Pair>(),
        };
        2 * self.layers * self.key_value_heads * of_head
    }

    /// Says that a sequence has `positions` more, which every layer has been given.
    pub(super) fn advance(&mut self, number: usize, positions: usize) {
        self.sequences[number].length += positions;
    }

    /// Adds a layer's keys and values; [`Self::advance`] makes them count once all layers have
    /// theirs.
    ///
    /// # Shapes
    /// - spans: for each sequence, which of the rows are its own
    /// - rows: `[positions, width]`, which end with keys and values, `[heads, head_dim]` each
    pub(super) fn append(&mut self, layer: usize, spans: &[Range<usize>], rows: &[f32], width: usize) {
        let shape = [self.key_value_heads, self.head_dim];
        let at_least = WORTH_A_THREAD.div_ceil((self.key_value_heads * self.head_dim).max(1));
        let append = |(sequence, span): (&mut Sequence, &Range<usize>)| {
            if span.is_empty() {
                return;
            }
            let (rows, length) = (&rows[span.start * width..span.end * width], sequence.length);
            match &mut sequence.layers[layer] {
                LayerCache::Singles(Lists { keys, values }) => kernels::keep(rows, width, shape, length, keys, values),
                LayerCache::Pairs(Lists { keys, values }) => kernels::keep(rows, width, shape, length, keys, values),
            }
        };
        let pieces = self.sequences.chunks_mut(at_least).zip(spans.chunks(at_least));
        kernels::each(pieces, |(sequences, spans)| sequences.iter_mut().zip(spans).for_each(append));
    }

    /// How many sequences there are, closed ones included.
    pub(super) fn sequences(&self) -> usize {
        self.sequences.len()
    }

    /// What position `past` past the end of a sequence sees in a layer, itself included: all
    /// positions that the layer has of its prefix, and its own.
    pub(super) fn segments(&self, layer: usize, number: usize, past: usize) -> Segments<'_> {
        let sequence = &self.sequences[number];
        let length = sequence.length + past + 1;
        let before = sequence.prefix.map(|prefix| &self.sequences[prefix].layers[layer]);
        let positions = before.map_or(0, |before| before.positions(self.key_value_heads, self.head_dim));
        match (&sequence.layers[layer], before) {
            (LayerCache::Singles(own), Some(LayerCache::Singles(before))) => {
                Segments::Singles([before.segment(positions), own.segment(length)])
            }
            (LayerCache::Pairs(own), Some(LayerCache::Pairs(before))) => Segments::Pairs([before.segment(positions), own.segment(length)]),
            (LayerCache::Singles(own), _) => Segments::Singles([Segment::default(), own.segment(length)]),
            (LayerCache::Pairs(own), _) => Segments::Pairs([Segment::default(), own.segment(length)]),
        }
    }
}
