//! Python reward functions: the rewards of TRL's, math-verify's and lm-evaluation-harness's own
//! functions, and the errors of functions that are wrong.

use std::fs;
use std::path::{Path, PathBuf};

use burn::tensor::Device;
use optune::model::Checkpoint;
use optune::operators::Silent;
use optune::pipeline::Pipeline;
use optune::run::{self, FileHashes};
use optune::store::Runs;
use optune::tables::{FinishReason, TableKind, responses};
use serde_json::{Value, json};

use crate::fixtures::python::run_script;
use crate::fixtures::real_data::real;
use crate::fixtures::store::locked;
use crate::fixtures::workspace::Workspace;

/// A pipeline with one response to each prompt, and their rewards.
const PIPELINE: &str = r#"optune: 1
name: small
inputs:
  prompts: { table: prompts.jsonl }
  base:    { model: base }
  judge:   { reward: REWARD }
nodes:
  responses: { generate: { policy: base, prompts: prompts, responses_per_prompt: 1 } }
  rewards: { score: { responses: responses, reward: judge, non_finite: skip }, resources: { rows_per_part: 100 } }
"#;

/// A workspace whose table of responses is given: (prompt_id, text, token ids).
fn workspace(prompts: &str, reward: &Value, given: &[(String, String, Vec<i32>)], function: &str) -> Workspace {
    let workspace = Workspace::new();
    let blank = Checkpoint::open_blank(&workspace.path("shape")).unwrap();
    blank.save(&workspace.path("base"), &blank.init(&Device::flex(), 1)).unwrap();
    // The policy is not asked, but its prompts may be messages.
    workspace.write("base/chat_template.jinja", "{% for m in messages %}{{ m.role }}: {{ m.content }}{% endfor %}assistant: ");
    workspace.write("prompts.jsonl", prompts);
    workspace.write("rewards.py", function);
    workspace.write("pipeline.yaml", &PIPELINE.replace("REWARD", &reward.to_string()));
    answer(&workspace, given);
    workspace
}

/// Writes the table of responses in the place of the policy.
fn answer(workspace: &Workspace, given: &[(String, String, Vec<i32>)]) {
    let graph = Pipeline::load(&workspace.path("pipeline.yaml"), &[]).unwrap().graph(&workspace.path("")).unwrap();
    let task = graph.tasks.iter().position(|task| task.name == "responses").unwrap();
    let key = graph.tasks[task].output_key();
    let run = Runs::open(workspace.path("runs")).unwrap().run(&graph.name).unwrap();
    let prepared = run::prepare(run::fetch(graph, &run, &|| false, &Silent).unwrap(), &mut FileHashes::default()).unwrap();
    let mut rows: Vec<responses::Row> = given.iter().map(|(prompt_id, text, token_ids)| row(prompt_id, text, token_ids)).collect();
    rows.sort_by(|one, other| one.prompt_id.cmp(&other.prompt_id));
    let lock = locked(&run).unwrap();
    let mut writer = lock.write_table(&key, &prepared.recipes[task], Some(TableKind::Responses), rows.len(), rows.len()).unwrap();
    writer.commit(0, &responses::batch(&rows)).unwrap();
    writer.finish(Default::default()).unwrap();
}

fn row(prompt_id: &str, text: &str, token_ids: &[i32]) -> responses::Row {
    responses::Row {
        prompt_id: prompt_id.to_string(),
        sampled_iteration: 0,
        response_index: 0,
        token_ids: [&[7, 8][..], token_ids].concat(),
        prompt_token_count: 2,
        text: text.to_string(),
        finish_reason: FinishReason::Stop,
        logprob: None,
        token_logprobs: None,
        policy_fingerprint: String::new(),
        error: None,
    }
}

/// The rewards by prompt_id.
fn rewards(workspace: &Workspace) -> Vec<Option<f64>> {
    let rows = workspace.query("small", "SELECT coalesce(CAST(reward AS VARCHAR), 'none') FROM rewards ORDER BY prompt_id");
    rows.lines().map(|line| line.parse().ok()).collect()
}

