-- The cost of each node in each iteration: seconds of this run (all attempts, except those ended by a kill), generated or
-- trained tokens, and rows. `reused`: the output came from the cache, and this run never started the node.
WITH spent AS (
  SELECT node, iteration, sum(CASE WHEN event IN ('node_done', 'node_failed', 'interrupted') THEN seconds END) AS seconds
  FROM journal
  WHERE event IN ('started', 'node_done', 'node_failed', 'interrupted')
  GROUP BY node, iteration
), tokens AS (
  SELECT node, iteration, sum(tokens) AS tokens FROM (
  {tokens}
  ) AS counted GROUP BY node, iteration
)
SELECT outputs.node, outputs.iteration, outputs.operator, coalesce(spent.seconds, 0.0) AS seconds, tokens.tokens, outputs.rows,
       spent.node IS NULL AS reused
FROM outputs
LEFT JOIN spent ON spent.node = outputs.node AND spent.iteration IS NOT DISTINCT FROM outputs.iteration
LEFT JOIN tokens ON tokens.node = outputs.node AND tokens.iteration IS NOT DISTINCT FROM outputs.iteration
WHERE outputs.operator NOT IN ('input', 'training')
ORDER BY outputs.iteration NULLS FIRST, seconds DESC, outputs.node
