//! A chat template and the messages it is given: behind a line `===`, one a line, the role before the first colon.

use optune::model::{ChatTemplate, Message};

const LONGEST_TEXT_BYTES: usize = 1 << 28;

/// Compiles the template and writes the conversation, with and without what asks for a response.
pub fn template(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let (source, messages) = text.split_once("\n===\n").unwrap_or((text, "user:hi\nassistant:hello, you"));
    let message = |line: &str| {
        let (role, content) = line.split_once(':').unwrap_or(("user", line));
        Message::new(role, content)
    };
    let messages: Vec<Message> = messages.lines().map(message).collect();
    let mut template = match ChatTemplate::new(source, &[("bos_token", "<s>"), ("eos_token", "</s>")]) {
        Ok(template) => template,
        Err(error) => return super::said(error),
    };
    template.set_date(chrono::NaiveDate::from_ymd_opt(2026, 11, 23));
    for asks in [true, false] {
        match template.render(&messages, asks) {
            Ok(written) => assert!(written.len() <= LONGEST_TEXT_BYTES, "{} bytes", written.len()),
            Err(error) => super::said(error),
        }
    }
}
