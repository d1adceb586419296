//! Several servers: one queue, every row right whatever single servers do, and none asked for twice.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use serde_json::Value;

use super::{Style, asked, assert_right, committed, seed_of, serve, workspace};
use crate::fixtures::http_server::{Fate, Reply, Request, Server, misbehaving, well};
use crate::fixtures::workspace::Workspace;

/// A workspace with 120 prompts and these servers.
fn fleet(servers: &[&Server], responses_per_prompt: usize, engine: &str) -> Workspace {
    let workspace = workspace(servers[0], responses_per_prompt, engine);
    let urls: Vec<String> = servers.iter().map(|server| format!("\"{}/v1\"", server.url)).collect();
    workspace.edit("remote.yaml", &urls[0], &format!("[{}]", urls.join(", ")));
    let row = |i: usize| format!("{{\"prompt_id\": \"p-{i:03}\", \"prompt\": \"upper {i}=\"}}\n");
    workspace.write("prompts.jsonl", &(0..120).map(row).collect::<String>());
    workspace
}

/// The seeds of the responses that a server was asked for.
fn seeds(server: &Server) -> BTreeMap<u64, usize> {
    asked(&server.seen())
}

/// The numbers of each server in the journal, by its address.
fn statistics(workspace: &Workspace) -> BTreeMap<String, Value> {
    let journal = std::fs::read_to_string(workspace.path("runs/remote/journal.jsonl")).unwrap();
    let events = journal.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    let asked = events.filter(|event| event["event"] == "server_asked");
    asked.map(|event| (event["message"].as_str().unwrap().to_string(), event["detail"].clone())).collect()
}

#[test]
fn four_servers_with_faults_one_dying_and_one_joining_give_every_row_right() {
    let serving = || serve(Style::Vllm);
    let steady = Server::start(misbehaving(3, 20), serving());
    let other = Server::start(misbehaving(4, 20), serving());
    // It dies after 30 requests.
    let dying = Server::start(|number| if number < 30 { Fate::Answer } else { Fate::Drop }, serving());
    // It joins once the others have answered some.
    let answers = Arc::new(AtomicUsize::new(0));
    let (count, is_up) = (answers.clone(), Arc::new(AtomicBool::new(false)));
    let answer = serving();
    let counted = Server::start(misbehaving(5, 20), move |request| {
        count.fetch_add(1, Ordering::SeqCst);
        answer(request)
    });
    let (begins, up) = (answers.clone(), is_up.clone());
    let answer = serving();
    let joining = Server::start(
        move |_| {
            if begins.load(Ordering::SeqCst) > 20 {
                up.store(true, Ordering::SeqCst);
                Fate::Answer
            } else {
                Fate::Drop
            }
        },
        move |request| {
            std::thread::sleep(Duration::from_millis(5));
            answer(request)
        },
    );
    let workspace = fleet(&[&steady, &other, &dying, &counted, &joining], 3, "concurrency: 4, timeout_seconds: 1.5, retries: 12");
    let output = workspace.optune(&["run", "remote.yaml"]);
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
    let rows = committed(&workspace);
    assert_eq!(rows.len(), 360);
    rows.iter().for_each(assert_right);
    let all = [&steady, &other, &dying, &counted, &joining];
    let answered = all.map(|server| asked(&server.seen().into_iter().filter(|request| request.fate == Fate::Answer).collect::<Vec<_>>()));
    let mut times: BTreeMap<u64, usize> = BTreeMap::new();
    answered.iter().flatten().for_each(|(seed, count)| *times.entry(*seed).or_default() += count);
    assert_eq!(times.len(), 360);
    assert!(times.values().all(|count| *count == 1), "an answered response was asked for again");
    assert!(answered.iter().all(|seeds| !seeds.is_empty()), "{:?}", answered.iter().map(BTreeMap::len).collect::<Vec<_>>());
    let statistics = statistics(&workspace);
    assert_eq!(statistics.len(), 5);
    let total: f64 = statistics.values().map(|detail| detail["answers"].as_f64().unwrap()).sum();
    assert_eq!(total, 360.0);
    let dead = &statistics[&format!("{}/v1", dying.url)];
    assert!(dead["rests"].as_f64().unwrap() >= 1.0 && dead["failures"].as_f64().unwrap() >= 3.0, "{dead}");
    // A finished node asks nothing, and another list of servers changes nothing.
    let before: usize = all.iter().map(|server| server.seen().len()).sum();
    workspace.edit("remote.yaml", &format!("\"{}/v1\", ", dying.url), "");
    workspace.succeed(&["run", "remote.yaml"]);
    assert_eq!(all.iter().map(|server| server.seen().len()).sum::<usize>(), before);
}

#[test]
fn a_slow_server_delays_nobody() {
    let serving = |wait: u64| {
        let answer = serve(Style::Vllm);
        move |request: &Request| {
            std::thread::sleep(Duration::from_millis(wait));
            answer(request)
        }
    };
    let slow = Server::start(well, serving(400));
    let [fast, other] = [(); 2].map(|()| Server::start(well, serving(10)));
    let workspace = fleet(&[&slow, &fast, &other], 2, "concurrency: 2");
    workspace.succeed(&["run", "remote.yaml"]);
    committed(&workspace).iter().for_each(assert_right);
    let [few, many, more] = [&slow, &fast, &other].map(|server| seeds(server).len());
    assert_eq!(few + many + more, 240);
    // In equal shares each would have 80.
    assert!(few <= 24 && many >= 60 && more >= 60, "{few}, {many}, {more}");
}

