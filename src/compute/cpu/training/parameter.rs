//! A model's parameters in a training pass, and their gradients by name. Knows nothing of their
//! use.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::weights::{CpuWeights, Weight};
use crate::compute::cpu::kernels::{self, Arithmetic, Buffer, Left, Memory, Right};
use crate::model::ModelError;

/// A parameter's numbers.
#[derive(Clone, Debug)]
pub(super) struct Parameter<const D: usize> {
    /// The path of fields from the model's root.
    name: String,
    values: Arc<Vec<f32>>,
    dims: [usize; D],
    /// Whether it wants a gradient.
    pub(super) trained: bool,
}

impl<const D: usize> Parameter<D> {
    pub(super) fn from_weights(weights: &CpuWeights, name: String) -> Result<Self, ModelError> {
        let missing = || ModelError::Device(format!("expected weights of {name} with {D} dimensions, found none"));
        let Weight { values, shape, trained, .. } = weights.get(&name).ok_or_else(missing)?;
        let dims = shape.as_slice().try_into().map_err(|_| missing())?;
        Ok(Self { values: Arc::clone(values), dims, trained: *trained, name })
    }

    pub(super) fn dims(&self) -> [usize; D] {
        self.dims
    }

    /// Its numbers, flat.
    pub(super) fn values(&self) -> &[f32] {
        &self.values
    }
}

/// Gradients, summed over whatever is passed back.
///
/// A number's sum is one chain over tokens in the order in which they are passed back, so that a
/// batch in any pieces has the gradients it has as a whole, bit for bit.
#[derive(Debug, Default)]
pub struct CpuGradients {
    memory: Memory,
    of_parameters: BTreeMap<String, Buffer>,
    /// What an embedding's rows get from being looked up; apart, so that the order of additions
    /// does not depend on when a head that shares the weights adds its part.
    of_rows: BTreeMap<usize, Vec<f32>>,
    /// The embedding's name and its number of rows.
    embedding: Option<(String, usize)>,
}

impl CpuGradients {
    /// No gradients yet; those to come are held in `memory`.
    pub fn new(memory: &Memory) -> Self {
        Self { memory: memory.clone(), ..Self::default() }
    }

    /// The memory of gradients and intermediate derivatives.
    pub(super) fn memory(&self) -> &Memory {
        &self.memory
    }

    /// The gradient of a parameter, flat; zeros at first.
    pub(super) fn of<const D: usize>(&mut self, parameter: &Parameter<D>) -> &mut [f32] {
        self.of_parameters.entry(parameter.name.clone()).or_insert_with(|| self.memory.zeros(parameter.values.len()))
    }

    /// Adds `left · right` to the gradient of each parameter. Their inner dimension is of tokens,
    /// in segments of an example each.
    pub(super) fn add_products(&mut self, arithmetic: Arithmetic<'_>, parameters: &[&Parameter<2>], left: Left<'_>, rights: &[Right<'_>]) {
        let take = |parameter: &&Parameter<2>| self.of_parameters.remove(&parameter.name);
        let before: Vec<Option<Buffer>> = parameters.iter().map(take).collect();
        // A sum from zero on need not be read first.
        let begin = before.iter().all(Option::is_none);
        let of_parameter = |(before, parameter): (Option<Buffer>, &&Parameter<2>)| {
            if begin {
                self.memory.any(parameter.values.len())
            } else {
                before.unwrap_or_else(|| self.memory.zeros(parameter.values.len()))
            }
        };
        let mut sums: Vec<Buffer> = before.into_iter().zip(parameters).map(of_parameter).collect();
        let products = rights.iter().copied().zip(sums.iter_mut().map(|sum| &mut sum[..]));
        if begin {
            kernels::products_in(arithmetic, left, products)
        } else {
            kernels::add_products_in(arithmetic, left, products)
        }
        self.of_parameters.extend(parameters.iter().map(|parameter| parameter.name.clone()).zip(sums));
    }

    /// Adds to a row of an embedding.
    pub(super) fn add_row(&mut self, embedding: &Parameter<2>, row: usize, values: &[f32]) {
        let [rows, _] = embedding.dims();
        self.embedding.get_or_insert_with(|| (embedding.name.clone(), rows));
        match self.of_rows.get_mut(&row) {
            Some(sum) => sum.iter_mut().zip(values).for_each(|(sum, value)| *sum += value),
            None => {
                self.of_rows.insert(row, values.to_vec());
            }
        }
    }

    /// Every gradient, flat, under its parameter's name.
    pub fn into_parameters(mut self) -> BTreeMap<String, Buffer> {
        if let Some((name, rows)) = self.embedding {
            for (row, values) in self.of_rows {
                let gradient = self.of_parameters.entry(name.clone()).or_insert_with(|| self.memory.zeros(rows * values.len()));
                gradient[row * values.len()..].iter_mut().zip(values).for_each(|(sum, value)| *sum += value);
            }
        }
        self.of_parameters
    }
}
