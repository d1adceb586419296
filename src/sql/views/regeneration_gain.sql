-- The gain of new responses for the selected prompts. It compares the ranking statistic of a prompt's rewards before and
-- after, as means over the selected prompts of an iteration. Without earlier responses there is no gain.
WITH selection AS (
  {selection}
), pool AS (
  {pool}
), gained AS (
  SELECT selection.node, selection.iteration, selection.prompt_id, selection.rank_by, selection.score AS before,
         CASE selection.rank_by
           WHEN 'mean' THEN avg(pool.reward)
           WHEN 'min' THEN min(pool.reward)
           WHEN 'max' THEN max(pool.reward)
           ELSE max(pool.reward) - min(pool.reward)
         END AS after
  FROM selection
  JOIN pool ON pool.node = selection.node AND pool.iteration = selection.iteration AND pool.prompt_id = selection.prompt_id
  WHERE selection.selected AND selection.score IS NOT NULL
  GROUP BY selection.node, selection.iteration, selection.prompt_id, selection.rank_by, selection.score
)
SELECT node, iteration, rank_by, count(*) AS prompts, avg(before) AS before, avg(after) AS after, avg(after - before) AS gain,
       avg(CASE WHEN after > before THEN 1.0 ELSE 0.0 END) AS share_that_gained
FROM gained
GROUP BY node, iteration, rank_by
ORDER BY node, iteration
