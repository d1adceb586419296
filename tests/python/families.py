"""Makes the tiny models of `tests/families/`: one a family and head, with random weights, and what Hugging Face transformers computes
with each of them.

    python tests/python/families.py

Every folder holds a checkpoint as transformers saves it (some with the `config.json` of transformers 4, some in half precision, one in
shards), a tokenizer of 64 words, and a golden.json: token ids of rows of different lengths, and for each row the logits of all its
positions, or its reward, computed in float32 from the saved files, each row alone and without padding.
"""

import copy
import json
import shutil
from pathlib import Path

import torch
import transformers

FOLDER = Path(__file__).resolve().parent.parent / "families"
VOCABULARY = 64
EOS = 2
# Some hold the end token inside; some end in it, which is also the padding of the reward models.
ROWS = [[1, 5, 9, 12, 40, 2, 33, 8, 8, 61, 17, 3, 25], [1, 2], [1, 44, 7, 7, 30, 11, 2], [1], [1, 63, 18, 4, 52, 29, 10, 36, 21, 2]]
SHAPE = {
    "vocab_size": VOCABULARY, "hidden_size": 32, "intermediate_size": 40, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "max_position_embeddings": 128, "bos_token_id": 1, "eos_token_id": EOS, "pad_token_id": EOS,
}
LLAMA3 = {"rope_type": "llama3", "rope_theta": 5e3, "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 16}
# The families from here on are smaller, to keep the folder small.
SMALL = {"hidden_size": 16, "intermediate_size": 24, "num_attention_heads": 4, "num_key_value_heads": 2}
YARN = {"rope_type": "yarn", "rope_theta": 1e4, "factor": 4.0, "original_max_position_embeddings": 16, "beta_fast": 4.0, "beta_slow": 0.5}
OLMO3_YARN = {"rope_type": "yarn", "factor": 8.0, "original_max_position_embeddings": 16, "attention_factor": 1.2079441541679836}
LONGROPE = {"rope_type": "longrope", "short_factor": [1.0, 1.7], "long_factor": [2.0, 4.0]}
GEMMA = SMALL | {"head_dim": 8, "sliding_window": 4, "query_pre_attn_scalar": 24}
GEMMA3 = GEMMA | {
    "num_hidden_layers": 3, "layer_types": ["sliding_attention", "sliding_attention", "full_attention"],
    "rope_parameters": {
        "full_attention": {"rope_type": "linear", "factor": 4.0, "rope_theta": 1e6},
        "sliding_attention": {"rope_type": "default", "rope_theta": 1e2},
    },
}
# As Phi-4-mini: heads rotated in part, angles for the original context of 64 tokens.
PHI4 = SMALL | {
    "hidden_size": 32, "original_max_position_embeddings": 64, "rope_parameters": LONGROPE | {"rope_theta": 1e4, "partial_rotary_factor": 0.5},
}
OLMO3 = SMALL | {
    "sliding_window": 4, "layer_types": ["sliding_attention", "full_attention"],
    "rope_parameters": {"full_attention": OLMO3_YARN | {"rope_theta": 5e5}, "sliding_attention": {"rope_type": "default", "rope_theta": 5e5}},
}
GRANITE = SMALL | {"embedding_multiplier": 3.0, "attention_multiplier": 0.5, "residual_multiplier": 0.4, "logits_scaling": 2.0}
# name: (family, settings, dtype on disk, how it is written)
MODELS = {
    "llama2": ("Llama", {"attention_bias": True, "mlp_bias": True}, "float32", ["old config", "shards"]),
    "llama3": ("Llama", {"rope_parameters": LLAMA3, "tie_word_embeddings": True, "num_key_value_heads": 1}, "bfloat16", ["old config"]),
    "mistral": ("Mistral", {"sliding_window": 4, "head_dim": 12}, "float32", []),
    "qwen2": ("Qwen2", {"use_sliding_window": True, "sliding_window": 3, "max_window_layers": 1, "tie_word_embeddings": True}, "bfloat16", ["old config"]),
    "qwen3": ("Qwen3", {"head_dim": 16, "rope_parameters": {"rope_type": "default", "rope_theta": 1e5}}, "float32", []),
    "smollm3": ("SmolLM3", {"num_hidden_layers": 3, "no_rope_layer_interval": 2, "use_sliding_window": True, "sliding_window": 5}, "float16", []),
    "llama3_reward": ("Llama", {"rope_parameters": LLAMA3}, "bfloat16", []),
    "mistral_reward": ("Mistral", {"sliding_window": 4}, "float16", ["old config"]),
    "qwen2_reward": ("Qwen2", {}, "bfloat16", []),
    "qwen3_reward": ("Qwen3", {"head_dim": 16, "attention_bias": True, "use_sliding_window": True, "sliding_window": 3,
                               "layer_types": ["sliding_attention", "full_attention"]}, "bfloat16", ["old config"]),
    "smollm3_reward": ("SmolLM3", {"num_hidden_layers": 3, "no_rope_layers": [0, 1, 1], "attention_bias": True, "mlp_bias": True}, "bfloat16", []),
    "llama_linear": ("Llama", SMALL | {"rope_parameters": {"rope_type": "linear", "rope_theta": 1e4, "factor": 3.0}}, "bfloat16", ["old config"]),
    "llama_dynamic": ("Llama", SMALL | {"rope_parameters": {"rope_type": "dynamic", "rope_theta": 1e4, "factor": 4.0}}, "bfloat16", []),
    "qwen2_yarn": ("Qwen2", SMALL | {"rope_parameters": YARN}, "bfloat16", ["old config"]),
    "olmo2": ("Olmo2", SMALL, "bfloat16", []),
    "olmo3": ("Olmo3", OLMO3, "bfloat16", ["old config"]),
    "phi3": ("Phi3", SMALL | {"sliding_window": 5}, "bfloat16", []),
    "phi4_mini": ("Phi3", PHI4 | {"tie_word_embeddings": True}, "bfloat16", ["old config"]),
    "granite": ("Granite", GRANITE | {"tie_word_embeddings": True}, "bfloat16", ["old config"]),
    "gemma2": ("Gemma2", GEMMA | {"attn_logit_softcapping": 1.5, "final_logit_softcapping": 4.0}, "bfloat16", ["old config"]),
    "gemma3": ("Gemma3", GEMMA3, "bfloat16", []),
    "olmo2_reward": ("Olmo2", SMALL | {"attention_bias": True}, "bfloat16", ["old config"]),
    "olmo3_reward": ("Olmo3", OLMO3, "bfloat16", []),
    "phi3_reward": ("Phi3", SMALL | {"tie_word_embeddings": False}, "bfloat16", ["old config"]),
    "phi4_mini_reward": ("Phi3", PHI4, "bfloat16", []),
    "gemma2_reward": ("Gemma2", GEMMA | {"attn_logit_softcapping": 1.5, "attention_bias": True}, "bfloat16", []),
    "gemma3_reward": ("Gemma3", GEMMA3 | {"sliding_window_pattern": 3}, "bfloat16", ["old config"]),
}


def randomize(model, generator):
    """Gives every parameter random values, biases and norms too, so that leaving one out cannot go unnoticed."""
    # Gemma adds 1 to the weights of its norms.
    norm = 0 if type(model).__name__.startswith("Gemma") else 1
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            noise = torch.randn(parameter.shape, generator=generator)
            parameter.copy_(norm + 0.3 * noise if name.endswith("norm.weight") else 0.25 * noise)


def as_transformers_4(path, settings):
    """Rewrites a config.json in the words of transformers 4."""
    config = json.loads(path.read_text())
    if "layer_types" not in settings:
        config.pop("layer_types", None)
    rope = config.pop("rope_parameters")
    if "full_attention" in rope:
        # One for layers without a window, which transformers 4 has in the usual place, and one for those with one.
        local, rope = rope["sliding_attention"], rope["full_attention"]
        if config["model_type"] == "gemma3_text":
            config["rope_local_base_freq"] = local["rope_theta"]
            config.pop("layer_types")
    partial = rope.pop("partial_rotary_factor", 1.0)
    if partial != 1.0:
        config["partial_rotary_factor"] = partial
    config["rope_theta"] = rope.pop("rope_theta")
    config["rope_scaling"] = None if rope["rope_type"] == "default" else rope
    config["torch_dtype"] = config.pop("dtype")
    config["transformers_version"] = "4.51.0"
    path.write_text(json.dumps(config, indent=2) + "\n")


def tokenizer():
    words = ["<unk>", "<s>", "</s>"] + [f"w{number}" for number in range(3, VOCABULARY)]
    special = [
        {"id": at, "content": word, "single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
        for at, word in enumerate(words[:3])
    ]
    return {
        "version": "1.0", "truncation": None, "padding": None, "added_tokens": special, "normalizer": None,
        "pre_tokenizer": {"type": "WhitespaceSplit"}, "post_processor": None, "decoder": None,
        "model": {"type": "WordLevel", "vocab": {word: at for at, word in enumerate(words)}, "unk_token": "<unk>"},
    }


def rounded(tensor):
    return [float(f"{value:.7g}") for value in tensor.flatten().tolist()]


def make(name, family, settings, dtype, ways, seed):
    folder = FOLDER / name
    reward = name.endswith("_reward")
    head = "ForSequenceClassification" if reward else "ForCausalLM"
    config_class = "Gemma3TextConfig" if family == "Gemma3" else f"{family}Config"
    config = getattr(transformers, config_class)(**copy.deepcopy(SHAPE | settings | ({"num_labels": 1} if reward else {})))
    # Gemma 3's names with and without images differ from class to class.
    prefix = f"{family}Text" if family == "Gemma3" and reward else family
    model_class = getattr(transformers, f"{prefix}{head}")
    model = model_class(config)
    randomize(model, torch.Generator().manual_seed(seed))
    model.generation_config = None if reward else model.generation_config
    model.to(getattr(torch, dtype)).save_pretrained(folder, max_shard_size="24KB" if "shards" in ways else "5GB")
    for weights in folder.glob("*.safetensors"):
        weights.chmod(0o644)
    if "old config" in ways:
        as_transformers_4(folder / "config.json", settings)
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer(), separators=(",", ":")) + "\n")

    model = model_class.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager").eval()
    with torch.no_grad():
        if reward:
            # By length: transformers itself looks for the last token that is not the padding's.
            results = [model.score(model.model(torch.tensor([row])).last_hidden_state)[0, -1] for row in ROWS]
            for row, score in zip(ROWS, results):
                assert row[-1] == EOS or torch.allclose(model(torch.tensor([row])).logits[0], score), name
        else:
            results = [model(torch.tensor([row])).logits[0] for row in ROWS]
    golden = {"rows": ROWS, "rewards" if reward else "logits": [rounded(result) for result in results]}
    (folder / "golden.json").write_text(json.dumps(golden, separators=(",", ":")) + "\n")
    spread = torch.cat([result.flatten() for result in results]).std().item()
    print(f"{name}: {model.num_parameters()} parameters, {dtype}, standard deviation of the results {spread:.2f}")


