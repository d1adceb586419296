//! Resuming: begun outputs are finished, unwanted ones are set aside, finished ones are shared.

use std::fs;

use optune::store::{EventKind, OutputKey, OutputKind, State, StoreError};
use optune::tables::TableKind;

use crate::fixtures::rows::random_batches;
use crate::fixtures::store::{
    INPUT_ROWS, PART_ROWS, Space, counts, flip_a_bit, locked, make_model, make_table, part, recipe, rows_of, snapshot,
};
use optune::dag::fingerprint::Recipe;
use optune::store::Run;
use optune::store::RunLock;
use optune::tables::pool;
use std::path::Path;

#[test]
fn every_table_reads_back_as_it_was_written() {
    let space = Space::new();
    let lock = space.lock("run");
    for (seed, rows) in [(1, 0), (2, 1), (3, 300)] {
        for (kind, batch) in random_batches(seed, rows) {
            let place = OutputKey::table(kind.name(), Some(seed as u32));
            let made = Recipe { operator: kind.name().into(), ..recipe(seed as f64) };
            let mut writer = lock.write_table(&place, &made, Some(kind), rows, 1000).unwrap();
            assert_eq!((writer.part_count(), writer.missing(), writer.rows_of(0)), (1, vec![0], 0..rows));
            writer.commit(0, &batch).unwrap();
            writer.finish(counts()).unwrap();
            drop(space.run("run").read_table(&place, Some(kind)).unwrap());
            let read = lock.read_table(&place, Some(kind)).unwrap();
            assert_eq!(read, std::slice::from_ref(&batch), "{kind}");
            assert_eq!(lock.read_table(&place, None).unwrap()[0].columns(), batch.columns());
        }
    }
}

#[test]
fn parts_are_fixed_slices_and_the_manifest_says_what_they_are() {
    let space = Space::new();
    let lock = space.lock("run");
    let place = OutputKey::table("pool", Some(1));
    let writer = lock.write_table(&place, &recipe(0.5), Some(TableKind::Pool), INPUT_ROWS, PART_ROWS).unwrap();
    assert_eq!([writer.rows_of(0), writer.rows_of(1), writer.rows_of(2), writer.rows_of(3)], [0..4, 4..8, 8..10, 10..10]);
    assert_eq!(lock.state(&place, &recipe(0.5)).unwrap(), State::Partial { done: 0, of: 3 });
    drop(writer);
    assert_eq!(make_table(&lock, &place, 0.5, 9).unwrap(), [0, 1, 2]);
    let manifest = lock.manifest(&place).unwrap().unwrap();
    assert!(manifest.complete);
    assert_eq!(
        (manifest.node.as_str(), manifest.iteration, manifest.kind, manifest.table),
        ("pool", Some(1), OutputKind::Table, Some(TableKind::Pool))
    );
    assert_eq!((manifest.input_rows, manifest.part_rows, manifest.part_count, manifest.rows()), (10, 4, 3, 20));
    assert_eq!((manifest.recipe, manifest.counts), (recipe(0.5), counts()));
    for part in &manifest.parts {
        let bytes = fs::read(lock.path(&place).join(&part.file)).unwrap();
        assert_eq!((bytes.len() as u64, blake3::hash(&bytes).to_hex().to_string()), (part.bytes, part.blake3.clone()));
    }
    assert_eq!(lock.state(&place, &recipe(0.5)).unwrap(), State::Complete);
    let committed: Vec<_> = lock.journal().read().unwrap().into_iter().filter(|event| event.event == EventKind::PartCommitted).collect();
    assert_eq!(
        committed.iter().map(|event| (event.part, event.rows)).collect::<Vec<_>>(),
        [(Some(0), Some(8)), (Some(1), Some(8)), (Some(2), Some(4))]
    );
    assert!(committed.iter().all(|event| event.node == "pool" && event.iteration == Some(1) && event.seconds.is_some() && event.at > 0));
}

