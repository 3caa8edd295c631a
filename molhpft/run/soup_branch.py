"""The branch that a run of soups ends with: one network from the finetuned ones of all recipes."""

from collections.abc import Sequence
from copy import deepcopy
from statistics import fmean

from molhpft.config.measures import Branch, measure_branch
from molhpft.core.data import Task
from molhpft.core.network import Network
from molhpft.domains.files import Json
from molhpft.run.branch import RunContext, after_finetuning, evaluated
from molhpft.tuning.callbacks import Weights
from molhpft.tuning.recipes import Recipe
from molhpft.tuning.soup import averaged, greedy_members

OF_SOUP = ("targets",)
"""Measures that ask for nothing but the network at the end."""


def soup_branch(
    network: Network,
    task: Task,
    recipes: Sequence[Recipe],
    members: Sequence[tuple[Weights, Json]],
    context: RunContext,
) -> tuple[Weights, Json]:
    """The soup of finished branches, described as they are: weights, "row" and "history".

    Its row has no tau and no scores of a probed head. Energy and head norm are means over the
    members in the soup: to first order the soup moves features by the mean of what its members do,
    so that the mean energy bounds it as Proposition 1 bounds each. `members` of the row are the
    rows of all branches, and whether each is `used`.

    Args:
        network: before finetuning, as the members' backbones began.
        task: what was trained on.
        recipes: of the members; the first one says how the soup is made.
        members: final weights of each branch, and its "row" and "history".
        context: of the run.

    Raises:
        ValueError: a greedy soup has no member with a finite validation score.
    """
    weights = [own for own, _ in members]
    rows = [about["row"] for _, about in members]
    every = list(range(len(members)))
    used = greedy_members(network, weights, task) if recipes[0].soup == "greedy" else every
    end = deepcopy(network)
    end.load_state_dict(averaged([weights[k] for k in used]))
    history = [row for _, about in members for row in about["history"]]
    judged, config = evaluated(task), context.config
    row: Json = {
        "tau": None,
        "energy": _means([rows[k]["energy"] for k in used]),
        "head": _means([rows[k]["head"] for k in used]),
        "probe": {},
        **after_finetuning(network, judged, end, judged),
        "members": [
            {**row, "repeat": recipe.repeat, "used": k in used}
            for k, (row, recipe) in enumerate(zip(rows, recipes, strict=True))
        ],
    }
    if names := [name for name in config.measures if name in OF_SOUP]:
        branch = Branch(
            start=network,
            end=end,
            task=judged,
            recipe=recipes[0],
            history=history,
            seed=config.seed,
            trained=task,
        )
        row["measures"] = measure_branch(names, branch)
    return end.state_dict(), {"row": row, "history": history}


def _means(rows: Sequence[Json]) -> Json:
    """Mean of each number; None where a row has none."""
    return {
        key: None if None in (values := [row[key] for row in rows]) else fmean(values)
        for key in rows[0]
    }
