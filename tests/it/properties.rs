//! What must hold of select, merge and pair whatever the tables: told here in other words than theirs, and tried on random tables, of which the
//! smallest that breaks a rule is shown. `PROPTEST_CASES=n` tries more.
//!
//! That the walks give what their SQL says is in `relational.rs`.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Debug;
use std::sync::Arc;

use arrow::array::{Int64Array, RecordBatch, StringArray};
use arrow::compute::concat_batches;
use optune::pipeline::spec::relational::{Normalize, RankBy, Select, Strategy as By, Weight, WeightKind};
use optune::stages::seed::Stream;
use optune::stages::{StageError, merge, pair, select};
use optune::store::{Session, Slices};
use optune::tables::{FinishReason, TableKind, pairs, pool, responses, rewards, selection};
use proptest::collection::{btree_map, btree_set, vec};
use proptest::prelude::*;
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};

use crate::store::Space;

/// Tries the property on the same random values every time, and shows the smallest that breaks it.
fn holds<S: Strategy<Value: Debug>>(values: S, property: impl Fn(S::Value)) {
    let config = Config { failure_persistence: None, ..Config::default() };
    let mut runner = TestRunner::new_with_rng(config, TestRng::deterministic_rng(RngAlgorithm::ChaCha));
    let tried = runner.run(&values, |value| {
        property(value);
        Ok(())
    });
    tried.unwrap_or_else(|failure| panic!("{failure}"));
}

/// With ties, zeros of both signs, and large ones.
fn reward() -> impl Strategy<Value = f64> {
    prop_oneof![Just(0.0), Just(-0.0), Just(0.5), Just(-1.0), -1e3..1e3, -1e12..1e12]
}

fn id() -> impl Strategy<Value = String> {
    "[a-c é\u{1f642}]{1,3}"
}

/// Of each prompt, its rewards; some have none.
fn pools() -> impl Strategy<Value = BTreeMap<String, Vec<f64>>> {
    btree_map(id(), vec(reward(), 0..6), 0..24)
}

/// The pool of these rewards, in its order. `born` is the response's number, so that it can be told.
fn pool_rows(prompts: &BTreeMap<String, Vec<f64>>) -> Vec<pool::Row> {
    let row = |prompt: &String, index: usize, reward: f64| pool::Row {
        prompt_id: prompt.clone(),
        response_index: index as i32,
        born: index as i32 % 3,
        reward,
        token_count: 7,
        finish_reason: FinishReason::Stop,
    };
    prompts
        .iter()
        .flat_map(|(prompt, rewards)| rewards.iter().enumerate().map(move |(index, reward)| row(prompt, index, *reward)))
        .collect()
}

/// The rows in batches of this length.
fn cut(rows: &RecordBatch, length: usize) -> Vec<RecordBatch> {
    let cuts = (0..rows.num_rows()).step_by(length).map(|at| rows.slice(at, length.min(rows.num_rows() - at)));
    [rows.slice(0, 0)].into_iter().chain(cuts).collect()
}

fn whole(kind: TableKind, walk: impl Iterator<Item = Result<RecordBatch, StageError>>) -> RecordBatch {
    let batches: Vec<RecordBatch> = walk.map(|batch| kind.conform(&batch.unwrap()).unwrap()).collect();
    let table = concat_batches(&kind.schema(), &batches).unwrap();
    kind.check(&table).unwrap();
    table
}

fn selected(
    pool: &BTreeMap<String, Vec<f64>>,
    asked: &[String],
    settings: &Select,
    (length, slices): (usize, usize),
) -> Vec<selection::Row> {
    let (space, stream) = (Space::new(), Stream { seed: 9, iteration: 2 });
    let [session, ranking] = [0, 1].map(|_| Session::with_memory_limit(64 << 20, space.path()).unwrap());
    let draws = Int64Array::from_iter_values(asked.iter().map(|id| stream.draw(id)));
    let columns = [("prompt_id", Arc::new(StringArray::from_iter_values(asked)) as _), ("draw", Arc::new(draws) as _)];
    session.register_batches("prompts", cut(&RecordBatch::try_from_iter(columns).unwrap(), length)).unwrap();
    session.register_batches("pool", cut(&pool::batch(&pool_rows(pool)), length)).unwrap();
    let count = select::selected_count(settings, asked.len(), true);
    let walk = select::rows(&session, &ranking, settings, count, stream, Slices::of_rows(slices)).unwrap();
    selection::rows(&whole(TableKind::Selection, walk)).unwrap()
}