#[test]
fn equal_work_makes_equal_bytes_in_any_order_and_any_run() {
    let (one, other) = (Space::new(), Space::new());
    let place = OutputKey::table("pool", Some(1));
    make_table(&one.lock("run"), &place, 0.5, 9).unwrap();
    {
        let lock = other.lock("run");
        let mut writer = lock.write_table(&place, &recipe(0.5), Some(TableKind::Pool), INPUT_ROWS, PART_ROWS).unwrap();
        for index in [2, 0, 1] {
            writer.commit(index, &part(0.5, index)).unwrap();
        }
        writer.finish(counts()).unwrap();
    }
    assert_eq!(snapshot(&one.run("run").path(&place)), snapshot(&other.run("run").path(&place)));
}

#[test]
fn a_second_process_goes_on_with_the_parts_that_are_missing() {
    let space = Space::new();
    let place = OutputKey::table("pool", None);
    assert_eq!(make_table(&space.lock("run"), &place, 0.5, 2).unwrap(), [0, 1]);
    let run = space.run("run");
    assert_eq!(run.state(&place, &recipe(0.5)).unwrap(), State::Partial { done: 2, of: 3 });
    let error = run.read_table(&place, None).unwrap_err().to_string();
    assert!(error.starts_with("table pool is not finished: 2 of 3 parts are there"), "{error}");
    assert_eq!(make_table(&space.lock("run"), &place, 0.5, 9).unwrap(), [2]);
    assert_eq!(rows_of(&run.read_table(&place, Some(TableKind::Pool)).unwrap()), 20);
}

#[test]
fn a_wrong_part_number_a_wrong_table_and_an_early_finish_are_refused() {
    let space = Space::new();
    let lock = space.lock("run");
    let place = OutputKey::table("pool", None);
    let mut writer = lock.write_table(&place, &recipe(0.5), Some(TableKind::Pool), INPUT_ROWS, PART_ROWS).unwrap();
    writer.commit(1, &part(0.5, 1)).unwrap();
    for index in [1, 3] {
        let error = writer.commit(index, &part(0.5, 1)).unwrap_err().to_string();
        assert_eq!(error, format!("table pool: expected one of the missing parts [0, 2], found part {index}"));
    }
    let mut rows = pool::rows(&part(0.5, 0)).unwrap();
    rows[3].reward = f64::NAN;
    let error = writer.commit(0, &pool::batch(&rows)).unwrap_err().to_string();
    assert!(error.contains("part-00000.parquet: table pool, row 3: reward: expected a finite number, found NaN"), "{error}");
    assert_eq!(writer.missing(), [0, 2]);
    assert!(matches!(writer.finish(counts()), Err(StoreError::Incomplete { done: 1, of: 3, .. })));
    assert!(lock.write_table(&OutputKey::model("pool", None), &recipe(0.5), None, 1, 1).is_err());
    assert!(lock.write_model(&place, &recipe(0.5)).is_err());
}

#[test]
fn keys_are_unique_across_parts() {
    let space = Space::new();
    let lock = space.lock("run");
    let place = OutputKey::table("pool", None);
    let mut writer = lock.write_table(&place, &recipe(0.5), Some(TableKind::Pool), 2, 1).unwrap();
    writer.commit(0, &part(0.5, 0)).unwrap();
    writer.commit(1, &part(0.5, 0)).unwrap();
    writer.finish(counts()).unwrap();
    let error = lock.read_table(&place, Some(TableKind::Pool)).unwrap_err().to_string();
    assert!(error.contains("row 8: the key (prompt_id = "), "{error}");
}

