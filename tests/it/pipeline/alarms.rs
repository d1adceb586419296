//! Signs of over-optimization: by the rules, from tables, and told by a run.

use std::sync::Arc;

use arrow::array::{ArrayRef, Int32Array, RecordBatch};
use optune::alarm::{self, Change, Iteration, Prompt, Sign, alarms};
use optune::sql::Session;
use optune::tables::{FinishReason, Outcome, benchmark, evaluation, responses, training};

use crate::fixtures::workspace::Workspace;

/// A healthy iteration of forty prompts: the reward rises from 0.4 by `rise`, with noise.
fn healthy(iteration: i64, rise: f64) -> Iteration {
    let prompt = |index: usize| {
        let noise = ((index * 7919) % 40) as f64 / 40.0 - 0.4875;
        Prompt {
            id: format!("p-{index:02}"),
            reward: 0.4 + rise + 0.2 * noise,
            baseline_reward: 0.4 - 0.2 * noise,
            nll: 0.7 + 0.3 * noise,
            baseline_nll: 0.57 + 0.2 * noise,
            tokens: 45.0 + 10.0 * noise,
            baseline_tokens: 40.0 - 10.0 * noise,
            truncated: f64::from(u8::from(index.is_multiple_of(10))),
            baseline_truncated: f64::from(u8::from(index.is_multiple_of(9))),
        }
    };
    let benchmarks = vec![Change { name: "kept arc acc".to_string(), change: -0.03, high: 0.01 }];
    Iteration { iteration, prompts: (0..40).map(prompt).collect(), kl: Some(3.0), benchmarks }
}

fn with(mut iteration: Iteration, change: impl Fn(usize, &mut Prompt)) -> Iteration {
    iteration.prompts.iter_mut().enumerate().for_each(|(index, prompt)| change(index, prompt));
    iteration
}

fn signs(iterations: &[Iteration]) -> Vec<(i64, Sign)> {
    alarms(iterations).into_iter().map(|alarm| (alarm.iteration, alarm.sign)).collect()
}

#[test]
fn a_healthy_run_has_no_alarm() {
    let run: Vec<Iteration> = (1..=6).map(|iteration| healthy(iteration, 0.05 * iteration as f64)).collect();
    assert_eq!(signs(&run), []);
    // A plateau with noise is no fall, and growing lengths are none before they double.
    let plateau: Vec<Iteration> = (1..=6).map(|t| healthy(t, if t % 2 == 0 { 0.2 } else { 0.21 })).collect();
    assert_eq!(signs(&plateau), []);
    assert_eq!(signs(&[with(healthy(1, 0.2), |_, prompt| prompt.tokens *= 1.6)]), []);
    assert_eq!(signs(&[]), []);
}

#[test]
fn each_sign_is_found_by_its_numbers() {
    let nll = with(healthy(2, 0.3), |_, prompt| prompt.nll += 0.9);
    assert_eq!(signs(&[healthy(1, 0.1), nll.clone()]), [(2, Sign::Nll)]);
    let long = with(healthy(1, 0.3), |_, prompt| prompt.tokens = 2.5 * prompt.baseline_tokens);
    assert_eq!(signs(&[long]), [(1, Sign::Length)]);
    let short = with(healthy(1, 0.3), |_, prompt| prompt.tokens = 0.3 * prompt.baseline_tokens);
    assert_eq!(signs(&[short]), [(1, Sign::Length)]);
    let cut = with(healthy(1, 0.0), |index, prompt| prompt.truncated = f64::from(u8::from(index.is_multiple_of(2))));
    assert_eq!(signs(&[cut]), [(1, Sign::Truncated)]);
    let kl = Iteration { kl: Some(60.0), ..healthy(1, 0.3) };
    assert_eq!(signs(std::slice::from_ref(&kl)), [(1, Sign::Kl)]);
    let fallen = healthy(3, 0.05);
    assert_eq!(signs(&[healthy(1, 0.1), healthy(2, 0.3), fallen]), [(3, Sign::RewardFalls)]);

    let fall = |change, high| Iteration { benchmarks: vec![Change { name: "kept arc acc".to_string(), change, high }], ..healthy(1, 0.3) };
    assert_eq!(signs(&[fall(-0.05, -0.01)]), [(1, Sign::Benchmark)]);
    assert_eq!(signs(&[fall(-0.01, -0.005)]), []);

    let found = &alarms(&[healthy(1, 0.1), nll])[0];
    assert!(found.text.contains("the held-out reward rises from 0.4") && found.text.contains("nats a token"), "{}", found.text);
    assert!(found.line().ends_with(Sign::Nll.advice()));
}

