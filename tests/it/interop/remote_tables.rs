//! Tables of the hub and of web servers: cached, continued, recorded, and kept by the run that began
//! with them.

use std::collections::BTreeMap;
use std::fs;
use std::process::Output;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use optune::pipeline::address::Address;
use serde_json::{Value, json};

use crate::fixtures::http_server::{Reply, Request, Server, well};
use crate::fixtures::hub::{FIRST, PARQUET, Repository, SECOND};
use crate::fixtures::workspace::Workspace;

/// A pipeline of one query about a table.
fn workspace(table: &str) -> Workspace {
    let workspace = Workspace::new();
    let query = "SELECT count(*) AS rows, sum(n) AS total FROM data";
    let text =
        format!("optune: 1\nname: small\ninputs:\n  data: {{ table: {table} }}\nnodes:\n  sums: {{ sql: {{ query: {query:?} }} }}\n");
    workspace.write("pipeline.yaml", &text);
    workspace
}

fn optune(workspace: &Workspace, endpoint: &str, offline: &str, arguments: &[&str]) -> Output {
    let mut command = workspace.command(arguments);
    command.env("HF_ENDPOINT", endpoint).env("HF_HOME", workspace.path("hf")).env("HF_HUB_OFFLINE", offline).env("HF_TOKEN", "hf_secret");
    command.env("OPTUNE_CACHE", workspace.path("cache"));
    for other in ["HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE", "HF_TOKEN_PATH"] {
        command.env_remove(other);
    }
    command.output().unwrap()
}

/// The standard error of a run that must succeed.
fn succeed(output: Output) -> String {
    let error = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{error}");
    error
}

/// The standard error of a run that must end with exit code 2.
fn refused(output: Output) -> String {
    let error = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(2), "{error}");
    error
}

fn sums(workspace: &Workspace, run: &str) -> String {
    workspace.query(run, "SELECT rows, total FROM sums")
}

fn sources(workspace: &Workspace, run: &str) -> Value {
    serde_json::from_str(&fs::read_to_string(workspace.path(&format!("runs/{run}/sources.json"))).unwrap()).unwrap()
}

fn lines(numbers: &[i64]) -> Vec<u8> {
    numbers.iter().map(|n| format!("{}\n", json!({ "n": n }))).collect::<String>().into_bytes()
}

#[test]
fn a_table_of_the_hub_is_kept_by_the_run_that_began_with_it() {
    let (repository, workspace) = (Repository::default(), workspace("hf://datasets/org/name/data/*.jsonl"));
    for (name, numbers) in [("data/a b.jsonl", [1, 2]), ("data/c.jsonl", [3, 4]), ("data/deep/d.jsonl", [50, 60]), ("e.jsonl", [70, 80])] {
        repository.put(FIRST, name, &lines(&numbers));
    }
    repository.put(FIRST, "README.md", b"read me");
    let server = Server::start(well, repository.serve());
    succeed(optune(&workspace, &server.url, "0", &["run", "pipeline.yaml"]));
    assert_eq!(sums(&workspace, "small"), "4,10");
    let seen = server.seen();
    assert_eq!(seen[0].path, "/api/datasets/org/name/revision/main?blobs=true");
    assert!(seen.iter().all(|request| request.headers["authorization"] == "Bearer hf_secret"));
    let gets = seen.iter().filter(|request| request.method == "GET" && request.path.contains("/resolve/"));
    let expected = ["a%20b", "c"].map(|name| format!("/datasets/org/name/resolve/{FIRST}/data/{name}.jsonl"));
    assert_eq!(gets.map(|request| request.path.clone()).collect::<Vec<_>>(), expected);
    let source = &sources(&workspace, "small")["hf://datasets/org/name@main/data/*.jsonl"];
    assert_eq!((&source["commit"], &source["files"][0]["file"]), (&json!(FIRST), &json!("data/a b.jsonl")));
    assert_eq!(source["files"][1]["blake3"], json!(blake3::hash(&lines(&[3, 4])).to_hex().as_str()));
    // As Python's library lays it out.
    let snapshot = workspace.path("hf/hub/datasets--org--name/snapshots").join(FIRST);
    assert_eq!(fs::read(snapshot.join("data/c.jsonl")).unwrap(), lines(&[3, 4]));
    assert!(snapshot.join("data/c.jsonl").symlink_metadata().unwrap().is_symlink());
    assert_eq!(fs::read_to_string(workspace.path("hf/hub/datasets--org--name/refs/main")).unwrap(), FIRST);

    // The branch moves: this run goes on with its commit, another begins with the new one.
    repository.put(SECOND, "data/a b.jsonl", &lines(&[1000]));
    let said = succeed(optune(&workspace, &server.url, "0", &["run", "pipeline.yaml"]));
    assert!(said.contains(&format!("is at commit {SECOND} now; this run goes on with {FIRST}")), "{said}");
    succeed(optune(&workspace, &server.url, "1", &["run", "pipeline.yaml"]));
    assert_eq!(sums(&workspace, "small"), "4,10");
    succeed(optune(&workspace, &server.url, "0", &["run", "pipeline.yaml", "--name", "later"]));
    assert_eq!(sums(&workspace, "later"), "1,1000");
    // Without a network nobody knows all files of a pattern; a named file is in the cache.
    let error = refused(optune(&workspace, &server.url, "1", &["plan", "pipeline.yaml", "--name", "third"]));
    assert!(error.contains("the cache may have some of its files only"), "{error}");

    // The same files from here are the same table.
    for name in ["data/a b.jsonl", "data/c.jsonl"] {
        fs::create_dir_all(workspace.path("data")).unwrap();
        fs::copy(snapshot.join(name), workspace.path(name)).unwrap();
    }
    workspace.edit("pipeline.yaml", "hf://datasets/org/name/data/*.jsonl", "data/*.jsonl");
    let plan = workspace.succeed(&["plan", "pipeline.yaml"]);
    assert!(plan.lines().all(|line| line.ends_with("done")), "{plan}");
}

