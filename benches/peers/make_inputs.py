"""Writes what the measurements read: random models, prompts, pairs and tables, the same for every side and on every machine.

    python benches/peers/make_inputs.py DIR                                # models, prompts, pairs and the tables of 1,000,000 prompts
    python benches/peers/make_inputs.py DIR --only tables --prompts 10000000
    python benches/peers/make_inputs.py DIR --only models --model llama-1b

benches/README.md says what the files hold. Knows nothing of what is measured on them.
"""

import argparse
import json
from pathlib import Path

import numpy as np
import pyarrow as arrow
import pyarrow.parquet

SHAPES = {
    "llama-15m": {
        "hidden_size": 288, "num_hidden_layers": 6, "num_attention_heads": 6, "num_key_value_heads": 6, "intermediate_size": 768, "vocab_size": 32_000,
    },
    "llama-135m": {
        "hidden_size": 576, "num_hidden_layers": 30, "num_attention_heads": 9, "num_key_value_heads": 3, "intermediate_size": 1_536, "vocab_size": 49_152,
    },
    "llama-1b": {
        "hidden_size": 2_048, "num_hidden_layers": 16, "num_attention_heads": 32, "num_key_value_heads": 8, "intermediate_size": 8_192, "vocab_size": 128_256,
    },
}
# What is added to a shape's name where weights are of bf16, as most models are published.
BF16 = "-bf16"
# For graphics cards: the processor's measurements do without it.
LARGE = ["llama-1b"]
SMALLEST_VOCABULARY = min(shape["vocab_size"] for shape in SHAPES.values())
SEED = 17
PAIRS, PAIR_PROMPT_TOKENS, PAIR_RESPONSE_TOKENS = 8, 32, 96
RESPONSES_PER_PROMPT = 4
# Prompts in one row group of a table: of 10,000,000, only a few are in memory at a time.
CHUNK = 250_000
MESSAGES = arrow.list_(arrow.struct([("role", arrow.string()), ("content", arrow.string())]))
COMPONENTS = arrow.map_(arrow.string(), arrow.float64())


def write_model(folder, shape, dtype):
    """A Hugging Face directory, with weights of as many digits as `dtype` has. Its weights are as large as their inputs are many, so that every layer says something, and the most probable token
    depends on all of the context: with the small weights that models are usually initialised with it would be the last token once more."""
    import torch
    import transformers

    config = transformers.LlamaConfig(
        **shape, max_position_embeddings=2_048, tie_word_embeddings=True, bos_token_id=None, eos_token_id=None, pad_token_id=None, rms_norm_eps=1e-5,
    )
    model = transformers.LlamaForCausalLM(config)
    generator = torch.Generator().manual_seed(SEED)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith("norm.weight"):
                continue
            deviation = 0.02 if "embed_tokens" in name else parameter.shape[1] ** -0.5
            parameter.normal_(0, deviation, generator=generator)
    model.to(dtype).save_pretrained(folder)
    model.float()
    write_tokenizer(folder / "tokenizer.json", shape["vocab_size"])
    write_pairs(folder / "pairs.json", model)


