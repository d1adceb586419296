//! select, merge and pair: the merge joins over sorted tables give the rows of their SQL, however
//! the tables are cut, and find misplaced rows.

use std::fs;
use std::sync::Arc;

use arrow::array::{ArrayRef, Int64Array, RecordBatch, StringArray, UInt32Array};
use arrow::compute::{concat_batches, take_record_batch};
use optune::operators::merge::FreshOrder;
use optune::operators::select::{self, POOL_QUERY, Quota, SelectionParameters};
use optune::operators::support::rng::Stream;
use optune::operators::{OperatorError, merge, pair};
use optune::pipeline::spec::pair::{Normalize, Pair, Penalize, Rejected, Truncated, Weight, WeightKind};
use optune::pipeline::spec::select::{
    Band, DropHardest, ExpectedGain, Objective, Posterior, RankBy, Select, SkipUninformative, Strategy, ZScore,
};
use optune::sql::{PromptGroups, Session};
use optune::store::OutputKey;
use optune::tables::{FinishReason, TableKind, pool, responses, rewards, selection};

use crate::fixtures::rows::Draw;
use crate::fixtures::store::{Space, recipe};

/// Rewards with ties, zeros of both signs, and numbers with rounded sums.
fn reward(draw: &mut Draw) -> f64 {
    [0.0, -0.0, 0.5, -1.0, 1.0 / 3.0].get(draw.below(7) as usize).copied().unwrap_or_else(|| draw.bits() as f64 / 1e18 - 9.0)
}

/// Tables of one iteration in the order of their keys: prompts without rewards, with one, with
/// many; failed or missing responses and rewards.
struct Tables {
    ids: Vec<String>,
    pool: Vec<pool::Row>,
    responses: Vec<responses::Row>,
    rewards: Vec<rewards::Row>,
}

fn tables(draw: &mut Draw, prompts: i32) -> Tables {
    let mut ids: Vec<String> = (0..prompts).map(|index| format!("{}{index}", draw.text())).collect();
    ids.sort();
    let (mut pool, mut responses, mut rewards) = (Vec::new(), Vec::new(), Vec::new());
    for id in &ids {
        let count = if draw.below(20) == 0 { 40 } else { draw.below(6) };
        for index in 0..count {
            let (sampled_iteration, finish_reason) = (draw.below(2), FinishReason::ALL[draw.below(2) as usize]);
            let (reward, token_count) = (reward(draw), draw.below(50));
            pool.push(pool::Row { prompt_id: id.clone(), response_index: index, sampled_iteration, reward, token_count, finish_reason });
        }
        // Of two iterations, one's responses with even numbers, the other's with odd ones: their
        // order is not the pool's.
        for (sampled_iteration, index) in if draw.chance() { vec![] } else { vec![(2, 0), (2, 2), (2, 4), (3, 1), (3, 3)] } {
            let error = (draw.below(6) == 0).then(|| "no answer".to_string());
            let token_ids: Vec<i32> = (0..draw.below(9)).collect();
            let prompt_token_count = draw.below(token_ids.len() as i32 + 1);
            let finish_reason = if error.is_some() { FinishReason::Error } else { FinishReason::Stop };
            let reward = (error.is_none() && draw.below(6) > 0).then(|| reward(draw));
            if draw.below(9) > 0 {
                rewards.push(rewards::Row {
                    prompt_id: id.clone(),
                    sampled_iteration,
                    response_index: index,
                    reward,
                    reward_fingerprint: "r".into(),
                    components: None,
                    error: reward.is_none().then(|| "no reward".to_string()),
                });
            }
            if draw.below(9) > 0 {
                let (text, policy_fingerprint) = (String::new(), String::new());
                let (prompt_id, logprob) = (id.clone(), None);
                let response_index = index;
                responses.push(responses::Row {
                    prompt_id,
                    sampled_iteration,
                    response_index,
                    token_ids,
                    prompt_token_count,
                    text,
                    finish_reason,
                    logprob,
                    token_logprobs: None,
                    policy_fingerprint,
                    error,
                });
            }
        }
    }
    Tables { ids, pool, responses, rewards }
}

/// The rows in batches of random length.
fn cut(draw: &mut Draw, rows: &RecordBatch) -> Vec<RecordBatch> {
    let (mut batches, mut start) = (vec![rows.slice(0, 0)], 0);
    while start < rows.num_rows() {
        let count = (1 + draw.below(20) as usize).min(rows.num_rows() - start);
        batches.push(rows.slice(start, count));
        start += count;
    }
    batches
}

