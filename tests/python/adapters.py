"""Makes the adapters of `tests/adapters/`: PEFT's kinds of LoRA, with random values, and what PEFT computes with each of them.

    python tests/python/adapters.py

Every folder holds an adapter as PEFT saves it, for a base in `tests/lora/tiny`, `tests/families/llama2` or `tests/adapters/tied`, and a
golden.json: token ids, the logits of all their positions (or the reward at the last one), and of each parameter of the merged model two
numbers: its sum with the weights cos(0), cos(1), … and the sum of its absolute values. All in float32.
"""

import json
import shutil
from pathlib import Path

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification, LlamaConfig, LlamaForCausalLM

TESTS = Path(__file__).resolve().parent.parent
FOLDER = TESTS / "adapters"
IDS = [1, 5, 9, 12, 30, 2, 33, 8, 8, 21]
ALL = {"target_modules": "all-linear"}
# name: (base, settings)
ADAPTERS = {
    "rslora": ("lora/tiny", {"r": 4, "lora_alpha": 3, "use_rslora": True} | ALL),
    "dora": ("lora/tiny", {"r": 3, "lora_alpha": 7, "use_dora": True} | ALL),
    "dora_with_biases": ("families/llama2", {"r": 2, "lora_alpha": 5, "use_dora": True, "use_rslora": True, "rank_pattern": {"o_proj": 3}} | ALL),
    # The first match counts. PEFT writes its patterns in alphabetical order, so they are in it here too.
    "patterns": ("lora/tiny", {
        "r": 3, "lora_alpha": 4, "rank_pattern": {r".*1\.self_attn\.q_proj": 5, r"layers\.0\..*\.(up|down)_proj": 1, "q_proj": 2},
        "alpha_pattern": {r"layers\.[01]\.mlp\.gate_proj": 0.5, "model.layers.1.self_attn.v_proj": 9},
    } | ALL),
    "regex": ("lora/tiny", {"r": 2, "lora_alpha": 4, "target_modules": r"model\.layers\.(?!0\.)\d+\.(self_attn\.(q|v)_proj|mlp\..*_proj)(?<!gate_proj)"}),
    "names": ("lora/tiny", {"r": 2, "lora_alpha": 4, "target_modules": ["layers.0.self_attn.q_proj", "model.layers.1.mlp.up_proj", "o_proj", "absent"]}),
    "excluded_names": ("lora/tiny", {"r": 2, "lora_alpha": 4, "exclude_modules": ["k_proj", "layers.0.mlp.down_proj"]} | ALL),
    "excluded_regex": ("lora/tiny", {"r": 2, "lora_alpha": 4, "exclude_modules": r".*\.1\.mlp\..*"} | ALL),
    "layers": ("lora/tiny", {"r": 2, "lora_alpha": 4, "target_modules": ["q_proj", "down_proj"], "layers_to_transform": [1], "layers_pattern": "layers"}),
    "saved": ("lora/tiny", {"r": 2, "lora_alpha": 4, "modules_to_save": ["embed_tokens", "lm_head"]} | ALL),
    "saved_norms": ("lora/tiny", {"r": 2, "lora_alpha": 4, "target_modules": ["q_proj"], "modules_to_save": ["norm"]}),
    "saved_module": ("lora/tiny", {"r": 2, "lora_alpha": 4, "modules_to_save": ["layers.1.mlp"], "fan_in_fan_out": True} | ALL),
    "tied_embedding": ("adapters/tied", {"r": 2, "lora_alpha": 4, "target_modules": ["v_proj"], "modules_to_save": ["embed_tokens"]}),
    "tied_head": ("adapters/tied", {"r": 2, "lora_alpha": 4, "target_modules": ["v_proj"], "modules_to_save": ["lm_head"]}),
    "tied": ("adapters/tied", {"r": 2, "lora_alpha": 4, "use_dora": True} | ALL),
    "classifier": ("lora/tiny", {"r": 2, "lora_alpha": 4, "target_modules": ["q_proj", "up_proj"], "task_type": "SEQ_CLS"}),
}


