//! How deeply a query is nested, found out before it is planned: the engine goes down into expressions and relations on the stack that it has.
//! Knows SQL's grammar, by the parser that the engine uses; not what the tables hold.

use std::ops::ControlFlow;

use sqlparser::ast::{Expr, Query, TableFactor, Visit, Visitor};
use sqlparser::dialect::GenericDialect;
use sqlparser::keywords::Keyword;
use sqlparser::parser::Parser;
use sqlparser::tokenizer::{Token, Tokenizer};

/// Far above what people write. An operand more in `a OR b OR c` is a level more; in a list behind `IN` it is none.
const MOST: usize = 256;

/// Refuses a query that is too deep to be planned. Parsing takes as much of the stack as the text is deep, which may be all of its length.
///
/// # Errors
/// What was expected and found, as a sentence; or that the text is no SQL.
pub(super) fn check(text: &str) -> Result<(), String> {
    // A level is a character at least.
    if text.len() <= MOST {
        return Ok(());
    }
    let joined = |token: &Token| match token {
        Token::Word(word) => matches!(word.keyword, Keyword::UNION | Keyword::INTERSECT | Keyword::EXCEPT | Keyword::JOIN),
        _ => false,
    };
    let tokens = Tokenizer::new(&GenericDialect {}, text).tokenize().map_err(|error| error.to_string())?;
    let mut depth = Depth { relations: tokens.iter().filter(|token| joined(token)).count(), ..Depth::default() };
    let statements = Parser::parse_sql(&GenericDialect {}, text).map_err(|error| error.to_string())?;
    let _ = statements.visit(&mut depth);
    match depth {
        Depth { deepest, .. } if deepest > MOST => Err(format!("expected an expression of at most {MOST} levels, found {deepest}")),
        Depth { relations, .. } if relations > MOST => Err(format!("expected at most {MOST} joins and unions, found {relations}")),
        _ => Ok(()),
    }
}

#[derive(Default)]
struct Depth {
    now: usize,
    deepest: usize,
    relations: usize,
}

impl Depth {
    fn enter(&mut self) -> ControlFlow<()> {
        self.now += 1;
        self.deepest = self.deepest.max(self.now);
        ControlFlow::Continue(())
    }

    fn leave(&mut self) -> ControlFlow<()> {
        self.now -= 1;
        ControlFlow::Continue(())
    }
}

impl Visitor for Depth {
    type Break = ();

    fn pre_visit_expr(&mut self, _: &Expr) -> ControlFlow<()> {
        self.enter()
    }

    fn post_visit_expr(&mut self, _: &Expr) -> ControlFlow<()> {
        self.leave()
    }

    fn pre_visit_query(&mut self, _: &Query) -> ControlFlow<()> {
        self.enter()
    }

    fn post_visit_query(&mut self, _: &Query) -> ControlFlow<()> {
        self.leave()
    }

    fn pre_visit_table_factor(&mut self, _: &TableFactor) -> ControlFlow<()> {
        self.relations += 1;
        ControlFlow::Continue(())
    }
}

#[cfg(test)]
mod tests {
    use super::{MOST, check};

    /// On a stack as queries are parsed on.
    #[test]
    fn depth_is_counted_and_length_is_not() {
        let thread = std::thread::Builder::new().stack_size(crate::sql::session::STACK_BYTES).spawn(counted);
        thread.unwrap().join().unwrap();
    }

    fn counted() {
        assert_eq!(check(&format!("SELECT x IN (1{})", ", 1".repeat(5_000))), Ok(()));
        assert_eq!(check(&format!("SELECT {}1", "1 + ".repeat(MOST - 2))), Ok(()));
        assert_eq!(
            check(&format!("SELECT {}1", "1 + ".repeat(30_000))),
            Err("expected an expression of at most 256 levels, found 30002".to_string())
        );
        let unions = check(&format!("SELECT 1{}", " UNION ALL SELECT 1".repeat(300)));
        assert_eq!(unions, Err("expected at most 256 joins and unions, found 300".to_string()));
        assert!(check(&format!("SELECT 1{}", " +".repeat(400))).is_err());
    }
}
