//! Properties of select, merge and pair for all tables. They are written in other words than the
//! operators, and tried on random tables; the smallest counterexample is shown. `PROPTEST_CASES=n`
//! tries more.
//!
//! The equality of the merge joins and their SQL is in `relational_sql.rs`.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Debug;
use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch, StringArray};
use arrow::compute::concat_batches;
use optune::operators::merge::FreshOrder;
use optune::operators::select::{self, POOL_QUERY, Quota, SelectionParameters};
use optune::operators::support::rng::Stream;
use optune::operators::{OperatorError, merge, pair};
use optune::pipeline::spec::pair::{Normalize, Pair, Rejected, Weight, WeightKind};
use optune::pipeline::spec::select::{
    Band, DropHardest, ExpectedGain, Objective, RankBy, Select, SkipUninformative, Strategy as By, ZScore,
};
use optune::sql::{PromptGroups, Session};
use optune::tables::{FinishReason, TableKind, pairs, pool, responses, rewards, selection};
use proptest::collection::{btree_map, btree_set, vec};
use proptest::prelude::*;
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};

use crate::fixtures::store::Space;

/// Tries the property on the same random values every time, and shows the smallest counterexample.
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

/// The pool of these rewards, in its order. `sampled_iteration` holds the response's number, as its mark.
fn pool_rows(prompts: &BTreeMap<String, Vec<f64>>) -> Vec<pool::Row> {
    let row = |prompt: &String, index: usize, reward: f64| pool::Row {
        prompt_id: prompt.clone(),
        response_index: index as i32,
        sampled_iteration: index as i32 % 3,
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

fn whole(kind: TableKind, walk: impl Iterator<Item = Result<RecordBatch, OperatorError>>) -> RecordBatch {
    let batches: Vec<RecordBatch> = walk.map(|batch| kind.conform(&batch.unwrap()).unwrap()).collect();
    let table = concat_batches(&kind.schema(), &batches).unwrap();
    kind.check(&table).unwrap();
    table
}

/// The group of a prompt. Some have none.
fn group(id: &str) -> Option<&str> {
    id.get(..1).filter(|first| *first != "a")
}

fn selected(
    pool: &BTreeMap<String, Vec<f64>>,
    before: &BTreeMap<String, f64>,
    asked: &[String],
    settings: &Select,
    (length, slices): (usize, usize),
) -> Vec<selection::Row> {
    let (space, stream) = (Space::new(), Stream { seed: 9, iteration: ITERATION });
    let [session, ranking] = [0, 1].map(|_| Session::with_memory_limit(64 << 20, space.path()).unwrap());
    let groups: StringArray = asked.iter().map(|id| group(id)).collect();
    let columns: [(&str, ArrayRef); 2] = [("prompt_id", Arc::new(StringArray::from_iter_values(asked))), ("group", Arc::new(groups))];
    let prompts = RecordBatch::try_from_iter_with_nullable(columns.map(|(name, column)| (name, column, true))).unwrap();
    session.register_batches("prompts", cut(&prompts, length)).unwrap();
    session.register_batches("pool", cut(&pool::batch(&pool_rows(pool)), length)).unwrap();
    let row = |(prompt_id, score): (&String, &f64)| selection::Row {
        prompt_id: prompt_id.clone(),
        score: Some(*score),
        rank: 1,
        selected: true,
        expected_gain: None,
        expected_tokens: None,
        belief_mean: None,
        belief_variance: None,
    };
    session.register_batches("previous", cut(&selection::batch(&before.iter().map(row).collect::<Vec<_>>()), length)).unwrap();
    let quota = Quota::new(settings, asked.len(), ITERATION, true);
    let parameters = SelectionParameters { settings, quota, stream, pool_query: POOL_QUERY };
    let walk = select::rows(&session, &ranking, parameters, || PromptGroups::new(slices)).unwrap();
    selection::rows(&whole(TableKind::Selection, walk)).unwrap()
}

/// The score of a prompt in the ranking.
fn score(rewards: &[f64], rank_by: RankBy) -> Option<f64> {
    let (least, most) = (rewards.iter().copied().reduce(f64::min)?, rewards.iter().copied().reduce(f64::max)?);
    Some(match rank_by {
        RankBy::Mean => rewards.iter().sum::<f64>() / rewards.len() as f64,
        RankBy::Min => least,
        RankBy::Max => most,
        RankBy::Gap => most - least,
    })
}

/// In iteration 3, responses of up to three ages.
const ITERATION: u32 = 3;

/// The ranking keys of a strategy, in other words than its own; none for random draws and
/// predictions.
fn keys(settings: &Select, scores: &BTreeMap<&str, f64>, before: &BTreeMap<String, f64>) -> Option<BTreeMap<String, f64>> {
    let of_group = |id: &str| scores.iter().filter(|(other, _)| group(other) == group(id)).map(|(_, score)| *score).collect::<Vec<_>>();
    let key = |id: &str, score: f64| match &settings.strategy {
        By::HighestReward => Some(-score),
        By::RewardGain => before.get(id).map(|before| before - score),
        By::ZScore(_) => {
            let group = of_group(id);
            let mean = group.iter().sum::<f64>() / group.len() as f64;
            let deviation = (group.iter().map(|score| (score - mean).powi(2)).sum::<f64>() / group.len() as f64).sqrt();
            Some(if deviation > 1e-9 * mean.abs() { (score - mean) / deviation } else { 0.0 })
        }
        _ => Some(score),
    };
    let keys = scores.iter().filter_map(|(id, score)| Some((id.to_string(), key(id, *score)?))).collect();
    (!matches!(settings.strategy, By::Random | By::ExpectedGain(_))).then_some(keys)
}

#[test]
fn select_takes_the_first_share_whatever_the_order_of_rows() {
    let rank_by = prop_oneof![Just(RankBy::Mean), Just(RankBy::Min), Just(RankBy::Max), Just(RankBy::Gap)];
    let strategy = prop_oneof![
        Just(By::LowestReward),
        Just(By::HighestReward),
        Just(By::Random),
        Just(By::All),
        Just(By::RewardGain),
        (0.0..0.9).prop_map(|share| By::DropHardest(DropHardest { share })),
        (-2.0..1.0, -1.0..2.0).prop_map(|(low, high)| By::Band(Band { low: Some(low), high: Some(high) })),
        Just(By::ZScore(ZScore::default())),
        (0.0..1.0).prop_map(|explore| By::SkipUninformative(SkipUninformative { explore })),
        (1..9_u32).prop_map(|neighbors| By::ExpectedGain(ExpectedGain { objective: Objective::Gap, neighbors })),
    ];
    let settings = (strategy, rank_by, 1..=100_usize, prop::option::of(1..4_u32));
    let asked = btree_set(id(), 0..24).prop_map(|ids| ids.into_iter().collect::<Vec<_>>()).prop_shuffle();
    let before = btree_map(id(), reward(), 0..24);
    holds((pools(), before, asked, settings, 1..40_usize), |(pool, before, asked, (strategy, rank_by, percent, max_age), length)| {
        let previous = (strategy == By::RewardGain).then(Default::default);
        let settings = Select { strategy, previous, rank_by, ratio: percent as f64 / 100.0, max_age, ..Select::default() };
        let rows = selected(&pool, &before, &asked, &settings, (length, length));
        // Every prompt once, with its own statistic and a rank.
        let ids: BTreeSet<&String> = rows.iter().map(|row| &row.prompt_id).collect();
        assert_eq!((rows.len(), ids), (asked.len(), asked.iter().collect()));
        for (index, row) in rows.iter().enumerate() {
            assert_eq!(row.score, pool.get(&row.prompt_id).and_then(|rewards| score(rewards, rank_by)), "{}", row.prompt_id);
            assert_eq!(row.rank, index as i64 + 1);
        }
        // First all prompts with too old responses. Then, of the permitted ones, as many as the
        // ratio has room for: exactly ceil(ratio·N) where all are permitted.
        let is_overdue = |row: &&selection::Row| {
            let newest = pool.get(&row.prompt_id).and_then(|rewards| (0..rewards.len() as u32).map(|index| index % 3).max());
            max_age.zip(newest).is_some_and(|(age, sampled_iteration)| sampled_iteration + age <= ITERATION)
        };
        let may_be = |row: &selection::Row| match (&settings.strategy, row.score) {
            (By::Band(band), Some(score)) => band.low.unwrap() <= score && score <= band.high.unwrap(),
            (By::SkipUninformative(_), Some(_)) => {
                let alike = score(&pool[&row.prompt_id], RankBy::Gap) == Some(0.0);
                // The draw decides between equal rewards.
                !alike || row.selected
            }
            _ => true,
        };
        let (overdue, others): (Vec<&selection::Row>, Vec<&selection::Row>) = rows.iter().partition(is_overdue);
        assert!(overdue.iter().all(|row| row.selected));
        let (eligible, out): (Vec<&selection::Row>, Vec<&selection::Row>) = others.into_iter().partition(|row| may_be(row));
        assert!(out.iter().all(|row| !row.selected));
        let count = if settings.strategy == By::All { asked.len() } else { (asked.len() * percent).div_ceil(100) };
        let room = count.saturating_sub(overdue.len()).min(eligible.len());
        assert_eq!(eligible.iter().filter(|row| row.selected).count(), room, "{eligible:?}");
        // No left-out prompt is before a selected one. The exception are dropped hardest prompts:
        // nothing is known of those without a reward.
        let scores = rows.iter().filter_map(|row| Some((row.prompt_id.as_str(), row.score?))).collect();
        if let Some(keys) = keys(&settings, &scores, &before) {
            let key = |row: &selection::Row| keys.get(&row.prompt_id).copied().unwrap_or(f64::NEG_INFINITY);
            let dropped = match &settings.strategy {
                By::DropHardest(DropHardest { share }) => (share * asked.len() as f64).floor() as usize,
                _ => 0,
            };
            let (first, rest) = eligible.split_at(dropped.min(eligible.len() - room));
            assert!(first.iter().all(|row| !row.selected));
            let (taken, left) = rest.split_at(room);
            assert!(taken.iter().all(|row| row.selected) && left.iter().all(|row| !row.selected));
            let ascending: Vec<f64> = eligible.iter().map(|row| key(row)).collect();
            assert!(ascending.is_sorted_by(|one, other| one <= other || (one - other).abs() < 1e-6), "{ascending:?}");
        }
        // The order of the prompts, the cuts of tables, and further rows of the pool do not matter.
        let mut sorted = asked.clone();
        sorted.sort();
        let known = pool.iter().filter(|(id, _)| asked.contains(id)).map(|(id, rewards)| (id.clone(), rewards.clone())).collect();
        assert_eq!(selected(&known, &before, &sorted, &settings, (1, 1 << 20)), rows);
    });
}

/// A response as it comes into the pool, or does not: its reward, if it was sampled and scored
/// without an error.
type Sampled = (Option<f64>, bool, i32);

#[test]
fn merge_keeps_every_prompts_responses_and_invents_none() {
    let sampled = (prop::option::of(reward()), prop::bool::weighted(0.8), 0..9_i32);
    let fresh = btree_map(id(), vec(sampled, 0..4), 0..16);
    holds((fresh, pools(), any::<bool>(), 1..9_usize, 1..9_usize), |(fresh, carried, keep_best, length, slices)| {
        let fresh: BTreeMap<String, Vec<Sampled>> = fresh;
        const BORN: i32 = 5;
        let (mut scored, mut answered, mut expected) = (Vec::new(), Vec::new(), BTreeMap::<String, Vec<pool::Row>>::new());
        for (prompt, samples) in &fresh {
            for (index, (reward, is_answered, tokens)) in samples.iter().enumerate() {
                let (prompt_id, sampled_iteration, response_index) = (prompt.clone(), BORN, index as i32);
                let (error, finish_reason) = ((!is_answered).then(|| "no answer".to_string()), FinishReason::Length);
                answered.push(responses::Row {
                    prompt_id: prompt_id.clone(),
                    sampled_iteration,
                    response_index,
                    token_ids: (0..tokens + 2).collect(),
                    prompt_token_count: 2,
                    text: String::new(),
                    finish_reason: if *is_answered { finish_reason } else { FinishReason::Error },
                    logprob: None,
                    token_logprobs: None,
                    policy_fingerprint: String::new(),
                    error,
                });
                scored.push(rewards::Row {
                    prompt_id: prompt_id.clone(),
                    sampled_iteration,
                    response_index,
                    reward: *reward,
                    reward_fingerprint: "r".into(),
                    components: None,
                    error: reward.is_none().then(|| "no reward".to_string()),
                });
                if let (Some(reward), true) = (*reward, is_answered) {
                    let row = pool::Row { prompt_id, response_index, sampled_iteration, reward, token_count: *tokens, finish_reason };
                    expected.entry(prompt.clone()).or_default().push(row);
                }
            }
        }
        let old = pool_rows(&carried);
        // A prompt without a new response that counts keeps its old ones, with the iteration that
        // sampled them. All others have the new ones only, or the best of the old ones too.
        let renewed: BTreeSet<String> = expected.keys().cloned().collect();
        for (prompt, rewards) in &carried {
            let best = rewards.iter().copied().reduce(f64::max);
            let mut rows: Vec<pool::Row> = old.iter().filter(|row| row.prompt_id == *prompt).cloned().collect();
            if renewed.contains(prompt) {
                // Of zeros, the positive one is the larger.
                rows.retain(|row| {
                    keep_best
                        && best == Some(row.reward)
                        && (row.reward != 0.0 || !rewards.iter().any(|reward| reward.to_bits() == 0) || row.reward.to_bits() == 0)
                });
                rows.truncate(1);
            }
            expected.entry(prompt.clone()).or_default().extend(rows);
        }
        expected.values_mut().for_each(|rows| rows.sort_by_key(|row| (row.response_index, row.sampled_iteration)));
        let session = Session::new().unwrap();
        session.register_batches("rewards", cut(&rewards::batch(&scored), length)).unwrap();
        session.register_batches("responses", cut(&responses::batch(&answered), length)).unwrap();
        session.register_batches("carried", cut(&pool::batch(&old), length)).unwrap();
        let merged = |session: &Session, order| {
            let walk = merge::rows(session, true, keep_best, order, PromptGroups::new(slices)).unwrap();
            pool::rows(&whole(TableKind::Pool, walk)).unwrap()
        };
        let found = merged(&session, FreshOrder::Sorted);
        assert_eq!(found, expected.into_values().flatten().collect::<Vec<_>>());
        // Two tables, of first and of further responses, make the same pool.
        let session = Session::new().unwrap();
        let (first, further): (Vec<_>, Vec<_>) = scored.into_iter().partition(|row| row.response_index < 2);
        let batches = [further, first].map(|rows| cut(&rewards::batch(&rows), length)).concat();
        session.register_batches("rewards", batches).unwrap();
        let (first, further): (Vec<_>, Vec<_>) = answered.into_iter().partition(|row| row.response_index < 2);
        let batches = [further, first].map(|rows| cut(&responses::batch(&rows), length)).concat();
        session.register_batches("responses", batches).unwrap();
        session.register_batches("carried", cut(&pool::batch(&old), length)).unwrap();
        assert_eq!(merged(&session, FreshOrder::Tables), found);
        let lost = carried.iter().find(|(id, rewards)| !rewards.is_empty() && found.iter().all(|row| row.prompt_id != **id));
        assert_eq!(lost, None);
    });
}

#[test]
fn pair_makes_one_pair_of_each_prompt_whose_rewards_differ() {
    let kind = prop_oneof![
        Just(WeightKind::None),
        Just(WeightKind::Linear),
        Just(WeightKind::Sigmoid),
        Just(WeightKind::Inverse),
        Just(WeightKind::Exponential)
    ];
    let weight = (kind, 1e-3..10.0, prop_oneof![Just(Normalize::None), Just(Normalize::Mean)], prop::option::of(0.01..5.0));
    let rejected = prop_oneof![Just(Rejected::Worst), Just(Rejected::Random), Just(Rejected::TwoSigma)];
    let cuts = (1..9_usize, 1..9_usize);
    holds((pools(), rejected, weight, cuts), |(prompts, rejected, (kind, gap_scale, normalize, clip), (length, slices))| {
        // The largest gap still has an exponential.
        let gap_scale = if kind == WeightKind::Exponential { gap_scale * 1e-11 } else { gap_scale };
        let settings = Pair { rejected, weight: Weight { kind, gap_scale, normalize, clip }, ..Pair::default() };
        let (rows, session, stream) = (pool_rows(&prompts), Session::new().unwrap(), Stream { seed: 9, iteration: 3 });
        session.register_batches("pool", cut(&pool::batch(&rows), length)).unwrap();
        let walk = pair::rows(&session, &settings, stream, || PromptGroups::new(slices)).unwrap();
        let found = pairs::rows(&whole(TableKind::Pairs, walk)).unwrap();
        let differ = prompts.iter().filter(|(_, rewards)| score(rewards, RankBy::Gap).is_some_and(|gap| gap > 0.0));
        assert_eq!(found.iter().map(|pair| &pair.prompt_id).collect::<Vec<_>>(), differ.map(|(id, _)| id).collect::<Vec<_>>());
        let raw = |gap: f64| match kind {
            WeightKind::None => 1.0,
            WeightKind::Linear => gap_scale * gap,
            WeightKind::Sigmoid => 1.0 / (1.0 + (-gap_scale * gap).exp()),
            WeightKind::Inverse => 1.0 / (1.0 + gap_scale * gap),
            WeightKind::Exponential => (gap_scale * gap).exp(),
        };
        let mean = found.iter().map(|pair| raw(pair.reward_gap)).sum::<f64>() / found.len() as f64;
        for pair in &found {
            // Both responses are the prompt's own; none of them is better than the chosen one.
            let rewards = &prompts[&pair.prompt_id];
            let of = |index: i32, sampled_iteration: i32| {
                assert_eq!(sampled_iteration, index % 3);
                rewards[index as usize]
            };
            let (chosen, below) =
                (of(pair.chosen_index, pair.chosen_sampled_iteration), of(pair.rejected_index, pair.rejected_sampled_iteration));
            assert!(rewards.iter().all(|reward| *reward <= chosen));
            assert_eq!(chosen - below, pair.reward_gap);
            assert!(pair.reward_gap > 0.0);
            // The rejected response is the worst, or the one nearest to two deviations below the
            // mean among those worse than the chosen one.
            let mean_reward = rewards.iter().sum::<f64>() / rewards.len() as f64;
            let deviation = (rewards.iter().map(|reward| (reward - mean_reward).powi(2)).sum::<f64>() / rewards.len() as f64).sqrt();
            let distance = |reward: f64| (reward - (mean_reward - 2.0 * deviation)).abs();
            let nearest = rewards.iter().filter(|reward| **reward < chosen).map(|reward| distance(*reward)).reduce(f64::min).unwrap();
            match rejected {
                Rejected::Worst => assert!(rewards.iter().all(|reward| *reward >= below)),
                Rejected::TwoSigma => assert!(distance(below) <= nearest + 1e-9 * (1.0 + deviation.max(mean_reward.abs()))),
                Rejected::Random => {}
            }
            let expected = raw(pair.reward_gap) / if normalize == Normalize::Mean { mean } else { 1.0 };
            let expected = clip.map_or(expected, |clip| expected.min(clip));
            assert!((pair.weight - expected).abs() <= 1e-9 * expected && pair.weight.is_finite(), "{} instead of {expected}", pair.weight);
        }
    });
}

#[test]
fn a_random_rejected_response_is_any_of_the_worse_ones_alike_often() {
    let prompts: BTreeMap<String, Vec<f64>> = (0..3000).map(|id| (format!("{id:04}"), vec![0.1, 1.0, 0.2, 0.3])).collect();
    let session = Session::new().unwrap();
    session.register_batches("pool", vec![pool::batch(&pool_rows(&prompts))]).unwrap();
    let settings = Pair { rejected: Rejected::Random, ..Pair::default() };
    let rows = |iteration| pair::rows(&session, &settings, Stream { seed: 9, iteration }, PromptGroups::default).unwrap();
    let found = pairs::rows(&whole(TableKind::Pairs, rows(3))).unwrap();
    let counts = [0, 2, 3].map(|index| found.iter().filter(|pair| pair.rejected_index == index).count());
    // Five standard deviations of a binomial distribution.
    assert!(counts.iter().all(|count| count.abs_diff(1000) < 130), "{counts:?}");
    assert_ne!(found, pairs::rows(&whole(TableKind::Pairs, rows(4))).unwrap());
}
