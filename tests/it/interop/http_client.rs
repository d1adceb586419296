//! HTTP clients against a loopback server with faults: retries, waits, keys, order of results.

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use optune::remote::{Client, Patience, Protocol, RemoteError, RewardServer, Scorable, each, in_order};
use serde_json::{Value, json};

use crate::fixtures::http_server::{Fate, GOING_ON, Reply, Request, Server, misbehaving, well};

/// Quick enough for tests.
fn patience(retries: usize) -> Patience {
    Patience { timeout: Duration::from_millis(300), retries, first_wait: Duration::from_millis(2) }
}

fn client(server: &Server, retries: usize) -> Client {
    Client::new(&server.url, None, patience(retries)).unwrap()
}

fn echo(request: &Request) -> Reply {
    Reply::json(json!({ "echo": request.json() }))
}

fn ask(client: &Client) -> Result<Value, RemoteError> {
    client.post("/x", &json!({"a": 1}), GOING_ON, |answer| answer.get("echo").cloned().ok_or_else(|| "expected an echo".to_string()))
}

#[test]
fn every_mishap_is_tried_again_and_said_when_it_stays() {
    for (fate, said) in [
        (Fate::Drop, "the connection failed"),
        (Fate::TooMany(0), "status 429: slow down"),
        (Fate::Broken, "status 500: {\"error\": \"out of memory\"}"),
        (Fate::Hang, "no answer within 0.3 seconds"),
        (Fate::Garbage, "expected JSON, found a body that is none (expected value at line 1 column 1): <html>the tubes are clogged</html>"),
    ] {
        let server = Server::start(move |number| if number < 2 { fate } else { Fate::Answer }, echo);
        assert_eq!(ask(&client(&server, 2)).unwrap(), json!({"a": 1}), "{fate:?}");
        assert_eq!(server.seen().iter().map(|request| request.path.as_str()).collect::<Vec<_>>(), ["/x"; 3]);
        let server = Server::start(move |_| fate, echo);
        let error = ask(&client(&server, 2)).unwrap_err().to_string();
        assert!(error.contains(said) && error.contains(&server.url) && error.ends_with("(gave up after 3 attempts)"), "{error}");
        assert_eq!(server.seen().len(), 3, "{fate:?}");
    }
}

#[test]
fn an_answer_that_says_no_is_final() {
    for status in [303, 400, 401, 404, 422] {
        let server = Server::start(well, move |_| Reply::of(status, b"no such model".to_vec()).with("Location", "/elsewhere"));
        let error = ask(&client(&server, 5)).unwrap_err();
        assert!(error.to_string().contains(&format!("status {status}: no such model")), "{error}");
        assert!(!error.is_transient());
        assert_eq!(server.seen().len(), 1);
    }
}

#[test]
fn retry_after_is_waited_for_in_seconds_and_as_a_date() {
    let server = Server::start(|number| if number == 0 { Fate::TooMany(1) } else { Fate::Answer }, echo);
    ask(&client(&server, 1)).unwrap();
    let seen = server.seen();
    assert!(seen[1].at - seen[0].at >= Duration::from_secs(1));

    // Fractions of a second, too.
    let begun = AtomicBool::new(false);
    let server = Server::start(well, move |request| {
        if begun.swap(true, Ordering::SeqCst) { echo(request) } else { Reply::of(429, Vec::new()).with("Retry-After", "0.4") }
    });
    ask(&client(&server, 1)).unwrap();
    let seen = server.seen();
    assert!(seen[1].at - seen[0].at >= Duration::from_millis(400));

    let past = "Wed, 21 Oct 2015 07:28:00 GMT";
    let answered = AtomicBool::new(false);
    let server = Server::start(well, move |request| {
        if answered.swap(true, Ordering::SeqCst) { echo(request) } else { Reply::of(503, Vec::new()).with("Retry-After", past) }
    });
    ask(&client(&server, 1)).unwrap();
}

