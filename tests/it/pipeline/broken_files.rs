//! Broken pipeline files: the error and its place, for every file of `tests/broken`.

use std::fs;
use std::path::Path;

use optune::pipeline::Pipeline;

use crate::fixtures::pipeline_folder::{broken_files, folder};

/// The first line of each file in `tests/broken` holds its error: `# line:column message`.
/// An error without a place has the form `# message`.
#[test]
fn broken_files_are_told_what_is_wrong_and_where() {
    let folder = folder();
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/broken");
    let paths = broken_files();
    assert!(paths.len() >= 207, "only {} broken files", paths.len());
    let mut wrong = String::new();
    for path in paths {
        let name = path.strip_prefix(&root).unwrap().display().to_string();
        let is_in_a_group = path.parent().and_then(Path::parent) == Some(root.as_path());
        assert!(is_in_a_group && name.ends_with(".yaml"), "{name}: expected a file tests/broken/<key>/<name>.yaml");
        let text = fs::read_to_string(&path).unwrap();
        let expected = text.lines().next().and_then(|line| line.strip_prefix("# "));
        let expected = expected.unwrap_or_else(|| panic!("{name}: expected its error in the first line, as a comment"));
        let found = match Pipeline::load(&path, &[]).and_then(|pipeline| pipeline.graph(folder.path())) {
            Ok(_) => "no error".to_string(),
            Err(error) if error.span().line == 0 => error.message().to_string(),
            Err(error) => format!("{}:{} {}", error.span().line, error.span().column, error.message()),
        };
        if found != expected {
            wrong += &format!("{name}\n  expected {expected}\n  found    {found}\n");
        }
    }
    assert!(wrong.is_empty(), "\n{wrong}");
}
