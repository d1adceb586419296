//! Runs on a cluster of processes on this machine: the bytes of one process, whatever is killed.
//! They need the feature `cluster`.

use std::io::{BufRead, BufReader};
use std::net::TcpListener;
use std::process::{Child, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};

use crate::fixtures::workspace::Workspace;

/// Nodes with a reward model, preferences and a benchmark beside the loop, so that every kind of
/// node with a model is there.
const EVERY_KIND: &str = r#"optune: 1
name: small
seed: 5
inputs:
  prompts:     { table: prompts.jsonl }
  held_out:    { table: held_out.jsonl }
  preferences: { table: preferences.jsonl }
  questions:   { table: questions.jsonl }
  shape:       { model: shape }
nodes:
  base:   { sft: { from: shape, initialize: random, demonstrations: prompts, response: reference_answer, epochs: 3, batch_size: 8, learning_rate: 3.0e-3, optimizer: adamw } }
  judge:  { reward_model: { from: base, preferences: preferences, held_out: 0.3, epochs: 1, batch_size: 4, learning_rate: 1.0e-3, optimizer: adamw } }
iterate:
  t: 1..2
  start: { policy: base, pool: none }
  nodes:
    responses:  { generate: { policy: "policy[t-1]", prompts: prompts, responses_per_prompt: 3, max_new_tokens: 8, stop: ["Z"] }, resources: { rows_per_part: 3 } }
    rewards:    { score: { responses: responses, reward: judge, prompts: prompts }, resources: { rows_per_part: 7 } }
    pool:       { merge: { fresh: rewards, carried: "pool[t-1]" } }
    pairs:      { pair: { pool: pool } }
    policy:     { train: { from: "policy[t-1]", reference: base, pairs: pairs, learning_rate: 1.0e-3, optimizer: adamw, batch_size: 4, lora: { rank: 4 } } }
    evaluation: { evaluate: { policy: policy, baseline: base, prompts: held_out, reward: judge, max_new_tokens: 8 } }
    kept:       { benchmark: { policy: policy, baseline: base, tasks: { choice: { items: questions, question: question, choices: choices, answer: answer }, written: { items: questions, question: question, answer: written, generate: { max_new_tokens: 4 } } } } }
"#;

/// Whether the program can use clusters; if not, says so.
fn is_built() -> bool {
    if !cfg!(feature = "cluster") {
        eprintln!("skipped: clusters: the tests are built without --features cluster");
    }
    cfg!(feature = "cluster")
}

/// A port that is free now.
fn free_port() -> u16 {
    TcpListener::bind(("127.0.0.1", 0)).unwrap().local_addr().unwrap().port()
}

/// A process that is killed with its test.
struct Process {
    child: Child,
    lines: Arc<Mutex<Vec<String>>>,
}

impl Process {
    fn start(workspace: &Workspace, arguments: &[&str]) -> Self {
        let mut command = workspace.command(arguments);
        command.env("RAYON_NUM_THREADS", "1").stdout(Stdio::null()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let lines = Arc::new(Mutex::new(Vec::new()));
        let output = BufReader::new(child.stderr.take().unwrap());
        let kept = lines.clone();
        std::thread::spawn(move || output.lines().map_while(Result::ok).for_each(|line| kept.lock().unwrap().push(line)));
        Self { child, lines }
    }

    /// SIGKILL on unix.
    fn kill(&mut self) {
        let _ = self.child.kill();
        self.child.wait().unwrap();
    }

    fn lines(&self) -> Vec<String> {
        self.lines.lock().unwrap().clone()
    }

    /// The parts that an executor computed.
    fn parts(&self) -> Vec<String> {
        self.lines().into_iter().filter(|line| line.contains(" part-")).collect()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
    }
}

/// A scheduler and executors.
struct Cluster<'w> {
    workspace: &'w Workspace,
    address: String,
    scheduler: Process,
    executors: Vec<Process>,
}

impl<'w> Cluster<'w> {
    fn start(workspace: &'w Workspace, executors: usize) -> Self {
        let address = format!("127.0.0.1:{}", free_port());
        let scheduler = Process::start(workspace, &["scheduler", "--listen", &address]);
        let mut cluster = Self { workspace, address, scheduler, executors: Vec::new() };
        for _ in 0..executors {
            let executor = cluster.executor();
            cluster.executors.push(executor);
        }
        cluster
    }

    fn executor(&self) -> Process {
        Process::start(self.workspace, &["executor", "--scheduler", &self.address, "--device", "cpu"])
    }

    fn run(&self) -> String {
        let start = Instant::now();
        let output = self.workspace.optune(&["run", "pipeline.yaml", "--cluster", &self.address]);
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "{said}\nexecutors: {:?}", self.executors.iter().map(Process::lines).collect::<Vec<_>>());
        eprintln!("on the cluster: {:.1} s", start.elapsed().as_secs_f64());
        said
    }
}

