//! Rotary positions (Su et al. 2021, arXiv 2104.09864): from a token's position to the angles its queries and keys are turned by.
//!
//! Hugging Face's layout: a head's first half pairs with its second half. Knows nothing of attention or configuration files.

use std::f64::consts::TAU;

use burn::tensor::{DType, Int, Tensor, TensorData};

/// How positions turn into angles.
#[derive(Clone, Debug, PartialEq)]
pub struct Rope {
    /// The base: pair `i` of a head turns by `theta^(-2i / head_dim)` a position.
    pub theta: f64,
    /// How the slow pairs are slowed further, for contexts longer than those of the pretraining.
    pub scaling: Option<Llama3Scaling>,
}

/// The scaling of Llama 3.1: pairs whose wavelength exceeds a share of the original context turn `factor` times slower.
#[derive(Clone, Debug, PartialEq)]
pub struct Llama3Scaling {
    /// How many times slower.
    pub factor: f64,
    /// From `original_max_position_embeddings / low_freq_factor` on, wavelengths are scaled in full.
    pub low_freq_factor: f64,
    /// Up to `original_max_position_embeddings / high_freq_factor`, wavelengths stay; in between they are blended.
    pub high_freq_factor: f64,
    /// The context of the pretraining, in tokens.
    pub original_max_position_embeddings: f64,
}

impl Rope {
    /// Checks that every number is in its range.
    pub(super) fn check(&self) -> Result<(), String> {
        let positive = |name: &str, value: f64| match value.is_finite() && value > 0.0 {
            true => Ok(()),
            false => Err(format!("{name} is {value}, expected a positive number")),
        };
        positive("rope_theta", self.theta)?;
        let Some(scaling) = &self.scaling else { return Ok(()) };
        positive("factor", scaling.factor)?;
        positive("low_freq_factor", scaling.low_freq_factor)?;
        positive("original_max_position_embeddings", scaling.original_max_position_embeddings)?;
        match scaling.high_freq_factor > scaling.low_freq_factor && scaling.high_freq_factor.is_finite() {
            true => Ok(()),
            false => Err(format!(
                "high_freq_factor is {}, expected more than low_freq_factor ({})",
                scaling.high_freq_factor, scaling.low_freq_factor
            )),
        }
    }

    /// The angle a position that each pair of a head turns by.
    pub(super) fn frequencies(&self, head_dim: usize) -> Vec<f32> {
        let half = head_dim / 2;
        let plain = (0..half).map(|pair| self.theta.powf(-(pair as f64) / half as f64));
        plain.map(|frequency| self.scaling.as_ref().map_or(frequency, |scaling| scaling.apply(frequency)) as f32).collect()
    }
}

impl Llama3Scaling {
    fn apply(&self, frequency: f64) -> f64 {
        let turns = self.original_max_position_embeddings * frequency / TAU;
        // 0 where the wavelength is long, 1 where it is short.
        let kept = ((turns - self.low_freq_factor) / (self.high_freq_factor - self.low_freq_factor)).clamp(0.0, 1.0);
        frequency * (kept + (1.0 - kept) / self.factor)
    }
}

/// The angles of one forward pass.
pub(super) struct Rotation {
    cosines: Tensor<4>,
    sines: Tensor<4>,
}

impl Rotation {
    /// # Shapes
    /// - positions: `[rows or 1, length]`
    /// - frequencies: `head_dim / 2` of them
    /// - held: `[rows or 1, length, 1, head_dim / 2]`
    pub(super) fn new(positions: Tensor<2, Int>, frequencies: &[f32]) -> Self {
        let frequencies = TensorData::new(frequencies.to_vec(), [1, 1, 1, frequencies.len()]);
        let frequencies: Tensor<4> = Tensor::from_data(frequencies, (&positions.device(), DType::F32));
        let [rows, length] = positions.dims();
        let angles = positions.float().cast(DType::F32).reshape([rows, length, 1, 1]) * frequencies;
        Self { cosines: angles.clone().cos(), sines: angles.sin() }
    }

    /// # Shapes
    /// - x, output: `[rows, length, heads, head_dim]`
    pub(super) fn apply(&self, x: Tensor<4>) -> Tensor<4> {
        let half = x.dims()[3] / 2;
        let (first, second) = (x.clone().narrow(3, 0, half), x.narrow(3, half, half));
        let turned_first = first.clone() * self.cosines.clone() - second.clone() * self.sines.clone();
        let turned_second = second * self.cosines.clone() + first * self.sines.clone();
        Tensor::cat(vec![turned_first, turned_second], 3)
    }
}
