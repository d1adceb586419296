//! Drawing tokens where their logits are. Knows nothing of seeds.

use cubecl::prelude::*;

use super::{largest, total};

/// How many units the cube of one token has.
pub(in crate::compute::gpu) const SAMPLERS: usize = 1024;

/// The results for each sampled token: the token, its logprob, the first token with a logit that is
/// not finite, or -1, and this logit.
pub(in crate::compute::gpu) const SAMPLED: usize = 4;

/// Above any vocabulary, and exact in f32.
const NO_TOKEN: f32 = 16_777_216.0;

/// How a token is drawn.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(in crate::compute::gpu) enum Choice {
    /// The likeliest.
    Greedy,
    /// From all.
    All,
    /// From the tokens left after top-k, top-p and min-p.
    Some,
}

/// Changes logits, one unit a change: 1 is for the repetition penalty, 2 for the presence penalty,
/// 4 for a token that may not be drawn. A logit that is not finite stays as it is.
///
/// # Shapes
/// - logits: `[rows, columns]`
/// - changes: `[count, 3]`, row, token and the sum of kinds; each logit at most once
#[cube(launch)]
pub(in crate::compute::gpu) fn change_logits(
    logits: &mut Tensor<f32>,
    changes: &Tensor<i32>,
    count: usize,
    columns: usize,
    repetition: f32,
    presence: f32,
) {
    let change = ABSOLUTE_POS as usize;
    if change < count {
        let row = u32::cast_from(changes[change * 3]) as usize;
        let token = u32::cast_from(changes[change * 3 + 1]) as usize;
        let kind = u32::cast_from(changes[change * 3 + 2]);
        let at = row * columns + token;
        let mut logit = logits[at];
        if logit.abs() <= 3.4e38f32 {
            if (kind & 1u32) > 0u32 {
                if logit < 0.0f32 {
                    logit *= repetition;
                } else {
                    logit /= repetition;
                }
            }
            if (kind & 2u32) > 0u32 {
                logit -= presence;
            }
            logit = max(min(logit, 3.0e38f32), -3.0e38f32);
            if (kind & 4u32) > 0u32 {
                logit = f32::new(-3.0e38);
            }
            logits[at] = logit;
        }
    }
}

/// Draws a token from each row of logits, as [`Sampler`](crate::generation::Sampler) does:
/// temperature, top-k, top-p, min-p. The logits are used up. A cube a row.
///
/// # Shapes
/// - logits: `[rows, columns]`
/// - uniforms: `[rows]`, from 0 to less than 1
/// - out: `[rows, SAMPLED]`
#[cube(launch)]
pub(in crate::compute::gpu) fn sample(
    logits: &mut Tensor<f32>,
    uniforms: &Tensor<f32>,
    out: &mut Tensor<f32>,
    columns: usize,
    vocabulary: usize,
    inverse_temperature: f32,
    top_p: f32,
    top_k: u32,
    min_p: f32,
    #[comptime] choice: Choice,
) {
    let row = CUBE_POS_X as usize;
    let start = row * columns;
    let unit = UNIT_POS as usize;
    let mut shared = Shared::<[f32]>::new_slice(SAMPLERS);

    // The largest, its first token, and the first that is not finite.
    let mut best = f32::new(-3.0e38);
    let mut broken = f32::new(NO_TOKEN);
    let mut at = unit;
    while at < vocabulary {
        let logit = logits[start + at];
        if logit.abs() <= 3.4e38f32 {
            best = max(best, logit);
        } else {
            broken = min(broken, f32::cast_from(at as u32));
        }
        at += comptime!(SAMPLERS);
    }
    let best = largest(best, &mut shared);
    let broken = -largest(-broken, &mut shared);
    let mut first = f32::new(NO_TOKEN);
    let mut at = unit;
    while at < vocabulary {
        if logits[start + at] == best {
            first = min(first, f32::cast_from(at as u32));
        }
        at += comptime!(SAMPLERS);
    }
    let first = -largest(-first, &mut shared);
    let result = row * comptime!(SAMPLED);
    if unit == 0 {
        out[result] = first;
        out[result + 1] = 0.0f32;
        out[result + 2] = -1.0f32;
        out[result + 3] = 0.0f32;
        if broken < NO_TOKEN {
            out[result + 2] = broken;
            out[result + 3] = logits[start + u32::cast_from(broken) as usize];
        }
    }
    if comptime!(choice != Choice::Greedy) {
        // Weights relative to the likeliest token's.
        let mut at = unit;
        while at < vocabulary {
            logits[start + at] = ((logits[start + at] - best) * inverse_temperature).exp();
            at += comptime!(SAMPLERS);
        }
        sync_cube();
        // Each unit has a stretch of the vocabulary of its own.
        let stretch = vocabulary.div_ceil(comptime!(SAMPLERS));
        let begin = min(unit * stretch, vocabulary);
        let end = min(begin + stretch, vocabulary);
        if comptime!(choice == Choice::Some) {
            if top_k > 0 && (top_k as usize) < vocabulary {
                let wanted = f32::cast_from(top_k);
                let least = least_kept(logits, start, vocabulary, wanted, false, &mut shared);
                let above = above(logits, start, vocabulary, least + 1u32, false, &mut shared);
                drop_below(logits, start, begin, end, least, wanted - above, &mut shared);
            }
            if top_p < 1.0f32 {
                let wanted = top_p * above(logits, start, vocabulary, 1u32, true, &mut shared);
                let least = least_kept(logits, start, vocabulary, wanted, true, &mut shared);
                let above = above(logits, start, vocabulary, least + 1u32, true, &mut shared);
                let ties = max(((wanted - above) / f32::reinterpret(least)).ceil(), 1.0f32);
                drop_below(logits, start, begin, end, least, ties, &mut shared);
            }
            for at in begin..end {
                if logits[start + at] < min_p {
                    logits[start + at] = 0.0f32;
                }
            }
        }
        let mut own = 0.0f32;
        for at in begin..end {
            own += logits[start + at];
        }
        shared[unit] = own;
        sync_cube();
        let mut before = 0.0f32;
        let mut mass = 0.0f32;
        for other in 0..comptime!(SAMPLERS) {
            if other == unit {
                before = mass;
            }
            mass += shared[other];
        }
        let target = uniforms[row] * mass;
        if target >= before && target < before + own {
            let mut sum = before;
            let mut picked = f32::new(NO_TOKEN);
            let mut weight = 0.0f32;
            let mut at = begin;
            while at < end {
                let next = logits[start + at];
                if next > 0.0f32 && sum <= target {
                    picked = f32::cast_from(at as u32);
                    weight = next;
                }
                sum += next;
                at += 1;
            }
            out[result] = picked;
            out[result + 1] = (weight / mass).ln();
        }
    }
}

