"""Makes tests/golden/losses.json: what TRL's trainers and PyTorch's autodiff make of random pairs, for every loss that optune has.

    python tests/python/losses.py          # from the repository's root

    python tests/python/losses.py more     # only the losses that TRL does not have, added to the file that is there

Needs torch, and without `more` trl. The lines of TRL's source that compute a loss from logprobs are run as they are: DPOTrainer's for `sigmoid`, `ipo`,
`hinge` and `robust`, CPOTrainer's `cpo_loss` for `simpo`, DPOTrainer's `use_weighting` for `wpo`. TRL does not have REBEL, NVIDIA's RPO and SELM. The
line of REBEL is the paper's equation. RPO is PyTorch's divergence of two Bernoulli distributions, held to the paper's equation. The loss with optimism
is the formula of SELM's trainer, in the mean over both responses. `margins` and
`accuracies` are what the trainers log as rewards/margins and rewards/accuracies, pair by pair.
"""

import inspect
import json
import re
import sys
import textwrap
from types import SimpleNamespace

import torch
import torch.nn.functional as F
from torch.distributions import Bernoulli, kl_divergence

PAIRS = 12
BETA = 0.3
EPSILON = 0.15
SIMPO = {"beta": 2.0, "gamma": 0.5}
GAP_SCALE = 0.7
ALPHA = 0.05


def dpo_branch(loss_type):
    """The body of `if loss_type == "..."` in DPOTrainer's loss."""
    from trl.trainer.dpo_trainer import DPOTrainer

    source = inspect.getsource(DPOTrainer)
    found = re.search(rf'\n( +)(?:el)?if loss_type == "{loss_type}":\n(.*?)\n\1elif ', source, re.S)
    return textwrap.dedent(found.group(2))


def weighting():
    """The body of `if self.use_weighting` in DPOTrainer's loss."""
    from trl.trainer.dpo_trainer import DPOTrainer

    source = inspect.getsource(DPOTrainer)
    found = re.search(r"\n( +)if self\.use_weighting:\n((?:\1 +[^\n]*\n)+)\s*\n *loss \+=", source)
    return textwrap.dedent(found.group(2))


def logged():
    """DPOTrainer's lines from the rewards to their margins, without the gathering and logging between them."""
    from trl.trainer.dpo_trainer import DPOTrainer

    source = inspect.getsource(DPOTrainer)
    found = re.search(r"\n( +)(chosen_rewards = self\.beta \* chosen_logratios\.detach\(\)\n.*?\1margins = [^\n]*\n)", source, re.S)
    lines = textwrap.dedent(found.group(1) + found.group(2)).splitlines()
    return "\n".join(line for line in lines if "agg_" not in line)


def write(cases):
    with open("tests/golden/losses.json", "w") as file:
        json.dump(cases, file, indent=1)
        file.write("\n")


def record(cases, name, policy, losses, margins=None, accuracies=None):
    """Adds a loss with its derivatives."""
    (gradient,) = torch.autograd.grad(losses.sum(), policy)
    cases["losses"][name] = {"loss": losses.tolist(), "by_chosen": gradient[0].tolist(), "by_rejected": gradient[1].tolist()}
    if margins is not None:
        cases["losses"][name] |= {"margins": margins.tolist(), "accuracies": accuracies.tolist()}


def more(cases):
    """The losses that TRL does not have, on the pairs of the file."""
    of = lambda name: torch.tensor([pair[name] for pair in cases["pairs"]], dtype=torch.float64)
    policy = of("policy").T.contiguous().requires_grad_()
    reference, gaps = of("reference").T, of("reward_gap")
    ratios = policy - reference
    delta = ratios[0] - ratios[1]
    record(cases, "rebel", policy, (BETA * delta - gaps) ** 2)

    # arXiv 2406.11704, section 3.3.3: D[a || b] = σ(b) log(σ(b) / σ(a)) + (1 − σ(b)) log((1 − σ(b)) / (1 − σ(a))).
    a, b = BETA * delta, GAP_SCALE * gaps
    rpo = kl_divergence(Bernoulli(logits=b), Bernoulli(logits=a))
    target, found = b.sigmoid(), a.sigmoid()
    paper = target * (target / found).log() + (1 - target) * ((1 - target) / (1 - found)).log()
    assert torch.allclose(rpo, paper, rtol=1e-6, atol=1e-9), (rpo, paper)
    record(cases, "rpo", policy, rpo)
    cases["gap_scale"] = GAP_SCALE

    # SELM's trainer, arXiv 2405.19332: −log σ(β·Δ) + α·β·(log π(y) − log π_ref(y)), for a response y of the reference.
    optimistic = [-F.logsigmoid(BETA * delta) + ALPHA * BETA * ratio for ratio in ratios]
    record(cases, "optimism", policy, sum(optimistic) / 2)
    cases["alpha"] = ALPHA


def main():
    from trl.experimental.cpo.cpo_trainer import CPOTrainer

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
        record(cases, name, policy, names["per_sequence_loss"], names["margins"], names["reward_accuracies"])

    trainer = SimpleNamespace(
        beta=SIMPO["beta"],
        simpo_gamma=SIMPO["gamma"],
        loss_type="simpo",
        label_smoothing=0.0,
        alpha=0.0,
        accelerator=SimpleNamespace(device="cpu"),
    )
    losses, chosen_rewards, rejected_rewards = CPOTrainer.cpo_loss(trainer, policy[0] / tokens[0], policy[1] / tokens[1])
    record(cases, "simpo", policy, losses, chosen_rewards - rejected_rewards, (chosen_rewards > rejected_rewards).float())
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
    more(cases)
    write(cases)


if sys.argv[1:] == ["more"]:
    with open("tests/golden/losses.json") as file:
        there = json.load(file)
    more(there)
    write(there)
else:
    main()
