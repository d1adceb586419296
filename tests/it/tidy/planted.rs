//! Small source trees in a temporary folder.

use super::tree::Tree;

/// A tree of files with their texts.
pub fn tree(files: &[(&str, &str)]) -> Tree {
    let folder = tempfile::tempdir().unwrap();
    for (path, text) in files {
        let path = folder.path().join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    }
    Tree::read(folder.path())
}

/// The same tree with one text replaced.
pub fn with(files: &[(&str, &str)], path: &str, text: &str) -> Tree {
    let replaced: Vec<(&str, &str)> = files.iter().map(|(own, old)| (*own, if *own == path { text } else { *old })).collect();
    tree(&replaced)
}
