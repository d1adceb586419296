//! The error of a model that computes NaN or infinity.
//!
//! Knows no operator.

use super::OperatorError;
use super::model_work::Numbers;

/// Checks the numbers that a model computed; `what` they are, and `of` names the subject of the one
/// at an index.
///
/// # Errors
/// A number is NaN or infinite: the model's folder, and the parameter to blame.
pub fn check(numbers: &Numbers, what: &str, of: impl FnOnce(usize) -> String) -> Result<(), OperatorError> {
    let values = &numbers.values;
    let Some(index) = values.iter().position(|number| !number.is_finite()) else { return Ok(()) };
    let why = match &numbers.broken {
        Some(name) => format!("its weights {name} are not finite; the model is broken"),
        None => "its weights are finite, so its activations overflow".to_string(),
    };
    let (folder, of, found) = (numbers.folder.display(), of(index), values[index]);
    Err(OperatorError::Input(format!("model {folder}: expected a finite {what} of {of}, found {found}: {why}")))
}