/// A workspace with every kind of node that a cluster computes.
fn every_kind() -> Workspace {
    let workspace = Workspace::new();
    let word = |i: usize| (0..3).map(|k| char::from(b'a' + ((i * 7 + k * 3) % 8) as u8)).collect::<String>();
    let preference = |i: usize| {
        let word = word(i);
        let upper = word.to_uppercase();
        format!("{{\"prompt\": \"upper {word}=\", \"chosen\": \"{upper}\", \"rejected\": \"{word}\"}}\n")
    };
    let question = |i: usize| {
        let word = word(i);
        let upper = word.to_uppercase();
        format!("{{\"question\": \"upper {word}=\", \"choices\": [\"{word}\", \"{upper}\"], \"answer\": 1, \"written\": \"{upper}\"}}\n")
    };
    workspace.write("preferences.jsonl", &(0..20).map(preference).collect::<String>());
    workspace.write("questions.jsonl", &(0..12).map(question).collect::<String>());
    workspace.write("pipeline.yaml", EVERY_KIND);
    workspace
}

#[test]
fn a_program_without_the_feature_says_how_to_build_it() {
    if is_built() {
        return;
    }
    let workspace = Workspace::new();
    for arguments in
        [vec!["run", "pipeline.yaml", "--cluster", "127.0.0.1:1"], vec!["scheduler"], vec!["executor", "--scheduler", "127.0.0.1:1"]]
    {
        let error = workspace.fail(&arguments, 2);
        assert!(error.contains("this build is without it; build with --features cluster"), "{error}");
    }
}

#[test]
fn every_kind_of_node_has_the_same_bytes_on_a_cluster() {
    if !is_built() {
        return;
    }
    let alone = every_kind();
    let start = Instant::now();
    alone.succeed(&["run", "pipeline.yaml"]);
    eprintln!("in one process: {:.1} s", start.elapsed().as_secs_f64());
    let workspace = every_kind();
    let cluster = Cluster::start(&workspace, 2);
    let plan = workspace.succeed(&["plan", "pipeline.yaml", "--cluster", &cluster.address]);
    assert!(plan.contains("base, judge, policy stay on this machine: a training keeps its state in one process"), "{plan}");
    cluster.run();
    assert_eq!(workspace.result("small"), alone.result("small"));
    let parts: Vec<String> = cluster.executors.iter().flat_map(Process::parts).collect();
    let nodes = ["responses[1]", "responses[2]", "rewards[2]", "policy_pairs[1]", "judge_ranking", "evaluation[1]", "kept"];
    for node in nodes {
        assert!(parts.iter().any(|part| part.starts_with(node)), "no part of {node} on the cluster: {parts:#?}");
    }
    // Both executors took part, and no part was computed twice.
    assert!(cluster.executors.iter().all(|executor| !executor.parts().is_empty()));
    let mut named: Vec<&str> = parts.iter().filter_map(|part| part.split_once(": ").map(|(name, _)| name)).collect();
    let count = named.len();
    named.sort_unstable();
    named.dedup();
    assert_eq!(named.len(), count, "{parts:#?}");
}

/// Kills of a process at random moments.
fn kills() -> usize {
    std::env::var("OPTUNE_KILLS").ok().and_then(|text| text.parse().ok()).unwrap_or(6)
}

#[test]
fn whatever_is_killed_at_random_the_bytes_are_the_same() {
    if !is_built() {
        return;
    }
    let seed = std::env::var("OPTUNE_SEED").ok().and_then(|text| text.parse().ok()).unwrap_or(7);
    eprintln!("seed {seed}");
    let mut random = ChaCha8Rng::seed_from_u64(seed);
    let alone = Workspace::new();
    let start = Instant::now();
    alone.succeed(&["run", "pipeline.yaml"]);
    let time = start.elapsed();
    let expected = alone.result("small");
    let mut killed = 0;
    while killed < kills() {
        let workspace = Workspace::new();
        let mut cluster = Cluster::start(&workspace, 3);
        let address = cluster.address.clone();
        let arguments = ["run", "pipeline.yaml", "--cluster", &address];
        let mut run = Process::start(&workspace, &arguments);
        let begin = Instant::now();
        loop {
            std::thread::sleep(time.mul_f64((random.next_u64() % 1000) as f64 / 1000.0));
            if let Some(status) = run.child.try_wait().unwrap() {
                assert!(status.success(), "{:#?}", run.lines());
                break;
            }
            assert!(begin.elapsed() < Duration::from_secs(600), "the run hangs: {:#?}", run.lines());
            if killed >= kills() {
                continue;
            }
            killed += 1;
            match random.next_u64() % 3 {
                0 => {
                    let index = (random.next_u64() % 3) as usize;
                    cluster.executors[index].kill();
                    cluster.executors[index] = cluster.executor();
                }
                1 => {
                    cluster.scheduler.kill();
                    cluster.scheduler = Process::start(&workspace, &["scheduler", "--listen", &address]);
                }
                _ => {
                    run.kill();
                    run = Process::start(&workspace, &arguments);
                }
            }
        }
        eprintln!("{killed} kills so far, this run took {:.1} s", begin.elapsed().as_secs_f64());
        workspace.succeed(&["run", "pipeline.yaml"]);
        assert_eq!(workspace.result("small"), expected, "seed {seed}");
        let commits = workspace.journal("small", "part_committed");
        let mut once = commits.clone();
        once.sort();
        once.dedup();
        assert_eq!(once.len(), commits.len(), "a committed part was made again: {commits:?}");
    }
}
