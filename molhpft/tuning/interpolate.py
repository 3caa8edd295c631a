"""Between the probed and the finetuned model: weight-space ensembles (WiSE-FT, Wortsman 2022)."""

from collections.abc import Sequence

import torch

from molhpft.core.network import Network
from molhpft.core.task import Task
from molhpft.tuning.checkpoints import Weights
from molhpft.tuning.fit import score
from molhpft.tuning.select import highest


def interpolated(start: Weights, end: Weights, share: float) -> Weights:
    """`(1 - share) start + share end`, batch-norm statistics included.

    Args:
        start: of the model as finetuning began.
        end: of the same architecture as finetuning ended.
        share: 0 gives `start`, 1 gives `end`. Counts (integers) are those of `end`.
    """
    return {
        name: torch.lerp(value, end[name], share) if value.is_floating_point() else end[name]
        for name, value in start.items()
    }


def mix(network: Network, start: Weights, task: Task, *, shares: Sequence[float]) -> float:
    """Replace a finetuned network by its best mixture with where it started.

    Args:
        network: finetuned; ends with the weights of the mixture.
        start: its weights before finetuning.
        task: whose validation score decides.
        shares: of the finetuned weights, to choose from.

    Returns:
        the chosen share, the smallest of equals.

    Raises:
        ValueError: no mixture has a finite validation score.
    """
    end = {name: value.clone() for name, value in network.state_dict().items()}
    rising, scores = sorted(shares), []
    for share in rising:
        network.load_state_dict(interpolated(start, end, share))
        scores.append(score(network, task, "valid"))
    best = rising[highest(scores)]
    network.load_state_dict(interpolated(start, end, best))
    return best
