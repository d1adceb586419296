//! The one function in scheduler and executors: the bytes of a task to the bytes of its answer.

use std::fmt;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use datafusion::arrow::array::{ArrayRef, AsArray, BinaryArray};
use datafusion::arrow::datatypes::DataType;
use datafusion::common::{Result, ScalarValue, exec_err};
use datafusion::logical_expr::{ColumnarValue, Expr, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility};

/// The name of the function, and of its column.
pub(super) const NAME: &str = "optune_part";

/// The work of an executor: the answer to a task.
pub type Work = Arc<dyn Fn(&[u8]) -> Vec<u8> + Send + Sync>;

/// The function for a session. Only an executor has the work; a scheduler and a client know the
/// name.
pub(super) fn function(work: Option<Work>) -> Arc<ScalarUDF> {
    // Volatile: nobody computes it while planning, and nobody takes two calls for one.
    let signature = Signature::exact(vec![DataType::Binary], Volatility::Volatile);
    Arc::new(ScalarUDF::new_from_impl(PartFunction { signature, work }))
}

struct PartFunction {
    signature: Signature,
    work: Option<Work>,
}

impl fmt::Debug for PartFunction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(NAME)
    }
}

impl PartialEq for PartFunction {
    fn eq(&self, other: &Self) -> bool {
        self.work.is_some() == other.work.is_some()
    }
}

impl Eq for PartFunction {}

impl Hash for PartFunction {
    fn hash<H: Hasher>(&self, state: &mut H) {
        NAME.hash(state);
    }
}

impl ScalarUDFImpl for PartFunction {
    fn name(&self) -> &str {
        NAME
    }

    // The usual name of the column has the argument in it, here a megabyte of bytes.
    fn schema_name(&self, _: &[Expr]) -> Result<String> {
        Ok(NAME.to_string())
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _: &[DataType]) -> Result<DataType> {
        Ok(DataType::Binary)
    }

    fn invoke_with_args(&self, arguments: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let Some(work) = &self.work else { return exec_err!("{NAME} is for executors") };
        match arguments.args.as_slice() {
            [ColumnarValue::Scalar(ScalarValue::Binary(Some(task)))] => Ok(ColumnarValue::Scalar(ScalarValue::Binary(Some(work(task))))),
            [ColumnarValue::Array(tasks)] => {
                let Some(tasks) = tasks.as_binary_opt::<i32>() else { return exec_err!("{NAME} takes bytes") };
                let answers: BinaryArray = tasks.iter().map(|task| task.map(|task| work(task))).collect();
                Ok(ColumnarValue::Array(Arc::new(answers) as ArrayRef))
            }
            other => exec_err!("{NAME} takes bytes, found {} arguments", other.len()),
        }
    }
}
