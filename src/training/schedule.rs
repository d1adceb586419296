//! The learning rate of every step, by the formulae of Hugging Face transformers.
//!
//! Knows only numbers.

use std::f64::consts::PI;

/// How the learning rate goes on after warm-up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decay {
    /// It stays.
    Constant,
    /// It falls in a straight line to 0 at the end.
    Linear,
    /// It falls along half a cosine to 0 at the end.
    Cosine,
}

/// A learning-rate schedule over a known number of steps.
///
/// As `get_{constant,linear,cosine}_schedule_with_warmup` of transformers: over the first
/// ceil(`warmup_ratio` · total) steps the rate rises in a straight line from 0, so *with warm-up
/// the first step has a learning rate of 0*, and without it the full one. No step without warm-up
/// has a rate of 0: the decay would reach 0 at the step after the last.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Schedule {
    /// The learning rate at the end of warm-up.
    pub peak: f64,
    /// The decay after warm-up.
    pub decay: Decay,
    /// The share of all steps spent warming up, from 0 to 1.
    pub warmup_ratio: f64,
}

impl Schedule {
    /// The steps of the warm-up, a whole number.
    pub fn warmup_steps(&self, total_steps: u64) -> f64 {
        (self.warmup_ratio * total_steps as f64).ceil()
    }

    /// Whether no step has a learning rate above 0: nothing would be learned.
    pub fn is_zero_throughout(&self, total_steps: u64) -> bool {
        (0..total_steps).all(|step| self.rate(step, total_steps) <= 0.0)
    }

    /// The learning rate of `step` (the first is 0) out of `total_steps`.
    pub fn rate(&self, step: u64, total_steps: u64) -> f64 {
        let warmup_steps = self.warmup_steps(total_steps);
        let step = step as f64;
        if step < warmup_steps {
            return self.peak * step / warmup_steps;
        }
        let progress = (step - warmup_steps) / (total_steps as f64 - warmup_steps).max(1.0);
        self.peak
            * match self.decay {
                Decay::Constant => 1.0,
                Decay::Linear => (1.0 - progress).max(0.0),
                // Past the end the cosine would rise again.
                Decay::Cosine => 0.5 * (1.0 + (PI * progress.min(1.0)).cos()),
            }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// ```python
    /// from transformers import get_scheduler  # 5.23
    /// for name in ("constant_with_warmup", "linear", "cosine"):
    ///     for warmup in (0, 2):  # ceil(10 * 0.15) = 2
    ///         optimizer = torch.optim.SGD([torch.nn.Parameter(torch.ones(1))], lr=1.0)
    ///         schedule = get_scheduler(name, optimizer, warmup, 10)
    ///         rates = []
    ///         for _ in range(10):
    ///             rates.append(schedule.get_last_lr()[0]); optimizer.step(); schedule.step()
    /// ```
    #[test]
    fn rates_are_those_of_transformers() {
        for (decay, warmup_ratio, expected) in CASES {
            let schedule = Schedule { peak: 1.0, decay, warmup_ratio };
            for (step, expected) in expected.into_iter().enumerate() {
                let rate = schedule.rate(step as u64, 10);
                assert!((rate - expected).abs() < 1e-6, "{decay:?}, warm-up {warmup_ratio}, step {step}: {rate}, expected {expected}");
            }
        }
    }

    /// `get_scheduler("linear", optimizer, ceil(ratio * total), total)` of transformers gives only
    /// zeros in these cases.
    #[test]
    fn a_single_step_of_warm_up_is_zero() {
        let schedule = |warmup_ratio: f64| Schedule { peak: 1.0, decay: Decay::Linear, warmup_ratio };
        assert!(schedule(0.1).is_zero_throughout(1) && schedule(0.99).is_zero_throughout(1));
        assert!(!schedule(0.0).is_zero_throughout(1) && !schedule(0.1).is_zero_throughout(2) && !schedule(0.99).is_zero_throughout(2));
    }

    const CASES: [(Decay, f64, [f64; 10]); 6] = [
        (Decay::Constant, 0.0, [1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0]),
        (Decay::Constant, 0.15, [0.0, 0.5, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0]),
        (Decay::Linear, 0.0, [1.0, 0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3, 0.2, 0.1]),
        (Decay::Linear, 0.15, [0.0, 0.5, 1.0, 0.875, 0.75, 0.625, 0.5, 0.375, 0.25, 0.125]),
        (Decay::Cosine, 0.0, [1.0, 0.975528, 0.904508, 0.793893, 0.654508, 0.5, 0.345492, 0.206107, 0.095492, 0.024472]),
        (Decay::Cosine, 0.15, [0.0, 0.5, 1.0, 0.96194, 0.853553, 0.691342, 0.5, 0.308658, 0.146447, 0.03806]),
    ];
}
