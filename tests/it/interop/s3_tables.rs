//! Tables of S3, from a server that nobody here wrote: moto's. They need the feature `s3`.

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::process::{Child, ChildStdin, ChildStdout, Command, Output, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::{Value, json};

use crate::fixtures::files::files_under;
use crate::fixtures::python::start_script;
use crate::fixtures::workspace::Workspace;

/// moto with the files of a folder in its bucket.
struct S3 {
    url: String,
    child: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
}

impl S3 {
    /// `None`, with a word about it, where the feature or Python is missing.
    fn start(workspace: &Workspace) -> Option<Self> {
        if !cfg!(feature = "s3") {
            eprintln!("skipped: tables of S3: the tests are built without --features s3");
            return None;
        }
        let mut child = start_script("s3_server.py", &[workspace.path("bucket").as_os_str()])?;
        let (input, output) = (child.stdin.take().unwrap(), child.stdout.take().unwrap());
        let mut s3 = Self { url: String::new(), child, input, output: BufReader::new(output) };
        s3.url = s3.line();
        assert!(s3.url.starts_with("http://127.0.0.1:"), "{}", s3.url);
        Some(s3)
    }

    /// Uploads a file of the folder again.
    fn put(&mut self, key: &str) {
        writeln!(self.input, "PUT {key}").unwrap();
        assert_eq!(self.line(), "done");
    }

    /// The id and the secret of a user. From now on the server checks signatures.
    fn user(&mut self) -> (String, String) {
        writeln!(self.input, "USER").unwrap();
        let line = self.line();
        let (id, secret) = line.split_once(' ').unwrap();
        (id.to_string(), secret.to_string())
    }

    fn line(&mut self) -> String {
        let mut line = String::new();
        self.output.read_line(&mut line).unwrap();
        line.trim().to_string()
    }
}

impl Drop for S3 {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn command(workspace: &Workspace, url: &str, arguments: &[&str]) -> Command {
    let mut command = workspace.command(arguments);
    command.env("OPTUNE_CACHE", workspace.path("cache")).env("HOME", workspace.path("home"));
    command.env("AWS_ENDPOINT_URL", url).env("AWS_ACCESS_KEY_ID", "test").env("AWS_SECRET_ACCESS_KEY", "not-to-be-shown");
    for other in ["AWS_PROFILE", "AWS_REGION", "AWS_DEFAULT_REGION", "AWS_ENDPOINT", "AWS_ENDPOINT_URL_S3", "AWS_SESSION_TOKEN"] {
        command.env_remove(other);
    }
    command
}

fn optune(workspace: &Workspace, url: &str, arguments: &[&str]) -> Output {
    command(workspace, url, arguments).output().unwrap()
}

/// A pipeline of one query about a table.
fn write(workspace: &Workspace, table: &str) {
    let query = "SELECT count(*) AS rows, sum(n) AS total FROM data";
    let text =
        format!("optune: 1\nname: small\ninputs:\n  data: {{ table: {table} }}\nnodes:\n  sums: {{ sql: {{ query: {query:?} }} }}\n");
    workspace.write("pipeline.yaml", &text);
}

fn sums(workspace: &Workspace, run: &str) -> String {
    workspace.query(run, "SELECT rows, total FROM sums")
}

fn said(output: &Output, code: i32) -> String {
    let error = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(code), "{error}");
    assert!(!error.contains("not-to-be-shown"), "{error}");
    error
}

fn put(workspace: &Workspace, key: &str, numbers: std::ops::Range<i64>) {
    let path = workspace.path("bucket").join(key);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, numbers.map(|n| format!("{}\n", json!({ "n": n }))).collect::<String>()).unwrap();
}

