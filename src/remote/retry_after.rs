//! The wait in a `Retry-After`: seconds, or a date (RFC 9110, section 10.2.3).
//!
//! Knows the header's value only.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use chrono::{DateTime, NaiveDateTime};

/// The longest wait on a server's request.
const LONGEST: Duration = Duration::from_secs(600);

/// The two older forms of a date that a recipient has to accept (RFC 9110, section 5.6.7).
const OLDER: [&str; 2] = ["%A, %d-%b-%y %H:%M:%S GMT", "%a %b %e %H:%M:%S %Y"];

/// The wait from now on. Some servers send fractions of a second. `None` for anything else.
pub(super) fn retry_after(value: &str) -> Option<Duration> {
    let value = value.trim();
    let wait = match value.parse::<f64>() {
        Ok(seconds) if seconds.is_nan() => return None,
        Ok(seconds) => Duration::from_secs_f64(seconds.clamp(0.0, LONGEST.as_secs_f64())),
        Err(_) => {
            let older = || OLDER.iter().find_map(|form| NaiveDateTime::parse_from_str(value, form).ok());
            let seconds = match DateTime::parse_from_rfc2822(value) {
                Ok(date) => date.timestamp(),
                Err(_) => older()?.and_utc().timestamp(),
            };
            let at = u64::try_from(seconds).ok()?;
            (UNIX_EPOCH + Duration::from_secs(at)).duration_since(SystemTime::now()).unwrap_or_default()
        }
    };
    Some(wait.min(LONGEST))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::retry_after;

    #[test]
    fn seconds_fractions_and_dates() {
        for (value, expected) in [
            ("3", Some(Duration::from_secs(3))),
            (" 0.25 ", Some(Duration::from_millis(250))),
            ("1e9", Some(Duration::from_secs(600))),
            ("-1", Some(Duration::ZERO)),
            ("NaN", None),
            ("soon", None),
            ("", None),
            ("Wed, 21 Oct 2015 07:28:00 GMT", Some(Duration::ZERO)),
            ("Wednesday, 21-Oct-15 07:28:00 GMT", Some(Duration::ZERO)),
            ("Wed Oct 21 07:28:00 2015", Some(Duration::ZERO)),
            ("Fri, 01 Jan 2100 00:00:00 GMT", Some(Duration::from_secs(600))),
        ] {
            assert_eq!(retry_after(value), expected, "{value}");
        }
    }
}
