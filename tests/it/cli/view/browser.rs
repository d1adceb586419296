//! The pages in a browser: no error in its console, nothing wider than the window, and the texts of
//! a run on them.
//!
//! Chromium is driven over its DevTools protocol, by a pipe: its own `--dump-dom` does not wait for
//! a script that asks the server.

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::Server;
use crate::fixtures::browser::chromium;
use crate::fixtures::workspace::Workspace;

/// How long a page may take until its words are there.
const PATIENCE: Duration = Duration::from_secs(60);

/// A browser without a window; ends with this.
struct Browser {
    process: Child,
    commands: ChildStdin,
    messages: Receiver<Value>,
    sent: u64,
    /// What the consoles of the pages said since it was last taken.
    console: Vec<String>,
}

/// What a page shows.
struct Page {
    document: String,
    /// Pixels that the document is wider than the window.
    overflow: i64,
}

impl Browser {
    fn start(program: &str, workspace: &Workspace) -> Self {
        // The browser reads commands from descriptor 3 and writes its messages to descriptor 4.
        let mut process = Command::new("sh")
            .args(["-c", "exec \"$0\" \"$@\" 3<&0 4>&1 1>&2", program])
            .args(["--headless", "--no-sandbox", "--remote-debugging-pipe", "--window-size=1200,2000", "--disable-gpu"])
            .args(["--no-first-run", "--disable-background-networking", "--disable-component-update", "--disable-sync"])
            .arg(format!("--user-data-dir={}", workspace.path("profile").display()))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let commands = process.stdin.take().unwrap();
        let mut output = BufReader::new(process.stdout.take().unwrap());
        let (sender, messages) = channel();
        std::thread::spawn(move || {
            let mut message = Vec::new();
            while output.read_until(0, &mut message).is_ok_and(|length| length > 0) {
                message.pop();
                if sender.send(serde_json::from_slice(&message).unwrap()).is_err() {
                    return;
                }
                message.clear();
            }
        });
        Self { process, commands, messages, sent: 0, console: vec![] }
    }

    /// Sends a command to a page, or to the browser, and returns its result.
    fn command(&mut self, session: Option<&str>, method: &str, params: Value) -> Value {
        self.sent += 1;
        let mut command = json!({ "id": self.sent, "method": method, "params": params });
        if let Some(session) = session {
            command["sessionId"] = json!(session);
        }
        self.commands.write_all(format!("{command}\0").as_bytes()).unwrap();
        loop {
            let message = self.messages.recv_timeout(PATIENCE).unwrap_or_else(|error| panic!("{method}: {error}"));
            if message["id"] == self.sent {
                assert!(message["error"].is_null(), "{method}: {message}");
                return message["result"].clone();
            }
            let params = &message["params"];
            match message["method"].as_str() {
                Some("Runtime.consoleAPICalled") if params["type"] == "error" || params["type"] == "warning" => {
                    self.console.push(params["args"].to_string());
                }
                Some("Runtime.exceptionThrown") => self.console.push(params["exceptionDetails"].to_string()),
                Some("Log.entryAdded") => self.console.push(params["entry"].to_string()),
                _ => {}
            }
        }
    }

    fn evaluate(&mut self, session: &str, expression: &str) -> Value {
        let params = json!({ "expression": expression, "returnByValue": true });
        self.command(Some(session), "Runtime.evaluate", params)["result"]["value"].clone()
    }

    /// Opens an address in a page of its own, and returns the page once all words are there.
    fn open(&mut self, address: &str, words: &[&str]) -> Page {
        let target = self.command(None, "Target.createTarget", json!({ "url": "about:blank" }))["targetId"].clone();
        let attached = self.command(None, "Target.attachToTarget", json!({ "targetId": target, "flatten": true }));
        let session = attached["sessionId"].as_str().unwrap();
        self.command(Some(session), "Runtime.enable", json!({}));
        self.command(Some(session), "Log.enable", json!({}));
        self.command(Some(session), "Page.navigate", json!({ "url": address }));
        let start = Instant::now();
        loop {
            let document = self.evaluate(session, "document.documentElement.outerHTML");
            let document = document.as_str().unwrap_or_default().to_string();
            let missing: Vec<&&str> = words.iter().filter(|word| !document.contains(**word)).collect();
            if missing.is_empty() {
                // What the page asks for beside its words may fail too.
                std::thread::sleep(Duration::from_millis(300));
                let overflow = self.evaluate(session, "document.documentElement.scrollWidth - window.innerWidth").as_i64();
                self.command(None, "Target.closeTarget", json!({ "targetId": target }));
                return Page { document, overflow: overflow.unwrap() };
            }
            assert!(start.elapsed() < PATIENCE, "{address}: no {missing:?} in {document}; console: {:?}", self.console);
            std::thread::sleep(Duration::from_millis(50));
        }
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        drop(self.process.kill());
        drop(self.process.wait());
    }
}

#[test]
fn every_page_is_shown_without_an_error() {
    let Some(program) = chromium("optune view") else { return };
    let workspace = Workspace::new();
    workspace.edit("prompts.jsonl", "upper adg=", "<b>adg</b>=");
    workspace.succeed(&["run", "pipeline.yaml"]);
    let server = Server::start(&workspace, &["small"]);
    let mut browser = Browser::start(&program, &workspace);
    for (page, words) in [
        ("/overview?run=small", vec!["Progress by node", "policy[2]", "Held-out reward (evaluation)"]),
        ("/prompts?run=small", vec!["1 to 20", " of 20", "&lt;b&gt;adg&lt;/b&gt;="]),
        ("/prompt?run=small&prompts=prompts&id=p-000", vec!["Why it was selected", "Iteration 1", "&lt;b&gt;adg&lt;/b&gt;="]),
        ("/prompt?run=small&prompts=prompts&id=p-001&left=1&with=small&right=2", vec!["small, iteration 1", "small, iteration 2"]),
        ("/tables?run=small", vec!["largest_gaps", "policy_training"]),
        ("/rows?run=small&table=responses", vec!["1 to 50", " of 90"]),
        ("/rows?run=small&table=evaluation&one=yes&offset=3", vec!["evaluation, row 4", "baseline_text"]),
        ("/charts?run=small", vec!["Charts of small", "<svg"]),
    ] {
        let shown = browser.open(&format!("{}#{page}", server.address()), &words);
        assert!(shown.overflow <= 0, "{page}: {} pixels wider than the window", shown.overflow);
        assert!(!shown.document.contains("<b>adg"), "{page}: markup of a prompt is shown as markup");
        assert_eq!(browser.console, Vec::<String>::new(), "{page}");
    }
    // A refused condition is said on the page; the browser notes the answer's status.
    let page = "/prompts?run=small&where=reward+%3C";
    browser.open(&format!("{}#{page}", server.address()), &["expected a condition as after WHERE"]);
    let console = std::mem::take(&mut browser.console);
    assert!(console.iter().all(|entry| entry.contains("400")), "{console:?}");
    // The faults that this test looks for are found.
    let broken = "data:text/html,<div style='width: 5000px'>wide</div><script>missing()</script>";
    assert!(browser.open(broken, &["wide"]).overflow > 0);
    assert!(browser.console.iter().any(|entry| entry.contains("missing is not defined")), "{:?}", browser.console);
}
