//! From hidden states to logprobs or scores, and back, without ever holding logits of more than
//! some tokens. Knows nothing of losses.

use super::parameter::{CpuGradients, Parameter};
use super::turns::HEAD;
use crate::compute::Precision;
use crate::compute::cpu::kernels::{self, Arithmetic, Buffer, Left, Memory, PIECE, Right};
use crate::compute::reference::transformer::LogitRule;

/// The most bytes of logits in memory at once.
const LOGITS_BYTES: usize = 192 << 20;

/// A head's weights.
#[derive(Debug)]
pub(super) struct TrainedHead {
    weight: Parameter<2>,
    /// Whether the weight is an embedding's, `[outputs, hidden_size]`; else it is `[hidden_size,
    /// outputs]`.
    tied: bool,
    /// From products with the weight to logits.
    rule: LogitRule,
    precision: Precision,
}

/// A token, and the hidden state to predict it from.
#[derive(Clone, Copy, Debug)]
pub(super) struct Target {
    /// The row of the hidden state.
    pub(super) row: usize,
    pub(super) token: usize,
}

/// Tokens with a common logprob, sequence by sequence. A group's sequences decide each other's
/// derivatives.
pub(super) type Group = Vec<Vec<Target>>;

impl TrainedHead {
    pub(super) fn new(weight: Parameter<2>, tied: bool, rule: LogitRule, precision: Precision) -> Self {
        Self { weight, tied, rule, precision }
    }

    fn dims(&self) -> [usize; 2] {
        let [rows, columns] = self.weight.dims();
        if self.tied { [columns, rows] } else { [rows, columns] }
    }

