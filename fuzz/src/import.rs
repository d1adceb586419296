//! A table from outside, in any format and read as anything.
//!
//! The first line says the format (the file's extension), what the rows are read as, and the dataset format, as `jsonl preferences sharegpt`; each may be
//! left out.

use std::fs;
use std::path::Path;

use optune::import::import as read;
use optune::pipeline::Pipeline;

const FORMATS: [&str; 5] = ["jsonl", "json", "csv", "arrow", "parquet"];
const DATASET_FORMATS: [&str; 6] = ["rows", "trl", "sharegpt", "alpaca", "ultrafeedback", "rlhflow"];
/// What a table can be read as, and a node that does.
const USES: [(&str, &str); 4] = [
    ("prompts", "generate: { policy: base, prompts: data }"),
    ("demonstrations", "sft: { from: base, demonstrations: data }"),
    ("preferences", "train: { from: base, reference: base, pairs: data }"),
    ("query", "sql: { query: select * from data }"),
];

fn fill(folder: &Path) {
    fs::create_dir(folder.join("base")).unwrap();
    fs::write(folder.join("base/config.json"), "{}").unwrap();
}

/// Reads the table.
pub fn import(bytes: &[u8]) {
    let (line, file) = super::headed(bytes);
    let words: Vec<&str> = line.split_whitespace().collect();
    let format = FORMATS.into_iter().find(|format| words.contains(format)).unwrap_or(FORMATS[0]);
    let (_, node) = USES.into_iter().find(|(name, _)| words.contains(name)).unwrap_or(USES[0]);
    let shape =
        DATASET_FORMATS.into_iter().find(|shape| words.contains(shape)).map_or(String::new(), |shape| format!(", dataset_format: {shape}"));
    let folder = super::folder("import", fill);
    fs::write(folder.join(format!("data.{format}")), file).unwrap();
    let text = format!(
        "optune: 1\nname: x\ninputs:\n  data: {{ table: data.{format}{shape} }}\n  base: {{ model: base }}\nnodes:\n  node: {{ {node} }}\n"
    );
    let graph = Pipeline::read("x.yaml", &text, &[]).and_then(|pipeline| pipeline.graph(&folder)).unwrap();
    match read(&graph, 0) {
        Ok(imported) => {
            let schema = imported.schema();
            assert!(imported.batches.iter().all(|batch| batch.schema() == schema), "batches differ in their columns");
        }
        Err(error) => super::said(error),
    }
}
