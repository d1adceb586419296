//! Rewards by processes that die, hang, talk and lie: the right rewards or errors, nothing scored
//! twice but the batch in hand, and no process left behind.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};

use crate::fixtures::workspace::Workspace;

/// Three responses to each of twenty prompts, scored in parts of 16.
const PIPELINE: &str = r#"optune: 1
name: small
seed: 5
inputs:
  prompts: { table: prompts.jsonl }
  shape:   { model: shape }
  judge:   { reward: REWARD }
nodes:
  base: { sft: { from: shape, initialize: random, demonstrations: prompts, response: reference_answer, batch_size: 8, learning_rate: 3.0e-3, optimizer: adamw } }
  responses: { generate: { policy: base, prompts: prompts, responses_per_prompt: 3, max_new_tokens: 8 } }
  rewards: { score: { responses: responses, reward: judge }, resources: { rows_per_part: 16 } }
"#;

/// The number of tokens of each response. `CASE` does what a test wants before the answer.
const WORKER: &str = r#"#!/bin/sh
echo $$ >> pids
while IFS= read -r line; do
  id=$(printf '%s\n' "$line" | sed 's/^{"id":"\([^"]*\)".*/\1/')
  count=$(printf '%s\n' "$line" | sed 's/.*"token_count":\([0-9]*\).*/\1/')
  echo "$id" >> scored
  CASE
  printf '{"id":"%s","reward":%s,"components":{"twice":%s}}\n' "$id" "$count" $((count * 2))
done
"#;

/// A workspace with this worker, as `{ command: [sh, score.sh], files: [score.sh], … }`.
fn workspace(settings: &str, case: &str) -> Workspace {
    let workspace = Workspace::new();
    let reward = format!("{{ command: [sh, score.sh], files: [score.sh]{settings} }}");
    workspace.write("pipeline.yaml", &PIPELINE.replace("REWARD", &reward));
    workspace.write("score.sh", &WORKER.replace("CASE", case));
    workspace
}

/// The number of responses without their right reward.
fn wrong(workspace: &Workspace) -> usize {
    let sql = "SELECT count(*) FROM responses AS a LEFT JOIN rewards AS r USING (prompt_id, sampled_iteration, response_index)
        WHERE (r.reward IS DISTINCT FROM CAST(array_length(a.token_ids) - a.prompt_token_count AS DOUBLE))
           OR (r.components['twice'] IS DISTINCT FROM 2.0 * r.reward)";
    workspace.query("small", sql).parse().unwrap()
}

/// The distinct errors of the rewards, each with its rows.
fn errors(workspace: &Workspace) -> Vec<String> {
    let rows = workspace.query(
        "small",
        "SELECT prompt_id, response_index, replace(error, chr(10), ' | ') FROM rewards WHERE error IS NOT NULL ORDER BY 1, 2",
    );
    rows.lines().map(str::to_string).collect()
}

/// How often each response was scored.
fn scored(workspace: &Workspace) -> BTreeMap<String, usize> {
    let text = std::fs::read_to_string(workspace.path("scored")).unwrap();
    text.lines().fold(BTreeMap::new(), |mut counts, id| {
        *counts.entry(id.to_string()).or_default() += 1;
        counts
    })
}

fn started(workspace: &Workspace) -> Vec<u32> {
    let text = std::fs::read_to_string(workspace.path("pids")).unwrap_or_default();
    text.lines().filter_map(|line| line.parse().ok()).collect()
}

fn is_alive(process: u32) -> bool {
    std::process::Command::new("kill").args(["-0", &process.to_string()]).stderr(std::process::Stdio::null()).status().unwrap().success()
}

