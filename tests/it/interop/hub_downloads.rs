//! Models of the hub, from a loopback server with cut connections, moved branches and refusals.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::sync::atomic::Ordering;

use optune::remote::{Hub, Pinned, RemoteError, Snapshot};
use serde_json::json;

use crate::fixtures::http_server::{GOING_ON, Reply, Server, well};
use crate::fixtures::hub::{FIRST, MODEL, Repository, SECOND, weights};

/// A repository with a model of one file of weights and with unneeded files.
fn repository() -> Repository {
    let repository = Repository { cut_after: 30_000, ..Repository::default() };
    for (name, bytes) in [("config.json", "{}"), ("tokenizer.json", "{\"a\": 1}"), ("chat_template.jinja", "x"), ("README.md", "read me")] {
        repository.put(FIRST, name, bytes.as_bytes());
    }
    for name in ["pytorch_model.bin", "model.gguf", "onnx/model.onnx", "consolidated.safetensors", "model.fp16.safetensors"] {
        repository.put(FIRST, name, b"never");
    }
    repository.put(FIRST, "model.safetensors", &weights(100_000, 7));
    repository
}

fn hub(server: &Server, cache: &Path) -> Hub {
    Hub::new(&server.url, cache, Some("hf_secret".to_string()), false)
}

fn fetch(hub: &Hub) -> Result<Snapshot, RemoteError> {
    hub.fetch(MODEL, None, GOING_ON, &mut |_, _| {})
}

/// The files of the snapshot as they are read.
fn contents(snapshot: &Snapshot) -> BTreeMap<String, Vec<u8>> {
    snapshot.files.iter().map(|name| (name.clone(), fs::read(snapshot.folder.join(name)).unwrap())).collect()
}

fn expected(repository: &Repository) -> BTreeMap<String, Vec<u8>> {
    let needed = ["config.json", "tokenizer.json", "chat_template.jinja", "model.safetensors"];
    let files = repository.files.lock().unwrap();
    needed.iter().map(|name| (name.to_string(), files[&(FIRST.to_string(), name.to_string())].clone())).collect()
}

/// Where each request for weights began.
fn ranges(server: &Server) -> Vec<Option<String>> {
    let gets = server.seen().into_iter().filter(|request| request.method == "GET" && request.path.starts_with("/elsewhere/"));
    gets.map(|request| request.headers.get("range").cloned()).collect()
}

#[test]
fn a_download_that_is_cut_goes_on_from_where_it_was() {
    let (repository, cache) = (repository(), tempfile::tempdir().unwrap());
    repository.cuts.store(2, Ordering::SeqCst);
    let server = Server::start(well, repository.serve());
    let mut observed = Vec::new();
    let hub = hub(&server, cache.path());
    let snapshot = hub.fetch(MODEL, None, GOING_ON, &mut |done, total| observed.push((done, total))).unwrap();
    assert_eq!(contents(&snapshot), expected(&repository));
    assert_eq!((snapshot.commit.as_str(), snapshot.files.len()), (FIRST, 4));
    assert_eq!(ranges(&server), [None, Some("bytes=30000-".to_string()), Some("bytes=60000-".to_string())]);
    assert!(observed.iter().is_sorted() && observed.last().is_some_and(|(done, total)| done == total), "{observed:?}");
    // As Python's library lays it out.
    let model = cache.path().join("models--org--name");
    assert_eq!(fs::read_to_string(model.join("refs/main")).unwrap(), FIRST);
    assert_eq!(snapshot.folder, model.join("snapshots").join(FIRST));
    assert!(snapshot.folder.join("config.json").symlink_metadata().unwrap().is_symlink());
    let left: Vec<_> = fs::read_dir(model.join("blobs")).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert!(left.len() == 4 && left.iter().all(|name| name.len() == 64), "{left:?}");
    // The key goes to the hub, and to another host it would not go.
    assert!(server.seen().iter().all(|request| request.headers.get("authorization").is_none_or(|key| key == "Bearer hf_secret")));

    let before = server.seen().len();
    fetch(&hub).unwrap();
    assert_eq!(server.seen().len(), before + 1, "only whether the branch has moved");
    let offline = Hub::new("http://127.0.0.1:1", cache.path(), None, true);
    assert_eq!(fetch(&offline).unwrap(), snapshot);
}

#[test]
fn what_a_killed_process_left_is_gone_on_from() {
    let (repository, cache) = (repository(), tempfile::tempdir().unwrap());
    let server = Server::start(well, repository.serve());
    let whole = weights(100_000, 7);
    let blobs = cache.path().join("models--org--name/blobs");
    fs::create_dir_all(&blobs).unwrap();
    let partial = blobs.join(format!("{}.incomplete", blake3::hash(&whole).to_hex()));
    for (left, begins) in [
        (whole[..50_000].to_vec(), Some(vec![Some("bytes=50000-".to_string())])),
        (whole.clone(), Some(vec![])),
        ([&whole[..], b"more"].concat(), Some(vec![None])),
    ] {
        fs::remove_dir_all(cache.path().join("models--org--name/snapshots")).unwrap_or_default();
        fs::remove_dir_all(&blobs).unwrap();
        fs::create_dir_all(&blobs).unwrap();
        fs::write(&partial, left).unwrap();
        let before = ranges(&server).len();
        let snapshot = fetch(&hub(&server, cache.path())).unwrap();
        assert_eq!(contents(&snapshot), expected(&repository));
        assert_eq!(Some(ranges(&server)[before..].to_vec()), begins);
        assert!(!partial.exists());
    }
}

