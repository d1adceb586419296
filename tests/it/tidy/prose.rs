//! Comments are plain: few relative pronouns, and lines that fit a narrow window.

use super::tree::Tree;

/// Pronouns that open a relative clause or an indirect question.
const PRONOUNS: [&str; 5] = ["that", "which", "whose", "what", "who"];

/// The most pronouns in a hundred words.
const MOST_PRONOUNS: f64 = 1.8;

/// The most columns of a comment.
const MOST_COLUMNS: usize = 100;

/// The text of a line that holds only a comment.
fn comment(line: &str) -> Option<&str> {
    let text = line.trim_start().strip_prefix("//")?;
    Some(text.strip_prefix(['/', '!']).unwrap_or(text))
}

/// A share of pronouns over the whole tree's limit.
fn pronouns(tree: &Tree) -> Vec<String> {
    let lines = tree.files.iter().flat_map(|file| file.text.lines()).filter_map(comment);
    let words: Vec<&str> =
        lines.flat_map(|line| line.split(|c: char| !c.is_ascii_alphabetic() && c != '\'')).filter(|word| !word.is_empty()).collect();
    let pronouns = words.iter().filter(|word| PRONOUNS.contains(&word.to_ascii_lowercase().as_str())).count();
    let share = 100.0 * pronouns as f64 / words.len().max(1) as f64;
    if share > MOST_PRONOUNS { vec![format!("{share:.1} relative pronouns in 100 words, more than {MOST_PRONOUNS}")] } else { Vec::new() }
}

/// Wide comments. Addresses and rows of tables cannot be broken; lines between ``` are code or
/// diagrams.
fn wide(tree: &Tree) -> Vec<String> {
    let mut found = Vec::new();
    for file in &tree.files {
        let mut fenced = false;
        for (number, line) in file.text.lines().enumerate() {
            let Some(text) = comment(line) else {
                fenced = false;
                continue;
            };
            let fence = text.trim_start().starts_with("```");
            fenced ^= fence;
            let excepted = fenced || fence || text.contains("://") || text.trim_start().starts_with('|');
            if !excepted && line.chars().count() > MOST_COLUMNS {
                found.push(format!(
                    "{}:{}: a comment of {} columns, more than {MOST_COLUMNS}",
                    file.path,
                    number + 1,
                    line.chars().count()
                ));
            }
        }
    }
    found
}

#[test]
fn comments_have_few_relative_pronouns() {
    super::assert_tidy(&pronouns(super::library()));
}

#[test]
fn comments_are_narrow() {
    super::assert_tidy(&wide(super::library()));
}

#[test]
fn planted_pronouns_are_found() {
    let clean = [("lib.rs", "//! One table a file.\nconst THAT: &str = \"that which\"; // that\n")];
    assert!(pronouns(&super::planted::tree(&clean)).is_empty());
    super::assert_one(&pronouns(&super::planted::with(&clean, "lib.rs", "//! A file that is a table.\n")), "16.7 relative pronouns");
}

#[test]
fn planted_wide_comments_are_found() {
    let wide_words = "word ".repeat(30);
    let text = format!(
        "//! https://example.org/{wide_words}\n//! | {wide_words}|\n//! ```text\n//! {wide_words}\n//! ```\nconst A: &str = \"{wide_words}\";\n"
    );
    let clean = [("lib.rs", text.as_str())];
    assert!(wide(&super::planted::tree(&clean)).is_empty());
    super::assert_one(&wide(&super::planted::with(&clean, "lib.rs", &format!("{text}    // {wide_words}\n"))), "lib.rs:7");
}
