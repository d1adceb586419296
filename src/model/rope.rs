//! Rotary positions (Su et al. 2021, arXiv 2104.09864): the angle a position of each pair of a
//! head. Knows nothing of configuration files.

use std::f64::consts::TAU;

/// How positions turn into angles.
#[derive(Clone, Debug, PartialEq)]
pub struct Rope {
    /// The base: pair `i` of a head turns by `theta^(-2i / width)` a position, where `width` is the
    /// rotated part of a head.
    pub theta: f64,
    /// The share of a head that is rotated, its first numbers.
    pub partial_rotary_factor: f64,
    /// How the slow pairs are slowed further, for contexts longer than those of the pretraining.
    pub scaling: Option<RopeScaling>,
}

/// Rotations for longer contexts.
#[derive(Clone, Debug, PartialEq)]
pub enum RopeScaling {
    /// All pairs turn so many times slower.
    Linear {
        /// How many times slower.
        factor: f64,
    },
    /// As without scaling in the original context. Beyond it the angles of all tokens depend on the
    /// length of the longest sequence in the batch, which is not done here.
    Dynamic {
        /// The original context, in tokens.
        original_max_position_embeddings: usize,
    },
    /// YaRN.
    Yarn(Yarn),
    /// LongRoPE.
    LongRope(LongRope),
    /// Llama 3.1's.
    Llama3(Llama3Scaling),
}

/// YaRN (Peng et al. 2023, arXiv 2309.00071): pairs that turn less than `beta_slow` times in the
/// original context turn `factor` times slower, those with more than `beta_fast` turns stay.
#[derive(Clone, Debug, PartialEq)]
pub struct Yarn {
    /// How many times slower.
    pub factor: f64,
    /// Turns of the last pair that stays.
    pub beta_fast: f64,
    /// Turns of the first pair that is slowed in full.
    pub beta_slow: f64,
    /// Whether both pairs are rounded to whole ones.
    pub truncate: bool,
    /// The factor of cosines and sines.
    pub attention_factor: f64,
    /// The context of the pretraining, in tokens.
    pub original_max_position_embeddings: f64,
}

