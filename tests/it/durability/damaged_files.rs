//! Flipped bits, cut and deleted files: found, set aside, reported, made anew.

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use optune::sql::Session;
use optune::store::{EventKind, OutputKey, Quarantined, State, StoreError};
use optune::tables::TableKind;

use crate::fixtures::store::{INPUT_ROWS, PART_ROWS, Space, counts, flip_a_bit, make_model, make_table, part, recipe, snapshot, write};
use arrow::array::RecordBatch;

fn cut(path: &Path) {
    File::options().write(true).open(path).unwrap().set_len(50).unwrap();
}

fn delete(path: &Path) {
    fs::remove_file(path).unwrap();
}

/// A finished table with part 1 damaged.
fn damaged(harm: fn(&Path)) -> (Space, OutputKey, PathBuf) {
    let space = Space::new();
    let place = OutputKey::table("pool", Some(1));
    make_table(&space.lock("run"), &place, 0.5, 9).unwrap();
    let path = space.run("run").path(&place).join("part-00001.parquet");
    harm(&path);
    (space, place, path)
}

#[test]
fn a_damaged_part_is_set_aside_and_made_anew_with_the_same_bytes() {
    let reference = Space::new();
    let place = OutputKey::table("pool", Some(1));
    make_table(&reference.lock("run"), &place, 0.5, 9).unwrap();
    for (harm, found) in [(flip_a_bit as fn(&Path), "bytes with blake3"), (cut, "found 50 bytes"), (delete, "no such file")] {
        let (space, place, path) = damaged(harm);
        let lock = space.lock("run");
        let mut writer = lock.write_table(&place, &recipe(0.5), Some(TableKind::Pool), INPUT_ROWS, PART_ROWS).unwrap();
        assert_eq!(writer.missing(), [1]);
        let reports: Vec<&Quarantined> = writer.quarantined().iter().filter(|report| report.path == path).collect();
        assert_eq!(reports.len(), 1, "{:?}", writer.quarantined());
        assert!(reports[0].to_string().contains(found), "{}", reports[0]);
        if found != "no such file" {
            assert_eq!(reports[0].moved_to, Some(lock.folder().join("quarantine/pool-1-part-00001.parquet-1")));
            assert!(lock.folder().join("quarantine/pool-1-part-00001.parquet-1").exists());
        }
        assert_eq!(
            lock.state(&place, &recipe(0.5)).unwrap(),
            if found == "no such file" { State::Cached } else { State::Partial { done: 2, of: 3 } }
        );
        writer.commit(1, &part(0.5, 1)).unwrap();
        writer.finish(counts()).unwrap();
        assert_eq!(snapshot(&lock.path(&place)), snapshot(&reference.run("run").path(&place)));
        assert!(
            lock.journal()
                .read()
                .unwrap()
                .iter()
                .any(|event| event.event == EventKind::Quarantined && event.message.as_ref().unwrap().contains(found))
        );
        // The entry of the cache is valid again.
        assert_eq!(space.lock("other").cache().adopt(&place, &recipe(0.5).fingerprint()).unwrap(), (true, Vec::new()));
    }
}

#[test]
fn a_reader_refuses_damage_and_leaves_it_where_it_is() {
    for harm in [flip_a_bit as fn(&Path), cut, delete] {
        let (space, place, path) = damaged(harm);
        let run = space.run("run");
        let before = snapshot(run.folder());
        let error = run.read_table(&place, Some(TableKind::Pool)).unwrap_err();
        assert!(matches!(&error, StoreError::Damaged { files } if files.len() == 1 && files[0].path == path), "{error}");
        assert!(error.to_string().contains("run the pipeline again"), "{error}");
        assert!(matches!(Session::over_run(&run), Err(StoreError::Damaged { .. })));
        assert_eq!(snapshot(run.folder()), before);
    }
}

#[test]
fn files_are_compared_once_a_process() {
    let space = Space::new();
    let place = OutputKey::table("pool", Some(1));
    make_table(&space.lock("run"), &place, 0.5, 9).unwrap();
    let run = space.run("run");
    run.read_table(&place, None).unwrap();
    let path = run.path(&place).join("part-00001.parquet");
    // A change of times or of another file changes nothing. A lost file does.
    fs::write(run.path(&place).join("notes.txt"), "mine").unwrap();
    run.clone().read_table(&place, None).unwrap();
    delete(&path);
    assert!(matches!(run.read_table(&place, None), Err(StoreError::Damaged { .. })));
}

