//! `optune export … --push`: what is exported goes to a hub on loopback, with a card. What Python's
//! huggingface_hub puts there from the same folder is the same.

use std::collections::BTreeMap;
use std::fs;
use std::process::Output;

use crate::fixtures::files::files_under;
use crate::fixtures::http_server::{Fate, Server, misbehaving, well};
use crate::fixtures::hub_store::HubStore;
use crate::fixtures::python;
use crate::fixtures::workspace::Workspace;

fn export(workspace: &Workspace, endpoint: &str, token: Option<&str>, arguments: &[&str]) -> Output {
    let mut command = workspace.command(&[&["export"], arguments].concat());
    command.env("HF_ENDPOINT", endpoint).env("HF_HOME", workspace.path("hf"));
    for other in ["HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE", "HF_TOKEN_PATH", "HF_HUB_OFFLINE", "HF_TOKEN", "HUGGING_FACE_HUB_TOKEN"] {
        command.env_remove(other);
    }
    if let Some(token) = token {
        command.env("HF_TOKEN", token);
    }
    command.output().unwrap()
}

fn succeed(output: &Output) -> String {
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// An error with its exit code.
fn fail(output: &Output) -> (i32, String) {
    (output.status.code().unwrap(), String::from_utf8_lossy(&output.stderr).into_owned())
}

#[test]
fn a_policy_goes_to_the_hub_with_a_card() {
    let workspace = Workspace::finished();
    let store = HubStore::default();
    let server = Server::start(well, store.serve());
    let said = succeed(&export(&workspace, &server.url, Some("hf_secret"), &["policy", "small", "--push", "hf://org/name", "--private"]));
    assert!(said.contains("commit 00") && said.contains("/models/org/name/commit/"), "{said}");
    assert_eq!(store.repo("models/org/name").unwrap()["private"], true);
    let commits = store.commits();
    let pushed = &commits[0];
    assert_eq!((pushed.repo.as_str(), pushed.branch.as_str()), ("models/org/name", "main"));
    assert_eq!(pushed.summary, "policy of iteration 1 of the run small, by optune");

    // The same files as an export to a folder, and the card.
    succeed(&export(&workspace, &server.url, None, &["policy", "small", "exported"]));
    let mut files = pushed.files.clone();
    let card = String::from_utf8(files.remove("README.md").unwrap()).unwrap();
    let folder: BTreeMap<String, Vec<u8>> = fs::read_dir(workspace.path("exported"))
        .unwrap()
        .map(|entry| entry.unwrap())
        .map(|entry| (entry.file_name().into_string().unwrap(), fs::read(entry.path()).unwrap()))
        .collect();
    assert_eq!(files, folder);
    let manifest = fs::read_to_string(workspace.path("runs/small/models/policy/iteration=1/manifest.json")).unwrap();
    let fingerprint = manifest.split("\"fingerprint\": \"").nth(1).unwrap().split('"').next().unwrap();
    let reward = workspace.query("small", "SELECT avg(reward) FROM evaluation WHERE iteration = 1");
    for part in
        ["library_name: transformers", "## Held-out prompts (evaluation)", "learning_rate", "## Licence", "prompts.jsonl", fingerprint]
    {
        assert!(card.contains(part), "{part}: {card}");
    }
    assert!(card.contains(&reward[..reward.len().min(4)]), "{reward}: {card}");
    assert!(card.starts_with("---\n") && !card.contains("license:"), "the licence is left to the user");

    // Again: nothing large is sent twice. Nothing is left beside the runs.
    let before = server.seen().len();
    succeed(&export(&workspace, &server.url, Some("hf_secret"), &["policy", "small", "--push", "hf://org/name"]));
    assert!(server.seen()[before..].iter().all(|request| request.method != "PUT"));
    assert!(
        fs::read_dir(workspace.path("runs")).unwrap().all(|entry| !entry.unwrap().file_name().to_string_lossy().starts_with(".export"))
    );
}

#[test]
fn pairs_go_to_the_hub_as_a_dataset() {
    let workspace = Workspace::finished();
    let store = HubStore::default();
    let server = Server::start(well, store.serve());
    let arguments = ["pairs", "small", "own.parquet", "--push", "hf://datasets/org/pairs@main"];
    let said = succeed(&export(&workspace, &server.url, Some("hf_secret"), &arguments));
    assert!(said.contains("pairs in own.parquet") && said.contains("/datasets/org/pairs/commit/"), "{said}");
    let commits = store.commits();
    let files = &commits[0].files;
    assert_eq!(files.keys().map(String::as_str).collect::<Vec<_>>(), ["README.md", "data/train-00000-of-00001.parquet"]);
    assert_eq!(files["data/train-00000-of-00001.parquet"], fs::read(workspace.path("own.parquet")).unwrap());
    let card = String::from_utf8_lossy(&files["README.md"]);
    assert!(card.contains("data_files: \"data/train-00000-of-00001.parquet\"") && card.contains("pairs of preferred"), "{card}");
    let rows = workspace.query("small", "SELECT count(*) FROM pairs WHERE iteration = 1");
    assert!(card.contains(&format!("\n{rows} pairs")), "{rows}: {card}");
}

#[test]
fn a_hub_that_misbehaves_gets_the_same_commit() {
    let workspace = Workspace::finished();
    let store = HubStore::default();
    // Without the fates that only a time limit of a minute ends, and without garbage: that a file is
    // there is said by the status alone.
    let fate = misbehaving(5, 30);
    let server = Server::start(
        move |number| match fate(number) {
            Fate::Hang | Fate::Garbage => Fate::Drop,
            other => other,
        },
        store.serve(),
    );
    succeed(&export(&workspace, &server.url, Some("hf_secret"), &["policy", "small", "exported", "--push", "hf://org/name"]));
    let commits = store.commits();
    let last = commits.last().unwrap();
    for path in files_under(&workspace.path("exported")) {
        let name = path.file_name().unwrap().to_str().unwrap();
        assert_eq!(last.files[name], fs::read(&path).unwrap(), "{name}");
    }
}

#[test]
fn what_keeps_a_push_from_the_hub_is_said() {
    let workspace = Workspace::finished();
    let store = HubStore::default();
    let server = Server::start(well, store.serve());
    let policy = |token: Option<&str>, to: &str| fail(&export(&workspace, &server.url, token, &["policy", "small", "--push", to]));
    for (to, form) in [("org/name", "hf://org/name"), ("hf://name", "hf://org/name"), ("hf://datasets/org/name", "hf://org/name")] {
        let (code, error) = policy(Some("hf_secret"), to);
        assert!(code == 2 && error.contains(&format!("--push: expected {form} or {form}@branch, found")), "{error}");
    }
    assert_eq!(server.seen().len(), 0);
    let (code, error) = policy(None, "hf://org/name");
    assert!(code == 2 && error.contains("found none; put one into HF_TOKEN"), "{error}");
    for (token, to) in [("hf_wrong", "hf://org/name"), ("hf_secret", "hf://others/name")] {
        let (code, error) = policy(Some(token), to);
        assert!(code == 2 && error.contains("expected the right to write to") && !error.contains(token), "{error}");
    }
    let (code, error) = policy(Some("hf_secret"), "hf://org/name@none");
    assert!(code == 2 && error.contains("expected a branch, tag or commit \"none\""), "{error}");
    assert!(store.commits().is_empty());
    let (code, error) = fail(&export(&workspace, &server.url, None, &["policy", "small"]));
    assert!(code == 2 && error.contains("required"), "{error}");
}

#[test]
fn huggingface_hub_puts_the_same_files_there() {
    let workspace = Workspace::finished();
    let store = HubStore::default();
    let server = Server::start(well, store.serve());
    succeed(&export(&workspace, &server.url, Some("hf_secret"), &["policy", "small", "exported", "--push", "hf://org/ours"]));
    let folder = workspace.path("exported");
    let arguments = [server.url.as_ref(), folder.as_os_str(), "org/theirs".as_ref()];
    if python::run_script("hub_push.py", &arguments).is_none() {
        return;
    }
    let commits = store.commits();
    assert_eq!((commits[0].repo.as_str(), commits[1].repo.as_str()), ("models/org/ours", "models/org/theirs"));
    assert_eq!(commits[0].files, commits[1].files);
}