#[test]
fn tables_of_s3_are_cached_recorded_and_kept() {
    let workspace = Workspace::new();
    put(&workspace, "data/2024/a b.jsonl", 0..1000);
    put(&workspace, "data/2024/c.jsonl", 1000..1010);
    put(&workspace, "data/2024/deep/c.jsonl", 0..9);
    put(&workspace, "other.jsonl", 0..7);
    let Some(mut s3) = S3::start(&workspace) else { return };
    let write = |table: &str| write(&workspace, table);
    let sums = |run: &str| sums(&workspace, run);
    write("\"s3://some-bucket/data/2024/*.jsonl\"");
    said(&optune(&workspace, &s3.url, &["run", "pipeline.yaml"]), 0);
    assert_eq!(sums("small"), "1010,509545");
    let sources: Value = serde_json::from_str(&fs::read_to_string(workspace.path("runs/small/sources.json")).unwrap()).unwrap();
    let source = &sources["s3://some-bucket/data/2024/*.jsonl"];
    let bytes = fs::read(workspace.path("bucket/data/2024/c.jsonl")).unwrap();
    let hash = blake3::hash(&bytes).to_hex();
    assert_eq!(source["files"][0]["file"], "data/2024/a b.jsonl");
    assert_eq!(source["files"][1], json!({"file": "data/2024/c.jsonl", "bytes": bytes.len(), "blake3": hash.as_str()}));
    assert!(source["versions"][1].as_str().unwrap().starts_with("etag \""), "{source}");

    // A file left half by a killed process is gone on from.
    let cached = |name: &str| files_under(&workspace.path("cache")).into_iter().find(|path| path.ends_with(name)).unwrap();
    let whole = cached("a b.jsonl".replace(' ', "_").as_str());
    let partial = whole.parent().unwrap().with_extension("incomplete");
    fs::write(&partial, &fs::read(&whole).unwrap()[..500]).unwrap();
    fs::remove_file(&whole).unwrap();
    said(&optune(&workspace, &s3.url, &["run", "pipeline.yaml"]), 0);
    assert!(whole.exists() && !partial.exists());

    // An object changes and one is added: this run goes on, another begins with the new ones.
    put(&workspace, "data/2024/c.jsonl", 0..1);
    put(&workspace, "data/2024/d.jsonl", 0..1);
    s3.put("data/2024/c.jsonl");
    s3.put("data/2024/d.jsonl");
    let warned = said(&optune(&workspace, &s3.url, &["run", "pipeline.yaml"]), 0);
    assert!(warned.contains("has other objects now; this run goes on with what it began with"), "{warned}");
    assert_eq!(sums("small"), "1010,509545");
    said(&optune(&workspace, &s3.url, &["run", "pipeline.yaml", "--name", "later"]), 0);
    assert_eq!(sums("later"), "1002,499500");
    for (table, expected) in [
        ("s3://some-bucket/other.parquet", "expected an object, found none"),
        ("s3://some-bucket/data.jsonl", "expected an object, found none"),
        ("s3://some-bucket/data, format: jsonl", "found a folder of objects; to read all in it, end with /*"),
        ("\"s3://some-bucket/data/*.parquet\"", "expected objects, found none that fits"),
        ("s3://no-bucket/data.jsonl", "expected a bucket no-bucket, found none"),
        ("\"s3://no-bucket/*.jsonl\"", "expected a bucket with this object, found none"),
    ] {
        write(table);
        let error = said(&optune(&workspace, &s3.url, &["plan", "pipeline.yaml", "--name", "new"]), 2);
        assert!(error.contains(expected), "{table}: {error}");
    }

    // Without the server the cache is enough for a run that has begun.
    write("\"s3://some-bucket/data/2024/*.jsonl\"");
    let url = s3.url.clone();
    drop(s3);
    said(&optune(&workspace, &url, &["run", "pipeline.yaml"]), 0);
    assert_eq!(sums("small"), "1010,509545");
}

