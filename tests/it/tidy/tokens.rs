//! The tokens of Rust code, as far as paths need them: words, `::` and single marks.
//!
//! Comments, texts, characters, numbers and lifetimes are left out. Knows no grammar.

/// A token of Rust code.
#[derive(Clone, Debug, PartialEq)]
pub enum Token {
    /// An identifier or a keyword.
    Word(String),
    /// `::`
    Separator,
    /// Any other mark.
    Mark(char),
}

/// The tokens of a file, in order.
pub fn tokens(text: &str) -> Vec<Token> {
    let characters: Vec<char> = text.chars().collect();
    let mut found = Vec::new();
    let mut at = 0;
    while at < characters.len() {
        let rest = &characters[at..];
        let next = rest.get(1).copied().unwrap_or(' ');
        at += match rest[0] {
            space if space.is_whitespace() => 1,
            '/' if next == '/' => line(rest),
            '/' if next == '*' => block(rest),
            '"' => text_length(rest),
            '\'' => character_or_lifetime(rest),
            'r' | 'b' | 'c' if raw_start(rest).is_some() => raw_length(rest, raw_start(rest).unwrap_or_default()),
            'b' | 'c' if next == '"' => 1 + text_length(&rest[1..]),
            'b' if next == '\'' => 1 + character_or_lifetime(&rest[1..]),
            digit if digit.is_ascii_digit() => word(rest),
            letter if letter.is_alphabetic() || letter == '_' => {
                let length = word(rest);
                found.push(Token::Word(rest[..length].iter().collect()));
                length
            }
            ':' if next == ':' => {
                found.push(Token::Separator);
                2
            }
            mark => {
                found.push(Token::Mark(mark));
                1
            }
        };
    }
    found
}

fn line(rest: &[char]) -> usize {
    rest.iter().position(|character| *character == '\n').unwrap_or(rest.len())
}

fn block(rest: &[char]) -> usize {
    rest.windows(2).skip(2).position(|pair| pair == ['*', '/']).map_or(rest.len(), |end| end + 4)
}

fn word(rest: &[char]) -> usize {
    rest.iter().position(|character| !character.is_alphanumeric() && *character != '_').unwrap_or(rest.len())
}

/// The length of a text with its quotes.
fn text_length(rest: &[char]) -> usize {
    let mut at = 1;
    while at < rest.len() && rest[at] != '"' {
        at += if rest[at] == '\\' { 2 } else { 1 };
    }
    at + 1
}

/// `'a'` and `'\n'` are characters; `'a` is a lifetime.
fn character_or_lifetime(rest: &[char]) -> usize {
    if rest.get(1) == Some(&'\\') {
        return rest.iter().skip(3).position(|character| *character == '\'').map_or(rest.len(), |end| end + 4);
    }
    if rest.get(2) == Some(&'\'') { 3 } else { 1 + word(&rest[1..]) }
}

/// The number of `#` of a raw text (`r"`, `r#"`, `br#"`), and where its quote is.
fn raw_start(rest: &[char]) -> Option<(usize, usize)> {
    let letters = rest.iter().take_while(|character| matches!(character, 'r' | 'b' | 'c')).count();
    let hashes = rest.iter().skip(letters).take_while(|character| **character == '#').count();
    let raw = letters <= 2 && rest[letters - 1] == 'r' && rest.get(letters + hashes) == Some(&'"');
    raw.then_some((hashes, letters + hashes))
}

fn raw_length(rest: &[char], (hashes, quote): (usize, usize)) -> usize {
    let ends = |at: &usize| rest[*at] == '"' && rest[at + 1..].iter().take_while(|character| **character == '#').count() >= hashes;
    (quote + 1..rest.len()).find(ends).map_or(rest.len(), |end| end + 1 + hashes)
}

#[test]
fn comments_texts_and_lifetimes_are_no_words() {
    let code = "// a::b\nuse c::d; /* e::f */ \"g::\\\"h\" r#\"i::\"j\"# 'k' '\\n' b\"l\" &'m n 0.5";
    let words: Vec<String> =
        tokens(code).into_iter().filter_map(|token| if let Token::Word(word) = token { Some(word) } else { None }).collect();
    assert_eq!(words, ["use", "c", "d", "n"]);
}
