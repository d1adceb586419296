//! A reward model: the transformer with one score in place of the logits. Knows nothing of prompts,
//! templates or preferences.

use burn::module::Module;
use burn::tensor::{DType, Device, Int, Tensor, TensorData};

use super::placement::Placement;
use super::projection::Projection;
use super::transformer::Decoder;
use crate::compute::Precision;
use crate::model::ModelConfig;

/// A model for sequence classification with one label, in Hugging Face's words.
#[derive(Module, Debug)]
pub struct RewardModel {
    /// Everything below the score.
    pub model: Decoder,
    /// `hidden_size` to 1, without a bias.
    pub score: Projection,
}

impl RewardModel {
    /// A model with parameters made at their first use; a checkpoint gives them their values
    /// before.
    pub(crate) fn unfilled(config: &ModelConfig, device: &Device) -> Self {
        Self { model: Decoder::unfilled(config, device), score: Projection::unfilled(config.hidden_size, 1, false, device) }
    }

    /// The device the parameters are on; it carries autodiff when they do.
    pub fn device(&self) -> Device {
        self.model.device()
    }

    /// The same model, computed in this precision: F32 unless it is changed here.
    #[must_use]
    pub fn in_precision(mut self, precision: Precision) -> Self {
        self.model.set_precision(precision);
        self.score.set_precision(precision);
        self
    }

    /// The reward of each row: the score at its last real token. Padding never matters, whatever
    /// its ids.
    ///
    /// # Shapes
    /// - tokens: `[rows, length]`, i32, right-padded, every id below `vocab_size`
    /// - lengths: the real tokens of each row, 1 to `length`
    /// - output: `[rows]`
    ///
    /// # Panics
    /// When there are not as many lengths as rows, one is out of range, or an id is outside the
    /// vocabulary.
    pub fn rewards(&self, tokens: Tensor<2, Int>, lengths: &[usize]) -> Tensor<1> {
        let [_, longest] = tokens.dims();
        let placement = Placement::right_padded(longest, &tokens.device());
        self.scores(self.model.forward(tokens, &placement, None), lengths)
    }

    /// The score of each row at its last real token.
    ///
    /// # Shapes
    /// - hidden: `[rows, length, hidden_size]`
    /// - lengths, output: as in [`Self::rewards`]
    ///
    /// # Panics
    /// When there are not as many lengths as rows, or one is out of range.
    pub(crate) fn scores(&self, hidden: Tensor<3>, lengths: &[usize]) -> Tensor<1> {
        let [rows, longest, _] = hidden.dims();
        assert!(
            lengths.len() == rows && lengths.iter().all(|length| (1..=longest).contains(length)),
            "expected {rows} lengths from 1 to {longest}, found {lengths:?}"
        );
        let device = hidden.device().inner();
        // Below rows * longest, the size of a tensor.
        let last: Vec<i32> = lengths.iter().enumerate().map(|(row, length)| (row * longest + length - 1) as i32).collect();
        let last: Tensor<1, Int> = Tensor::from_data(TensorData::new(last, [rows]), (&device, DType::I32));
        let hidden: Tensor<2> = hidden.flatten(0, 1);
        self.score.forward(hidden.select(0, last)).reshape([rows])
    }
}
