-- What were the responses of each iteration worth? One row for each table of rewards and iteration: those that training is made of, and
-- those that an evaluation samples (`<evaluation>_rewards`). Responses without a reward count in `responses` alone.
WITH rewards AS (
  {rewards}
)
SELECT node, iteration, count(*) AS responses, avg(reward) AS reward_mean, stddev(reward) AS reward_deviation, min(reward) AS reward_min,
       max(reward) AS reward_max
FROM rewards
GROUP BY node, iteration
ORDER BY node, iteration
