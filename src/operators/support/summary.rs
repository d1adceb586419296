//! The summary of a finished operator.

/// The result of a finished operator, for people.
#[derive(Clone, Debug)]
pub struct Summary {
    /// A few words.
    pub text: String,
    /// Tokens generated or trained on by this call; 0 for relational operators.
    pub tokens: u64,
}

impl Summary {
    pub(in crate::operators) fn new(text: String) -> Self {
        Self { text, tokens: 0 }
    }
}
