//! Win rates of a policy against a baseline from a judge's verdicts: win score, win rate,
//! length-controlled win rate and position bias, each with a bootstrap interval over prompts.
//!
//! Knows numbers only: no tables, no texts, no judge.

mod length_control;

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};

pub use length_control::{Compared, LengthControl};

/// How often prompts are drawn again for an interval.
const RESAMPLES: usize = 1000;

/// The name of the draw: the same verdicts always have the same intervals.
const DRAW: &str = "win rates";

/// A response of the policy beside one of the baseline, with the judge's verdict on both orders.
#[derive(Clone, Debug, PartialEq)]
pub struct Judged {
    /// The prompt. The pairs of one prompt are neighbours.
    pub prompt: String,
    /// The verdict with the policy's response first: 1 for the policy, 0.5 for a tie, 0 for the
    /// baseline. None without a verdict.
    pub policy_first: Option<f64>,
    /// The verdict with the baseline's response first.
    pub baseline_first: Option<f64>,
    /// Whether the judge was asked. Equal texts are a tie without a question.
    pub asked: bool,
    /// Characters of the policy's response.
    pub length: f64,
    /// Characters of the baseline's response.
    pub baseline_length: f64,
}

/// An estimate in percent, with the middle 95 % of the estimates from prompts drawn again.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Estimate {
    /// The estimate.
    pub value: f64,
    /// The 2.5 % quantile.
    pub low: f64,
    /// The 97.5 % quantile.
    pub high: f64,
}

/// The figures of one comparison.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Figures {
    /// Prompts with a pair that has both verdicts.
    pub prompts: usize,
    /// Pairs with both verdicts.
    pub pairs: usize,
    /// Pairs without one of them.
    pub unjudged: usize,
    /// The mean over prompts, a tie counted as half a win.
    pub win_score: Estimate,
    /// The mean over prompts, a tie counted as no win.
    pub win_rate: Estimate,
    /// The win score for responses of equal length. None below five pairs.
    pub length_controlled: Option<Estimate>,
    /// The share of asked pairs whose two verdicts disagree. None if no pair was asked.
    pub position_bias: Option<Estimate>,
    /// The share of verdicts for the first response, among verdicts for one of both. Without a
    /// bias it is 50. None if every verdict is a tie.
    pub first_preferred: Option<f64>,
}

impl Judged {
    /// The pair's outcome: the verdict of both orders if they agree, else a tie. None without both.
    pub fn preference(&self) -> Option<f64> {
        let (one, other) = (self.policy_first?, self.baseline_first?);
        Some(if one == other { one } else { 0.5 })
    }

    fn disagrees(&self) -> bool {
        self.asked && self.policy_first != self.baseline_first
    }
}

impl Figures {
    /// The figures of these pairs; `None` without a pair that has both verdicts.
    pub fn of(pairs: &[Judged]) -> Option<Self> {
        let judged: Vec<(&Judged, f64)> = pairs.iter().filter_map(|pair| Some((pair, pair.preference()?))).collect();
        let prompts: Vec<&[(&Judged, f64)]> = judged.chunk_by(|one, other| one.0.prompt == other.0.prompt).collect();
        if prompts.is_empty() {
            return None;
        }
        let mean_over_prompts = |value: fn(f64) -> f64| {
            let means: Vec<f64> = prompts
                .iter()
                .map(|pairs| pairs.iter().map(|(_, preference)| value(*preference)).sum::<f64>() / pairs.len() as f64)
                .collect();
            estimate(prompts.len(), |drawn| {
                let sum: f64 = drawn.iter().filter_map(|prompt| means.get(*prompt)).sum();
                Some(100.0 * sum / drawn.len() as f64)
            })
        };
        let win_score = mean_over_prompts(|preference| preference)?;
        let win_rate = mean_over_prompts(|preference| if preference == 1.0 { 1.0 } else { 0.0 })?;
        let position_bias = estimate(prompts.len(), |drawn| {
            let asked =
                drawn.iter().filter_map(|prompt| prompts.get(*prompt)).flat_map(|pairs| pairs.iter()).filter(|(pair, _)| pair.asked);
            let (mut all, mut disagreeing) = (0.0, 0.0);
            for (pair, _) in asked {
                all += 1.0;
                disagreeing += f64::from(u8::from(pair.disagrees()));
            }
            (all > 0.0).then(|| 100.0 * disagreeing / all)
        });
        let length_controlled = length_controlled(&prompts);
        Some(Self {
            prompts: prompts.len(),
            pairs: judged.len(),
            unjudged: pairs.len() - judged.len(),
            win_score,
            win_rate,
            length_controlled,
            position_bias,
            first_preferred: first_preferred(&judged),
        })
    }
}

