"""Model soups (Wortsman et al., ICML 2022): finetuned networks averaged into one, weight by weight.

Members begin from one backbone, so that their weights lie in one basin and their mean is a network
of its own; it costs at prediction what one of them costs. Running statistics of batch norm are
averaged like weights, as in `solve_head.interpolated`: those of the mean are near the mean of
theirs as long as members are near each other, and a soup of one member is that member, bit for bit.
"""

from collections.abc import Sequence
from copy import deepcopy

import torch

from molhpft.core.data import Task
from molhpft.core.network import Network
from molhpft.tuning.callbacks import Weights
from molhpft.tuning.fit import score
from molhpft.tuning.halving import highest, ranked


def averaged(members: Sequence[Weights]) -> Weights:
    """The mean of several networks of one architecture, batch-norm statistics included.

    Counts (integers) are those of the first.
    """
    return {
        name: torch.stack([member[name] for member in members]).mean(0)
        if value.is_floating_point()
        else value
        for name, value in members[0].items()
    }


def greedy_members(network: Network, members: Sequence[Weights], task: Task) -> list[int]:
    """Which members a greedy soup is made of: numbers in ascending order.

    Members are tried from the best on validation to the worst, on ties the first; one that does not
    lower the score of the soup so far goes into it (Wortsman et al., 2022, Recipe 1).

    Args:
        network: of the members' architecture; left as it is.
        members: weights of finetuned networks.
        task: whose validation score decides.

    Raises:
        ValueError: no member has a finite validation score.
    """
    trial = deepcopy(network)

    def scored(chosen: Sequence[int]) -> float:
        trial.load_state_dict(averaged([members[k] for k in sorted(chosen)]))
        return score(trial, task, "valid")

    alone = [scored([k]) for k in range(len(members))]
    chosen = [highest(alone)]
    best = alone[chosen[0]]
    for k in ranked(alone)[1:]:
        together = scored([*chosen, k])
        if together >= best:  # never of a score that is NaN
            chosen, best = [*chosen, k], together
    return sorted(chosen)