#[test]
fn waits_grow() {
    let server = Server::start(|_| Fate::Broken, echo);
    let patience = Patience { first_wait: Duration::from_millis(20), ..patience(4) };
    ask(&Client::new(&server.url, None, patience).unwrap()).unwrap_err();
    let seen = server.seen();
    for (index, pair) in seen.windows(2).enumerate() {
        assert!(pair[1].at - pair[0].at >= Duration::from_millis(20 << index), "wait {index}");
    }
}

#[test]
fn whoever_asks_to_stop_does_not_wait_for_a_server_that_hangs() {
    let server = Server::start(|_| Fate::Hang, echo);
    let client = Client::new(&server.url, None, Patience { timeout: Duration::from_secs(3600), ..patience(0) }).unwrap();
    let stopped = || !server.seen().is_empty();
    let result = client.get("/x", &stopped, Ok);
    assert!(matches!(result, Err(RemoteError::Stopped)), "{result:?}");
}

#[test]
fn the_key_is_sent_and_never_shown() {
    // No other test sets this variable.
    unsafe { std::env::set_var("OPTUNE_TEST_KEY", "secret-123") };
    let server = Server::start(well, |request| Reply::of(403, format!("bad key {}", request.headers["authorization"]).into_bytes()));
    let client = Client::new(&server.url, Some("OPTUNE_TEST_KEY"), patience(0)).unwrap();
    let error = ask(&client).unwrap_err().to_string();
    assert_eq!(server.seen()[0].headers["authorization"], "Bearer secret-123");
    assert!(error.contains("status 403: bad key Bearer ***"), "{error}");
    assert!(!format!("{client:?}").contains("secret"));
    let error = Client::new(&server.url, Some("OPTUNE_NO_SUCH_KEY"), patience(0)).unwrap_err();
    assert!(error.is_input() && error.to_string().contains("OPTUNE_NO_SUCH_KEY"), "{error}");
}

#[test]
fn a_url_that_is_none_is_an_input_error() {
    for (url, said) in [
        ("localhost:8000", "http://"),
        ("ftp://host/x", "http://"),
        ("http://", "http://"),
        ("http://user:pass@host/v1", "api_key_env"),
        ("http://host/v1?key=1", "\"?\""),
        ("http://ho st/", "characters"),
    ] {
        let error = Client::new(url, None, patience(0)).unwrap_err();
        assert!(error.is_input() && error.to_string().contains(said), "{url}: {error}");
        assert!(!error.to_string().contains("pass@"), "{error}");
    }
}

#[test]
fn results_come_in_order_on_a_few_threads_and_no_more_when_stopped() {
    let server = Server::start(misbehaving(3, 40), echo);
    let client = client(&server, 20);
    let items: Vec<usize> = (0..40).collect();
    let results = in_order(&items, 4, GOING_ON, |item| {
        client.post("/x", &json!(item), GOING_ON, |answer| answer["echo"].as_u64().ok_or_else(|| "expected an echo".to_string()))
    });
    let found: Vec<usize> = results.into_iter().map(|result| result.unwrap().unwrap() as usize).collect();
    assert_eq!(found, items);
    assert!(server.most_in_flight() <= 4 + server.seen().iter().filter(|request| request.fate == Fate::Hang).count());
    let fates: BTreeMap<Fate, usize> = server.seen().iter().fold(BTreeMap::new(), |mut fates, request| {
        *fates.entry(request.fate).or_default() += 1;
        fates
    });
    assert!(fates.len() >= 5, "{fates:?}");

    let begun = AtomicUsize::new(0);
    let stopped = || begun.load(Ordering::SeqCst) >= 5;
    let results = in_order(&items, 1, &stopped, |item| {
        begun.fetch_add(1, Ordering::SeqCst);
        *item
    });
    assert_eq!(results.iter().flatten().count(), 5);
}

fn scorables<'a>(texts: &'a [(String, String, String)]) -> Vec<Scorable<'a>> {
    let scorable = |(query, prompt, response): &'a (String, String, String)| Scorable { query, prompt, response, label: None };
    texts.iter().map(scorable).collect()
}

fn texts(count: usize) -> Vec<(String, String, String)> {
    (0..count).map(|i| (format!("<p>{i}</p>ab"), i.to_string(), "b".repeat(i))).collect()
}

