-- The pairs with the largest reward differences, with their texts. It covers all iterations. `place` numbers the pairs by
-- their gap: `WHERE place <= 10` gives the ten largest.
WITH pairs AS (
  {pairs}
), responses AS (
  {responses}
)
SELECT row_number() OVER (ORDER BY pairs.reward_gap DESC, pairs.node, pairs.iteration, pairs.prompt_id) AS place,
  pairs.node, pairs.iteration, pairs.prompt_id, chosen.text AS chosen, rejected.text AS rejected, pairs.reward_gap, pairs.weight
FROM pairs
JOIN responses AS chosen ON chosen.node = pairs.node AND chosen.prompt_id = pairs.prompt_id AND chosen.sampled_iteration = pairs.chosen_sampled_iteration
  AND chosen.response_index = pairs.chosen_index
JOIN responses AS rejected ON rejected.node = pairs.node AND rejected.prompt_id = pairs.prompt_id AND rejected.sampled_iteration = pairs.rejected_sampled_iteration
  AND rejected.response_index = pairs.rejected_index
ORDER BY place