def write_tokenizer(path, size):
    """Words are the ids' digits: the measurements work on ids, but a checkpoint has a tokenizer."""
    from tokenizers import Tokenizer, models, pre_tokenizers

    tokenizer = Tokenizer(models.WordLevel({str(token): token for token in range(size)}, unk_token="0"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer.save(str(path))


def write_pairs(path, model):
    """Pairs whose reference is `model` itself, so that the first loss is the mean weight times ln 2."""
    import torch

    random = np.random.default_rng([SEED, 1])
    prompt = random.integers(SMALLEST_VOCABULARY, size=(PAIRS, PAIR_PROMPT_TOKENS))
    chosen, rejected = random.integers(SMALLEST_VOCABULARY, size=(2, PAIRS, PAIR_RESPONSE_TOKENS))
    weight = 1 / (1 + np.exp(-random.exponential(1.0, PAIRS)))

    def logprobs(response):
        ids = torch.tensor(np.concatenate([prompt, response], axis=1))
        with torch.no_grad():
            every = model(ids).logits[:, PAIR_PROMPT_TOKENS - 1 : -1].double().log_softmax(-1)
        return every.gather(2, ids[:, PAIR_PROMPT_TOKENS:, None]).sum((1, 2)).tolist()

    write_json(path, {
        "prompt": prompt.tolist(), "chosen": chosen.tolist(), "rejected": rejected.tolist(), "weight": weight.tolist(),
        "reference_chosen": logprobs(chosen), "reference_rejected": logprobs(rejected),
    })


def write_prompts(folder):
    random = np.random.default_rng([SEED, 2])
    write_json(folder / "prompts.json", {"prompts": random.integers(SMALLEST_VOCABULARY, size=(256, 16)).tolist()})
    prompts = []
    for length in random.integers(8, 121, size=256):
        response_tokens = np.minimum(random.geometric(1 / 40, RESPONSES_PER_PROMPT), 128)
        prompts.append({"token_ids": random.integers(SMALLEST_VOCABULARY, size=length).tolist(), "response_tokens": response_tokens.tolist()})
    write_json(folder / "workload.json", {"prompts": prompts})


def write_json(path, value):
    path.write_text(json.dumps(value) + "\n")


def prompt_ids(numbers):
    """Sixteen hexadecimal digits each, as an Arrow array of texts."""
    nibbles = numbers[:, None] >> np.arange(60, -4, -4, dtype=np.uint64) & np.uint64(15)
    digits = np.frombuffer(b"0123456789abcdef", np.uint8)[nibbles]
    offsets = np.arange(0, 16 * (len(numbers) + 1), 16, dtype=np.int32)
    return arrow.StringArray.from_buffers(len(numbers), arrow.py_buffer(offsets), arrow.py_buffer(digits.tobytes()))


def write_tables(folder, count):
    """`prompts` in random order, the last iteration's `pool`, and `responses` and `rewards` of the half of the prompts that select will choose."""
    folder.mkdir(parents=True, exist_ok=True)
    random = np.random.default_rng([SEED, 3, count])
    # Odd times a number, modulo 2^64, names no two prompts alike.
    names = np.arange(1, count + 1, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)
    random.shuffle(names)
    prompts = lambda rows: rows.stop - rows.start
    responses = lambda rows: prompts(rows) * RESPONSES_PER_PROMPT
    write_table(folder / "prompts.parquet", count, lambda rows: {
        "prompt_id": prompt_ids(names[rows]), "prompt": arrow.repeat("a prompt", prompts(rows)), "messages": arrow.nulls(prompts(rows), MESSAGES),
        **{name: arrow.nulls(prompts(rows), arrow.string()) for name in ["reference_answer", "group", "metadata"]},
    })
    names.sort()
    # Sixty-fourths: their sums and means are exact, so that every engine finds the same ties.
    rewards = np.round(random.normal(size=(count, RESPONSES_PER_PROMPT)) * 64) / 64
    write_table(folder / "pool.parquet", count, lambda rows: {
        **every_response(names[rows]), "sampled_iteration": arrow.repeat(np.int32(1), responses(rows)),
        "reward": arrow.array(rewards[rows].ravel()), "token_count": arrow.array(random.integers(1, 17, size=responses(rows), dtype=np.int32)),
        "finish_reason": arrow.repeat("stop", responses(rows)),
    })
    lowest = np.lexsort([names, rewards.mean(1)])[: (count + 1) // 2]
    selected = names[np.sort(lowest)]
    write_table(folder / "responses.parquet", len(selected), lambda rows: {
        **every_response(selected[rows]), "sampled_iteration": arrow.repeat(np.int32(2), responses(rows)),
        "token_ids": token_ids(random, responses(rows)), "prompt_token_count": arrow.repeat(np.int32(8), responses(rows)), "text": arrow.repeat("a response", responses(rows)),
        "finish_reason": arrow.repeat("stop", responses(rows)), "logprob": arrow.array(-random.exponential(20.0, responses(rows))),
        "policy_fingerprint": arrow.repeat("0" * 64, responses(rows)), "error": arrow.nulls(responses(rows), arrow.string()),
    })
    write_table(folder / "rewards.parquet", len(selected), lambda rows: {
        **every_response(selected[rows]), "sampled_iteration": arrow.repeat(np.int32(2), responses(rows)),
        "reward": arrow.array(np.round(random.normal(size=responses(rows)) * 64) / 64), "reward_fingerprint": arrow.repeat("0" * 64, responses(rows)),
        "components": arrow.nulls(responses(rows), COMPONENTS), "error": arrow.nulls(responses(rows), arrow.string()),
    })


def every_response(names):
    """The key's prompt_id and response_index, RESPONSES_PER_PROMPT rows a prompt."""
    indices = np.tile(np.arange(RESPONSES_PER_PROMPT, dtype=np.int32), len(names))
    return {"prompt_id": prompt_ids(np.repeat(names, RESPONSES_PER_PROMPT)), "response_index": arrow.array(indices)}


def token_ids(random, count):
    """Eight tokens of the prompt and 1 to 16 of the response."""
    offsets = np.concatenate([[0], np.cumsum(random.integers(9, 25, size=count))]).astype(np.int32)
    return arrow.ListArray.from_arrays(offsets, arrow.array(random.integers(SMALLEST_VOCABULARY, size=offsets[-1], dtype=np.int32)))


def write_table(path, count, columns):
    """Writes the `columns` of `count` prompts, a slice of them at a time, as the crate writes its own tables."""
    writer = None
    for start in range(0, count, CHUNK):
        table = arrow.table(columns(slice(start, min(start + CHUNK, count))))
        writer = writer or arrow.parquet.ParquetWriter(path, table.schema, compression="zstd", compression_level=3)
        writer.write_table(table)
    writer.close()


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--only", choices=["models", "prompts", "tables"])
    models = [name + suffix for name in SHAPES for suffix in ("", BF16)]
    parser.add_argument("--model", action="append", choices=models, help="which models; without it, all but the large ones and those of bf16")
    parser.add_argument("--prompts", type=int, default=1_000_000, help="rows of the table of prompts")
    arguments = parser.parse_args()
    wanted = [arguments.only] if arguments.only else ["models", "prompts", "tables"]
    arguments.folder.mkdir(parents=True, exist_ok=True)
    if "models" in wanted:
        for name in arguments.model or [name for name in SHAPES if name not in LARGE]:
            import torch

            write_model(arguments.folder / name, SHAPES[name.removesuffix(BF16)], torch.bfloat16 if name.endswith(BF16) else torch.float32)
    if "prompts" in wanted:
        write_prompts(arguments.folder)
    if "tables" in wanted:
        write_tables(arguments.folder / "tables" / str(arguments.prompts), arguments.prompts)


if __name__ == "__main__":
    main()
