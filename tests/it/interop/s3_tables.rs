//! Tables of S3, from a server that nobody here wrote: moto's.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, ChildStdout, Output};

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
    /// `None`, with a word about it, where there is no Python.
    fn start(workspace: &Workspace) -> Option<Self> {
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

fn optune(workspace: &Workspace, url: &str, arguments: &[&str]) -> Output {
    let mut command = workspace.command(arguments);
    command.env("OPTUNE_CACHE", workspace.path("cache")).env("HOME", workspace.path("home"));
    command.env("AWS_ENDPOINT_URL", url).env("AWS_ACCESS_KEY_ID", "test").env("AWS_SECRET_ACCESS_KEY", "not-to-be-shown");
    for other in ["AWS_PROFILE", "AWS_REGION", "AWS_DEFAULT_REGION", "AWS_ENDPOINT", "AWS_ENDPOINT_URL_S3", "AWS_SESSION_TOKEN"] {
        command.env_remove(other);
    }
    command.output().unwrap()
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
    let write = |table: &str| {
        let query = "SELECT count(*) AS rows, sum(n) AS total FROM data";
        let text =
            format!("optune: 1\nname: small\ninputs:\n  data: {{ table: {table} }}\nnodes:\n  sums: {{ sql: {{ query: {query:?} }} }}\n");
        workspace.write("pipeline.yaml", &text);
    };
    let sums = |run: &str| workspace.query(run, "SELECT rows, total FROM sums");
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
    // The cache is enough for a run that has begun.
    said(&optune(&workspace, "http://127.0.0.1:1", &["run", "pipeline.yaml"]), 0);

    for (table, expected) in [
        ("s3://some-bucket/other.parquet", "expected an object, found none"),
        ("s3://some-bucket/data.jsonl", "expected an object, found none"),
        ("s3://some-bucket/data, format: jsonl", "found a folder of objects; to read all in it, end with /*"),
        ("\"s3://some-bucket/data/*.parquet\"", "expected objects, found none that fits"),
        ("s3://no-bucket/data.jsonl", "expected an object, found none"),
    ] {
        write(table);
        let error = said(&optune(&workspace, &s3.url, &["plan", "pipeline.yaml", "--name", "new"]), 2);
        assert!(error.contains(expected), "{table}: {error}");
    }
}
