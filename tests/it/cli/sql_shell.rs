//! The SQL shell, with its input from a pipe.

use std::io::Write;
use std::process::{Output, Stdio};

use crate::fixtures::workspace::Workspace;

/// The answer of the shell to these lines: on standard output, and on standard error.
fn typed(workspace: &Workspace, lines: &str) -> (String, String) {
    let mut shell = workspace.command(&["sql", "small"]);
    let mut shell = shell.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    shell.stdin.take().unwrap().write_all(lines.as_bytes()).unwrap();
    let Output { status, stdout, stderr } = shell.wait_with_output().unwrap();
    assert!(status.success(), "{}", String::from_utf8_lossy(&stderr));
    (String::from_utf8(stdout).unwrap(), String::from_utf8(stderr).unwrap())
}

#[test]
fn a_query_takes_several_lines_and_ends_with_its_own_semicolon() {
    let workspace = Workspace::finished();
    let (said, wrong) =
        typed(&workspace, "\\format csv\nSELECT ';' AS semicolon,\n  count(*) AS rows -- not yet;\nFROM responses;\nSELECT 1 AS last");
    assert!(said.contains("semicolon,rows\n;,60\n") && said.ends_with("last\n1\n"), "{said}");
    assert_eq!(wrong, "");
}

#[test]
fn tables_views_and_columns_are_described() {
    let workspace = Workspace::finished();
    let (said, wrong) = typed(&workspace, "\\d\n\\d pairs\n\\d reward_by_iteration;\n");
    let line = |name: &str| {
        let line = said.lines().find(|line| line.split_whitespace().next() == Some(name));
        line.unwrap_or_else(|| panic!("{name}: {said}")).split_whitespace().map(String::from).collect::<Vec<_>>()
    };
    assert_eq!(line("responses"), ["responses", "table", "60"]);
    assert_eq!(line("reward_by_iteration"), ["reward_by_iteration", "view", "3"]);
    assert_eq!(line("reward_gap"), ["reward_gap", "Float64", "not", "null"]);
    assert_eq!(line("reward_mean"), ["reward_mean", "Float64"]);
    assert_eq!(wrong, "");
}

#[test]
fn formats_files_and_timing() {
    let workspace = Workspace::finished();
    let (said, wrong) = typed(
        &workspace,
        "\\format json\nSELECT count(*) AS n FROM pool;\n\\format parquet pool.parquet\nSELECT * FROM pool;\n\\format table\n\\timing\nSELECT 1 AS one;\n",
    );
    assert!(said.contains("{\"n\":60}\n") && said.contains("pool.parquet: 60 rows") && said.contains("| one |"), "{said}");
    assert!(said.lines().last().unwrap().ends_with(" s"), "{said}");
    assert_eq!(wrong, "");
    let back = workspace.succeed(&["sql", "small", "SELECT count(*) FROM mine", "--table", "mine=pool.parquet", "--format", "csv"]);
    assert!(back.ends_with("\n60\n"), "{back}");
}

#[test]
fn what_is_wrong_is_said_with_what_was_meant_and_the_shell_goes_on() {
    let workspace = Workspace::finished();
    let (said, wrong) = typed(
        &workspace,
        "SELECT *\nFROM respones;\nSELECT rewad\nFROM rewards;\nSELECT count(* FROM pool;\n\\d respones\n\\format cvs\n\\format parquet\n\\tables\n\
         DROP TABLE pool;\nSELECT 'still here' AS said;\n\\q\nSELECT 'not here' AS said;\n",
    );
    let lines: Vec<&str> = wrong.lines().collect();
    assert!(
        lines[0].contains("table 'respones' not found; did you mean \"responses\"?") && lines[0].contains("Line: 2, Column: 6"),
        "{wrong}"
    );
    assert!(wrong.contains("rewad") && wrong.contains("reward") && wrong.contains("Line: 1, Column: 8"), "{wrong}");
    assert!(wrong.contains("Line: 1, Column: 14") || wrong.contains("Line: 1, Column: 16"), "{wrong}");
    assert!(wrong.contains("\\d respones: no such table; did you mean \"responses\"?"), "{wrong}");
    assert!(wrong.contains("\\format cvs: no such format; did you mean \"csv\"?"), "{wrong}");
    assert!(wrong.contains("expected a file behind it"), "{wrong}");
    assert!(wrong.contains("\\tables: expected a command as below") && wrong.contains("\\timing"), "{wrong}");
    assert!(wrong.contains("expected a query, found"), "{wrong}");
    assert!(said.contains("still here") && !said.contains("not here"), "{said}");
}
