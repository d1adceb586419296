//! Walks over the parameters of a module by name, each as a flat tensor.
//!
//! burn names a parameter by a random id. State kept between runs needs its name instead: the path
//! of fields from the module's root, such as `model.layers.0.self_attn.q_proj.weight`. Frozen
//! parameters, those without a gradient in a module with autodiff, are passed over: nothing is kept
//! for them and nothing copied. Knows nothing of optimizers or losses.

use std::collections::BTreeMap;

use burn::module::{Module, ModuleMapper, ModuleVisitor, Param};
use burn::tensor::{Gradients, Tensor};

/// One flat tensor `[element_count]` a parameter, by the parameter's name. Ordered: sums over it
/// are reproducible.
pub type NamedTensors = BTreeMap<String, Tensor<1>>;

/// The gradients of the parameters of `module`. Parameters without one (frozen, or unused) are left
/// out.
pub fn gradients(module: &impl Module, gradients: Gradients) -> NamedTensors {
    let mut collect = Collect { path: Path::default(), found: NamedTensors::new(), gradients: Some(gradients) };
    module.visit(&mut collect);
    collect.found
}

/// The values of the trained parameters of `module`, without autodiff.
pub fn values(module: &impl Module) -> NamedTensors {
    let mut collect = Collect { path: Path::default(), found: NamedTensors::new(), gradients: None };
    module.visit(&mut collect);
    collect.found
}

/// The names of the trained parameters of `module`.
pub fn names(module: &impl Module) -> Vec<String> {
    values(module).into_keys().collect()
}

/// Replaces every trained parameter of a module by the result of `change` on its name and value.
///
/// `change` must keep the element count. Names, shapes and whether a gradient is wanted stay as
/// they were; the result is a leaf again, so no graph reaches from one step into the next.
pub fn change<M: Module>(module: M, change: impl FnMut(&str, Tensor<1>) -> Tensor<1>) -> M {
    module.map(&mut Change { path: Path::default(), change })
}

/// [`change`] of the parameters of `module`. Parameters with one owner are not copied.
pub fn change_in_place<M: Module>(module: &mut M, change: impl FnMut(&str, Tensor<1>) -> Tensor<1>) {
    // Parameters leave `module`: they have one owner then.
    let empty = module.clone().map(&mut Empty);
    let owned = std::mem::replace(module, empty);
    *module = self::change(owned, change);
}

/// Replaces every tensor by one without numbers.
struct Empty;

impl ModuleMapper for Empty {
    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        param.map(|tensor| Tensor::empty([0; D], &tensor.device().inner()))
    }
}

/// The fields entered so far.
#[derive(Default)]
struct Path(Vec<String>);

impl Path {
    fn enter(&mut self, name: &str) {
        self.0.push(name.to_string());
    }

    fn exit(&mut self) {
        self.0.pop();
    }

    fn name(&self) -> String {
        self.0.join(".")
    }
}

struct Collect {
    path: Path,
    found: NamedTensors,
    gradients: Option<Gradients>,
}

impl ModuleVisitor for Collect {
    fn enter_module(&mut self, name: &str, _container_type: &str) {
        self.path.enter(name);
    }

    fn exit_module(&mut self, _name: &str, _container_type: &str) {
        self.path.exit();
    }

    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        let value = param.val();
        let tensor = match &mut self.gradients {
            Some(gradients) => value.grad_remove(gradients),
            None => (!is_frozen(&value)).then(|| value.inner()),
        };
        if let Some(tensor) = tensor {
            self.found.insert(self.path.name(), tensor.flatten(0, D - 1));
        }
    }
}

struct Change<F> {
    path: Path,
    change: F,
}

impl<F: FnMut(&str, Tensor<1>) -> Tensor<1>> ModuleMapper for Change<F> {
    fn enter_module(&mut self, name: &str, _container_type: &str) {
        self.path.enter(name);
    }

    fn exit_module(&mut self, _name: &str, _container_type: &str) {
        self.path.exit();
    }

    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        if is_frozen(&param.val()) {
            return param;
        }
        let name = self.path.name();
        param.map(|tensor| {
            let shape = tensor.shape();
            let require_grad = tensor.is_require_grad();
            let checkpointing = tensor.gradient_checkpointing_strategy();
            let changed = (self.change)(&name, tensor.inner().flatten(0, D - 1)).reshape(shape);
            match checkpointing {
                Some(strategy) => changed.autodiff().with_gradient_checkpointing_strategy(strategy).set_require_grad(require_grad),
                None => changed,
            }
        })
    }
}

fn is_frozen<const D: usize>(value: &Tensor<D>) -> bool {
    value.is_autodiff() && !value.is_require_grad()
}