#[test]
fn a_reward_server_is_asked_in_either_shape() {
    let texts = texts(3);
    let server = Server::start(misbehaving(11, 50), |request| {
        let length = |text: &Value| text.as_str().unwrap().len() as f64 / 2.0;
        let responses = request.json()["responses"].as_array().unwrap().iter().map(length).collect::<Vec<_>>();
        Reply::json(json!({ "scores": responses }))
    });
    let scores = RewardServer::new(client(&server, 20), Protocol::Plain).score(&scorables(&texts), GOING_ON).unwrap();
    assert_eq!(scores, [0.0, 0.5, 1.0].map(Some));
    assert_eq!(server.seen().last().unwrap().json(), json!({"prompts": ["0", "1", "2"], "responses": ["", "b", "bb"]}));

    for key in ["rewards", "reward"] {
        let server = Server::start(well, move |_| Reply::json(json!({ key: [1, -2.5, 1e3], "extra_logs": {"scores": [7, 7, 7]} })));
        let mut batch = scorables(&texts);
        batch[1].label = Some("four");
        let rewards = RewardServer::new(client(&server, 0), Protocol::OpenRlhf).score(&batch, GOING_ON).unwrap();
        assert_eq!(rewards, [1.0, -2.5, 1000.0].map(Some));
        let expected = json!({
            "query": ["<p>0</p>ab", "<p>1</p>ab", "<p>2</p>ab"], "prompts": ["0", "1", "2"], "labels": [null, "four", null],
        });
        assert_eq!(server.seen()[0].json(), expected);
    }
    assert!(RewardServer::new(client(&server, 0), Protocol::Plain).score(&[], GOING_ON).unwrap().is_empty());
}

#[test]
fn rewards_that_cannot_be_are_said() {
    let texts = texts(2);
    for (body, said, requests) in [
        ("{\"scores\": [1]}", "expected 2 rewards, one for each response, found 1", 1),
        ("{\"scores\": [1, 2, 3]}", "found 3", 1),
        ("{\"scores\": [1, true]}", "expected a number as reward 1 of 2, found true", 1),
        ("{\"scores\": [\"1\", 2]}", "expected a number as reward 0 of 2, found \"1\"", 1),
        ("{\"scores\": [[1], [2]]}", "found [1]", 1),
        ("{\"scores\": [1, NaN]}", "found NaN, which it cannot have", 2),
        ("{\"scores\": [1, 1e999]}", "expected JSON", 2),
        ("{\"score\": [1, 2]}", "expected a list \"scores\" or \"rewards\", found none: {\"score\": [1, 2]}", 2),
        ("[1, 2]", "expected a list", 2),
    ] {
        let server = Server::start(well, move |_| Reply::of(200, body.as_bytes().to_vec()));
        let error = RewardServer::new(client(&server, 1), Protocol::Plain).score(&scorables(&texts), GOING_ON).unwrap_err().to_string();
        assert!(error.contains(said) && error.contains(&server.url), "{body}: {error}");
        assert_eq!(server.seen().len(), requests, "{body}");
    }
}

#[test]
fn a_slow_taker_holds_up_the_work() {
    let begun = AtomicUsize::new(0);
    let work = |item: &usize| {
        begun.fetch_add(1, Ordering::SeqCst);
        *item
    };
    let mut taken = 0;
    each(&(0..50).collect::<Vec<_>>(), 3, GOING_ON, work, |_, _| {
        std::thread::sleep(Duration::from_millis(1));
        taken += 1;
        assert!(begun.load(Ordering::SeqCst) <= taken + 3);
        ControlFlow::Continue(())
    });
    assert_eq!(taken, 50);

    let mut taken = 0;
    each(
        &[0; 50],
        3,
        GOING_ON,
        |item| *item,
        |_, _| {
            taken += 1;
            if taken == 5 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        },
    );
    assert_eq!(taken, 5);
    let panics = || each(&[0; 50], 3, GOING_ON, |item| *item, |_, _| panic!("out of luck"));
    assert!(std::panic::catch_unwind(panics).is_err());
}
