//! `EXTRACT(part FROM time)`, and `date_part('part', time)`, as PostgreSQL has them.
//!
//! The engine's own need a database of time zones, and their seconds are whole. Times here have no
//! zone, or UTC.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray};
use arrow::compute::kernels::numeric::{add, div};
use arrow::compute::{DatePart, cast, date_part};
use arrow::datatypes::{DataType, Float64Type, TimeUnit};
use datafusion::common::ScalarValue;
use datafusion::error::{DataFusionError, Result};
use datafusion::execution::session_state::SessionStateBuilder;
use datafusion::logical_expr::expr::ScalarFunction;
use datafusion::logical_expr::planner::{ExprPlanner, PlannerResult};
use datafusion::logical_expr::{ColumnarValue, Expr, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility};

/// Adds both to a session, before what the engine may have of the kind.
pub(super) fn register(state: &mut SessionStateBuilder) {
    let function = Arc::new(ScalarUDF::new_from_impl(Extract { signature: Signature::any(2, Volatility::Immutable) }));
    state.scalar_functions().get_or_insert_default().push(function.clone());
    state.expr_planners().get_or_insert_default().insert(0, Arc::new(Planner(function)));
}

/// Reads `EXTRACT` as a call.
#[derive(Debug)]
struct Planner(Arc<ScalarUDF>);

impl ExprPlanner for Planner {
    fn plan_extract(&self, arguments: Vec<Expr>) -> Result<PlannerResult<Vec<Expr>>> {
        Ok(PlannerResult::Planned(Expr::ScalarFunction(ScalarFunction::new_udf(self.0.clone(), arguments))))
    }
}

/// The parts by name; `None` for an unknown one, and for seconds and epochs, which have fractions.
fn part(name: &str) -> Option<DatePart> {
    Some(match name {
        "year" => DatePart::Year,
        "isoyear" => DatePart::YearISO,
        "quarter" => DatePart::Quarter,
        "month" => DatePart::Month,
        "week" => DatePart::WeekISO,
        "day" => DatePart::Day,
        "dow" => DatePart::DayOfWeekSunday0,
        "doy" => DatePart::DayOfYear,
        "hour" => DatePart::Hour,
        "minute" => DatePart::Minute,
        _ => return None,
    })
}

/// A part of dates or timestamps (of any unit), as Float64.
fn extracted(name: &str, times: &ArrayRef) -> Result<ArrayRef> {
    let name = name.to_ascii_lowercase();
    let is_time = matches!(times.data_type(), DataType::Date32 | DataType::Date64 | DataType::Timestamp(..) | DataType::Null);
    if !is_time {
        let problem = format!("EXTRACT: expected a date or timestamp, found {}", times.data_type());
        return Err(DataFusionError::Plan(format!("{problem}; write CAST(… AS TIMESTAMP)")));
    }
    if *times.data_type() == DataType::Null {
        return Ok(cast(times, &DataType::Float64)?);
    }
    let micros = || cast(&cast(times, &DataType::Timestamp(TimeUnit::Microsecond, None))?, &DataType::Int64);
    let thousandths = |unit: f64| {
        let within = micros()?
            .as_primitive::<arrow::datatypes::Int64Type>()
            .unary::<_, Float64Type>(|micros| micros.rem_euclid(60_000_000) as f64 / unit);
        Ok(Arc::new(within) as ArrayRef)
    };
    match name.as_str() {
        "epoch" => {
            let millions = Arc::new(arrow::array::Float64Array::new_scalar(1e6));
            Ok(div(&cast(&micros()?, &DataType::Float64)?, millions.as_ref())?)
        }
        "second" => thousandths(1e6),
        "milliseconds" | "millisecond" => thousandths(1e3),
        "microseconds" | "microsecond" => thousandths(1.0),
        "isodow" => {
            let one = arrow::array::Int32Array::new_scalar(1);
            Ok(cast(&add(&date_part(times, DatePart::DayOfWeekMonday0)?, &one)?, &DataType::Float64)?)
        }
        other => match part(other) {
            Some(part) => Ok(cast(&date_part(times, part)?, &DataType::Float64)?),
            None => Err(DataFusionError::Plan(format!(
                "EXTRACT: expected year, isoyear, quarter, month, week, day, dow, isodow, doy, hour, minute, second, milliseconds, \
                 microseconds or epoch, found {other}"
            ))),
        },
    }
}

/// The function for the engine.
#[derive(Debug, PartialEq, Eq, Hash)]
struct Extract {
    signature: Signature,
}

impl ScalarUDFImpl for Extract {
    fn name(&self) -> &str {
        "date_part"
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _: &[DataType]) -> Result<DataType> {
        Ok(DataType::Float64)
    }

    fn invoke_with_args(&self, call: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let [ColumnarValue::Scalar(name), times] = call.args.as_slice() else {
            return Err(DataFusionError::Plan("date_part: expected the name of a part as a text, found a column".to_string()));
        };
        let Some(Some(name)) = name.try_as_str() else {
            return Err(DataFusionError::Plan(format!("date_part: expected the name of a part, found {name}")));
        };
        Ok(match times {
            ColumnarValue::Array(times) => ColumnarValue::Array(extracted(name, times)?),
            ColumnarValue::Scalar(time) => {
                let part = extracted(name, &time.to_array()?)?;
                ColumnarValue::Scalar(ScalarValue::try_from_array(&part, 0)?)
            }
        })
    }
}
