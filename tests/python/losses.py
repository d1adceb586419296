"""Makes tests/golden/losses.json: what TRL's trainers and PyTorch's autodiff make of random pairs, for every loss that optune has.

    python tests/python/losses.py          # from the repository's root

Needs torch and trl. The lines of TRL's source that compute a loss from logprobs are run as they are: DPOTrainer's for `sigmoid`, `ipo`, `hinge` and `robust`,
CPOTrainer's `cpo_loss` for `simpo`, DPOTrainer's `use_weighting` for `wpo`. TRL has no REBEL; its line is the paper's equation. `margins` and
`accuracies` are what the trainers log as rewards/margins and rewards/accuracies, pair by pair.
"""

import inspect
import json
import re
import textwrap
from types import SimpleNamespace

import torch
import torch.nn.functional as F
from trl.experimental.cpo.cpo_trainer import CPOTrainer
from trl.trainer.dpo_trainer import DPOTrainer

PAIRS = 12
BETA = 0.3
EPSILON = 0.15
SIMPO = {"beta": 2.0, "gamma": 0.5}


def dpo_branch(loss_type):
    """The body of `if loss_type == "..."` in DPOTrainer's loss."""
    source = inspect.getsource(DPOTrainer)
    found = re.search(rf'\n( +)(?:el)?if loss_type == "{loss_type}":\n(.*?)\n\1elif ', source, re.S)
    return textwrap.dedent(found.group(2))


def weighting():
    """The body of `if self.use_weighting` in DPOTrainer's loss."""
    source = inspect.getsource(DPOTrainer)
    found = re.search(r"\n( +)if self\.use_weighting:\n((?:\1 +[^\n]*\n)+)\s*\n *loss \+=", source)
    return textwrap.dedent(found.group(2))


def logged():
    """DPOTrainer's lines from the rewards to their margins, without the gathering and logging between them."""
    source = inspect.getsource(DPOTrainer)
    found = re.search(r"\n( +)(chosen_rewards = self\.beta \* chosen_logratios\.detach\(\)\n.*?\1margins = [^\n]*\n)", source, re.S)
    lines = textwrap.dedent(found.group(1) + found.group(2)).splitlines()
    return "\n".join(line for line in lines if "agg_" not in line)


def main():
    torch.manual_seed(5)
    tokens = torch.randint(1, 30, (2, PAIRS))
    policy = (-2.0 * torch.rand(2, PAIRS, dtype=torch.float64) * tokens).requires_grad_()
    reference = policy.detach() + torch.randn(2, PAIRS, dtype=torch.float64) * 2
    gaps = torch.rand(PAIRS, dtype=torch.float64) * 4
    masks = [(torch.arange(30) < count).double() for count in tokens.flatten()]

    cases = {
        "pairs": [
            {
                "policy": policy[:, i].tolist(),
                "reference": reference[:, i].tolist(),
                "tokens": tokens[:, i].tolist(),
                "reward_gap": gaps[i].item(),
            }
            for i in range(PAIRS)
        ],
        "beta": BETA,
        "label_smoothing": EPSILON,
        "simpo": SIMPO,
        "losses": {},
    }

    def record(name, losses, margins=None, accuracies=None):
        (gradient,) = torch.autograd.grad(losses.sum(), policy)
        cases["losses"][name] = {"loss": losses.tolist(), "by_chosen": gradient[0].tolist(), "by_rejected": gradient[1].tolist()}
        if margins is not None:
            cases["losses"][name] |= {"margins": margins.tolist(), "accuracies": accuracies.tolist()}

    for name, loss_type in [("dpo", "sigmoid"), ("ipo", "ipo"), ("hinge", "hinge"), ("robust", "robust")]:
        chosen_scores, rejected_scores = policy[0] - reference[0], policy[1] - reference[1]
        names = {
            "self": SimpleNamespace(beta=BETA, label_smoothing=EPSILON),
            "torch": torch,
            "F": F,
            "chosen_scores": chosen_scores,
            "rejected_scores": rejected_scores,
            "delta_score": chosen_scores - rejected_scores,
            "completion_mask": torch.stack(masks),
        }
        exec(dpo_branch(loss_type), names)
        names |= {"chosen_logratios": chosen_scores, "rejected_logratios": rejected_scores}
        exec(logged(), names)
        record(name, names["per_sequence_loss"], names["margins"], names["reward_accuracies"])

    trainer = SimpleNamespace(
        beta=SIMPO["beta"],
        simpo_gamma=SIMPO["gamma"],
        loss_type="simpo",
        label_smoothing=0.0,
        alpha=0.0,
        accelerator=SimpleNamespace(device="cpu"),
    )
    losses, chosen_rewards, rejected_rewards = CPOTrainer.cpo_loss(trainer, policy[0] / tokens[0], policy[1] / tokens[1])
    record("simpo", losses, chosen_rewards - rejected_rewards, (chosen_rewards > rejected_rewards).float())
    # Weighted preference optimization: the body of `if self.use_weighting` on random logits.
    logits = torch.randn(2 * PAIRS, 30, 7, dtype=torch.float64) * 3
    mask = torch.stack(masks)
    targets = torch.randint(0, 7, (2 * PAIRS, 30))
    log_probs = logits.log_softmax(-1)
    per_token = log_probs.gather(-1, targets[..., None])[..., 0]
    collisions = (2 * log_probs).logsumexp(-1)
    names = {
        "torch": torch,
        "shift_completion_mask": mask,
        "per_token_logps": per_token,
        "outputs": SimpleNamespace(log_sum_sq_probs=collisions),
        "seq_len": 30,
        "per_sequence_loss": torch.ones(PAIRS, dtype=torch.float64),
    }
    exec(weighting(), names)
    cases["wpo"] = {
        "policy": (per_token * mask).sum(1).reshape(2, PAIRS).T.tolist(),
        "collisions": (collisions * mask).sum(1).reshape(2, PAIRS).T.tolist(),
        "weights": names["per_sequence_loss"].tolist(),
    }
    record("rebel", (BETA * ((policy[0] - reference[0]) - (policy[1] - reference[1])) - gaps) ** 2)

    with open("tests/golden/losses.json", "w") as file:
        json.dump(cases, file, indent=1)
        file.write("\n")


main()
