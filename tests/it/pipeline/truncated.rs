//! Responses cut off by the length limit: in pairs, and in a whole run.

use optune::operators::pair;
use optune::operators::support::rng::Stream;
use optune::pipeline::spec::pair::{Pair, Penalize, Truncated};
use optune::sql::{PromptGroups, Session};
use optune::tables::{FinishReason, TableKind, pairs, pool};

use crate::fixtures::workspace::Workspace;

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

#[test]
fn a_run_says_how_many_responses_are_cut_off_and_leaves_them_out_of_pairs() {
    let workspace = Workspace::new();
    // The right answer and its end need four tokens.
    workspace.edit("pipeline.yaml", "responses_per_prompt: 3, max_new_tokens: 8", "responses_per_prompt: 3, max_new_tokens: 4");
    let said = workspace.succeed(&["run", "pipeline.yaml"]);
    let count = |sql: &str| workspace.query("small", sql).parse::<i64>().unwrap();
    let of = |iteration: u32, more: &str| count(&format!("SELECT count(*) FROM responses WHERE iteration = {iteration}{more}"));
    let cut = |iteration: u32| of(iteration, " AND finish_reason = 'length'");
    assert!(cut(1) > 0 && cut(1) < of(1, ""), "{} of {} are cut off", cut(1), of(1, ""));
    let line = said.lines().find(|line| line.starts_with("cut off by the length limit: ")).unwrap();
    assert!(line.ends_with(" of responses"), "{line}");
    for iteration in [1, 2] {
        let (cut, of) = (cut(iteration), of(iteration, ""));
        let share = format!("{cut} of {of} ({:.1} %) in iteration {iteration}", 100.0 * cut as f64 / of as f64);
        assert_eq!(line.contains(&share), cut > 0, "{share:?} in {line:?}");
        assert_eq!(line.contains(&format!("iteration {iteration}")), cut > 0, "{line}");
    }

    // The default changes nothing; another choice changes pairs and what comes after them.
    let cut_pairs = "SELECT count(*) FROM pairs
        JOIN responses AS c ON c.prompt_id = pairs.prompt_id AND c.sampled_iteration = pairs.chosen_sampled_iteration AND c.response_index = pairs.chosen_index
        JOIN responses AS r ON r.prompt_id = pairs.prompt_id AND r.sampled_iteration = pairs.rejected_sampled_iteration AND r.response_index = pairs.rejected_index
        WHERE c.finish_reason = 'length' OR r.finish_reason = 'length'";
    assert!(count(cut_pairs) > 0);
    workspace.edit("pipeline.yaml", "pair: { pool: pool,", "pair: { pool: pool, truncated: keep,");
    let plan = workspace.succeed(&["plan", "pipeline.yaml"]);
    assert!(plan.lines().filter(|line| !line.starts_with("note: ")).all(|line| line.ends_with("done")), "{plan}");
    workspace.edit("pipeline.yaml", "truncated: keep", "truncated: drop");
    let plan = workspace.succeed(&["plan", "pipeline.yaml"]);
    assert!(plan.contains("stale: truncated is new: \"drop\""), "{plan}");
    workspace.succeed(&["run", "pipeline.yaml"]);
    assert_eq!(count(cut_pairs), 0);
    assert!(count("SELECT count(*) FROM pairs") > 0);
}
