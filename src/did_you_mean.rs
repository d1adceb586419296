//! "did you mean": the nearest of the known words.
//!
//! Knows strings only.

/// The candidate nearest to `word`, if it is near enough: at most a third of its letters are wrong,
/// or `word` is its beginning.
pub(crate) fn nearest<'a>(word: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let limit = (word.chars().count() / 3).max(1);
    let word = word.to_lowercase();
    let cut_short = |candidate: &str| word.len() >= 3 && candidate.starts_with(&word);
    candidates
        .into_iter()
        .map(|candidate| (strsim::damerau_levenshtein(&word, &candidate.to_lowercase()), candidate))
        .filter(|(distance, candidate)| cut_short(candidate) || (*distance <= limit && *distance < candidate.chars().count()))
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, candidate)| candidate)
}

/// `; did you mean "…"?`, or else `; expected a, b or c`, or nothing without candidates.
pub(crate) fn suggestion(word: &str, candidates: &[&str]) -> String {
    match nearest(word, candidates.iter().copied()) {
        Some(near) => format!("; did you mean \"{near}\"?"),
        None if candidates.is_empty() => String::new(),
        None => format!("; expected {}", one_of(candidates)),
    }
}

/// `a`, `a or b`, `a, b or c`.
pub(crate) fn one_of(words: &[&str]) -> String {
    match words {
        [] => String::new(),
        [one] => (*one).to_string(),
        [most @ .., last] => format!("{} or {last}", most.join(", ")),
    }
}
