//! A kill after every single operation of the store, power cuts, full and failing disks. Then a new
//! process does the same work again.

use std::collections::BTreeMap;

use optune::store::{Event, EventKind, OutputKey, OutputKind, State, StoreError};
use optune::tables::TableKind;

use crate::fixtures::disk::{ENOSPC, Fault, Replay, Simulation, misfortune, seeds, stop_after};
use crate::fixtures::rows::Draw;
use crate::fixtures::store::{INPUT_ROWS, PART_ROWS, Space, locked, make_model, make_table, part, recipe, rows_of, snapshot, write};
use arrow::array::RecordBatch;
use optune::store::RunLock;
use optune::tables::pool;
use std::fs;

const TABLE: &str = "pool";
const MODEL: &str = "policy";

/// A whole run: a table with a recipe changed halfway, a table adopted from another run, and a
/// model with checkpoints in the place of an older one.
fn work(space: &Space) -> Result<(), StoreError> {
    let lock = locked(&space.run("run"))?;
    let table = OutputKey::table(TABLE, Some(1));
    if wanted(&lock, &table, 0.7)? {
        make_table(&lock, &table, 0.7, 9)?;
    }
    let adopted = OutputKey::table("adopted", Some(1));
    if wanted(&lock, &adopted, 0.5)? {
        make_table(&lock, &adopted, 0.5, 9)?;
    }
    let model = OutputKey::model(MODEL, Some(1));
    if wanted(&lock, &model, 0.9)? {
        let fingerprint = recipe(0.9).fingerprint();
        let begun = lock.checkpoints().latest(&model, &fingerprint)?.0.map_or(0, |checkpoint| checkpoint.done);
        for done in begun + 1..=2 {
            lock.checkpoints().commit(&model, &fingerprint, done, 3, |dir| write(&dir.join("weights"), &[done as u8; 64]))?;
        }
        make_model(&lock, &model, 0.9)?;
    }
    lock.record(Event::new(EventKind::NodeDone, MODEL, Some(1)))
}

/// Whether the output is still to be made, after the cache was asked.
fn wanted(lock: &RunLock, place: &OutputKey, ratio: f64) -> Result<bool, StoreError> {
    assert!(lock.quarantine().verify(place)?.is_empty(), "a kill damages nothing");
    match lock.state(place, &recipe(ratio))? {
        State::Complete => Ok(false),
        State::Cached => lock.cache().adopt(place, &recipe(ratio).fingerprint()).map(|(adopted, _)| !adopted),
        State::Partial { .. } | State::Stale { .. } | State::Absent => Ok(true),
    }
}

/// The outputs of earlier processes: a finished table in another run, an unfinished one of an old
/// recipe and an old model in this run.
fn before(space: &Space) {
    make_table(&space.lock("other"), &OutputKey::table("any", None), 0.5, 9).unwrap();
    let lock = space.lock("run");
    make_table(&lock, &OutputKey::table(TABLE, Some(1)), 0.6, 2).unwrap();
    make_model(&lock, &OutputKey::model(MODEL, Some(1)), 0.8).unwrap();
}

/// The bytes of the outputs. The promise is about them.
fn outputs(space: &Space) -> BTreeMap<String, Vec<u8>> {
    let folder = space.run("run").folder().to_path_buf();
    let mut files = snapshot(&folder.join("tables"));
    files.extend(snapshot(&folder.join("manifests")).into_iter().map(|(name, bytes)| (format!("manifests/{name}"), bytes)));
    files.extend(snapshot(&folder.join("models")).into_iter().map(|(name, bytes)| (format!("models/{name}"), bytes)));
    files
}

/// The outputs of the work without a disturbance, and the number of its disk operations.
fn undisturbed() -> (BTreeMap<String, Vec<u8>>, u64) {
    let space = Space::new();
    before(&space);
    let simulation = Simulation::new(space.path(), Fault::None, 0, 0);
    simulation.run(|| work(&space)).unwrap();
    (outputs(&space), simulation.operations())
}

/// Every file of a finished output is in a manifest, nothing is in flight, and the cache has whole
/// entries only.
fn tidy(space: &Space) {
    let run = space.run("run");
    for (place, manifest) in run.manifests().unwrap() {
        // The manifest of a table is beside its folder, that of a model in it.
        let listed = manifest.parts.len() + manifest.files.len() + usize::from(place.kind == OutputKind::Model);
        assert_eq!(snapshot(&run.path(&place)).len(), listed, "{place}");
    }
    for folder in [".partial", "quarantine"] {
        let left: Vec<String> = snapshot(&run.folder().join(folder)).into_keys().collect();
        assert_eq!(left, [""; 0], "in {folder}");
    }
    for ratio in [0.5, 0.7, 0.8, 0.9] {
        let place = if ratio < 0.75 { OutputKey::table("x", None) } else { OutputKey::model("x", None) };
        let lock = space.lock("check");
        assert!(lock.cache().adopt(&place, &recipe(ratio).fingerprint()).unwrap().0, "{ratio} is in the cache");
    }
}

