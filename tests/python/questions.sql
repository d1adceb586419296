-- Three questions to a run, in SQL that DataFusion (`optune sql`) and DuckDB (read_with_duckdb.py) both read.

-- Mean reward of the new responses, by iteration and task family.
SELECT r.iteration, p."group", count(*) AS response_count, round(avg(r.reward), 6) AS mean_reward
FROM rewards r JOIN prompts p ON p.prompt_id = r.prompt_id
GROUP BY r.iteration, p."group"
ORDER BY r.iteration, p."group";

-- Which prompts were regenerated, and what their mean reward gained over the responses they had before.
WITH mean AS (
    SELECT iteration, prompt_id, avg(reward) AS reward FROM pool GROUP BY iteration, prompt_id
)
SELECT s.iteration, s.prompt_id, round(old.reward, 6) AS reward_before, round(new.reward, 6) AS reward_after, round(new.reward - old.reward, 6) AS gain
FROM selection s
JOIN mean new ON new.prompt_id = s.prompt_id AND new.iteration = s.iteration
JOIN mean old ON old.prompt_id = s.prompt_id AND old.iteration = s.iteration - 1
WHERE s.selected
ORDER BY s.iteration, s.prompt_id;

-- Tokens generated in each iteration.
SELECT iteration, count(*) AS response_count, CAST(sum(CAST(array_length(token_ids) AS BIGINT) - prompt_token_count) AS BIGINT) AS generated_tokens
FROM responses
GROUP BY iteration
ORDER BY iteration;