#[test]
fn the_parquet_branch_has_three_spellings() {
    let repository = Repository { cut_after: 300, ..Repository::default() };
    let folder = Workspace::new();
    let path = folder.path("x.parquet");
    let rows: Vec<Value> = (0..500).map(|n| json!({ "n": n })).collect();
    optune::store::write_parquet(&path, &crate::fixtures::import::batch(&rows)).unwrap();
    repository.put(PARQUET, "default/train/0000.parquet", &fs::read(path).unwrap());
    for (revision, name) in
        [("refs/convert/parquet", "0000.parquet"), ("refs%2Fconvert%2Fparquet", "*.parquet"), ("~parquet", "0000.parquet")]
    {
        let workspace = workspace(&format!("\"hf://datasets/org/name@{revision}/default/train/{name}\""));
        repository.cuts.store(1, Ordering::SeqCst);
        let server = Server::start(well, repository.serve());
        succeed(optune(&workspace, &server.url, "0", &["run", "pipeline.yaml"]));
        assert_eq!(sums(&workspace, "small"), "500,124750");
        let key = format!("hf://datasets/org/name@refs/convert/parquet/default/train/{name}");
        assert_eq!(sources(&workspace, "small")[key.as_str()]["commit"], PARQUET);
        let large = server.seen().into_iter().filter(|request| request.path.starts_with("/elsewhere/"));
        let rest = large.filter_map(|request| request.headers.get("range").cloned()).collect::<Vec<_>>();
        assert_eq!(rest, ["bytes=300-"], "the cut file was continued");
    }
}

#[test]
fn a_file_that_a_dataset_lacks_is_named() {
    let repository = Repository::default();
    repository.put(FIRST, "data/train.jsonl", b"{}");
    let server = Server::start(well, repository.serve());
    for (table, said) in [
        ("hf://datasets/org/name/data/test.jsonl", "expected a file or files \"data/test.jsonl\", found data/train.jsonl"),
        ("hf://datasets/org/name/*.jsonl", "expected a file or files \"*.jsonl\", found data/train.jsonl"),
        ("hf://datasets/org/name/data, format: jsonl", "\"data\" is a folder; to read all in it, end with /*"),
        ("hf://datasets/org/name@dev/x.jsonl", "expected a branch, tag or commit \"dev\", found none"),
        ("hf://datasets/org/other/x.jsonl", "expected a dataset at"),
    ] {
        let workspace = workspace(table);
        let error = refused(optune(&workspace, &server.url, "0", &["plan", "pipeline.yaml"]));
        assert!(error.contains(said), "{table}: {error}");
    }
}