/// How many weights have at least the bits `least`, or what they sum up to. Of numbers that are not
/// negative, greater ones have greater bits.
#[cube]
fn above(
    weights: &mut Tensor<f32>,
    start: usize,
    vocabulary: usize,
    least: u32,
    #[comptime] mass: bool,
    shared: &mut Shared<[f32]>,
) -> f32 {
    let mut own = 0.0f32;
    let mut at = UNIT_POS as usize;
    while at < vocabulary {
        let weight = weights[start + at];
        if u32::reinterpret(weight) >= least {
            if comptime!(mass) {
                own += weight;
            } else {
                own += 1.0f32;
            }
        }
        at += comptime!(SAMPLERS);
    }
    total(own, shared)
}

/// The bits of the greatest weight such that those not below it are as many, or have as much mass,
/// as `wanted`: two bits after the other, so that nothing is sorted.
#[cube]
fn least_kept(
    weights: &mut Tensor<f32>,
    start: usize,
    vocabulary: usize,
    wanted: f32,
    #[comptime] mass: bool,
    shared: &mut Shared<[f32]>,
) -> u32 {
    let mut least = 0u32;
    // Weights are at most 1; its bits are below 2^30.
    let mut bit = 268_435_456u32;
    while bit > 0u32 {
        let mut one = 0.0f32;
        let mut two = 0.0f32;
        let mut three = 0.0f32;
        let mut at = UNIT_POS as usize;
        while at < vocabulary {
            let weight = weights[start + at];
            let bits = u32::reinterpret(weight);
            let mut counted = weight;
            if comptime!(!mass) {
                counted = 1.0f32;
            }
            if bits >= least + bit {
                one += counted;
            }
            if bits >= least + 2u32 * bit {
                two += counted;
            }
            if bits >= least + 3u32 * bit {
                three += counted;
            }
            at += comptime!(SAMPLERS);
        }
        if total(three, shared) >= wanted {
            least += 3u32 * bit;
        } else if total(two, shared) >= wanted {
            least += 2u32 * bit;
        } else if total(one, shared) >= wanted {
            least += bit;
        }
        bit >>= 2u32;
    }
    least
}

/// Makes the weights of a unit's stretch 0 that are below `least`, and of those that equal it all
/// but the first `ties` of the vocabulary.
#[cube]
fn drop_below(weights: &mut Tensor<f32>, start: usize, begin: usize, end: usize, least: u32, ties: f32, shared: &mut Shared<[f32]>) {
    let unit = UNIT_POS as usize;
    let mut own = 0.0f32;
    for at in begin..end {
        if u32::reinterpret(weights[start + at]) == least {
            own += 1.0f32;
        }
    }
    shared[unit] = own;
    sync_cube();
    let mut tie = 0.0f32;
    for other in 0..unit {
        tie += shared[other];
    }
    for at in begin..end {
        let bits = u32::reinterpret(weights[start + at]);
        if bits < least {
            weights[start + at] = 0.0f32;
        }
        if bits == least {
            tie += 1.0f32;
            if tie > ties {
                weights[start + at] = 0.0f32;
            }
        }
    }
    sync_cube();
}
