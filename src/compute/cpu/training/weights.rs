//! A model's weights as numbers, copied from the model or lent by it. Knows nothing of their use.

use std::collections::BTreeMap;
use std::sync::Arc;

use burn::module::{Module, ModuleMapper, ModuleVisitor, Param};
use burn::tensor::{DType, Device, Tensor, TensorData};

use crate::compute::reference::parameters::host_values;
use crate::model::ModelError;

/// Every parameter's numbers, by its path of fields.
#[derive(Debug, Default)]
pub struct CpuWeights(BTreeMap<String, Weight>);

#[derive(Debug)]
pub(super) struct Weight {
    pub(super) values: Arc<Vec<f32>>,
    pub(super) shape: Vec<usize>,
    /// Whether it wants a gradient.
    pub(super) trained: bool,
    /// Whether the model is without it.
    lent: bool,
}

impl CpuWeights {
    /// A copy of the weights of `model`.
    ///
    /// # Errors
    /// When a weight cannot be read.
    pub fn from_model(model: &impl Module) -> Result<Self, ModelError> {
        let mut copy = Copy { path: Vec::new(), outcome: Ok(Self::default()) };
        model.visit(&mut copy);
        copy.outcome
    }

    /// The weights of a `model` on the CPU. Weights of f32 with one owner are not copied. The model
    /// is without them until [`Self::give_back`].
    ///
    /// # Errors
    /// When a weight cannot be read; the model then has all of its own.
    pub fn lend<M: Module>(model: &mut M) -> Result<Self, ModelError> {
        // Parameters leave `model`: they have one owner then.
        let empty = model.clone().map(&mut Empty);
        let mut lend = Lend { path: Vec::new(), weights: Self::default(), outcome: Ok(()) };
        *model = std::mem::replace(model, empty).map(&mut lend);
        match lend.outcome {
            Ok(()) => Ok(lend.weights),
            Err(error) => {
                lend.weights.give_back(model);
                Err(error)
            }
        }
    }

    /// Gives the weights, with their changes, back to their model.
    pub fn give_back<M: Module>(self, model: &mut M) {
        *model = model.clone().map(&mut GiveBack { path: Vec::new(), weights: self });
    }

    pub(super) fn get(&self, name: &str) -> Option<&Weight> {
        self.0.get(name)
    }

    /// The numbers of a trained parameter; `None` when there is none of this name, or a
    /// [`CpuTraining`](super::CpuTraining) holds it.
    pub fn trained_mut(&mut self, name: &str) -> Option<&mut [f32]> {
        let weight = self.0.get_mut(name).filter(|weight| weight.trained)?;
        Arc::get_mut(&mut weight.values).map(Vec::as_mut_slice)
    }
}

fn is_trained<const D: usize>(value: &Tensor<D>) -> bool {
    !value.is_autodiff() || value.is_require_grad()
}

/// The result of `change` on a tensor, with the autodiff settings of the tensor.
fn keeping_autodiff<const D: usize>(tensor: Tensor<D>, change: impl FnOnce(Tensor<D>) -> Tensor<D>) -> Tensor<D> {
    let require_grad = tensor.is_require_grad();
    match tensor.gradient_checkpointing_strategy() {
        Some(strategy) => change(tensor.inner()).autodiff().with_gradient_checkpointing_strategy(strategy).set_require_grad(require_grad),
        None => change(tensor),
    }
}

struct Copy {
    path: Vec<String>,
    outcome: Result<CpuWeights, ModelError>,
}

impl ModuleVisitor for Copy {
    fn enter_module(&mut self, name: &str, _: &str) {
        self.path.push(name.to_string());
    }

    fn exit_module(&mut self, _: &str, _: &str) {
        self.path.pop();
    }

    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        let Ok(weights) = &mut self.outcome else { return };
        let value = param.val();
        let (shape, trained) = (value.dims().to_vec(), is_trained(&value));
        match host_values(value.inner()) {
            Ok(values) => {
                weights.0.insert(self.path.join("."), Weight { values: Arc::new(values), shape, trained, lent: false });
            }
            Err(error) => self.outcome = Err(error),
        }
    }
}

struct Empty;

impl ModuleMapper for Empty {
    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        param.map(|tensor| keeping_autodiff(tensor, |_| Tensor::empty([0; D], &Device::flex())))
    }
}

struct Lend {
    path: Vec<String>,
    weights: CpuWeights,
    outcome: Result<(), ModelError>,
}

impl ModuleMapper for Lend {
    fn enter_module(&mut self, name: &str, _: &str) {
        self.path.push(name.to_string());
    }

    fn exit_module(&mut self, _: &str, _: &str) {
        self.path.pop();
    }

    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        let name = self.path.join(".");
        param.map(|tensor| {
            let (shape, trained) = (tensor.dims().to_vec(), is_trained(&tensor));
            // A conversion is a copy: the model keeps its own.
            let lent = tensor.dtype() == DType::F32;
            let kept = if lent { None } else { Some(tensor.clone()) };
            let mut values = Ok(Vec::new());
            let empty = keeping_autodiff(tensor, |tensor| {
                values = host_values(tensor);
                Tensor::empty([0; D], &Device::flex())
            });
            match values {
                Ok(values) => {
                    self.weights.0.insert(name, Weight { values: Arc::new(values), shape, trained, lent });
                }
                Err(error) => self.outcome = Err(error),
            }
            kept.unwrap_or(empty)
        })
    }
}

struct GiveBack {
    path: Vec<String>,
    weights: CpuWeights,
}

impl ModuleMapper for GiveBack {
    fn enter_module(&mut self, name: &str, _: &str) {
        self.path.push(name.to_string());
    }

    fn exit_module(&mut self, _: &str, _: &str) {
        self.path.pop();
    }

    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        let Some(Weight { values, shape, .. }) = self.weights.0.remove(&self.path.join(".")).filter(|weight| weight.lent) else {
            return param;
        };
        let values = Arc::try_unwrap(values).unwrap_or_else(|values| values.to_vec());
        param.map(|empty| keeping_autodiff(empty, |_| Tensor::from_data(TensorData::new(values, shape), &Device::flex())))
    }
}
