//! Files that change while a run reads them.

use std::fs;

use optune::operators::Silent;
use optune::pipeline::Pipeline;
use optune::run;
use optune::store::Runs;

use crate::fixtures::workspace::Workspace;

#[test]
fn a_file_that_changes_after_its_hash_ends_the_run() {
    let workspace = Workspace::new();
    let text = "optune: 1\nname: small\ninputs:\n  data: { table: [a.csv, b.csv] }\nnodes:\n  sums: { sql: { query: SELECT sum(n) AS total FROM data } }\n";
    workspace.write("pipeline.yaml", text);
    let before = ["n\n1\n2\n", "n\n3\n4\n"];
    let attempt = |changed: Option<&str>| -> Result<(), String> {
        workspace.write("a.csv", before[0]);
        workspace.write("b.csv", before[1]);
        let graph = Pipeline::load(&workspace.path("pipeline.yaml"), &[]).unwrap().graph(&workspace.path("")).unwrap();
        let run = Runs::open(workspace.path("runs")).unwrap().run(&graph.name).unwrap();
        let fetched = run::fetch(graph, &run, &|| false, &Silent).map_err(|error| error.to_string())?;
        let prepared = run::prepare(fetched, &mut run::FileHashes::default()).map_err(|error| error.to_string())?;
        if let Some(text) = changed {
            workspace.write("b.csv", text);
        }
        let lock = crate::fixtures::store::locked(&run).unwrap();
        run::execute(&lock, &prepared, None, &|| false, &Silent).map(drop).map_err(|error| error.to_string())
    };
    // Of another length, and of the same.
    for changed in ["n\n3\n4\n5\n", "n\n3\n5\n"] {
        let error = attempt(Some(changed)).unwrap_err();
        assert!(error.contains("b.csv: expected the same content as at the beginning of the run (blake3 "), "{error}");
        assert!(!workspace.path("runs/small/manifests/data.json").exists(), "no rows of {changed:?} are stored");
    }
    attempt(None).unwrap();
    assert!(fs::exists(workspace.path("runs/small/manifests/data.json")).unwrap());
    assert_eq!(workspace.query("small", "SELECT total FROM sums"), "10");
}