/// What a prompt is ranked by.
fn score(rewards: &[f64], rank_by: RankBy) -> Option<f64> {
    let (least, most) = (rewards.iter().copied().reduce(f64::min)?, rewards.iter().copied().reduce(f64::max)?);
    Some(match rank_by {
        RankBy::Mean => rewards.iter().sum::<f64>() / rewards.len() as f64,
        RankBy::Min => least,
        RankBy::Max => most,
        RankBy::Gap => most - least,
    })
}

#[test]
fn select_takes_the_lowest_share_whatever_the_order_of_rows() {
    let rank_by = prop_oneof![Just(RankBy::Mean), Just(RankBy::Min), Just(RankBy::Max), Just(RankBy::Gap)];
    let strategy = prop_oneof![3 => Just(By::LowestReward), 1 => Just(By::Random), 1 => Just(By::All)];
    let asked = btree_set(id(), 0..24).prop_map(|ids| ids.into_iter().collect::<Vec<_>>()).prop_shuffle();
    holds((pools(), asked, 1..=100_usize, rank_by, strategy, 1..40_usize), |(pool, asked, percent, rank_by, strategy, length)| {
        let settings = Select { prompts: Default::default(), pool: None, strategy, rank_by, ratio: percent as f64 / 100.0 };
        let rows = selected(&pool, &asked, &settings, (length, length));
        let chosen = || rows.iter().filter(|row| row.selected);
        // Exactly ceil(ratio·N) prompts, each there once.
        let expected = if strategy == By::All { asked.len() } else { (asked.len() * percent).div_ceil(100) };
        assert_eq!(chosen().count(), expected);
        let ids: BTreeSet<&String> = rows.iter().map(|row| &row.prompt_id).collect();
        assert_eq!((rows.len(), ids), (asked.len(), asked.iter().collect()));
        // Each with its own statistic, and none that is left out is lower than one that is not: nothing is known of those without a reward.
        for row in &rows {
            assert_eq!(row.score, pool.get(&row.prompt_id).and_then(|rewards| score(rewards, rank_by)), "{}", row.prompt_id);
        }
        let key = |row: &selection::Row| row.score.unwrap_or(f64::NEG_INFINITY);
        if strategy == By::LowestReward {
            let highest = chosen().map(key).fold(f64::NEG_INFINITY, f64::max);
            assert!(rows.iter().filter(|row| !row.selected).all(|row| key(row) >= highest));
        }
        // The order of the prompts, how tables are cut, and what else is in the pool, do not matter.
        let mut sorted = asked.clone();
        sorted.sort();
        let known = pool.iter().filter(|(id, _)| asked.contains(id)).map(|(id, rewards)| (id.clone(), rewards.clone())).collect();
        assert_eq!(selected(&known, &sorted, &settings, (1, 1 << 20)), rows);
    });
}

/// A response as it comes into the pool, or does not: its reward, if it was sampled and scored without an error.
type Sampled = (Option<f64>, bool, i32);

