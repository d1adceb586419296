//! An answer of `/completions` or `/chat/completions`: the response in it, and the server's view of
//! the prompt.
//!
//! Knows the spellings of vLLM, SGLang, llama.cpp, llama-cpp-python and OpenAI. Knows no tokenizer.

use serde_json::Value;

/// Why a response ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Finish {
    /// The model ended it.
    Stop,
    /// It reached the most tokens.
    Length,
}

/// A response.
#[derive(Clone, Debug, PartialEq)]
pub struct Completion {
    /// As text, usually without special tokens.
    pub text: String,
    /// Its token ids, if the server gives them; with or without the token that ended it.
    pub token_ids: Option<Vec<i32>>,
    /// The number of its tokens, as the server counts them.
    pub token_count: Option<usize>,
    /// Each of its tokens' logprob under the server's model, in nats, if the server gives them.
    pub logprobs: Option<Vec<f64>>,
    /// Why it ended.
    pub finish: Finish,
    /// The stop string that ended it, if the server says so.
    pub stop_string: Option<String>,
    /// The version of the weights that made it, if the server says so.
    pub weight_version: Option<String>,
}

/// The server's view of the prompt.
pub(super) struct Prompt {
    pub(super) ids: Option<Vec<i32>>,
    pub(super) count: Option<u64>,
}

/// A response from an answer; the error names the expected and the found content.
pub(super) fn read(answer: &Value) -> Result<(Completion, Prompt), String> {
    let choice = answer.get("choices").and_then(|choices| choices.get(0)).ok_or("expected a choice in \"choices\", found none")?;
    let text = text(choice)?;
    let finish = match choice.get("finish_reason").and_then(Value::as_str) {
        Some("stop" | "eos" | "eos_token") => Finish::Stop,
        Some("length") => Finish::Length,
        other => return Err(format!("expected finish_reason stop or length, found {}", other.unwrap_or("none"))),
    };
    let logprobs = choice.get("logprobs");
    let list = |key: &str| logprobs.and_then(|logprobs| logprobs.get(key)).and_then(Value::as_array);
    // llama.cpp describes each token as in a chat completion; the others have parallel lists.
    let described = |key: &str| list("content").map(|tokens| tokens.iter().map(|token| token.get(key)).collect::<Vec<_>>());
    let words = || list("tokens").map(|tokens| tokens.iter().map(Some).collect()).or_else(|| described("token"));
    let written = || {
        let tokens = words()?.into_iter().map(|token| token?.as_str()?.strip_prefix("token_id:")?.parse::<i32>().ok());
        tokens.collect::<Option<Vec<i32>>>()
    };
    let token_ids =
        ids(choice.get("token_ids"))?.or_else(|| described("id")?.into_iter().map(|id| id.and_then(id_of)).collect()).or_else(written);
    if token_ids.is_none() {
        check_space(&text, words().and_then(|words| words.into_iter().map(|word| word?.as_str()).collect::<Option<String>>()))?;
    }
    let numbers = list("token_logprobs").map(|numbers| numbers.iter().map(Some).collect()).or_else(|| described("logprob"));
    let logprobs = numbers.and_then(|numbers| numbers.into_iter().map(|number| number.and_then(Value::as_f64)).collect());
    let count = |key: &str| answer.get("usage").and_then(|usage| usage.get(key)).and_then(Value::as_u64);
    let prompt =
        Prompt { ids: ids(choice.get("prompt_token_ids").or_else(|| answer.get("prompt_token_ids")))?, count: count("prompt_tokens") };
    let token_count = count("completion_tokens").and_then(|count| usize::try_from(count).ok());
    let stop_string = ["stop_reason", "matched_stop", "stopping_word"].into_iter().find_map(|key| choice.get(key)?.as_str());
    let stop_string = stop_string.filter(|string| !string.is_empty()).map(str::to_string);
    let weight_version = weight_version(answer, choice);
    Ok((Completion { text, token_ids, token_count, logprobs, finish, stop_string, weight_version }, prompt))
}

