//! `optune report`: one HTML file that loads nothing, says what the tables say, and shows a run's texts as texts.

use crate::workspace::Workspace;

/// The report of some runs.
fn report(workspace: &Workspace, runs: &[&str]) -> String {
    workspace.succeed(&[&["report"], runs, &["--output", "report.html"]].concat());
    std::fs::read_to_string(workspace.path("report.html")).unwrap()
}

#[test]
fn a_report_of_the_small_run_is_one_file_with_the_same_bytes_twice() {
    let workspace = Workspace::new();
    workspace.succeed(&["run", "pipeline.yaml"]);
    let page = report(&workspace, &["small"]);
    assert_eq!(page, report(&workspace, &["small"]));
    assert!(page.len() < 1_000_000, "{} bytes", page.len());
}
