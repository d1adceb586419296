-- The reward of a response to a task of tasks.sql, between 0 and 1:
--
--     reward = 0.6 · exact + 0.3 · closeness + 0.1 · stopped
--
-- stopped    1 if the response ended by itself, 0 if the length limit cut it
-- exact      1 if it stopped and is the right answer, character for character
-- closeness  partial credit. Where the answer is a number that was worked out (add, count, max): the smaller of the two numbers over the
--            larger, 0 for what is not a number. Elsewhere: the share of characters that need no edit (Levenshtein) to give the right answer
--
-- Reads `responses` and `prompts`; gives one row for each response.

WITH
answers AS (
    SELECT responses.prompt_id, responses.sampled_iteration, responses.response_index, responses.text, prompts.reference_answer AS answer,
           prompts."group" IN ('add', 'count', 'max') AS is_number,
           TRY_CAST(responses.text AS BIGINT) AS found,
           TRY_CAST(prompts.reference_answer AS BIGINT) AS expected,
           CASE responses.finish_reason WHEN 'stop' THEN 1.0 ELSE 0.0 END AS stopped
    FROM responses
    JOIN prompts ON responses.prompt_id = prompts.prompt_id
),
components AS (
    SELECT prompt_id, sampled_iteration, response_index, stopped,
           CASE WHEN text = answer THEN stopped ELSE 0.0 END AS exact,
           CASE WHEN text = answer THEN 1.0
                WHEN NOT is_number THEN 1.0 - CAST(levenshtein(text, answer) AS DOUBLE) / greatest(character_length(text), character_length(answer))
                WHEN found IS NULL OR found < 0 THEN 0.0
                WHEN found = expected THEN 1.0
                ELSE CAST(least(found, expected) AS DOUBLE) / greatest(found, expected) END AS closeness
    FROM answers
)
SELECT prompt_id, sampled_iteration, response_index, 0.6 * exact + 0.3 * closeness + 0.1 * stopped AS reward, exact, closeness, stopped
FROM components
ORDER BY prompt_id, sampled_iteration, response_index
