"""Which setting of the toy decides what the exchange of heads and backbones shows.

$ python benchmarks/toy_exchange.py --seed 0

Pretraining (three epochs at a constant rate, or to convergence along a cosine), the size of the
random head (PyTorch's, or five times that) and the rate of both phases: all combinations.
"""

import argparse
from dataclasses import replace

from torch import Tensor

from molhpft.core.data import Task
from molhpft.core.determinism import one_thread
from molhpft.core.network import Chain
from molhpft.domains.toy.digits import toy_pretrain_task, toy_task
from molhpft.measure.exchange import exchange_scores
from molhpft.studies import toy_study as toy

TAUS = (0, 2, 16, 256)
INFINITY = 50_000
PRETRAININGS = {
    "3 epochs": replace(toy.PRETRAIN, epochs=3, schedule="constant"),
    "converged": toy.PRETRAIN,
}
SCALES = (1.0, toy.HEAD_SCALE)
RATES = (toy.FINETUNE.lr, 10 * toy.FINETUNE.lr)
HEADER = (
    "pretraining",
    "head",
    "rate",
    "FT train, tau 0 / ∞",
    "backbone 0 under others' heads",
    "others under others' heads, tau 0's aside",
    "tau-0 head on others",
    "dot rises, falls",
    "norm rises, falls",
)


def row(encoder: Chain, task: Task, scale: float, rate: float, *, seed: int) -> list[str]:
    """What one setting shows."""
    network = toy.with_random_head(encoder, task, seed=seed, scale=scale)
    probing = replace(toy.PROBE, lr=rate)
    heads = toy.probed_heads(network, task, taus=TAUS, infinity=INFINITY, phase=probing, seed=seed)
    phase = replace(toy.FINETUNE, lr=rate)
    branches = [
        toy.finetuned(network, task, tau, head, phase=phase, seed=seed)
        for tau, head in heads.items()
    ]
    scores = exchange_scores([branch.tuned for branch in branches], task, "train")
    rows = [branch.row(task) for branch in branches]
    return [
        " / ".join(percent(rows[k]["final"]["train"]) for k in (0, -1)),
        percent(scores[0, 1:].mean()),
        percent(_off_diagonal(scores[1:, 1:])),
        percent(scores[1:, 0].mean()),
        *(_rises_and_falls([row["shift"][name] for row in rows]) for name in ("dot", "norm")),
    ]


def percent(fraction: float | Tensor) -> str:
    """A fraction in percent."""
    return f"{100 * float(fraction):.1f}"


def _off_diagonal(scores: Tensor) -> Tensor:
    """Mean of a matrix without its diagonal."""
    return (scores.sum() - scores.trace()) / (scores.numel() - len(scores))


def _rises_and_falls(values: list[float]) -> str:
    return "yes" if values[0] < max(values[1:-1]) > values[-1] else "no"


@one_thread()
def main(seed: int) -> None:
    """Every combination, a line each."""
    task, pretraining = toy_task(seed=seed), toy_pretrain_task()
    print("| " + " | ".join(HEADER) + " |")
    print("|" + "---|" * len(HEADER))
    for name, phase in PRETRAININGS.items():
        encoder = toy.pretrained_mlp(pretraining, seed=seed, phase=phase)
        for scale in SCALES:
            for rate in RATES:
                cells = [name, f"{scale:g} x", f"{rate:g}"]
                print(
                    "| " + " | ".join([*cells, *row(encoder, task, scale, rate, seed=seed)]) + " |",
                    flush=True,
                )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="What decides the toy's exchange.")
    parser.add_argument("--seed", type=int, default=0, help="of data, weights and order")
    main(parser.parse_args().seed)
