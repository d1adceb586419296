//! The tests of the pages find planted faults.

use super::markdown::{Block, Page, blocks, repository};
use super::pages::{pipeline_fault, query_fault};
use super::{commands, fragments, links, readme};
use crate::fixtures::workspace::Workspace;

fn page(text: &str) -> Page {
    Page { path: "docs/guide/planted.md".to_string(), text: text.to_string() }
}

fn links_of(text: &str) -> Vec<String> {
    links::faults(&repository(), &page(text))
}

fn commands_of(line: &str) -> Vec<String> {
    commands::faults(&page(&format!("```sh\n{line}\n```\n")))
}

#[track_caller]
fn assert_one(faults: &[String], expected: &str) {
    assert!(faults.len() == 1 && faults[0].contains(expected), "expected one fault with {expected}, found {faults:?}");
}

#[test]
fn a_broken_link_is_found() {
    assert_eq!(links_of("[a](sql.md), [b](../../README.md#install), [c](https://example.com) and `[d](none.md)`"), Vec::<String>::new());
    assert_eq!(links_of("# Two words, `code`\n\n[a](#two-words-code)\n"), Vec::<String>::new());
    assert_one(&links_of("[a](none.md)"), "link to none.md: no such file");
    assert_one(&links_of("<img src=\"none.svg\">"), "none.svg");
    assert_one(&links_of("[a](../../README.md#none)"), "no heading #none");
    assert_one(&links_of("# One\n\n[a](#two)"), "no heading #two");
    assert_one(&links_of("`src/none.rs` and `src/lib.rs`"), "src/none.rs does not exist");
    assert_one(&links_of("`durability/none.rs` and `durability/kills.rs`"), "durability/none.rs does not exist");
}

#[test]
fn an_unknown_command_or_flag_is_found() {
    assert_eq!(commands_of("optune run a.yaml --set 'ratio=0.5' > out.txt  # a comment"), Vec::<String>::new());
    assert_eq!(commands_of("cargo run --release -- sql a \"SELECT 1 > 0\" | head"), Vec::<String>::new());
    assert_one(&commands_of("optune rum a.yaml"), "rum");
    assert_one(&commands_of("optune run a.yaml \\\n  --none"), "--none");
    assert_one(&commands_of("optune run"), "optune run");
    assert_one(&commands_of("cargo run --release -- sql a --format none"), "none");
}

#[test]
fn an_unknown_key_is_found() {
    let node = "iterate:\n  nodes:\n    pairs: { pair: { pool: pool, weight: { kind: linear } }, resources: { device: cpu } }\n";
    assert_eq!(fragments::faults(node), Vec::<String>::new());
    assert_one(&fragments::faults("input: {}\n"), "/input: unknown key");
    assert_one(&fragments::faults(&node.replace("pair:", "pear:")), "/iterate/nodes/pairs/pear: unknown key");
    assert_one(&fragments::faults(&node.replace("pool:", "pol:")), "/iterate/nodes/pairs/pair/pol: unknown key");
    assert_one(&fragments::faults(&node.replace("kind:", "kin:")), "/iterate/nodes/pairs/pair/weight/kin: unknown key");
    assert_one(&fragments::faults(&node.replace("device:", "devise:")), "/iterate/nodes/pairs/resources/devise: unknown key");
    assert_one(&fragments::faults("inputs: { a: { reward: [{ sqll: b.sql }] } }\n"), "sqll");
    assert_one(&fragments::faults("inputs: [\n"), "no YAML");
}

#[test]
fn an_invalid_pipeline_file_is_found() {
    let text = std::fs::read_to_string(repository().join("pipelines/quickstart.yaml")).unwrap();
    // Pages are read as if they were files of the root.
    let text = text.replace("folder: ..", "folder: .");
    assert_eq!(pipeline_fault("quickstart", &text), None);
    assert!(pipeline_fault("quickstart", &text.replace("seed:", "sed:")).is_some_and(|fault| fault.contains("sed")));
    assert!(
        pipeline_fault("quickstart", &text.replace("train.parquet", "none.parquet")).is_some_and(|fault| fault.contains("none.parquet"))
    );
}

#[test]
fn an_invalid_query_is_found() {
    let workspace = Workspace::finished();
    assert_eq!(query_fault(&workspace, "a", "SELECT count(*) FROM pairs"), None);
    assert!(query_fault(&workspace, "a", "SELECT count(*) FROM pears").is_some_and(|fault| fault.contains("pears")));
}

#[test]
fn a_long_readme_is_found() {
    assert_eq!(readme::faults("# A title\n\nTwo words. Three words more.\n"), Vec::<String>::new());
    assert_one(&readme::faults(&"\n".repeat(151)), "151 lines");
    assert_one(&readme::faults(&"Two words. ".repeat(601)), "1202 words");
    assert_one(&readme::faults(&"word ".repeat(16)), "16 words in the median sentence");
}

#[test]
fn blocks_have_their_kinds_and_lines() {
    let block = |kind: &str, line, text: &str| Block { kind: kind.to_string(), line, text: text.to_string() };
    let text = "A\n```sh\noptune\n```\n```yaml fragment\na: 1\n```\n";
    assert_eq!(blocks(text), [block("sh", 2, "optune\n"), block("yaml fragment", 5, "a: 1\n")]);
}
