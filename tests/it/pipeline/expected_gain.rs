//! The strategy `expected_gain` and budgets in tokens: against NumPy, and properties for all pools.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch, StringArray};
use arrow::compute::concat_batches;
use optune::operators::select::{self, POOL_QUERY, Quota, SelectionParameters};
use optune::operators::support::rng::Stream;
use optune::pipeline::spec::select::{ExpectedGain, Objective, Select, Strategy as By};
use optune::sql::{PromptGroups, Session};
use optune::tables::{FinishReason, TableKind, pool, selection};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};
use serde::Deserialize;

use crate::fixtures::store::Space;

/// A prompt's responses: reward and length.
type Responses = Vec<(f64, i32)>;

/// The selection from these prompts, `p000`, `p001`, ….
fn selected(prompts: &[Responses], settings: &Select) -> Vec<selection::Row> {
    let space = Space::new();
    let [session, ranking] = [0, 1].map(|_| Session::with_memory_limit(64 << 20, space.path()).unwrap());
    let id = |index: usize| format!("p{index:03}");
    let ids: ArrayRef = Arc::new(StringArray::from_iter_values((0..prompts.len()).map(id)));
    session.register_batches("prompts", vec![RecordBatch::try_from_iter([("prompt_id", ids)]).unwrap()]).unwrap();
    let rows: Vec<pool::Row> = prompts
        .iter()
        .enumerate()
        .flat_map(|(prompt, responses)| responses.iter().enumerate().map(move |(index, response)| (prompt, index, *response)))
        .map(|(prompt, index, (reward, token_count))| pool::Row {
            prompt_id: id(prompt),
            response_index: index as i32,
            sampled_iteration: 1,
            reward,
            token_count,
            finish_reason: FinishReason::Stop,
        })
        .collect();
    session.register_batches("pool", vec![pool::batch(&rows)]).unwrap();
    let quota = Quota::new(settings, prompts.len(), 2, true);
    let parameters = SelectionParameters { settings, quota, stream: Stream { seed: 1, iteration: 2 }, pool_query: POOL_QUERY };
    let walk = select::rows(&session, &ranking, parameters, PromptGroups::default).unwrap();
    let batches: Vec<RecordBatch> = walk.map(|batch| TableKind::Selection.conform(&batch.unwrap()).unwrap()).collect();
    let table = concat_batches(&TableKind::Selection.schema(), &batches).unwrap();
    TableKind::Selection.check(&table).unwrap();
    selection::rows(&table).unwrap()
}

fn settings(objective: Objective, neighbors: u32, responses_per_prompt: u32) -> Select {
    Select { strategy: By::ExpectedGain(ExpectedGain { objective, neighbors }), responses_per_prompt, ..Select::default() }
}

/// The gain of each prompt, in the order of the prompts.
fn gains(rows: &[selection::Row]) -> Vec<Option<f64>> {
    let by_id: BTreeMap<&str, Option<f64>> = rows.iter().map(|row| (row.prompt_id.as_str(), row.expected_gain)).collect();
    by_id.into_values().collect()
}

#[derive(Deserialize)]
struct Case {
    name: String,
    rewards: Vec<Vec<f64>>,
    predictions: Vec<Prediction>,
}

#[derive(Deserialize)]
struct Prediction {
    objective: String,
    neighbors: u32,
    draws: u32,
    gains: Vec<f64>,
}

/// `tests/python/expected_gain.py golden` wrote the file.
#[test]
fn predictions_are_those_of_numpy() {
    let cases: Vec<Case> = serde_json::from_str(include_str!("../../golden/expected_gain.json")).unwrap();
    let mut predicted = 0;
    for Case { name, rewards, predictions } in cases {
        let prompts: Vec<Responses> = rewards.iter().map(|rewards| rewards.iter().map(|reward| (*reward, 1)).collect()).collect();
        let scale = rewards.iter().flatten().fold(0.0, |most: f64, reward| most.max(reward.abs()));
        for Prediction { objective, neighbors, draws, gains: expected } in predictions {
            let aim = if objective == "gap" { Objective::Gap } else { Objective::Best };
            let rows = selected(&prompts, &settings(aim, neighbors, draws));
            for (prompt, (found, expected)) in gains(&rows).into_iter().zip(&expected).enumerate() {
                let found = found.unwrap();
                assert!(
                    (found - expected).abs() <= 1e-10 * scale,
                    "{name}, {objective}, {neighbors}, {draws}, p{prompt:03}: expected {expected}, found {found}"
                );
                predicted += 1;
            }
            // The best come first, ties in the order of their ids.
            let ranked: Vec<(f64, &str)> = rows.iter().map(|row| (-row.expected_gain.unwrap(), row.prompt_id.as_str())).collect();
            assert!(ranked.is_sorted(), "{name}: {ranked:?}");
        }
    }
    assert!(predicted > 2000, "only {predicted} predictions");
}

