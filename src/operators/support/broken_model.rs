//! The error of a model that computes NaN or infinity.
//!
//! Knows no operator.

use std::path::Path;

use burn::module::Module;

use super::OperatorError;
use crate::training::broken_parameter;

/// Checks the numbers that a model computed; `what` they are, and `of` names the subject of the one
/// at an index.
///
/// # Errors
/// A number is NaN or infinite: the model's folder, and the parameter to blame.
pub fn check(
    numbers: &[f64],
    what: &str,
    of: impl FnOnce(usize) -> String,
    model: &impl Module,
    folder: &Path,
) -> Result<(), OperatorError> {
    let Some(index) = numbers.iter().position(|number| !number.is_finite()) else { return Ok(()) };
    let why = match broken_parameter(model) {
        Some(name) => format!("its weights {name} are not finite; the model is broken"),
        None => "its weights are finite, so its activations overflow".to_string(),
    };
    let (folder, of, found) = (folder.display(), of(index), numbers[index]);
    Err(OperatorError::Input(format!("model {folder}: expected a finite {what} of {of}, found {found}: {why}")))
}
