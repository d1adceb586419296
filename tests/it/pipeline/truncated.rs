//! Responses cut off by the length limit: in pairs.

use optune::operators::pair;
use optune::operators::support::rng::Stream;
use optune::pipeline::spec::pair::{Pair, Penalize, Truncated};
use optune::sql::{PromptGroups, Session};
use optune::tables::{FinishReason, TableKind, pairs, pool};

/// Prompt, then the rewards of its responses, with the truncated ones in the second list.
type Rewards = (&'static str, &'static [f64], &'static [usize]);

const POOL: [Rewards; 4] = [("a", &[0.9, 0.8, 0.1], &[0]), ("b", &[0.5, 0.5], &[1]), ("c", &[0.7, 0.2], &[0, 1]), ("d", &[0.3, 0.2], &[])];

/// The pairs of [`POOL`]: prompt, chosen, rejected, gap.
fn made(truncated: Truncated) -> Vec<(String, i32, i32, f64)> {
    let mut rows = Vec::new();
    for (prompt_id, rewards, cut) in POOL {
        rows.extend(rewards.iter().enumerate().map(|(index, reward)| pool::Row {
            prompt_id: prompt_id.to_string(),
            response_index: index as i32,
            sampled_iteration: 1,
            reward: *reward,
            token_count: 5,
            finish_reason: if cut.contains(&index) { FinishReason::Length } else { FinishReason::Stop },
        }));
    }
    let session = Session::new().unwrap();
    session.register_batches("pool", vec![pool::batch(&rows)]).unwrap();
    let settings = Pair { truncated, ..Pair::default() };
    let walk = pair::rows(&session, &settings, Stream { seed: 1, iteration: 1 }, PromptGroups::default).unwrap();
    let rows = walk.flat_map(|batch| pairs::rows(&TableKind::Pairs.conform(&batch.unwrap()).unwrap()).unwrap());
    rows.map(|row| (row.prompt_id, row.chosen_index, row.rejected_index, (row.reward_gap * 1e9).round() / 1e9)).collect()
}

#[test]
fn truncated_responses_count_are_penalized_or_are_in_no_pair() {
    let pair = |prompt: &str, chosen, rejected, gap| (prompt.to_string(), chosen, rejected, gap);
    let kept = made(Truncated::Keep);
    assert_eq!(kept, [pair("a", 0, 2, 0.8), pair("c", 0, 1, 0.5), pair("d", 0, 1, 0.1)]);
    assert_eq!(made(Truncated::Drop), [pair("a", 1, 2, 0.7), pair("d", 0, 1, 0.1)]);
    // 0.9 becomes 0.65, and one of two equal rewards is now the worse one.
    let lower = made(Truncated::Penalize(Penalize { by: 0.25 }));
    assert_eq!(lower, [pair("a", 1, 2, 0.7), pair("b", 0, 1, 0.25), pair("c", 0, 1, 0.5), pair("d", 0, 1, 0.1)]);
    let worst = made(Truncated::Penalize(Penalize::default()));
    assert_eq!(worst[0], pair("a", 1, 0, 0.9));
}
