//! Flipped bits, cut and deleted files: found, set aside, reported, made anew.

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use optune::store::{EventKind, Place, Quarantined, Session, State, StoreError};
use optune::tables::TableKind;

use super::*;

fn cut(path: &Path) {
    File::options().write(true).open(path).unwrap().set_len(50).unwrap();
}

fn delete(path: &Path) {
    fs::remove_file(path).unwrap();
}

/// A finished table with part 1 damaged.
fn damaged(harm: fn(&Path)) -> (Space, Place, PathBuf) {
    let space = Space::new();
    let place = Place::table("pool", Some(1));
    make_table(&space.lock("run"), &place, 0.5, 9).unwrap();
    let path = space.run("run").path(&place).join("part-00001.parquet");
    harm(&path);
    (space, place, path)
}

#[test]
fn a_damaged_part_is_set_aside_and_made_anew_with_the_same_bytes() {
    let reference = Space::new();
    let place = Place::table("pool", Some(1));
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
        // What the cache has now is good again.
        assert_eq!(space.lock("other").adopt(&place, &recipe(0.5).fingerprint()).unwrap(), (true, Vec::new()));
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
    let place = Place::table("pool", Some(1));
    make_table(&space.lock("run"), &place, 0.5, 9).unwrap();
    let run = space.run("run");
    run.read_table(&place, None).unwrap();
    let path = run.path(&place).join("part-00001.parquet");
    // A change of times or of a file beside changes nothing, a file that is gone does.
    fs::write(run.path(&place).join("notes.txt"), "mine").unwrap();
    run.clone().read_table(&place, None).unwrap();
    delete(&path);
    assert!(matches!(run.read_table(&place, None), Err(StoreError::Damaged { .. })));
}

#[test]
fn a_damaged_model_file_is_set_aside_and_the_model_is_to_be_made() {
    let space = Space::new();
    let place = Place::model("policy", Some(1));
    let lock = space.lock("run");
    make_model(&lock, &place, 0.5).unwrap();
    let path = lock.path(&place).join("original/model.safetensors");
    flip_a_bit(&path);
    // A new process, as it does not remember what this one wrote.
    drop(lock);
    assert!(matches!(space.run("run").model_dir(&place), Err(StoreError::Damaged { .. })));
    let lock = space.lock("run");
    let reports = lock.verify(&place).unwrap();
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
    let place = Place::table("pool", Some(1));
    make_table(&space.lock("one"), &place, 0.5, 9).unwrap();
    let entry = space.runs().root().join(".cache").join(recipe(0.5).fingerprint().as_str());
    flip_a_bit(&entry.join("part-00002.parquet"));
    let lock = space.lock("two");
    assert_eq!(lock.state(&place, &recipe(0.5)).unwrap(), State::Cached);
    let (adopted, reports) = lock.adopt(&place, &recipe(0.5).fingerprint()).unwrap();
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
    let place = Place::table("pool", Some(1));
    make_table(&space.lock("run"), &place, 0.5, 2).unwrap();
    let path = space.run("run").path(&place).join("manifest.json");
    fs::write(&path, "{ \"manifest_version\": 1 ").unwrap();
    let error = space.run("run").state(&place, &recipe(0.5)).unwrap_err().to_string();
    assert!(error.contains("manifest.json: expected a manifest, found "), "{error}");
    let lock = space.lock("run");
    assert_eq!(make_table(&lock, &place, 0.5, 9).unwrap(), [0, 1, 2]);
    assert!(lock.folder().join("quarantine/pool-1-1/part-00000.parquet").exists());
    // Nor does a manifest lead out of its folder.
    let text = fs::read_to_string(&path).unwrap().replace("part-00000.parquet", "../../x");
    fs::write(&path, text).unwrap();
    assert!(matches!(space.run("run").manifest(&place), Err(StoreError::Name { .. })));
}

#[test]
fn another_part_size_goes_on_with_the_parts_that_are_there() {
    let space = Space::new();
    let place = Place::table("pool", Some(1));
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
    let place = Place::table("pool", Some(1));
    let lock = space.lock("run");
    make_table(&lock, &place, 0.5, 2).unwrap();
    let writer = lock.write_table(&place, &recipe(0.5), Some(TableKind::Pool), INPUT_ROWS + 1, PART_ROWS).unwrap();
    assert_eq!(writer.missing(), [0, 1, 2]);
    assert_eq!(writer.quarantined().len(), 1);
    assert!(writer.quarantined()[0].to_string().contains("expected 11 input rows, found 10 input rows"));
}
