//! Connections as a user's network has them: proxies, certificates of one's own, redirects.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::Output;
use std::time::Duration;

use optune::remote::{Client, Patience};
use serde_json::json;

use crate::fixtures::http_server::{GOING_ON, Reply, Request, Server, well};
use crate::fixtures::python::start_script;
use crate::fixtures::workspace::Workspace;

/// Every variable about connections.
const VARIABLES: [&str; 11] = [
    "http_proxy",
    "HTTP_PROXY",
    "https_proxy",
    "HTTPS_PROXY",
    "all_proxy",
    "ALL_PROXY",
    "no_proxy",
    "NO_PROXY",
    "SSL_CERT_FILE",
    "REQUESTS_CA_BUNDLE",
    "CURL_CA_BUNDLE",
];

fn score(request: &Request) -> Reply {
    let lengths = request.json()["responses"].as_array().unwrap().iter().map(|text| text.as_str().unwrap().len()).collect::<Vec<_>>();
    Reply::json(json!({ "scores": lengths }))
}

/// A finished run whose reward is asked of `url` anew.
fn rewarded(url: &str) -> Workspace {
    let workspace = Workspace::finished();
    let reward = format!("  judge:    {{ reward: {{ http: \"{url}\", retries: 0, timeout_seconds: 10 }} }}");
    workspace.edit("pipeline.yaml", "  judge:    { reward: { sql: reward.sql } }", &reward);
    workspace
}

/// The run, with these variables and no other about connections.
fn run(workspace: &Workspace, variables: &[(&str, &str)]) -> Output {
    let mut command = workspace.command(&["run", "pipeline.yaml"]);
    for name in VARIABLES {
        command.env_remove(name);
    }
    command.envs(variables.iter().copied()).output().unwrap()
}

fn assert_scored(workspace: &Workspace, output: &Output) {
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let equal =
        "SELECT count(*) FROM rewards JOIN responses USING (prompt_id, response_index, sampled_iteration) WHERE reward = length(text)";
    let all = workspace.query("small", "SELECT count(*) FROM responses");
    assert_eq!(workspace.query("small", equal), all);
}

#[test]
fn a_plain_address_goes_through_http_proxy_with_its_whole_address() {
    let proxy = Server::start(well, score);
    let with_user = proxy.url.replace("http://", "http://me:pass%20word@");
    let workspace = rewarded("http://scores.test:8000/score/");
    let output = run(&workspace, &[("http_proxy", &with_user), ("https_proxy", "http://127.0.0.1:1")]);
    assert_scored(&workspace, &output);
    let seen = proxy.seen();
    assert!(!seen.is_empty());
    for request in &seen {
        assert_eq!((request.method.as_str(), request.path.as_str()), ("POST", "http://scores.test:8000/score/"));
        assert_eq!(request.headers["host"], "scores.test:8000");
        // me:pass word
        assert_eq!(request.headers["proxy-authorization"], "Basic bWU6cGFzcyB3b3Jk");
    }
}

#[test]
fn no_proxy_and_addresses_of_this_machine_are_direct_and_a_proxy_is_named() {
    let server = Server::start(well, score);
    let workspace = rewarded(&server.url);
    let dead = ("http_proxy", "http://me:secret@127.0.0.1:1");
    assert_scored(&workspace, &run(&workspace, &[dead]));

    for (variables, said) in [
        (&[dead][..], "(by the proxy http://127.0.0.1:1)"),
        (&[dead, ("no_proxy", "other.test, scores.test:9")], "(by the proxy http://127.0.0.1:1)"),
        (&[dead, ("no_proxy", "other.test,scores.test:80")], "scores.test"),
        (&[dead, ("NO_PROXY", ".test")], "scores.test"),
    ] {
        let workspace = rewarded("http://scores.test/score");
        let output = run(&workspace, variables);
        let error = String::from_utf8_lossy(&output.stderr);
        assert!(!output.status.success() && error.contains(said) && !error.contains("secret"), "{variables:?}: {error}");
        assert_eq!(error.contains("by the proxy"), said.contains("by the proxy"), "{error}");
    }
    let workspace = rewarded("http://scores.test/score");
    let output = run(&workspace, &[("all_proxy", "socks5://127.0.0.1:1")]);
    let error = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{error}");
    assert!(error.contains("all_proxy: expected the address of an HTTP proxy"), "{error}");
}

