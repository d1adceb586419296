//! Routed experts of sampling on the CPU. Knows nothing of attention or layers.

use super::kernels::{self, Left, Packed};
use super::mlp::{CpuMlp, MlpScratch, packed_in};
use super::routes::{self, Routes};
use crate::compute::RoutedMlp;
use crate::compute::reference::parameters::host_values;
use crate::compute::reference::routed::Routing;
use crate::model::ModelError;

/// A router and its experts.
#[derive(Debug)]
pub(super) struct CpuRoutedMlp {
    /// `[hidden_size, experts]`.
    router: Packed,
    experts: Vec<CpuMlp>,
    routing: Routing,
}

impl CpuRoutedMlp {
    pub(super) fn new(routed: &RoutedMlp) -> Result<Self, ModelError> {
        let router = routed.gate.weight.val();
        let [experts, hidden_size] = router.dims();
        Ok(Self {
            router: packed_in(routed.gate.precision, Packed::of_columns(hidden_size, experts, &host_values(router)?)),
            experts: routed.experts.iter().map(|expert| CpuMlp::new(&expert.projections())).collect::<Result<_, _>>()?,
            routing: routed.routing(),
        })
    }

    /// Adds what each token's experts give to `out`, in the order of the experts.
    ///
    /// # Shapes
    /// - x, out: `[tokens, hidden_size]`
    pub(super) fn add(&self, x: &[f32], out: &mut [f32], scratch: &mut MlpScratch) {
        let width = self.router.rows();
        let experts = self.experts.len();
        let mut logits = vec![0.0; x.len() / width.max(1) * experts];
        kernels::product(Left::Rows(x), &self.router, &mut logits);
        let routes = Routes::new(logits, experts, self.routing);
        let (mut gathered, mut found) = (Vec::new(), Vec::new());
        for (expert, assigned) in self.experts.iter().zip(&routes.of_experts).filter(|(_, assigned)| !assigned.rows.is_empty()) {
            routes::gather(x, width, &assigned.rows, &mut gathered);
            expert.apply(&gathered, &assigned.weights, &mut found, scratch);
            routes::scatter_add(&found, width, &assigned.rows, out);
        }
    }
}
