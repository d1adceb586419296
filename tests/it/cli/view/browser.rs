//! The pages in a browser: no error in its console, nothing wider than the window, and the texts of
//! a run on them.

use std::process::Command;

use super::Server;
use crate::fixtures::workspace::Workspace;

/// The browser to look with; said where there is none.
fn chromium() -> Option<String> {
    let found = ["chromium", "chromium-browser", "google-chrome"]
        .into_iter()
        .find(|name| Command::new(name).arg("--version").output().is_ok_and(|output| output.status.success()));
    if found.is_none() {
        eprintln!("skipped: looking at optune view: no chromium, chromium-browser or google-chrome on the PATH");
    }
    found.map(str::to_string)
}

/// The document of a page after its script ran, and the messages of the console.
fn document(browser: &str, workspace: &Workspace, server: &Server, page: &str) -> (String, String) {
    let profile = format!("--user-data-dir={}", workspace.path("profile").display());
    let quiet = ["--disable-gpu", "--no-first-run", "--disable-background-networking", "--disable-component-update", "--disable-sync"];
    let output = Command::new(browser)
        .args(["--headless", "--no-sandbox", "--enable-logging=stderr", "--dump-dom", "--timeout=6000", "--window-size=1200,2000"])
        .args(quiet)
        .args([profile, format!("{}#{page}", server.address())])
        .output()
        .unwrap();
    let console = String::from_utf8_lossy(&output.stderr).lines().filter(|line| line.contains("CONSOLE")).collect::<Vec<_>>().join("\n");
    (String::from_utf8_lossy(&output.stdout).into_owned(), console)
}

#[test]
fn every_page_is_shown_without_an_error() {
    let Some(browser) = chromium() else { return };
    let workspace = Workspace::new();
    workspace.edit("prompts.jsonl", "upper adg=", "<b>adg</b>=");
    workspace.succeed(&["run", "pipeline.yaml"]);
    let server = Server::start(&workspace, &["small"]);
    for (page, words) in [
        ("/overview?run=small", vec!["Progress by node", "policy[2]", "Held-out reward (evaluation)"]),
        ("/prompts?run=small", vec!["1 to 20", " of 20", "&lt;b&gt;adg&lt;/b&gt;="]),
        ("/prompts?run=small&where=reward+%3C", vec!["expected a condition as after WHERE"]),
        ("/prompt?run=small&prompts=prompts&id=p-000", vec!["Why it was selected", "Iteration 1", "&lt;b&gt;adg&lt;/b&gt;="]),
        ("/prompt?run=small&prompts=prompts&id=p-001&left=1&with=small&right=2", vec!["small, iteration 1", "small, iteration 2"]),
        ("/tables?run=small", vec!["largest_gaps", "policy_training"]),
        ("/rows?run=small&table=responses", vec!["1 to 50", " of 90"]),
        ("/rows?run=small&table=evaluation&one=yes&offset=3", vec!["evaluation, row 4", "baseline_text"]),
        ("/charts?run=small", vec!["Charts of small", "<svg"]),
    ] {
        let (document, console) = document(&browser, &workspace, &server, page);
        assert_eq!(console, "", "{page}");
        for word in words {
            assert!(document.contains(word), "{page}: no {word:?} in {document}");
        }
    }
}
