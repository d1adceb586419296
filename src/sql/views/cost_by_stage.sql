-- What did each node cost in each iteration? Seconds that this run spent on it, all attempts together (those of a process that was killed
-- have no end, and are not in the sum); tokens that are in it, generated or trained on; its rows. `reused`: the run never began it, because the
-- cache had it.
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
