//! The inner dimension of a bf16 product in blocks. Knows nothing of factors.

use std::ops::Range;

/// Members of the inner dimension in a block: what a matrix unit multiplies at once.
pub(super) const BLOCK: usize = 32;

/// Pairs of members in a block.
pub(super) const PAIRS: usize = BLOCK / 2;

/// The blocks of `inner` members. A new segment begins at each of `starts`, and with it a new
/// block: the last block of a segment may be shorter.
///
/// # Panics
/// When `starts` are not ascending, or beyond `inner`.
pub(super) fn blocks(inner: usize, starts: &[usize]) -> Vec<Range<usize>> {
    let mut blocks = Vec::with_capacity(inner.div_ceil(BLOCK) + starts.len());
    let mut first = 0;
    for &end in starts.iter().chain([&inner]) {
        assert!((first..=inner).contains(&end), "expected segments that begin in ascending order within {inner}, found {starts:?}");
        blocks.extend((first..end).step_by(BLOCK).map(|start| start..(start + BLOCK).min(end)));
        first = end;
    }
    blocks
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_block_is_of_one_segment() {
        assert_eq!(blocks(70, &[]), [0..32, 32..64, 64..70]);
        assert_eq!(blocks(70, &[0, 33, 33]), [0..32, 32..33, 33..65, 65..70]);
        assert_eq!(blocks(33, &[32]), [0..32, 32..33]);
        assert!(blocks(0, &[0]).is_empty());
    }
}
