"""Makes the checkpoints of `tests/checkpoints/`: one tiny model, written in the ways that transformers loads too.

    python tests/python/checkpoints.py

Every folder has a golden.json: token ids, and the logits that transformers computes of them in float32 after loading the folder.
"""

import json
import shutil
from pathlib import Path

import torch
import transformers
from safetensors.torch import load_file, save_file

FOLDER = Path(__file__).resolve().parent.parent / "checkpoints"
VOCABULARY = 24
IDS = [1, 5, 9, 12, 20, 2, 3, 8, 8, 23]
SHAPE = {
    "vocab_size": VOCABULARY, "hidden_size": 8, "intermediate_size": 12, "num_hidden_layers": 2, "num_attention_heads": 2,
    "num_key_value_heads": 1, "max_position_embeddings": 64, "bos_token_id": 1, "eos_token_id": 2, "initializer_range": 0.4,
}


def tokenizer(words, added=()):
    special = [
        {"id": at, "content": word, "single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
        for at, word in [*enumerate(words[:3]), *added]
    ]
    return {
        "version": "1.0", "truncation": None, "padding": None, "added_tokens": special, "normalizer": None,
        "pre_tokenizer": {"type": "WhitespaceSplit"}, "post_processor": None, "decoder": None,
        "model": {"type": "WordLevel", "vocab": {word: at for at, word in enumerate(words)}, "unk_token": "<unk>"},
    }


def words(count):
    return ["<unk>", "<s>", "</s>"] + [f"w{number}" for number in range(3, count)]


def save(name, tied, tensors=lambda tensors: tensors, config=lambda config: None, tokens=None, shards=None):
    """Writes the model with these changes, and the logits that transformers finds in it."""
    folder = FOLDER / name
    torch.manual_seed(7)
    model = transformers.LlamaForCausalLM(transformers.LlamaConfig(**SHAPE, tie_word_embeddings=tied)).eval()
    model.save_pretrained(folder)
    (folder / "generation_config.json").unlink()
    path = folder / "model.safetensors"
    changed = tensors(load_file(path))
    if shards is None:
        save_file(changed, path, {"format": "pt"})
        path.chmod(0o644)
    else:
        path.unlink()
        shards(folder, changed)
    path = folder / "config.json"
    settings = json.loads(path.read_text())
    config(settings)
    path.write_text(json.dumps(settings, indent=2) + "\n")
    (folder / "tokenizer.json").write_text(json.dumps(tokens or tokenizer(words(VOCABULARY)), separators=(",", ":")) + "\n")

    loaded = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager").eval()
    with torch.no_grad():
        logits, expected = loaded(torch.tensor([IDS])).logits[0], model(torch.tensor([IDS])).logits[0]
    assert torch.allclose(logits, expected, atol=1e-5), name
    rounded = [float(f"{value:.7g}") for value in logits.flatten().tolist()]
    (folder / "golden.json").write_text(json.dumps({"ids": IDS, "logits": rounded}, separators=(",", ":")) + "\n")
    print(name)


def bare(tensors):
    return {name.removeprefix("model."): tensor for name, tensor in tensors.items()}


def only_head(tensors):
    tensors["lm_head.weight"] = tensors.pop("model.embed_tokens.weight")
    return tensors


def wrong_index(folder, tensors):
    """Two shards, and an index with entries that no shard has and with one that is in the other shard."""
    names = sorted(tensors)
    weight_map = {}
    for shard, part in enumerate([names[: len(names) // 2], names[len(names) // 2 :]], 1):
        file = f"model-{shard:05}-of-00002.safetensors"
        save_file({name: tensors[name] for name in part}, folder / file, {"format": "pt"})
        (folder / file).chmod(0o644)
        weight_map |= {name: file for name in part}
    weight_map[names[0]] = weight_map[names[-1]]
    weight_map["model.layers.0.self_attn.rotary_emb.inv_freq"] = weight_map[names[0]]
    weight_map["vision.weight"] = weight_map[names[-1]]
    index = {"metadata": {"total_size": 0}, "weight_map": weight_map}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index, indent=1) + "\n")


def main():
    shutil.rmtree(FOLDER, ignore_errors=True)
    save("no_architectures", tied=False, config=lambda config: config.pop("architectures"))
    save("other_class", tied=False, config=lambda config: config.update(architectures=["LLaMAForCausalLM"]))
    save("no_prefix", tied=True, tensors=bare, config=lambda config: config.update(architectures=["LlamaModel"]))
    save("no_prefix_and_head", tied=False, tensors=bare)
    save("index", tied=False, shards=wrong_index)
    save("only_head", tied=True, tensors=only_head)
    save("doubles", tied=False, tensors=lambda tensors: {name: tensor.double() for name, tensor in tensors.items()},
         config=lambda config: config.update(dtype="float64"))
    save("one_id_beyond", tied=True, tokens=tokenizer(words(VOCABULARY + 1)))
    save("padding_beyond", tied=True, tokens=tokenizer(words(VOCABULARY), added=[(VOCABULARY, "[PAD]")]))


if __name__ == "__main__":
    main()
