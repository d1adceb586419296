//! The losses and their metrics, as plain arithmetic on sequence logprobs.
//!
//! Knows nothing of tensors, models or optimizers: a loss returns its value and its derivative by
//! each logprob, and its caller carries the derivative back into the weights.

/// A pair as its loss sees it: logprobs are sums over response tokens, in nats.
#[derive(Clone, Copy, Debug)]
pub struct PairLogprobs {
    /// log π(chosen | prompt) under the policy in training.
    pub policy_chosen: f64,
    /// log π(rejected | prompt) under the policy in training.
    pub policy_rejected: f64,
    /// log π_ref(chosen | prompt) under the reference.
    pub reference_chosen: f64,
    /// log π_ref(rejected | prompt) under the reference.
    pub reference_rejected: f64,
    /// |chosen|: its response tokens.
    pub chosen_tokens: usize,
    /// |rejected|: its response tokens.
    pub rejected_tokens: usize,
    /// The chosen response's reward less the rejected one's.
    pub reward_gap: f64,
}

impl PairLogprobs {
    /// Δ = [log π(chosen) − log π_ref(chosen)] − [log π(rejected) − log π_ref(rejected)], nats.
    fn log_ratio(&self) -> f64 {
        (self.policy_chosen - self.reference_chosen) - (self.policy_rejected - self.reference_rejected)
    }

    /// The [`PairLoss`] of a loss of β·Δ, given its derivative by β·Δ.
    fn of_log_ratio(&self, beta: f64, loss: f64, slope: f64) -> PairLoss {
        let margin = beta * self.log_ratio();
        PairLoss { loss, margin, by_chosen: slope * beta, by_rejected: -slope * beta }
    }

    /// 1/|chosen| and 1/|rejected|; an empty response counts as one token.
    fn per_token(&self) -> [f64; 2] {
        [self.chosen_tokens, self.rejected_tokens].map(|tokens| 1.0 / tokens.max(1) as f64)
    }
}

/// The loss of one pair.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct PairLoss {
    /// The loss, nats where it is a likelihood.
    pub loss: f64,
    /// The margin of the implicit reward; above 0 the pair is ranked as the reward ranks it.
    pub margin: f64,
    /// ∂loss/∂log π(chosen).
    pub by_chosen: f64,
    /// ∂loss/∂log π(rejected).
    pub by_rejected: f64,
}

/// A loss on preference pairs, with its parameters.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Loss {
    /// [`dpo`].
    Dpo {
        /// β.
        beta: f64,
    },
    /// [`ipo`].
    Ipo {
        /// τ.
        beta: f64,
    },
    /// [`hinge`].
    Hinge {
        /// β.
        beta: f64,
    },
    /// [`robust`].
    Robust {
        /// β.
        beta: f64,
        /// ε: the share of pairs with swapped labels.
        label_smoothing: f64,
    },
    /// [`simpo`].
    Simpo {
        /// β.
        beta: f64,
        /// γ.
        gamma: f64,
    },
    /// [`rebel`].
    Rebel {
        /// 1/η.
        beta: f64,
    },
    /// [`rpo`].
    Rpo {
        /// β.
        beta: f64,
        /// η.
        gap_scale: f64,
    },
}

impl Loss {
    /// The loss of one pair.
    pub fn of(&self, pair: &PairLogprobs) -> PairLoss {
        match *self {
            Self::Dpo { beta } => dpo(pair, beta),
            Self::Ipo { beta } => ipo(pair, beta),
            Self::Hinge { beta } => hinge(pair, beta),
            Self::Robust { beta, label_smoothing } => robust(pair, beta, label_smoothing),
            Self::Simpo { beta, gamma } => simpo(pair, beta, gamma),
            Self::Rebel { beta } => rebel(pair, beta),
            Self::Rpo { beta, gap_scale } => rpo(pair, beta, gap_scale),
        }
    }
}