#[test]
fn functions_of_others_give_the_rewards_that_they_give_in_python() {
    let Some(data) = real("data") else { return };
    let folder = tempfile::tempdir().unwrap();
    if run_script("reward_functions.py", &[data.as_os_str(), folder.path().as_os_str()]).is_none() {
        return;
    }
    let mut cases: Vec<PathBuf> = fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().path()).collect();
    cases.sort();
    assert!(cases.len() >= 7, "{cases:?}");
    for case in cases {
        let read = |name: &str| fs::read_to_string(case.join(name)).unwrap();
        let line = |line: &str| {
            let row: Value = serde_json::from_str(line).unwrap();
            let ids: Vec<i32> = serde_json::from_value(row["token_ids"].clone()).unwrap();
            (row["prompt_id"].as_str().unwrap().to_string(), row["text"].as_str().unwrap().to_string(), ids)
        };
        let given: Vec<_> = read("responses.jsonl").lines().map(line).collect();
        let function = if case.join("rewards.py").exists() { read("rewards.py") } else { String::new() };
        let workspace = workspace(&read("prompts.jsonl"), &serde_json::from_str(&read("reward.json")).unwrap(), &given, &function);
        workspace.succeed(&["run", "pipeline.yaml"]);
        let expected: Vec<Option<f64>> = serde_json::from_str(&read("rewards.json")).unwrap();
        let found = rewards(&workspace);
        assert_eq!((found.len(), expected.len()), (500, 500));
        let first = expected.iter().zip(&found).position(|(expected, found)| expected != found);
        assert_eq!(first, None, "{}: expected {:?}, found {:?}", case.display(), first.map(|at| expected[at]), first.map(|at| found[at]));
        let told = workspace.query("small", "SELECT count(*) FROM rewards WHERE error LIKE '%expected a finite reward, found null'");
        assert_eq!(told.parse::<usize>().unwrap(), expected.iter().filter(|reward| reward.is_none()).count());
    }
}

/// Functions, right and wrong.
const FUNCTIONS: &str = r#"import asyncio, os, subprocess, sys
import sibling

def talkative(completions, solution, **kwargs):
    print("to standard output")
    os.write(1, b"past python\n")
    subprocess.run(["echo", "from a child"])
    assert sys.stdin.read() == ""
    return [float(len(text) * int(s)) for text, s in zip(completions, solution)]

def given(prompts, completions, completion_ids, trainer_state, log_extra, log_metric, prompt_id, nested, missing, day, **columns):
    assert trainer_state is None and "reference_answer" not in columns, columns
    assert prompts == ["ask"] * len(prompts) and missing == [None] * len(prompts)
    assert nested[0] == {"a": 1, "b": None, "c": [1, 2]}, nested
    log_metric("mean", 1.0)
    log_extra("length", [len(text) for text in completions])
    log_extra("text", completions)
    return [sum(ids) + int(i[2:]) for ids, i in zip(completion_ids, prompt_id)]

def short(completions, **kwargs): return [1.0]
def texts(completions, **kwargs): return ["good" for _ in completions]
def nothing(completions, **kwargs): pass
def endless(completions, **kwargs): return [float("inf") for _ in completions]
def needs(completions, label, **kwargs): return [1.0 for _ in completions]
def some(completions, **kwargs):
    if "r4" in completions: raise KeyError("r4 has no key")
    return [1.0 for _ in completions]
def dies(completions, **kwargs):
    if "r4" in completions: os._exit(7)
    return [2.0 for _ in completions]
class Checks:
    @staticmethod
    async def score(completions, **kwargs):
        await asyncio.sleep(0)
        return [sibling.VALUE for _ in completions]
def make(value): return lambda completions, **kwargs: [value for _ in completions]
number = 3
"#;

fn python_is_given() -> bool {
    let is_given = std::env::var_os("OPTUNE_PYTHON").is_some();
    if !is_given {
        eprintln!("skipped: OPTUNE_PYTHON is not set");
    }
    is_given
}

