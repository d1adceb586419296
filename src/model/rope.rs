//! Rotary positions (Su et al. 2021, arXiv 2104.09864): the angle a position of each pair of a
//! head. Knows nothing of configuration files.

use std::f64::consts::TAU;

/// How positions turn into angles.
#[derive(Clone, Debug, PartialEq)]
pub struct Rope {
    /// The base: pair `i` of a head turns by `theta^(-2i / head_dim)` a position.
    pub theta: f64,
    /// How the slow pairs are slowed further, for contexts longer than those of the pretraining.
    pub scaling: Option<Llama3Scaling>,
}

/// The scaling of Llama 3.1: pairs with a wavelength above a share of the original context turn
/// `factor` times slower.
#[derive(Clone, Debug, PartialEq)]
pub struct Llama3Scaling {
    /// How many times slower.
    pub factor: f64,
    /// From `original_max_position_embeddings / low_freq_factor` on, wavelengths are scaled in
    /// full.
    pub low_freq_factor: f64,
    /// Up to `original_max_position_embeddings / high_freq_factor`, wavelengths stay; in between
    /// they are blended.
    pub high_freq_factor: f64,
    /// The context of the pretraining, in tokens.
    pub original_max_position_embeddings: f64,
}

impl Rope {
    /// Checks the range of every number.
    pub(crate) fn check(&self) -> Result<(), String> {
        let positive = |name: &str, value: f64| {
            if value.is_finite() && value > 0.0 { Ok(()) } else { Err(format!("{name} is {value}, expected a positive number")) }
        };
        positive("rope_theta", self.theta)?;
        let Some(scaling) = &self.scaling else { return Ok(()) };
        positive("factor", scaling.factor)?;
        positive("low_freq_factor", scaling.low_freq_factor)?;
        positive("original_max_position_embeddings", scaling.original_max_position_embeddings)?;
        if scaling.high_freq_factor > scaling.low_freq_factor && scaling.high_freq_factor.is_finite() {
            Ok(())
        } else {
            Err(format!(
                "high_freq_factor is {}, expected more than low_freq_factor ({})",
                scaling.high_freq_factor, scaling.low_freq_factor
            ))
        }
    }

    /// The rotation of each pair of a head, as an angle a position.
    pub(crate) fn frequencies(&self, head_dim: usize) -> Vec<f32> {
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