/// The version of the weights: SGLang's in the answer's `metadata`, vLLM's for spans of tokens. One
/// of several versions is none of them.
fn weight_version(answer: &Value, choice: &Value) -> Option<String> {
    let of_all = answer.get("metadata").and_then(|metadata| metadata.get("weight_version")).and_then(Value::as_str);
    let spans = choice.get("weight_versions").and_then(Value::as_array);
    let mut versions: Vec<&str> = spans.into_iter().flatten().filter_map(|span| span.get("version")?.as_str()).chain(of_all).collect();
    versions.dedup();
    if versions.is_empty() { None } else { Some(versions.join(" and ")) }
}

/// The text of a choice: its own, or its message's.
fn text(choice: &Value) -> Result<String, String> {
    if let Some(text) = choice.get("text").and_then(Value::as_str) {
        return Ok(text.to_string());
    }
    let message = choice.get("message").ok_or("expected the choice's text, found none")?;
    for taken in ["reasoning_content", "reasoning", "tool_calls"] {
        let is_empty = match message.get(taken) {
            None | Some(Value::Null) => true,
            Some(Value::String(text)) => text.is_empty(),
            Some(Value::Array(list)) => list.is_empty(),
            Some(_) => false,
        };
        if !is_empty {
            return Err(format!(
                "expected the response as it was sampled, found a part of it moved to {taken}; serve the model without a parser for it"
            ));
        }
    }
    match message.get("content") {
        Some(Value::String(text)) => Ok(text.clone()),
        Some(Value::Null) => Ok(String::new()),
        _ => Err("expected a message with a text as \"content\", found none".to_string()),
    }
}

/// Refuses a text without the white space at its ends that its tokens have.
fn check_space(text: &str, tokens: Option<String>) -> Result<(), String> {
    match tokens {
        Some(tokens) if tokens != text && tokens.trim() == text && !text.is_empty() => Err(format!(
            "expected the text of its tokens, {:?}, found it without the white space at its ends; the server strips its texts",
            tokens.chars().take(40).collect::<String>()
        )),
        _ => Ok(()),
    }
}

/// A list of token ids; `None` if there is none.
fn ids(list: Option<&Value>) -> Result<Option<Vec<i32>>, String> {
    match list {
        None | Some(Value::Null) => Ok(None),
        Some(Value::Array(list)) => match list.iter().map(id_of).collect() {
            Some(ids) => Ok(Some(ids)),
            None => Err("expected token ids, found something else among them".to_string()),
        },
        Some(_) => Err("expected a list of token ids, found something else".to_string()),
    }
}

fn id_of(value: &Value) -> Option<i32> {
    value.as_u64().and_then(|id| i32::try_from(id).ok())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::{Finish, read};

    #[test]
    fn a_chat_answer_is_read_as_a_completion() {
        let answer = json!({
            "choices": [{
                "message": { "role": "assistant", "content": " ab", "reasoning_content": null, "tool_calls": [] }, "finish_reason": "stop",
                "logprobs": { "content": [{ "token": " a", "logprob": -0.5 }, { "token": "b", "logprob": -1.0 }] },
            }],
            "usage": { "prompt_tokens": 3, "completion_tokens": 2 },
        });
        let (completion, prompt) = read(&answer).unwrap();
        assert_eq!((completion.text.as_str(), completion.token_ids, completion.token_count), (" ab", None, Some(2)));
        assert_eq!((completion.logprobs, completion.finish, prompt.count), (Some(vec![-0.5, -1.0]), Finish::Stop, Some(3)));
        let mut thinking = answer.clone();
        thinking["choices"][0]["message"]["reasoning_content"] = json!("hm");
        assert!(read(&thinking).err().unwrap().contains("moved to reasoning_content"));
        assert_eq!(completion.weight_version, None);
        let mut mixed = answer.clone();
        mixed["metadata"] = json!({ "weight_version": "b" });
        assert_eq!(read(&mixed).unwrap().0.weight_version.as_deref(), Some("b"));
        mixed["choices"][0]["weight_versions"] =
            json!([{ "start": 0, "end": 1, "version": "a" }, { "start": 1, "end": 2, "version": "b" }]);
        assert_eq!(read(&mixed).unwrap().0.weight_version.as_deref(), Some("a and b"));
        let mut stripped = answer.clone();
        stripped["choices"][0]["message"]["content"] = json!("ab");
        assert!(read(&stripped).err().unwrap().contains("strips its texts"));
    }
}