#[test]
fn compressed_and_parquet_tables_of_s3_are_read() {
    let workspace = Workspace::new();
    put(&workspace, "plain.jsonl", 0..100);
    let plain = fs::read(workspace.path("bucket/plain.jsonl")).unwrap();
    let save = |name: &str, bytes: Vec<u8>| fs::write(workspace.path("bucket").join(name), bytes).unwrap();
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    gzip.write_all(&plain).unwrap();
    save("a.jsonl.gz", gzip.finish().unwrap());
    let csv = (0..100).map(|n| format!("{n}\n")).collect::<String>();
    save("b.csv.zst", zstd::encode_all(format!("n\n{csv}").as_bytes(), 3).unwrap());
    let rows: Vec<Value> = (0..100).map(|n| json!({ "n": n })).collect();
    optune::store::write_parquet(&workspace.path("bucket/c.parquet"), &crate::fixtures::import::batch(&rows)).unwrap();
    let Some(s3) = S3::start(&workspace) else { return };
    for name in ["a.jsonl.gz", "b.csv.zst", "c.parquet"] {
        write(&workspace, &format!("s3://some-bucket/{name}"));
        said(&optune(&workspace, &s3.url, &["run", "pipeline.yaml", "--name", name]), 0);
        assert_eq!(sums(&workspace, name), "100,4950", "{name}");
    }
}

#[test]
fn signatures_are_those_that_the_server_computes() {
    let workspace = Workspace::new();
    put(&workspace, "a=b/c d.jsonl", 0..10);
    let Some(mut s3) = S3::start(&workspace) else { return };
    let (id, secret) = s3.user();
    write(&workspace, "\"s3://some-bucket/a=b/*.jsonl\"");
    let plan = |id: &str, secret: &str, name: &str| {
        let mut command = command(&workspace, &s3.url, &["run", "pipeline.yaml", "--name", name]);
        command.env("AWS_ACCESS_KEY_ID", id).env("AWS_SECRET_ACCESS_KEY", secret).output().unwrap()
    };
    for (id, secret) in [(id.as_str(), "not-to-be-shown"), ("AKIAUNKNOWN", "not-to-be-shown")] {
        let error = said(&plan(id, secret, "refused"), 2);
        assert!(error.contains("expected access, found none") && error.contains("set AWS_ACCESS_KEY_ID"), "{error}");
    }
    said(&plan(&id, &secret, "read"), 0);
    assert_eq!(sums(&workspace, "read"), "10,45");
    // The same from the files of `aws configure`.
    fs::create_dir_all(workspace.path("home/.aws")).unwrap();
    workspace.write("home/.aws/credentials", &format!("[reader]\naws_access_key_id = {id}\naws_secret_access_key = {secret}\n"));
    fs::remove_dir_all(workspace.path("cache")).unwrap();
    let mut command = command(&workspace, &s3.url, &["run", "pipeline.yaml", "--name", "profile"]);
    command.env_remove("AWS_ACCESS_KEY_ID").env_remove("AWS_SECRET_ACCESS_KEY").env("AWS_PROFILE", "reader");
    said(&command.output().unwrap(), 0);
    assert_eq!(sums(&workspace, "profile"), "10,45");
}

/// What happens to an answer on its way.
#[derive(Clone, Copy)]
enum Way {
    /// It stops after this many bytes of a connection, and nothing follows.
    Stalled(usize),
    /// The next connections are cut, each after this many bytes.
    Cut { after: usize, left: usize },
}

/// A connection to a server that loses answers. Keeps the requests.
struct Lossy {
    url: String,
    way: Arc<Mutex<Way>>,
    seen: Arc<Mutex<String>>,
}

impl Lossy {
    fn before(url: &str, way: Way) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let lossy =
            Self { url: format!("http://{}", listener.local_addr().unwrap()), way: Arc::new(Mutex::new(way)), seen: Arc::default() };
        let (way, seen) = (lossy.way.clone(), lossy.seen.clone());
        let server = url.strip_prefix("http://").unwrap().to_string();
        std::thread::spawn(move || {
            for client in listener.incoming() {
                let client = client.unwrap();
                let server = TcpStream::connect(&server).unwrap();
                let (client_in, server_out, seen) = (client.try_clone().unwrap(), server.try_clone().unwrap(), seen.clone());
                std::thread::spawn(move || {
                    forward(client_in, server_out, |bytes| seen.lock().unwrap().push_str(&String::from_utf8_lossy(bytes)))
                });
                let way = way.clone();
                std::thread::spawn(move || lose(server, client, &way));
            }
        });
        lossy
    }
}

