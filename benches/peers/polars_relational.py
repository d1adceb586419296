"""Polars: `relational` (benches/README.md), written as Polars likes it.

    python benches/peers/polars_relational.py relational --inputs DIR --prompts 1000000

The tables' rows are in the order of their keys, which Polars is told where it helps: rows are merged, not sorted, and of equal rewards `max_by` and `min_by`
take the first, which has the lowest response_index.
"""

import os

import measurement

KEY = ["prompt_id", "sampled_iteration", "response_index"]
COLUMNS = ["prompt_id", "response_index", "sampled_iteration", "reward", "token_count", "finish_reason"]


def main():
    asked = measurement.arguments(__doc__, {"relational": {"prompts": None, "write": "", "engine": "auto"}})
    # Read when polars is imported.
    os.environ["POLARS_MAX_THREADS"] = str(asked.threads)
    import polars as pl

    tables, count = asked.inputs / "tables" / str(asked.prompts), (asked.prompts + 1) // 2

    def make(name, query):
        if asked.write:
            path = f"{asked.write}/{name}.parquet"
            query.sink_parquet(path, compression="zstd", compression_level=3, engine=asked.engine)
            return pl.scan_parquet(path)
        return query.collect(engine=asked.engine).lazy()

    watch = measurement.Stopwatch()
    with watch:
        prompts, carried, responses, rewards = (pl.scan_parquet(tables / f"{name}.parquet") for name in ("prompts", "pool", "responses", "rewards"))
        selection = make("selection", select(pl, prompts, carried, count))
        pool = make("pool", merge(pl, rewards, responses, carried))
        pairs = make("pairs", pair(pl, pool))
    found = pl.collect_all([selection.select(pl.col("selected").sum()), pool.select(pl.len()), pairs.select(pl.len()), pairs.select(pl.col("weight").sum())])
    found = {name: frame.item() for name, frame in zip(["selected", "pool", "pairs", "weight_sum"], found)}
    measurement.report("polars", asked, watch.seconds, cpu_seconds=watch.cpu_seconds, engine=asked.engine, **found)


def select(pl, prompts, pool, count):
    statistic = pool.group_by("prompt_id").agg(pl.col("reward").mean().alias("score"))
    ranked = prompts.select("prompt_id").join(statistic, on="prompt_id", how="left").sort("score", "prompt_id", nulls_last=False)
    rank = pl.int_range(1, pl.len() + 1, dtype=pl.Int64)
    return ranked.with_columns(rank.alias("rank"), (rank <= count).alias("selected"))


def merge(pl, rewards, responses, carried):
    token_count = (pl.col("token_ids").list.len().cast(pl.Int32) - pl.col("prompt_token_count")).alias("token_count")
    scored = rewards.filter(pl.col("error").is_null()).select(*KEY, "reward")
    sampled = responses.filter(pl.col("error").is_null()).select(*KEY, token_count, "finish_reason")
    fresh = scored.join(sampled, on=KEY, maintain_order="left").select(COLUMNS)
    kept = carried.join(fresh, on="prompt_id", how="anti", maintain_order="left").select(COLUMNS)
    return fresh.merge_sorted(kept, key="prompt_id")


def pair(pl, pool):
    response = pl.col("sampled_iteration", "response_index")
    of = lambda name: lambda column: f"{name}_{column.removeprefix('response_')}"
    extremes = pool.group_by("prompt_id").agg(
        response.max_by("reward").name.map(of("chosen")), response.min_by("reward").name.map(of("rejected")),
        (pl.col("reward").max() - pl.col("reward").min()).alias("reward_gap"),
    )
    weight = 1 / (1 + (-pl.col("reward_gap")).exp())
    unknown = pl.lit(None, pl.Float64)
    of_reference = [unknown.alias(f"reference_logprob_{response}") for response in ("chosen", "rejected")]
    return extremes.filter(pl.col("reward_gap") > 0).with_columns(weight.alias("weight"), *of_reference).sort("prompt_id")


if __name__ == "__main__":
    main()
