"""Heads and backbones exchanged: what a head is worth on features that it was not tuned with."""

from collections.abc import Sequence
from contextlib import ExitStack

import torch
from torch import Tensor

from molhpft.core.annotations import Float
from molhpft.core.data import Task
from molhpft.core.evaluate import Predictions, RunningScore, evaluation_batches, inference
from molhpft.core.network import Network


def exchange_scores(networks: Sequence[Network], task: Task, split: str) -> Float[Tensor, "m m"]:
    """Score of every backbone under every head, without retuning.

    Ren et al. (2023), Figure 3: with the networks finetuned from 7 tau, 49 combinations.

    Args:
        networks: m networks cut at the same stage, for example one for each tau.
        task: gives examples and score.
        split: name of the split to score.

    Returns:
        float64; row i has the backbone of network i, column j the head of network j, so that the
        diagonal has the networks as they are.

    Raises:
        ValueError: there are no networks, or they are cut at different stages.
    """
    _check(networks)
    with ExitStack() as stack:
        for network in networks:
            stack.enter_context(inference(network))
        rows = [_scores_under_all_heads(n, networks, task, split) for n in networks]
    return torch.tensor(rows, dtype=torch.float64)


def _scores_under_all_heads(
    network: Network, networks: Sequence[Network], task: Task, split: str
) -> list[float]:
    running = [RunningScore(task.objective, rows=len(task.rows(split))) for _ in networks]
    for batch in evaluation_batches(task, split):
        z = network.features(batch)
        for score, other in zip(running, networks, strict=True):
            score.add(Predictions(other.head(z, batch).cpu(), batch.targets.cpu()))
    return [score.value() for score in running]


def _check(networks: Sequence[Network]) -> None:
    if not networks:
        raise ValueError("an exchange needs at least one network, got none")
    cuts = {" ".join(network.backbone.names) for network in networks}
    if len(cuts) > 1:
        raise ValueError(
            "networks that exchange heads must have backbones of the same stages, "
            f"got {' and '.join(map(repr, sorted(cuts)))}"
        )
