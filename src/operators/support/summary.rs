//! The summary of a finished operator.

/// The result of a finished operator, for people.
#[derive(Clone, Debug)]
pub struct Summary {
    /// A few words.
    pub text: String,
    /// Tokens generated or trained on by this call; 0 for relational operators.
    pub tokens: u64,
}

/// A number with three digits behind the point, and no `-0.000`.
pub(in crate::operators) fn rounded(number: f64) -> String {
    let text = format!("{number:.3}");
    if text == "-0.000" { "0.000".to_string() } else { text }
}

impl Summary {
    pub(in crate::operators) fn new(text: String) -> Self {
        Self { text, tokens: 0 }
    }
}