/// A file's bytes and its etag.
type Tagged = (Vec<u8>, String);

/// The files of a web server by path.
#[derive(Clone, Default)]
struct Files {
    files: Arc<Mutex<BTreeMap<String, Tagged>>>,
    /// How many answers are still to be cut, each after this many bytes.
    cuts: Arc<AtomicUsize>,
    cut_after: usize,
}

impl Files {
    fn put(&self, path: &str, bytes: Vec<u8>, etag: &str) {
        self.files.lock().unwrap().insert(path.to_string(), (bytes, etag.to_string()));
    }

    fn answer(&self, request: &Request) -> Reply {
        let files = self.files.lock().unwrap();
        let Some((bytes, etag)) = files.get(&request.path) else { return Reply::of(404, b"nothing".to_vec()) };
        let whole = || Reply::of(200, bytes.clone());
        let mut reply = match request.headers.get("range") {
            Some(range) if request.headers.get("if-range") == Some(etag) => {
                let from: usize = range["bytes=".len()..].trim_end_matches('-').parse().unwrap();
                Reply::of(206, bytes[from..].to_vec()).with("Content-Range", &format!("bytes {from}-{}/{}", bytes.len() - 1, bytes.len()))
            }
            _ => whole(),
        };
        if self.cuts.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1)).is_ok() {
            reply.cut = Some(self.cut_after);
        }
        if etag.is_empty() { reply } else { reply.with("ETag", etag) }
    }

    fn start(&self) -> Server {
        let this = self.clone();
        Server::start(well, move |request| this.answer(request))
    }
}

fn ranges(server: &Server) -> Vec<Option<String>> {
    server.seen().iter().map(|request| request.headers.get("range").cloned()).collect()
}

#[test]
fn a_file_of_a_web_server_is_continued_kept_and_not_fetched_again() {
    let files = Files { cut_after: 4_000, ..Files::default() };
    let numbers: Vec<i64> = (0..1_000).collect();
    files.put("/some/train.jsonl?key=secret", lines(&numbers), "\"one\"");
    files.cuts.store(1, Ordering::SeqCst);
    let server = files.start();
    let workspace = workspace(&format!("\"{}/some/train.jsonl?key=secret\"", server.url));
    let said = succeed(optune(&workspace, &server.url, "0", &["run", "pipeline.yaml"]));
    assert!(!said.contains("secret"), "{said}");
    assert_eq!(sums(&workspace, "small"), "1000,499500");
    // The cut answer, the question for the present version, and the rest.
    assert_eq!(ranges(&server), [None, None, Some("bytes=4000-".to_string())]);
    let all = sources(&workspace, "small");
    let hash = blake3::hash(b"key=secret").to_hex();
    let source = &all[&format!("{}/some/train.jsonl?blake3={}", server.url, &hash[..16])];
    assert_eq!(source["versions"], json!(["etag \"one\""]));
    assert_eq!(
        source["files"],
        json!([{"file": "train.jsonl", "bytes": lines(&numbers).len(), "blake3": blake3::hash(&lines(&numbers)).to_hex().as_str()}])
    );

    // Unchanged: one question, and nothing is fetched, for another run neither.
    let cached =
        || crate::fixtures::files::files_under(&workspace.path("cache")).into_iter().filter(|path| path.ends_with("train.jsonl")).count();
    succeed(optune(&workspace, &server.url, "0", &["run", "pipeline.yaml", "--name", "other"]));
    assert_eq!((server.seen().len(), cached()), (4, 1));

    // Changed: this run goes on, another begins with the new file.
    files.put("/some/train.jsonl?key=secret", lines(&[7]), "\"two\"");
    let said = succeed(optune(&workspace, &server.url, "0", &["run", "pipeline.yaml"]));
    assert!(said.contains("is another file now (etag \"two\", was etag \"one\"); this run goes on"), "{said}");
    assert_eq!(sums(&workspace, "small"), "1000,499500");
    succeed(optune(&workspace, &server.url, "0", &["run", "pipeline.yaml", "--name", "later"]));
    assert_eq!((sums(&workspace, "later").as_str(), cached()), ("1,7", 2));
    // Without the cache, what the run began with is nowhere.
    fs::remove_dir_all(workspace.path("cache")).unwrap();
    let error = refused(optune(&workspace, &server.url, "0", &["run", "pipeline.yaml"]));
    assert!(
        error.contains("expected the train.jsonl that this run began with (blake3 ") && error.contains("give the run another name"),
        "{error}"
    );
    // The token is for the hub's own addresses; here the server is the hub.
    assert!(server.seen().iter().all(|request| request.headers["authorization"] == "Bearer hf_secret"));
    let seen = server.seen().len();
    optune(&workspace, "http://127.0.0.1:1", "0", &["plan", "pipeline.yaml", "--name", "fourth"]);
    assert!(server.seen()[seen..].iter().all(|request| !request.headers.contains_key("authorization")));
}

