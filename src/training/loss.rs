//! The losses and what is reported beside them, as plain arithmetic on sequence logprobs.
//!
//! Knows nothing of tensors, models or optimizers: a loss returns its value and its derivative by each logprob, and
//! its caller carries that derivative back into the weights.

/// The logprobs of one batch of pairs, all sums over response tokens in nats, one entry a pair.
#[derive(Clone, Copy, Debug)]
pub struct PairLogprobs<'a> {
    /// log π(chosen | prompt) under the policy in training.
    pub policy_chosen: &'a [f64],
    /// log π(rejected | prompt) under the policy in training.
    pub policy_rejected: &'a [f64],
    /// log π_ref(chosen | prompt) under the reference.
    pub reference_chosen: &'a [f64],
    /// log π_ref(rejected | prompt) under the reference.
    pub reference_rejected: &'a [f64],
}

/// What [`weighted_dpo`] found on some pairs: sums over them, so that micro-batches of any size add up to their batch.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct PreferenceLoss {
    /// Σ −w · log σ(β·Δ), nats.
    pub loss: f64,
    /// Σ β·Δ, the margin of the implicit reward.
    pub reward_margin: f64,
    /// How many pairs have Δ > 0.
    pub correct_count: usize,
    /// Σ log π(chosen), nats.
    pub logprob_chosen: f64,
    /// Σ log π(rejected), nats.
    pub logprob_rejected: f64,
    /// Σ over pairs of the mean over both responses of log π_ref − log π, nats a response; see [`weighted_dpo`].
    pub kl: f64,
    /// ∂loss/∂log π(chosen), one entry a pair; ∂loss/∂log π(rejected) is its negative.
    pub derivative: Vec<f64>,
}

impl PreferenceLoss {
    /// Adds the sums of other pairs, whose derivatives follow this one's.
    pub fn add(&mut self, other: &Self) {
        self.loss += other.loss;
        self.reward_margin += other.reward_margin;
        self.correct_count += other.correct_count;
        self.logprob_chosen += other.logprob_chosen;
        self.logprob_rejected += other.logprob_rejected;
        self.kl += other.kl;
        self.derivative.extend(&other.derivative);
    }
}

/// Gap-weighted direct preference optimization.
///
/// ```text
/// Δ    = [log π(chosen) − log π_ref(chosen)] − [log π(rejected) − log π_ref(rejected)]
/// loss = −w · log σ(β·Δ)
/// ∂loss/∂log π(chosen) = −w · β · σ(−β·Δ) = −∂loss/∂log π(rejected)
/// ```
///
/// w = 1 is the sigmoid loss of DPO (Rafailov et al. 2023, arXiv 2305.18290, equation 7); w from the reward gap is OPTune's
/// (arXiv 2406.07657). β·Δ is the implicit reward margin, Δ > 0 means the pair is ranked as the reward ranks it.
///
/// `kl` is the k1 estimate of KL(reference ‖ policy), the mean of log π_ref − log π over both responses: unbiased when the pair's
/// two responses are all that was sampled, and sampled from the reference; a drift indicator otherwise. It can be negative.
///
/// All slices have one entry a pair; the shortest one decides how many pairs there are. The sums are over pairs: divide by their
/// number for the batch mean that is minimised.
pub fn weighted_dpo(logprobs: PairLogprobs<'_>, weights: &[f64], beta: f64) -> PreferenceLoss {
    let policy = logprobs.policy_chosen.iter().zip(logprobs.policy_rejected);
    let reference = logprobs.reference_chosen.iter().zip(logprobs.reference_rejected);
    let mut sum = PreferenceLoss::default();
    for ((policy, reference), &weight) in policy.zip(reference).zip(weights) {
        let (chosen, rejected) = (policy.0 - reference.0, policy.1 - reference.1);
        let margin = beta * (chosen - rejected);
        sum.loss -= weight * log_sigmoid(margin);
        sum.reward_margin += margin;
        sum.correct_count += usize::from(margin > 0.0);
        sum.logprob_chosen += policy.0;
        sum.logprob_rejected += policy.1;
        sum.kl -= (chosen + rejected) / 2.0;
        sum.derivative.push(-weight * beta * log_sigmoid(-margin).exp());
    }
    sum
}

/// What [`bradley_terry`] found on some comparisons: sums over them, so that micro-batches of any size add up to their batch.
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
    /// Adds the sums of other comparisons, whose derivatives follow this one's.
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
/// The first term is the negative log-likelihood of the preferences under the model of Bradley and Terry (1952), as reward models are
/// trained since Ouyang et al. 2022 (arXiv 2203.02155, equation 1); the margin is that of Llama 2 (arXiv 2307.09288, equation 2). The second
/// one, with c = `centering`, keeps the rewards, which the first leaves free to shift, around 0 (Eisenstein et al. 2023, arXiv 2312.09244).
/// TRL's RewardTrainer has the same three.
///
/// All slices have one entry a comparison; the shortest one decides how many there are. The sums are over comparisons: divide by their
/// number for the batch mean that is minimised.
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

    fn pair(chosen: f64) -> PreferenceLoss {
        let logprobs =
            PairLogprobs { policy_chosen: &[chosen], policy_rejected: &[-4.0], reference_chosen: &[-3.5], reference_rejected: &[-5.0] };
        weighted_dpo(logprobs, &[1.5], 0.3)
    }

    #[test]
    fn the_derivative_is_that_of_the_loss() {
        let step = 1e-6;
        let numeric = (pair(-3.0 + step).loss - pair(-3.0 - step).loss) / (2.0 * step);
        let [derivative] = pair(-3.0).derivative[..] else { panic!("one pair, one derivative") };
        assert!((derivative - numeric).abs() < 1e-9, "{derivative} against {numeric}");
    }

    #[test]
    fn the_metrics_are_those_of_the_pair() {
        let pair = pair(-3.0);
        // Δ = (−3 + 3.5) − (−4 + 5) = −0.5, and both responses became more likely: by 0.5 and 1.
        assert!((pair.reward_margin - 0.3 * -0.5).abs() < 1e-15);
        assert_eq!(pair.correct_count, 0);
        assert_eq!(pair.kl, -0.75);
        assert!((pair.loss - 1.5 * (1.0 + 0.15_f64.exp()).ln()).abs() < 1e-12);
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
    fn a_policy_equal_to_its_reference_loses_ln_2_times_the_weight() {
        let logprobs = PairLogprobs {
            policy_chosen: &[-7.0, -300.0],
            policy_rejected: &[-9.0, -1.0],
            reference_chosen: &[-7.0, -300.0],
            reference_rejected: &[-9.0, -1.0],
        };
        let sum = weighted_dpo(logprobs, &[0.25, 2.0], 0.1);
        assert_eq!(sum.loss, 2.25 * std::f64::consts::LN_2);
        assert_eq!((sum.reward_margin, sum.correct_count, sum.kl), (0.0, 0, 0.0));
    }
}
