//! select, merge and pair: the walks through sorted tables give what their SQL says, however the tables are cut, and find rows that are not
//! in their place.

use std::fs;

use arrow::array::{Int64Array, RecordBatch, StringArray, UInt32Array};
use arrow::compute::{concat_batches, take_record_batch};
use optune::pipeline::spec::relational::{Normalize, RankBy, Select, Strategy, Weight, WeightKind};
use optune::stages::seed::Stream;
use optune::stages::{StageError, merge, pair, select};
use optune::store::{Place, Session, Slices};
use optune::tables::{FinishReason, TableKind, pool, responses, rewards};

use crate::store::{Space, recipe};
use crate::tables::Draw;

/// Rewards with ties, zeros of both signs, and numbers whose sums are rounded.
fn reward(draw: &mut Draw) -> f64 {
    [0.0, -0.0, 0.5, -1.0, 1.0 / 3.0].get(draw.below(7) as usize).copied().unwrap_or_else(|| draw.bits() as f64 / 1e18 - 9.0)
}

/// Tables of one iteration in the order of their keys: prompts without rewards, with one, with many; responses and rewards that failed or
/// are missing.
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
            let (born, finish_reason) = (draw.below(2), FinishReason::ALL[draw.below(2) as usize]);
            let (reward, token_count) = (reward(draw), draw.below(50));
            pool.push(pool::Row { prompt_id: id.clone(), response_index: index, born, reward, token_count, finish_reason });
        }
        // Of two iterations, one's responses with even numbers, the other's with odd ones: their order is not the pool's.
        for (born, index) in if draw.chance() { vec![] } else { vec![(2, 0), (2, 2), (2, 4), (3, 1), (3, 3)] } {
            let error = (draw.below(6) == 0).then(|| "no answer".to_string());
            let token_ids: Vec<i32> = (0..draw.below(9)).collect();
            let prompt_token_count = draw.below(token_ids.len() as i32 + 1);
            let finish_reason = if error.is_some() { FinishReason::Error } else { FinishReason::Stop };
            let reward = (error.is_none() && draw.below(6) > 0).then(|| reward(draw));
            if draw.below(9) > 0 {
                rewards.push(rewards::Row {
                    prompt_id: id.clone(),
                    born,
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
                    born,
                    response_index,
                    token_ids,
                    prompt_token_count,
                    text,
                    finish_reason,
                    logprob,
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

/// Compares what a walk gives with what the SQL gives, to the last bit.
fn assert_same(kind: TableKind, walk: impl Iterator<Item = Result<RecordBatch, StageError>>, session: &Session, sql: &str) {
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
        for carried in [true, false] {
            for rows in SLICES {
                let walk = merge::rows(&session, carried, Slices::of_rows(rows)).unwrap();
                assert_same(TableKind::Pool, walk, &session, &merge::sql(carried));
            }
        }
    }
}

#[test]
fn pair_gives_what_its_sql_says() {
    for seed in 0..25 {
        let mut draw = Draw(seed);
        let tables = tables(&mut draw, seed as i32);
        let session = Session::new().unwrap();
        session.register_batches("pool", cut(&mut draw, &pool::batch(&tables.pool))).unwrap();
        for kind in [WeightKind::None, WeightKind::Linear, WeightKind::Sigmoid] {
            for normalize in [Normalize::None, Normalize::Mean] {
                for clip in [None, Some(0.7)] {
                    let weight = Weight { kind, gap_scale: 1.3, normalize, clip };
                    for rows in [1, 3, 1 << 20] {
                        let walk = pair::rows(&session, &weight, || Slices::of_rows(rows)).unwrap();
                        assert_same(TableKind::Pairs, walk, &session, &pair::sql(&weight));
                    }
                }
            }
        }
    }
}

/// What select's SQL knows of prompts, in an order of its own.
fn drawn(draw: &mut Draw, ids: &[String], stream: Stream) -> RecordBatch {
    let mut ids: Vec<&str> = ids.iter().map(String::as_str).collect();
    (1..ids.len()).for_each(|index| ids.swap(index, draw.below(index as i32 + 1) as usize));
    let draws = Int64Array::from_iter_values(ids.iter().map(|id| stream.draw(id)));
    let ids = StringArray::from_iter_values(ids);
    RecordBatch::try_from_iter([("prompt_id", std::sync::Arc::new(ids) as _), ("draw", std::sync::Arc::new(draws) as _)]).unwrap()
}

#[test]
fn select_gives_what_its_sql_says() {
    for seed in 0..30 {
        let mut draw = Draw(seed);
        let (tables, stream) = (tables(&mut draw, seed as i32), Stream { seed, iteration: 2 });
        // Some of the pool's prompts are not asked any more.
        let asked: Vec<String> = tables.ids.iter().filter(|_| draw.below(8) > 0).cloned().collect();
        for strategy in [Strategy::LowestReward, Strategy::Random, Strategy::All] {
            for rank_by in [RankBy::Mean, RankBy::Min, RankBy::Max, RankBy::Gap] {
                let settings = Select { prompts: Default::default(), pool: None, strategy, rank_by, ratio: 0.5 };
                for rows in [1, 50] {
                    let space = Space::new();
                    let [session, ranking] = [0, 1].map(|_| Session::with_memory_limit(64 << 20, space.path()).unwrap());
                    let prompts = drawn(&mut draw, &asked, stream);
                    session.register_batches("prompts", cut(&mut draw, &prompts)).unwrap();
                    session.register_batches("pool", cut(&mut draw, &pool::batch(&tables.pool))).unwrap();
                    let count = asked.len() / 2;
                    let walk = select::rows(&session, &ranking, &settings, count, stream, Slices::of_rows(rows)).unwrap();
                    assert_same(TableKind::Selection, walk, &session, &select::sql(&settings, Some(count), true));
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
            let (born, token_count, finish_reason) = (1, 4, FinishReason::Stop);
            pool::Row { prompt_id, response_index, born, reward: f64::from(draw.below(100)) / 64.0, token_count, finish_reason }
        })
        .collect();
    rows.sort_by(|one, other| (&one.prompt_id, one.response_index).cmp(&(&other.prompt_id, other.response_index)));
    let pool = pool::batch(&rows);
    let (prompts, stream) = (drawn(&mut draw, &ids, Stream { seed: 1, iteration: 2 }), Stream { seed: 1, iteration: 2 });
    let settings = Select { prompts: Default::default(), pool: None, strategy: Strategy::LowestReward, rank_by: RankBy::Mean, ratio: 0.5 };
    let ranked = |bytes: usize| {
        let [session, ranking] = [0, 1].map(|_| Session::with_memory_limit(bytes, space.path()).unwrap());
        // Copies, since a slice counts as all that it is a slice of.
        let batch = |rows: &RecordBatch, at| take_record_batch(rows, &UInt32Array::from_iter_values(at..at + 5000)).unwrap();
        let batches = |rows: &RecordBatch| (0..rows.num_rows() as u32).step_by(5000).map(|at| batch(rows, at)).collect();
        session.register_batches("prompts", batches(&prompts)).unwrap();
        session.register_batches("pool", batches(&pool)).unwrap();
        let walk = select::rows(&session, &ranking, &settings, 100_000, stream, Slices::default()).unwrap();
        whole(TableKind::Selection, &walk.collect::<Result<Vec<_>, _>>().unwrap())
    };
    // A sort keeps 10 MiB back for merging what it has on disk.
    assert_eq!(ranked(14 << 20), ranked(1 << 30));
}

#[test]
fn rows_that_are_not_in_their_place_are_found() {
    let row = |prompt: &str, response_index: i32| pool::Row {
        prompt_id: prompt.into(),
        response_index,
        born: 1,
        reward: f64::from(response_index),
        token_count: 1,
        finish_reason: FinishReason::Stop,
    };
    let problem = |rows: &[pool::Row], length: usize| {
        let (rows, session) = (pool::batch(rows), Session::new().unwrap());
        let batches = (0..rows.num_rows()).step_by(length).map(|at| rows.slice(at, length.min(rows.num_rows() - at)));
        session.register_batches("pool", batches.collect()).unwrap();
        let walk = pair::rows(&session, &Weight::default(), || Slices::of_rows(2)).unwrap();
        walk.collect::<Result<Vec<_>, _>>().err().map(|error| error.to_string())
    };
    for length in 1..5 {
        assert_eq!(problem(&[row("a", 0), row("a", 1), row("b", 0), row("c", 0)], length), None);
        let found = problem(&[row("a", 0), row("c", 0), row("c", 1), row("b", 7)], length).unwrap();
        assert_eq!(found, "table pool: expected rows in ascending order of prompt_id, response_index, found b, 7 after c, 1");
        assert!(problem(&[row("a", 0), row("b", 1), row("b", 1)], length).unwrap().ends_with("found b, 1 after b, 1"));
        assert!(problem(&[row("a", 1), row("a", 0)], length).unwrap().ends_with("found a, 0 after a, 1"));
    }
}

#[test]
fn a_part_has_the_same_bytes_from_any_batches_and_on_any_number_of_threads() {
    let mut draw = Draw(8);
    let rows: Vec<pool::Row> = (0..300_000)
        .map(|index| pool::Row {
            prompt_id: format!("{:08}", index / 4),
            response_index: index % 4,
            born: draw.below(2),
            reward: reward(&mut draw),
            token_count: draw.below(30),
            finish_reason: FinishReason::ALL[draw.below(2) as usize],
        })
        .collect();
    let rows = pool::batch(&rows);
    let bytes = |threads: usize, length: usize| {
        let (space, place) = (Space::new(), Place::table("pool", None));
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
