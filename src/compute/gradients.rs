//! The gradients of a step, in the form of their backend: clipped, and applied to a model. Knows
//! nothing of losses or schedules.

use std::collections::BTreeMap;

use burn::module::Module;
use burn::tensor::{Device, Tensor};

use super::cpu::kernels::{self, Buffer};
use super::reference::named_tensors::{self, NamedTensors};
use super::reference::{TensorOperations, scaled};
use super::update::Update;

/// The gradients of a step, by parameter name.
#[derive(Debug)]
pub enum Gradients {
    /// On the device of the model.
    Tensors {
        /// One flat tensor a parameter.
        by_name: NamedTensors,
        /// A factor not yet applied.
        factor: f64,
        /// The operations on them.
        operations: &'static dyn TensorOperations,
    },
    /// Of a model on the CPU, flat.
    Buffers(BTreeMap<String, Buffer>),
}

/// The gradient of one parameter.
#[derive(Debug)]
pub struct Gradient(Form);

#[derive(Debug)]
#[allow(clippy::large_enum_variant, reason = "there is one for each parameter, and all are of one variant")]
enum Form {
    Tensor { gradient: Tensor<1>, factor: f64, operations: &'static dyn TensorOperations },
    Buffer(Buffer),
}

/// A parameter and its optimizer state, flat, on one device.
#[derive(Debug)]
pub struct ParameterState {
    /// The parameter.
    pub weight: Tensor<1>,
    /// The running mean of its gradients; `None` for RMSprop.
    pub mean: Option<Tensor<1>>,
    /// The running mean of its squared gradients.
    pub square: Tensor<1>,
}

impl Gradients {
    /// Whether no parameter has a gradient.
    pub fn is_empty(&self) -> bool {
        match self {
            Self::Tensors { by_name, .. } => by_name.is_empty(),
            Self::Buffers(buffers) => buffers.is_empty(),
        }
    }

    /// The global L2 norm over all gradients, before their factor. One transfer from the device.
    fn norm(&self) -> f64 {
        match self {
            Self::Tensors { by_name, .. } if by_name.is_empty() => 0.0,
            Self::Tensors { by_name, operations, .. } => operations.sum_of_squares(&by_name.values().collect::<Vec<_>>()).sqrt(),
            Self::Buffers(buffers) => buffers.values().map(|gradient| kernels::sum_of_squares(gradient)).sum::<f64>().sqrt(),
        }
    }

    /// Limits the global norm to `limit`, and returns the norm before. Tensors are scaled when they
    /// are applied.
    ///
    /// As `torch.nn.utils.clip_grad_norm_`: the factor is `limit / (norm + 1e-6)`, never above 1.
    /// Without a limit nothing is scaled.
    pub fn clip(&mut self, limit: Option<f64>) -> f64 {
        if matches!(self, Self::Buffers(_)) { kernels::awake(|| self.clip_now(limit)) } else { self.clip_now(limit) }
    }

    fn clip_now(&mut self, limit: Option<f64>) -> f64 {
        let norm = self.norm();
        let clipping = limit.map_or(1.0, |limit| limit / (norm + 1e-6));
        if clipping < 1.0 {
            match self {
                Self::Tensors { factor, .. } => *factor = clipping,
                Self::Buffers(buffers) => buffers.values_mut().for_each(|gradient| kernels::scale(gradient, clipping as f32)),
            }
        }
        norm
    }

    /// Replaces every trained parameter of `model` with a gradient by the result of `step`. `step`
    /// takes its name, its value, flat, and its gradient.
    pub fn apply<M: Module>(mut self, model: &mut M, mut step: impl FnMut(&str, Tensor<1>, Gradient) -> Tensor<1> + Send) {
        let on_cpu = matches!(self, Self::Buffers(_));
        let mut work = || {
            named_tensors::change_in_place(model, |name, weight| match self.remove(name) {
                Some(gradient) => step(name, weight, gradient),
                None => weight,
            });
        };
        if on_cpu { kernels::awake(work) } else { work() }
    }

    fn remove(&mut self, name: &str) -> Option<Gradient> {
        match self {
            Self::Tensors { by_name, factor, operations } => {
                let gradient = by_name.remove(name)?;
                Some(Gradient(Form::Tensor { gradient, factor: *factor, operations: *operations }))
            }
            Self::Buffers(buffers) => buffers.remove(name).map(|gradient| Gradient(Form::Buffer(gradient))),
        }
    }
}

impl Gradient {
    /// The state of its parameter after a step.
    pub fn apply(self, update: Update, state: ParameterState) -> ParameterState {
        match self.0 {
            Form::Tensor { gradient, factor, operations } => update_tensors(operations, update, factor, gradient, state),
            Form::Buffer(gradient) => update_buffer(update, &gradient, state),
        }
    }
}

fn update_tensors(
    operations: &dyn TensorOperations,
    update: Update,
    factor: f64,
    gradient: Tensor<1>,
    state: ParameterState,
) -> ParameterState {
    let ParameterState { weight, mean, square } = state;
    match update {
        Update::AdamW(rule) => {
            let mean = mean.unwrap_or_else(|| weight.zeros_like());
            let [weight, mean, square] = operations.adam_w(rule, factor, [weight, gradient, mean, square]);
            ParameterState { weight, mean: Some(mean), square }
        }
        Update::RmsProp(rule) => {
            let gradient = scaled(gradient, factor);
            let gradient = if rule.weight_decay == 0.0 { gradient } else { gradient + weight.clone() * rule.weight_decay };
            let square = square * rule.alpha + gradient.clone().square() * (1.0 - rule.alpha);
            let change = gradient / (square.clone().sqrt() + rule.eps) * rule.rate;
            ParameterState { weight: weight - change, mean: None, square }
        }
    }
}

fn update_buffer(update: Update, gradient: &[f32], state: ParameterState) -> ParameterState {
    let ParameterState { weight, mean, square } = state;
    match update {
        Update::AdamW(rule) => {
            let mean = mean.unwrap_or_else(|| weight.zeros_like());
            let [weight, mean, square] =
                in_place([weight, mean, square], |[weights, means, squares]| kernels::adam_w(rule, weights, gradient, means, squares));
            ParameterState { weight, mean: Some(mean), square }
        }
        Update::RmsProp(rule) => {
            let [weight, square] = in_place([weight, square], |[weights, squares]| kernels::rms_prop(rule, weights, gradient, squares));
            ParameterState { weight, mean: None, square }
        }
    }
}

/// Changes the numbers of f32 tensors on the CPU. Tensors with one owner are not copied.
fn in_place<const N: usize>(tensors: [Tensor<1>; N], change: impl FnOnce([&mut [f32]; N])) -> [Tensor<1>; N] {
    let device = Device::flex();
    let mut data = tensors.map(Tensor::into_data);
    // The CPU backend trains only f32 weights, and their moments are f32 too.
    change(data.each_mut().map(|data| data.as_mut_slice().expect("f32")));
    data.map(|data| Tensor::from_data(data, &device))
}