/// Weighted preference optimization (arXiv 2406.11827, equation 2, with sampled alignment): a pair
/// counts as much as the policy in training would write both of its responses itself, so that pairs
/// of an older policy are nearly as good as its own.
///
/// w = min(clip, exp(a(chosen) + a(rejected))) with a(y) = 1/|y| Σ_t [log π(y_t) − log Σ_v π(v)²],
/// π given the prompt and y before t. No gradient goes through w. TRL's DPOTrainer has it as
/// `use_weighting`, without a clip; the paper's own code clips at 1.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Wpo {
    /// The largest weight; none leaves them as they are.
    pub clip: Option<f64>,
}

impl Wpo {
    /// The weight of a pair, of whose chosen and rejected responses `collisions` are Σ_t log Σ_v
    /// π(v)², nats.
    pub fn weight(self, pair: &PairLogprobs, collisions: [f64; 2]) -> f64 {
        let [per_chosen, per_rejected] = pair.per_token();
        let aligned = (pair.policy_chosen - collisions[0]) * per_chosen + (pair.policy_rejected - collisions[1]) * per_rejected;
        self.clip.map_or(aligned.exp(), |clip| aligned.exp().min(clip))
    }
}

/// Optimism (SELM, Zhang et al. 2024, arXiv 2405.19332): the loss also lowers the implicit reward
/// of the reference's own responses, so that probability moves to responses seen less often.
///
/// ```text
/// loss + α·β·[log π(y) − log π_ref(y)],  y from the reference
/// ```
///
/// The expectation over y is the mean of both responses of the pair: they are the samples of the
/// loop. The authors' code has one response of the reference a prompt, and the loss [`dpo`].
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Optimism {
    /// α.
    pub alpha: f64,
    /// β of the loss.
    pub beta: f64,
}

impl Optimism {
    /// The loss of a pair with the optimistic term. The margin stays.
    pub fn added_to(self, found: PairLoss, pair: &PairLogprobs) -> PairLoss {
        let scale = self.alpha * self.beta / 2.0;
        let log_ratios = (pair.policy_chosen - pair.reference_chosen) + (pair.policy_rejected - pair.reference_rejected);
        PairLoss {
            loss: found.loss + scale * log_ratios,
            margin: found.margin,
            by_chosen: found.by_chosen + scale,
            by_rejected: found.by_rejected + scale,
        }
    }
}

/// Direct preference optimization.
///
/// ```text
/// loss = −log σ(β·Δ)
/// ∂loss/∂(β·Δ) = −σ(−β·Δ)
/// ```
///
/// Rafailov et al. 2023, arXiv 2305.18290, equation 7; TRL's `sigmoid`. β·Δ is the margin.
pub fn dpo(pair: &PairLogprobs, beta: f64) -> PairLoss {
    let margin = beta * pair.log_ratio();
    pair.of_log_ratio(beta, -log_sigmoid(margin), -log_sigmoid(-margin).exp())
}

/// Identity preference optimization: the log ratio a token is drawn to 1/2τ, and not on to
/// infinity.
///
/// ```text
/// h    = [log π(chosen) − log π_ref(chosen)] / |chosen| − [log π(rejected) − log π_ref(rejected)] / |rejected|
/// loss = (h − 1/(2τ))²
/// ```
///
/// Azar et al. 2023, arXiv 2310.12036, equation 17, with τ = `beta`; log ratios are divided by the
/// responses' lengths, as in TRL's `ipo`, on the word of the paper's authors. The margin is τ·Δ,
/// without the lengths, as TRL logs it.
pub fn ipo(pair: &PairLogprobs, beta: f64) -> PairLoss {
    let [chosen, rejected] = pair.per_token();
    let h = (pair.policy_chosen - pair.reference_chosen) * chosen - (pair.policy_rejected - pair.reference_rejected) * rejected;
    let distance = h - 1.0 / (2.0 * beta);
    let margin = beta * pair.log_ratio();
    PairLoss { loss: distance * distance, margin, by_chosen: 2.0 * distance * chosen, by_rejected: -2.0 * distance * rejected }
}