#[test]
fn killed_after_any_step_and_run_again_it_ends_in_the_same_bytes() {
    let reference = Space::new();
    before(&reference);
    work(&reference).unwrap();
    let expected = outputs(&reference);
    assert_eq!(expected.len(), 3 + 3 + 2 + 3);
    tidy(&reference);

    let mut steps = 0;
    loop {
        let space = Space::new();
        before(&space);
        let (result, stopped) = stop_after(space.path(), steps, || work(&space));
        assert_eq!(result.is_err(), stopped, "step {steps}: {result:?}");
        // Quarantined work is never lost, at any place of the kill.
        let run = space.run("run");
        let table = OutputKey::table(TABLE, Some(1));
        assert_eq!(run.state(&table, &recipe(0.6)).unwrap(), State::Partial { done: 2, of: 3 }, "step {steps}");
        work(&space).unwrap_or_else(|error| panic!("step {steps}: {error}"));
        assert_eq!(outputs(&space), expected, "step {steps}");
        tidy(&space);
        assert_eq!(rows_of(&run.read_table(&table, Some(TableKind::Pool)).unwrap()), 20);
        if !stopped {
            break;
        }
        steps += 1;
    }
    assert!(steps > 100, "only {steps} steps were tried");
}

#[test]
fn after_kills_power_cuts_and_errors_of_the_disk_it_ends_in_the_same_bytes() {
    let (expected, operations) = undisturbed();
    for seed in seeds(300) {
        let _replay = Replay(seed);
        let mut random = Draw(seed);
        let mut space = Space::new();
        before(&space);
        let mut story = Vec::new();
        // Several disturbances on the way to one result: resumed processes are disturbed too.
        for _ in 0..=random.below(3) {
            let (simulation, fault) = misfortune(space.path(), operations, &mut random);
            let result = simulation.run(|| work(&space));
            assert!(result.is_ok() || simulation.failed().is_some(), "{story:?}: {result:?}");
            let is_power_cut = random.chance();
            story.push(format!("{fault:?} at {:?}, power cut: {is_power_cut}", simulation.failed()));
            if is_power_cut {
                space = simulation.left();
            }
        }
        let aside = space.run("run").state(&OutputKey::table(TABLE, Some(1)), &recipe(0.6));
        assert_eq!(aside.unwrap(), State::Partial { done: 2, of: 3 }, "{story:#?}");
        work(&space).unwrap_or_else(|error| panic!("{error}, after {story:#?}"));
        assert!(outputs(&space) == expected, "after {story:#?}");
        tidy(&space);
        let verified = space.run("run").verify_all();
        assert!(verified.is_ok_and(|verified| verified.damaged.len() == 1), "only the pipeline's file, which this work does not write");
    }
}

#[test]
fn a_full_disk_at_any_operation_is_said_and_the_next_process_goes_on() {
    let (expected, operations) = undisturbed();
    let mut refused = 0;
    for at in 0..operations {
        for lasting in [false, true] {
            let space = Space::new();
            before(&space);
            let simulation = Simulation::new(space.path(), Fault::Fail { error: ENOSPC, lasting }, at, at);
            if let Err(error) = simulation.run(|| work(&space)) {
                refused += 1;
                let text = error.to_string();
                assert!(text.contains("free space there and run the same command again"), "{:?}: {text}", simulation.failed());
                assert!(text.contains(&space.path().display().to_string()), "{text}");
            }
            work(&space).unwrap_or_else(|error| panic!("{:?}: {error}", simulation.failed()));
            assert!(outputs(&space) == expected, "{:?}", simulation.failed());
            tidy(&space);
        }
    }
    assert!(refused > 200, "only {refused} were refused");
}

#[test]
fn a_power_cut_loses_at_most_the_part_in_hand() {
    let place = OutputKey::table(TABLE, None);
    for seed in seeds(200) {
        let _replay = Replay(seed);
        let mut random = Draw(seed);
        let mut space = Space::new();
        let mut committed = 0;
        for _ in 0..4 {
            let (simulation, _) = misfortune(space.path(), 60, &mut random);
            simulation
                .run(|| {
                    let lock = locked(&space.run("run"))?;
                    let mut writer = lock.write_table(&place, &recipe(0.5), Some(TableKind::Pool), INPUT_ROWS, PART_ROWS)?;
                    for index in writer.missing() {
                        writer.commit(index, &part(0.5, index))?;
                        committed = index + 1;
                    }
                    Ok::<(), StoreError>(())
                })
                .ok();
            space = simulation.left();
            let lock = space.lock("run");
            let writer = lock.write_table(&place, &recipe(0.5), Some(TableKind::Pool), INPUT_ROWS, PART_ROWS).unwrap();
            assert!(writer.missing().iter().all(|index| *index >= committed), "{:?}, {committed} were committed", writer.missing());
            assert_eq!(writer.quarantined(), [], "a power cut damages nothing");
        }
    }
}

