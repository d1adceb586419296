//! A loopback server that misbehaves on purpose, and how clients get along with it.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::ops::ControlFlow;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use optune::remote::{Client, Patience, Protocol, RemoteError, RewardServer, Scorable, each, in_order};
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};
use serde_json::{Value, json};

/// What happens to a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Fate {
    /// It is answered.
    Answer,
    /// The connection is closed without an answer.
    Drop,
    /// It is answered with 429 and this many seconds in Retry-After.
    TooMany(u64),
    /// It is answered with 500.
    Broken,
    /// It is never answered.
    Hang,
    /// It is answered with something that is not JSON.
    Garbage,
}

/// A request as it came.
#[derive(Clone, Debug)]
pub struct Request {
    pub method: String,
    pub path: String,
    /// By lower-case name.
    pub headers: BTreeMap<String, String>,
    pub body: String,
    pub fate: Fate,
    pub at: Instant,
}

impl Request {
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap()
    }
}

/// An answer.
pub struct Reply {
    pub status: u16,
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
    /// The connection is cut after this many bytes of the body.
    pub cut: Option<usize>,
}

impl Reply {
    pub fn json(value: Value) -> Self {
        Self::of(200, value.to_string().into_bytes())
    }

    pub fn of(status: u16, body: Vec<u8>) -> Self {
        Self { status, headers: Vec::new(), body, cut: None }
    }

    pub fn with(mut self, name: &str, value: &str) -> Self {
        self.headers.push((name.to_string(), value.to_string()));
        self
    }
}

/// A running server; it ends when it is dropped.
pub struct Server {
    pub url: String,
    shared: Arc<Shared>,
}

struct Shared {
    seen: Mutex<Vec<Request>>,
    count: AtomicUsize,
    in_flight: AtomicUsize,
    most_in_flight: AtomicUsize,
    ended: AtomicBool,
    fate: Box<dyn Fn(usize) -> Fate + Send + Sync>,
    answer: Box<dyn Fn(&Request) -> Reply + Send + Sync>,
}

/// Every request is answered.
pub fn well(_: usize) -> Fate {
    Fate::Answer
}

/// A share of requests drawn from a seed is not answered: dropped, 429, 500, hanging or garbage in equal parts.
pub fn misbehaving(seed: u64, percent: u32) -> impl Fn(usize) -> Fate + Send + Sync {
    move |number| {
        let mut random = ChaCha8Rng::seed_from_u64(seed);
        random.set_word_pos(number as u128 * 4);
        if random.next_u32() % 100 >= percent {
            return Fate::Answer;
        }
        [Fate::Drop, Fate::TooMany(1), Fate::Broken, Fate::Hang, Fate::Garbage][random.next_u32() as usize % 5]
    }
}

impl Server {
    /// Starts a server. `fate` says what becomes of the n-th request; those that are to be answered go to `answer`.
    pub fn start(fate: impl Fn(usize) -> Fate + Send + Sync + 'static, answer: impl Fn(&Request) -> Reply + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let shared = Arc::new(Shared {
            seen: Mutex::new(Vec::new()),
            count: AtomicUsize::new(0),
            in_flight: AtomicUsize::new(0),
            most_in_flight: AtomicUsize::new(0),
            ended: AtomicBool::new(false),
            fate: Box::new(fate),
            answer: Box::new(answer),
        });
        let serving = shared.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                if serving.ended.load(Ordering::SeqCst) {
                    return;
                }
                let serving = serving.clone();
                // A client that goes away in the middle of an exchange is none of the server's business.
                std::thread::spawn(move || drop(serving.serve(stream)));
            }
        });
        Self { url, shared }
    }

    /// The requests so far.
    pub fn seen(&self) -> Vec<Request> {
        self.shared.seen.lock().unwrap().clone()
    }

    /// The most requests that were in hand at the same time.
    pub fn most_in_flight(&self) -> usize {
        self.shared.most_in_flight.load(Ordering::SeqCst)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.shared.ended.store(true, Ordering::SeqCst);
        // Wakes the listener.
        drop(TcpStream::connect(self.url.trim_start_matches("http://")));
    }
}

impl Shared {
    fn serve(&self, mut stream: TcpStream) -> std::io::Result<()> {
        let mut reader = BufReader::new(stream.try_clone()?);
        let mut line = String::new();
        if reader.read_line(&mut line)? == 0 {
            return Ok(());
        }
        let mut words = line.split_whitespace().map(str::to_string);
        let (method, path) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
        let mut headers = BTreeMap::new();
        loop {
            let mut line = String::new();
            reader.read_line(&mut line)?;
            let Some((name, value)) = line.trim_end().split_once(':') else { break };
            headers.insert(name.to_lowercase(), value.trim().to_string());
        }
        let length = headers.get("content-length").and_then(|length| length.parse().ok()).unwrap_or(0);
        let mut body = vec![0; length];
        reader.read_exact(&mut body)?;
        let body = String::from_utf8(body).unwrap();
        let fate = (self.fate)(self.count.fetch_add(1, Ordering::SeqCst));
        let request = Request { method, path, headers, body, fate, at: Instant::now() };
        self.seen.lock().unwrap().push(request.clone());
        self.most_in_flight.fetch_max(self.in_flight.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
        let result = self.meet(&request, &mut stream);
        self.in_flight.fetch_sub(1, Ordering::SeqCst);
        result
    }

    fn meet(&self, request: &Request, stream: &mut TcpStream) -> std::io::Result<()> {
        let reply = match request.fate {
            Fate::Answer => (self.answer)(request),
            Fate::Drop => return Ok(()),
            Fate::TooMany(seconds) => Reply::of(429, b"slow down".to_vec()).with("Retry-After", &seconds.to_string()),
            Fate::Broken => Reply::of(500, b"{\"error\": \"out of memory\"}".to_vec()),
            Fate::Hang => {
                // Until the client goes away.
                stream.set_read_timeout(Some(Duration::from_secs(60)))?;
                let _ = stream.read(&mut [0])?;
                return Ok(());
            }
            Fate::Garbage => Reply::of(200, b"<html>the tubes are clogged</html>".to_vec()),
        };
        let mut head = format!("HTTP/1.1 {} x\r\nConnection: close\r\nContent-Length: {}\r\n", reply.status, reply.body.len());
        for (name, value) in &reply.headers {
            head.push_str(&format!("{name}: {value}\r\n"));
        }
        stream.write_all(format!("{head}\r\n").as_bytes())?;
        let body = if request.method == "HEAD" { &[] } else { &reply.body[..reply.cut.unwrap_or(reply.body.len()).min(reply.body.len())] };
        stream.write_all(body)
    }
}

/// Quick enough for tests.
fn patience(retries: usize) -> Patience {
    Patience { timeout: Duration::from_millis(300), retries, first_wait: Duration::from_millis(2) }
}

fn client(server: &Server, retries: usize) -> Client {
    Client::new(&server.url, None, patience(retries)).unwrap()
}

const GOING_ON: &(dyn Fn() -> bool + Sync) = &|| false;

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
    for status in [301, 400, 401, 404, 422] {
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

    let past = "Wed, 21 Oct 2015 07:28:00 GMT";
    let answered = AtomicBool::new(false);
    let server = Server::start(well, move |request| match answered.swap(true, Ordering::SeqCst) {
        true => echo(request),
        false => Reply::of(503, Vec::new()).with("Retry-After", past),
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
    // The only test that sets this variable.
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
