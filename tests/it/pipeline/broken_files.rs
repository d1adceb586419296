//! Broken pipeline files: the error and its place, for every file of `tests/broken`.

/// Each file of `tests/broken` says in its first line what it is told: `# line:column message`, or `# message` where no place is to blame.
#[test]
fn broken_files_are_told_what_is_wrong_and_where() {
    let folder = folder();
    let broken = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/broken");
    let mut paths: Vec<_> = fs::read_dir(broken).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    assert!(paths.len() >= 30, "only {} broken files", paths.len());
    let mut wrong = String::new();
    for path in paths {
        let text = fs::read_to_string(&path).unwrap();
        let expected = text.lines().next().and_then(|line| line.strip_prefix("# ")).unwrap();
        let found = match Pipeline::load(&path, &[]).and_then(|pipeline| pipeline.graph(folder.path())) {
            Ok(_) => "no error".to_string(),
            Err(error) if error.span.line == 0 => error.message,
            Err(error) => format!("{}:{} {}", error.span.line, error.span.column, error.message),
        };
        if found != expected {
            wrong += &format!("{}\n  expected {expected}\n  found    {found}\n", path.file_name().unwrap().display());
        }
    }
    assert!(wrong.is_empty(), "\n{wrong}");
}
