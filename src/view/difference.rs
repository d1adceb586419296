//! The word-level difference of two texts. Knows texts only.

use serde::Serialize;

/// The most comparisons of words. Beyond, the texts between their common beginning and end count as
/// different.
const MOST_CELLS: usize = 4_000_000;

/// A piece of a text.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Piece {
    /// The text.
    pub text: String,
    /// Whether the other text has it too, in the same order.
    pub same: bool,
}

/// The pieces of both texts: a longest common subsequence of their words is the same, the rest
/// differs. The pieces of a text make up the text.
pub fn difference(left: &str, right: &str) -> [Vec<Piece>; 2] {
    let both = [words(left), words(right)];
    let [left, right] = &both;
    let first = left.iter().zip(right).take_while(|(one, other)| one == other).count();
    let most = left.len().min(right.len()) - first;
    let last = left.iter().rev().zip(right.iter().rev()).take(most).take_while(|(one, other)| one == other).count();
    let middle = |words: &[&str]| first..words.len() - last;
    let kept = common(&left[middle(left)], &right[middle(right)]);
    [0, 1].map(|side| {
        let words = &both[side];
        let mut same = vec![true; words.len()];
        same[middle(words)].fill(false);
        kept.iter().for_each(|pair| same[first + pair[side]] = true);
        pieces(words, &same)
    })
}

/// Words, the blanks between them, and every other character by itself.
fn words(text: &str) -> Vec<&str> {
    let kind = |c: char| match c {
        c if c.is_alphanumeric() || c == '_' => 0,
        c if c.is_whitespace() => 1,
        _ => 2,
    };
    let mut found = Vec::new();
    let mut start = 0;
    let mut before = None;
    for (index, c) in text.char_indices() {
        if before.is_some_and(|before| before != kind(c) || before == 2) {
            found.push(&text[start..index]);
            start = index;
        }
        before = Some(kind(c));
    }
    if start < text.len() {
        found.push(&text[start..]);
    }
    found
}

/// The indices of a longest common subsequence, in both lists; none where the lists are too long.
fn common(left: &[&str], right: &[&str]) -> Vec<[usize; 2]> {
    let width = right.len() + 1;
    if left.is_empty() || right.is_empty() || (left.len() + 1).saturating_mul(width) > MOST_CELLS {
        return Vec::new();
    }
    // The length of the longest common subsequence behind both indices.
    let mut longest = vec![0_u32; (left.len() + 1) * width];
    for one in (0..left.len()).rev() {
        for other in (0..right.len()).rev() {
            let here = one * width + other;
            longest[here] =
                if left[one] == right[other] { longest[here + width + 1] + 1 } else { longest[here + width].max(longest[here + 1]) };
        }
    }
    let mut found = Vec::new();
    let mut one = 0;
    let mut other = 0;
    while one < left.len() && other < right.len() {
        let here = one * width + other;
        if left[one] == right[other] {
            found.push([one, other]);
            one += 1;
            other += 1;
        } else if longest[here + width] >= longest[here + 1] {
            one += 1;
        } else {
            other += 1;
        }
    }
    found
}

fn pieces(words: &[&str], same: &[bool]) -> Vec<Piece> {
    let mut pieces: Vec<Piece> = Vec::new();
    for (word, same) in words.iter().zip(same) {
        match pieces.last_mut().filter(|piece| piece.same == *same) {
            Some(piece) => piece.text.push_str(word),
            None => pieces.push(Piece { text: (*word).to_string(), same: *same }),
        }
    }
    pieces
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{Piece, common, difference, words};

    fn marked(pieces: &[Piece]) -> String {
        pieces.iter().map(|piece| if piece.same { piece.text.clone() } else { format!("[{}]", piece.text) }).collect()
    }

    #[test]
    fn words_that_differ_are_marked() {
        for (left, right, expected) in [
            ("the cat sat", "the dog sat", ["the [cat] sat", "the [dog] sat"]),
            ("a b c d", "a c d", ["a [b ]c d", "a c d"]),
            ("same", "same", ["same", "same"]),
            ("", "new", ["", "[new]"]),
            ("x = 1;", "x = 2;", ["x = [1];", "x = [2];"]),
            ("été <b>", "été <i>", ["été <[b]>", "été <[i]>"]),
        ] {
            let [one, other] = difference(left, right);
            assert_eq!([marked(&one), marked(&other)], expected);
        }
    }

    /// The length of a longest common subsequence, by trying all.
    fn longest(left: &[&str], right: &[&str]) -> usize {
        match (left, right) {
            ([one, left @ ..], [other, right @ ..]) if one == other => 1 + longest(left, right),
            ([_, shorter @ ..], [_, less @ ..]) => longest(shorter, right).max(longest(left, less)),
            _ => 0,
        }
    }

    proptest! {
        #[test]
        fn pieces_make_up_the_texts_and_the_same_ones_are_the_same(left in "[ab .é\u{1f600}]{0,9}", right in "[ab .é\u{1f600}]{0,9}") {
            let both = difference(&left, &right);
            for (pieces, text) in both.iter().zip([&left, &right]) {
                prop_assert_eq!(&pieces.iter().map(|piece| piece.text.as_str()).collect::<String>(), text);
            }
            let same = both.clone().map(|pieces| pieces.into_iter().filter(|piece| piece.same).map(|piece| piece.text).collect::<String>());
            prop_assert_eq!(&same[0], &same[1]);
            prop_assert_eq!(common(&words(&left), &words(&right)).len(), longest(&words(&left), &words(&right)));
        }
    }

    #[test]
    fn long_texts_are_compared_at_their_ends() {
        let long = |middle: &str| format!("begin {} end", format!("{middle} ").repeat(5000));
        let [one, other] = difference(&long("a"), &long("b"));
        assert_eq!((one.len(), other.len()), (3, 3));
        assert!(one[0].same && !one[1].same && one[2].same && one[0].text.starts_with("begin"));
    }
}