#[test]
fn keys_in_an_address_stay_out_of_the_run_folder_and_may_change() {
    let (first, second) = ("X-Amz-Expires=600&X-Amz-Signature=first-key&version=2", "version=2&X-Amz-Signature=second-key&X-Amz-Expires=5");
    let files = Files::default();
    files.put(&format!("/x.jsonl?{first}"), lines(&[1, 2]), "\"one\"");
    let server = files.start();
    let workspace = workspace("\"${table}?${query}\"");
    workspace.edit("pipeline.yaml", "inputs:", &format!("params: {{ table: \"{}/x.jsonl\", query: \"{first}\" }}\ninputs:", server.url));
    let holds_key = |folder: &str| {
        let files = crate::fixtures::files::files_under(&workspace.path(folder));
        assert!(!files.is_empty());
        files
            .iter()
            .any(|path| path.to_string_lossy().contains("-key") || String::from_utf8_lossy(&fs::read(path).unwrap()).contains("-key"))
    };
    let said = succeed(optune(&workspace, "http://127.0.0.1:1", "0", &["run", "pipeline.yaml"]));
    assert!(!said.contains("-key") && !holds_key("runs") && !holds_key("cache"), "{said}");
    let hash = blake3::hash(b"version=2").to_hex();
    let record = format!("{}/x.jsonl?blake3={}", server.url, &hash[..16]);
    assert_eq!(sources(&workspace, "small")[&record]["versions"], json!(["etag \"one\""]));
    let kept = fs::read_to_string(workspace.path("runs/small/pipeline.yaml")).unwrap();
    assert!(kept.contains(&record) && kept.contains("query: hidden"), "{kept}");

    // The next signature is for the same file: nothing is fetched again.
    workspace.edit("pipeline.yaml", first, second);
    succeed(optune(&workspace, "http://127.0.0.1:1", "0", &["run", "pipeline.yaml"]));
    assert_eq!(sums(&workspace, "small"), "2,3");
    let plan = String::from_utf8(optune(&workspace, "http://127.0.0.1:1", "0", &["plan", "pipeline.yaml"]).stdout).unwrap();
    assert!(plan.lines().all(|line| line.ends_with("done")), "{plan}");
    // The run folder's own pipeline file has no query to ask with.
    let error = refused(optune(&workspace, "http://127.0.0.1:1", "0", &["plan", "runs/small/pipeline.yaml", "--name", "other"]));
    assert!(error.contains("expected the query of the address, found its hash, as run folders have it"), "{error}");
}

