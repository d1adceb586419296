//! Lists as PostgreSQL writes them: `{a,"b c",NULL}`.
//!
//! Knows the braces, not the types of items.

/// The items of a list of one dimension; `None` for another text. Spaces around items do not count.
pub(super) fn items(text: &str) -> Option<Vec<Option<String>>> {
    let inner = text.trim().strip_prefix('{')?.strip_suffix('}')?;
    let mut items = Vec::new();
    if inner.trim().is_empty() {
        return Some(items);
    }
    let mut signs = inner.chars().peekable();
    loop {
        while signs.next_if(|sign| sign.is_whitespace()).is_some() {}
        let mut item = String::new();
        let is_quoted = signs.next_if_eq(&'"').is_some();
        if is_quoted {
            loop {
                match signs.next()? {
                    '"' => break,
                    '\\' => item.push(signs.next()?),
                    sign => item.push(sign),
                }
            }
            while signs.next_if(|sign| sign.is_whitespace()).is_some() {}
        } else {
            while let Some(sign) = signs.next_if(|sign| *sign != ',') {
                match sign {
                    '{' | '}' | '"' => return None,
                    '\\' => item.push(signs.next()?),
                    sign => item.push(sign),
                }
            }
            item.truncate(item.trim_end().len());
            if item.is_empty() {
                return None;
            }
        }
        let is_null = !is_quoted && item.eq_ignore_ascii_case("null");
        items.push((!is_null).then_some(item));
        match signs.next() {
            Some(',') => {}
            Some(_) => return None,
            None => return Some(items),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::items;

    #[test]
    fn items_are_read_with_quotes_spaces_and_nulls() {
        let read = |text: &str| items(text).map(|items| items.into_iter().map(|item| item.unwrap_or("∅".to_string())).collect::<Vec<_>>());
        let list = |items: &[&str]| Some(items.iter().map(|item| (*item).to_string()).collect::<Vec<_>>());
        assert_eq!(read("{}"), list(&[]));
        assert_eq!(read(" { 1 , 2,3 } "), list(&["1", "2", "3"]));
        assert_eq!(read("{\"a,b\", \"c\\\"d\" ,NULL,\"NULL\",\"\",x y}"), list(&["a,b", "c\"d", "∅", "NULL", "", "x y"]));
        for text in ["", "1,2", "{1,2", "{1,,2}", "{1,}", "{{1},{2}}", "{\"a}", "{\"a\"b}", "{\"a\\"] {
            assert_eq!(items(text), None, "{text}");
        }
    }
}