/// The hinge loss on the margin: a pair ranked right by 1 counts no more.
///
/// ```text
/// loss = max(0, 1 − β·Δ)
/// ```
///
/// SLiC (Zhao et al. 2023, arXiv 2305.10425) on DPO's log ratios, as in RSO (Liu et al. 2023, arXiv
/// 2309.06657, equation 9) and TRL's `hinge`.
pub fn hinge(pair: &PairLogprobs, beta: f64) -> PairLoss {
    let short_of = 1.0 - beta * pair.log_ratio();
    pair.of_log_ratio(beta, short_of.max(0.0), if short_of > 0.0 { -1.0 } else { 0.0 })
}

/// DPO where a share ε of pairs is the wrong way round: unbiased for that noise.
///
/// ```text
/// loss = [−(1 − ε)·log σ(β·Δ) + ε·log σ(−β·Δ)] / (1 − 2ε)
/// ∂loss/∂(β·Δ) = −[(1 − ε)·σ(−β·Δ) + ε·σ(β·Δ)] / (1 − 2ε)
/// ```
///
/// Chowdhury et al. 2024, arXiv 2403.00409, equation 12, with ε = `label_smoothing` below 1/2;
/// TRL's `robust`.
pub fn robust(pair: &PairLogprobs, beta: f64, label_smoothing: f64) -> PairLoss {
    let (margin, scale) = (beta * pair.log_ratio(), 1.0 - 2.0 * label_smoothing);
    let loss = (label_smoothing * log_sigmoid(-margin) - (1.0 - label_smoothing) * log_sigmoid(margin)) / scale;
    let slope = -((1.0 - label_smoothing) * log_sigmoid(-margin).exp() + label_smoothing * log_sigmoid(margin).exp()) / scale;
    pair.of_log_ratio(beta, loss, slope)
}

/// Simple preference optimization: the logprob a token, without a reference.
///
/// ```text
/// m    = β·log π(chosen) / |chosen| − β·log π(rejected) / |rejected|
/// loss = −log σ(m − γ)
/// ```
///
/// Meng et al. 2024, arXiv 2405.14734, equation 6; TRL's `simpo`. m is the margin.
pub fn simpo(pair: &PairLogprobs, beta: f64, gamma: f64) -> PairLoss {
    let [chosen, rejected] = pair.per_token();
    let margin = beta * (pair.policy_chosen * chosen - pair.policy_rejected * rejected);
    let slope = -log_sigmoid(gamma - margin).exp() * beta;
    PairLoss { loss: -log_sigmoid(margin - gamma), margin, by_chosen: slope * chosen, by_rejected: -slope * rejected }
}

/// Regression to relative rewards: the margin is to be the reward gap, neither less nor more.
///
/// ```text
/// loss = (β·Δ − reward_gap)²
/// ```
///
/// Gao et al. 2024, arXiv 2404.16767, equation 4, with β = 1/η and the reference being the policy
/// of the last iteration.
pub fn rebel(pair: &PairLogprobs, beta: f64) -> PairLoss {
    let distance = beta * pair.log_ratio() - pair.reward_gap;
    pair.of_log_ratio(beta, distance * distance, 2.0 * distance)
}

/// Reward-aware preference optimization: the policy's preference is to be as sure as the rewards'.
///
/// ```text
/// p    = σ(η·reward_gap),  q = σ(β·Δ)
/// loss = KL(Bernoulli(p) ‖ Bernoulli(q)) = p·log(p/q) + (1 − p)·log((1 − p)/(1 − q))
/// ∂loss/∂(β·Δ) = q − p
/// ```
///
/// Nemotron-4 340B (arXiv 2406.11704, section 3.3.3) with η = `gap_scale`; the backward KL of Sun
/// et al. 2025 (arXiv 2502.00203), `rpo_bwd_kl` in NVIDIA's NeMo. TRL's `rpo_alpha` is another
/// method.
pub fn rpo(pair: &PairLogprobs, beta: f64, gap_scale: f64) -> PairLoss {
    let (margin, target) = (beta * pair.log_ratio(), gap_scale * pair.reward_gap);
    let preferred = log_sigmoid(target).exp() * (log_sigmoid(target) - log_sigmoid(margin));
    let reversed = log_sigmoid(-target).exp() * (log_sigmoid(-target) - log_sigmoid(-margin));
    // q − p, from 1 − p and 1 − q: both are small where both preferences are sure.
    let slope = log_sigmoid(-target).exp() - log_sigmoid(-margin).exp();
    pair.of_log_ratio(beta, preferred + reversed, slope)
}

