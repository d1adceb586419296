//! `strftime_now`: the date in a template. It is the pipeline's, never the clock's: a resumed run
//! sees the same prompts.

use chrono::NaiveDate;
use chrono::format::StrftimeItems;
use minijinja::{Error, ErrorKind};

/// The conversions that Python and chrono write alike for a date at midnight.
const CONVERSIONS: &str = "aAbBcdDeFGhHIjmMnpRStTuUVwWxXyY%";

/// `date` as `format` says.
pub(super) fn strftime(date: Option<NaiveDate>, format: &str) -> Result<String, Error> {
    let refused = |problem: String| Error::new(ErrorKind::InvalidOperation, problem);
    let Some(date) = date else {
        return Err(refused(
            "strftime_now: the template writes today's date, which would differ when a run is resumed; \
             add a line such as `date: 2026-11-23` to the pipeline file"
                .to_string(),
        ));
    };
    let mut rest = format;
    while let Some((_, after)) = rest.split_once('%') {
        let conversion = after.strip_prefix('-').unwrap_or(after);
        let Some(letter) = conversion.chars().next().filter(|letter| CONVERSIONS.contains(*letter)) else {
            let found: String = after.chars().take(2).collect();
            return Err(refused(format!("strftime_now: %{found} in {format:?} is not supported")));
        };
        rest = &conversion[letter.len_utf8()..];
    }
    Ok(date.and_time(chrono::NaiveTime::MIN).format_with_items(StrftimeItems::new(format)).to_string())
}
