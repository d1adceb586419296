-- The cost of each node in each iteration: seconds of this run (all attempts, except those ended by a kill), of these the
-- seconds in which its models computed, tokens by the work done on them, and rows. `reused`: the output came from the
-- cache, and this run never started the node. Tokens are without prompts, but those of a training are with them.
WITH spent AS (
  SELECT node, iteration, sum(CASE WHEN event IN ('node_done', 'node_failed', 'interrupted') THEN seconds END) AS seconds,
         sum(device_seconds) AS device_seconds
  FROM journal
  WHERE event IN ('started', 'node_done', 'node_failed', 'interrupted')
  GROUP BY node, iteration
), tokens AS (
  SELECT node, iteration, sum(CASE WHEN work = 'sampled' THEN tokens END) AS sampled_tokens,
         sum(CASE WHEN work = 'scored' THEN tokens END) AS scored_tokens,
         sum(CASE WHEN work = 'trained' THEN tokens END) AS trained_tokens,
         sum(CASE WHEN work = 'evaluated' THEN tokens END) AS evaluated_tokens
  FROM (
  {tokens}
  ) AS counted GROUP BY node, iteration
)
SELECT outputs.node, outputs.iteration, outputs.operator, coalesce(spent.seconds, 0.0) AS seconds, spent.device_seconds,
       tokens.sampled_tokens, tokens.scored_tokens, tokens.trained_tokens, tokens.evaluated_tokens, outputs.rows,
       spent.node IS NULL AS reused
FROM outputs
LEFT JOIN spent ON spent.node = outputs.node AND spent.iteration IS NOT DISTINCT FROM outputs.iteration
LEFT JOIN tokens ON tokens.node = outputs.node AND tokens.iteration IS NOT DISTINCT FROM outputs.iteration
WHERE outputs.operator NOT IN ('input', 'training')
ORDER BY outputs.iteration NULLS FIRST, seconds DESC, outputs.node