/// A workspace with eight responses `r0` … `r7`, and the functions.
fn functions(reward: &Value) -> Workspace {
    let line = |i: usize| {
        let nested = json!({"a": i + 1, "b": if i == 0 { Value::Null } else { json!("x") }, "c": [1, 2]});
        let row = json!({"prompt_id": format!("p-{i}"), "prompt": "ask", "solution": (i + 1).to_string(), "nested": nested, "missing": null, "day": "2026-11-29"});
        format!("{row}\n")
    };
    let given: Vec<(String, String, Vec<i32>)> = (0..8).map(|i| (format!("p-{i}"), format!("r{i}"), vec![3; i])).collect();
    let workspace = workspace(
        &(0..8).map(line).collect::<String>(),
        &json!({ "sql": "SELECT prompt_id, response_index, 0.0 AS reward FROM responses" }),
        &given,
        FUNCTIONS,
    );
    workspace.write("sibling.py", "VALUE = 0.25\n");
    workspace.write("pipeline.yaml", &PIPELINE.replace("REWARD", &reward.to_string()));
    workspace
}

#[test]
fn a_function_may_print_and_gets_what_trl_passes() {
    if !python_is_given() {
        return;
    }
    let all = |reward: Value| {
        let workspace = functions(&reward);
        workspace.succeed(&["run", "pipeline.yaml"]);
        let found: Vec<f64> = rewards(&workspace).into_iter().flatten().collect();
        (workspace, found)
    };
    assert_eq!(all(json!({"python": "rewards.py:talkative"})).1, [2.0, 4.0, 6.0, 8.0, 10.0, 12.0, 14.0, 16.0]);
    let (workspace, found) = all(json!({"python": "rewards.py:given"}));
    assert_eq!(found, [0.0, 4.0, 8.0, 12.0, 16.0, 20.0, 24.0, 28.0]);
    assert_eq!(workspace.query("small", "SELECT DISTINCT components['length'], cardinality(components) FROM rewards"), "2.0,1");
    assert_eq!(all(json!({"python": "rewards.py:Checks.score", "files": ["sibling.py"], "batch_size": 3})).1, [0.25; 8]);
    assert_eq!(all(json!({"python": "rewards.py:make", "arguments": {"value": 7}, "workers": 3})).1, [7.0; 8]);
    let sum = json!([{"python": "rewards.py:make", "arguments": {"value": 7}}, {"weight": 0.5, "python": "rewards.py:Checks.score"}]);
    let (workspace, found) = all(sum);
    assert_eq!(found, [7.125; 8]);
    assert_eq!(workspace.query("small", "SELECT DISTINCT components['python'], components['python_2'] FROM rewards"), "7.0,0.25");
}

#[test]
fn a_response_on_which_a_function_fails_has_an_error() {
    if !python_is_given() {
        return;
    }
    for (function, error) in [
        ("some", "reward function: KeyError: 'r4 has no key' (rewards.py, line "),
        ("dies", "reward function: 3 attempts failed on this response: it ended with exit status: 7 before its answers"),
    ] {
        let workspace = functions(&json!({"python": format!("rewards.py:{function}")}));
        workspace.succeed(&["run", "pipeline.yaml"]);
        let found = rewards(&workspace);
        assert!(found[4].is_none() && found.iter().flatten().count() == 7, "{found:?}");
        let told = workspace.query("small", "SELECT error FROM rewards WHERE error IS NOT NULL");
        assert!(told.contains(error), "{told}");
    }
    let workspace = functions(&json!({"python": "rewards.py:endless"}));
    workspace.succeed(&["run", "pipeline.yaml"]);
    assert_eq!(workspace.query("small", "SELECT DISTINCT error FROM rewards"), "\"reward function: expected a finite reward, found inf\"");
    workspace.edit("pipeline.yaml", "non_finite: skip", "non_finite: stop");
    let error = workspace.fail(&["run", "pipeline.yaml"], 2);
    assert!(error.contains("reward function: expected a finite reward for prompt_id p-0, response_index 0, found inf"), "{error}");
}