def tied_base():
    torch.manual_seed(6)
    config = LlamaConfig(
        vocab_size=40, hidden_size=8, intermediate_size=12, num_hidden_layers=1, num_attention_heads=2, num_key_value_heads=1, head_dim=4,
        max_position_embeddings=64, tie_word_embeddings=True, bos_token_id=1, eos_token_id=2, initializer_range=0.4,
    )
    LlamaForCausalLM(config).save_pretrained(FOLDER / "tied_base")
    (FOLDER / "tied_base" / "generation_config.json").unlink()
    (FOLDER / "tied_base" / "model.safetensors").chmod(0o644)


def load(base, task):
    if task == "SEQ_CLS":
        torch.manual_seed(1)
        return AutoModelForSequenceClassification.from_pretrained(base, num_labels=1, dtype=torch.float32, attn_implementation="eager")
    return AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32, attn_implementation="eager")


def rounded(tensor):
    return [float(f"{value:.7g}") for value in tensor.flatten().tolist()]


def make(name, base, settings, seed):
    base = FOLDER / "tied_base" if base == "adapters/tied" else TESTS / base
    task = settings.setdefault("task_type", "CAUSAL_LM")
    model = get_peft_model(load(base, task), LoraConfig(**settings))
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter_name, parameter in model.named_parameters():
            if parameter.requires_grad:
                noise = torch.randn(parameter.shape, generator=generator)
                is_lora = "lora_A" in parameter_name or "lora_B" in parameter_name
                parameter.copy_(0.3 * noise if is_lora else parameter * (1 + 0.2 * noise))
    folder = FOLDER / name
    model.save_pretrained(folder, save_embedding_layers=False)
    (folder / "README.md").unlink()
    path = folder / "adapter_config.json"
    config = json.loads(path.read_text())
    # A place that is the same on every machine, and a fixed order: PEFT's targets are a set.
    config["base_model_name_or_path"] = str(base.relative_to(TESTS))
    for key in ("target_modules", "exclude_modules"):
        if isinstance(config.get(key), list):
            config[key] = sorted(config[key])
    path.write_text(json.dumps(config, indent=2) + "\n")
    (folder / "adapter_model.safetensors").chmod(0o644)

    model = PeftModel.from_pretrained(load(base, task), folder).eval()
    merged = PeftModel.from_pretrained(load(base, task), folder).eval().merge_and_unload()

    def results(model):
        with torch.no_grad():
            if task == "SEQ_CLS":
                base = model.base_model.model if isinstance(model, PeftModel) else model
                return base.score(base.model(torch.tensor([IDS])).last_hidden_state)[0, -1]
            return model(torch.tensor([IDS])).logits[0]

    found = results(model)
    assert torch.allclose(found, results(merged), atol=2e-5), name
    parameters = {}
    for parameter_name, parameter in merged.named_parameters(remove_duplicate=False):
        values = parameter.detach().double().flatten()
        weights = torch.cos(torch.arange(len(values), dtype=torch.float64))
        parameters[parameter_name] = rounded(torch.stack([(values * weights).sum(), values.abs().sum()]))
    golden = {"base": config["base_model_name_or_path"], "ids": IDS, "results": rounded(found), "merged": parameters}
    (folder / "golden.json").write_text(json.dumps(golden, separators=(",", ":")) + "\n")
    print(f"{name}: {sum(p.numel() for p in model.parameters() if p.requires_grad)} trained in inference mode, {found.std():.2f}")


def main():
    shutil.rmtree(FOLDER, ignore_errors=True)
    FOLDER.mkdir()
    tied_base()
    for seed, (name, (base, settings)) in enumerate(ADAPTERS.items()):
        make(name, base, dict(settings), seed)


if __name__ == "__main__":
    main()