fn whole(kind: TableKind, batches: &[RecordBatch]) -> RecordBatch {
    let batches: Vec<RecordBatch> = batches.iter().map(|batch| kind.conform(batch).unwrap()).collect();
    concat_batches(&kind.schema(), &batches).unwrap()
}

/// Compares the rows of a merge join with those of the SQL, to the last bit.
fn assert_same(kind: TableKind, walk: impl Iterator<Item = Result<RecordBatch, OperatorError>>, session: &Session, sql: &str) {
    let walk = whole(kind, &walk.collect::<Result<Vec<_>, _>>().unwrap());
    assert_eq!(walk, whole(kind, &session.query(sql).unwrap()), "{sql}");
    kind.check(&walk).unwrap();
}

const SLICES: [usize; 4] = [1, 3, 50, 1 << 20];

#[test]
fn merge_gives_what_its_sql_says() {
    for seed in 0..40 {
        let mut draw = Draw(seed);
        let tables = tables(&mut draw, seed as i32);
        let session = Session::new().unwrap();
        session.register_batches("rewards", cut(&mut draw, &rewards::batch(&tables.rewards))).unwrap();
        session.register_batches("responses", cut(&mut draw, &responses::batch(&tables.responses))).unwrap();
        session.register_batches("carried", cut(&mut draw, &pool::batch(&tables.pool))).unwrap();
        for (carried, keep_best) in [(true, false), (true, true), (false, false), (false, true)] {
            for rows in SLICES {
                let walk = merge::rows(&session, carried, keep_best, FreshOrder::Sorted, PromptGroups::new(rows)).unwrap();
                assert_same(TableKind::Pool, walk, &session, &merge::sql(carried, keep_best));
            }
        }
    }
}

#[test]
fn pair_gives_what_its_sql_says() {
    for seed in 0..25 {
        let (mut draw, stream) = (Draw(seed), Stream { seed, iteration: 2 });
        let tables = tables(&mut draw, seed as i32);
        let session = Session::new().unwrap();
        let draws = tables.pool.iter().map(|row| stream.draw_response(&row.prompt_id, row.response_index));
        session.register_batches("pool", cut(&mut draw, &with_draws(&pool::batch(&tables.pool), draws))).unwrap();
        let clips = [
            (WeightKind::None, None),
            (WeightKind::Linear, Some(0.7)),
            (WeightKind::Sigmoid, None),
            (WeightKind::Inverse, Some(0.7)),
            (WeightKind::Exponential, Some(2.5)),
        ];
        for rejected in [Rejected::Worst, Rejected::Random, Rejected::TwoSigma] {
            for (kind, clip) in clips {
                for normalize in [Normalize::None, Normalize::Mean] {
                    let weight = Weight { kind, gap_scale: 1.3, normalize, clip };
                    for truncated in [Truncated::Keep, Truncated::Drop, Truncated::Penalize(Penalize { by: 0.4 })] {
                        let settings = Pair { rejected, weight: weight.clone(), truncated, ..Pair::default() };
                        for rows in if settings.truncated == Truncated::Keep { vec![1, 3, 1 << 20] } else { vec![3] } {
                            let walk = pair::rows(&session, &settings, stream, || PromptGroups::new(rows)).unwrap();
                            assert_same(TableKind::Pairs, walk, &session, &pair::sql(&settings));
                        }
                    }
                }
            }
        }
    }
}

/// The rows with one number each.
fn with_draws(rows: &RecordBatch, draws: impl Iterator<Item = i64>) -> RecordBatch {
    let columns = rows.schema().fields().iter().map(|field| field.name().clone()).zip(rows.columns().iter().cloned()).collect::<Vec<_>>();
    let draws: ArrayRef = Arc::new(Int64Array::from_iter_values(draws));
    RecordBatch::try_from_iter(columns.into_iter().chain([("draw".to_string(), draws)])).unwrap()
}

/// The facts about prompts in select's SQL, in an order of its own.
fn drawn(draw: &mut Draw, ids: &[String], stream: Stream) -> RecordBatch {
    let mut ids: Vec<&str> = ids.iter().map(String::as_str).collect();
    (1..ids.len()).for_each(|index| ids.swap(index, draw.below(index as i32 + 1) as usize));
    let draws = Int64Array::from_iter_values(ids.iter().map(|id| stream.draw(id)));
    let groups: StringArray = ids.iter().map(|id| [None, Some("a"), Some("b")][id.len() % 3]).collect();
    let ids = StringArray::from_iter_values(ids);
    let columns: [(&str, ArrayRef); 3] = [("prompt_id", Arc::new(ids)), ("draw", Arc::new(draws)), ("the \"group", Arc::new(groups))];
    RecordBatch::try_from_iter_with_nullable(columns.map(|(name, column)| (name, column, true))).unwrap()
}