def make_with_images(name, seed):
    """Gemma 3 with images, its config.json and the names of its weights as on the hub. The logits are those of text alone."""
    folder = FOLDER / name
    images = transformers.SiglipVisionConfig(hidden_size=8, intermediate_size=8, num_hidden_layers=1, num_attention_heads=1, image_size=8, patch_size=4)
    config = transformers.Gemma3Config(
        text_config=copy.deepcopy(SHAPE | GEMMA3), vision_config=images, mm_tokens_per_image=4, image_token_index=6, boi_token_index=13, eoi_token_index=14
    )
    model = transformers.Gemma3ForConditionalGeneration(config)
    randomize(model, torch.Generator().manual_seed(seed))
    model.to(torch.bfloat16).save_pretrained(folder)
    (folder / "model.safetensors").chmod(0o644)
    path = folder / "config.json"
    written = json.loads(path.read_text())
    for key in ("bos_token_id", "eos_token_id", "pad_token_id"):
        written[key] = SHAPE[key]
        written["text_config"].pop(key, None)
    written["text_config"].pop("architectures", None)
    path.write_text(json.dumps(written, indent=2) + "\n")
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer(), separators=(",", ":")) + "\n")
    model = transformers.Gemma3ForConditionalGeneration.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager").eval()
    with torch.no_grad():
        results = [model(input_ids=torch.tensor([row])).logits[0] for row in ROWS]
    golden = {"rows": ROWS, "logits": [rounded(result) for result in results]}
    (folder / "golden.json").write_text(json.dumps(golden, separators=(",", ":")) + "\n")
    print(f"{name}: {model.num_parameters()} parameters")


def main():
    for seed, (name, (family, settings, dtype, ways)) in enumerate(MODELS.items()):
        shutil.rmtree(FOLDER / name, ignore_errors=True)
        make(name, family, settings, dtype, ways, seed)
    shutil.rmtree(FOLDER / "gemma3_images", ignore_errors=True)
    make_with_images("gemma3_images", len(MODELS))


if __name__ == "__main__":
    main()
