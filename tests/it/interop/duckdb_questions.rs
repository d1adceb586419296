//! The questions of tests/python/questions.sql, answered by DataFusion over a small run. The
//! expected answers are worked out by hand.
//!
//! With KEEP_RUN_DIR set the run stays there, for tests/python/read_with_duckdb.py to answer the
//! same.

use std::path::PathBuf;

use arrow::util::pretty::pretty_format_batches;
use optune::sql::Session;
use optune::store::OutputKey;
use optune::tables::{FinishReason, TableKind, pool, prompts, responses, rewards, selection};

use crate::fixtures::store::{Space, counts, recipe};
use arrow::array::RecordBatch;
use optune::store::Run;
use optune::store::Runs;

/// Two prompts. Iteration 1 samples both, iteration 2 only `a`: its mean reward rises from 1.5 to
/// 4.
fn small_run(runs: &Runs) -> Run {
    let lock = runs.run("small").unwrap().lock().unwrap();
    let write = |name: &str, iteration: u32, kind: TableKind, batch: &RecordBatch| {
        let place = OutputKey::table(name, Some(iteration));
        let mut made = recipe(f64::from(iteration));
        made.operator = name.into();
        let mut writer = lock.write_table(&place, &made, Some(kind), batch.num_rows(), 1000).unwrap();
        if writer.missing() == [0] {
            writer.commit(0, batch).unwrap();
            writer.finish(counts()).unwrap();
        }
    };
    for (iteration, sampled, held) in
        [(1, vec![("a", 1.0), ("a", 2.0), ("b", 5.0), ("b", 7.0)], vec![]), (2, vec![("a", 3.0), ("a", 5.0)], vec![("b", 5.0), ("b", 7.0)])]
    {
        let selected = |prompt_id: &str| sampled.iter().any(|(id, _)| *id == prompt_id);
        let row = |(prompt_id, rank): (&str, i64)| selection::Row {
            prompt_id: prompt_id.into(),
            score: None,
            rank,
            selected: selected(prompt_id),
            expected_gain: None,
            expected_tokens: None,
            belief_mean: None,
            belief_variance: None,
        };
        write("selection", iteration, TableKind::Selection, &selection::batch(&[("a", 1), ("b", 2)].map(row)));
        let sampled_iteration = iteration as i32;
        let response = |(index, (prompt_id, _)): (usize, &(&str, f64))| responses::Row {
            prompt_id: prompt_id.to_string(),
            sampled_iteration,
            response_index: index as i32 % 2,
            token_ids: vec![1; 10 + index],
            prompt_token_count: 8,
            text: "x".into(),
            finish_reason: FinishReason::Stop,
            logprob: Some(-1.0),
            token_logprobs: None,
            policy_fingerprint: "p".into(),
            error: None,
        };
        write(
            "responses",
            iteration,
            TableKind::Responses,
            &responses::batch(&sampled.iter().enumerate().map(response).collect::<Vec<_>>()),
        );
        let reward = |(index, (prompt_id, reward)): (usize, &(&str, f64))| rewards::Row {
            prompt_id: prompt_id.to_string(),
            sampled_iteration,
            response_index: index as i32 % 2,
            reward: Some(*reward),
            reward_fingerprint: "r".into(),
            components: Some([("length".to_string(), 1.0)].into()),
            error: None,
        };
        write("rewards", iteration, TableKind::Rewards, &rewards::batch(&sampled.iter().enumerate().map(reward).collect::<Vec<_>>()));
        let member = |sampled_iteration: i32| {
            move |(index, (prompt_id, reward)): (usize, &(&str, f64))| pool::Row {
                prompt_id: prompt_id.to_string(),
                response_index: index as i32 % 2,
                sampled_iteration,
                reward: *reward,
                token_count: 2,
                finish_reason: FinishReason::Stop,
            }
        };
        let members = sampled.iter().enumerate().map(member(sampled_iteration)).chain(held.iter().enumerate().map(member(1)));
        write("pool", iteration, TableKind::Pool, &pool::batch(&members.collect::<Vec<_>>()));
    }
    runs.run("small").unwrap()
}

fn prompt(prompt_id: &str, group: &str) -> prompts::Row {
    prompts::Row {
        prompt_id: prompt_id.into(),
        prompt: Some("?".into()),
        messages: None,
        reference_answer: None,
        group: Some(group.into()),
        metadata: None,
    }
}

#[test]
fn the_questions_are_answered_as_by_hand() {
    let space = Space::new();
    let kept = std::env::var_os("KEEP_RUN_DIR").map(PathBuf::from);
    let root = kept.unwrap_or_else(|| space.path().join("runs"));
    let run = small_run(&Runs::open(&root).unwrap());
    // An outside table of prompts, made by the store for want of another writer.
    let lock = Runs::open(root.join("outside")).unwrap().run("prompts").unwrap().lock().unwrap();
    let place = OutputKey::table("prompts", None);
    let mut writer = lock.write_table(&place, &recipe(1.0), Some(TableKind::Prompts), 2, 2).unwrap();
    if writer.missing() == [0] {
        writer.commit(0, &prompts::batch(&[prompt("a", "math"), prompt("b", "story")])).unwrap();
    }
    let session = Session::over_run(&run).unwrap();
    session.register_files("prompts", &[(None, lock.path(&place).join("part-00000.parquet"))]).unwrap();

    let text = include_str!("../../python/questions.sql");
    let answers: Vec<String> = text
        .split(';')
        .filter(|question| question.contains("SELECT"))
        .map(|question| pretty_format_batches(&session.query(question).unwrap()).unwrap().to_string())
        .collect();
    let cells = |answer: &String| -> Vec<Vec<String>> {
        answer
            .lines()
            .filter(|line| line.starts_with('|'))
            .skip(1)
            .map(|line| line.split('|').map(str::trim).filter(|cell| !cell.is_empty()).map(String::from).collect())
            .collect()
    };
    assert_eq!(cells(&answers[0]), [["1", "math", "2", "1.5"], ["1", "story", "2", "6.0"], ["2", "math", "2", "4.0"]]);
    assert_eq!(cells(&answers[1]), [["2", "a", "1.5", "4.0", "2.5"]]);
    assert_eq!(cells(&answers[2]), [["1", "4", "14"], ["2", "2", "5"]]);
}
