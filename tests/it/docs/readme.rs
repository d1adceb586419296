//! The limits of the README: a front page is short.

use super::markdown::prose;

/// The most lines of the README.
const LINES: usize = 150;
/// The most words, blocks included.
const WORDS: usize = 1_200;
/// The most words in the median sentence.
const SENTENCE: usize = 15;

/// Every limit that the text exceeds.
pub fn faults(text: &str) -> Vec<String> {
    let median = median_sentence(text);
    let limits = [
        ("lines", text.lines().count(), LINES),
        ("words", text.split_whitespace().count(), WORDS),
        ("words in the median sentence", median, SENTENCE),
    ];
    let exceeded = limits.into_iter().filter(|(_, found, limit)| found > limit);
    exceeded.map(|(what, found, limit)| format!("{found} {what}, expected at most {limit}")).collect()
}

/// The words of the median sentence. Headings, tables and HTML have no sentences. An empty line or a
/// point of a list ends one.
fn median_sentence(text: &str) -> usize {
    let mut lengths = Vec::new();
    let mut words = 0;
    for line in prose(text).lines().map(str::trim) {
        let is_prose = !line.is_empty() && !line.starts_with(['#', '|', '<']);
        if !is_prose || line.starts_with("- ") {
            lengths.push(std::mem::take(&mut words));
        }
        if !is_prose {
            continue;
        }
        for word in line.trim_start_matches("- ").split_whitespace() {
            words += 1;
            if word.trim_end_matches(['*', ')', '"', '`']).ends_with(['.', '!', '?', ':']) {
                lengths.push(std::mem::take(&mut words));
            }
        }
    }
    lengths.push(words);
    lengths.retain(|length| *length > 0);
    lengths.sort_unstable();
    lengths.get(lengths.len() / 2).copied().unwrap_or_default()
}
