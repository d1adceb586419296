-- Did the gain come? One row for each prompt that was selected with a prediction and got new rewards: the expected gain, and the gain. Its best reward,
-- with `gap` also its worst one, is compared before and after; the new responses count beside the old ones.
WITH predicted AS (
  {predicted}
), before AS (
  {rewards_before}
), after AS (
  {rewards_after}
), old AS (
  SELECT node, iteration, prompt_id, max(reward) AS best, min(reward) AS worst FROM before GROUP BY node, iteration, prompt_id
), fresh AS (
  SELECT node, iteration, prompt_id, max(reward) AS best, min(reward) AS worst, count(*) AS responses FROM after
  WHERE reward IS NOT NULL GROUP BY node, iteration, prompt_id
)
SELECT predicted.node, predicted.iteration, predicted.prompt_id, predicted.objective, predicted.expected_gain,
       greatest(fresh.best - old.best, 0.0) + CASE predicted.objective WHEN 'gap' THEN greatest(old.worst - fresh.worst, 0.0) ELSE 0.0 END AS gain,
       fresh.responses
FROM predicted
JOIN old ON old.node = predicted.node AND old.prompt_id = predicted.prompt_id AND old.iteration IS NOT DISTINCT FROM predicted.iteration
JOIN fresh ON fresh.node = predicted.node AND fresh.prompt_id = predicted.prompt_id AND fresh.iteration IS NOT DISTINCT FROM predicted.iteration
ORDER BY predicted.node, predicted.iteration, predicted.expected_gain DESC, predicted.prompt_id