#[test]
fn merge_keeps_every_prompts_responses_and_invents_none() {
    let sampled = (prop::option::of(reward()), prop::bool::weighted(0.8), 0..9_i32);
    let fresh = btree_map(id(), vec(sampled, 0..4), 0..16);
    holds((fresh, pools(), 1..9_usize, 1..9_usize), |(fresh, carried, length, slices): (BTreeMap<String, Vec<Sampled>>, _, _, _)| {
        const BORN: i32 = 5;
        let (mut scored, mut answered, mut expected) = (Vec::new(), Vec::new(), BTreeMap::<String, Vec<pool::Row>>::new());
        for (prompt, samples) in &fresh {
            for (index, (reward, is_answered, tokens)) in samples.iter().enumerate() {
                let (prompt_id, born, response_index) = (prompt.clone(), BORN, index as i32);
                let (error, finish_reason) = ((!is_answered).then(|| "no answer".to_string()), FinishReason::Length);
                answered.push(responses::Row {
                    prompt_id: prompt_id.clone(),
                    born,
                    response_index,
                    token_ids: (0..tokens + 2).collect(),
                    prompt_token_count: 2,
                    text: String::new(),
                    finish_reason: if *is_answered { finish_reason } else { FinishReason::Error },
                    logprob: None,
                    policy_fingerprint: String::new(),
                    error,
                });
                scored.push(rewards::Row {
                    prompt_id: prompt_id.clone(),
                    born,
                    response_index,
                    reward: *reward,
                    reward_fingerprint: "r".into(),
                    components: None,
                    error: reward.is_none().then(|| "no reward".to_string()),
                });
                if let (Some(reward), true) = (*reward, is_answered) {
                    let row = pool::Row { prompt_id, response_index, born, reward, token_count: *tokens, finish_reason };
                    expected.entry(prompt.clone()).or_default().push(row);
                }
            }
        }
        let old = pool_rows(&carried);
        // A prompt without a new response that counts keeps its old ones, with the iteration they were born in; all others have the new ones only.
        for row in &old {
            if expected.get(&row.prompt_id).is_none_or(|rows| rows.iter().all(|row| row.born != BORN)) {
                expected.entry(row.prompt_id.clone()).or_default().push(row.clone());
            }
        }
        let session = Session::new().unwrap();
        session.register_batches("rewards", cut(&rewards::batch(&scored), length)).unwrap();
        session.register_batches("responses", cut(&responses::batch(&answered), length)).unwrap();
        session.register_batches("carried", cut(&pool::batch(&old), length)).unwrap();
        let found = pool::rows(&whole(TableKind::Pool, merge::rows(&session, true, Slices::of_rows(slices)).unwrap())).unwrap();
        assert_eq!(found, expected.into_values().flatten().collect::<Vec<_>>());
        let lost = carried.iter().find(|(id, rewards)| !rewards.is_empty() && found.iter().all(|row| row.prompt_id != **id));
        assert_eq!(lost, None);
    });
}

#[test]
fn pair_makes_one_pair_of_each_prompt_whose_rewards_differ() {
    let kind = prop_oneof![Just(WeightKind::None), Just(WeightKind::Linear), Just(WeightKind::Sigmoid)];
    let weight = (kind, 1e-3..10.0, prop_oneof![Just(Normalize::None), Just(Normalize::Mean)], prop::option::of(0.01..5.0));
    holds((pools(), weight, 1..9_usize, 1..9_usize), |(prompts, (kind, gap_scale, normalize, clip), length, slices)| {
        let weight = Weight { kind, gap_scale, normalize, clip };
        let (rows, session) = (pool_rows(&prompts), Session::new().unwrap());
        session.register_batches("pool", cut(&pool::batch(&rows), length)).unwrap();
        let found = pairs::rows(&whole(TableKind::Pairs, pair::rows(&session, &weight, || Slices::of_rows(slices)).unwrap())).unwrap();
        let gap = |rewards: &Vec<f64>| score(rewards, RankBy::Gap).filter(|gap| *gap > 0.0);
        let expected: Vec<(&String, f64)> = prompts.iter().filter_map(|(id, rewards)| Some((id, gap(rewards)?))).collect();
        assert_eq!(found.iter().map(|pair| (&pair.prompt_id, pair.reward_gap)).collect::<Vec<_>>(), expected);
        let raw = |gap: f64| match kind {
            WeightKind::None => 1.0,
            WeightKind::Linear => gap_scale * gap,
            WeightKind::Sigmoid => 1.0 / (1.0 + (-gap_scale * gap).exp()),
        };
        let mean = expected.iter().map(|(_, gap)| raw(*gap)).sum::<f64>() / expected.len() as f64;
        for pair in &found {
            // Both responses are the prompt's own, and none of them is better than the chosen or worse than the rejected one.
            let rewards = &prompts[&pair.prompt_id];
            let of = |index: i32, born: i32| {
                assert_eq!(born, index % 3);
                rewards[index as usize]
            };
            let (chosen, rejected) = (of(pair.chosen_index, pair.chosen_born), of(pair.rejected_index, pair.rejected_born));
            assert!(rewards.iter().all(|reward| (rejected..=chosen).contains(reward)));
            assert_eq!(chosen - rejected, pair.reward_gap);
            let expected = raw(pair.reward_gap) / if normalize == Normalize::Mean { mean } else { 1.0 };
            let expected = clip.map_or(expected, |clip| expected.min(clip));
            assert!((pair.weight - expected).abs() <= 1e-9 * expected && pair.weight.is_finite(), "{} instead of {expected}", pair.weight);
        }
    });
}
