//! Keys and values of sequences of any lengths. A sequence may begin at the end of another one.
//! Knows nothing of tokens or weights.

use std::ops::Range;

use super::kernels::{self, BLOCK, Segment};
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

/// One layer's part, in the layout of [`Segment`].
#[derive(Debug, Default)]
struct LayerCache {
    keys: Vec<f32>,
    values: Vec<f32>,
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
    ///
    /// # Panics
    /// When there is no such prefix.
    pub fn open(&mut self, prefix: Option<usize>) -> usize {
        assert!(prefix.is_none_or(|prefix| self.sequences[prefix].prefix.is_none()), "a prefix has no prefix of its own");
        let number = self.closed.pop().unwrap_or_else(|| {
            self.sequences.push(Sequence { layers: (0..self.layers).map(|_| LayerCache::default()).collect(), ..Sequence::default() });
            self.sequences.len() - 1
        });
        let sequence = &mut self.sequences[number];
        (sequence.prefix, sequence.length) = (prefix, 0);
        number
    }

    /// Ends a sequence, whose number may then be given to another one. None that has it as its
    /// prefix may be used any more.
    ///
    /// # Panics
    /// When there is no such sequence.
    pub fn close(&mut self, number: usize) {
        for layer in &mut self.sequences[number].layers {
            layer.keys.clear();
            layer.values.clear();
        }
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
        2 * self.layers * self.key_value_heads * self.head_dim * size_of::<f32>()
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
        let key_width = self.key_value_heads * self.head_dim;
        let precision = self.precision;
        let at_least = WORTH_A_THREAD.div_ceil(key_width.max(1));
        let append = |(sequence, span): (&mut Sequence, &Range<usize>)| {
            let cache = &mut sequence.layers[layer];
            let rows = rows[span.start * width..span.end * width].chunks_exact(width.max(1));
            for (position, row) in (sequence.length..).zip(rows) {
                let (keys, values) = row[width - 2 * key_width..].split_at(key_width);
                if position.is_multiple_of(BLOCK) {
                    cache.keys.resize((position / BLOCK + 1) * key_width * BLOCK, 0.0);
                }
                let block = &mut cache.keys[position / BLOCK * key_width * BLOCK..];
                let to = block[position % BLOCK..].iter_mut().step_by(BLOCK).zip(keys);
                match precision {
                    Precision::F32 => {
                        to.for_each(|(to, from)| *to = *from);
                        cache.values.extend_from_slice(values);
                    }
                    Precision::Bf16 => {
                        to.for_each(|(to, from)| *to = kernels::round(*from));
                        cache.values.extend(values.iter().copied().map(kernels::round));
                    }
                }
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
    pub(super) fn segments(&self, layer: usize, number: usize, past: usize) -> [Segment<'_>; 2] {
        let sequence = &self.sequences[number];
        let LayerCache { keys, values } = &sequence.layers[layer];
        let own = Segment { keys, values, length: sequence.length + past + 1 };
        let before = match sequence.prefix {
            Some(prefix) => {
                let LayerCache { keys, values } = &self.sequences[prefix].layers[layer];
                Segment { keys, values, length: values.len().checked_div(self.key_value_heads * self.head_dim).unwrap_or(0) }
            }
            None => Segment { keys: &[], values: &[], length: 0 },
        };
        [before, own]
    }
}
