//! `command`: tables and models made by programs of the user's own, here scripts of `sh`.

use std::fs;
use std::process::{Output, Stdio};
use std::time::{Duration, Instant};

use crate::fixtures::workspace::{PIPELINE, Workspace};

/// The beginning of a pipeline with one command, and the model `base`.
const HEAD: &str = r#"optune: 1
name: own
seed: 5
inputs:
  prompts: { table: prompts.jsonl }
  shape:   { model: shape }
  judge:   { reward: { sql: reward.sql } }
nodes:
  base: { sft: { from: shape, initialize: random, demonstrations: prompts, response: reference_answer, epochs: 1, batch_size: 8, learning_rate: 3.0e-3, optimizer: adamw } }
"#;

/// Copies the Parquet files of the input `table`, and counts its calls.
const COPY: &str = r#"set -eu
echo "$OPTUNE_NODE $OPTUNE_ITERATION $OPTUNE_SEED $OPTUNE_RUN" >> calls
mkdir "$OPTUNE_OUTPUT"
cp "$OPTUNE_INPUT_TABLE"/* "$OPTUNE_OUTPUT"
"#;

/// A workspace with `script.sh`, and a pipeline `own.yaml` with these nodes after `base`.
fn with_script(script: &str, nodes: &str) -> Workspace {
    let workspace = Workspace::new();
    workspace.write("script.sh", script);
    workspace.write("own.yaml", &format!("{HEAD}{nodes}"));
    workspace
}

/// A command that runs the script.
fn own(settings: &str) -> String {
    format!("  own: {{ command: {{ run: [sh, script.sh], {settings} }} }}\n")
}

fn calls(workspace: &Workspace) -> usize {
    fs::read_to_string(workspace.path("calls")).unwrap_or_default().lines().count()
}

/// What a failed run says, with the script in place of the right one.
fn failure(script: &str, settings: &str) -> String {
    let workspace = with_script(script, &own(settings));
    let said = workspace.fail(&["run", "own.yaml"], 1);
    assert!(said.contains("own.yaml:10: own: ") && said.contains("the same command goes on from there"), "{said}");
    said
}

#[test]
fn a_table_is_made_once_and_read_like_any_other() {
    let nodes = own("inputs: { table: prompts }, output: prompts, files: [script.sh]")
        + "  answers: { generate: { policy: base, prompts: own, responses_per_prompt: 2, max_new_tokens: 4 } }\n";
    let workspace = with_script(COPY, &nodes);
    workspace.succeed(&["run", "own.yaml"]);
    assert_eq!(fs::read_to_string(workspace.path("calls")).unwrap(), "own 0 5 own\n");
    assert_eq!(workspace.query("own", "SELECT count(*) FROM own JOIN prompts USING (prompt_id, prompt, reference_answer)"), "20");
    assert_eq!(workspace.query("own", "SELECT count(*) FROM answers"), "40");
    workspace.succeed(&["run", "own.yaml"]);
    assert_eq!(calls(&workspace), 1);
    assert!(!workspace.path("runs/own/.partial").read_dir().unwrap().any(|entry| entry.is_ok()), "nothing is left of the work");
    let log = fs::read_to_string(workspace.path("runs/own/logs/own.stdout.log")).unwrap();
    assert!(log.starts_with("--- own begins at "), "{log}");

    // Another machine makes the same bytes, and another run takes them from the cache.
    let again = with_script(COPY, &nodes);
    again.succeed(&["run", "own.yaml"]);
    assert_eq!(again.result("own"), workspace.result("own"));
    workspace.edit("own.yaml", "name: own", "name: other");
    workspace.succeed(&["run", "own.yaml"]);
    assert_eq!(calls(&workspace), 1);
}

#[test]
fn what_changes_the_output_runs_the_program_again() {
    let workspace = with_script(COPY, &own("inputs: { table: prompts }, output: prompts, files: [\"*.sh\"], version: \"1\""));
    let planned = || workspace.succeed(&["plan", "own.yaml"]).lines().find(|line| line.starts_with("own ")).unwrap().to_string();
    assert!(planned().ends_with("to run"), "{}", planned());
    workspace.succeed(&["run", "own.yaml"]);
    for (changed, why) in [
        ("version: \"2\"", "stale: version was \"1\", is \"2\""),
        ("version: \"1\", timeout_seconds: 60", "done"),
        ("version: \"1\"", "done"),
    ] {
        let before = fs::read_to_string(workspace.path("own.yaml")).unwrap();
        workspace.edit("own.yaml", "version: \"1\"", changed);
        assert!(planned().ends_with(why), "{}", planned());
        workspace.write("own.yaml", &before);
    }
    workspace.edit("own.yaml", "[sh, script.sh]", "[sh, script.sh, --fast, 3, \"0.50\", true]");
    assert!(
        planned().contains("stale: run was [\"sh\",\"script.sh\"], is [\"sh\",\"script.sh\",\"--fast\",\"3\",\"0.50\",\"true\"]"),
        "{}",
        planned()
    );
    workspace.edit("own.yaml", "[sh, script.sh, --fast, 3, \"0.50\", true]", "[sh, script.sh]");
    workspace.write("script.sh", &format!("{COPY}# changed\n"));
    assert!(planned().ends_with("stale: input files changed"), "{}", planned());
    workspace.succeed(&["run", "own.yaml"]);
    assert_eq!(calls(&workspace), 2);
    // A script that is no part of `files` is named.
    workspace.edit("own.yaml", ", files: [\"*.sh\"]", "");
    let plan = workspace.succeed(&["plan", "own.yaml"]);
    assert!(plan.contains("note: own: script.sh is an argument, but its contents are not: name it in `files:`"), "{plan}");
}

/// Commands that copy stand at every edge of the loop: nothing changes but the fingerprints.
#[test]
fn commands_that_copy_change_nothing() {
    let plain = Workspace::new();
    plain.succeed(&["run", "pipeline.yaml"]);
    let copied = Workspace::new();
    copied.write("script.sh", COPY);
    copied.write("model.sh", "set -eu\n[ \"$OPTUNE_ITERATION\" = 1 ] && [ -z \"${OPTUNE_INPUT_POOL+set}\" ] || [ -d \"$OPTUNE_INPUT_POOL\" ]\ncp -r \"$OPTUNE_INPUT_MODEL\"/. \"$OPTUNE_OUTPUT\"\n");
    let table = |kind: &str, inputs: &str| {
        format!("{{ command: {{ run: [sh, script.sh], inputs: {{ {inputs} }}, output: {kind}, files: [script.sh] }} }}")
    };
    let nodes = format!(
        "    selected: {}\n    sampled: {}\n    scored: {}\n    pooled: {}\n    paired: {}\n    copied: {}\n",
        table("selection", "table: selection"),
        table("responses", "table: responses, prompts: prompts, policy: \"policy[t-1]\""),
        table("rewards", "table: rewards, responses: sampled"),
        table("pool", "table: pool, responses: sampled, carried: \"pooled[t-1]\""),
        table("pairs", "table: pairs, pool: pooled"),
        "{ command: { run: [sh, model.sh], inputs: { model: policy, pool: \"pooled[t-1]\" }, output: model, files: [model.sh] } }",
    );
    let mut text = PIPELINE.to_string();
    for (from, to) in [
        ("selection: selection,", "selection: selected,"),
        ("score: { responses: responses,", "score: { responses: sampled,"),
        ("merge: { fresh: rewards, carried: \"pool[t-1]\" }", "merge: { fresh: scored, carried: \"pooled[t-1]\" }"),
        ("pair: { pool: pool,", "pair: { pool: pooled,"),
        ("pairs: pairs, learning_rate", "pairs: paired, learning_rate"),
        ("train: { from: \"policy[t-1]\"", "train: { from: \"copied[t-1]\""),
        ("evaluate: { policy: policy,", "evaluate: { policy: copied,"),
        ("select: { prompts: prompts, pool: \"pool[t-1]\"", "select: { prompts: prompts, pool: \"pooled[t-1]\""),
        ("start: { policy: base, pool: none }", "start: { policy: base, copied: base, pooled: none }"),
    ] {
        assert!(text.contains(from), "{from}");
        text = text.replace(from, to);
    }
    copied.write("pipeline.yaml", &(text + &nodes));
    copied.succeed(&["run", "pipeline.yaml"]);
    for query in [
        "SELECT iteration, prompt_id, reward, text, nll_initial, token_count FROM evaluation ORDER BY 1, 2",
        "SELECT iteration, prompt_id, sampled_iteration, response_index, text, logprob FROM responses ORDER BY 1, 2, 3, 4",
        "SELECT * FROM policy_pairs ORDER BY iteration, prompt_id",
    ] {
        assert_eq!(copied.query("small", query), plain.query("small", query), "{query}");
    }
    assert_eq!(
        copied.query("small", "SELECT * FROM paired ORDER BY iteration, prompt_id"),
        plain.query("small", "SELECT * FROM pairs ORDER BY iteration, prompt_id")
    );
    for iteration in [1, 2] {
        let weights = |workspace: &Workspace, node: &str| {
            fs::read(workspace.path(&format!("runs/small/models/{node}/iteration={iteration}/model.safetensors"))).unwrap()
        };
        assert!(weights(&copied, "copied") == weights(&plain, "policy"));
    }
    // A manifest that came with the copy is none of the model's files.
    assert!(copied.succeed(&["status", "small", "--verify"]).contains(", 0 damaged"));
    copied.succeed(&["export", "policy", "small", "exported", "--node", "copied"]);
    assert!(copied.path("exported/model.safetensors").is_file());
    copied.succeed(&["report", "small", "--output", "report.html"]);
    let page = fs::read_to_string(copied.path("report.html")).unwrap();
    assert!(page.contains(">policy, pooled[t-1]<"), "the graph has the inputs of commands");
}

#[test]
fn a_failed_program_is_shown_with_the_end_of_its_errors_and_its_log() {
    let said = failure("echo fine; echo line one >&2; echo no such column >&2; exit 3", "output: table");
    assert!(said.contains("the program sh ended with exit code 3; the end of its standard error, from "), "{said}");
    assert!(said.contains("runs/own/logs/own.stderr.log:\nline one\nno such column\n") && !said.contains("fine"), "{said}");
    let said = failure("kill -9 $$", "output: table");
    assert!(said.contains("ended with signal 9, which the system sends when memory runs out; its standard error is empty ("), "{said}");
    let start = Instant::now();
    let said = failure("echo slow >&2; sleep 100 & sleep 100", "output: table, timeout_seconds: 0.3");
    assert!(said.contains("did not end within 0.3 seconds; ") && said.contains("slow"), "{said}");
    assert!(start.elapsed() < Duration::from_secs(60));
}

#[test]
fn an_output_that_cannot_be_used_is_told_before_anything_reads_it() {
    let said = failure("true", "output: table");
    assert!(
        said.contains("expected a Parquet file at ") && said.contains("output.parquet, the path in OPTUNE_OUTPUT, found nothing"),
        "{said}"
    );
    let said = failure("mkdir \"$OPTUNE_OUTPUT\"; touch \"$OPTUNE_OUTPUT/rows.csv\"", "output: table");
    assert!(said.contains("found a folder without one"), "{said}");
    let said = failure("echo no table > \"$OPTUNE_OUTPUT\"", "output: table");
    assert!(said.contains("the table that the program made cannot be used: ") && said.contains("output.parquet: "), "{said}");
    let said = failure(COPY, "inputs: { table: prompts }, output: rewards");
    assert!(said.contains("is no table of rewards: expected the columns prompt_id, sampled_iteration, response_index, reward, "), "{said}");
    assert!(said.contains(", found prompt too"), "{said}");
    let said = failure(COPY, "inputs: { table: prompts }, output: preferences");
    assert!(said.contains("the table that the program made cannot be used: ") && said.contains("chosen"), "{said}");

    let said = failure("true", "output: model");
    assert!(said.contains("expected a model in ") && said.contains("the folder of OPTUNE_OUTPUT, found no files"), "{said}");
    let said = failure("cp shape/* \"$OPTUNE_OUTPUT\"", "output: model");
    assert!(said.contains("the model that the program made cannot be used: ") && said.contains("safetensors"), "{said}");
    let copy = "cp \"$OPTUNE_INPUT_MODEL\"/* \"$OPTUNE_OUTPUT\"\n";
    let said = failure(&format!("{copy}printf 00000000 > \"$OPTUNE_OUTPUT/model.safetensors\""), "inputs: { model: base }, output: model");
    assert!(said.contains("the model that the program made cannot be used: "), "{said}");
    let said = failure(copy, "inputs: { model: base }, output: reward_model");
    assert!(said.contains("the model that the program made cannot be used: ") && said.contains("a reward model"), "{said}");
    let said = failure("ln -s \"$OPTUNE_INPUT_MODEL\"/* \"$OPTUNE_OUTPUT\"", "inputs: { model: base }, output: model");
    assert!(said.contains(": expected a file, found a link; have the program copy what it links to"), "{said}");
}

#[test]
fn a_table_of_the_users_own_is_checked_against_its_readers() {
    let nodes = own("inputs: { table: small }, output: table")
        + "  small: { sql: { query: \"SELECT prompt_id, prompt AS question FROM prompts\" } }\n";
    for (reader, expected) in [
        (
            "  answers: { generate: { policy: base, prompts: own } }\n",
            "does not fit answers, which reads it: table own: expected a column prompt or messages",
        ),
        ("  tuned: { train: { from: base, reference: base, pairs: own } }\n", "does not fit tuned_pairs, which reads it: "),
        ("  again: { sft: { from: base, demonstrations: own } }\n", "does not fit again, which reads it: expected a column "),
    ] {
        let workspace = with_script(COPY, &format!("{nodes}{reader}"));
        let said = workspace.fail(&["run", "own.yaml"], 1);
        assert!(said.contains("own.yaml:10: own: the table that the program made ") && said.contains(expected), "{said}");
    }
    // A query is checked when it runs: before, the columns are not known.
    let reader = "  wrong: { sql: { query: \"SELECT answer FROM own\" } }\n";
    let workspace = with_script(COPY, &format!("{nodes}{reader}"));
    workspace.succeed(&["plan", "own.yaml"]);
    let said = workspace.fail(&["run", "own.yaml"], 2);
    assert!(said.contains("own.yaml:12: wrong: ") && said.contains("answer"), "{said}");
    workspace.edit("own.yaml", "SELECT answer", "SELECT question AS answer");
    workspace.succeed(&["run", "own.yaml"]);
    assert_eq!(calls(&workspace), 1);
}

#[test]
fn lines_about_progress_are_the_progress_of_the_node() {
    let script = format!("echo loading; echo 'progress: 1/4'; sleep 0.3; echo ' progress: 3/4'; sleep 0.3; printf 'progress: 4/4'; {COPY}");
    let workspace = with_script(&script, &own("inputs: { table: prompts }, output: prompts"));
    let output = workspace.optune(&["run", "own.yaml", "--json"]);
    assert!(output.status.success());
    let events = String::from_utf8(output.stderr).unwrap();
    let own: Vec<&str> = events.lines().filter(|line| line.contains("\"node\":\"own\"") && !line.contains("finished")).collect();
    let expected = [
        r#"{"event":"started","node":"own","unit":"steps","done":0,"total":0}"#,
        r#"{"event":"measured","node":"own","total":4}"#,
        r#"{"event":"advanced","node":"own","done":1,"tokens":0}"#,
        r#"{"event":"advanced","node":"own","done":3,"tokens":0}"#,
    ];
    let shown: Vec<&str> = own.iter().copied().filter(|line| !line.contains("warned")).collect();
    assert_eq!(shown, expected, "{events}");
}

/// Counts to eight in its work folder, a fifth of a second each, and says where it began.
const COUNT: &str = r#"set -eu
echo $$ > process
done=$(cat "$OPTUNE_WORK/done" 2>/dev/null || echo 0)
echo "from $done" >> begun
while [ "$done" -lt 8 ]; do
  sleep 0.2
  done=$((done + 1))
  echo "$done" > "$OPTUNE_WORK/done.new"
  mv "$OPTUNE_WORK/done.new" "$OPTUNE_WORK/done"
  echo "progress: $done/8"
done
cp "$OPTUNE_INPUT_TABLE"/* "$OPTUNE_OUTPUT"
"#;

/// Starts the program and waits until the script has counted so far; the process goes on.
fn counting(workspace: &Workspace, far: u32) -> std::process::Child {
    let child = workspace.command(&["run", "own.yaml"]).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    let log = workspace.path("runs/own/logs/own.stdout.log");
    let start = Instant::now();
    while !fs::read_to_string(&log).unwrap_or_default().contains(&format!("progress: {far}/8")) {
        assert!(start.elapsed() < Duration::from_secs(60), "the script does not count");
        std::thread::sleep(Duration::from_millis(20));
    }
    child
}

/// Whether the process of the script is there.
fn is_running(workspace: &Workspace) -> bool {
    let process = fs::read_to_string(workspace.path("process")).unwrap();
    // A dead process stays in the table until its parent has asked for it.
    if let Ok(state) = fs::read_to_string(format!("/proc/{}/stat", process.trim())) {
        return !state.contains(") Z ");
    }
    let asked = std::process::Command::new("kill").args(["-0", process.trim()]).stderr(Stdio::null()).status();
    asked.unwrap().success()
}

fn begun(workspace: &Workspace) -> Vec<String> {
    fs::read_to_string(workspace.path("begun")).unwrap().lines().map(str::to_string).collect()
}

#[test]
fn a_killed_run_ends_its_program_and_the_next_one_goes_on_from_its_work() {
    let workspace = with_script(COUNT, &own("inputs: { table: prompts }, output: prompts, files: [script.sh]"));
    let mut killed = counting(&workspace, 2);
    killed.kill().unwrap();
    killed.wait().unwrap();
    // Nobody but the leader of the program's group is left to end it.
    let start = Instant::now();
    while is_running(&workspace) {
        assert!(start.elapsed() < Duration::from_secs(10), "the program outlives its run");
        std::thread::sleep(Duration::from_millis(20));
    }
    let counted = fs::read_to_string(workspace.path("runs/own/logs/own.stdout.log")).unwrap();
    assert!(!counted.contains("progress: 8/8"), "{counted}");
    workspace.succeed(&["run", "own.yaml"]);
    let begun = begun(&workspace);
    assert_eq!(begun.len(), 2, "{begun:?}");
    assert!(begun[0] == "from 0" && begun[1] != "from 0", "{begun:?}");
    assert_eq!(workspace.query("own", "SELECT count(*) FROM own"), "20");
    let log = fs::read_to_string(workspace.path("runs/own/logs/own.stdout.log")).unwrap();
    let last: Vec<&str> = log.rsplit("--- own begins").next().unwrap().lines().filter(|line| line.starts_with("progress")).collect();
    assert_eq!(last.last(), Some(&"progress: 8/8"));
    assert!(last.len() < 8, "{log}");
    assert!(!is_running(&workspace));
    // Without a kill the bytes are the same.
    let whole = with_script(COUNT, &own("inputs: { table: prompts }, output: prompts, files: [script.sh]"));
    whole.succeed(&["run", "own.yaml"]);
    assert_eq!(workspace.result("own"), whole.result("own"));
}

#[test]
fn an_interrupted_run_ends_the_program_and_keeps_its_work() {
    let script = COUNT.replace("set -eu", "set -eu\nsleep 1000 & echo $! > child");
    let workspace = with_script(&script, &own("inputs: { table: prompts }, output: prompts, files: [script.sh]"));
    let child = counting(&workspace, 1);
    let sent = std::process::Command::new("kill").args(["-INT", &child.id().to_string()]).status();
    assert!(sent.unwrap().success());
    let Output { status, stderr, .. } = child.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&stderr);
    assert_eq!(status.code(), Some(130), "{said}");
    assert!(said.contains("interrupted; everything finished is committed"), "{said}");
    assert!(!is_running(&workspace));
    fs::rename(workspace.path("child"), workspace.path("process")).unwrap();
    assert!(!is_running(&workspace), "children of the program are ended too");
    let events = workspace.query("own", "SELECT event FROM journal WHERE node = 'own'");
    assert!(events.contains("interrupted"), "{events}");
    workspace.succeed(&["clean"]);
    workspace.succeed(&["run", "own.yaml"]);
    assert!(begun(&workspace).last().is_some_and(|last| last != "from 0"));
}

#[test]
fn a_program_leaves_no_process_behind() {
    let script = format!("sleep 1000 & echo $! > process\n{COPY}");
    let workspace = with_script(&script, &own("inputs: { table: prompts }, output: prompts"));
    workspace.succeed(&["run", "own.yaml"]);
    assert!(!is_running(&workspace));
}

#[test]
fn a_script_that_changes_during_the_run_is_told() {
    // The first command changes the script of the second.
    let nodes = own("inputs: { table: prompts }, output: prompts, files: [script.sh]")
        + "  later: { command: { run: [sh, later.sh], inputs: { table: own }, output: prompts, files: [later.sh] } }\n";
    let workspace = with_script(&format!("{COPY}echo '# changed' >> later.sh\n"), &nodes);
    workspace.write("later.sh", COPY);
    let said = workspace.fail(&["run", "own.yaml"], 2);
    assert!(said.contains("later: ") && said.contains("later.sh: changed since the run began; run the same command again"), "{said}");
    workspace.succeed(&["run", "own.yaml"]);
    assert_eq!(calls(&workspace), 2);
}
