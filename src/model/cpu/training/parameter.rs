//! A model's parameters as a training pass sees them, and their gradients by name. Knows nothing of what they do.

use std::collections::BTreeMap;

use burn::module::Param;
use burn::tensor::Tensor;

use crate::model::ModelError;

/// A parameter's value, shared with the model.
#[derive(Debug)]
pub(super) struct Parameter<const D: usize> {
    /// The path of fields from the model's root.
    pub(super) name: String,
    value: Tensor<D>,
    /// Whether it wants a gradient.
    pub(super) trained: bool,
}

impl<const D: usize> Parameter<D> {
    pub(super) fn of(param: &Param<Tensor<D>>, name: String) -> Self {
        let value = param.val();
        let frozen = value.is_autodiff() && !value.is_require_grad();
        Self { name, value: value.inner(), trained: !frozen }
    }

    pub(super) fn dims(&self) -> [usize; D] {
        self.value.dims()
    }

    pub(super) fn value(&self) -> Tensor<D> {
        self.value.clone()
    }

    /// Its numbers.
    pub(super) fn read(&self) -> Result<Vec<f32>, ModelError> {
        crate::model::cpu::read(self.value.clone())
    }
}

/// Gradients, summed over whatever is passed back.
///
/// A number's sum is one chain over tokens in the order in which they are passed back, so that a batch in any pieces has the gradients it has as a whole, bit
/// for bit.
#[derive(Debug, Default)]
pub struct CpuGradients {
    of_parameters: BTreeMap<String, Vec<f32>>,
    /// What an embedding's rows get from being looked up; apart, so that the order of additions does not depend on when a head that shares the weights
    /// adds its part.
    of_rows: BTreeMap<usize, Vec<f32>>,
    /// The embedding's name and its number of rows.
    embedding: Option<(String, usize)>,
}

impl CpuGradients {
    /// The gradient of a parameter, flat; zeros at first.
    pub(super) fn of<const D: usize>(&mut self, parameter: &Parameter<D>) -> &mut [f32] {
        let count = parameter.value.shape().num_elements();
        self.of_parameters.entry(parameter.name.clone()).or_insert_with(|| vec![0.0; count])
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
    pub fn into_parameters(mut self) -> BTreeMap<String, Vec<f32>> {
        if let Some((name, rows)) = self.embedding {
            for (row, values) in self.of_rows {
                let gradient = self.of_parameters.entry(name.clone()).or_insert_with(|| vec![0.0; rows * values.len()]);
                gradient[row * values.len()..].iter_mut().zip(values).for_each(|(sum, value)| *sum += value);
            }
        }
        self.of_parameters
    }
}