/// Waits for the end of all started processes.
fn assert_none_left(workspace: &Workspace) {
    let start = Instant::now();
    while let Some(left) = started(workspace).into_iter().find(|process| is_alive(*process)) {
        assert!(start.elapsed() < Duration::from_secs(10), "process {left} is left behind");
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn a_process_lives_for_the_node_and_scores_each_response_once() {
    for (settings, processes) in [("", 1), (", workers: 3", 3), (", batch_size: 1", 1)] {
        let workspace = workspace(settings, "");
        workspace.succeed(&["run", "pipeline.yaml"]);
        assert_eq!(wrong(&workspace), 0);
        assert_eq!(started(&workspace).len(), processes, "{settings}");
        let scored = scored(&workspace);
        assert!(scored.len() == 60 && scored.values().all(|count| *count == 1), "{scored:?}");
        assert_none_left(&workspace);
        // How many processes there are and how they are fed changes no fingerprint.
        workspace.edit("pipeline.yaml", "[score.sh]", "[score.sh], timeout_seconds: 7, retries: 9");
        let plan = workspace.succeed(&["plan", "pipeline.yaml"]);
        assert!(!plan.contains("to run") && !plan.contains("stale"), "{plan}");
        workspace.edit("score.sh", "read -r", "read  -r");
        let plan = workspace.succeed(&["plan", "pipeline.yaml"]);
        assert!(plan.contains("stale") && plan.contains("input reward changed"), "{plan}");
    }
}

#[test]
fn answers_come_in_any_order_and_beside_anything_on_standard_error() {
    // The last response of a batch is answered first.
    let case = r#"echo "scoring $id" >&2
  answers="{\"reward\":$count,\"components\":{\"twice\":$((count * 2))},\"id\":\"$id\"}
$answers"
  case $line in *'"more":0}') printf '%s' "$answers"; answers=;; esac
  continue"#;
    let workspace = workspace("", case);
    workspace.succeed(&["run", "pipeline.yaml"]);
    assert_eq!((wrong(&workspace), started(&workspace).len()), (0, 1));
}

#[test]
fn a_process_killed_at_random_moments_scores_nothing_twice_but_the_batch_in_hand() {
    let seed = std::env::var("OPTUNE_SEED").ok().and_then(|text| text.parse().ok()).unwrap_or(11);
    eprintln!("seed {seed}");
    let mut random = ChaCha8Rng::seed_from_u64(seed);
    let mut kills = 0;
    while kills < 20 {
        let workspace = workspace(", workers: 2, batch_size: 4, retries: 20", "");
        let mut run = workspace.start(&["run", "pipeline.yaml"]);
        let before = kills;
        while run.try_wait().unwrap().is_none() {
            std::thread::sleep(Duration::from_millis(5 + random.next_u64() % 60));
            // Any of the two processes, as soon as there are any.
            let mut alive = started(&workspace);
            alive.retain(|process| is_alive(*process));
            let Some(process) = alive.get(random.next_u64() as usize % alive.len().max(1)) else { continue };
            let sent =
                std::process::Command::new("kill").args(["-KILL", &process.to_string()]).stderr(std::process::Stdio::null()).status();
            kills += usize::from(sent.unwrap().success());
        }
        assert!(run.wait().unwrap().success(), "seed {seed}");
        assert_eq!(wrong(&workspace), 0, "seed {seed}");
        let scored = scored(&workspace);
        let again: usize = scored.values().map(|count| count - 1).sum();
        assert!(scored.len() == 60 && again <= (kills - before) * 4, "seed {seed}: {again} again after {} kills", kills - before);
        let mut commits = workspace.journal("small", "part_committed");
        let all = commits.len();
        commits.dedup();
        assert_eq!(commits.len(), all);
        assert_none_left(&workspace);
    }
}

#[test]
fn a_response_on_which_every_process_fails_has_an_error_and_the_others_their_rewards() {
    for (case, settings, expected) in [
        (
            "echo cannot >&2; kill -9 $$",
            "",
            "it ended with signal: 9 (SIGKILL) before its answers; the end of its standard error: | cannot",
        ),
        ("exit 3", "", "it ended with exit status: 3 before its answers; nothing is on its standard error"),
        ("sleep 600", ", timeout_seconds: 0.4", "expected an answer within 0.4 seconds, found none"),
        ("echo hello", "", "found the line \"\"hello\"\""),
        ("id=$id$id", "", "expected the ids of the batch, found an answer for the id"),
        (
            "count='\"good\"'; printf '{\"id\":\"%s\",\"reward\":%s}\\n' \"$id\" \"$count\"; count=1",
            "",
            "expected a number or null as reward, found \"\"good\"\"",
        ),
        ("exec >&-; sleep 600", "", "it closed its standard output before its answers"),
    ] {
        let workspace =
            workspace(&format!(", batch_size: 5, retries: 1{settings}"), &format!("case $id in p-003/0/1|p-017/0/0) {case};; esac"));
        workspace.succeed(&["run", "pipeline.yaml"]);
        let errors = errors(&workspace);
        let places: Vec<&str> = errors.iter().filter_map(|error| error.split(",\"").next()).collect();
        assert!(
            errors.len() == 2 && errors[0].starts_with("p-003,1,") && errors[1].starts_with("p-017,0,"),
            "{case}: {places:?} {errors:?}"
        );
        assert!(
            errors.iter().all(|error| error.contains("reward command: 2 attempts failed on this response: ") && error.contains(expected)),
            "{errors:?}"
        );
        assert_eq!(wrong(&workspace), 2, "{case}");
        assert_none_left(&workspace);
    }
}

#[test]
fn an_error_is_a_row_and_no_reward_is_told_as_with_any_other_reward() {
    let case = |answer: &str| format!("case $id in p-003/0/1) printf '{{\"id\":\"%s\",{answer}}}\\n' \"$id\"; continue;; esac");
    let workspace = workspace("", &case(r#""error":"no compiler""#));
    workspace.succeed(&["run", "pipeline.yaml"]);
    assert_eq!(errors(&workspace), ["p-003,1,reward command: no compiler"]);
    for (answer, found) in
        [(r#""reward":null"#, "null"), (r#""reward":NaN"#, "NaN"), (r#""reward":1,"components":{"a":Infinity}"#, "inf as its component a")]
    {
        workspace.write("score.sh", &WORKER.replace("CASE", &case(answer)));
        let error = workspace.fail(&["run", "pipeline.yaml"], 2);
        let expected = format!("reward command: expected a finite reward for prompt_id p-003, response_index 1, found {found}");
        assert!(error.contains(&expected), "{error}");
    }
    workspace.edit("pipeline.yaml", "reward: judge }", "reward: judge, non_finite: skip }");
    workspace.succeed(&["run", "pipeline.yaml"]);
    assert_eq!(errors(&workspace), ["p-003,1,\"reward command: expected a finite reward, found inf as its component a\""]);
}

#[test]
fn a_process_that_never_works_ends_the_node_with_its_last_words() {
    for (case, expected) in [
        ("echo no module named reward >&2; exit 1", "never answered in 4 attempts; the last time: it ended with exit status: 1"),
        ("printf '{\"fatal\":\"no license\"}\\n'", "`sh score.sh`: no license"),
        (
            "echo hello; continue",
            "expected answers such as {\"id\": \"p-1/1/0\", \"reward\": 1.0} on standard output, found the line \"hello\"",
        ),
    ] {
        let workspace = workspace("", case);
        let output = workspace.optune(&["run", "pipeline.yaml"]);
        let error = String::from_utf8(output.stderr).unwrap();
        assert!(!output.status.success() && error.contains(expected), "{error}");
        assert_none_left(&workspace);
    }
    let workspace = workspace(", batch_size: 1", "case $id in p-000/*|p-001/*) ;; *) exit 4;; esac");
    let error = workspace.fail(&["run", "pipeline.yaml"], 1);
    assert!(error.contains("failed 30 times without an answer between them"), "{error}");
}

#[test]
fn a_response_with_two_answers_has_an_error() {
    let case = "printf '{\"id\":\"%s\",\"reward\":-1,\"components\":{\"twice\":-2}}\\n' \"$id\"";
    let workspace = workspace(", batch_size: 4", &format!("case $id in p-004/0/0) {case};; esac"));
    workspace.succeed(&["run", "pipeline.yaml"]);
    let errors = errors(&workspace);
    let expected = "p-004,0,\"reward command: expected one answer for each id, found two for \"\"p-004/0/0\"\"\"";
    assert_eq!(errors, [expected]);
    assert_eq!(wrong(&workspace), 1);
}

#[test]
fn no_process_is_left_when_the_run_is_killed_or_interrupted() {
    for (signal, times) in [("-KILL", 1), ("-INT", 1), ("-INT", 2), ("-TERM", 1)] {
        let workspace = workspace("", "sleep 600 & sleep 600");
        let mut run = workspace.start(&["run", "pipeline.yaml"]);
        let start = Instant::now();
        while !workspace.path("scored").exists() {
            assert!(start.elapsed() < Duration::from_secs(60) && run.try_wait().unwrap().is_none());
            std::thread::sleep(Duration::from_millis(5));
        }
        for _ in 0..times {
            let _ = std::process::Command::new("kill").args([signal, &run.id().to_string()]).stderr(std::process::Stdio::null()).status();
            std::thread::sleep(Duration::from_millis(2));
        }
        assert!(!run.wait().unwrap().success());
        assert_none_left(&workspace);
        // The next run is not disturbed, and goes on.
        workspace.write("score.sh", &WORKER.replace("CASE", ""));
        workspace.succeed(&["run", "pipeline.yaml"]);
        assert_eq!(wrong(&workspace), 0);
    }
}

#[test]
fn a_file_that_changes_during_a_run_is_told() {
    let workspace = workspace("", "");
    let graph = optune::pipeline::Pipeline::load(&workspace.path("pipeline.yaml"), &[]).unwrap().graph(&workspace.path("")).unwrap();
    let Some(optune::pipeline::SourceKind::Reward { reward }) = graph.sources.iter().map(|source| &source.kind).next_back() else {
        panic!()
    };
    let optune::pipeline::graph::Reward::Process(process) = reward else { panic!() };
    assert_eq!(process.changed_file(), Ok(None));
    workspace.edit("score.sh", "read -r", "read  -r");
    assert_eq!(process.changed_file().unwrap().map(|file| file.name.as_str()), Some("score.sh"));
    std::fs::remove_file(workspace.path("score.sh")).unwrap();
    assert!(process.changed_file().unwrap_err().starts_with("score.sh: "));
}

#[test]
fn a_script_outside_of_files_is_told_by_plan() {
    let workspace = workspace("", "");
    workspace.edit("pipeline.yaml", ", files: [score.sh]", "");
    let plan = workspace.succeed(&["plan", "pipeline.yaml"]);
    assert!(plan.contains("note: rewards: the reward reads score.sh, but its `files` do not name it"), "{plan}");
}
