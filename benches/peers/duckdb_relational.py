"""DuckDB: `relational` (benches/README.md).

    python benches/peers/duckdb_relational.py relational --inputs DIR --prompts 1000000

The queries are those of `src/stages/`, but for two words of DuckDB's own: `first` for `first_value`, `len` for `array_length`.
"""

import duckdb
import measurement

SELECTION = """
WITH statistic AS (
  SELECT prompt_id, avg(reward) AS score FROM '{tables}/pool.parquet' GROUP BY prompt_id
), ranked AS (
  SELECT prompts.prompt_id, statistic.score, row_number() OVER (ORDER BY statistic.score ASC NULLS FIRST, prompts.prompt_id) AS rank
  FROM '{tables}/prompts.parquet' AS prompts LEFT JOIN statistic ON prompts.prompt_id = statistic.prompt_id
)
SELECT prompt_id, score, rank, rank <= {count} AS selected FROM ranked ORDER BY rank
"""
POOL = """
WITH fresh AS (
  SELECT rewards.prompt_id, rewards.response_index, rewards.sampled_iteration, rewards.reward,
         CAST(len(responses.token_ids) AS INT) - responses.prompt_token_count AS token_count, responses.finish_reason
  FROM '{tables}/rewards.parquet' AS rewards JOIN '{tables}/responses.parquet' AS responses
    ON rewards.prompt_id = responses.prompt_id AND rewards.sampled_iteration = responses.sampled_iteration AND rewards.response_index = responses.response_index
  WHERE rewards.error IS NULL AND responses.error IS NULL
), merged AS (
  SELECT prompt_id, response_index, sampled_iteration, reward, token_count, finish_reason FROM fresh
  UNION ALL
  SELECT prompt_id, response_index, sampled_iteration, reward, token_count, finish_reason FROM '{tables}/pool.parquet' AS carried
  WHERE NOT EXISTS (SELECT 1 FROM fresh WHERE fresh.prompt_id = carried.prompt_id)
)
SELECT * FROM merged ORDER BY prompt_id, response_index
"""
PAIRS = """
WITH extremes AS (
  SELECT prompt_id,
         first(sampled_iteration ORDER BY reward DESC, response_index) AS chosen_sampled_iteration, first(response_index ORDER BY reward DESC, response_index) AS chosen_index,
         first(sampled_iteration ORDER BY reward, response_index) AS rejected_sampled_iteration, first(response_index ORDER BY reward, response_index) AS rejected_index,
         max(reward) - min(reward) AS reward_gap
  FROM {pool} GROUP BY prompt_id
)
SELECT *, 1.0 / (1.0 + exp(-reward_gap)) AS weight, CAST(NULL AS DOUBLE) AS reference_logprob_chosen, CAST(NULL AS DOUBLE) AS reference_logprob_rejected
FROM extremes WHERE reward_gap > 0 ORDER BY prompt_id
"""


def main():
    asked = measurement.arguments(__doc__, {"relational": {"prompts": None, "write": ""}})
    tables, count = asked.inputs / "tables" / str(asked.prompts), (asked.prompts + 1) // 2
    session = duckdb.connect(config={"threads": asked.threads})

    def make(name, query):
        if asked.write:
            path = f"{asked.write}/{name}.parquet"
            session.execute(f"COPY ({query}) TO '{path}' (FORMAT parquet, COMPRESSION zstd, COMPRESSION_LEVEL 3)")
            return f"'{path}'"
        session.execute(f"CREATE TABLE {name} AS {query}")
        return name

    watch = measurement.Stopwatch()
    with watch:
        selection = make("selection", SELECTION.format(tables=tables, count=count))
        pool = make("pool", POOL.format(tables=tables))
        pairs = make("pairs", PAIRS.format(pool=pool))
    found = session.execute(
        f"SELECT (SELECT count(*) FROM {selection} WHERE selected), (SELECT count(*) FROM {pool}), (SELECT count(*) FROM {pairs}), (SELECT sum(weight) FROM {pairs})"
    ).fetchall()[0]
    measurement.report("duckdb", asked, watch.seconds, cpu_seconds=watch.cpu_seconds, **dict(zip(["selected", "pool", "pairs", "weight_sum"], found)))


if __name__ == "__main__":
    main()
