"""Makes the adapters and numbers that the tests in tests/it/training/lora.rs compare with: DPO of a LoRA adapter by PEFT and PyTorch.

    python tests/python/lora_dpo.py new tests/lora/tiny                  a random Llama of 5,000 parameters
    python tests/python/lora_dpo.py tests/lora/tiny tests/lora/dora      DoRA with the factor of rsLoRA, on the same Llama
    python tests/python/lora_dpo.py tests/lora/tiny tests/lora/saved     patterns, and embedding, logits and a norm trained whole
    python tests/python/lora_dpo.py DIR/stories260K tests/lora/stories   a trained one; DIR is OPTUNE_REAL_DIR

Writes into the second folder: the base if it is new, `adapter/` as PEFT initialised and saved it, and `golden.json`: pairs of token
ids, the settings, the loss and the gradient norm of each of 20 AdamW steps on all pairs, and the first 32 logits after a sequence, from
the adapted model before and after. All in float64 on the float32 weights of base and adapter. The reference is the base: the same
model with the adapter off.
"""

import json
import random
import sys
from pathlib import Path

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from transformers import AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM
from weight_decay import groups

BETA, LEARNING_RATE, STEPS, PAIRS = 0.1, 3e-3, 20, 6
LORA = {
    "tiny": {"r": 4, "lora_alpha": 8, "target_modules": "all-linear"},
    "dora": {"r": 4, "lora_alpha": 8, "target_modules": "all-linear", "use_dora": True, "use_rslora": True},
    "saved": {
        "r": 3, "lora_alpha": 6, "target_modules": r"model\.layers\.\d+\.(?!mlp\.gate).*_proj", "exclude_modules": ["layers.1.self_attn.k_proj"],
        "rank_pattern": {r"layers\.1\..*_proj": 1, "q_proj": 2}, "alpha_pattern": {"mlp.up_proj": 9},
        "modules_to_save": ["embed_tokens", "lm_head", "model.norm"],
    },
    "stories": {"r": 2, "lora_alpha": 4, "target_modules": ["q_proj", "v_proj"]},
}


def new_base(folder):
    torch.manual_seed(5)
    config = LlamaConfig(
        vocab_size=40, hidden_size=16, intermediate_size=24, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2, head_dim=4,
        max_position_embeddings=64, tie_word_embeddings=False, bos_token_id=1, eos_token_id=2, initializer_range=0.3,
    )
    LlamaForCausalLM(config).save_pretrained(folder)
    (folder / "generation_config.json").unlink()


def pairs_of(vocabulary):
    """Token ids that look random and are the same everywhere: prompts of 3 to 6, responses of 4 to 12."""
    draw = random.Random(11)
    ids = lambda least, most: [draw.randrange(3, vocabulary) for _ in range(draw.randint(least, most))]
    return [{"prompt": [1] + ids(2, 5), "chosen": ids(4, 12), "rejected": ids(4, 12)} for _ in range(PAIRS)]


def logprob(model, prompt, response):
    logits = model(torch.tensor([prompt + response])).logits[0, len(prompt) - 1 : -1]
    return logits.log_softmax(-1)[range(len(response)), response].sum()


def main():
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    out = Path(sys.argv[2])
    if sys.argv[1] == "new":
        new_base(out)
    base = out if sys.argv[1] == "new" else Path(sys.argv[1])
    lora = LORA[out.name]

    torch.manual_seed(3)
    model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    out.mkdir(exist_ok=True)
    get_peft_model(model, LoraConfig(task_type="CAUSAL_LM", **lora)).save_pretrained(out / "adapter")
    (out / "adapter" / "README.md").unlink()
    path = out / "adapter" / "adapter_config.json"
    config = json.loads(path.read_text())
    # A place that is the same on every machine, and a fixed order: PEFT's targets are a set.
    config["base_model_name_or_path"] = "." if base == out else base.name
    if isinstance(config["target_modules"], list):
        config["target_modules"] = sorted(config["target_modules"])
    path.write_text(json.dumps(config, indent=2) + "\n")

    model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float64)
    model = PeftModel.from_pretrained(model, out / "adapter", is_trainable=True, autocast_adapter_dtype=False)
    model.train()
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    assert all(parameter.dtype == torch.float64 for parameter in trained)
    pairs = pairs_of(model.config.vocab_size)
    sequence = [1] + list(range(3, 15))

    def logits():
        with torch.no_grad():
            return model(torch.tensor([sequence])).logits[0, -1, :32].tolist()

    before = logits()
    with torch.no_grad(), model.disable_adapter():
        reference = [[logprob(model, pair["prompt"], pair[side]) for side in ("chosen", "rejected")] for pair in pairs]
    optimizer = torch.optim.AdamW(groups(model, 0.01), lr=LEARNING_RATE, betas=(0.9, 0.999), eps=1e-8)
    losses, norms = [], []
    for _ in range(STEPS):
        margins = [
            (logprob(model, pair["prompt"], pair["chosen"]) - chosen) - (logprob(model, pair["prompt"], pair["rejected"]) - rejected)
            for pair, (chosen, rejected) in zip(pairs, reference)
        ]
        loss = -torch.nn.functional.logsigmoid(BETA * torch.stack(margins)).mean()
        optimizer.zero_grad()
        loss.backward()
        losses.append(loss.item())
        norms.append(torch.linalg.vector_norm(torch.stack([parameter.grad.norm() for parameter in trained])).item())
        optimizer.step()

    golden = {
        "beta": BETA, "learning_rate": LEARNING_RATE, "weight_decay": 0.01, "trained_parameter_count": sum(p.numel() for p in trained), "pairs": pairs,
        "reference": [[float(value) for value in both] for both in reference], "losses": losses, "gradient_norms": norms,
        "sequence": sequence, "logits_before": before, "logits_after": logits(),
    }
    (out / "golden.json").write_text(json.dumps(golden) + "\n")
    print(f"{golden['trained_parameter_count']} parameters trained, loss {losses[0]:.4f} to {losses[-1]:.4f}")


if __name__ == "__main__":
    main()