#[test]
fn an_unfinished_table_is_set_aside_and_taken_back() {
    let space = Space::new();
    let place = OutputKey::table("pool", Some(2));
    make_table(&space.lock("run"), &place, 0.5, 2).unwrap();
    let before = snapshot(&space.run("run").path(&place));
    // The user changes the ratio: the old parts make room.
    let run = space.run("run");
    let State::Stale { old } = run.state(&place, &recipe(0.7)).unwrap() else { panic!("expected stale") };
    assert_eq!(recipe(0.7).differences_from(&old), ["ratio was 0.5, is 0.7"]);
    assert_eq!(make_table(&space.lock("run"), &place, 0.7, 1).unwrap(), [0]);
    assert_eq!(run.state(&place, &recipe(0.5)).unwrap(), State::Partial { done: 2, of: 3 });
    // And back: only the third part is made.
    assert_eq!(make_table(&space.lock("run"), &place, 0.5, 0).unwrap(), [0; 0]);
    assert_eq!(snapshot(&run.path(&place)), before);
    assert_eq!(make_table(&space.lock("run"), &place, 0.5, 9).unwrap(), [2]);
    assert_eq!(make_table(&space.lock("run"), &place, 0.7, 9).unwrap(), [1, 2]);
}

#[test]
fn what_one_run_finished_another_adopts() {
    let space = Space::new();
    let (table, model) = (OutputKey::table("pool", Some(1)), OutputKey::model("policy", Some(1)));
    make_table(&space.lock("one"), &table, 0.5, 9).unwrap();
    make_model(&space.lock("one"), &model, 0.6).unwrap();
    let lock = space.lock("two");
    let (as_table, as_model) = (OutputKey::table("my_pool", None), OutputKey::model("tuned", Some(3)));
    assert_eq!(lock.state(&as_table, &recipe(0.5)).unwrap(), State::Cached);
    assert_eq!(lock.state(&as_model, &recipe(0.6)).unwrap(), State::Cached);
    assert_eq!(lock.state(&as_table, &recipe(0.6)).unwrap(), State::Absent);
    assert_eq!(lock.cache().adopt(&as_table, &recipe(0.5).fingerprint()).unwrap(), (true, Vec::new()));
    assert_eq!(lock.cache().adopt(&as_model, &recipe(0.6).fingerprint()).unwrap(), (true, Vec::new()));
    assert_eq!(lock.cache().adopt(&as_table, &recipe(0.9).fingerprint()).unwrap(), (false, Vec::new()));
    assert_eq!(lock.state(&as_table, &recipe(0.5)).unwrap(), State::Complete);
    assert_eq!(
        lock.read_table(&as_table, Some(TableKind::Pool)).unwrap(),
        space.run("one").read_table(&table, Some(TableKind::Pool)).unwrap()
    );
    let dir = lock.model_dir(&as_model).unwrap();
    assert_eq!(fs::read(dir.join("original/model.safetensors")).unwrap(), [7; 1000]);
    let manifest = lock.manifest(&as_model).unwrap().unwrap();
    assert_eq!((manifest.node.as_str(), manifest.iteration), ("tuned", Some(3)));
    assert_eq!(manifest.files.iter().map(|file| file.file.as_str()).collect::<Vec<_>>(), ["config.json", "original/model.safetensors"]);
    let error = lock.cache().adopt(&as_model, &recipe(0.5).fingerprint()).unwrap_err().to_string();
    assert!(error.contains("is the output table pool in the cache, expected model tuned, iteration 3"), "{error}");
    #[cfg(unix)]
    {
        use std::os::unix::fs::MetadataExt;
        assert_eq!(fs::metadata(dir.join("config.json")).unwrap().nlink(), 3, "linked, not copied");
    }
}

