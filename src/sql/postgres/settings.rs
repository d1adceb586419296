//! The settings that clients ask for with `SHOW`. They are fixed: `SET` changes none of them.
//!
//! Knows PostgreSQL's names, not the tables of the run.

use crate::did_you_mean::nearest;

/// The version of PostgreSQL whose protocol and types are spoken. Clients choose their queries by
/// it.
pub(super) const SERVER_VERSION: &str = "16.6";

/// The settings with their values.
pub(super) const SETTINGS: [(&str, &str); 27] = [
    ("application_name", ""),
    ("bytea_output", "hex"),
    ("client_encoding", "UTF8"),
    ("client_min_messages", "notice"),
    ("datestyle", "ISO, YMD"),
    ("default_table_access_method", "heap"),
    ("default_transaction_isolation", "read committed"),
    ("default_transaction_read_only", "on"),
    ("extra_float_digits", "1"),
    ("integer_datetimes", "on"),
    ("intervalstyle", "postgres"),
    ("is_superuser", "off"),
    ("jit", "off"),
    ("lc_collate", "C"),
    ("lc_ctype", "C"),
    ("lock_timeout", "0"),
    ("max_index_keys", "32"),
    ("max_identifier_length", "63"),
    ("search_path", "public"),
    ("server_encoding", "UTF8"),
    ("server_version", SERVER_VERSION),
    ("server_version_num", "160006"),
    ("standard_conforming_strings", "on"),
    ("statement_timeout", "0"),
    ("timezone", "Etc/UTC"),
    ("transaction_isolation", "read committed"),
    ("transaction_read_only", "on"),
];

/// What the engine itself shows.
const OF_ENGINE: [&str; 4] = ["tables", "columns", "functions", "all"];

/// The query for a `SHOW` statement.
///
/// # Errors
/// An unknown setting, in PostgreSQL's words.
pub(super) fn query(text: &str) -> Result<String, String> {
    let written: Vec<&str> = text.split_whitespace().skip(1).collect();
    let name = match written.join(" ").to_ascii_lowercase().as_str() {
        "transaction isolation level" => "transaction_isolation".to_string(),
        "time zone" => "timezone".to_string(),
        "session authorization" => "session_authorization".to_string(),
        name => name.trim_matches('"').to_string(),
    };
    if OF_ENGINE.iter().any(|own| name.split(' ').next() == Some(own)) {
        return Ok(text.to_string());
    }
    match SETTINGS.iter().find(|(known, _)| *known == name) {
        Some((known, value)) => Ok(format!("SELECT '{value}' AS \"{known}\"")),
        None => {
            let near = nearest(&name, SETTINGS.iter().map(|(known, _)| *known));
            let near = near.map_or(String::new(), |near| format!("; did you mean \"{near}\"?"));
            Err(format!("unrecognized configuration parameter \"{name}\"{near}"))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::query;

    #[test]
    fn settings_are_known_by_all_their_spellings() {
        assert_eq!(query("show  transaction isolation level").unwrap(), "SELECT 'read committed' AS \"transaction_isolation\"");
        assert_eq!(query("SHOW TimeZone").unwrap(), "SELECT 'Etc/UTC' AS \"timezone\"");
        assert_eq!(query("SHOW TABLES").unwrap(), "SHOW TABLES");
        assert!(query("SHOW server_versio").unwrap_err().contains("did you mean \"server_version\"?"));
    }
}