#[test]
fn neither_chance_nor_a_reward_that_does_not_rise_is_an_alarm() {
    // The same NLL of seven prompts only, or of a reward that stays.
    let nll = |_: usize, prompt: &mut Prompt| prompt.nll += 0.9;
    let mut few = with(healthy(1, 0.3), nll);
    few.prompts.truncate(7);
    assert_eq!(signs(&[few.clone()]), []);
    few.prompts.push(healthy(1, 0.3).prompts.swap_remove(7));
    assert_eq!(signs(&[few]), [(1, Sign::Nll)]);
    assert_eq!(
        signs(&[with(healthy(1, 0.0), |index, prompt| {
            nll(index, prompt);
            prompt.reward = prompt.baseline_reward;
        })]),
        []
    );
    // Two responses of a thousand tokens among forty double the mean, and may be chance.
    let outliers = with(healthy(1, 0.3), |index, prompt| {
        if index < 2 {
            prompt.tokens = 1000.0;
        }
    });
    assert_eq!(signs(&[outliers]), []);
}

#[test]
fn a_sign_that_stays_is_told_with_its_first_iteration() {
    let nll = |iteration| with(healthy(iteration, 0.3), |_, prompt| prompt.nll += 0.9);
    let all = alarms(&[healthy(1, 0.1), nll(2), nll(3), healthy(4, 0.3), nll(5)]);
    assert_eq!(all.iter().map(|alarm| (alarm.iteration, alarm.since)).collect::<Vec<_>>(), [(2, 2), (3, 2), (5, 5)]);
    assert!(all[1].line().contains("(since iteration 2)") && !all[0].line().contains("since"));
    let latest = alarm::latest(all);
    assert_eq!(latest.len(), 1);
    assert_eq!(latest[0].iteration, 5);
}

fn in_iterations(batches: Vec<RecordBatch>) -> Vec<RecordBatch> {
    let with_iteration = |(index, batch): (usize, RecordBatch)| {
        let iteration: ArrayRef = Arc::new(Int32Array::from(vec![index as i32 + 1; batch.num_rows()]));
        let schema = batch.schema();
        let columns = schema.fields().iter().map(|field| field.name().clone()).zip(batch.columns().iter().cloned());
        RecordBatch::try_from_iter_with_nullable(
            columns.chain([("iteration".to_string(), iteration)]).map(|(name, column)| (name, column, true)),
        )
        .unwrap()
    };
    batches.into_iter().enumerate().map(with_iteration).collect()
}

/// The tables of a run with these iterations.
fn session(run: &[Iteration]) -> Session {
    let evaluated = |iteration: &Iteration| {
        let row = |prompt: &Prompt| evaluation::Row {
            prompt_id: prompt.id.clone(),
            reward: prompt.reward,
            baseline_reward: prompt.baseline_reward,
            outcome: Outcome::Win,
            text: String::new(),
            baseline_text: String::new(),
            token_count: prompt.tokens,
            truncated: prompt.truncated,
            nll_initial: prompt.nll,
            baseline_nll_initial: prompt.baseline_nll,
        };
        evaluation::batch(&iteration.prompts.iter().map(row).collect::<Vec<_>>())
    };
    let response = |prompt: &Prompt| responses::Row {
        prompt_id: prompt.id.clone(),
        sampled_iteration: 0,
        response_index: 0,
        token_ids: vec![7; 3 + prompt.baseline_tokens as usize],
        prompt_token_count: 3,
        text: String::new(),
        finish_reason: if prompt.baseline_truncated > 0.5 { FinishReason::Length } else { FinishReason::Stop },
        logprob: None,
        token_logprobs: None,
        policy_fingerprint: "p".to_string(),
        error: None,
    };
    // The divergence grows within an iteration; its end counts.
    let trained = |iteration: &Iteration| {
        let row = |step: i64| training::Row {
            step,
            epoch: 1,
            loss: 0.5,
            reward_margin: Some(0.1),
            accuracy: Some(1.0),
            logprob_chosen: Some(-1.0),
            logprob_rejected: Some(-2.0),
            kl: Some(if step > 6 { iteration.kl.unwrap() } else { 0.0 }),
            gradient_norm: 1.0,
            learning_rate: 1e-3,
            tokens: 100,
        };
        training::batch(&(1..=8).map(row).collect::<Vec<_>>())
    };
    let session = Session::new().unwrap();
    session.register_batches("held", in_iterations(run.iter().map(evaluated).collect())).unwrap();
    // A further metric, and another task of the benchmark, are no signs.
    let benchmarked = |iteration: &Iteration| {
        let row = |task: &str, primary: bool, change: f64, high: f64| benchmark::Row {
            task: task.to_string(),
            metric: if primary { "acc" } else { "acc_norm" }.to_string(),
            primary,
            items: 100,
            failed: 0,
            value: 0.5,
            baseline: Some(0.5 - change),
            change: Some(change),
            change_low: Some(change - 0.1),
            change_high: Some(high),
        };
        let Change { change, high, .. } = iteration.benchmarks[0];
        benchmark::batch(&[row("arc", true, change, high), row("arc", false, -0.5, -0.4)])
    };
    session.register_batches("kept", in_iterations(run.iter().map(benchmarked).collect())).unwrap();
    let baseline: Vec<responses::Row> = run[0].prompts.iter().map(response).collect();
    session.register_batches("held_baseline_responses", vec![responses::batch(&baseline)]).unwrap();
    session.register_batches("tuned_training", in_iterations(run.iter().map(trained).collect())).unwrap();
    session
}

