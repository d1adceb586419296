//! One tag of a template, token by token. Every named value is passed through [`VARIABLE`] or
//! [`ATTRIBUTE`] to bound its size, every value beside a `~` through [`TEXT`]. Knows no values.

use super::lexer::{copy, end_of_string, string, word_of_tag};

/// The function for every value of a name.
pub(super) const VARIABLE: &str = "__variable";
/// The same for an attribute of a namespace.
pub(super) const ATTRIBUTE: &str = "__attribute";
/// The function for Python's text of a value.
pub(super) const TEXT: &str = "__text";

/// Filters of text that take any value; minijinja has another text for some.
const FILTERS_OF_TEXT: [&str; 6] = ["upper", "lower", "title", "capitalize", "replace", "indent"];

/// Deeper brackets than the engine compiles.
const DEEPEST_BRACKETS: usize = 256;

/// How a tag gives names to values.
#[derive(Clone, Copy, PartialEq)]
enum Binds {
    /// Not at all.
    Nothing,
    /// To the name before the first `=`, as `set` does.
    Assigned,
    /// To the name before `in`, item by item, as `for` does.
    Iterated,
    /// To its parameters, as `macro` and `call` do.
    Parameters,
    /// To the name before each `=`, as `with` does.
    Assignments,
}

/// Copies the tag at the start of `rest`, translated; returns the remainder.
pub(super) fn tag<'a>(rest: &'a str, closing: &str, out: &mut String) -> &'a str {
    let word = word_of_tag(rest).filter(|_| closing == "%}");
    let binds = match word {
        Some(("set", _)) => Binds::Assigned,
        Some(("for", _)) => Binds::Iterated,
        Some(("macro", _)) => Binds::Parameters,
        Some(("call", end)) if rest[end..].trim_start().starts_with('(') => Binds::Parameters,
        Some(("with", _)) => Binds::Assignments,
        _ => Binds::Nothing,
    };
    let mut at = 2;
    if let Some((word, end)) = word {
        out.push_str(&rest[..end - word.len()]);
        // The body of a generation block sees and sets variables as that of `with` does.
        out.push_str(match word {
            "generation" => "with",
            "endgeneration" => "endwith",
            other => other,
        });
        at = end;
    } else {
        out.push_str(&rest[..at]);
    }
    let operand = Operand { start: out.len(), joined: false };
    let mut tokens =
        Tokens { binds, open: Vec::new(), operands: vec![operand], value: Value::Before, names: Vec::new(), previous: "", dotted: false };
    while !rest[at..].is_empty() {
        let inner = &rest[at..];
        let control = usize::from(inner.starts_with(['-', '+']));
        if tokens.open.is_empty() && inner[control..].starts_with(closing) {
            tokens.end_of_operand(out, false);
            tokens.end_of_value(out);
            tokens.bind_parameters(out);
            return copy(inner, control + closing.len(), out);
        }
        let length = length_of_token(inner);
        tokens.token(&inner[..length], &inner[length..], out);
        at += length;
    }
    ""
}

fn length_of_token(inner: &str) -> usize {
    let word = |c: char| c.is_ascii_alphanumeric() || c == '_';
    match inner.chars().next() {
        Some('"' | '\'') => end_of_string(inner),
        Some(first) if word(first) => inner.find(|c| !word(c)).unwrap_or(inner.len()),
        first => first.map_or(0, char::len_utf8),
    }
}

/// The position relative to a tag's named value.
#[derive(PartialEq)]
enum Value {
    Before,
    Within,
    Behind,
}

/// A possible operand of `~`.
struct Operand {
    /// Where it begins in the translation.
    start: usize,
    /// Whether a `~` is in front of it.
    joined: bool,
}

/// The state after some tokens of a tag.
struct Tokens<'a> {
    binds: Binds,
    /// The open brackets; `l` is that of a call of `loop`. Such a call binds its argument.
    open: Vec<u8>,
    /// Possible operands of `~`: outermost, and within each open bracket.
    operands: Vec<Operand>,
    value: Value,
    /// The names with values from the end of the tag on.
    names: Vec<&'a str>,
    /// The last token except white space.
    previous: &'a str,
    /// Whether the name is that of an attribute.
    dotted: bool,
}

