//! Who may ask: the browser with the token, for this host, with a request of this page.

use super::Server;
use crate::fixtures::workspace::Workspace;

#[test]
fn only_the_printed_address_opens_the_page() {
    let workspace = Workspace::finished();
    let server = Server::start(&workspace, &["small"]);
    for target in ["/", "/main.js", "/style.css", "/api/runs", "/api/prompts?run=small", "/api/events?run=small", "/nothing"] {
        for headers in [vec![], vec![("cookie", "optune_view_1=x")], vec![("authorization", "Bearer 0")]] {
            let answer = server.request("GET", target, &headers, "");
            assert_eq!(answer.status, 403, "{target}");
            assert!(answer.error().contains("expected the token of this server"), "{}", answer.body);
        }
    }
    let wrong = format!("/?token={}0", server.token);
    assert_eq!(server.request("GET", &wrong, &[], "").status, 403);

    let entered = server.request("GET", &format!("/?token={}", server.token), &[], "");
    assert_eq!(entered.status, 303);
    assert!(entered.head.contains("\r\nlocation: /\r\n"), "{}", entered.head);
    let cookie = entered.head.split("set-cookie: ").nth(1).unwrap().split("\r\n").next().unwrap();
    assert!(cookie.ends_with("; path=/; httponly; samesite=strict"), "{cookie}");
    let cookie = cookie.split(';').next().unwrap();
    for (target, media, word) in [
        ("/", "text/html", "<main"),
        ("/main.js", "text/javascript", "import"),
        ("/style.css", "text/css", "prefers-color-scheme"),
        ("/d3.min.js", "text/javascript", "function"),
        ("/charts.js", "text/javascript", "drawCharts"),
        ("/api/runs", "application/json", "small"),
    ] {
        let answer = server.request("GET", target, &[("cookie", cookie)], "");
        assert_eq!(answer.status, 200, "{target}");
        assert!(answer.head.contains(&format!("content-type: {media}")) && answer.body.contains(word), "{target}: {}", answer.head);
        for header in [
            "content-security-policy: default-src 'none'; script-src 'self'",
            "x-content-type-options: nosniff",
            "cache-control: no-store",
            "referrer-policy: no-referrer",
        ] {
            assert!(answer.head.contains(header), "{target}: {}", answer.head);
        }
        assert!(!answer.body.contains(&server.token));
    }
}

#[test]
fn other_hosts_other_pages_and_other_methods_are_refused() {
    let workspace = Workspace::finished();
    let before = workspace.result("small");
    let server = Server::start(&workspace, &["small"]);
    let bearer = server.bearer();
    let token = ("authorization", bearer.as_str());
    for host in ["evil.example", "127.0.0.1", "127.0.0.1:1", "169.254.0.1:80"] {
        for target in ["/", "/api/runs", &format!("/?token={}", server.token)] {
            let answer = server.request("GET", target, &[token, ("host", host)], "");
            assert_eq!(answer.status, 403, "{host}");
            assert!(answer.error().starts_with("expected the host 127.0.0.1:"), "{}", answer.body);
        }
    }
    let local = format!("localhost:{}", server.port);
    assert_eq!(server.request("GET", "/api/runs", &[token, ("host", &local)], "").status, 200);
    for method in ["PUT", "DELETE", "PATCH", "TRACE", "OPTIONS"] {
        assert_eq!(server.request(method, "/api/runs", &[token], "").status, 405, "{method}");
    }
    assert_eq!(server.request("POST", "/api/runs", &[token], "").status, 405);

    let annotation = r#"{"node": "prompts", "prompt_id": "p-003", "flagged": true}"#;
    let json = ("content-type", "application/json");
    let target = "/api/annotations?run=small";
    for (status, headers) in [
        (403, vec![json]),
        (403, vec![token, json, ("origin", "http://evil.example")]),
        (403, vec![token, json, ("origin", "null")]),
        (400, vec![token]),
        (400, vec![token, ("content-type", "text/plain")]),
        (400, vec![token, ("content-type", "application/x-www-form-urlencoded")]),
    ] {
        assert_eq!(server.request("POST", target, &headers, annotation).status, status, "{headers:?}");
    }
    assert!(!workspace.path("runs/small/annotations.parquet").exists());
    let huge = format!(r#"{{"node": "prompts", "prompt_id": "p-003", "note": "{}"}}"#, "x".repeat(300_000));
    let head = format!("host: 127.0.0.1:{}\r\nauthorization: {bearer}\r\ncontent-type: application/json", server.port);
    let huge = server.send(&format!("POST {target} HTTP/1.1\r\n{head}\r\ncontent-length: {}\r\n\r\n{huge}", huge.len()));
    assert_eq!(server.ask("runs", &[])[0]["name"], "small");
    assert!(!workspace.path("runs/small/annotations.parquet").exists());
    drop(huge);
    assert_eq!(workspace.result("small"), before);
}

#[test]
fn no_path_leads_out_of_the_page() {
    let workspace = Workspace::finished();
    workspace.write("secret.txt", "secret");
    let server = Server::start(&workspace, &["small"]);
    let bearer = server.bearer();
    for target in [
        "/../secret.txt",
        "/..%2fsecret.txt",
        "/%2e%2e/secret.txt",
        "//etc/passwd",
        "/api/../secret.txt",
        "/page/../main.js",
        "/index.html",
        "/api/rows?run=..&table=responses",
        "/api/rows?run=../runs/small&table=responses",
        "/api/rows?run=small&table=../secret",
        "/api/rows?run=small&table='secret.txt'",
        "/api/tokens?run=small&node=..&id=p-003&sampled_iteration=1&response_index=0",
        "/api/prompts?run=small&prompts=../secret.txt",
    ] {
        let answer = server.request("GET", target, &[("authorization", &bearer)], "");
        assert_eq!(answer.status, 404, "{target}: {}", answer.body);
        assert!(!answer.body.contains("\"secret\""), "{target}");
    }
}

#[test]
fn a_missing_run_and_a_taken_port_are_told() {
    let workspace = Workspace::finished();
    let error = workspace.fail(&["view", "nothing"], 2);
    assert!(error.contains("expected the name or the folder of a run"), "{error}");
    let error = workspace.fail(&["--runs", "nowhere", "view"], 2);
    assert!(error.contains("expected a run in") && error.contains("nowhere"), "{error}");
    let server = Server::start(&workspace, &[]);
    let port = server.port.to_string();
    let error = workspace.fail(&["view", "small", "--port", &port], 2);
    assert!(
        error.contains(&format!("--port {port}: cannot listen at 127.0.0.1:{port}")) && error.contains("choose another port"),
        "{error}"
    );
    workspace.fail(&["view", "--port", "70000"], 2);
}

#[test]
fn half_a_request_and_nonsense_end_nothing() {
    let workspace = Workspace::finished();
    let server = Server::start(&workspace, &["small"]);
    let open: Vec<_> = ["GET / HT", "\0\0\0\0", "GET /\r\n\r\n", "POST /api/annotations HTTP/1.1\r\ncontent-length: 9\r\n\r\n{"]
        .map(|text| server.send(text))
        .into();
    assert_eq!(server.ask("runs", &[])[0]["name"], "small");
    drop(open);
    assert_eq!(server.ask("runs", &[])[0]["running"], false);
}