#[test]
fn a_file_that_is_not_what_was_promised_is_found() {
    let (repository, cache) = (repository(), tempfile::tempdir().unwrap());
    // Bytes of another file, of the right length: the header promises another one.
    let mut wrong = weights(100_000, 7);
    wrong[0] += 1;
    repository.put(FIRST, "model.safetensors", &wrong);
    let server = Server::start(well, repository.serve());
    let error = fetch(&hub(&server, cache.path())).unwrap_err().to_string();
    assert!(error.starts_with("hf://org/name@main: model.safetensors: expected a whole file, found"), "{error}");
    // No file is left for a next attempt.
    repository.put(FIRST, "model.safetensors", &weights(100_000, 7));
    let snapshot = fetch(&hub(&server, cache.path())).unwrap();
    assert_eq!(contents(&snapshot), expected(&repository));
    // A cut file in the cache is fetched again.
    let path = snapshot.folder.join("model.safetensors").canonicalize().unwrap();
    fs::write(&path, &weights(100_000, 7)[..1000]).unwrap();
    assert_eq!(contents(&fetch(&hub(&server, cache.path())).unwrap()), expected(&repository));
}

#[test]
fn a_commit_stays_when_its_branch_moves() {
    let (repository, cache) = (repository(), tempfile::tempdir().unwrap());
    let server = Server::start(well, repository.serve());
    let hub = hub(&server, cache.path());
    let first = fetch(&hub).unwrap();
    repository.put(SECOND, "config.json", b"{\"new\": 1}");
    assert_eq!(hub.commit(MODEL, GOING_ON).as_deref(), Some(SECOND));
    let files = first.files.iter().map(|name| (name.clone(), first.folder.join(name).metadata().unwrap().len())).collect();
    let pinned = Pinned { commit: FIRST.to_string(), files };
    let again = |hub: &Hub| hub.fetch(MODEL, Some(&pinned), GOING_ON, &mut |_, _| {}).unwrap();
    assert_eq!(again(&hub), first);
    fs::remove_dir_all(cache.path().join("models--org--name")).unwrap();
    assert_eq!(contents(&again(&hub)), expected(&repository));
    let moved = fetch(&hub).unwrap();
    assert_eq!((moved.commit.as_str(), moved.files), (SECOND, vec!["config.json".to_string()]));
}

#[test]
fn what_cannot_be_had_is_said_with_what_can_be_done() {
    let cache = tempfile::tempdir().unwrap();
    let said = |reply: fn() -> Reply, token: Option<&str>| {
        let server = Server::start(well, move |_| reply());
        let hub = Hub::new(&server.url, cache.path(), token.map(str::to_string), false);
        let error = fetch(&hub).unwrap_err();
        assert!(error.is_input() && !error.to_string().contains("hf_secret"), "{error}");
        error.to_string()
    };
    let error = said(|| Reply::of(404, Vec::new()).with("X-Error-Code", "RepoNotFound"), None);
    assert!(error.contains("expected a model at") && error.contains("HF_TOKEN"), "{error}");
    let error = said(|| Reply::of(404, Vec::new()).with("X-Error-Code", "RevisionNotFound"), None);
    assert!(error.contains("expected a branch, tag or commit \"main\", found none"), "{error}");
    let error = said(|| Reply::of(403, Vec::new()).with("X-Error-Code", "GatedRepo"), Some("hf_secret"));
    assert!(error.contains("gated") && error.contains("the token that was found has none") && error.contains("ask for access"), "{error}");
    let error = said(|| Reply::of(401, b"hf_secret".to_vec()), None);
    assert!(error.contains("status 401") && error.contains("put one into HF_TOKEN"), "{error}");
    let error = said(|| Reply::json(json!({"sha": FIRST, "siblings": [{"rfilename": "data.parquet"}]})), None);
    assert!(error.contains("found a repository without config.json"), "{error}");
    let offline = Hub::new("http://127.0.0.1:1", cache.path(), None, true);
    let error = fetch(&offline).unwrap_err();
    assert!(error.is_input() && error.to_string().contains("HF_HUB_OFFLINE is set, found nothing; run once without"), "{error}");
}

#[test]
fn a_download_stops_when_it_is_asked_to() {
    let (repository, cache) = (repository(), tempfile::tempdir().unwrap());
    let server = Server::start(well, repository.serve());
    let stopped = || server.seen().len() >= 3;
    let result = hub(&server, cache.path()).fetch(MODEL, None, &stopped, &mut |_, _| {});
    assert!(matches!(result, Err(RemoteError::Stopped)), "{result:?}");
}
