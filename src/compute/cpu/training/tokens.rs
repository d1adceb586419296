//! The tokens of a training pass: sequences that begin alike share what they begin with. Knows nothing of weights.

use crate::kernels;
use crate::model::{LowRank, ModelError};

/// Sequences that begin alike: what they share goes through the model once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Family {
    /// What dropout is drawn from, beside the step: a number that stays the same when the same sequences are trained on again.
    item: u64,
    stem: Vec<i32>,
    /// What follows the stem in each sequence; none when there is one sequence, which is then the stem.
    branches: Vec<Vec<i32>>,
}

impl Family {
    /// Whole `sequences`, none of them empty.
    pub fn new(item: u64, sequences: &[&[i32]]) -> Self {
        let Some((first, others)) = sequences.split_first() else { return Self { item, stem: Vec::new(), branches: Vec::new() } };
        if others.is_empty() {
            return Self { item, stem: first.to_vec(), branches: Vec::new() };
        }
        // Something is left for every branch.
        let shortest = sequences.iter().map(|sequence| sequence.len().saturating_sub(1)).min().unwrap_or(0);
        let alike = |at: &usize| others.iter().all(|other| other[*at] == first[*at]);
        let shared = (0..shortest).take_while(alike).count();
        let branches = sequences.iter().map(|sequence| sequence[shared..].to_vec()).collect();
        Self { item, stem: first[..shared].to_vec(), branches }
    }

    /// How many sequences there are.
    pub fn sequences(&self) -> usize {
        self.branches.len().max(1)
    }

    /// How many tokens go through the model.
    pub fn tokens(&self) -> usize {
        self.stem.len() + self.branches.iter().map(Vec::len).sum::<usize>()
    }

    /// The stem, and what follows it in a sequence.
    pub(super) fn sequence(&self, sequence: usize) -> [&[i32]; 2] {
        [&self.stem, self.branches.get(sequence).map_or(&[], Vec::as_slice)]
    }
}

/// All tokens of a pass, family after family, each its stem and then its branches.
#[derive(Debug)]
pub(super) struct Tokens {
    pub(super) ids: Vec<usize>,
    /// Where each token is in its sequence.
    pub(super) positions: Vec<usize>,
    pub(super) families: Vec<Place>,
    /// What dropout is drawn from; `None` drops nothing.
    step: Option<u64>,
}

/// Where a family's tokens are.
#[derive(Debug)]
pub(super) struct Place {
    item: u64,
    /// The row of its first token.
    pub(super) row: usize,
    /// How many tokens its stem and each branch have.
    pub(super) lengths: Vec<usize>,
}

impl Tokens {
    pub(super) fn new(families: &[Family], vocab_size: usize, step: Option<u64>) -> Result<Self, ModelError> {
        let mut tokens = Self { ids: Vec::new(), positions: Vec::new(), families: Vec::with_capacity(families.len()), step };
        for Family { item, stem, branches } in families {
            let row = tokens.ids.len();
            let spans = std::iter::once((0, stem)).chain(branches.iter().map(|branch| (stem.len(), branch)));
            for (start, span) in spans {
                for (past, &token) in span.iter().enumerate() {
                    let id = usize::try_from(token).ok().filter(|token| *token < vocab_size).ok_or_else(|| {
                        ModelError::Sequences(format!("token id {token}, expected 0 to {}", vocab_size.saturating_sub(1)))
                    })?;
                    tokens.ids.push(id);
                    tokens.positions.push(start + past);
                }
            }
            let lengths = std::iter::once(stem.len()).chain(branches.iter().map(Vec::len)).collect();
            tokens.families.push(Place { item: *item, row, lengths });
        }
        Ok(tokens)
    }

    pub(super) fn count(&self) -> usize {
        self.ids.len()
    }

    /// Whether dropout changes anything.
    pub(super) fn drops(&self, low_rank: &LowRank) -> bool {
        self.step.is_some() && low_rank.drops()
    }

    /// Multiplies the inputs of projection `number` by their dropout masks, which no other family has a part in.
    ///
    /// # Shapes
    /// - x: `[tokens, width]`
    pub(super) fn hide(&self, low_rank: &LowRank, number: u64, x: &mut [f32]) {
        let Some(step) = self.step else { return };
        let width = x.len() / self.count().max(1);
        let mut pieces = Vec::with_capacity(self.families.len());
        let mut rest = x;
        for place in &self.families {
            let (here, after) = rest.split_at_mut(place.tokens() * width);
            pieces.push((place.item, here));
            rest = after;
        }
        kernels::each(pieces, |(item, x): (u64, &mut [f32])| low_rank.hide([step, item, number], x));
    }
}

impl Place {
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