/// The last selection, of some of the prompts, with other scores than now.
fn previous(draw: &mut Draw, ids: &[String]) -> RecordBatch {
    let row = |prompt_id: &String, score: Option<f64>, rank: i64| selection::Row {
        prompt_id: prompt_id.clone(),
        score,
        rank,
        selected: rank < 4,
        expected_gain: None,
        expected_tokens: None,
        belief_mean: None,
        belief_variance: None,
    };
    let rows = ids.iter().enumerate().filter(|_| draw.below(6) > 0).map(|(rank, id)| (rank as i64 + 1, id)).collect::<Vec<_>>();
    selection::batch(&rows.iter().map(|(rank, id)| row(id, (draw.below(5) > 0).then(|| reward(draw)), *rank)).collect::<Vec<_>>())
}

/// The last selection with beliefs; some prompts have none.
fn previous_beliefs(draw: &mut Draw, ids: &[String]) -> RecordBatch {
    let mut rows = selection::rows(&previous(draw, ids)).unwrap();
    for row in rows.iter_mut().filter(|row| row.score.is_some()) {
        row.belief_mean = Some(f64::from(draw.below(99) + 1) / 100.0);
        row.belief_variance = Some(f64::from(draw.below(80) + 1) / 1000.0);
    }
    selection::batch(&rows)
}

#[test]
fn select_gives_what_its_sql_says() {
    let strategies = [
        Strategy::LowestReward,
        Strategy::HighestReward,
        Strategy::Random,
        Strategy::All,
        Strategy::RewardGain,
        Strategy::DropHardest(DropHardest { share: 0.3 }),
        Strategy::Band(Band { low: Some(0.2), high: Some(0.9) }),
        Strategy::ZScore(ZScore { group: "the \"group".into() }),
        Strategy::SkipUninformative(SkipUninformative { explore: 0.5 }),
    ];
    for seed in 0..12 {
        let mut draw = Draw(seed);
        let (tables, stream) = (tables(&mut draw, seed as i32), Stream { seed, iteration: 2 });
        // Some of the pool's prompts are not asked any more.
        let asked: Vec<String> = tables.ids.iter().filter(|_| draw.below(8) > 0).cloned().collect();
        for strategy in &strategies {
            for (rank_by, max_age) in [(RankBy::Mean, None), (RankBy::Min, Some(1)), (RankBy::Max, None), (RankBy::Gap, Some(2))] {
                let before = (*strategy == Strategy::RewardGain).then(Default::default);
                let settings = Select { strategy: strategy.clone(), previous: before, rank_by, max_age, ratio: 0.5, ..Select::default() };
                for rows in [1, 50] {
                    let space = Space::new();
                    let [session, ranking] = [0, 1].map(|_| Session::with_memory_limit(64 << 20, space.path()).unwrap());
                    let prompts = drawn(&mut draw, &asked, stream);
                    session.register_batches("prompts", cut(&mut draw, &prompts)).unwrap();
                    session.register_batches("pool", cut(&mut draw, &pool::batch(&tables.pool))).unwrap();
                    session.register_batches("previous", cut(&mut draw, &previous(&mut Draw(seed), &asked))).unwrap();
                    let quota = Quota::new(&settings, asked.len(), 2, true);
                    let parameters = SelectionParameters { settings: &settings, quota, stream, pool_query: POOL_QUERY };
                    let walk = select::rows(&session, &ranking, parameters, || PromptGroups::new(rows)).unwrap();
                    assert_same(TableKind::Selection, walk, &session, &select::sql(&settings, 2, Some(quota), true));
                    // The SQL for people gives the same.
                    let [one, other] = [Some(quota), None].map(|quota| session.query(&select::sql(&settings, 2, quota, true)).unwrap());
                    assert_eq!(whole(TableKind::Selection, &one), whole(TableKind::Selection, &other));
                }
            }
        }
    }
}

