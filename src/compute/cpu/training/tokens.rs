//! The tokens of a training pass: sequences with a common prefix share it. Knows nothing of
//! weights.

use crate::compute::cpu::kernels::{self, Arithmetic, Memory};
use crate::compute::{LowRank, Precision};
use crate::model::ModelError;

/// Sequences with a common prefix: it goes through the model once. Borrows the token ids.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PrefixGroup<'a> {
    /// Dropout is drawn from this number and the step. It is the same whenever the same sequences
    /// are trained on.
    item: u64,
    stem: &'a [i32],
    /// The rest of each sequence behind the stem; none when there is one sequence: it is the stem
    /// then.
    branches: Vec<&'a [i32]>,
}

impl<'a> PrefixGroup<'a> {
    /// Whole `sequences`, none of them empty.
    pub fn new(item: u64, sequences: &[&'a [i32]]) -> Self {
        let Some((first, others)) = sequences.split_first() else { return Self { item, stem: &[], branches: Vec::new() } };
        if others.is_empty() {
            return Self { item, stem: first, branches: Vec::new() };
        }
        // Something is left for every branch.
        let shortest = sequences.iter().map(|sequence| sequence.len().saturating_sub(1)).min().unwrap_or(0);
        let alike = |at: &usize| others.iter().all(|other| other[*at] == first[*at]);
        let shared = (0..shortest).take_while(alike).count();
        let branches = sequences.iter().map(|sequence| &sequence[shared..]).collect();
        Self { item, stem: &first[..shared], branches }
    }

    /// How many sequences there are.
    pub fn sequences(&self) -> usize {
        self.branches.len().max(1)
    }

    /// How many tokens go through the model.
    pub fn tokens(&self) -> usize {
        self.spans().map(<[i32]>::len).sum()
    }

    /// The stem, and the rest of a sequence.
    pub(super) fn sequence(&self, sequence: usize) -> [&'a [i32]; 2] {
        [self.stem, self.branches.get(sequence).copied().unwrap_or(&[])]
    }

    /// The stem, then each branch.
    fn spans(&self) -> impl Iterator<Item = &'a [i32]> {
        std::iter::once(self.stem).chain(self.branches.iter().copied())
    }
}

/// All tokens of a pass, group after group, each its stem and then its branches.
#[derive(Debug)]
pub(super) struct Tokens<'a> {
    groups: &'a [PrefixGroup<'a>],
    /// Where each token is in its sequence.
    pub(super) positions: Vec<usize>,
    pub(super) places: Vec<TokenPlace>,
    /// Where groups begin, without empty ones: gradients are the same in any pieces of whole
    /// segments.
    segments: Vec<usize>,
    /// Dropout is drawn from it; `None` drops nothing.
    step: Option<u64>,
    /// For the results of the pass.
    pub(super) memory: &'a Memory,
}

/// The cosines and sines of each token's position.
#[derive(Debug)]
pub(super) struct Angles {
    /// `[tokens, 2, pairs]`.
    pub(super) numbers: Vec<f32>,
    /// Numbers of one token.
    pub(super) width: usize,
}

/// Where a group's tokens are.
#[derive(Debug)]
pub(super) struct TokenPlace {
    item: u64,
    /// The row of its first token.
    pub(super) row: usize,
    /// How many tokens its stem and each branch have.
    pub(super) lengths: Vec<usize>,
}

impl<'a> Tokens<'a> {
    pub(super) fn new(groups: &'a [PrefixGroup<'a>], vocab_size: usize, step: Option<u64>, memory: &'a Memory) -> Result<Self, ModelError> {
        let mut positions = Vec::with_capacity(groups.iter().map(PrefixGroup::tokens).sum());
        let mut places = Vec::with_capacity(groups.len());
        for group in groups {
            let outside = |token: &&i32| usize::try_from(**token).map_or(true, |token| token >= vocab_size);
            if let Some(token) = group.spans().flatten().find(outside) {
                let problem = format!("token id {token}, expected 0 to {}", vocab_size.saturating_sub(1));
                return Err(ModelError::Sequences(problem));
            }
            let row = positions.len();
            positions.extend(0..group.stem.len());
            group.branches.iter().for_each(|branch| positions.extend((group.stem.len()..).take(branch.len())));
            places.push(TokenPlace { item: group.item, row, lengths: group.spans().map(<[i32]>::len).collect() });
        }
        let segments = places.iter().filter(|place| place.tokens() > 0).map(|place| place.row).collect();
        Ok(Self { groups, positions, places, segments, step, memory })
    }

    /// Some of the tokens, for an expert. Nothing is dropped there: PEFT has no dropout on experts.
    pub(super) fn chosen(&self, rows: &[usize]) -> Self {
        let positions = rows.iter().map(|row| self.positions[*row]).collect();
        let segment = |row: &usize| self.segments.partition_point(|start| start <= row);
        let begins = |at: &usize| *at == 0 || segment(&rows[*at]) != segment(&rows[at - 1]);
        let segments = (0..rows.len()).filter(begins).collect();
        Self { groups: &[], positions, places: Vec::new(), segments, step: None, memory: self.memory }
    }

    /// Products over the tokens, such as gradients, in this precision.
    pub(super) fn by_segments(&self, precision: Precision) -> Arithmetic<'_> {
        Arithmetic { precision, segments: &self.segments }
    }

    /// The ids, all in the vocabulary.
    pub(super) fn ids(&self) -> impl Iterator<Item = usize> {
        self.groups.iter().flat_map(PrefixGroup::spans).flatten().map(|id| *id as usize)
    }

    pub(super) fn count(&self) -> usize {
        self.positions.len()
    }

    /// Whether dropout changes anything.
    pub(super) fn drops(&self, low_rank: &LowRank) -> bool {
        self.step.is_some() && low_rank.drops()
    }

    /// Multiplies the inputs of projection `number` by their dropout masks. A group's mask does not
    /// depend on others.
    ///
    /// # Shapes
    /// - x: `[tokens, width]`
    pub(super) fn hide(&self, low_rank: &LowRank, number: u64, x: &mut [f32]) {
        let Some(step) = self.step else { return };
        let width = x.len() / self.count().max(1);
        let mut pieces = Vec::with_capacity(self.places.len());
        let mut rest = x;
        for place in &self.places {
            let (here, after) = rest.split_at_mut(place.tokens() * width);
            pieces.push((place.item, here));
            rest = after;
        }
        kernels::each(pieces, |(item, x): (u64, &mut [f32])| low_rank.hide([step, item, number], x));
    }
}

impl TokenPlace {
    pub(super) fn tokens(&self) -> usize {
        self.lengths.iter().sum()
    }

    /// The row of each of a sequence's tokens, from the one at `position` on.
    pub(super) fn rows(&self, sequence: usize, position: usize) -> impl Iterator<Item = usize> + use<'_> {
        let stem = self.lengths.first().copied().unwrap_or(0);
        let before: usize = self.lengths.iter().take(sequence + 1).sum();
        let own = self.lengths.get(sequence + 1).copied().unwrap_or(0);
        (position..stem + own).map(move |position| self.row + if position < stem { position } else { before + position - stem })
    }
}
