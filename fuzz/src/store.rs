//! The files that a run goes by: manifests, checkpoints, the journal and the others with a seal.
//!
//! The first line says which. Each is read as it is and then with a seal that fits, since no input finds one by chance.

use std::fs;
use std::path::Path;

use optune::dag::fingerprint::Recipe;
use optune::sql::Session;
use optune::store::{OutputKey, Run, Runs};

const TABLE: &str = "manifests/pool.json";
const MODEL: &str = "models/policy/iteration=1/manifest.json";
const JOURNAL: &str = "journal.jsonl";

fn recipe() -> Recipe {
    Recipe { operator: "merge".into(), version: 1, seed: None, settings: Default::default(), inputs: Default::default() }
}

fn fill(folder: &Path) {
    let partial = folder.join(format!("run/.partial/checkpoint-{}-1", recipe().fingerprint()));
    for inner in [folder.join("run/tables/pool"), folder.join("run/manifests"), folder.join("run/models/policy/iteration=1"), partial] {
        fs::create_dir_all(inner).unwrap();
    }
    fs::write(folder.join("run/tables/pool/part-00000.parquet"), "").unwrap();
}

/// A text with its seal: what `begin` and `end` are put around instead of `replaced`.
fn sealed(text: &str, [begin, end, replaced]: [&str; 3], digits: usize) -> String {
    let body = text.strip_suffix(replaced).unwrap_or(text);
    let hash = blake3::hash(body.as_bytes()).to_hex();
    format!("{body}{begin}{}{end}", &hash[..digits])
}

fn sealed_json(text: &str) -> String {
    sealed(text, [",\n  \"seal\": \"", "\"\n}\n", "\n}\n"], 64)
}

/// Reads all that there is of a run.
fn read(run: &Run) {
    let pool = OutputKey::table("pool", None);
    for place in [pool.clone(), OutputKey::model("policy", Some(1))] {
        match run.manifest(&place) {
            Ok(Some(manifest)) => {
                assert!(manifest.missing().len() as u64 <= manifest.part_count);
                let _ = manifest.rows();
                let _ = manifest.recipe.differences_from(&recipe());
                run.state(&place, &manifest.recipe).map(drop).unwrap_or_else(super::said);
            }
            Ok(None) => {}
            Err(error) => super::said(error),
        }
        run.state(&place, &recipe()).map(drop).unwrap_or_else(super::said);
    }
    run.read_table(&pool, None).map(drop).unwrap_or_else(super::said);
    run.read_sources().map(drop).unwrap_or_else(super::said);
    run.pipeline_file().map(drop).unwrap_or_else(super::said);
    run.verify_all().map(drop).unwrap_or_else(super::said);
    match run.journal().read() {
        Ok(events) if !events.is_empty() => match Session::over_run(run) {
            Ok(session) => {
                let rows = session.count("SELECT count(*) FROM journal").unwrap();
                assert_eq!(rows as usize, events.len());
            }
            Err(error) => super::said(error),
        },
        Ok(_) => {}
        Err(error) => super::said(error),
    }
}

/// Puts the file into a run and reads the run.
pub fn store(bytes: &[u8]) {
    let folder = super::folder("store", fill);
    let run = Runs::open(&folder).unwrap().run("run").unwrap();
    let (name, rest) = super::headed(bytes);
    let file = match name.trim() {
        "checkpoint.json" => format!(".partial/checkpoint-{}-1/checkpoint.json", recipe().fingerprint()),
        "journal.jsonl" => JOURNAL.to_string(),
        "sources.json" => "sources.json".to_string(),
        "pipeline.yaml" => "pipeline.yaml".to_string(),
        "model" => MODEL.to_string(),
        _ => TABLE.to_string(),
    };
    let mut contents = vec![rest.to_vec()];
    if let Ok(text) = std::str::from_utf8(rest) {
        contents.push(match file.as_str() {
            JOURNAL => text.lines().map(|line| sealed(line, [",\"seal\":\"", "\"}\n", "}"], 12)).collect::<String>().into_bytes(),
            "pipeline.yaml" => sealed(text, ["\n# seal: ", "\n", "\n"], 64).into_bytes(),
            _ => sealed_json(text).into_bytes(),
        });
    }
    for bytes in contents {
        fs::write(run.folder().join(&file), bytes).unwrap();
        read(&run);
    }
    fs::remove_file(run.folder().join(&file)).unwrap();
}
