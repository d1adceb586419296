//! The input of a decoder with a cache of sequences.

/// New tokens of a sequence in the cache.
#[derive(Clone, Copy, Debug)]
pub struct Span<'a> {
    /// The sequence's number in the cache.
    pub sequence: usize,
    /// The ids, at least one.
    pub tokens: &'a [i32],
}