#[test]
fn a_kill_loses_at_most_the_part_in_hand() {
    for steps in 0.. {
        let space = Space::new();
        let place = OutputKey::table(TABLE, None);
        make_table(&space.lock("run"), &place, 0.5, 1).unwrap();
        let (_, stopped) = stop_after(space.path(), steps, || make_table(&locked(&space.run("run"))?, &place, 0.5, 1));
        let made = make_table(&space.lock("run"), &place, 0.5, 9).unwrap();
        assert!(made == [1, 2] || made == [2], "step {steps}: {made:?}");
        if !stopped {
            assert_eq!(made, [2]);
            break;
        }
    }
}

/// The simulation finds errors: a store without flushes of files, or of folders, does not pass.
#[test]
fn a_disk_that_lies_about_flushing_loses_what_was_committed() {
    for about_folders in [false, true] {
        let lost = (0..20).filter(|seed| {
            let space = Space::new();
            let simulation = Simulation::new(space.path(), Fault::None, 0, *seed);
            simulation.lie(about_folders);
            let place = OutputKey::table(TABLE, None);
            simulation.run(|| make_table(&space.lock("run"), &place, 0.5, 9)).unwrap();
            simulation.left().run("run").read_table(&place, Some(TableKind::Pool)).is_err()
        });
        assert!(lost.count() > 3, "folders: {about_folders}");
    }
}

#[test]
fn two_runs_may_publish_the_same_at_once() {
    let space = Space::new();
    let place = OutputKey::table(TABLE, None);
    std::thread::scope(|scope| {
        for name in ["one", "two", "three", "four"] {
            let (space, place) = (&space, &place);
            scope.spawn(move || make_table(&space.lock(name), place, 0.5, 9).unwrap());
        }
    });
    for name in ["one", "two", "three", "four"] {
        assert_eq!(space.run(name).state(&place, &recipe(0.5)).unwrap(), State::Complete);
        space.run(name).read_table(&place, Some(TableKind::Pool)).unwrap();
    }
    let mut names: Vec<String> =
        fs::read_dir(space.runs().root().join(".cache")).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    assert_eq!(names, [recipe(0.5).fingerprint().to_string(), "lock".to_string()]);
}

#[test]
fn a_part_that_is_replaced_is_the_old_one_or_the_new_one_at_every_step() {
    let place = OutputKey::table(TABLE, None);
    // The part of another recipe stands for the same rows, asked again.
    let replace = |space: &Space, times: usize| {
        let lock = locked(&space.run("run"))?;
        let mut writer = lock.write_table(&place, &recipe(0.5), Some(TableKind::Pool), INPUT_ROWS, PART_ROWS)?;
        (0..times).try_for_each(|time| writer.replace(1, &part(0.6 + time as f64 / 10.0, 1)))
    };
    for times in 1..=2 {
        let [old, new] = [0.5, 0.5 + times as f64 / 10.0].map(|ratio| part(ratio, 1));
        for steps in 0.. {
            let space = Space::new();
            make_table(&space.lock("run"), &place, 0.5, 2).unwrap();
            let (_, stopped) = stop_after(space.path(), steps, || replace(&space, times));
            let lock = space.lock("run");
            assert!(lock.quarantine().verify(&place).unwrap().is_empty(), "a kill damages nothing");
            let writer = lock.write_table(&place, &recipe(0.5), Some(TableKind::Pool), INPUT_ROWS, PART_ROWS).unwrap();
            assert!(writer.quarantined().is_empty() && writer.missing() == [2], "step {steps}");
            let there = writer.committed_part(1).unwrap().unwrap();
            let between = times == 2 && pool::rows(&there).unwrap() == pool::rows(&part(0.6, 1)).unwrap();
            let is = |batch: &RecordBatch| pool::rows(&there).unwrap() == pool::rows(batch).unwrap();
            assert!(is(&old) || is(&new) || between, "step {steps}");
            assert_eq!(snapshot(&lock.path(&place)).len(), 2, "step {steps}: two parts");
            drop(writer);
            drop(lock);
            replace(&space, times).unwrap();
            assert_eq!(make_table(&space.lock("run"), &place, 0.5, 9).unwrap(), [2]);
            let table = space.run("run").read_table(&place, Some(TableKind::Pool)).unwrap();
            assert_eq!(pool::rows(&table[1]).unwrap(), pool::rows(&new).unwrap());
            if !stopped {
                assert!(is(&new));
                break;
            }
        }
    }
}