#[test]
fn a_damaged_model_file_is_set_aside_and_the_model_is_to_be_made() {
    let space = Space::new();
    let place = OutputKey::model("policy", Some(1));
    let lock = space.lock("run");
    make_model(&lock, &place, 0.5).unwrap();
    let path = lock.path(&place).join("original/model.safetensors");
    flip_a_bit(&path);
    // A new process does not remember the writes of this one.
    drop(lock);
    assert!(matches!(space.run("run").model_dir(&place), Err(StoreError::Damaged { .. })));
    let lock = space.lock("run");
    let reports = lock.quarantine().verify(&place).unwrap();
    assert_eq!(reports.iter().filter(|report| report.path == path).count(), 1);
    assert!(lock.folder().join("quarantine/policy-1-original-model.safetensors-1").exists());
    assert_eq!(lock.state(&place, &recipe(0.5)).unwrap(), State::Absent);
    assert!(matches!(lock.model_dir(&place), Err(StoreError::Incomplete { .. })));
    make_model(&lock, &place, 0.5).unwrap();
    assert_eq!(lock.state(&place, &recipe(0.5)).unwrap(), State::Complete);
    drop(lock);
    space.run("run").model_dir(&place).unwrap();
}

#[test]
fn a_damaged_cache_entry_is_never_adopted() {
    let space = Space::new();
    let place = OutputKey::table("pool", Some(1));
    make_table(&space.lock("one"), &place, 0.5, 9).unwrap();
    let entry = space.runs().root().join(".cache").join(recipe(0.5).fingerprint().as_str());
    flip_a_bit(&entry.join("part-00002.parquet"));
    let lock = space.lock("two");
    assert_eq!(lock.state(&place, &recipe(0.5)).unwrap(), State::Cached);
    let (adopted, reports) = lock.cache().adopt(&place, &recipe(0.5).fingerprint()).unwrap();
    assert!(!adopted);
    assert_eq!(reports.len(), 1);
    assert!(reports[0].moved_to.as_ref().unwrap().starts_with(lock.folder().join("quarantine")));
    assert!(!entry.exists());
    assert_eq!(lock.state(&place, &recipe(0.5)).unwrap(), State::Absent);
    assert_eq!(make_table(&lock, &place, 0.5, 9).unwrap(), [0, 1, 2]);
    assert!(entry.exists());
}

#[test]
fn a_manifest_that_is_none_is_set_aside_with_its_folder() {
    let space = Space::new();
    let place = OutputKey::table("pool", Some(1));
    make_table(&space.lock("run"), &place, 0.5, 2).unwrap();
    let path = space.run("run").folder().join("manifests/pool/iteration=1.json");
    fs::write(&path, "{ \"manifest_version\": 1 ").unwrap();
    let error = space.run("run").state(&place, &recipe(0.5)).unwrap_err().to_string();
    assert!(error.contains("iteration=1.json: expected a manifest, found "), "{error}");
    let lock = space.lock("run");
    assert_eq!(make_table(&lock, &place, 0.5, 9).unwrap(), [0, 1, 2]);
    assert!(lock.folder().join("quarantine/pool-1-1/part-00000.parquet").exists());
    // Nor does a manifest lead out of its folder, not even a checksummed one.
    let text = fs::read_to_string(&path).unwrap().replace("part-00000.parquet", "../../x");
    let body = text.rsplit_once(",\n  \"seal\": ").unwrap().0;
    fs::write(&path, format!("{body},\n  \"seal\": \"{}\"\n}}\n", blake3::hash(body.as_bytes()))).unwrap();
    let error = space.run("run").manifest(&place).unwrap_err();
    assert!(matches!(error, StoreError::Manifest { .. }) && error.to_string().contains("cannot be the name of a file"), "{error}");
}

#[test]
fn an_edited_manifest_and_a_lost_one_are_set_aside_with_their_folder() {
    let edit = |path: &Path| {
        let text = fs::read_to_string(path).unwrap();
        // Still a manifest, of the same files.
        fs::write(path, text.replace("\"prompts\": 10", "\"prompts\": 11")).unwrap();
    };
    for (harm, found) in [(&edit as &dyn Fn(&Path), "one that was changed after it was written"), (&delete, "no such file")] {
        let space = Space::new();
        let place = OutputKey::table("pool", Some(1));
        make_table(&space.lock("run"), &place, 0.5, 9).unwrap();
        let expected = snapshot(&space.run("run").path(&place));
        let path = space.run("run").folder().join("manifests/pool/iteration=1.json");
        harm(&path);
        let verified = space.run("run").verify_all().unwrap();
        let bad: Vec<&Quarantined> = verified.damaged.iter().filter(|bad| bad.path == path).collect();
        assert!(bad.len() == 1 && bad[0].found.contains(found), "{verified:?}");
        let lock = space.lock("run");
        let reports = lock.quarantine().verify(&place).unwrap();
        assert!(reports.len() == 1 && reports[0].path == path, "{reports:?}");
        assert_eq!(reports[0].moved_to, Some(lock.folder().join("quarantine/pool-1-1")));
        assert_eq!(lock.state(&place, &recipe(0.5)).unwrap(), State::Cached);
        assert!(lock.cache().adopt(&place, &recipe(0.5).fingerprint()).unwrap().0);
        assert_eq!(snapshot(&lock.path(&place)), expected);
    }
}

