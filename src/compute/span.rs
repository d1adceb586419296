//! What a decoder with a cache of sequences is given.

/// Tokens that follow what a sequence of the cache holds.
#[derive(Clone, Copy, Debug)]
pub struct Span<'a> {
    /// The sequence's number in the cache.
    pub sequence: usize,
    /// The ids, at least one.
    pub tokens: &'a [i32],
}