#[test]
fn the_tables_of_a_run_show_the_same_signs() {
    // Whole tokens, as tables of responses have them.
    let whole = |_: usize, prompt: &mut Prompt| prompt.baseline_tokens = prompt.baseline_tokens.trunc();
    let healthy = |iteration, rise| with(healthy(iteration, rise), whole);
    let run = [
        healthy(1, 0.1),
        with(healthy(2, 0.3), |index, prompt| {
            prompt.nll += 0.9;
            prompt.tokens = 2.5 * prompt.baseline_tokens;
            prompt.truncated = f64::from(u8::from(index.is_multiple_of(2)));
        }),
        Iteration {
            kl: Some(70.0),
            benchmarks: vec![Change { name: "kept arc acc".to_string(), change: -0.2, high: -0.1 }],
            ..healthy(3, 0.05)
        },
    ];
    let found = alarm::of_evaluation(&session(&run), "held", "tuned", &["kept"]).unwrap();
    assert_eq!(found, alarms(&run));
    let found: Vec<(i64, Sign)> = found.into_iter().map(|alarm| (alarm.iteration, alarm.sign)).collect();
    assert_eq!(
        found,
        [(2, Sign::Nll), (2, Sign::Length), (2, Sign::Truncated), (3, Sign::RewardFalls), (3, Sign::Kl), (3, Sign::Benchmark)]
    );
    assert_eq!(alarm::of_evaluation(&session(&run[..1]), "held", "tuned", &["kept"]).unwrap(), []);
    // Before the first evaluation, and with a policy that another program trained.
    assert_eq!(alarm::of_evaluation(&Session::new().unwrap(), "held", "tuned", &["kept"]).unwrap(), []);
    let elsewhere = alarm::of_evaluation(&session(&run), "held", "other", &[]).unwrap();
    assert!(elsewhere.iter().all(|alarm| alarm.sign != Sign::Kl));
}

/// A reward for length alone, and a far too high learning rate: the responses never end.
#[test]
fn a_run_tells_its_alarms_as_they_happen_and_again_in_summary_and_report() {
    let workspace = Workspace::new();
    workspace.write("reward.sql", "SELECT prompt_id, response_index, CAST(length(text) AS DOUBLE) AS reward FROM responses");
    let output = workspace.optune(&["run", "pipeline.yaml", "--set", "learning_rate=0.01", "--set", "iterations=3"]);
    let (told, summary) = (String::from_utf8(output.stderr).unwrap(), String::from_utf8(output.stdout).unwrap());
    assert!(output.status.success(), "{told}");
    let sign = "the responses cut off by the length limit rise from ";
    let line =
        told.lines().find(|line| line.starts_with("evaluation[") && line.contains(sign)).unwrap_or_else(|| panic!("{told}\n{summary}"));
    assert!(line.contains("warning: alarm: ") && line.contains("pair: { truncated: penalize }"), "{line}");
    assert!(summary.lines().any(|line| line.starts_with("alarm: evaluation, iteration 3: ") && line.contains(sign)), "{summary}");
    // Told again by a run without anything to do, and for machines.
    assert!(workspace.succeed(&["run", "pipeline.yaml", "--set", "learning_rate=0.01", "--set", "iterations=3"]).contains(sign));
    let json = workspace.succeed(&["run", "pipeline.yaml", "--set", "learning_rate=0.01", "--set", "iterations=3", "--json"]);
    let json: serde_json::Value = serde_json::from_str(&json).unwrap();
    let alarms = json["alarms"].as_array().unwrap();
    assert!(alarms.iter().any(|alarm| alarm["sign"] == "truncated" && alarm["node"] == "evaluation" && alarm["iteration"] == 3), "{json}");
    workspace.succeed(&["report", "small", "--output", "report.html"]);
    let page = std::fs::read_to_string(workspace.path("report.html")).unwrap();
    assert_eq!(
        page.matches("<p class=\"alarm\" role=\"alert\"><b>evaluation, iteration 3").count(),
        2 * alarms.len(),
        "in the overview and beside the curves"
    );
    assert!(page.contains(sign));
    assert!(page.contains("<code>pair: { truncated: penalize }</code> or <code>drop</code>"), "keys look like keys");
}