impl<'a> Tokens<'a> {
    /// Copies a token, translated; `after` follows it.
    fn token(&mut self, token: &'a str, after: &'a str, out: &mut String) {
        let outermost = self.open.is_empty();
        let bracket = self.open.last().copied();
        let ends_operand = self.ends_operand(token, out);
        if ends_operand {
            self.end_of_operand(out, token == "~");
        }
        match token {
            "(" if self.previous == "loop" => out.extend(["(", VARIABLE, "(("]),
            ")" if bracket == Some(b'l') => out.push_str(")))"),
            "=" if self.binds == Binds::Assigned && outermost && self.value == Value::Before => {
                self.value = Value::Within;
                out.extend(["= ", if self.dotted { ATTRIBUTE } else { VARIABLE }, "(("]);
            }
            "in" if self.binds == Binds::Iterated && outermost && self.value == Value::Before => {
                self.value = Value::Within;
                out.extend(["in ", VARIABLE, "(("]);
            }
            "if" | "recursive" if self.binds == Binds::Iterated && outermost => {
                self.end_of_value(out);
                out.extend([" ", token]);
            }
            text if text.starts_with(['"', '\'']) => string(text, out),
            filter if self.previous == "|" && FILTERS_OF_TEXT.contains(&filter) => out.extend(["string|", filter]),
            other => out.push_str(other),
        }
        let is_word = token.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_');
        let is_parameter =
            self.binds == Binds::Parameters && self.value == Value::Before && self.open == b"(" && "(,".contains(self.previous);
        let is_assigned =
            self.binds == Binds::Assignments && outermost && after.trim_start().starts_with('=') && !after.trim_start().starts_with("==");
        if is_word && (is_parameter || is_assigned) {
            self.names.push(token);
        }
        self.dotted |= token == ".";
        match token {
            "(" if self.previous == "loop" => self.open.push(b'l'),
            "{" | "[" | "(" => self.open.extend(token.as_bytes()),
            "}" | "]" | ")" => {
                self.open.pop();
                if self.operands.len() > 1 {
                    self.operands.pop();
                }
                if self.binds == Binds::Parameters && self.open.is_empty() {
                    // What follows the parameters of `call` is a call, whose arguments are none.
                    self.value = Value::Behind;
                }
            }
            _ => {}
        }
        if token.ends_with(['(', '[', '{']) {
            self.operands.push(Operand { start: out.len(), joined: false });
        } else if ends_operand && let Some(operand) = self.operands.last_mut().filter(|_| !token.starts_with([')', ']', '}'])) {
            *operand = Operand { start: out.len(), joined: token == "~" };
        }
        if !token.trim().is_empty() {
            self.previous = token;
        }
    }

    /// Whether no operand of `~` goes on with this token.
    fn ends_operand(&self, token: &str, out: &str) -> bool {
        match token {
            _ if self.previous == "." => false,
            "+" | "-" => {
                let is_exponent = self.previous.starts_with(|c: char| c.is_ascii_digit()) && self.previous.ends_with(['e', 'E']);
                let is_sign = self.previous.ends_with(['~', '+', '-', '*', '/', '%', ',', ':', '=', '<', '>', '(', '[', '{'])
                    || ["and", "or", "not", "in", "if", "else"].contains(&self.previous)
                    || (self.previous.is_empty() && !out.ends_with(['{', '%']));
                !is_exponent && !is_sign
            }
            "not" => self.previous != "is",
            "~" | "," | ":" | "=" | "!" | "<" | ">" | ")" | "]" | "}" | "and" | "or" | "in" | "if" | "else" | "recursive" => true,
            _ => false,
        }
    }

    /// Passes the operand through the function for its text if a `~` is in front of it or behind
    /// it.
    fn end_of_operand(&self, out: &mut String, joins: bool) {
        if let Some(operand) = self.operands.last()
            && (operand.joined || joins)
            && self.operands.len() < DEEPEST_BRACKETS
            && !out[operand.start..].trim().is_empty()
        {
            out.insert_str(operand.start, &format!(" {TEXT}("));
            out.push(')');
        }
    }

    fn end_of_value(&mut self, out: &mut String) {
        if self.value == Value::Within {
            // Nothing is no value, and must not become an empty tuple.
            out.push_str(if out.trim_end().ends_with("((") { "" } else { "))" });
            self.value = Value::Behind;
        }
    }

    /// Passes what the tag has bound on, by tags between it and its own end, which keeps what it
    /// says of white space.
    fn bind_parameters(&self, out: &mut String) {
        for name in &self.names {
            out.extend([" %}{% set ", name, " = ", VARIABLE, "(", name, ") "]);
        }
    }
}
