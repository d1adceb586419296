//! A model's parameters in a training pass, and their gradients by name. Knows nothing of their
//! use.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::turns::Turn;
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
/// batch in any pieces has the gradients it has as a whole, bit for bit. Shards at the same time
/// keep this order by their turns.
#[derive(Debug, Default)]
pub struct CpuGradients {
    memory: Memory,
    sums: Arc<Mutex<Sums>>,
    /// Of a shard among others.
    turn: Option<Turn>,
}

/// The sums so far.
#[derive(Debug, Default)]
struct Sums {
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

    /// The same sums for a shard, which adds to them in its `turn`.
    pub(super) fn of_shard(&self, turn: Turn) -> Self {
        Self { memory: self.memory.clone(), sums: Arc::clone(&self.sums), turn: Some(turn) }
    }

    /// Waits for this shard's turn at a stage of the backward pass.
    pub(super) fn enter(&self, stage: usize) {
        if let Some(turn) = &self.turn {
            turn.enter(stage);
        }
    }

    fn sums(&self) -> MutexGuard<'_, Sums> {
        // No code panics while it holds the lock.
        self.sums.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The memory of gradients and intermediate derivatives.
    pub(super) fn memory(&self) -> &Memory {
        &self.memory
    }

    /// Hands the gradient of a parameter to `add`, flat; zeros at first.
    pub(super) fn add<const D: usize>(&mut self, parameter: &Parameter<D>, add: impl FnOnce(&mut [f32])) {
        let before = self.sums().of_parameters.remove(&parameter.name);
        let mut sum = before.unwrap_or_else(|| self.memory.zeros(parameter.values.len()));
        add(&mut sum);
        self.sums().of_parameters.insert(parameter.name.clone(), sum);
    }

    /// Adds `left · right` to the gradient of each parameter. Their inner dimension is of tokens,
    /// in segments of an example each.
    pub(super) fn add_products(&mut self, arithmetic: Arithmetic<'_>, parameters: &[&Parameter<2>], left: Left<'_>, rights: &[Right<'_>]) {
        let before: Vec<Option<Buffer>> = {
            let mut sums = self.sums();
            parameters.iter().map(|parameter| sums.of_parameters.remove(&parameter.name)).collect()
        };
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
        self.sums().of_parameters.extend(parameters.iter().map(|parameter| parameter.name.clone()).zip(sums));
    }

    /// Adds to rows of an embedding, each by its number.
    pub(super) fn add_rows<'a>(&mut self, embedding: &Parameter<2>, rows: impl Iterator<Item = (usize, &'a [f32])>) {
        let mut sums = self.sums();
        for (row, values) in rows {
            sums.embedding.get_or_insert_with(|| (embedding.name.clone(), embedding.dims()[0]));
            match sums.of_rows.get_mut(&row) {
                Some(sum) => sum.iter_mut().zip(values).for_each(|(sum, value)| *sum += value),
                None => {
                    sums.of_rows.insert(row, values.to_vec());
                }
            }
        }
    }

    /// Every gradient, flat, under its parameter's name.
    pub fn into_parameters(self) -> BTreeMap<String, Buffer> {
        let Sums { mut of_parameters, of_rows, embedding } = std::mem::take(&mut *self.sums());
        if let Some((name, rows)) = embedding {
            for (row, values) in of_rows {
                let gradient = of_parameters.entry(name.clone()).or_insert_with(|| self.memory.zeros(rows * values.len()));
                gradient[row * values.len()..].iter_mut().zip(values).for_each(|(sum, value)| *sum += value);
            }
        }
        of_parameters
    }
}