#[test]
fn a_finished_output_comes_back_when_its_recipe_does() {
    let space = Space::new();
    let lock = space.lock("run");
    let (table, model) = (OutputKey::table("pool", Some(1)), OutputKey::model("policy", Some(1)));
    for ratio in [0.5, 0.7] {
        make_table(&lock, &table, ratio, 9).unwrap();
        make_model(&lock, &model, ratio + 1.0).unwrap();
    }
    for (place, ratio) in [(&table, 0.5), (&model, 1.5)] {
        assert_eq!(lock.state(place, &recipe(ratio)).unwrap(), State::Cached);
        assert!(lock.cache().adopt(place, &recipe(ratio).fingerprint()).unwrap().0);
        assert_eq!(lock.state(place, &recipe(ratio)).unwrap(), State::Complete);
        assert_eq!(lock.state(place, &recipe(ratio + 0.2)).unwrap(), State::Cached);
    }
    assert!(fs::read_to_string(lock.model_dir(&model).unwrap().join("config.json")).unwrap().contains("1.5"));
    assert_eq!(rows_of(&lock.read_table(&table, Some(TableKind::Pool)).unwrap()), 20);
}

#[test]
fn without_its_cache_a_run_is_still_complete_and_nothing_is_lost() {
    let space = Space::new();
    let lock = space.lock("run");
    let place = OutputKey::table("pool", Some(1));
    make_table(&lock, &place, 0.5, 9).unwrap();
    fs::remove_dir_all(space.runs().root().join(".cache")).unwrap();
    assert_eq!(lock.state(&place, &recipe(0.5)).unwrap(), State::Complete);
    // It is replaced: the finished output goes to the cache first.
    make_table(&lock, &place, 0.7, 1).unwrap();
    assert_eq!(lock.state(&place, &recipe(0.5)).unwrap(), State::Cached);
    assert!(lock.cache().adopt(&place, &recipe(0.5).fingerprint()).unwrap().0);
    assert_eq!(lock.state(&place, &recipe(0.7)).unwrap(), State::Partial { done: 1, of: 3 });
}

#[test]
fn a_node_that_moves_into_the_loop_leaves_nothing_in_the_way() {
    let space = Space::new();
    let lock = space.lock("run");
    let (once, looped) = (OutputKey::table("pool", None), OutputKey::table("pool", Some(1)));
    make_table(&lock, &once, 0.5, 9).unwrap();
    make_table(&lock, &looped, 0.7, 9).unwrap();
    assert_eq!(lock.manifests().unwrap().into_iter().map(|(place, _)| place).collect::<Vec<_>>(), std::slice::from_ref(&looped));
    make_table(&lock, &OutputKey::table("pool", Some(2)), 0.8, 9).unwrap();
    make_table(&lock, &once, 0.9, 9).unwrap();
    assert_eq!(lock.manifests().unwrap().into_iter().map(|(place, _)| place).collect::<Vec<_>>(), [once]);
    for ratio in [0.5, 0.7, 0.8] {
        assert_eq!(lock.state(&looped, &recipe(ratio)).unwrap(), State::Cached);
    }
}

#[test]
fn checkpoints_survive_are_replaced_and_vanish_with_the_finished_model() {
    let space = Space::new();
    let place = OutputKey::model("policy", Some(1));
    let fingerprint = recipe(0.5).fingerprint();
    let save = |lock: &RunLock, done: u64| {
        lock.checkpoints().commit(&place, &fingerprint, done, 30, |dir| {
            fs::write(dir.join("weights"), vec![done as u8; 100]).map_err(|source| StoreError::Io {
                action: "write",
                path: dir.into(),
                source,
            })
        })
    };
    {
        let lock = space.lock("run");
        assert_eq!(lock.checkpoints().latest(&place, &fingerprint).unwrap(), (None, Vec::new()));
        save(&lock, 10).unwrap();
        save(&lock, 20).unwrap();
    }
    let lock = space.lock("run");
    assert_eq!(lock.state(&place, &recipe(0.5)).unwrap(), State::Partial { done: 20, of: 30 });
    let checkpoint = lock.checkpoints().latest(&place, &fingerprint).unwrap().0.unwrap();
    assert_eq!((checkpoint.done, checkpoint.of, fs::read(checkpoint.dir.join("weights")).unwrap()), (20, 30, vec![20; 100]));
    // A damaged one is set aside, not used.
    flip_a_bit(&checkpoint.dir.join("weights"));
    let (none, reports) = lock.checkpoints().latest(&place, &fingerprint).unwrap();
    assert_eq!((none, reports.len()), (None, 1));
    assert!(reports[0].moved_to.as_ref().unwrap().join("weights").exists());
    save(&lock, 30).unwrap();
    make_model(&lock, &place, 0.5).unwrap();
    assert_eq!(lock.checkpoints().latest(&place, &fingerprint).unwrap().0, None);
    assert_eq!(lock.state(&place, &recipe(0.5)).unwrap(), State::Complete);
}

