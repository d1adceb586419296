//! Less memory and less disk than would be comfortable: said before anything is begun, or the same
//! result in smaller pieces.

use std::io;
use std::path::Path;
use std::sync::Arc;

use optune::disk::{self, Operation, Watcher};
use optune::model::Checkpoint;

use crate::fixtures::store::Space;
use crate::fixtures::workspace::{Workspace, result};

/// The bytes that the estimate of training counts beside the model.
const WORKING_BYTES: u64 = 256 << 20;

fn shape(workspace: &Workspace) -> Checkpoint {
    Checkpoint::open_blank(&workspace.path("shape")).unwrap()
}

/// Gives every node with a model so much memory.
fn limit(workspace: &Workspace, bytes: u64) {
    let gigabytes = format!("memory_gb: {}", bytes as f64 / 1e9);
    for setting in ["checkpoint_every: 2", "rows_per_part: 4"] {
        workspace.edit("pipeline.yaml", setting, &format!("{setting}, {gigabytes}"));
    }
}

#[test]
fn a_model_that_does_not_fit_is_refused_before_anything_with_the_arithmetic() {
    let workspace = Workspace::new();
    limit(&workspace, WORKING_BYTES);
    let said = workspace.fail(&["run", "pipeline.yaml"], 2);
    let parameters = shape(&workspace).parameter_count();
    for expected in [
        "line 11: base: needs at least 272 MB".to_string(),
        format!("1 MB for {parameters} parameters, 4 bytes each"),
        format!("3 MB for gradient and optimizer state of {parameters} trained numbers, 12 bytes each"),
        "found 268 MB (resources: memory_gb)".to_string(),
        "train an adapter (lora: {}), or with rmsprop, or give it more memory".to_string(),
    ] {
        assert!(said.contains(&expected), "{said}");
    }
    assert!(!workspace.path("runs/small/tables").exists());
}

#[test]
fn with_little_memory_less_goes_through_the_model_at_once_and_the_bytes_are_the_same() {
    let (whole, small) = (Workspace::new(), Workspace::new());
    let checkpoint = shape(&small);
    let model = 16 * checkpoint.parameter_count() as u64;
    // Some thirty tokens of activations: one demonstration or pair of this pipeline, and not two.
    limit(&small, WORKING_BYTES + model + 30 * checkpoint.config.kept_bytes_per_token(false));
    whole.succeed(&["run", "pipeline.yaml"]);
    let output = small.optune(&["run", "pipeline.yaml"]);
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
    assert!(said.contains("8 at a time would need") && said.contains("1 at a time, with the same result"), "{said}");
    let without_settings = |workspace: &Workspace| {
        let mut result = workspace.result("small");
        result.remove("pipeline.yaml");
        result
    };
    assert!(without_settings(&whole) == without_settings(&small));
}

/// A disk with so much room.
struct Room(u64);

impl Watcher for Room {
    fn operate(&self, _: Operation, act: &mut dyn FnMut() -> io::Result<()>) -> io::Result<()> {
        act()
    }

    fn room(&self) -> Option<u64> {
        Some(self.0)
    }
}

#[test]
fn without_room_for_a_model_and_its_checkpoints_training_does_not_begin() {
    let (workspace, space) = (Workspace::new(), Space::new());
    let run = |room: Option<u64>| {
        let _watch = room.map(|room| disk::watch(space.path(), Arc::new(Room(room))));
        workspace.run_here(space.runs().root())
    };
    let parameters = shape(&workspace).parameter_count() as u64;
    // Two checkpoints of weights and two moments; one, and the model beside it, is less.
    let needed = 2 * 3 * 4 * parameters;
    let said = run(Some(needed - 1)).unwrap_err();
    let base =
        format!("base: {}: needs room for 6 MB: 6 MB for checkpoints with the optimizer's state", space.run("small").folder().display());
    assert!(said.contains(&base) && said.contains("free space there and run the same command again"), "{said}");
    assert!(!Path::new(&space.run("small").folder().join("models/base")).exists());
    run(Some(needed)).unwrap();
    let whole = Workspace::new();
    whole.succeed(&["run", "pipeline.yaml"]);
    assert!(result(space.run("small").folder()) == whole.result("small"));
}