#[test]
fn a_file_that_changes_during_its_download_or_has_no_version_is_whole() {
    // The first answer is cut, and the file is another one afterwards.
    let count = AtomicUsize::new(0);
    let server = Server::start(well, move |request| {
        let second = count.fetch_add(1, Ordering::SeqCst) > 0;
        let (bytes, etag) = if second { (lines(&[5, 6, 7, 8]), "\"two\"") } else { (lines(&[1, 2, 3, 4]), "\"one\"") };
        assert!(request.headers.get("if-range").is_none_or(|etag| etag == "\"one\""));
        let mut reply = Reply::of(200, bytes).with("ETag", etag);
        reply.cut = (!second).then_some(10);
        reply
    });
    let one = workspace(&format!("{}/x.jsonl", server.url));
    succeed(optune(&one, "http://127.0.0.1:1", "0", &["run", "pipeline.yaml"]));
    assert_eq!(sums(&one, "small"), "4,26");

    // Without etag and date: fetched anew each time, known by its content.
    let files = Files { cut_after: 10, ..Files::default() };
    files.put("/x.jsonl", lines(&[1, 2]), "");
    files.cuts.store(1, Ordering::SeqCst);
    let server = files.start();
    let two = workspace(&format!("{}/x.jsonl", server.url));
    succeed(optune(&two, "http://127.0.0.1:1", "0", &["run", "pipeline.yaml"]));
    assert_eq!(sums(&two, "small"), "2,3");
    let version = &sources(&two, "small")[&format!("{}/x.jsonl", server.url)]["versions"][0];
    assert_eq!(version, &json!(format!("blake3 {}", blake3::hash(&lines(&[1, 2])).to_hex())));
    files.put("/x.jsonl", lines(&[1, 3]), "");
    succeed(optune(&two, "http://127.0.0.1:1", "0", &["run", "pipeline.yaml", "--name", "later"]));
    assert_eq!(sums(&two, "later"), "2,4");
}

#[test]
fn an_answer_that_is_no_file_of_rows_is_refused() {
    type Answer = fn() -> Reply;
    let cases: [(Answer, &str); 5] = [
        (|| Reply::of(404, b"nothing".to_vec()), "expected a file, found none (status 404"),
        (|| Reply::of(403, b"no".to_vec()), "expected access to the file, found status 403"),
        (|| Reply::of(200, b"<html>log in</html>".to_vec()).with("Content-Type", "text/html; charset=utf-8"), "found a web page"),
        (|| Reply::of(200, b"xx".to_vec()).with("Content-Encoding", "gzip"), "found it encoded with gzip"),
        (|| Reply::of(302, Vec::new()).with("Location", "/x.jsonl"), "found too many redirects"),
    ];
    for (answer, said) in cases {
        let server = Server::start(well, move |_| answer());
        let workspace = workspace(&format!("\"{}/x.jsonl?key=secret\"", server.url));
        let error = refused(optune(&workspace, "http://127.0.0.1:1", "0", &["plan", "pipeline.yaml"]));
        assert!(error.contains(said) && error.contains("/x.jsonl") && !error.contains("secret"), "{said}: {error}");
        assert!(!workspace.path("runs/small").exists());
    }
}

#[test]
fn addresses_are_read_as_they_are_written() {
    let hub = |repo: &str, revision: &str, files: &str| Address::Hub { repo: repo.into(), revision: revision.into(), files: files.into() };
    let web = |url: &str| Address::Web { url: url.into() };
    for (written, expected) in [
        ("hf://datasets/a/b/x.jsonl", hub("a/b", "main", "x.jsonl")),
        ("hf://datasets/a/b@v1.0/x/**/*.parquet", hub("a/b", "v1.0", "x/**/*.parquet")),
        ("hf://datasets/a/b@refs/pr/3/x.csv", hub("a/b", "refs/pr/3", "x.csv")),
        ("hf://datasets/a/b@feature%2Fx/split=train/x.csv", hub("a/b", "feature/x", "split=train/x.csv")),
        ("https://host/x.csv?a=b*c", web("https://host/x.csv?a=b*c")),
        ("https://host:8080/x.csv#part", web("https://host:8080/x.csv")),
        ("http://localhost:80/x", web("http://localhost:80/x")),
        ("http://[::1]:80/x", web("http://[::1]:80/x")),
        ("s3://bucket/a/b c.parquet", Address::S3 { bucket: "bucket".into(), keys: "a/b c.parquet".into() }),
    ] {
        assert_eq!(Address::parse(written), Some(Ok(expected.clone())), "{written}");
        assert_eq!(Address::parse(&expected.to_string()), Some(Ok(expected)), "{written}");
    }
    for path in ["data/x.csv", "/data/x.csv", "C:\\x.csv", "gs://bucket/x"] {
        assert_eq!(Address::parse(path), None);
    }
}
