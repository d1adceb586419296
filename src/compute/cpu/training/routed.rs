//! Routed experts in training, and their backward pass through the router. Knows nothing of the
//! layer around it.
//!
//! Each expert computes its tokens in their order, and each token's sums go through its experts in
//! their order. So a gradient is one chain over tokens, in whatever pieces a batch comes.

use super::mlp::{self, TrainedMlp};
use super::parameter::{CpuGradients, Parameter};
use super::tokens::Tokens;
use super::weights::CpuWeights;
use crate::compute::cpu::kernels::{self, Buffer, Left, Right};
use crate::compute::cpu::routes::{self, Assigned, Routes};
use crate::compute::reference::routed::Routing;
use crate::compute::{Mlp, Precision, RoutedMlp};
use crate::model::ModelError;

/// The parameters of a router and its experts.
#[derive(Debug)]
pub(super) struct TrainedRoutedMlp {
    /// `[experts, hidden_size]`.
    router: Parameter<2>,
    experts: Vec<TrainedMlp>,
    routing: Routing,
    precision: Precision,
}

/// The inputs of the backward pass.
#[derive(Debug)]
pub(super) struct Kept {
    routes: Routes,
    /// Of each expert; `None` where it has no token.
    experts: Vec<Option<mlp::Kept>>,
}

impl TrainedRoutedMlp {
    /// `number` is the number of its first projection in the model.
    pub(super) fn new(routed: &RoutedMlp, weights: &CpuWeights, name: &str, number: u64) -> Result<Self, ModelError> {
        let mut number = number;
        let expert = |(at, expert): (usize, &Mlp)| {
            let (projections, first) = (expert.projections(), number);
            number += projections.count();
            TrainedMlp::new(&projections, weights, &format!("{name}.experts.{at}"), first)
        };
        Ok(Self {
            router: Parameter::from_weights(weights, format!("{name}.gate.weight"))?,
            experts: routed.experts.iter().enumerate().map(expert).collect::<Result<_, _>>()?,
            routing: routed.routing(),
            precision: routed.gate.precision,
        })
    }

    /// Adds what each token's experts give to `out`.
    ///
    /// # Shapes
    /// - x, out: `[tokens, hidden_size]`
    pub(super) fn add(&self, x: &[f32], tokens: &Tokens, out: &mut [f32]) -> Kept {
        let [experts, width] = self.router.dims();
        let mut logits = vec![0.0; tokens.count() * experts];
        let router = Right::Columns(self.router.values(), experts);
        kernels::products_in(self.precision, Left::Rows(x), [(router, &mut logits[..])]);
        let routes = Routes::new(logits, experts, self.routing);
        let mut gathered = Vec::new();
        let of_expert = |(expert, assigned): (&TrainedMlp, &Assigned)| {
            let Assigned { rows, weights } = assigned;
            if rows.is_empty() {
                return None;
            }
            let chosen = tokens.chosen(rows);
            routes::gather(x, width, rows, &mut gathered);
            let mut found = tokens.memory.zeros(gathered.len());
            let kept = expert.add(&gathered, Some(weights), &chosen, &mut found);
            routes::scatter_add(&found, width, rows, out);
            Some(kept)
        };
        let experts = self.experts.iter().zip(&routes.of_experts).map(of_expert).collect();
        Kept { routes, experts }
    }

    /// Returns the derivatives by `x`, and adds to the gradients.
    ///
    /// # Shapes
    /// - x, by_out, output: `[tokens, hidden_size]`
    pub(super) fn backward(&self, kept: Kept, x: &[f32], tokens: &Tokens, by_out: &[f32], gradients: &mut CpuGradients) -> Buffer {
        let [_, width] = self.router.dims();
        let Kept { routes, experts } = kept;
        let mut by_x = tokens.memory.zeros(x.len());
        let mut by_weights = Vec::with_capacity(experts.len());
        let (mut gathered, mut by_gathered) = (Vec::new(), Vec::new());
        for ((expert, assigned), kept) in self.experts.iter().zip(&routes.of_experts).zip(experts) {
            let Some(kept) = kept else {
                // As in PyTorch, where one tensor has all experts: an optimizer steps them all.
                expert.touch(gradients);
                by_weights.push(Vec::new());
                continue;
            };
            let Assigned { rows, weights } = assigned;
            routes::gather(x, width, rows, &mut gathered);
            routes::gather(by_out, width, rows, &mut by_gathered);
            let (by, by_factors) = expert.backward(kept, &gathered, Some(weights), &tokens.chosen(rows), &by_gathered, gradients);
            routes::scatter_add(&by, width, rows, &mut by_x);
            by_weights.push(by_factors);
        }
        let by_logits = routes.backward(&by_weights);
        let router = Right::Rows(self.router.values(), width);
        kernels::add_products_in(self.precision, Left::Rows(&by_logits), [(router, &mut by_x[..])]);
        if self.router.trained {
            let arithmetic = tokens.by_segments(self.precision);
            gradients.add_products(arithmetic, &[&self.router], Left::Columns(&by_logits), &[Right::Rows(x, width)]);
        }
        by_x
    }
}
