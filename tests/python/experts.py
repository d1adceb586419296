"""Makes the tiny models with routed experts of `tests/families/`, and what transformers, TRL and PEFT compute with each of them.

    python tests/python/experts.py

Every folder is as `families.py` makes it. One model has its experts in transformers 5's own tensors, the others in the older names, which
`save_pretrained` writes. Beside golden.json, a language model has experts.json:

- `greedy`: token ids that `generate` appends to the rows, with a cache, each row alone;
- `dpo`: three steps of TRL's DPOTrainer in float32 without weight decay, which it leaves out for norms, and without the router's auxiliary
  loss: losses, gradient norms, and the logits after the steps;
- `lora`: logits with the adapter in `lora/`, which PEFT loads from the older names of experts.
"""

import json
import shutil
import sys
import tempfile
from pathlib import Path

import torch
import transformers
from safetensors.torch import save_file

sys.path.insert(0, str(Path(__file__).resolve().parent))
import families

SHAPE = {"hidden_size": 16, "intermediate_size": 12, "num_local_experts": 4, "num_experts_per_tok": 2, "max_position_embeddings": 128}
QWEN = {"moe_intermediate_size": 12, "head_dim": 8}
NEW_TOKENS = 12
# PyTorch's grouped products round more.
EAGER = {"attn_implementation": "eager", "experts_implementation": "eager"}
BETA, LEARNING_RATE, STEPS = 0.1, 1e-3, 3
# name: (family, settings, dtype on disk, how it is written)
MODELS = {
    "mixtral": ("Mixtral", {"sliding_window": 4}, "float32", ["old config", "shards"]),
    "qwen3_moe": ("Qwen3Moe", QWEN | {"num_hidden_layers": 3, "intermediate_size": 20, "norm_topk_prob": True, "mlp_only_layers": [1], "attention_bias": True,
                                      "tie_word_embeddings": True}, "bfloat16", ["old config"]),
    "qwen3_moe_fused": ("Qwen3Moe", QWEN | {"num_local_experts": 5, "num_experts_per_tok": 3, "decoder_sparse_step": 2, "use_sliding_window": True,
                                            "sliding_window": 3}, "float32", ["fused"]),
    "qwen3_moe_lora": ("Qwen3Moe", QWEN | {"num_hidden_layers": 1, "num_local_experts": 3, "norm_topk_prob": True}, "bfloat16", []),
    "mixtral_reward": ("Mixtral", {"num_local_experts": 3}, "float16", ["fused"]),
    "qwen3_moe_reward": ("Qwen3Moe", QWEN | {"num_local_experts": 6, "num_experts_per_tok": 1}, "bfloat16", []),
}
# PEFT passes over the MLPs of layers without experts, so the second model has none.
ADAPTED = {"mixtral": ["q_proj", "w1", "w2", "w3"], "qwen3_moe_lora": ["v_proj", "gate_proj", "up_proj", "down_proj"]}


def least_margin(model):
    """How far apart the probabilities of the last chosen expert and the first other one are, at least, over all rows."""
    margins = []

    def look(module, _, output):
        probabilities = output[0].float().softmax(-1).sort(-1, descending=True).values
        margins.append((probabilities[:, module.top_k - 1] - probabilities[:, module.top_k]).min().item())

    hooks = [module.register_forward_hook(look) for name, module in model.named_modules() if name.endswith("mlp.gate")]
    with torch.no_grad():
        for row in families.ROWS:
            model.model(torch.tensor([row]))
    [hook.remove() for hook in hooks]
    return min(margins)


def old_experts(path):
    """Calls the number of experts of Qwen3-MoE as transformers 4 does."""
    config = json.loads(path.read_text())
    if config["model_type"] == "qwen3_moe":
        config["num_experts"] = config.pop("num_local_experts")
    path.write_text(json.dumps(config, indent=2) + "\n")


def greedy(model):
    found = []
    for row in families.ROWS[:3]:
        ids = torch.tensor([row])
        options = {"do_sample": False, "max_new_tokens": NEW_TOKENS, "eos_token_id": None, "pad_token_id": 0, "attention_mask": torch.ones_like(ids)}
        found.append(model.generate(ids, **options)[0, len(row):].tolist())
    return found


def dpo(folder):
    from datasets import Dataset
    from trl import DPOConfig, DPOTrainer

    words = lambda *ids: " ".join(f"w{at}" for at in ids)
    rows = [
        (words(5, 9, 12), words(20, 33, 8, 41), words(7, 7)), (words(44, 30), words(11, 25, 60), words(3, 50, 51, 52, 53)),
        (words(63, 18, 4, 52), words(29), words(10, 36, 21)), (words(6), words(14, 15, 16, 17, 18, 19), words(40, 39, 38, 37)),
    ]
    data = Dataset.from_list([{"prompt": prompt + " ", "chosen": chosen, "rejected": rejected} for prompt, chosen, rejected in rows])
    tokenizer = transformers.PreTrainedTokenizerFast(tokenizer_file=str(folder / "tokenizer.json"), bos_token="<s>", eos_token="</s>", pad_token="<unk>")
    load = lambda: transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, **EAGER)
    with tempfile.TemporaryDirectory() as out:
        config = DPOConfig(
            output_dir=out, per_device_train_batch_size=4, max_steps=STEPS, learning_rate=LEARNING_RATE, lr_scheduler_type="constant", beta=BETA,
            weight_decay=0.0, max_grad_norm=1e9, logging_steps=1, use_cpu=True, bf16=False, report_to=[], save_strategy="no", optim="adamw_torch",
            router_aux_loss_coef=0.0, gradient_checkpointing=False, disable_tqdm=True, seed=1,
        )
        trainer = DPOTrainer(model=load(), ref_model=load(), args=config, train_dataset=data, processing_class=tokenizer)
        seen = [{key: list(row[key]) for key in ("prompt_ids", "chosen_ids", "rejected_ids")} for row in trainer.train_dataset]
        trainer.train()
        logs = [entry for entry in trainer.state.log_history if "grad_norm" in entry]
        model = trainer.model.eval()
        with torch.no_grad():
            after = model(torch.tensor([families.ROWS[0]])).logits[0, -1]
    return {
        "beta": BETA, "learning_rate": LEARNING_RATE, "pairs": seen, "losses": [entry["loss"] for entry in logs],
        "gradient_norms": [entry["grad_norm"] for entry in logs], "sequence": families.ROWS[0], "logits_after": families.rounded(after),
    }


