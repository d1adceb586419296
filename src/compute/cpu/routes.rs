//! Which experts compute which tokens, from a router's logits. Knows no weights.
//!
//! A token's experts depend on its own logits only, and its sums go through its experts in their
//! order: the bits of a token do not depend on the tokens beside it.

use super::kernels;
use crate::compute::reference::routed::Routing;

/// The experts of some tokens.
#[derive(Debug)]
pub(super) struct Routes {
    /// Of every expert: `[tokens, experts]`.
    pub(super) probabilities: Vec<f32>,
    /// The tokens of each expert.
    pub(super) of_experts: Vec<Assigned>,
    routing: Routing,
}

/// The tokens of one expert, the first first.
#[derive(Debug, Default)]
pub(super) struct Assigned {
    pub(super) rows: Vec<usize>,
    /// The factor of the expert's output for each.
    pub(super) weights: Vec<f32>,
}

impl Routes {
    /// # Shapes
    /// - logits: `[tokens, experts]`
    pub(super) fn new(mut logits: Vec<f32>, experts: usize, routing: Routing) -> Self {
        let mut of_experts: Vec<Assigned> = (0..experts).map(|_| Assigned::default()).collect();
        kernels::softmax_rows(&mut logits, experts);
        for (row, probabilities) in logits.chunks(experts.max(1)).enumerate() {
            let chosen = routing.choose(probabilities);
            let sum = total(probabilities, &chosen, routing);
            for expert in chosen {
                of_experts[expert].rows.push(row);
                of_experts[expert].weights.push(probabilities[expert] / sum);
            }
        }
        Self { probabilities: logits, of_experts, routing }
    }

    /// The derivatives by the logits, from those by the weights of each expert's tokens.
    ///
    /// # Shapes
    /// - output: `[tokens, experts]`
    pub(super) fn backward(&self, by_weights: &[Vec<f32>]) -> Vec<f32> {
        let experts = self.of_experts.len();
        let mut by = vec![0.0; self.probabilities.len()];
        for ((expert, assigned), by_weights) in self.of_experts.iter().enumerate().zip(by_weights) {
            for (row, by_weight) in assigned.rows.iter().zip(by_weights) {
                by[row * experts + expert] = *by_weight;
            }
        }
        for (by, probabilities) in by.chunks_mut(experts.max(1)).zip(self.probabilities.chunks(experts.max(1))) {
            if self.routing.normalized {
                // A weight is p / Σ p of the chosen ones.
                let chosen = self.routing.choose(probabilities);
                let sum = total(probabilities, &chosen, self.routing);
                let mean: f32 = chosen.iter().map(|&expert| by[expert] * probabilities[expert] / sum).sum();
                chosen.iter().for_each(|&expert| by[expert] = (by[expert] - mean) / sum);
            }
            let along = kernels::dot(by, probabilities);
            by.iter_mut().zip(probabilities).for_each(|(by, probability)| *by = probability * (*by - along));
        }
        by
    }
}

/// The divisor of the chosen experts' probabilities.
fn total(probabilities: &[f32], chosen: &[usize], routing: Routing) -> f32 {
    if routing.normalized { chosen.iter().map(|&expert| probabilities[expert]).sum() } else { 1.0 }
}

/// Some rows of a matrix, one below the other.
///
/// # Shapes
/// - values: `[tokens, width]`
/// - output: `[rows, width]`
pub(super) fn gather(values: &[f32], width: usize, rows: &[usize], gathered: &mut Vec<f32>) {
    gathered.clear();
    rows.iter().for_each(|row| gathered.extend_from_slice(&values[row * width..][..width]));
}

/// Adds each of some rows to its place in a matrix.
///
/// # Shapes
/// - gathered: `[rows, width]`
/// - out: `[tokens, width]`
pub(super) fn scatter_add(gathered: &[f32], width: usize, rows: &[usize], out: &mut [f32]) {
    for (row, values) in rows.iter().zip(gathered.chunks_exact(width.max(1))) {
        out[row * width..][..width].iter_mut().zip(values).for_each(|(to, from)| *to += from);
    }
}