/// Copies until one side closes.
fn forward(mut from: TcpStream, mut to: TcpStream, mut see: impl FnMut(&[u8])) {
    let mut bytes = [0; 8192];
    while let Ok(count) = from.read(&mut bytes) {
        see(&bytes[..count]);
        if count == 0 || to.write_all(&bytes[..count]).is_err() {
            break;
        }
    }
    let _ = to.shutdown(Shutdown::Write);
}

/// As [`forward`], up to the loss.
fn lose(mut from: TcpStream, mut to: TcpStream, way: &Mutex<Way>) {
    let mut bytes = [0; 8192];
    let mut sent = 0;
    while let Ok(count) = from.read(&mut bytes) {
        if count == 0 || to.write_all(&bytes[..count]).is_err() {
            break;
        }
        sent += count;
        let now = *way.lock().unwrap();
        match now {
            Way::Stalled(after) if sent > after => {
                std::thread::sleep(Duration::from_secs(60));
                return;
            }
            Way::Cut { after, left } if sent > after && left > 0 => {
                *way.lock().unwrap() = Way::Cut { after, left: left - 1 };
                break;
            }
            _ => {}
        }
    }
    let _ = to.shutdown(Shutdown::Both);
    let _ = from.shutdown(Shutdown::Both);
}

#[test]
fn a_download_from_s3_that_was_killed_or_cut_goes_on() {
    const HALF: u64 = 500_000;
    let workspace = Workspace::new();
    put(&workspace, "long.jsonl", 0..200_000);
    let Some(s3) = S3::start(&workspace) else { return };
    let lossy = Lossy::before(&s3.url, Way::Stalled(1_000_000));
    write(&workspace, "s3://some-bucket/long.jsonl");
    fs::create_dir(workspace.path("cache")).unwrap();
    let mut child = command(&workspace, &lossy.url, &["run", "pipeline.yaml"]).stderr(Stdio::null()).spawn().unwrap();
    let partial = || {
        let files =
            files_under(&workspace.path("cache")).into_iter().filter(|path| path.extension().is_some_and(|end| end == "incomplete"));
        files.filter_map(|path| path.metadata().ok()).map(|metadata| metadata.len()).sum::<u64>()
    };
    while partial() < HALF {
        assert!(child.try_wait().unwrap().is_none(), "the download ended");
        std::thread::sleep(Duration::from_millis(5));
    }
    child.kill().unwrap();
    child.wait().unwrap();
    let have = partial();
    lossy.seen.lock().unwrap().clear();
    *lossy.way.lock().unwrap() = Way::Cut { after: 300_000, left: 3 };
    said(&optune(&workspace, &lossy.url, &["run", "pipeline.yaml"]), 0);
    assert_eq!(sums(&workspace, "small"), "200000,19999900000");
    let seen = lossy.seen.lock().unwrap().to_ascii_lowercase();
    let asked: Vec<&str> = seen.split("\r\n\r\n").filter(|request| request.starts_with("get ") && request.contains("long.jsonl")).collect();
    let from = |request: &str| request.split("range: bytes=").nth(1).and_then(|range| range.split('-').next()?.parse::<u64>().ok());
    let from: Vec<u64> = asked.iter().map(|request| from(request).unwrap_or(0)).collect();
    assert!(from.len() >= 3 && from[0] == have && from.is_sorted() && from.windows(2).all(|two| two[0] < two[1]), "{from:?}, {have}");
    assert!(matches!(*lossy.way.lock().unwrap(), Way::Cut { left: 0, .. }));
}

#[test]
fn a_program_without_the_feature_says_how_to_build_it() {
    if cfg!(feature = "s3") {
        return;
    }
    let workspace = Workspace::new();
    write(&workspace, "\"s3://some-bucket/data/*.jsonl\"");
    let error = said(&optune(&workspace, "http://127.0.0.1:1", &["plan", "pipeline.yaml"]), 2);
    assert!(
        error.contains("pipeline.yaml:4:") && error.contains("found one without it; run cargo build --release --features s3"),
        "{error}"
    );
}