/// The results of a [`Loss`] on some pairs, as sums: micro-batches of any size add up to their
/// batch.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct PreferenceLoss {
    /// Σ w · loss.
    pub loss: f64,
    /// Σ margin.
    pub reward_margin: f64,
    /// How many margins are above 0.
    pub correct_count: usize,
    /// Σ log π(chosen), nats.
    pub logprob_chosen: f64,
    /// Σ log π(rejected), nats.
    pub logprob_rejected: f64,
    /// Σ over pairs of the mean over both responses of log π_ref − log π, nats a response: the k1
    /// estimate of KL(reference ‖ policy), unbiased when the pair's two responses are all that was
    /// sampled, and sampled from the reference; a drift indicator otherwise. It can be negative.
    pub kl: f64,
    /// ∂loss/∂log π(chosen) and ∂loss/∂log π(rejected) of each pair.
    pub derivatives: Vec<[f64; 2]>,
}

impl PreferenceLoss {
    /// Adds a pair that counts `weight` times: w from the reward gap is OPTune's (arXiv
    /// 2406.07657).
    pub fn add_pair(&mut self, pair: &PairLogprobs, found: PairLoss, weight: f64) {
        self.loss += weight * found.loss;
        self.reward_margin += found.margin;
        self.correct_count += usize::from(found.margin > 0.0);
        self.logprob_chosen += pair.policy_chosen;
        self.logprob_rejected += pair.policy_rejected;
        self.kl -= ((pair.policy_chosen - pair.reference_chosen) + (pair.policy_rejected - pair.reference_rejected)) / 2.0;
        self.derivatives.push([weight * found.by_chosen, weight * found.by_rejected]);
    }

    /// Adds the sums of other pairs. Their derivatives are appended.
    pub fn add(&mut self, other: &Self) {
        self.loss += other.loss;
        self.reward_margin += other.reward_margin;
        self.correct_count += other.correct_count;
        self.logprob_chosen += other.logprob_chosen;
        self.logprob_rejected += other.logprob_rejected;
        self.kl += other.kl;
        self.derivatives.extend(&other.derivatives);
    }
}

/// The results of [`bradley_terry`] on some comparisons, as sums: micro-batches of any size add up
/// to their batch.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct RankingLoss {
    /// Σ −log σ(difference − margin), and what centering adds.
    pub loss: f64,
    /// Σ of the differences.
    pub reward_margin: f64,
    /// How many differences are above 0.
    pub correct_count: usize,
    /// ∂loss/∂reward of the chosen response, one entry a comparison.
    pub derivative_chosen: Vec<f64>,
    /// ∂loss/∂reward of the rejected response.
    pub derivative_rejected: Vec<f64>,
}

impl RankingLoss {
    /// Adds the sums of other comparisons. Their derivatives are appended.
    pub fn add(&mut self, other: &Self) {
        self.loss += other.loss;
        self.reward_margin += other.reward_margin;
        self.correct_count += other.correct_count;
        self.derivative_chosen.extend(&other.derivative_chosen);
        self.derivative_rejected.extend(&other.derivative_rejected);
    }
}