/// Predictions are equal up to the rounding of their sums, so keys of equal gains may be in another
/// order than in the SQL.
#[test]
fn predictions_and_budgets_are_what_the_sql_says() {
    for seed in 0..24 {
        let mut draw = Draw(seed);
        let (tables, stream) = (tables(&mut draw, seed as i32), Stream { seed, iteration: 2 });
        let asked: Vec<String> = tables.ids.iter().filter(|_| draw.below(8) > 0).cloned().collect();
        let predicting = |objective, neighbors| Strategy::ExpectedGain(ExpectedGain { objective, neighbors });
        let strategies = [
            predicting(Objective::Best, 60),
            predicting(Objective::Gap, 3),
            Strategy::Posterior(Posterior::default()),
            Strategy::Posterior(Posterior { forget: 0.5, explore: 0.3, ..Posterior::default() }),
            Strategy::LowestReward,
            Strategy::Band(Band { low: Some(-0.5), high: None }),
            Strategy::DropHardest(DropHardest { share: 0.3 }),
        ];
        for strategy in strategies {
            for (tokens, max_age, responses_per_prompt) in [(Some(60), None, 1), (Some(200), Some(1), 3), (None, None, 2)] {
                // Beliefs go on from the last selection, or begin here.
                let previous = (matches!(strategy, Strategy::Posterior(_)) && tokens.is_some()).then(Default::default);
                let settings =
                    Select { strategy: strategy.clone(), previous, max_age, ratio: 0.7, tokens, responses_per_prompt, ..Select::default() };
                let space = Space::new();
                let [session, ranking] = [0, 1].map(|_| Session::with_memory_limit(64 << 20, space.path()).unwrap());
                session.register_batches("prompts", vec![drawn(&mut draw, &asked, stream)]).unwrap();
                session.register_batches("pool", cut(&mut draw, &pool::batch(&tables.pool))).unwrap();
                session.register_batches("previous", cut(&mut draw, &previous_beliefs(&mut Draw(seed), &asked))).unwrap();
                let quota = Quota::new(&settings, asked.len(), 2, true);
                let parameters = SelectionParameters { settings: &settings, quota, stream, pool_query: POOL_QUERY };
                let walk = select::rows(&session, &ranking, parameters, || PromptGroups::new(7)).unwrap();
                let walk = selection::rows(&whole(TableKind::Selection, &walk.collect::<Result<Vec<_>, _>>().unwrap())).unwrap();
                let sql = session.query(&select::sql(&settings, 2, Some(quota), true)).unwrap();
                let sql = selection::rows(&whole(TableKind::Selection, &sql)).unwrap();
                assert_eq!(walk.len(), sql.len());
                for (one, other) in walk.iter().zip(&sql) {
                    let close = |one: Option<f64>, other: Option<f64>| match (one, other) {
                        (Some(one), Some(other)) => (one - other).abs() <= 1e-9,
                        (one, other) => one == other,
                    };
                    assert_eq!((&one.prompt_id, one.score, one.selected), (&other.prompt_id, other.score, other.selected), "{settings:?}");
                    assert!(close(one.expected_gain, other.expected_gain), "{one:?} {other:?}");
                    assert!(close(one.expected_tokens, other.expected_tokens), "{one:?} {other:?}");
                    assert!(close(one.belief_mean, other.belief_mean), "{one:?} {other:?}");
                    assert!(close(one.belief_variance, other.belief_variance), "{one:?} {other:?}");
                }
            }
        }
    }
}

#[test]
fn more_prompts_than_fit_into_memory_are_ranked_alike() {
    let (mut draw, space) = (Draw(3), Space::new());
    let ids: Vec<String> = (0..200_000).map(|_| format!("{:016x}", draw.bits())).collect();
    let mut rows: Vec<pool::Row> = (ids.iter().flat_map(|id| (0..2).map(|index| (id.clone(), index))))
        .map(|(prompt_id, response_index)| {
            let (sampled_iteration, token_count, finish_reason) = (1, 4, FinishReason::Stop);
            pool::Row {
                prompt_id,
                response_index,
                sampled_iteration,
                reward: f64::from(draw.below(100)) / 64.0,
                token_count,
                finish_reason,
            }
        })
        .collect();
    rows.sort_by(|one, other| (&one.prompt_id, one.response_index).cmp(&(&other.prompt_id, other.response_index)));
    let pool = pool::batch(&rows);
    let (prompts, stream) = (drawn(&mut draw, &ids, Stream { seed: 1, iteration: 2 }), Stream { seed: 1, iteration: 2 });
    let settings = Select { ratio: 0.5, ..Select::default() };
    let parameters =
        SelectionParameters { settings: &settings, quota: Quota { count: 100_000, dropped: 0 }, stream, pool_query: POOL_QUERY };
    let ranked = |bytes: usize| {
        let [session, ranking] = [0, 1].map(|_| Session::with_memory_limit(bytes, space.path()).unwrap());
        // Copies: a slice counts with its whole buffer.
        let batch = |rows: &RecordBatch, at| take_record_batch(rows, &UInt32Array::from_iter_values(at..at + 5000)).unwrap();
        let batches = |rows: &RecordBatch| (0..rows.num_rows() as u32).step_by(5000).map(|at| batch(rows, at)).collect();
        session.register_batches("prompts", batches(&prompts)).unwrap();
        session.register_batches("pool", batches(&pool)).unwrap();
        let walk = select::rows(&session, &ranking, parameters, PromptGroups::default).unwrap();
        whole(TableKind::Selection, &walk.collect::<Result<Vec<_>, _>>().unwrap())
    };
    // A sort reserves 10 MiB for merging its runs on disk.
    assert_eq!(ranked(14 << 20), ranked(1 << 30));
}

