//! SQL shared by the selection and its equivalent query.

/// The selection without a pool.
pub(super) const EVERY_PROMPT: &str =
    "SELECT prompt_id, CAST(NULL AS DOUBLE) AS score, CAST(row_number() OVER (ORDER BY prompt_id) AS BIGINT) AS rank,
       TRUE AS selected, CAST(NULL AS DOUBLE) AS expected_gain, CAST(NULL AS DOUBLE) AS expected_tokens,
       CAST(NULL AS DOUBLE) AS belief_mean, CAST(NULL AS DOUBLE) AS belief_variance
FROM prompts
ORDER BY rank";

/// A column of the user's table as text. The name may contain any characters.
pub(super) fn text_column(name: &str) -> String {
    format!("CAST(\"{}\" AS VARCHAR)", name.replace('"', "\"\""))
}
