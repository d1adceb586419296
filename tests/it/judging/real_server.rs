//! A judge on a server that nobody here wrote: llama.cpp's, with SmolLM2-135M-Instruct.
//!
//! The model is too small to judge by our own templates: each of its answers is an error row. It
//! can copy a number, so that the way of a score is tested too.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::fixtures::python::{python_for, scripts};
use crate::fixtures::workspace::Workspace;

const SCRIPT: &str = "judge_server.py";

/// A question that this model mostly answers with the number in it.
const COPY: &str = "Copy the last line.\\n{{ 1 + response|length % 9 }}\\n{{ 1 + response|length % 9 }}\\n{{ 1 + response|length % 9 }}";

struct Judge {
    child: Child,
    url: String,
}

impl Drop for Judge {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// The server, once it lists its model. `None`, with a word about it, without `OPTUNE_PYTHON`.
fn start() -> Option<Judge> {
    let python = python_for(SCRIPT)?;
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let mut command = Command::new(python);
    command.arg(scripts().join(SCRIPT)).arg(port.to_string()).stdout(Stdio::null()).stderr(Stdio::piped());
    let mut judge = Judge { child: command.spawn().unwrap(), url: format!("http://127.0.0.1:{port}/v1") };
    let begun = Instant::now();
    while !is_ready(port) {
        if judge.child.try_wait().unwrap().is_some() {
            let mut said = String::new();
            judge.child.stderr.take().unwrap().read_to_string(&mut said).unwrap();
            panic!("the server ended: {said}");
        }
        assert!(begun.elapsed() < Duration::from_secs(120), "the server does not start");
        std::thread::sleep(Duration::from_millis(200));
    }
    // Nobody reads the rest, and a full pipe would stop the server.
    let mut rest = judge.child.stderr.take().unwrap();
    std::thread::spawn(move || std::io::copy(&mut rest, &mut std::io::sink()));
    Some(judge)
}

/// Whether the server has loaded its model.
fn is_ready(port: u16) -> bool {
    let Ok(mut stream) = TcpStream::connect(("127.0.0.1", port)) else { return false };
    let mut answer = String::new();
    stream.write_all(b"GET /health HTTP/1.0\r\n\r\n").is_ok()
        && stream.read_to_string(&mut answer).is_ok()
        && answer.lines().next().is_some_and(|line| line.contains(" 200 "))
}

#[test]
fn the_whole_path_runs_against_a_real_server() {
    let Some(judge) = start() else { return };
    let workspace = Workspace::new();
    let keys = format!("openai: \"{}\", model: smollm2, concurrency: 2, failures: keep", judge.url);
    workspace.edit(
        "pipeline.yaml",
        "  judge:    { reward: { sql: reward.sql } }",
        &format!("  judge:    {{ reward: {{ sql: reward.sql }} }}\n  liked:    {{ reward: {{ judge: {{ {keys}, scale: [0, 10], max_tokens: 16, template: \"{COPY}\" }} }} }}"),
    );
    let asked = format!("prompts: held_out, reward: judge, max_new_tokens: 8, judge: {{ {keys}, read: choice, max_tokens: 24 }} }} }}");
    let more = format!(
        "\n    letters:    {{ evaluate: {{ policy: policy, baseline: base, prompts: held_out, reward: judge, max_new_tokens: 8, judge: {{ {keys}, read: logprobs }} }} }}"
    );
    workspace.edit("pipeline.yaml", "prompts: held_out, reward: judge, max_new_tokens: 8 } }", &format!("{asked}{more}"));
    workspace.edit(
        "pipeline.yaml",
        "  nodes:\n    selection",
        "  nodes:\n    scores: { score: { responses: responses, reward: liked } }\n    selection",
    );
    workspace.edit("pipeline.yaml", "iterations: 2", "iterations: 1");
    workspace.edit("pipeline.yaml", "responses_per_prompt: 3", "responses_per_prompt: 2");
    let output = workspace.optune(&["run", "pipeline.yaml", "--json"]);
    let told = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{told}");
    let summary: Value = serde_json::from_slice(&output.stdout).unwrap();
    eprintln!("{told}\n{}", summary["judge"]);
    let count = |sql: &str| workspace.query("small", sql);
    // Every row is a score on the scale, or an error that says why.
    assert_eq!(count("SELECT count(*) FROM scores WHERE (reward >= 0 AND reward <= 10) OR error LIKE 'judge: %'"), "40");
    assert_eq!(count("SELECT count(*) FROM evaluation_judge WHERE verdict IS NOT NULL OR error LIKE '%judge''s answer%'"), "16");
    assert_eq!(count("SELECT count(*) FROM letters_judge WHERE verdict IS NOT NULL OR error LIKE '%first token%'"), "16");
    eprintln!("scores: {}", count("SELECT count(reward), avg(reward), min(error) FROM scores"));
    eprintln!("choices: {}", count("SELECT count(verdict), min(error), min(answer) FROM evaluation_judge"));
    eprintln!("letters: {}", count("SELECT count(verdict), min(error), min(answer) FROM letters_judge"));
    let scored: i64 = count("SELECT count(reward) FROM scores").parse().unwrap();
    assert!(scored > 0, "no answer could be read");
    let manifest = std::fs::read_to_string(workspace.path("runs/small/manifests/scores/iteration=1.json")).unwrap();
    let tokens = serde_json::from_str::<Value>(&manifest).unwrap()["counts"]["judge_prompt_tokens"].as_i64().unwrap();
    assert!(tokens > 10 * scored, "{tokens}");
    // Without the server the finished run stays finished.
    drop(judge);
    workspace.succeed(&["run", "pipeline.yaml"]);
}
