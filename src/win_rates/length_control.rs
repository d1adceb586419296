//! The length-controlled win rate of AlpacaEval 2 (Dubois et al., 2024, arXiv 2404.04475): a
//! logistic regression of the preference on the difference of lengths, read where it is zero.
//!
//! This is the model `length_controlled_minimal` of the package `alpaca_eval`: the preference's
//! logit is `a · tanh(Δ / std(Δ)) + b` with Δ the baseline's length less the policy's, in
//! characters. The package's other models add the difficulty of each instruction and annotations of
//! three gamed models. Both are files about AlpacaEval's own 805 prompts, so they say nothing about
//! other prompts.
//!
//! The objective is the package's too: |a| + |b| + C · Σ loss with soft targets, no intercept
//! beside b, and C from ten values by the log loss of five folds. Knows numbers only.

/// The values of C: ten from 1e-4 to 1e4, evenly on a logarithmic scale.
const STRENGTHS: usize = 10;

/// The folds of the cross-validation.
const FOLDS: usize = 5;

/// Probabilities in the log loss of a fold are kept this far from 0 and 1.
const CLIP: f64 = 1e-15;

/// The most steps of the fit. It takes about ten.
const MOST_STEPS: usize = 200;

/// A pair: its outcome and its lengths.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Compared {
    /// 1 for the policy, 0 for the baseline, anything between for a tie.
    pub preference: f64,
    /// Characters of the policy's response.
    pub length: f64,
    /// Characters of the baseline's response.
    pub baseline_length: f64,
}

/// A fitted model.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct LengthControl {
    /// C, the weight of the loss beside the weights' own size.
    pub strength: f64,
    /// a, the effect of the length.
    pub of_length: f64,
    /// b, the logit at equal lengths.
    pub of_policy: f64,
}

/// A row of the regression: tanh(Δ / std(Δ)), and the preference.
type Row = (f64, f64);

impl LengthControl {
    /// The model of these pairs. C is chosen by cross-validation over groups of pairs, in the order
    /// of scikit-learn's `GroupKFold` with a stable sort. `None` below five pairs.
    pub fn fit(pairs: &[Compared]) -> Option<Self> {
        if pairs.len() < FOLDS {
            return None;
        }
        let rows = rows(pairs);
        let mut best = (f64::INFINITY, 1.0);
        for index in 0..STRENGTHS {
            let strength = 10f64.powf(-4.0 + 8.0 * index as f64 / (STRENGTHS - 1) as f64);
            let loss: f64 = (0..FOLDS).map(|fold| held_out_loss(&rows, fold, strength)).sum();
            if loss < best.0 {
                best = (loss, strength);
            }
        }
        Some(Self::of_rows(&rows, best.1))
    }

    /// The model of these pairs with this C.
    pub fn fit_with(pairs: &[Compared], strength: f64) -> Self {
        Self::of_rows(&rows(pairs), strength)
    }

    fn of_rows(rows: &[Row], strength: f64) -> Self {
        let [of_length, of_policy] = minimize(rows, strength);
        Self { strength, of_length, of_policy }
    }

    /// The probability that the policy's response is preferred at equal lengths, from 0 to 1.
    pub fn win_rate(&self) -> f64 {
        logistic(self.of_policy)
    }
}

/// The rows of the regression. Equal differences have no effect of length.
fn rows(pairs: &[Compared]) -> Vec<Row> {
    let differences: Vec<f64> = pairs.iter().map(|pair| pair.baseline_length - pair.length).collect();
    let mean = differences.iter().sum::<f64>() / differences.len().max(1) as f64;
    let squares: f64 = differences.iter().map(|difference| (difference - mean).powi(2)).sum();
    let deviation = (squares / differences.len().saturating_sub(1).max(1) as f64).sqrt();
    let feature = |difference: f64| if deviation > 0.0 { (difference / deviation).tanh() } else { 0.0 };
    differences.iter().zip(pairs).map(|(difference, pair)| (feature(*difference), pair.preference)).collect()
}

