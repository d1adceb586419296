//! Which fields of a request a server refuses, by its own words.
//!
//! Servers name a field in a list of places (pydantic's `loc`), as OpenAI's `param`, or in a
//! sentence. Knows the words, not the meaning of the fields.

use serde_json::Value;

/// The words of a server that does not know a field at all.
const UNKNOWN: [&str; 9] =
    ["extra", "unexpected", "unrecognized", "unknown", "not permitted", "not supported", "unsupported", "not allowed", "not implemented"];

/// The statuses of a refusal. llama-cpp-python refuses with 500.
const STATUSES: [u16; 4] = [400, 422, 500, 501];

/// A server's word about fields.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Refusal {
    /// The named ones of the fields that were asked about.
    pub(super) fields: Vec<&'static str>,
    /// Whether the server does not know them, and does not merely refuse their values.
    pub(super) is_unknown: bool,
}

/// The refusal in an answer of this status; `None` if it names none of `fields`.
pub(super) fn refusal(status: u16, said: &str, fields: &[&'static str]) -> Option<Refusal> {
    if !STATUSES.contains(&status) {
        return None;
    }
    let lower = said.to_lowercase();
    let is_unknown = UNKNOWN.iter().any(|word| lower.contains(word));
    let places = places(said);
    let named: Vec<&'static str> = if !places.is_empty() {
        fields.iter().copied().filter(|field| places.iter().any(|place| place == field)).collect()
    } else if status < 500 || is_unknown {
        fields.iter().copied().filter(|field| has_word(said, field)).collect()
    } else {
        // A failure that mentions a field is no refusal of it.
        Vec::new()
    };
    if named.is_empty() { None } else { Some(Refusal { fields: named, is_unknown }) }
}

/// The fields in the `loc` of pydantic's errors, as JSON or as Python writes it, and OpenAI's
/// `param`.
fn places(said: &str) -> Vec<String> {
    let mut places = Vec::new();
    for piece in said.split("\"loc\"").skip(1).chain(said.split("'loc'").skip(1)) {
        let Some(begin) = piece.find(['[', '(']) else { continue };
        let rest = &piece[begin + 1..];
        let inside = &rest[..rest.find([']', ')']).unwrap_or(rest.len())];
        // The first name behind the part of the request: `body`, `top_k`, 0.
        let mut names = inside.split(',').map(|name| name.trim().trim_matches(['"', '\'']));
        places.extend(names.find(|name| !["", "body"].contains(name)).map(str::to_string));
    }
    let param = serde_json::from_str::<Value>(said).ok().and_then(|value| {
        let error = value.get("error").unwrap_or(&value);
        error.get("param").and_then(Value::as_str).map(str::to_string)
    });
    places.extend(param);
    places
}

/// Whether a text has a word with neither letters, digits nor `_` around it.
fn has_word(text: &str, word: &str) -> bool {
    let is_part = |c: char| c.is_alphanumeric() || c == '_';
    text.match_indices(word).any(|(at, _)| !text[..at].ends_with(is_part) && !text[at + word.len()..].starts_with(is_part))
}

#[cfg(test)]
mod tests {
    use super::refusal;

    const FIELDS: [&str; 5] = ["logprobs", "top_k", "min_p", "repetition_penalty", "stop"];

    /// The named fields, and whether the server does not know them.
    fn found(status: u16, said: &str) -> Option<(Vec<&'static str>, bool)> {
        refusal(status, said, &FIELDS).map(|refusal| (refusal.fields, refusal.is_unknown))
    }

    #[test]
    fn servers_name_fields_in_their_own_ways() {
        // transformers serve 5.23.
        assert_eq!(
            found(422, "{\"detail\":\"Unexpected fields in the request: {'min_p', 'repetition_penalty'}\"}"),
            Some((vec!["min_p", "repetition_penalty"], true))
        );
        // FastAPI with forbidden extras; the input may repeat the request.
        let forbidden = "{\"detail\":[{\"type\":\"extra_forbidden\",\"loc\":[\"body\",\"min_p\"],\"msg\":\"Extra inputs are not permitted\",\"input\":{\"top_k\":-1}}]}";
        assert_eq!(found(422, forbidden), Some((vec!["min_p"], true)));
        // llama-cpp-python.
        let range = "{\"error\":{\"message\":\"[{'type': 'greater_than_equal', 'loc': ('body', 'top_k'), 'msg': 'Input should be greater than or equal to 0', 'input': -1}]\",\"type\":\"internal_server_error\",\"param\":null}}";
        assert_eq!(found(500, range), Some((vec!["top_k"], false)));
        assert_eq!(
            found(500, "{\"error\":{\"message\":\"logprobs is not supported for models created with logits_all=False\"}}"),
            Some((vec!["logprobs"], true))
        );
        // OpenAI.
        let openai =
            "{\"error\":{\"message\":\"Unrecognized request argument supplied: min_p\",\"type\":\"invalid_request_error\",\"param\":null}}";
        assert_eq!(found(400, openai), Some((vec!["min_p"], true)));
        let param = "{\"error\":{\"message\":\"Invalid value, see stop\",\"type\":\"invalid_request_error\",\"param\":\"top_k\"}}";
        assert_eq!(found(400, param), Some((vec!["top_k"], false)));
    }

    #[test]
    fn a_failure_is_no_refusal() {
        assert_eq!(found(500, "out of memory in the kernel of top_k"), None);
        assert_eq!(found(503, "unsupported: top_k"), None);
        assert_eq!(found(400, "the prompt has stopped, min_pixels"), None);
        assert_eq!(found(422, "{\"detail\":[{\"loc\":[\"body\",\"prompt\"],\"msg\":\"wrong\",\"input\":{\"top_k\":1}}]}"), None);
    }
}
