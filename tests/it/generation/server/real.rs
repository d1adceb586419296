//! Servers that nobody here wrote, with a real model: llama.cpp's and `transformers serve`
//! (OPTUNE_PYTHON, OPTUNE_REAL_DIR).

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use optune::store::{OutputKey, Runs, read_parquet};
use optune::tables::responses;

use crate::fixtures::python::{python_for, scripts};
use crate::fixtures::real_data::real;
use crate::fixtures::workspace::Workspace;

const SCRIPT: &str = "generation_server.py";

struct RealServer {
    child: Child,
    port: u16,
}

impl Drop for RealServer {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

impl RealServer {
    /// The server, once it is healthy. `None`, with a word about it, without a Python.
    fn start(kind: &str, model: &Path) -> Option<Self> {
        let python = python_for(SCRIPT)?;
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let mut command = Command::new(python);
        command.arg(scripts().join(SCRIPT)).args([kind, model.to_str().unwrap(), &port.to_string()]);
        let child = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
        let mut server = Self { child, port };
        let begun = Instant::now();
        while !server.is_healthy() {
            if server.child.try_wait().unwrap().is_some() {
                let mut said = String::new();
                server.child.stderr.take().unwrap().read_to_string(&mut said).unwrap();
                panic!("the server ended: {said}");
            }
            assert!(begun.elapsed() < Duration::from_secs(180), "the server does not start");
            std::thread::sleep(Duration::from_millis(200));
        }
        // Nobody reads the rest, and a full pipe would stop the server.
        let mut rest = server.child.stderr.take().unwrap();
        std::thread::spawn(move || std::io::copy(&mut rest, &mut std::io::sink()));
        Some(server)
    }

    fn is_healthy(&self) -> bool {
        let Ok(mut stream) = TcpStream::connect(("127.0.0.1", self.port)) else { return false };
        let mut answer = String::new();
        stream.write_all(b"GET /health HTTP/1.0\r\n\r\n").is_ok()
            && stream.read_to_string(&mut answer).is_ok()
            && answer.lines().next().is_some_and(|line| line.contains(" 200 "))
    }
}

/// A pipeline of one node `responses` to 24 prompts, with these settings and this engine.
fn pipeline(model: &Path, settings: &str, engine: &str) -> Workspace {
    let workspace = Workspace::new();
    let openings = std::fs::read_to_string(model.join("../data/story_openings.jsonl")).unwrap();
    let rows = openings.lines().take(24).enumerate();
    let rows: String = rows.map(|(i, row)| format!("{{\"prompt_id\": \"{i:03}\", {}\n", row.trim_start_matches('{'))).collect();
    workspace.write("prompts.jsonl", &rows);
    workspace.write(
        "remote.yaml",
        &format!(
            "optune: 1\nname: remote\nseed: 5\ninputs:\n  prompts: {{ table: prompts.jsonl }}\n  base: {{ model: \"{}\" }}\nnodes:\n  \
             responses: {{ generate: {{ policy: base, prompts: prompts, {settings}{engine} }} }}\n",
            model.display()
        ),
    );
    workspace
}

fn rows(workspace: &Workspace) -> Vec<responses::Row> {
    let run = Runs::open(workspace.path("runs")).unwrap().run("remote").unwrap();
    let place = OutputKey::table("responses", None);
    let manifest = run.manifest(&place).unwrap().unwrap();
    let parts = manifest.parts.iter().map(|part| read_parquet(&run.path(&place).join(&part.file)).unwrap());
    let mut rows: Vec<responses::Row> = parts.flat_map(|batch| responses::rows(&batch).unwrap()).collect();
    rows.sort_by(|one, other| (&one.prompt_id, one.response_index).cmp(&(&other.prompt_id, other.response_index)));
    rows
}

/// Greedy responses by the server are those sampled here, and the comparison says so; sampled ones
/// are no error rows.
fn assert_policy(model: &Path, engine: &str) {
    const GREEDY: &str = "responses_per_prompt: 1, max_new_tokens: 48, temperature: 0";
    let here = pipeline(model, GREEDY, "");
    here.succeed(&["run", "remote.yaml"]);
    let there = pipeline(model, GREEDY, engine);
    let output = there.optune(&["run", "remote.yaml"]);
    eprintln!("{}", String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success());
    let journal = std::fs::read_to_string(there.path("runs/remote/journal.jsonl")).unwrap();
    assert!(journal.contains("the policy's distribution in 2 greedy responses"), "{journal}");
    let (ours, theirs) = (rows(&here), rows(&there));
    assert_eq!(ours.len(), 24);
    assert!(theirs.iter().all(|row| row.error.is_none()), "{theirs:?}");
    // Where two tokens are nearly as probable, keys and values of 16 bits decide for the other one.
    let same = ours.iter().zip(&theirs).filter(|(ours, theirs)| (&ours.text, &ours.token_ids) == (&theirs.text, &theirs.token_ids)).count();
    assert!(same >= 22, "only {same} of 24 greedy texts are the policy's");
    let sampled = pipeline(model, "responses_per_prompt: 3, max_new_tokens: 32", engine);
    sampled.succeed(&["run", "remote.yaml"]);
    let sampled = rows(&sampled);
    assert!(
        sampled.len() == 72 && sampled.iter().all(|row| row.error.is_none()),
        "{:?}",
        sampled.iter().find_map(|row| row.error.as_ref())
    );
    let texts: std::collections::BTreeSet<&str> = sampled.iter().map(|row| row.text.as_str()).collect();
    assert!(texts.len() > 60, "{} different texts", texts.len());
}

#[test]
fn llama_cpp_gives_the_policys_greedy_texts() {
    let Some(model) = real("stories260K") else { return };
    let Some(server) = RealServer::start("llamacpp", &model) else { return };
    let url = format!("http://127.0.0.1:{}/v1", server.port);
    assert_policy(&model, &format!(", engine: {{ openai: \"{url}\", model: stories, concurrency: 2, check: always }}"));
    // Asked as a server of OpenAI's fields only, its own defaults cut the distribution; greedy texts
    // do not show that. A penalty of the command line would.
    let other = pipeline(
        &model,
        "responses_per_prompt: 1, max_new_tokens: 8, top_k: 5",
        &format!(", engine: {{ openai: \"{url}\", model: stories, server: openai }}"),
    );
    assert!(other.fail(&["run", "remote.yaml"], 2).contains("top_k cannot be asked of the server openai"));
}

#[test]
fn transformers_gives_the_policys_greedy_texts() {
    let Some(model) = real("stories260K") else { return };
    let Some(server) = RealServer::start("transformers", &model) else { return };
    let url = format!("http://127.0.0.1:{}/v1", server.port);
    for kind in ["transformers", "auto"] {
        let engine =
            format!(", engine: {{ openai: \"{url}\", model: \"{}\", concurrency: 2, check: always, server: {kind} }}", model.display());
        assert_policy(&model, &engine);
    }
}