    /// `[hidden_size, outputs]`.
    fn right(&self) -> Right<'_> {
        let ([_, outputs], weight) = (self.dims(), self.weight.values());
        if self.tied { Right::Columns(weight, outputs) } else { Right::Rows(weight, outputs) }
    }

    /// `[outputs, hidden_size]`.
    fn transposed(&self) -> Right<'_> {
        let ([hidden_size, _], weight) = (self.dims(), self.weight.values());
        if self.tied { Right::Rows(weight, hidden_size) } else { Right::Columns(weight, hidden_size) }
    }

    /// Adds to the weight's gradient. The rows of each group begin at one of the `segments`.
    ///
    /// # Shapes
    /// - hidden: `[rows, hidden_size]`
    /// - by_out: `[rows, outputs]`
    fn add_gradient(&self, hidden: &[f32], by_out: &[f32], segments: &[usize], gradients: &mut CpuGradients) {
        let [hidden_size, outputs] = self.dims();
        if self.weight.trained {
            let (left, right) = if self.tied {
                (Left::Columns(by_out), Right::Rows(hidden, hidden_size))
            } else {
                (Left::Columns(hidden), Right::Rows(by_out, outputs))
            };
            let arithmetic = Arithmetic { precision: self.precision, segments };
            gradients.add_products(arithmetic, &[&self.weight], left, &[right]);
        }
    }

    /// Each group's logprobs, one a sequence, nats.
    ///
    /// # Shapes
    /// - hidden: `[tokens, hidden_size]`
    pub(super) fn logprobs(&self, hidden: &[f32], memory: &Memory, groups: &[Group]) -> Vec<Vec<f64>> {
        let most = self.most();
        let targets: Vec<Target> = groups.iter().flatten().flatten().copied().collect();
        let chunks = targets.chunks(most).flat_map(|targets| Chunk::new(hidden, memory, self, targets).logprobs);
        let mut found = chunks.collect::<Vec<f64>>().into_iter();
        groups.iter().map(|group| sums(group, &mut found)).collect()
    }

    /// The scores of some rows.
    ///
    /// # Shapes
    /// - hidden: `[tokens, hidden_size]`
    pub(super) fn scores(&self, hidden: &[f32], rows: &[usize]) -> Vec<f32> {
        let mut scores = vec![0.0; rows.len()];
        let hidden = gather(hidden, self.dims()[0], rows.iter().copied());
        kernels::products_in(self.precision, Left::Rows(&hidden), [(self.right(), &mut scores[..])]);
        scores
    }

    /// How many rows of logits are held at once.
    fn most(&self) -> usize {
        // Capped logits are there twice.
        let held = if self.rule.cap.is_some() { 2 } else { 1 };
        (LOGITS_BYTES / size_of::<f32>() / held).checked_div(self.dims()[1]).unwrap_or(0).max(1)
    }

    /// Hands each group's logprobs, one a sequence, to `derivative`. It returns a derivative by
    /// each, and these are passed back. Returns the derivatives by the hidden states. With
    /// `collisions`, `derivative` also gets the sum of [`kernels::collision`] over each sequence's
    /// tokens; else nothing.
    ///
    /// The logits of a group are kept if they fit into the limit, else computed again.
    ///
    /// # Shapes
    /// - hidden, output: `[tokens, hidden_size]`
    pub(super) fn logprobs_and_back(
        &self,
        hidden: &[f32],
        groups: &[Group],
        collisions: bool,
        gradients: &mut CpuGradients,
        mut derivative: impl FnMut(usize, &[f64], &[f64]) -> Vec<f64>,
    ) -> Buffer {
        let [hidden_size, outputs] = self.dims();
        let transposed = self.transposed();
        let memory = &gradients.memory().clone();
        let most = self.most();
        let mut by_hidden = gradients.memory().zeros(hidden.len());
        let mut back = |targets: &[Target], chunk: Chunk, of_targets: &[f32], segments: &[usize], gradients: &mut CpuGradients| {
            let Chunk { hidden, mut logits, capped, sums, .. } = chunk;
            let rows = logits.chunks_mut(outputs.max(1)).zip(targets).zip(&sums).zip(of_targets);
            kernels::each(rows, |(((row, target), sum), derivative)| kernels::logprob_backward(row, target.token, *sum, *derivative));
            let scale = self.rule.scale as f32;
            match self.rule.cap.zip(capped) {
                Some((cap, capped)) => {
                    let pieces = logits.chunks_mut(PIECE).zip(capped.chunks(PIECE));
                    kernels::each(pieces, |(by, capped)| kernels::limit_backward(by, capped, scale, cap as f32));
                }
                None if scale != 1.0 => kernels::scale(&mut logits, scale),
                None => {}
            }
            self.add_gradient(&hidden, &logits, segments, gradients);
            let mut by = gradients.memory().any(hidden.len());
            kernels::products_in(self.precision, Left::Rows(&logits), [(transposed, &mut by[..])]);
            for (target, by) in targets.iter().zip(by.chunks_exact(hidden_size.max(1))) {
                let to = &mut by_hidden[target.row * hidden_size..][..hidden_size];
                to.iter_mut().zip(by).for_each(|(to, from)| *to += from);
            }
        };
        let mut first = 0;
        while first < groups.len() {
            // As many groups as fit, one at least.
            let (mut last, mut count) = (first, 0);
            while let Some(group) = groups.get(last) {
                let more = group.iter().map(Vec::len).sum::<usize>();
                if last > first && count + more > most {
                    break;
                }
                (last, count) = (last + 1, count + more);
            }
            let together = &groups[first..last];
            let targets: Vec<Target> = together.iter().flatten().flatten().copied().collect();
            let mut of_targets = Vec::with_capacity(count);
            let mut whole = None;
            let (mut found, mut collided) = (Vec::with_capacity(count), Vec::new());
            for targets in targets.chunks(most) {
                let chunk = Chunk::new(hidden, memory, self, targets);
                found.extend_from_slice(&chunk.logprobs);
                if collisions {
                    let rows = chunk.logits.chunks(outputs.max(1)).zip(&chunk.sums);
                    collided.extend(kernels::map(rows, |(row, sum)| kernels::collision(row, *sum)));
                }
                whole = (count <= most).then_some(chunk);
            }
            gradients.enter(HEAD);
            let (mut found, mut collided) = (found.into_iter(), collided.into_iter());
            for (number, group) in together.iter().enumerate() {
                let of_collisions = if collisions { sums(group, &mut collided) } else { Vec::new() };
                let derivatives = derivative(first + number, &sums(group, &mut found), &of_collisions);
                let repeated = group.iter().zip(derivatives).flat_map(|(targets, by)| std::iter::repeat_n(by as f32, targets.len()));
                of_targets.extend(repeated);
            }
            if let Some(chunk) = whole {
                back(&targets, chunk, &of_targets, &segments(together), gradients);
            } else {
                for (targets, of_targets) in targets.chunks(most).zip(of_targets.chunks(most)) {
                    // Of one group.
                    back(targets, Chunk::new(hidden, memory, self, targets), of_targets, &[], gradients);
                }
            }
            first = last;
        }
        by_hidden
    }

    /// Hands the scores of all `rows` to `derivative`. It returns a derivative by each, and these
    /// are passed back. Returns the derivatives by the hidden states. Examples begin at `segments`
    /// of the rows.
    ///
    /// # Shapes
    /// - hidden, output: `[tokens, hidden_size]`
    pub(super) fn scores_and_back(
        &self,
        hidden: &[f32],
        rows: &[usize],
        segments: &[usize],
        gradients: &mut CpuGradients,
        derivative: impl FnOnce(&[f32]) -> Vec<f64>,
    ) -> Buffer {
        let [hidden_size, _] = self.dims();
        let gathered = gather(hidden, hidden_size, rows.iter().copied());
        let scores = self.scores(hidden, rows);
        gradients.enter(HEAD);
        let by_scores: Vec<f32> = derivative(&scores).into_iter().map(|derivative| derivative as f32).collect();
        self.add_gradient(&gathered, &by_scores, segments, gradients);
        let mut by = vec![0.0; gathered.len()];
        kernels::products_in(self.precision, Left::Rows(&by_scores), [(self.transposed(), &mut by[..])]);
        let mut by_hidden = gradients.memory().zeros(hidden.len());
        for (row, by) in rows.iter().zip(by.chunks_exact(hidden_size.max(1))) {
            by_hidden[row * hidden_size..][..hidden_size].iter_mut().zip(by).for_each(|(to, from)| *to += from);
        }
        by_hidden
    }
}