/// The length-controlled win rate of prompts with their pairs.
fn length_controlled(prompts: &[&[(&Judged, f64)]]) -> Option<Estimate> {
    let compared = |pairs: &&[(&Judged, f64)]| -> Vec<Compared> {
        let pair = |(pair, preference): &(&Judged, f64)| Compared {
            preference: *preference,
            length: pair.length,
            baseline_length: pair.baseline_length,
        };
        pairs.iter().map(pair).collect()
    };
    let compared: Vec<Vec<Compared>> = prompts.iter().map(compared).collect();
    let all: Vec<Compared> = compared.iter().flatten().copied().collect();
    let fitted = LengthControl::fit(&all)?;
    // The strength of the regularization stays the chosen one in every draw.
    let drawn = |drawn: &[usize]| {
        let rows: Vec<Compared> = drawn.iter().filter_map(|prompt| compared.get(*prompt)).flatten().copied().collect();
        Some(100.0 * LengthControl::fit_with(&rows, fitted.strength).win_rate())
    };
    estimate(prompts.len(), drawn).map(|estimate| Estimate { value: 100.0 * fitted.win_rate(), ..estimate })
}

/// The share of verdicts for the first response, in percent.
fn first_preferred(judged: &[(&Judged, f64)]) -> Option<f64> {
    let (mut first, mut decided) = (0.0, 0.0);
    for (pair, _) in judged.iter().filter(|(pair, _)| pair.asked) {
        for (verdict, of_first) in [(pair.policy_first, 1.0), (pair.baseline_first, 0.0)] {
            let Some(verdict) = verdict.filter(|verdict| *verdict != 0.5) else { continue };
            decided += 1.0;
            first += f64::from(u8::from(verdict == of_first));
        }
    }
    (decided > 0.0).then(|| 100.0 * first / decided)
}

/// The statistic of all prompts with the percentile bootstrap (Efron, 1979) over them.
fn estimate(prompts: usize, statistic: impl Fn(&[usize]) -> Option<f64>) -> Option<Estimate> {
    let all: Vec<usize> = (0..prompts).collect();
    let value = statistic(&all)?;
    if prompts < 2 {
        return Some(Estimate { value, low: value, high: value });
    }
    let mut random = ChaCha8Rng::from_seed(*blake3::hash(DRAW.as_bytes()).as_bytes());
    let mut drawn = all;
    let mut found = Vec::with_capacity(RESAMPLES);
    for _ in 0..RESAMPLES {
        for index in &mut drawn {
            // The high half of a product is below `prompts`.
            *index = ((u128::from(random.next_u64()) * prompts as u128) >> 64) as usize;
        }
        found.extend(statistic(&drawn));
    }
    found.sort_by(f64::total_cmp);
    Some(Estimate { value, low: quantile(&found, 0.025).unwrap_or(value), high: quantile(&found, 0.975).unwrap_or(value) })
}

/// A quantile of sorted values, by linear interpolation.
fn quantile(sorted: &[f64], share: f64) -> Option<f64> {
    let place = share * sorted.len().checked_sub(1)? as f64;
    let low = *sorted.get(place.floor() as usize)?;
    let high = *sorted.get(place.ceil() as usize)?;
    Some(low + (high - low) * place.fract())
}

#[cfg(test)]
mod tests {
    use super::{Figures, Judged};

    fn judged(prompt: &str, verdicts: [f64; 2]) -> Judged {
        Judged {
            prompt: prompt.to_string(),
            policy_first: Some(verdicts[0]),
            baseline_first: Some(verdicts[1]),
            asked: true,
            length: 1.0,
            baseline_length: 1.0,
        }
    }

    #[test]
    fn disagreement_is_a_tie_and_position_bias() {
        // Two wins, one loss, and one judge that takes whatever comes first.
        let mut pairs = vec![judged("a", [1.0, 1.0]), judged("b", [1.0, 1.0]), judged("c", [0.0, 0.0]), judged("d", [1.0, 0.0])];
        pairs.push(Judged { baseline_first: None, ..judged("e", [1.0, 0.0]) });
        let figures = Figures::of(&pairs).unwrap();
        assert_eq!((figures.prompts, figures.pairs, figures.unjudged), (4, 4, 1));
        assert_eq!(figures.win_score.value, 62.5);
        assert_eq!(figures.win_rate.value, 50.0);
        assert_eq!(figures.position_bias.map(|bias| bias.value), Some(25.0));
        // First: a, c, d twice of eight verdicts, b once.
        assert_eq!(figures.first_preferred, Some(62.5));
        assert_eq!(figures.length_controlled, None);
        assert!(figures.win_score.low < 62.5 && figures.win_score.high > 62.5);
    }

    #[test]
    fn pairs_of_one_prompt_count_as_one() {
        let pairs = [judged("a", [1.0, 1.0]), judged("a", [1.0, 1.0]), judged("a", [1.0, 1.0]), judged("b", [0.0, 0.0])];
        assert_eq!(Figures::of(&pairs).unwrap().win_score.value, 50.0);
        assert_eq!(Figures::of(&[]), None);
    }
}
