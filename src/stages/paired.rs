//! The token ids of pairs: a join of `pairs` with the responses of every iteration they were sampled in.

use arrow::array::{ArrayRef, AsArray, Int32Array, RecordBatch};
use arrow::compute::concat;
use arrow::datatypes::DataType;
use burn::tensor::Device;

use super::tensors;
use super::{Context, StageError};
use crate::model::Sequences;
use crate::tables::{self, TableKind, pairs};
use crate::training::Responses;

/// Pairs in the order of their prompt_ids, with the token ids of both responses.
pub struct Paired {
    /// The pairs; row i of `pairs` has the token ids in row i of `chosen` and `rejected`.
    pub pairs: Vec<pairs::Row>,
    chosen: ArrayRef,
    rejected: ArrayRef,
    prompt_token_counts: Vec<usize>,
}

/// The plan as SQL over `pairs` and `responses`.
const SQL: &str = "SELECT pairs.prompt_id, pairs.chosen_born, pairs.chosen_index, pairs.rejected_born, pairs.rejected_index,
       pairs.reward_gap, pairs.weight, pairs.reference_logprob_chosen, pairs.reference_logprob_rejected,
       chosen.prompt_token_count, chosen.token_ids AS chosen_token_ids, rejected.token_ids AS rejected_token_ids
FROM pairs
JOIN responses AS chosen
  ON pairs.prompt_id = chosen.prompt_id AND pairs.chosen_born = chosen.born AND pairs.chosen_index = chosen.response_index
JOIN responses AS rejected
  ON pairs.prompt_id = rejected.prompt_id AND pairs.rejected_born = rejected.born AND pairs.rejected_index = rejected.response_index
ORDER BY pairs.prompt_id";

impl Paired {
    /// The pairs in the slot `pairs`, with the responses in the slot `responses`.
    ///
    /// # Errors
    /// A pair whose responses are not there.
    pub fn read(context: &Context) -> Result<Self, StageError> {
        let session = context.session()?;
        context.register(&session, "pairs", "pairs")?;
        context.register(&session, "responses", "responses")?;
        let expected = session.count("SELECT count(*) FROM pairs")?;
        let batches = session.query(SQL)?;
        let pairs =
            batches.iter().map(|batch| Ok(pairs::rows(&TableKind::Pairs.conform(batch)?)?)).collect::<Result<Vec<_>, StageError>>()?;
        let pairs = pairs.concat();
        if pairs.len() as i64 != expected {
            return Err(StageError::Input(format!("expected the responses of {expected} pairs, found those of {}", pairs.len())));
        }
        let (chosen, rejected) = (lists(&batches, "chosen_token_ids")?, lists(&batches, "rejected_token_ids")?);
        let mut prompt_token_counts = Vec::with_capacity(pairs.len());
        for batch in &batches {
            let counts: &Int32Array = tables::column(batch, "prompt_token_count")?;
            prompt_token_counts.extend(counts.values().iter().map(|count| usize::try_from(*count).unwrap_or(0)));
        }
        Ok(Self { pairs, chosen, rejected, prompt_token_counts })
    }

    /// Rows `range` of both responses on `device`: first all chosen ones, then all rejected ones.
    pub fn responses(&self, range: std::ops::Range<usize>, device: &Device) -> Result<Responses, StageError> {
        let part = |lists: &ArrayRef| lists.slice(range.start, range.len());
        let both = concat(&[&part(&self.chosen), &part(&self.rejected)])?;
        let counts = self.prompt_token_counts.get(range).unwrap_or(&[]);
        let sequences: Sequences = tensors::sequences(both.as_list(), device)?;
        Ok(Responses::new(sequences, [counts, counts].concat())?)
    }
}

/// One column of all batches as one list array of Int32.
fn lists(batches: &[RecordBatch], name: &str) -> Result<ArrayRef, StageError> {
    let columns: Vec<&dyn arrow::array::Array> =
        batches.iter().filter_map(|batch| batch.column_by_name(name)).map(|c| c.as_ref()).collect();
    match columns.first().map(|column| column.data_type()) {
        None => Ok(tensors::empty_lists(0)),
        Some(DataType::List(_)) => Ok(concat(&columns)?),
        Some(other) => Err(StageError::Input(format!("{name}: expected a list of Int32, found {other}"))),
    }
}