/// Some targets after the way to their logprobs.
struct Chunk {
    /// `[targets, hidden_size]`.
    hidden: Vec<f32>,
    /// The output of [`kernels::logprob`]: `[targets, outputs]`.
    logits: Buffer,
    /// The logits before that, where they are capped.
    capped: Option<Buffer>,
    logprobs: Vec<f64>,
    sums: Vec<f32>,
}

impl Chunk {
    fn new(hidden: &[f32], memory: &Memory, head: &TrainedHead, targets: &[Target]) -> Self {
        let [hidden_size, outputs] = head.dims();
        let hidden = gather(hidden, hidden_size, targets.iter().map(|target| target.row));
        let mut logits = memory.any(targets.len() * outputs);
        kernels::products_in(head.precision, Left::Rows(&hidden), [(head.right(), &mut logits[..])]);
        if head.rule != LogitRule::PLAIN {
            kernels::limit(&mut logits, head.rule.scale as f32, head.rule.cap.map(|cap| cap as f32));
        }
        let capped = head.rule.cap.map(|_| memory.copied(&logits));
        let rows = logits.chunks_mut(outputs.max(1)).zip(targets);
        let (logprobs, sums) = kernels::map(rows, |(row, target)| kernels::logprob(row, target.token)).into_iter().unzip();
        Self { hidden, logits, capped, logprobs, sums }
    }
}

/// Where the targets of each group begin among those of all.
fn segments(groups: &[Group]) -> Vec<usize> {
    let mut next = 0;
    let mut segments = Vec::with_capacity(groups.len());
    for count in groups.iter().map(|group| group.iter().map(Vec::len).sum::<usize>()).filter(|count| *count > 0) {
        segments.push(next);
        next += count;
    }
    segments
}

/// The next logprobs of a group, added up sequence by sequence.
fn sums(group: &Group, logprobs: &mut impl Iterator<Item = f64>) -> Vec<f64> {
    group.iter().map(|targets| logprobs.by_ref().take(targets.len()).sum()).collect()
}

fn gather(hidden: &[f32], hidden_size: usize, rows: impl Iterator<Item = usize>) -> Vec<f32> {
    let mut gathered = Vec::with_capacity(rows.size_hint().0 * hidden_size);
    rows.for_each(|row| gathered.extend_from_slice(&hidden[row * hidden_size..][..hidden_size]));
    gathered
}