def lora(folder, targets, seed):
    """Writes an adapter in the names of transformers 4, and gives the logits that PEFT has with it."""
    from peft import PeftModel
    from safetensors import safe_open

    rank, alpha = 2, 4
    generator = torch.Generator().manual_seed(seed)
    weights, shapes = {}, {}
    for path in sorted(folder.glob("*.safetensors")):
        with safe_open(path, "pt") as file:
            shapes |= {name: file.get_slice(name).get_shape() for name in file.keys()}
    for name, shape in sorted(shapes.items()):
        projection = name.removesuffix(".weight")
        if projection.rsplit(".", 1)[-1] in targets:
            weights[f"base_model.model.{projection}.lora_A.weight"] = 0.5 * torch.randn(rank, shape[1], generator=generator)
            weights[f"base_model.model.{projection}.lora_B.weight"] = 0.5 * torch.randn(shape[0], rank, generator=generator)
    adapter = folder / "lora"
    adapter.mkdir()
    save_file(weights, adapter / "adapter_model.safetensors", metadata={"format": "pt"})
    settings = {
        "base_model_name_or_path": "..", "bias": "none", "inference_mode": True, "lora_alpha": alpha, "lora_dropout": 0.0, "peft_type": "LORA", "r": rank,
        "target_modules": sorted(targets), "task_type": "CAUSAL_LM",
    }
    (adapter / "adapter_config.json").write_text(json.dumps(settings, indent=2) + "\n")
    base = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, **EAGER)
    model = PeftModel.from_pretrained(base, adapter).eval()
    with torch.no_grad():
        return {"sequence": families.ROWS[0], "logits": families.rounded(model(torch.tensor([families.ROWS[0]])).logits[0])}


def make(name, family, settings, dtype, ways, seed):
    folder = families.FOLDER / name
    shutil.rmtree(folder, ignore_errors=True)
    reward = name.endswith("_reward")
    model_class = getattr(transformers, family + ("ForSequenceClassification" if reward else "ForCausalLM"))
    settings = families.SHAPE | SHAPE | settings | ({"num_labels": 1} if reward else {})
    model = model_class(getattr(transformers, f"{family}Config")(**settings))
    # The first seed with which no choice of experts hangs on rounding.
    for seed in range(seed, seed + 10_000, 100):
        families.randomize(model, torch.Generator().manual_seed(seed))
        with torch.no_grad():
            for parameter_name, parameter in model.named_parameters():
                if parameter_name.endswith("mlp.gate.weight"):
                    parameter.mul_(3)
        model.to(getattr(torch, dtype)).float()
        if (margin := least_margin(model)) > 1e-3:
            break
    model.generation_config = None if reward else model.generation_config
    size = "8KB" if "shards" in ways else "5GB"
    model.to(getattr(torch, dtype)).save_pretrained(folder, max_shard_size=size, save_original_format="fused" not in ways)
    for weights in folder.glob("*.safetensors"):
        weights.chmod(0o644)
    if "old config" in ways:
        families.as_transformers_4(folder / "config.json", settings)
        old_experts(folder / "config.json")
    (folder / "tokenizer.json").write_text(json.dumps(families.tokenizer(), separators=(",", ":")) + "\n")

    model = model_class.from_pretrained(folder, dtype=torch.float32, **EAGER).eval()
    with torch.no_grad():
        if reward:
            results = [model.score(model.model(torch.tensor([row])).last_hidden_state)[0, -1] for row in families.ROWS]
        else:
            results = [model(torch.tensor([row])).logits[0] for row in families.ROWS]
    golden = {"rows": families.ROWS, "rewards" if reward else "logits": [families.rounded(result) for result in results]}
    (folder / "golden.json").write_text(json.dumps(golden, separators=(",", ":")) + "\n")
    spread = torch.cat([result.flatten() for result in results]).std().item()
    print(f"{name}: {model.num_parameters()} parameters, {dtype}, standard deviation of the results {spread:.2f}, margin of a choice {margin:.1e}")
    if reward:
        return
    experts = {"greedy": greedy(model), "dpo": dpo(folder)}
    if name in ADAPTED:
        experts["lora"] = lora(folder, ADAPTED[name], seed)
    (folder / "experts.json").write_text(json.dumps(experts, separators=(",", ":")) + "\n")
    print(f"  losses {experts['dpo']['losses']}, norms {experts['dpo']['gradient_norms']}")


def main():
    for seed, (name, (family, settings, dtype, ways)) in enumerate(MODELS.items(), start=100):
        make(name, family, settings, dtype, ways, seed)


if __name__ == "__main__":
    main()
