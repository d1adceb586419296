//! Every page: links, pipeline files, commands, queries, and the limits of the README.

use std::path::Path;

use optune::pipeline::Pipeline;

use super::markdown::{Page, blocks, pages, repository};
use super::{commands, fragments, links, readme};
use crate::fixtures::workspace::Workspace;

fn assert_none(faults: &[String]) {
    assert!(faults.is_empty(), "\n{}", faults.join("\n"));
}

#[test]
fn links_and_named_files_exist() {
    let faults: Vec<String> = pages().iter().flat_map(|page| links::faults(&repository(), page)).collect();
    assert_none(&faults);
}

#[test]
fn shown_commands_are_known_to_the_program() {
    let pages = pages();
    let count: usize = pages.iter().map(|page| commands::commands(page).len()).sum();
    assert!(count >= 30, "only {count} commands were found");
    let faults: Vec<String> = pages.iter().flat_map(commands::faults).collect();
    assert_none(&faults);
}

#[test]
fn shown_pipeline_files_are_valid() {
    let mut faults = Vec::new();
    let mut count = 0;
    for page in pages() {
        for block in blocks(&page.text) {
            let name = format!("{}:{}", page.path, block.line);
            let found = match block.kind.as_str() {
                "yaml" => pipeline_fault(&name, &block.text).into_iter().collect(),
                "yaml fragment" => fragments::faults(&block.text),
                _ => continue,
            };
            count += 1;
            faults.extend(found.iter().map(|fault| format!("{name}: {fault}")));
        }
    }
    assert!(count >= 10, "only {count} blocks were found");
    assert_none(&faults);
}

/// The error of a whole pipeline file, with its paths relative to the root of the repository.
pub fn pipeline_fault(name: &str, text: &str) -> Option<String> {
    Pipeline::read(name, text, &[]).and_then(|pipeline| pipeline.graph(&repository())).err().map(|error| error.to_string())
}

/// The small pipeline has the quickstart's tables, and runs in a second.
#[test]
fn shown_queries_run() {
    let workspace = Workspace::new();
    workspace.succeed(&["run", "pipeline.yaml"]);
    let queries: Vec<(String, String)> = pages().iter().flat_map(queries).collect();
    assert!(queries.len() >= 8, "only {} queries were found", queries.len());
    let faults: Vec<String> = queries.iter().filter_map(|(name, query)| query_fault(&workspace, name, query)).collect();
    assert_none(&faults);
}

/// The `sql` blocks of a page, and the queries of `optune sql quickstart QUERY`.
fn queries(page: &Page) -> Vec<(String, String)> {
    let shown = blocks(&page.text).into_iter().filter(|block| block.kind == "sql");
    let shown = shown.map(|block| (format!("{}:{}", page.path, block.line), block.text));
    let asked = commands::commands(page).into_iter().filter_map(|(line, words)| match words.as_slice() {
        [sql, run, query] if sql == "sql" && run == "quickstart" && !query.starts_with('-') => {
            Some((format!("{}:{line}", page.path), query.clone()))
        }
        _ => None,
    });
    shown.chain(asked).collect()
}

/// The error of a query to the finished run of `workspace`.
pub fn query_fault(workspace: &Workspace, name: &str, query: &str) -> Option<String> {
    let output = workspace.optune(&["sql", "small", query]);
    (!output.status.success()).then(|| format!("{name}: {}", String::from_utf8_lossy(&output.stderr).trim_end()))
}

#[test]
fn the_readme_is_short() {
    let text = std::fs::read_to_string(repository().join(Path::new("README.md"))).unwrap();
    assert_none(&readme::faults(&text));
}