#[test]
fn a_run_in_use_is_refused_with_the_process_that_has_it() {
    let space = Space::new();
    let run = space.run("run");
    assert_eq!(run.is_locked(), Some(false));
    let lock = run.lock().unwrap();
    let error = space.run("run").lock().unwrap_err().to_string();
    assert!(error.starts_with(&format!("run run is in use by process {}; wait for it or stop it", std::process::id())), "{error}");
    assert_eq!(run.is_locked(), Some(true));
    drop(lock);
    locked(&run).unwrap();
}

#[test]
fn names_cannot_lead_out_of_their_folder() {
    let space = Space::new();
    for name in ["", "..", ".cache", "a/b", "/etc", "a\\b", "a b", "x.", "C:"] {
        assert!(space.runs().run(name).is_err(), "{name:?}");
        let place = OutputKey::table(name, None);
        assert!(space.lock("run").write_table(&place, &recipe(0.5), None, 1, 1).is_err(), "{name:?}");
        assert!(space.run("run").manifest(&place).is_err(), "{name:?}");
    }
    let run = space.run("ratio-0.5_x");
    assert_eq!((Run::at(run.folder()).unwrap().folder(), run.exists()), (run.folder(), false));
}

#[test]
fn a_torn_last_line_of_the_journal_is_left_out_and_then_cut_off() {
    let space = Space::new();
    let place = OutputKey::table("pool", None);
    make_table(&space.lock("run"), &place, 0.5, 1).unwrap();
    let journal = space.run("run").journal();
    let whole = fs::read(journal.path()).unwrap();
    fs::write(journal.path(), [whole.as_slice(), b"{\"at\":17,\"eve"].concat()).unwrap();
    assert_eq!(journal.read().unwrap().len(), 1);
    make_table(&space.lock("run"), &place, 0.5, 9).unwrap();
    assert_eq!(journal.read().unwrap().len(), 3);
    fs::write(journal.path(), [b"nonsense\n", whole.as_slice()].concat()).unwrap();
    let error = journal.read().unwrap_err().to_string();
    assert!(error.contains("journal.jsonl:1: expected an event"), "{error}");
}

#[test]
fn a_run_is_found_by_name_and_by_folder() {
    let space = Space::new();
    make_table(&space.lock("one"), &OutputKey::table("pool", None), 0.5, 1).unwrap();
    let folder = space.run("one").folder().to_path_buf();
    assert_eq!(space.runs().find(Path::new("one")).unwrap().folder(), folder);
    assert_eq!(space.runs().find(&folder).unwrap().folder(), folder);
    let error = space.runs().find(Path::new("two")).unwrap_err();
    assert!(error.is_input() && error.to_string().contains(": one"), "{error}");
}

#[test]
fn parquet_files_outside_runs_round_trip() {
    let space = Space::new();
    let path = space.path().join("pool.parquet");
    let batch = part(0.5, 0);
    optune::store::write_parquet(&path, &batch).unwrap();
    assert_eq!(pool::rows(&optune::store::read_parquet(&path).unwrap()).unwrap(), pool::rows(&batch).unwrap());
    assert_eq!(optune::store::read_parquet(&path).unwrap().columns(), batch.columns());
    fs::write(&path, "PAR1").unwrap();
    assert!(optune::store::read_parquet(&path).unwrap_err().to_string().contains("pool.parquet"));
}