#[test]
fn a_certificate_authority_of_ones_own_is_trusted() {
    let certificates = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/certificates");
    let Some(mut server) = start_script("https_server.py", &[certificates.as_os_str()]) else { return };
    let mut line = String::new();
    BufReader::new(server.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
    let workspace = rewarded(&format!("https://localhost:{}/score", line.trim()));
    let authority = certificates.join("ca.pem").display().to_string();
    let untrusted = run(&workspace, &[]);
    let error = String::from_utf8_lossy(&untrusted.stderr).into_owned();
    assert!(!untrusted.status.success() && error.contains("certificate"), "{error}");
    let missing = run(&workspace, &[("SSL_CERT_FILE", "/nowhere/ca.pem")]);
    let error = String::from_utf8_lossy(&missing.stderr).into_owned();
    assert_eq!(missing.status.code(), Some(2), "{error}");
    assert!(error.contains("SSL_CERT_FILE: expected a file with certificates (PEM), found /nowhere/ca.pem"), "{error}");
    let output = run(&workspace, &[("REQUESTS_CA_BUNDLE", &authority)]);
    assert_scored(&workspace, &output);
    server.kill().unwrap();
    server.wait().unwrap();
}

#[test]
fn redirects_keep_the_method_the_body_and_the_key_of_the_same_host() {
    // No other test sets this variable.
    unsafe { std::env::set_var("OPTUNE_TEST_REDIRECTED_KEY", "secret-456") };
    let patience = Patience { timeout: Duration::from_secs(5), retries: 0, first_wait: Duration::from_millis(2) };
    let ask = |url: &str| {
        let client = Client::new(url, Some("OPTUNE_TEST_REDIRECTED_KEY"), patience).unwrap();
        client.post("", &json!({"a": 1}), GOING_ON, Ok)
    };
    for status in [301, 302, 307, 308] {
        let server = Server::start(well, move |request: &Request| {
            if request.path == "/score" { Reply::of(status, Vec::new()).with("Location", "/score/") } else { Reply::json(request.json()) }
        });
        assert_eq!(ask(&format!("{}/score", server.url)).unwrap(), json!({"a": 1}));
        let seen = server.seen();
        assert_eq!(seen.iter().map(|request| request.path.as_str()).collect::<Vec<_>>(), ["/score", "/score/"]);
        assert!(seen.iter().all(|request| request.method == "POST" && request.headers["authorization"] == "Bearer secret-456"));
    }
    // Another host does not get the key.
    let other = Server::start(well, |request: &Request| Reply::json(request.json()));
    let location = other.url.replace("127.0.0.1", "localhost");
    let server = Server::start(well, move |_: &Request| Reply::of(307, Vec::new()).with("Location", &location));
    assert_eq!(ask(&server.url).unwrap(), json!({"a": 1}));
    assert!(!other.seen()[0].headers.contains_key("authorization"));
    // Without an end.
    let server = Server::start(well, |_: &Request| Reply::of(307, Vec::new()).with("Location", "/again"));
    let error = ask(&server.url).unwrap_err();
    assert!(error.to_string().contains("more than 5 redirects") && !error.is_transient(), "{error}");
    let server = Server::start(well, |_: &Request| Reply::of(303, b"see elsewhere".to_vec()).with("Location", "/x"));
    assert!(ask(&server.url).unwrap_err().to_string().contains("status 303: see elsewhere"));
}

#[test]
fn a_slash_at_the_end_of_an_address_is_kept() {
    let server = Server::start(well, |request: &Request| Reply::json(json!(request.path)));
    let patience = Patience { retries: 0, ..Patience::default() };
    for (given, path, asked) in [("/score/", "", "/score/"), ("/score", "", "/score"), ("/v1/", "/models", "/v1/models"), ("", "/x", "/x")]
    {
        let client = Client::new(&format!("{}{given}", server.url), None, patience).unwrap();
        assert_eq!(client.get(path, GOING_ON, Ok).unwrap(), json!(asked));
    }
}
