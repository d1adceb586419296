//! The parameters of a model under their Hugging Face names: listing, filling and reading them back. Knows nothing of files.

use burn::module::{Module, ModuleMapper, ModuleVisitor, Param, ParamId};
use burn::tensor::{Device, Tensor, TensorData};

use super::ModelError;

/// One parameter as a checkpoint stores it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Parameter {
    /// The checkpoint's key, as `model.layers.0.mlp.up_proj.weight`.
    pub(super) name: String,
    /// The checkpoint's shape: `[out, in]` for a projection.
    pub(super) shape: Vec<usize>,
    /// Whether the model holds it the other way round, `[in, out]`.
    pub(super) transposed: bool,
}

impl Parameter {
    /// The projection whose weight it is, of those an adapter can stand beside: all but a head, whose name has one part only.
    pub(super) fn projection(&self) -> Option<&str> {
        let name = self.name.strip_suffix(".weight").filter(|_| self.transposed)?;
        name.contains('.').then_some(name)
    }
}

/// Takes the values of one parameter after the other.
pub(super) type Sink<'a> = dyn FnMut(Vec<f32>) -> Result<(), ModelError> + 'a;

/// The path to a parameter while a module is walked.
#[derive(Default)]
struct Path(Vec<(String, bool)>);

impl Path {
    fn enter(&mut self, name: &str, container: &str) {
        // A norm's weight is called gamma by burn.
        let name = if name == "gamma" { "weight" } else { name };
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
pub(super) fn list(model: &impl Module) -> Vec<Parameter> {
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
/// Parameters are numbered in the model's order, so that what is keyed by them has the same order in every process.
///
/// # Errors
/// The first error of `value`.
pub(super) fn fill<M: Module, E>(model: M, device: &Device, value: &mut dyn FnMut(&Parameter) -> Result<Vec<f32>, E>) -> Result<M, E> {
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

/// Hands every parameter's values to `sink`, in the model's order and the checkpoint's layout.
///
/// # Errors
/// The first error of `sink`, or that a parameter is not f32 or cannot be read from its device.
pub(super) fn read(model: &impl Module, sink: &mut Sink<'_>) -> Result<(), ModelError> {
    struct Read<'a, 'b> {
        path: Path,
        sink: &'a mut Sink<'b>,
        outcome: Result<(), ModelError>,
    }
    impl ModuleVisitor for Read<'_, '_> {
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
            let tensor = param.val();
            let parameter = self.path.parameter(tensor.dims().to_vec());
            let values = tensor.try_into_vec_as::<f32>();
            self.outcome = match values {
                Ok(values) => match parameter.shape[..] {
                    [rows, columns] if parameter.transposed => (self.sink)(transpose(&values, columns, rows)),
                    _ => (self.sink)(values),
                },
                Err(error) => Err(ModelError::Device(format!("cannot read {} back: {error}", parameter.name))),
            };
        }
    }
    let mut read = Read { path: Path::default(), sink, outcome: Ok(()) };
    model.visit(&mut read);
    read.outcome
}

/// A parameter's numbers.
///
/// # Errors
/// When it is not f32, or cannot be read from its device.
pub(super) fn numbers<const D: usize>(tensor: Tensor<D>) -> Result<Vec<f32>, ModelError> {
    tensor.try_into_vec_as::<f32>().map_err(|error| ModelError::Device(format!("cannot read the weights back: {error}")))
}

/// The transpose of a `rows` × `columns` matrix, in tiles that stay in the cache.
pub(super) fn transpose(values: &[f32], rows: usize, columns: usize) -> Vec<f32> {
    const TILE: usize = 32;
    let mut turned = vec![0.0; values.len()];
    for top in (0..rows).step_by(TILE) {
        for left in (0..columns).step_by(TILE) {
            for row in top..rows.min(top + TILE) {
                for column in left..columns.min(left + TILE) {
                    // Both indices are below rows * columns, the length of either side.
                    turned[column * rows + row] = values[row * columns + column];
                }
            }
        }
    }
    turned
}

#[cfg(test)]
mod tests {
    use super::transpose;

    #[test]
    fn transpose_turns_rows_into_columns() {
        let values: Vec<f32> = (0..35 * 70).map(|value| value as f32).collect();
        let turned = transpose(&values, 35, 70);
        assert_eq!(turned[69 * 35 + 34], values[34 * 70 + 69]);
        assert_eq!(transpose(&turned, 70, 35), values);
    }
}