#[test]
fn a_checkpoint_that_says_something_else_is_set_aside_and_reported() {
    let space = Space::new();
    let (place, fingerprint) = (OutputKey::model("policy", Some(1)), recipe(0.5).fingerprint());
    let lock = space.lock("run");
    let dir = lock.checkpoints().commit(&place, &fingerprint, 1, 2, |dir| write(&dir.join("weights"), &[7; 100])).unwrap();
    flip_a_bit(&dir.join("checkpoint.json"));
    assert_eq!(lock.verify_all().unwrap().damaged[0].path, dir.join("checkpoint.json"));
    let (none, reports) = lock.checkpoints().latest(&place, &fingerprint).unwrap();
    assert!(none.is_none() && reports.len() == 1 && reports[0].path == dir.join("checkpoint.json"), "{reports:?}");
    assert!(reports[0].moved_to.as_ref().unwrap().join("weights").exists());
}

#[test]
fn a_journal_with_a_line_that_is_none_is_set_aside_and_keeps_the_others() {
    let space = Space::new();
    let place = OutputKey::table("pool", None);
    make_table(&space.lock("run"), &place, 0.5, 9).unwrap();
    let journal = space.run("run").journal();
    let before = journal.read().unwrap();
    flip_a_bit(journal.path());
    let error = journal.read().unwrap_err().to_string();
    assert!(error.contains("journal.jsonl:2: expected an event, found ") && error.contains("run the pipeline again"), "{error}");
    let lock = space.lock("run");
    let report = lock.damaged_journal().unwrap();
    assert_eq!(
        (&report.path, report.moved_to.as_deref()),
        (&journal.path().to_path_buf(), Some(lock.folder().join("quarantine/journal.jsonl-1").as_path()))
    );
    let after = journal.read().unwrap();
    assert_eq!(&after[..2], [before[0].clone(), before[2].clone()]);
    assert!(after.len() == 3 && after[2].event == EventKind::Quarantined);
    drop(lock);
    assert_eq!(space.lock("run").damaged_journal(), None);
}

#[test]
fn what_a_run_goes_by_is_refused_when_it_was_changed() {
    let space = Space::new();
    let lock = space.lock("run");
    let (sources, pipeline) = ("{\n  \"hf://org/name\": \"0123\"\n}\n", "optune: 1\nname: run\n");
    lock.write_sources(sources).unwrap();
    lock.write_pipeline(pipeline).unwrap();
    assert_eq!(lock.read_sources().unwrap().unwrap(), sources);
    assert!(fs::read_to_string(lock.pipeline_file().unwrap()).unwrap().starts_with(pipeline));
    assert_eq!(lock.verify_all().unwrap().damaged, []);
    for name in ["sources.json", "pipeline.yaml"] {
        let path = lock.folder().join(name);
        fs::write(&path, fs::read_to_string(&path).unwrap().replace("1", "2")).unwrap();
        assert_eq!(lock.verify_all().unwrap().damaged.pop().unwrap().path, path);
        let error = if name == "sources.json" { lock.read_sources().unwrap_err() } else { lock.pipeline_file().unwrap_err() };
        assert!(error.to_string().starts_with(&format!("{}: expected the file as it was written, found ", path.display())), "{error}");
        lock.write_sources(sources).unwrap();
    }
}

#[test]
fn another_part_size_goes_on_with_the_parts_that_are_there() {
    let space = Space::new();
    let place = OutputKey::table("pool", Some(1));
    let lock = space.lock("run");
    make_table(&lock, &place, 0.5, 2).unwrap();
    let writer = lock.write_table(&place, &recipe(0.5), Some(TableKind::Pool), INPUT_ROWS, 5).unwrap();
    assert_eq!((writer.missing(), writer.rows_of(2), writer.quarantined().len()), (vec![2], 8..10, 0));
    assert_eq!(
        writer.committed().unwrap(),
        [0, 1].map(|index| part(0.5, index).columns().to_vec()).map(|columns| plain(&part(0.5, 0), columns))
    );
}

/// Columns under a batch's schema without its metadata, as files give them.
fn plain(like: &RecordBatch, columns: Vec<arrow::array::ArrayRef>) -> RecordBatch {
    RecordBatch::try_new(arrow::datatypes::Schema::new(like.schema().fields().clone()).into(), columns).unwrap()
}

#[test]
fn parts_of_another_input_are_set_aside_and_reported() {
    let space = Space::new();
    let place = OutputKey::table("pool", Some(1));
    let lock = space.lock("run");
    make_table(&lock, &place, 0.5, 2).unwrap();
    let writer = lock.write_table(&place, &recipe(0.5), Some(TableKind::Pool), INPUT_ROWS + 1, PART_ROWS).unwrap();
    assert_eq!(writer.missing(), [0, 1, 2]);
    assert_eq!(writer.quarantined().len(), 1);
    assert!(writer.quarantined()[0].to_string().contains("expected 11 input rows, found 10 input rows"));
}
