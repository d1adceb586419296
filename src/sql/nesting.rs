//! Limits the nesting of a query before planning: the engine recurses into expressions and
//! relations on its stack. Knows SQL's grammar through the engine's parser. Knows nothing of the
//! tables.

use std::ops::ControlFlow;

use sqlparser::ast::{Expr, Query, TableFactor, Visit, Visitor};
use sqlparser::dialect::GenericDialect;
use sqlparser::keywords::Keyword;
use sqlparser::parser::Parser;
use sqlparser::tokenizer::{Token, Tokenizer};

/// The most levels of a query, far above practical ones. An operand of `a OR b OR c` is one level;
/// an item of a list after `IN` is none.
const MOST: usize = 256;

/// Stack in bytes of the threads for parsing, planning and computing. Parsing comes before the
/// check of the depth, so an expression can be thousands of levels deep, with a few calls for each.
/// Only used pages take memory.
pub(super) const STACK_BYTES: usize = 1 << 28;

/// Refuses a query too deep for planning. Parsing takes stack for each level, up to the length of
/// the text.
///
/// # Errors
/// A sentence with the limit and the actual depth, or the syntax error of the text.
pub(super) fn check(text: &str) -> Result<(), String> {
    // Each level takes at least one character.
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
    // The visitor never breaks off.
    let _ = statements.visit(&mut depth);
    let Depth { deepest, relations, .. } = depth;
    if deepest > MOST {
        Err(format!("expected an expression of at most {MOST} levels, found {deepest}"))
    } else if relations > MOST {
        Err(format!("expected at most {MOST} joins and unions, found {relations}"))
    } else {
        Ok(())
    }
}

/// Counts the levels and relations of a query.
#[derive(Default)]
struct Depth {
    current: usize,
    deepest: usize,
    relations: usize,
}

impl Depth {
    fn enter(&mut self) -> ControlFlow<()> {
        self.current += 1;
        self.deepest = self.deepest.max(self.current);
        ControlFlow::Continue(())
    }

    fn leave(&mut self) -> ControlFlow<()> {
        self.current -= 1;
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
    use super::{MOST, STACK_BYTES, check};

    /// With the stack of the threads for queries.
    #[test]
    fn depth_is_counted_and_length_is_not() {
        let thread = std::thread::Builder::new().stack_size(STACK_BYTES).spawn(counted);
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