/// The loss of a reward model on comparisons.
///
/// ```text
/// d    = r(chosen) − r(rejected)
/// loss = −log σ(d − margin) + c · (r(chosen) + r(rejected))²
/// ∂loss/∂r(chosen)   = −σ(margin − d) + 2·c·(r(chosen) + r(rejected))
/// ∂loss/∂r(rejected) =  σ(margin − d) + 2·c·(r(chosen) + r(rejected))
/// ```
///
/// The first term is the negative log-likelihood of the preferences under the model of Bradley and
/// Terry (1952), as reward models are trained since Ouyang et al. 2022 (arXiv 2203.02155, equation
/// 1); the margin is that of Llama 2 (arXiv 2307.09288, equation 2). The second one, with c =
/// `centering`, keeps the rewards, which the first leaves free to shift, around 0 (Eisenstein et
/// al. 2023, arXiv 2312.09244). TRL's RewardTrainer has the same three.
///
/// All slices have one entry a comparison; the shortest one decides how many there are. The sums
/// are over comparisons: divide by their number for the batch mean that is minimised.
pub fn bradley_terry(chosen: &[f64], rejected: &[f64], margins: &[f64], centering: Option<f64>) -> RankingLoss {
    let mut sum = RankingLoss::default();
    for ((chosen, rejected), margin) in chosen.iter().zip(rejected).zip(margins) {
        let (difference, centre) = (chosen - rejected, chosen + rejected);
        let coefficient = centering.unwrap_or(0.0);
        let slope = log_sigmoid(margin - difference).exp();
        sum.loss += coefficient * centre * centre - log_sigmoid(difference - margin);
        sum.reward_margin += difference;
        sum.correct_count += usize::from(difference > 0.0);
        sum.derivative_chosen.push(2.0 * coefficient * centre - slope);
        sum.derivative_rejected.push(2.0 * coefficient * centre + slope);
    }
    sum
}

