//! The tokens of a statement, its words, and tokens as text.
//!
//! Knows no statements.

use sqlparser::dialect::GenericDialect;
use sqlparser::tokenizer::{Token, Tokenizer};

/// The tokens of a statement without spaces and comments; texts as they were written.
pub(super) fn tokens(text: &str) -> Option<Vec<Token>> {
    let tokens = Tokenizer::new(&GenericDialect {}, text).with_unescape(false).tokenize().ok()?;
    Some(tokens.into_iter().filter(|token| !matches!(token, Token::Whitespace(_))).collect())
}

/// Tokens as text.
pub(super) fn written(tokens: &[Token]) -> String {
    let has_spaces = tokens.iter().any(|token| matches!(token, Token::Whitespace(_)));
    let texts: Vec<String> = tokens.iter().map(Token::to_string).collect();
    if has_spaces { texts.concat() } else { texts.join(" ") }
}

/// A word in capitals; nothing for another token.
pub(super) fn word(token: Option<&Token>) -> String {
    match token {
        Some(Token::Word(word)) if word.quote_style.is_none() => word.value.to_ascii_uppercase(),
        _ => String::new(),
    }
}
