//! Damage to a finished run: found by `status --verify`, set aside and made anew by the same
//! command.

use std::fs::{self, File};
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use optune::store::{OutputKey, Run, Runs, StoreError};

use crate::fixtures::files::files_under;
use crate::fixtures::rows::Draw;
use crate::fixtures::store::recipe;
use crate::fixtures::workspace::{Workspace, result};

/// Flips one bit in place, hard links and all; the same again takes it back.
fn flip(path: &Path, bit: u64) {
    let mut file = File::options().read(true).write(true).open(path).unwrap();
    let mut byte = [0];
    file.seek(SeekFrom::Start(bit / 8)).unwrap();
    file.read_exact(&mut byte).unwrap();
    byte[0] ^= 1 << (bit % 8);
    file.seek(SeekFrom::Start(bit / 8)).unwrap();
    file.write_all(&byte).unwrap();
}

/// Every file under a folder with at least one byte.
fn files(folder: &Path) -> Vec<PathBuf> {
    files_under(folder).into_iter().filter(|path| path.metadata().unwrap().len() > 0).collect()
}

/// Flips without harm, which verification does not find:
/// - in `lock`: it names the last process with the lock, for a message; the lock itself is the
///   system's;
/// - of the journal's last byte: the last line then looks like one cut by a kill. It is left out,
///   and the journal decides nothing.
fn is_harmless(run: &Run, path: &Path, bit: u64) -> bool {
    let is_last_byte = || bit / 8 + 1 == path.metadata().unwrap().len();
    path == run.folder().join("lock") || (path == run.journal().path() && is_last_byte())
}

#[test]
fn every_flipped_bit_of_a_finished_run_is_found_or_harmless() {
    let workspace = Workspace::new();
    let runs = workspace.path("runs");
    workspace.run_here(&runs).unwrap();
    let fresh = || Runs::open(&runs).unwrap().run("small").unwrap();
    {
        // Files that a finished run of this pipeline lacks: a model in the making, and a file of
        // the hub.
        let lock = crate::fixtures::store::locked(&fresh()).unwrap();
        let save = |dir: &Path| crate::fixtures::store::write(&dir.join("weights.safetensors"), &[7; 3000]);
        lock.checkpoints().commit::<StoreError>(&OutputKey::model("other", None), &recipe(0.5).fingerprint(), 1, 2, save).unwrap();
        lock.write_sources("{\n  \"hf://org/name@main\": {\n    \"commit\": \"0123456789\",\n    \"files\": []\n  }\n}\n").unwrap();
    }
    assert_eq!(fresh().verify_all().unwrap().damaged, []);
    let all = files(&runs);
    let mut random = Draw(17);
    let (mut found, mut harmless) = (0, 0);
    for number in 0..1000 {
        let path = &all[random.below(all.len() as i32) as usize];
        let bit = random.bits() % (path.metadata().unwrap().len() * 8);
        flip(path, bit);
        let verified = fresh().verify_all().unwrap_or_else(|error| panic!("flip {number}, bit {bit} of {}: {error}", path.display()));
        if verified.damaged.iter().any(|bad| bad.path == *path) {
            found += 1;
        } else {
            assert!(is_harmless(&fresh(), path, bit), "flip {number}: bit {bit} of {} is not found", path.display());
            harmless += 1;
        }
        flip(path, bit);
    }
    assert_eq!(fresh().verify_all().unwrap().damaged, []);
    eprintln!("{found} found, {harmless} harmless, in {} files", all.len());
    assert!(harmless < 50, "{harmless}");
}

#[test]
fn what_is_damaged_is_said_set_aside_and_made_anew() {
    let workspace = Workspace::new();
    workspace.succeed(&["run", "pipeline.yaml"]);
    let run = workspace.path("runs/small");
    let expected = result(&run);
    let middle = |path: &Path| flip(path, path.metadata().unwrap().len() * 4);
    let cut = |path: &Path| File::options().write(true).open(path).unwrap().set_len(100).unwrap();
    let delete = |path: &Path| fs::remove_file(path).unwrap();
    // A hard link is not written to: other links to the file keep their bytes.
    let exchange = |path: &Path| {
        let other = path.parent().unwrap().parent().unwrap().join("iteration=2/part-00000.parquet");
        fs::remove_file(path).unwrap();
        fs::copy(other, path).unwrap();
    };
    let edit = |path: &Path| {
        let text = fs::read_to_string(path).unwrap();
        assert!(text.contains("\"rows\": 12"), "{text}");
        fs::write(path, text.replace("\"rows\": 12", "\"rows\": 11")).unwrap();
    };
    let responses = "tables/responses/iteration=1/part-00000.parquet";
    type Harm<'a> = &'a dyn Fn(&Path);
    let harms: [(&str, Harm); 12] = [
        (responses, &middle),
        (responses, &cut),
        (responses, &delete),
        (responses, &exchange),
        ("manifests/responses/iteration=1.json", &edit),
        ("manifests/responses/iteration=1.json", &middle),
        ("manifests/responses/iteration=1.json", &delete),
        ("manifests/prompts.json", &middle),
        ("models/policy/iteration=1/model.safetensors", &middle),
        ("models/policy/iteration=2/manifest.json", &cut),
        ("pipeline.yaml", &middle),
        ("journal.jsonl", &middle),
    ];
    for (name, harm) in harms {
        let path = run.join(name);
        harm(&path);
        let output = workspace.optune(&["status", "small", "--verify"]);
        let said = String::from_utf8(output.stdout).unwrap();
        assert_eq!(output.status.code(), Some(1), "{name}: {said}");
        assert!(said.contains(&format!("{}: expected ", path.display())), "{said}");
        let output = workspace.optune(&["run", "pipeline.yaml"]);
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{name}: {said}");
        // The pipeline's file is written anew by every run, whatever it was.
        assert!(name == "pipeline.yaml" || said.contains(&path.display().to_string()), "{name}: {said}");
        assert!(result(&run) == expected, "{name}");
        assert!(workspace.succeed(&["status", "small", "--verify"]).ends_with(" 0 damaged\n"), "{name}");
    }
    // Nothing damaged was thrown away.
    let aside = fs::read_dir(run.join("quarantine")).unwrap().count();
    assert!(aside >= 9, "only {aside} in quarantine");
}