#[test]
fn rows_that_are_not_in_their_place_are_found() {
    let row = |prompt: &str, response_index: i32| pool::Row {
        prompt_id: prompt.into(),
        response_index,
        sampled_iteration: 1,
        reward: f64::from(response_index),
        token_count: 1,
        finish_reason: FinishReason::Stop,
    };
    let problem = |rows: &[pool::Row], length: usize| {
        let (rows, session) = (pool::batch(rows), Session::new().unwrap());
        let batches = (0..rows.num_rows()).step_by(length).map(|at| rows.slice(at, length.min(rows.num_rows() - at)));
        session.register_batches("pool", batches.collect()).unwrap();
        let walk = pair::rows(&session, &Pair::default(), Stream { seed: 1, iteration: 1 }, || PromptGroups::new(2)).unwrap();
        walk.collect::<Result<Vec<_>, _>>().err().map(|error| error.to_string())
    };
    for length in 1..5 {
        assert_eq!(problem(&[row("a", 0), row("a", 1), row("b", 0), row("c", 0)], length), None);
        let found = problem(&[row("a", 0), row("c", 0), row("c", 1), row("b", 7)], length).unwrap();
        assert_eq!(
            found,
            "table pool: expected rows in ascending order of prompt_id, response_index, sampled_iteration, found b, 7, 1 after c, 1, 1"
        );
        assert!(problem(&[row("a", 0), row("b", 1), row("b", 1)], length).unwrap().ends_with("found b, 1, 1 after b, 1, 1"));
        assert!(problem(&[row("a", 1), row("a", 0)], length).unwrap().ends_with("found a, 0, 1 after a, 1, 1"));
    }
}

#[test]
fn a_part_has_the_same_bytes_from_any_batches_and_on_any_number_of_threads() {
    let mut draw = Draw(8);
    let rows: Vec<pool::Row> = (0..300_000)
        .map(|index| pool::Row {
            prompt_id: format!("{:08}", index / 4),
            response_index: index % 4,
            sampled_iteration: draw.below(2),
            reward: reward(&mut draw),
            token_count: draw.below(30),
            finish_reason: FinishReason::ALL[draw.below(2) as usize],
        })
        .collect();
    let rows = pool::batch(&rows);
    let bytes = |threads: usize, length: usize| {
        let (space, place) = (Space::new(), OutputKey::table("pool", None));
        let lock = space.lock("run");
        let threads = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        threads.install(|| {
            let mut writer = lock.write_table(&place, &recipe(0.5), Some(TableKind::Pool), 0, 1).unwrap();
            if length == rows.num_rows() {
                writer.commit(0, &rows).unwrap();
            } else {
                let mut part = writer.begin(0, &rows.schema()).unwrap().unwrap();
                let starts = (0..rows.num_rows()).step_by(length);
                starts.for_each(|at| part.write(&rows.slice(at, length.min(rows.num_rows() - at))).unwrap());
                assert_eq!(part.commit().unwrap(), 300_000);
            }
            writer.finish(Default::default()).unwrap();
        });
        fs::read(lock.path(&place).join("part-00000.parquet")).unwrap()
    };
    let expected = bytes(1, rows.num_rows());
    for (threads, length) in [(1, 7_001), (2, rows.num_rows()), (3, 131_072), (2, 1_000)] {
        assert!(bytes(threads, length) == expected, "{threads} threads, batches of {length}");
    }
}