/// Tries the property on the same random values every time, and shows the smallest counterexample.
fn holds<S: Strategy<Value: std::fmt::Debug>>(values: S, property: impl Fn(S::Value)) {
    let config = Config { failure_persistence: None, ..Config::default() };
    let mut runner = TestRunner::new_with_rng(config, TestRng::deterministic_rng(RngAlgorithm::ChaCha));
    let tried = runner.run(&values, |value| {
        property(value);
        Ok(())
    });
    tried.unwrap_or_else(|failure| panic!("{failure}"));
}

/// With ties, zeros of both signs, and the largest numbers.
fn reward() -> impl Strategy<Value = f64> {
    prop_oneof![3 => Just(0.0), 1 => Just(-0.0), 3 => Just(1.0), 3 => 0.0..1.0, 1 => -1e12..1e12, 1 => -1e300..1e300]
}

fn prompts(reward: impl Strategy<Value = f64>) -> impl Strategy<Value = Vec<Responses>> {
    vec(vec((reward, 0..400_i32), 0..6), 0..30)
}

fn objective() -> impl Strategy<Value = Objective> {
    prop_oneof![Just(Objective::Best), Just(Objective::Gap)]
}

#[test]
fn gains_are_numbers_of_at_least_0_whatever_the_order_of_rows() {
    holds((prompts(reward()), objective(), 1..80_u32, 1..9_u32), |(prompts, objective, neighbors, draws)| {
        let settings = Select { ratio: 0.5, ..settings(objective, neighbors, draws) };
        let rows = selected(&prompts, &settings);
        for row in &rows {
            assert!(row.expected_gain.is_none_or(|gain| gain.is_finite() && gain >= 0.0), "{row:?}");
            assert!(row.expected_tokens.is_some_and(|tokens| tokens.is_finite() && tokens >= f64::from(draws)), "{row:?}");
        }
        // A prompt without a response has no gain and comes first.
        let unknown = prompts.iter().filter(|responses| responses.is_empty()).count();
        assert!(rows.iter().enumerate().all(|(place, row)| row.expected_gain.is_none() == (place < unknown)));
        assert_eq!(rows.iter().filter(|row| row.selected).count(), prompts.len().div_ceil(2));
        // The mean of rewards depends on their order in its last bits. The rest does not.
        let decided = |rows: Vec<selection::Row>| {
            let of = |row: selection::Row| (row.prompt_id, row.rank, row.selected, row.expected_gain, row.expected_tokens);
            rows.into_iter().map(of).collect::<Vec<_>>()
        };
        let mut reversed = prompts;
        reversed.iter_mut().for_each(|responses| responses.reverse());
        assert_eq!(decided(selected(&reversed, &settings)), decided(rows));
    });
}

