//! The positions of sequences in a GPU's keys and values. Knows nothing of keys, values or devices.

/// A stretch of positions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Stretch {
    start: usize,
    positions: usize,
}

/// Sequences with a stretch of positions each. Some follow another sequence: a prompt is held once
/// for all of its responses.
#[derive(Debug)]
pub(super) struct Places {
    sequences: Vec<Sequence>,
    closed: Vec<usize>,
    /// In the order of their starts; no two touch.
    free: Vec<Stretch>,
}

#[derive(Clone, Copy, Debug)]
struct Sequence {
    /// Of the sequence it follows: where it starts, and how many positions it has.
    prefix: Option<usize>,
    own: Stretch,
    /// Its own filled positions.
    length: usize,
}

/// Where a sequence goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct End {
    /// The position of its next token, its prefix's included.
    pub(super) position: usize,
    pub(super) prefix_start: usize,
    pub(super) prefix: usize,
    pub(super) own_start: usize,
}

impl Places {
    pub(super) fn new(positions: usize) -> Self {
        Self { sequences: Vec::new(), closed: Vec::new(), free: vec![Stretch { start: 0, positions }] }
    }

    /// Begins a sequence of at most so many positions of its own, after those of `prefix`, in the
    /// first stretch of sufficient size; `None` when there is none.
    pub(super) fn open(&mut self, prefix: Option<usize>, positions: usize) -> Option<usize> {
        let found = self.free.iter().position(|stretch| stretch.positions >= positions)?;
        let stretch = &mut self.free[found];
        let own = Stretch { start: stretch.start, positions };
        stretch.start += positions;
        stretch.positions -= positions;
        if stretch.positions == 0 {
            self.free.remove(found);
        }
        let sequence = Sequence { prefix, own, length: 0 };
        Some(match self.closed.pop() {
            Some(number) => {
                self.sequences[number] = sequence;
                number
            }
            None => {
                self.sequences.push(sequence);
                self.sequences.len() - 1
            }
        })
    }

    /// Whether a sequence of so many positions could begin.
    pub(super) fn has_room(&self, positions: usize) -> bool {
        self.free.iter().any(|stretch| stretch.positions >= positions)
    }

    /// Ends a sequence. Its number and positions may go to another one.
    pub(super) fn close(&mut self, number: usize) {
        self.closed.push(number);
        let Stretch { mut start, mut positions } = self.sequences[number].own;
        if positions == 0 {
            return;
        }
        let mut at = self.free.partition_point(|stretch| stretch.start < start);
        if let Some(after) = self.free.get(at).filter(|after| start + positions == after.start) {
            positions += after.positions;
            self.free.remove(at);
        }
        if let Some(before) =
            at.checked_sub(1).and_then(|before| self.free.get(before)).filter(|before| before.start + before.positions == start)
        {
            (start, positions) = (before.start, before.positions + positions);
            at -= 1;
            self.free.remove(at);
        }
        self.free.insert(at, Stretch { start, positions });
    }

    /// Where a sequence goes on.
    pub(super) fn end(&self, number: usize) -> End {
        let Sequence { prefix, own, length } = self.sequences[number];
        let (prefix_start, prefix) = prefix.map_or((0, 0), |prefix| {
            let Sequence { own, length, .. } = self.sequences[prefix];
            (own.start, length)
        });
        End { position: prefix + length, prefix_start, prefix, own_start: own.start }
    }

    /// Adds filled positions to a sequence.
    pub(super) fn advance(&mut self, number: usize, positions: usize) {
        self.sequences[number].length += positions;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn positions_are_given_out_once_and_taken_back_whole() {
        let mut places = Places::new(100);
        let mut open: Vec<(usize, usize)> = Vec::new();
        let mut random = 12_345_u64;
        for _ in 0..10_000 {
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            let (what, size) = (random >> 60, (random >> 40) as usize % 20);
            if what < 9 {
                if let Some(number) = places.open(None, size) {
                    open.push((number, size));
                }
            } else if !open.is_empty() {
                let (number, _) = open.swap_remove(size % open.len());
                places.close(number);
            }
            let mut taken = [false; 100];
            for &(number, size) in &open {
                let start = places.end(number).own_start;
                assert!(!taken[start..start + size].contains(&true));
                taken[start..start + size].fill(true);
            }
            let free: usize = places.free.iter().map(|stretch| stretch.positions).sum();
            assert_eq!(free, taken.iter().filter(|taken| !**taken).count());
            assert!(places.free.windows(2).all(|two| two[0].start + two[0].positions < two[1].start));
        }
    }

    #[test]
    fn a_sequence_goes_on_where_its_prefix_ends() {
        let mut places = Places::new(10);
        let prompt = places.open(None, 4).unwrap();
        places.advance(prompt, 3);
        let response = places.open(Some(prompt), 6).unwrap();
        places.advance(response, 2);
        assert_eq!(places.end(response), End { position: 5, prefix_start: 0, prefix: 3, own_start: 4 });
        assert_eq!(places.open(None, 1), None);
        places.close(response);
        assert_eq!(places.open(None, 6), Some(response));
    }
}
