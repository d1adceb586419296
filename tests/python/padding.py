"""Makes tests/golden/padding.json: what one step of PyTorch's RMSprop makes of the embeddings of tiny models, whose padding token is in their rows.

    python tests/python/padding.py

The models are those of `tests/families/`, one of every family, on the rows of their golden.json, in float64 from the saved float32 weights. The loss
is the mean over all tokens but each row's first. transformers gives PyTorch's embedding the `pad_token_id` of config.json as `padding_idx`: looked up,
that row gets no gradient. For every row of the embedding: the L2 norm of its change. `pad_token_id` is the one of the file, or another one, and -1
counts from the end. `saved` is an embedding that PEFT trains beside an adapter.
"""

import json
import os
from pathlib import Path

os.environ["CUDA_VISIBLE_DEVICES"] = ""

import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoConfig, AutoModelForCausalLM

TESTS = Path(__file__).resolve().parent.parent
FAMILIES = ["gemma2", "gemma3", "granite", "llama2", "mistral", "mixtral", "olmo2", "olmo3", "phi3", "qwen2", "qwen3", "qwen3_moe", "smollm3"]
OTHERS = [("llama2", None), ("llama2", 8), ("llama2", -1), ("llama3", None), ("llama3", 8)]
RMSPROP = {"lr": 1.0, "alpha": 0.99, "eps": 1.0, "weight_decay": 0.0}


def change(family, changes, saved=False):
    folder = TESTS / "families" / family
    rows = json.loads((folder / "golden.json").read_text())["rows"]
    config = AutoConfig.from_pretrained(folder, **changes)
    eager = {"attn_implementation": "eager", "experts_implementation": "eager"}
    model = AutoModelForCausalLM.from_pretrained(folder, config=config, dtype=torch.float64, **eager).train()
    embedding = model.get_input_embeddings()
    case = {"family": family, "pad_token_id": model.config.pad_token_id, "tied": model.config.tie_word_embeddings, "saved": saved}
    if saved:
        model = get_peft_model(model, LoraConfig(r=2, target_modules=["q_proj"], modules_to_save=["embed_tokens"]))
        embedding = model.base_model.model.model.embed_tokens.modules_to_save["default"]
    before = embedding.weight.detach().clone()
    optimizer = torch.optim.RMSprop([parameter for parameter in model.parameters() if parameter.requires_grad], **RMSPROP)
    terms = []
    for row in rows:
        logprobs = model(input_ids=torch.tensor([row])).logits[0, :-1].log_softmax(-1)
        terms.append(-logprobs[range(len(row) - 1), row[1:]])
    torch.cat(terms).mean().backward()
    optimizer.step()
    return case | {"padding_idx": embedding.padding_idx, "change": (embedding.weight.detach() - before).norm(dim=1).tolist()}


def main():
    cases = [change(family, {}) for family in FAMILIES]
    cases += [change(family, {"pad_token_id": pad}) for family, pad in OTHERS]
    cases.append(change("llama2", {}, saved=True))
    for case in cases:
        print({name: value for name, value in case.items() if name != "change"})
    lines = ",\n".join(json.dumps(case) for case in cases)
    (TESTS / "golden" / "padding.json").write_text(f'{{"optimizer": {json.dumps(RMSPROP)}, "cases": [\n{lines}\n]}}\n')


if __name__ == "__main__":
    main()