#[test]
fn a_budget_is_exceeded_by_one_prompts_responses_at_most() {
    let strategy = prop_oneof![
        Just(By::LowestReward),
        Just(By::Random),
        objective().prop_map(|objective| By::ExpectedGain(ExpectedGain { objective, neighbors: 5 })),
    ];
    let limits = (1..4000_u32, 1..=100_usize, 1..9_u32);
    holds((prompts(reward()), strategy, limits), |(prompts, strategy, (tokens, percent, responses_per_prompt))| {
        let ratio = percent as f64 / 100.0;
        let settings = Select { strategy, tokens: Some(tokens), ratio, responses_per_prompt, ..Select::default() };
        let rows = selected(&prompts, &settings);
        // The expected tokens of a prompt are those of its mean response, or of the mean of all.
        let tokens_of = |responses: &[(f64, i32)]| {
            let sum: i64 = responses.iter().map(|(_, tokens)| i64::from(*tokens)).sum();
            let mean = if responses.is_empty() { 0.0 } else { sum as f64 / responses.len() as f64 };
            mean.max(1.0) * f64::from(responses_per_prompt)
        };
        let all = tokens_of(&prompts.concat());
        let expected = |row: &selection::Row| {
            let responses = &prompts[row.prompt_id[1..].parse::<usize>().unwrap()];
            if responses.is_empty() { all } else { tokens_of(responses) }
        };
        for row in &rows {
            assert_eq!(row.expected_tokens, Some(expected(row)), "{}", row.prompt_id);
        }
        let (taken, left): (Vec<_>, Vec<_>) = rows.iter().partition(|row| row.selected);
        // The first ones, until either limit: without the last one, the budget is not used up.
        assert!(taken.iter().zip(1..).all(|(row, rank)| row.rank == rank));
        let spent = |rows: &[&selection::Row]| rows.iter().map(|row| expected(row)).sum::<f64>();
        if let Some((_, before)) = taken.split_last() {
            assert!(spent(before) < f64::from(tokens));
        }
        let room = (prompts.len() * percent).div_ceil(100);
        assert!(taken.len() <= room);
        assert!(left.is_empty() || taken.len() == room || spent(&taken) >= f64::from(tokens), "{rows:?}");
    });
}

#[test]
fn equal_rewards_promise_nothing() {
    let counts = vec(1..6_usize, 1..20);
    holds((-1e300..1e300, counts, objective(), 1..80_u32, 1..9_u32), |(reward, counts, objective, neighbors, draws)| {
        let prompts: Vec<Responses> = counts.iter().map(|count| vec![(reward, 9); *count]).collect();
        let rows = selected(&prompts, &settings(objective, neighbors, draws));
        assert!(rows.iter().all(|row| row.expected_gain == Some(0.0)), "{rows:?}");
    });
}

#[test]
fn equal_prompts_have_equal_gains_and_go_by_their_ids() {
    let responses = vec((0.0..1.0_f64, 1..9_i32), 1..6);
    holds((responses, 1..20_usize, objective(), 1..80_u32), |(responses, count, objective, neighbors)| {
        let prompts = vec![responses; count];
        let rows = selected(&prompts, &settings(objective, neighbors, 2));
        assert!(rows.iter().all(|row| row.expected_gain == rows[0].expected_gain), "{rows:?}");
        assert!(rows.iter().map(|row| &row.prompt_id).is_sorted());
    });
}

/// One prompt predicts itself: no reward of its own is better than its best, or worse than its
/// worst.
#[test]
fn one_prompt_expects_nothing_of_itself() {
    let responses = vec((reward(), 1..9_i32), 1..9);
    holds((responses, objective(), 1..80_u32, 1..9_u32), |(responses, objective, neighbors, draws)| {
        assert_eq!(gains(&selected(&[responses], &settings(objective, neighbors, draws))), [Some(0.0)]);
    });
}

/// With two rewards, 0 and 1, and two responses a prompt, all pairs after a failure predict a
/// failed prompt: the gain is the chance of a success among them, in k draws.
#[test]
fn of_two_values_the_gain_is_a_chance() {
    let prompts = vec((any::<bool>(), any::<bool>()), 1..40);
    holds((prompts, 1..9_u32), |(successes, draws)| {
        let number = |success: bool| if success { 1.0 } else { 0.0 };
        let prompts: Vec<Responses> = successes.iter().map(|(one, other)| vec![(number(*one), 1), (number(*other), 1)]).collect();
        let after_failure = |(one, other): &(bool, bool)| [(!one).then_some(*other), (!other).then_some(*one)];
        let after: Vec<bool> = successes.iter().flat_map(after_failure).flatten().collect();
        let failed = successes.iter().position(|(one, other)| !one && !other);
        let Some(failed) = failed else { return };
        let share = after.iter().filter(|success| **success).count() as f64 / after.len() as f64;
        let expected = 1.0 - (1.0 - share).powi(draws as i32);
        let found = gains(&selected(&prompts, &settings(Objective::Best, 1, draws)))[failed].unwrap();
        assert!((found - expected).abs() < 1e-11, "expected {expected}, found {found}");
    });
}
