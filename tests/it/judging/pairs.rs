//! Pairs of responses: figures equal to a hand computation, faults, kills and unreadable answers.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};
use serde_json::Value;

use super::{answered, chat, judged, question, texts};
use crate::fixtures::http_server::{Fate, Reply, Request, Server, misbehaving, well};
use crate::fixtures::workspace::Workspace;

/// Whether this judge takes the first response to a prompt, whatever it says.
fn is_biased(prompt: &str) -> bool {
    blake3::hash(prompt.as_bytes()).as_bytes()[0].is_multiple_of(3)
}

/// The longer response is better, or the later one in the alphabet; of some prompts the first.
fn verdict(prompt: &str, a: &str, b: &str) -> &'static str {
    if is_biased(prompt) || (a.chars().count(), a) > (b.chars().count(), b) { "[[A]]" } else { "[[B]]" }
}

fn honest(request: &Request) -> Reply {
    let asked = question(request);
    let text = |key: &str| asked[key].as_str().unwrap().to_string();
    chat(&format!("I think {}", verdict(&text("prompt"), &text("a"), &text("b"))))
}

/// What the judge of this file makes of an evaluation, by hand: the preference of each prompt, and
/// whether its two orders disagree.
fn by_hand(workspace: &Workspace, table: &str) -> Vec<(f64, Option<bool>)> {
    let rows = texts(workspace, table);
    let of = |[_, prompt, text, baseline]: &[String; 4]| {
        if text == baseline {
            return (0.5, None);
        }
        let first = if verdict(prompt, text, baseline) == "[[A]]" { 1.0 } else { 0.0 };
        let second = if verdict(prompt, baseline, text) == "[[B]]" { 1.0 } else { 0.0 };
        (if first == second { first } else { 0.5 }, Some(first != second))
    };
    rows.iter().map(of).collect()
}

fn assert_figures(workspace: &Workspace) -> Value {
    let summary: Value = serde_json::from_str(&workspace.succeed(&["run", "pipeline.yaml", "--json"])).unwrap();
    let found = &summary["judge"][0];
    let expected = by_hand(workspace, "evaluation");
    let count = expected.len() as f64;
    let mean = |value: &dyn Fn(f64) -> f64| 100.0 * expected.iter().map(|(preference, _)| value(*preference)).sum::<f64>() / count;
    let close = |key: &str, expected: f64| {
        let found = &found[key];
        let value = found["value"].as_f64().unwrap();
        assert!((value - expected).abs() < 1e-9, "{key}: {found}, expected {expected}");
        assert!(found["low"].as_f64().unwrap() <= value && value <= found["high"].as_f64().unwrap());
    };
    close("win_score", mean(&|preference| preference));
    close("win_rate", mean(&|preference| if preference == 1.0 { 1.0 } else { 0.0 }));
    let asked: Vec<bool> = expected.iter().filter_map(|(_, disagrees)| *disagrees).collect();
    let disagreeing = asked.iter().filter(|disagrees| **disagrees).count();
    assert!(disagreeing >= 2 && disagreeing < asked.len(), "{disagreeing} of {} are biased", asked.len());
    close("position_bias", 100.0 * disagreeing as f64 / asked.len() as f64);
    // Every honest pair takes the first once in two, a biased one twice.
    let first = (asked.len() + disagreeing) as f64 / (2 * asked.len()) as f64;
    assert!((found["first_preferred"].as_f64().unwrap() - 100.0 * first).abs() < 1e-9, "{found}");
    assert_eq!(found["prompt_tokens"], 200 * asked.len());
    assert_eq!(found["completion_tokens"], 6 * asked.len());
    found.clone()
}

#[test]
fn figures_equal_a_hand_computation_and_a_planted_bias_is_found() {
    let server = Server::start(well, honest);
    let workspace = judged(&server, "");
    let shown = workspace.succeed(&["run", "pipeline.yaml"]);
    assert!(shown.contains("evaluation_judge") && shown.contains("length-controlled %") && shown.contains("position bias"), "{shown}");
    let before = server.seen().len();
    assert_figures(&workspace);
    assert_eq!(server.seen().len(), before, "a finished node asks nothing");
    assert!(answered(&server.seen()).values().all(|count| *count == 1));
    assert!(server.most_in_flight() <= 4);
    // The items are a table.
    let sql = "SELECT count(*), count(DISTINCT \"order\"), count(verdict), count(error) FROM evaluation_judge";
    let rows = workspace.query("small", sql);
    assert_eq!(rows, "80,2,80,0");
    let unasked = workspace
        .query("small", "SELECT count(*) FROM evaluation_judge WHERE answer IS NULL AND (verdict <> 'tie' OR text <> baseline_text)");
    assert_eq!(unasked, "0", "only equal texts are not asked about");

    // The report shows them.
    workspace.succeed(&["report", "small", "--output", "report.html"]);
    let report = std::fs::read_to_string(workspace.path("report.html")).unwrap();
    assert!(report.contains("Length-controlled win rate") && report.contains("against base"));
    assert!(report.contains("<dt>Judge&#x27;s win score against base</dt>"), "in the overview");

    // Another evaluation with the same responses: every answer is kept.
    workspace.edit("pipeline.yaml", "max_new_tokens: 8, judge:", "max_new_tokens: 8, max_prompt_tokens: 500, judge:");
    let again = workspace.succeed(&["plan", "pipeline.yaml"]);
    assert!(again.contains("evaluation_judge"), "{again}");
    assert_figures(&workspace);
    assert_eq!(server.seen().len(), before, "no question is asked twice");
    // Another judge is asked anew.
    workspace.edit("pipeline.yaml", "model: known", "model: known, version: second");
    assert_figures(&workspace);
    assert_eq!(server.seen().len(), 2 * before);
}