#[test]
fn responses_to_a_prompt_go_to_one_server() {
    let delayed = || {
        let answer = serve(Style::Vllm);
        move |request: &Request| {
            std::thread::sleep(Duration::from_millis(3));
            answer(request)
        }
    };
    let servers = [(); 3].map(|()| Server::start(well, delayed()));
    let workspace = fleet(&servers.each_ref(), 4, "concurrency: 2");
    workspace.succeed(&["run", "remote.yaml"]);
    let prompts = |server: &Server| -> BTreeSet<String> {
        let completions = server.seen().into_iter().filter(|request| request.path == "/v1/completions");
        completions.map(|request| request.json()).filter(|body| body["max_tokens"] != 1).map(|body| body["prompt"].to_string()).collect()
    };
    let visits: usize = servers.iter().map(|server| prompts(server).len()).sum();
    // At the end a server takes responses of another's last prompt.
    assert!((120..=126).contains(&visits), "{visits} visits of 120 prompts");
    assert!(servers.iter().all(|server| seeds(server).len() > 80), "{:?}", servers.each_ref().map(|server| seeds(server).len()));
}

#[test]
fn killed_and_run_again_only_missing_rows_are_asked() {
    let delayed = |fate: u64| {
        let answer = serve(Style::Vllm);
        Server::start(misbehaving(fate, 10), move |request| {
            std::thread::sleep(Duration::from_millis(20));
            answer(request)
        })
    };
    let servers = [delayed(7), delayed(8), delayed(9)];
    let workspace = fleet(&servers.each_ref(), 1, "concurrency: 2, timeout_seconds: 1.5, retries: 8");
    for kill in 0..3 {
        let done: BTreeSet<u64> = committed(&workspace).iter().filter(|row| row.error.is_none()).map(seed_of).collect();
        let before = servers.each_ref().map(|server| server.seen().len());
        let mut child = workspace.start(&["run", "remote.yaml"]);
        let new = || servers.iter().zip(before).map(|(server, before)| asked(&server.seen()[before..]).len()).sum::<usize>();
        while new() < 25 && child.try_wait().unwrap().is_none() {
            std::thread::sleep(Duration::from_millis(2));
        }
        child.kill().unwrap();
        child.wait().unwrap();
        let again: Vec<u64> = servers
            .iter()
            .zip(before)
            .flat_map(|(server, before)| asked(&server.seen()[before..]).into_keys())
            .filter(|seed| done.contains(seed))
            .collect();
        assert!(again.is_empty(), "kill {kill}: {again:?}");
    }
    workspace.succeed(&["run", "remote.yaml"]);
    let rows = committed(&workspace);
    assert_eq!(rows.len(), 120);
    rows.iter().for_each(assert_right);
}

#[test]
fn with_no_server_left_the_run_ends_and_says_why() {
    let dead = Server::start(|_| Fate::Broken, serve(Style::Vllm));
    let wrong = Server::start(well, |request: &Request| {
        if request.path == "/v1/models" { Reply::json(serde_json::json!({"data": [{"id": "huge"}]})) } else { Reply::of(404, Vec::new()) }
    });
    let workspace = fleet(&[&dead, &wrong], 1, "concurrency: 2, retries: 1");
    let error = workspace.fail(&["run", "remote.yaml"], 1);
    assert!(error.contains("none of the 2 servers can be asked"), "{error}");
    assert!(error.contains("expected the model \"tiny\" among what is served, found huge"), "{error}");
    assert!(error.contains("status 500"), "{error}");
    // With one good server the others are left out, with a word about each.
    let good = Server::start(well, serve(Style::Vllm));
    workspace.edit("remote.yaml", "openai: [", &format!("openai: [\"{}/v1\", ", good.url));
    let output = workspace.optune(&["run", "remote.yaml"]);
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && said.contains("left out for now: "), "{said}");
    committed(&workspace).iter().for_each(assert_right);
}

#[test]
fn rewards_are_asked_of_several_servers() {
    let score = |request: &Request| {
        let responses = request.json()["responses"].as_array().unwrap().iter().map(|text| text.as_str().unwrap().len()).collect::<Vec<_>>();
        Reply::json(serde_json::json!({ "scores": responses }))
    };
    let servers = [
        Server::start(misbehaving(13, 20), score),
        Server::start(|number| if number < 2 { Fate::Answer } else { Fate::Drop }, score),
        Server::start(well, score),
    ];
    let workspace = Workspace::finished();
    let urls: Vec<String> = servers.iter().map(|server| format!("\"{}/score\"", server.url)).collect();
    let reward = format!("  judge:    {{ reward: {{ http: [{}], batch_size: 2, timeout_seconds: 1.5, retries: 8 }} }}", urls.join(", "));
    workspace.edit("pipeline.yaml", "  judge:    { reward: { sql: reward.sql } }", &reward);
    workspace.succeed(&["run", "pipeline.yaml"]);
    assert_eq!(
        workspace.query(
            "small",
            "SELECT count(*) FROM rewards JOIN responses USING (prompt_id, response_index, sampled_iteration) WHERE reward = length(text)"
        ),
        workspace.query("small", "SELECT count(*) FROM responses")
    );
    let scored = servers.each_ref().map(|server| server.seen().iter().filter(|request| request.fate == Fate::Answer).count());
    assert!(scored.iter().all(|count| *count > 0), "{scored:?}");
    let journal = std::fs::read_to_string(workspace.path("runs/small/journal.jsonl")).unwrap();
    assert!(journal.matches("server_asked").count() >= 3, "{journal}");
    // Only the first address is the reward's name.
    let before: usize = servers.iter().map(|server| server.seen().len()).sum();
    workspace.edit("pipeline.yaml", &format!(", {}", urls[2]), "");
    workspace.succeed(&["run", "pipeline.yaml"]);
    assert_eq!(servers.iter().map(|server| server.seen().len()).sum::<usize>(), before);
}
