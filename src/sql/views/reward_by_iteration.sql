-- The rewards of each iteration: one row for each table of rewards and iteration. The tables are those of training and those
-- of evaluations (`<evaluation>_rewards`). A response without a reward counts only in `responses`.
WITH rewards AS (
  {rewards}
)
SELECT node, iteration, count(*) AS responses, avg(reward) AS reward_mean, stddev(reward) AS reward_deviation, min(reward) AS reward_min,
       max(reward) AS reward_max
FROM rewards
GROUP BY node, iteration
ORDER BY node, iteration