#[test]
fn a_server_that_misbehaves_gives_every_verdict_right() {
    let server = Server::start(misbehaving(23, 20), honest);
    let workspace = judged(&server, ", timeout_seconds: 1.5, retries: 8");
    workspace.succeed(&["run", "pipeline.yaml"]);
    assert_figures(&workspace);
    let fates: BTreeSet<Fate> = server.seen().iter().map(|request| request.fate).collect();
    assert!(fates.len() >= 5, "{fates:?}");
    assert!(answered(&server.seen()).values().all(|count| *count == 1), "an answered question is not asked again");
}

#[test]
fn killed_at_any_time_only_the_last_answers_are_asked_for_again() {
    let seed = std::env::var("OPTUNE_SEED").ok().and_then(|text| text.parse().ok()).unwrap_or(11);
    eprintln!("seed {seed}");
    let mut random = ChaCha8Rng::seed_from_u64(seed);
    let server = Server::start(misbehaving(seed, 20), |request| {
        std::thread::sleep(Duration::from_millis(15));
        honest(request)
    });
    let workspace = judged(&server, ", timeout_seconds: 1.5, retries: 8");
    let mut kills = 0;
    loop {
        let before = server.seen().len();
        let mut child = workspace.start(&["run", "pipeline.yaml"]);
        while server.seen().len() == before && child.try_wait().unwrap().is_none() {
            std::thread::sleep(Duration::from_millis(1));
        }
        std::thread::sleep(Duration::from_millis(random.next_u64() % 500));
        child.kill().unwrap();
        if child.wait().unwrap().success() {
            break;
        }
        kills += 1;
        assert!(kills < 60, "it does not come to an end");
    }
    assert_figures(&workspace);
    let counts = answered(&server.seen());
    let again: usize = counts.values().map(|count| count - 1).sum();
    eprintln!("{kills} kills, {again} of {} answers were asked for again", counts.len());
    // Each kill loses those in flight and fewer than a file of 8.
    assert!(kills >= 2 && again <= kills * (8 + 4), "{kills} kills, {again} again");
}

#[test]
fn answers_without_a_verdict_are_error_rows_that_the_same_command_asks_for_again() {
    let broken = Arc::new(AtomicBool::new(true));
    let is_broken = broken.clone();
    let server = Server::start(well, move |request| {
        let prompt = question(request)["prompt"].as_str().unwrap().to_string();
        if is_broken.load(Ordering::SeqCst) && prompt.len() == 9 { chat("As an AI I have no opinion.") } else { honest(request) }
    });
    let workspace = judged(&server, "");
    let error = workspace.fail(&["run", "pipeline.yaml"], 1);
    assert!(error.contains("expected [[A]], [[B]] or [[C]] in the judge's answer, found none: \"As an AI I have no opinion.\""), "{error}");
    assert!(error.contains("the same command asks only for these again"), "{error}");
    let failed =
        |workspace: &Workspace| -> usize { workspace.query("small", "SELECT count(error) FROM evaluation_judge").parse().unwrap() };
    let count = failed(&workspace);
    assert!(count > 0 && count < 80, "{count}");
    // Still broken: these and no others.
    let before = server.seen().len();
    workspace.fail(&["run", "pipeline.yaml"], 1);
    assert_eq!(server.seen().len() - before, count);
    // Mended: these again, and the figures are right.
    broken.store(false, Ordering::SeqCst);
    let before = server.seen().len();
    workspace.succeed(&["run", "pipeline.yaml"]);
    assert_eq!(server.seen().len() - before, count);
    assert_figures(&workspace);
}

#[test]
fn a_run_may_go_on_without_some_verdicts() {
    let server =
        Server::start(
            well,
            |request| {
                if question(request)["prompt"].as_str().unwrap().len() == 9 { chat("Both.") } else { honest(request) }
            },
        );
    let workspace = judged(&server, ", failures: keep");
    let output = workspace.optune(&["run", "pipeline.yaml", "--json"]);
    let told = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.success() && told.contains("verdicts failed, the first: prompt h-"), "{told}");
    let summary: Value = serde_json::from_slice(&output.stdout).unwrap();
    let failed: u64 = workspace.query("small", "SELECT count(error) FROM evaluation_judge").parse().unwrap();
    assert!(failed > 0);
    assert_eq!(summary["judge"][0]["without_verdict"].as_u64().unwrap() * 2, failed);
    let before = server.seen().len();
    workspace.succeed(&["run", "pipeline.yaml"]);
    assert_eq!(server.seen().len(), before);
}

#[test]
fn a_judge_that_refuses_everything_ends_the_node_at_once() {
    let server = Server::start(well, |_| Reply::of(401, b"{\"error\": \"no key\"}".to_vec()));
    let workspace = judged(&server, "");
    let error = workspace.fail(&["run", "pipeline.yaml"], 1);
    assert!(error.contains("evaluation_judge[1]") && error.contains("status 401"), "{error}");
    assert!(server.seen().len() <= 8, "{}", server.seen().len());
    // The report does not call this finished.
    workspace.succeed(&["report", "small", "--output", "report.html"]);
    let report = std::fs::read_to_string(workspace.path("report.html")).unwrap();
    assert!(report.contains("<span class=\"state failed\">") && report.contains("Not there yet: evaluation_judge[1]"));
}