/// The log loss on one fold of the model of the others.
fn held_out_loss(rows: &[Row], fold: usize, strength: f64) -> f64 {
    // `GroupKFold` deals out the groups from the last to the first.
    let is_held_out = |index: usize| (rows.len() - 1 - index) % FOLDS == fold;
    let part = |held_out: bool| -> Vec<Row> {
        rows.iter().enumerate().filter(|(index, _)| is_held_out(*index) == held_out).map(|(_, row)| *row).collect()
    };
    let [of_length, of_policy] = minimize(&part(false), strength);
    let tested = part(true);
    let loss = |(feature, preference): &Row| {
        let probability = logistic(of_length * feature + of_policy).clamp(CLIP, 1.0 - CLIP);
        -(preference * probability.ln() + (1.0 - preference) * (1.0 - probability).ln())
    };
    tested.iter().map(loss).sum::<f64>() / tested.len().max(1) as f64
}

/// The weights [a, b] with the least |a| + |b| + C · loss, by proximal Newton steps (Lee, Sun &
/// Saunders, 2014): the loss is approximated by its second order, the absolute values stay.
fn minimize(rows: &[Row], strength: f64) -> [f64; 2] {
    let mut weights = [0.0, 0.0];
    for _ in 0..MOST_STEPS {
        let (gradient, hessian) = derivatives(rows, strength, weights);
        let step = step(gradient, hessian, weights);
        let ahead = [weights[0] + step[0], weights[1] + step[1]];
        let promised = gradient[0] * step[0] + gradient[1] * step[1] + size(ahead) - size(weights);
        let before = objective(rows, strength, weights);
        let mut share = 1.0;
        let found = loop {
            let next = [weights[0] + share * step[0], weights[1] + share * step[1]];
            if objective(rows, strength, next) <= before + 1e-4 * share * promised {
                break Some(next);
            }
            share *= 0.5;
            if share < 1e-9 {
                break None;
            }
        };
        let Some(next) = found else { break };
        let moved = (next[0] - weights[0]).abs().max((next[1] - weights[1]).abs());
        weights = next;
        if moved <= 1e-13 * (1.0 + size(weights)) {
            break;
        }
    }
    weights
}

/// The step with the least value of the local model, by its coordinates in turn.
fn step(gradient: [f64; 2], hessian: [f64; 3], weights: [f64; 2]) -> [f64; 2] {
    let mut step = [0.0, 0.0];
    for _ in 0..1000 {
        let before = step;
        let slope = gradient[0] + hessian[1] * step[1];
        step[0] = shrunk(weights[0] * hessian[0] - slope) / hessian[0] - weights[0];
        let slope = gradient[1] + hessian[1] * step[0];
        step[1] = shrunk(weights[1] * hessian[2] - slope) / hessian[2] - weights[1];
        if (step[0] - before[0]).abs().max((step[1] - before[1]).abs()) <= 1e-15 {
            break;
        }
    }
    step
}

/// Soft thresholding at 1, the weight of the absolute values.
fn shrunk(value: f64) -> f64 {
    value.signum() * (value.abs() - 1.0).max(0.0)
}

fn size(weights: [f64; 2]) -> f64 {
    weights[0].abs() + weights[1].abs()
}

fn objective(rows: &[Row], strength: f64, weights: [f64; 2]) -> f64 {
    let loss = |(feature, preference): &Row| {
        let logit = weights[0] * feature + weights[1];
        preference * softplus(-logit) + (1.0 - preference) * softplus(logit)
    };
    size(weights) + strength * rows.iter().map(loss).sum::<f64>()
}

/// The gradient of C · loss, and its second derivatives: aa, ab, bb. Those of a are positive even
/// without any length difference.
fn derivatives(rows: &[Row], strength: f64, weights: [f64; 2]) -> ([f64; 2], [f64; 3]) {
    let (mut gradient, mut hessian) = ([0.0, 0.0], [1e-10, 0.0, 1e-10]);
    for (feature, preference) in rows {
        let probability = logistic(weights[0] * feature + weights[1]);
        let slope = strength * (probability - preference);
        let curve = strength * probability * (1.0 - probability);
        gradient[0] += slope * feature;
        gradient[1] += slope;
        hessian[0] += curve * feature * feature;
        hessian[1] += curve * feature;
        hessian[2] += curve;
    }
    (gradient, hessian)
}

/// ln(1 + e^x) without overflow.
fn softplus(x: f64) -> f64 {
    x.max(0.0) + (-x.abs()).exp().ln_1p()
}

fn logistic(x: f64) -> f64 {
    if x >= 0.0 { 1.0 / (1.0 + (-x).exp()) } else { x.exp() / (1.0 + x.exp()) }
}