/// log σ(x) = −log(1 + e^−x), without overflow for any finite `x`.
pub fn log_sigmoid(x: f64) -> f64 {
    x.min(0.0) - (-x.abs()).exp().ln_1p()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn log_sigmoid_is_exact_at_both_ends() {
        assert_eq!(log_sigmoid(0.0), -std::f64::consts::LN_2);
        assert_eq!(log_sigmoid(-1e300), -1e300);
        assert_eq!(log_sigmoid(1e300), 0.0);
        assert!((log_sigmoid(40.0) + (-40.0_f64).exp()).abs() < 1e-30);
        assert!((log_sigmoid(2.0) - (1.0 / (1.0 + (-2.0_f64).exp())).ln()).abs() < 1e-15);
    }

    fn pair(policy_chosen: f64, policy_rejected: f64) -> PairLogprobs {
        PairLogprobs {
            policy_chosen,
            policy_rejected,
            reference_chosen: -3.5,
            reference_rejected: -5.0,
            chosen_tokens: 4,
            rejected_tokens: 7,
            reward_gap: 1.25,
        }
    }

    const LOSSES: [Loss; 7] = [
        Loss::Dpo { beta: 0.3 },
        Loss::Ipo { beta: 0.3 },
        Loss::Hinge { beta: 0.3 },
        Loss::Robust { beta: 0.3, label_smoothing: 0.2 },
        Loss::Simpo { beta: 2.0, gamma: 0.5 },
        Loss::Rebel { beta: 0.3 },
        Loss::Rpo { beta: 0.3, gap_scale: 0.8 },
    ];

    #[test]
    fn derivatives_are_those_of_the_losses() {
        let step = 1e-6;
        let optimisms = [None, Some(Optimism { alpha: 0.4, beta: 0.3 })];
        for (loss, optimism) in LOSSES.into_iter().flat_map(|loss| optimisms.map(|optimism| (loss, optimism))) {
            let of = |pair: &PairLogprobs| optimism.map_or(loss.of(pair), |optimism| optimism.added_to(loss.of(pair), pair));
            for (chosen, rejected) in [(-3.0, -4.0), (-1.0, -9.0), (-12.0, -2.0)] {
                let found = of(&pair(chosen, rejected));
                let at = |chosen: f64, rejected: f64| of(&pair(chosen, rejected)).loss;
                let by_chosen = (at(chosen + step, rejected) - at(chosen - step, rejected)) / (2.0 * step);
                let by_rejected = (at(chosen, rejected + step) - at(chosen, rejected - step)) / (2.0 * step);
                assert!((found.by_chosen - by_chosen).abs() < 1e-7, "{loss:?}: {found:?} against {by_chosen}");
                assert!((found.by_rejected - by_rejected).abs() < 1e-7, "{loss:?}: {found:?} against {by_rejected}");
            }
        }
    }

    #[test]
    fn the_metrics_are_those_of_the_pair() {
        let (pair, mut sum) = (pair(-3.0, -4.0), PreferenceLoss::default());
        sum.add_pair(&pair, dpo(&pair, 0.3), 1.5);
        // Δ = (−3 + 3.5) − (−4 + 5) = −0.5, and both responses became more likely: by 0.5 and 1.
        assert!((sum.reward_margin - 0.3 * -0.5).abs() < 1e-15);
        assert_eq!(sum.correct_count, 0);
        assert_eq!(sum.kl, -0.75);
        assert!((sum.loss - 1.5 * (1.0 + 0.15_f64.exp()).ln()).abs() < 1e-12);
    }

    #[test]
    fn without_noise_robust_is_dpo_and_a_met_margin_is_no_loss() {
        let far = pair(-1.0, -30.0);
        assert_eq!(robust(&far, 0.3, 0.0), dpo(&far, 0.3));
        assert_eq!(hinge(&far, 0.3).loss, 0.0);
        assert_eq!(hinge(&far, 0.3).by_chosen, 0.0);
        let met = PairLogprobs { reward_gap: 0.3 * far.log_ratio(), ..far };
        assert_eq!(rebel(&met, 0.3).loss, 0.0);
        assert_eq!((rpo(&met, 0.3, 1.0).loss, rpo(&met, 0.3, 1.0).by_chosen), (0.0, 0.0));
        // A target that is as good as certain is DPO's.
        let certain = PairLogprobs { reward_gap: 1e3, ..pair(-3.0, -4.0) };
        assert_eq!(rpo(&certain, 0.3, 1.0), dpo(&certain, 0.3));
    }

    #[test]
    fn the_derivatives_of_a_comparison_are_those_of_its_loss() {
        let loss = |chosen: f64, rejected: f64| bradley_terry(&[chosen], &[rejected], &[0.7], Some(0.05)).loss;
        let (chosen, rejected, step) = (1.2, -0.4, 1e-6);
        let found = bradley_terry(&[chosen], &[rejected], &[0.7], Some(0.05));
        let numeric = (loss(chosen + step, rejected) - loss(chosen - step, rejected)) / (2.0 * step);
        assert!((found.derivative_chosen[0] - numeric).abs() < 1e-9, "{found:?} against {numeric}");
        let numeric = (loss(chosen, rejected + step) - loss(chosen, rejected - step)) / (2.0 * step);
        assert!((found.derivative_rejected[0] - numeric).abs() < 1e-9, "{found:?} against {numeric}");
        assert_eq!((found.correct_count, found.reward_margin), (1, 1.6));
    }

    #[test]
    fn equal_rewards_lose_ln_2() {
        let found = bradley_terry(&[3.0, -1.0], &[3.0, -1.0], &[0.0, 0.0], None);
        assert_eq!(found.loss, 2.0 * std::f64::consts::LN_2);
        assert_eq!((found.correct_count, found.reward_margin), (0, 0.0));
        assert_eq!(found.derivative_chosen, [-0.5, -0.5]);
    }

    #[test]
    fn a_policy_equal_to_its_reference_loses_ln_2() {
        for logprob in [-7.0, -300.0] {
            let pair = PairLogprobs { reference_chosen: logprob, ..pair(logprob, -5.0) };
            let found = dpo(&pair, 0.1);
            assert_eq!((found.loss, found.margin), (std::f64::consts::LN_2, 0.0));
        }
    }
}