#[test]
fn wrong_functions_are_told_before_or_when_they_run() {
    if !python_is_given() {
        return;
    }
    // What an import alone would tell is told by `plan`, without one.
    for (reward, expected) in [
        (
            json!({"python": "rewards.py:talkativ"}),
            "rewards.py:talkativ: expected a function talkativ, found no such name; did you mean talkative?",
        ),
        (json!({"python": "no_such_module:f"}), "no_such_module:f: expected a module no_such_module, found none"),
        (json!({"python": "json.no_such_part:f"}), "json.no_such_part:f: expected a module json.no_such_part, found none"),
        (json!({"python": "json.tool:no_such_name"}), "json.tool:no_such_name: expected a function no_such_name, found no such name"),
        (json!({"python": "rewards.py:number", "interpreter": "sh"}), "expected a Python, found a program that says: "),
    ] {
        let workspace = functions(&reward);
        let error = workspace.fail(&["plan", "pipeline.yaml"], 2);
        assert!(error.contains(expected), "{error}");
    }
    for (reward, expected) in [
        (json!({"python": "rewards.py:short"}), "expected 8 rewards, one for each completion, found 1"),
        (json!({"python": "rewards.py:texts"}), "expected a number or None as reward 0 of 8, found str 'good'"),
        (json!({"python": "rewards.py:nothing"}), "expected a list of 8 rewards, found None"),
        (json!({"python": "rewards.py:number"}), "expected number of "),
        (json!({"python": "rewards.py:make"}), "make() got an unexpected keyword argument"),
        (
            json!({"python": "rewards.py:make", "arguments": {"other": 1}}),
            "cannot load the function: TypeError: make() got an unexpected keyword argument 'other'",
        ),
        (json!({"python": "rewards.py:needs"}), "needs() missing 1 required positional argument: 'label'"),
    ] {
        let workspace = functions(&reward);
        let output = workspace.optune(&["run", "pipeline.yaml"]);
        let error = String::from_utf8(output.stderr).unwrap();
        assert!(!output.status.success() && error.contains(expected), "{error}");
    }
    let workspace = functions(&json!({"python": "rewards.py:some"}));
    workspace.write("rewards.py", "def some(completions, **kwargs)\n    return 1\n");
    let error = workspace.fail(&["plan", "pipeline.yaml"], 2);
    assert!(error.contains("rewards.py:some: line 1: expected ':'"), "{error}");
    workspace.write("rewards.py", "import no_such_package\ndef some(completions, **kwargs): return 1\n");
    let error = workspace.fail(&["run", "pipeline.yaml"], 2);
    let expected = "cannot load the function: ModuleNotFoundError: No module named 'no_such_package' (rewards.py, line 1)";
    assert!(error.contains(expected), "{error}");
}

/// A program over Arrow: the tokens and a number of the prompt. `-` says something else first.
const ARROW: &str = r#"import sys
import pyarrow as pa

if sys.argv[1:] == ["-"]:
    print("hello", flush=True)
writer = None
for batch in pa.ipc.open_stream(sys.stdin.buffer):
    prompts = batch.column("columns").to_pylist()
    assert all(prompt["nested"]["c"] == [1, 2] and prompt["prompt"] == "ask" for prompt in prompts), prompts
    assert batch.column("finish_reason").to_pylist() == ["stop"] * len(prompts)
    rewards = [len(ids) * 10 + prompt["nested"]["a"] for ids, prompt in zip(batch.column("token_ids").to_pylist(), prompts)]
    assert [len(ids) for ids in batch.column("token_ids").to_pylist()] == batch.column("token_count").to_pylist()
    errors = [None if text != "r4" else "no r4" for text in batch.column("text").to_pylist()]
    rewards = [reward if error is None else None for reward, error in zip(rewards, errors)]
    columns = [batch.column("id"), pa.array(rewards, pa.float32()), pa.array(errors, pa.string()), pa.array([0.5] * len(errors))]
    answers = pa.record_batch(columns, ["id", "reward", "error", "half"]).slice(0)
    writer = writer or pa.ipc.new_stream(sys.stdout.buffer, answers.schema)
    writer.write_batch(answers.take(pa.array(range(len(errors) - 1, -1, -1))))
    sys.stdout.buffer.flush()
