//! A condition of a user's, as written after WHERE, checked to be one expression and no more.
//!
//! Knows SQL's grammar through the engine's parser. Knows nothing of the tables.

use std::collections::BTreeSet;
use std::ops::ControlFlow;

use sqlparser::ast::{Expr, Visit, Visitor};
use sqlparser::dialect::GenericDialect;
use sqlparser::parser::Parser;
use sqlparser::tokenizer::Token;

use crate::store::StoreError;

/// The longest condition in bytes.
const MOST_BYTES: usize = 16 << 10;

/// One expression.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Condition {
    /// Its text, in the parser's spelling: without comments, and with balanced parentheses.
    pub text: String,
    /// The last parts of all names in it, in lower case where they are not quoted.
    pub names: BTreeSet<String>,
}

impl Condition {
    /// Parses the text.
    ///
    /// # Errors
    /// The text is not one expression: not SQL, a statement, or several.
    pub fn parse(text: &str) -> Result<Self, StoreError> {
        let wrong = |problem: String| StoreError::Sql {
            message: format!("expected a condition as after WHERE, such as reward < 0.5 AND selected, found {problem}"),
        };
        if text.len() > MOST_BYTES {
            return Err(wrong(format!("a text of {} bytes, more than {MOST_BYTES}", text.len())));
        }
        let mut parser = Parser::new(&GenericDialect {}).try_with_sql(text).map_err(|error| wrong(error.to_string()))?;
        let expression = parser.parse_expr().map_err(|error| wrong(error.to_string()))?;
        let rest = parser.next_token().token;
        if rest != Token::EOF {
            return Err(wrong(format!("{rest} after the end of {expression}")));
        }
        let mut names = Names(BTreeSet::new());
        // The visitor never breaks off.
        let _ = expression.visit(&mut names);
        Ok(Self { text: expression.to_string(), names: names.0 })
    }
}

/// Collects the names of columns.
struct Names(BTreeSet<String>);

impl Visitor for Names {
    type Break = ();

    fn pre_visit_expr(&mut self, expression: &Expr) -> ControlFlow<()> {
        let name = match expression {
            Expr::Identifier(name) => Some(name),
            Expr::CompoundIdentifier(names) => names.last(),
            _ => None,
        };
        self.0.extend(name.map(|name| if name.quote_style.is_some() { name.value.clone() } else { name.value.to_ascii_lowercase() }));
        ControlFlow::Continue(())
    }
}

#[cfg(test)]
mod tests {
    use super::Condition;

    #[test]
    fn one_expression_is_a_condition_with_its_names() {
        let condition = Condition::parse("reward < 0.5 AND p.Selected -- and so on").unwrap();
        assert_eq!(condition.text, "reward < 0.5 AND p.Selected");
        assert_eq!(condition.names.into_iter().collect::<Vec<_>>(), ["reward", "selected"]);
        let condition = Condition::parse("\"Group\" IN ('a', 'it''s') OR length(prompt) > 3 /* ) */").unwrap();
        assert_eq!(condition.text, "\"Group\" IN ('a', 'it''s') OR length(prompt) > 3");
        assert_eq!(condition.names.into_iter().collect::<Vec<_>>(), ["Group", "prompt"]);
    }

    #[test]
    fn anything_else_is_refused() {
        let long = format!("a = '{}'", "x".repeat(20_000));
        for text in [
            "",
            " ",
            "reward <",
            "reward < 1; DROP TABLE pool",
            "1 = 1) UNION SELECT * FROM pool --",
            "DROP TABLE pool",
            "reward < 1 ORDER BY reward",
            "'open",
            "/* open",
            &long,
        ] {
            let error = Condition::parse(text).unwrap_err().to_string();
            assert!(error.starts_with("expected a condition as after WHERE"), "{text}: {error}");
        }
    }
}