/// LongRoPE (Ding et al. 2024, arXiv 2402.13753) in the original context: each pair has a factor of
/// its own. Beyond it a second list of factors holds for all tokens of a batch, which is not done
/// here.
#[derive(Clone, Debug, PartialEq)]
pub struct LongRope {
    /// How many times slower each pair turns.
    pub short_factor: Vec<f64>,
    /// The factor of cosines and sines.
    pub attention_factor: f64,
    /// The original context, in tokens.
    pub original_max_position_embeddings: usize,
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

/// The angles of a head of some width.
#[derive(Clone, Debug, PartialEq)]
pub struct RopeTable {
    /// The rotation of each rotated pair, as an angle a position.
    pub frequencies: Vec<f32>,
    /// The factor of cosines and sines.
    pub factor: f32,
}

impl Rope {
    /// Checks the range of every number, for heads of this width.
    pub(crate) fn check(&self, head_dim: usize) -> Result<(), String> {
        let positive = |name: &str, value: f64| {
            if value.is_finite() && value > 0.0 { Ok(()) } else { Err(format!("{name} is {value}, expected a positive number")) }
        };
        positive("rope_theta", self.theta)?;
        positive("partial_rotary_factor", self.partial_rotary_factor)?;
        let rotated = self.rotated(head_dim);
        if self.partial_rotary_factor > 1.0 || rotated == 0 || !rotated.is_multiple_of(2) {
            return Err(format!(
                "partial_rotary_factor is {}, expected at most 1 and an even part of head_dim ({head_dim})",
                self.partial_rotary_factor
            ));
        }
        match &self.scaling {
            None | Some(RopeScaling::Dynamic { .. }) => Ok(()),
            Some(RopeScaling::Linear { factor }) => positive("factor", *factor),
            Some(RopeScaling::Yarn(yarn)) => {
                positive("factor", yarn.factor)?;
                positive("beta_fast", yarn.beta_fast)?;
                positive("beta_slow", yarn.beta_slow)?;
                positive("attention_factor", yarn.attention_factor)?;
                positive("original_max_position_embeddings", yarn.original_max_position_embeddings)
            }
            Some(RopeScaling::LongRope(long)) => {
                positive("attention_factor", long.attention_factor)?;
                long.short_factor.iter().try_for_each(|factor| positive("short_factor", *factor))?;
                let (expected, found) = (rotated / 2, long.short_factor.len());
                if found == expected { Ok(()) } else { Err(format!("short_factor has {found} numbers, expected one a pair ({expected})")) }
            }
            Some(RopeScaling::Llama3(scaling)) => {
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
        }
    }

    /// How many numbers of a head are rotated.
    pub(crate) fn rotated(&self, head_dim: usize) -> usize {
        (head_dim as f64 * self.partial_rotary_factor) as usize
    }

    /// The factor of cosines and sines.
    pub(crate) fn attention_factor(&self) -> f64 {
        match &self.scaling {
            Some(RopeScaling::Yarn(yarn)) => yarn.attention_factor,
            Some(RopeScaling::LongRope(long)) => long.attention_factor,
            _ => 1.0,
        }
    }

    /// The longest sequence with angles that depend on each token alone, and what comes beyond it.
    pub(crate) fn limit(&self) -> Option<(usize, String)> {
        let (limit, kind) = match &self.scaling {
            Some(RopeScaling::Dynamic { original_max_position_embeddings }) => (*original_max_position_embeddings, "dynamic"),
            Some(RopeScaling::LongRope(long)) => (long.original_max_position_embeddings, "longrope"),
            _ => return None,
        };
        let reason = format!(
            "rope scaling of type {kind} rotates all tokens of a batch by its longest sequence once that is beyond the {limit} tokens of \
             the original context: a token's logprob would depend on other sequences"
        );
        Some((limit, reason))
    }

    /// The angles of heads of this width.
    pub(crate) fn table(&self, head_dim: usize) -> RopeTable {
        let half = self.rotated(head_dim) / 2;
        let plain = (0..half).map(|pair| self.theta.powf(-(pair as f64) / half as f64));
        let scaled = |(pair, frequency): (usize, f64)| match &self.scaling {
            None | Some(RopeScaling::Dynamic { .. }) => frequency,
            Some(RopeScaling::Linear { factor }) => frequency / factor,
            Some(RopeScaling::Yarn(yarn)) => yarn.apply(frequency, pair, half, self.theta),
            // As many as pairs: `check` has seen to it.
            Some(RopeScaling::LongRope(long)) => frequency / long.short_factor.get(pair).copied().unwrap_or(1.0),
            Some(RopeScaling::Llama3(scaling)) => scaling.apply(frequency),
        };
        RopeTable {
            frequencies: plain.enumerate().map(scaled).map(|frequency| frequency as f32).collect(),
            factor: self.attention_factor() as f32,
        }
    }
}

impl Yarn {
    fn apply(&self, frequency: f64, pair: usize, half: usize, theta: f64) -> f64 {
        // The pair that turns so many times in the original context.
        let pair_of = |turns: f64| half as f64 * (self.original_max_position_embeddings / (turns * TAU)).ln() / theta.ln();
        let (mut low, mut high) = (pair_of(self.beta_fast), pair_of(self.beta_slow));
        if self.truncate {
            (low, high) = (low.floor(), high.ceil());
        }
        (low, high) = (low.max(0.0), high.min(2.0 * half as f64 - 1.0));
        if low == high {
            high += 0.001;
        }
        let slowed = ((pair as f64 - low) / (high - low)).clamp(0.0, 1.0);
        frequency / self.factor * slowed + frequency * (1.0 - slowed)
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