"#;

#[test]
fn a_program_may_read_and_write_arrow() {
    if !python_is_given() {
        return;
    }
    let python = std::path::absolute(std::env::var_os("OPTUNE_PYTHON").unwrap()).unwrap().display().to_string();
    let reward = json!({"command": [python, "arrow.py"], "format": "arrow", "batch_size": 3, "workers": 2, "files": ["arrow.py"]});
    let workspace = functions(&reward);
    workspace.write("arrow.py", ARROW);
    workspace.succeed(&["run", "pipeline.yaml"]);
    let expected: Vec<Option<f64>> = (0..8).map(|i| if i == 4 { None } else { Some(f64::from(i * 10 + i + 1)) }).collect();
    assert_eq!(rewards(&workspace), expected);
    assert_eq!(workspace.query("small", "SELECT error FROM rewards WHERE reward IS NULL"), "reward command: no r4");
    assert_eq!(workspace.query("small", "SELECT DISTINCT components['half'] FROM rewards WHERE reward IS NOT NULL"), "0.5");
    workspace.edit("pipeline.yaml", "\"arrow.py\"],\"format\"", "\"arrow.py\", \"-\"],\"format\"");
    let error = workspace.fail(&["run", "pipeline.yaml"], 1);
    assert!(error.contains("expected an Arrow IPC stream of answers on standard output: found the bytes \"hello\""), "{error}");
}

#[test]
fn a_changed_function_scores_again_and_an_interpreter_is_found_where_it_is_named() {
    if !python_is_given() {
        return;
    }
    let workspace = functions(&json!({"python": "rewards.py:Checks.score", "files": ["sibling.py"]}));
    workspace.succeed(&["run", "pipeline.yaml"]);
    let states = |workspace: &Workspace| workspace.succeed(&["plan", "pipeline.yaml"]);
    assert!(!states(&workspace).contains("stale"));
    workspace.write("sibling.py", "VALUE = 0.5\n");
    assert!(states(&workspace).contains("stale"));
    workspace.succeed(&["run", "pipeline.yaml"]);
    assert_eq!(rewards(&workspace), [Some(0.5); 8]);
    workspace.edit("rewards.py", "number = 3", "number = 4");
    assert!(states(&workspace).contains("stale"));

    // The same interpreter by another way: nothing runs again. Then a variable that leads nowhere.
    workspace.edit("rewards.py", "number = 4", "number = 3");
    let python = std::env::var("OPTUNE_PYTHON").unwrap();
    let python = std::path::absolute(Path::new(&python)).unwrap();
    workspace.edit("pipeline.yaml", "\"files\"", &format!("\"interpreter\": {}, \"files\"", json!(python.display().to_string())));
    assert!(!states(&workspace).contains("stale"));
    workspace.edit("pipeline.yaml", &format!("\"interpreter\": {}, ", json!(python.display().to_string())), "");
    let plan = |variable: &str, value: &str| {
        let mut command = workspace.command(&["plan", "pipeline.yaml"]);
        command.env_remove("OPTUNE_PYTHON").env_remove("VIRTUAL_ENV").env(variable, value).output().unwrap()
    };
    for (variable, value) in [("OPTUNE_PYTHON", "/no/such/python"), ("VIRTUAL_ENV", "/no/such"), ("PATH", "/no/such")] {
        let output = plan(variable, value);
        let error = String::from_utf8(output.stderr).unwrap();
        assert!(
            output.status.code() == Some(2) && error.contains("expected a Python, but ") && error.contains(&format!("by {variable}")),
            "{error}"
        );
    }
}
