//! Filling the parameters of a burn module from a checkpoint's values, and reading them back. Knows
//! nothing of files.

use burn::module::{Module, ModuleMapper, ModuleVisitor, Param, ParamId};
use burn::tensor::{Device, Tensor, TensorData};

use crate::model::ModelError;
use crate::model::parameters::{Parameter, Sink, transpose};

/// The path to a parameter while a module is walked.
#[derive(Default)]
struct Path(Vec<(String, bool)>);

impl Path {
    fn enter(&mut self, name: &str, container: &str) {
        let name = match name {
            // A norm's weight is called gamma by burn.
            "gamma" => "weight",
            // Routed experts and fused projections stand in place of an MLP, under its name.
            "routed" | "fused_mlp" => "mlp",
            name => name,
        };
        self.0.push((name.to_string(), container == "Struct:Projection"));
    }

    fn exit(&mut self) {
        self.0.pop();
    }

    /// The parameter at the end of the path, which the model holds in this `shape`.
    fn parameter(&self, mut shape: Vec<usize>) -> Parameter {
        let transposed = self.0.last().is_some_and(|(_, linear)| *linear) && shape.len() == 2;
        if transposed {
            shape.reverse();
        }
        let names: Vec<&str> = self.0.iter().map(|(name, _)| name.as_str()).collect();
        Parameter { name: names.join("."), shape, transposed }
    }
}

/// All parameters in the model's order; makes none of them.
pub(crate) fn list(model: &impl Module) -> Vec<Parameter> {
    struct List(Path, Vec<Parameter>);
    impl ModuleVisitor for List {
        fn enter_module(&mut self, name: &str, container: &str) {
            self.0.enter(name, container);
        }
        fn exit_module(&mut self, _: &str, _: &str) {
            self.0.exit();
        }
        fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
            self.1.push(self.0.parameter(param.lazy_shape().to_vec()));
        }
    }
    let mut list = List(Path::default(), Vec::new());
    model.visit(&mut list);
    list.1
}

/// Gives every parameter the values that `value` returns for it, in the checkpoint's layout.
///
/// Parameters are numbered in the model's order, so that what is keyed by them has the same order
/// in every process.
///
/// # Errors
/// The first error of `value`.
pub(crate) fn fill<M: Module, E>(model: M, device: &Device, value: &mut dyn FnMut(&Parameter) -> Result<Vec<f32>, E>) -> Result<M, E> {
    struct Fill<'a, E> {
        path: Path,
        device: &'a Device,
        value: &'a mut dyn FnMut(&Parameter) -> Result<Vec<f32>, E>,
        filled: u64,
        error: Option<E>,
    }
    impl<E> ModuleMapper for Fill<'_, E> {
        fn enter_module(&mut self, name: &str, container: &str) {
            self.path.enter(name, container);
        }
        fn exit_module(&mut self, _: &str, _: &str) {
            self.path.exit();
        }
        fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
            if self.error.is_some() {
                return param;
            }
            let shape = param.lazy_shape().to_vec();
            let parameter = self.path.parameter(shape.clone());
            match (self.value)(&parameter) {
                Ok(values) => {
                    let values = match parameter.shape[..] {
                        [rows, columns] if parameter.transposed => transpose(&values, rows, columns),
                        _ => values,
                    };
                    self.filled += 1;
                    let mut filled = Param::from_data(TensorData::new(values, shape), self.device);
                    filled.id = ParamId::from(self.filled);
                    filled
                }
                Err(error) => {
                    self.error = Some(error);
                    param
                }
            }
        }
    }
    let mut fill = Fill { path: Path::default(), device, value, filled: 0, error: None };
    let model = model.map(&mut fill);
    fill.error.map_or(Ok(model), Err)
}

/// The model with gradients for the parameters that are `trained`, by their names in a checkpoint.
pub(crate) fn trained_only<M: Module>(model: M, trained: &dyn Fn(&str) -> bool) -> M {
    struct TrainedOnly<'a>(Path, &'a dyn Fn(&str) -> bool);
    impl ModuleMapper for TrainedOnly<'_> {
        fn enter_module(&mut self, name: &str, container: &str) {
            self.0.enter(name, container);
        }
        fn exit_module(&mut self, _: &str, _: &str) {
            self.0.exit();
        }
        fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
            let is_trained = (self.1)(&self.0.parameter(param.lazy_shape().to_vec()).name);
            if is_trained { param } else { param.set_require_grad(false) }
        }
    }
    model.map(&mut TrainedOnly(Path::default(), trained))
}

/// Takes the name and the values of one parameter after the other.
pub(crate) type NamedSink<'a> = dyn FnMut(&str, Vec<f32>) -> Result<(), ModelError> + 'a;

/// Hands every parameter's values to `sink`, in the model's order and the checkpoint's layout.
///
/// # Errors
/// The first error of `sink`, or that a parameter is not f32 or cannot be read from its device.
pub(crate) fn each_value(model: &impl Module, sink: &mut Sink<'_>) -> Result<(), ModelError> {
    each_named_value(model, &|_| true, &mut |_, values| sink(values))
}

/// Hands the name and values of every parameter that is `wanted` to `sink`, as [`each_value`].
///
/// # Errors
/// As [`each_value`].
pub(crate) fn each_named_value(model: &impl Module, wanted: &dyn Fn(&str) -> bool, sink: &mut NamedSink<'_>) -> Result<(), ModelError> {
    struct Each<'a, 'b> {
        path: Path,
        wanted: &'a dyn Fn(&str) -> bool,
        sink: &'a mut NamedSink<'b>,
        outcome: Result<(), ModelError>,
    }
    impl ModuleVisitor for Each<'_, '_> {
        fn enter_module(&mut self, name: &str, container: &str) {
            self.path.enter(name, container);
        }
        fn exit_module(&mut self, _: &str, _: &str) {
            self.path.exit();
        }
        fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
            if self.outcome.is_err() {
                return;
            }
            let parameter = self.path.parameter(param.lazy_shape().to_vec());
            if !(self.wanted)(&parameter.name) {
                return;
            }
            let values = param.val().try_into_vec_as::<f32>();
            self.outcome = match values {
                Ok(values) => match parameter.shape[..] {
                    [rows, columns] if parameter.transposed => (self.sink)(&parameter.name, transpose(&values, columns, rows)),
                    _ => (self.sink)(&parameter.name, values),
                },
                Err(error) => Err(ModelError::Device(format!("cannot read {} back: {error}", parameter.name))),
            };
        }
    }
    let mut each = Each { path: Path::default(), wanted, sink, outcome: Ok(()) };
    model.visit(&mut each);
    each.outcome
}

/// A parameter's values, on the host.
///
/// # Errors
/// When it is not f32, or cannot be read from its device.
pub(crate) fn host_values<const D: usize>(tensor: Tensor<D>) -> Result<Vec<f32>, ModelError> {
    tensor.try_into_vec_as::<f32>().map_err(|error| ModelError::Device(format!("cannot read the weights back: {error}")))
}
