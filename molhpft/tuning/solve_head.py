"""Heads and weights that are computed instead of trained.

`solve_head` gives the linear head that probing would converge to: logistic regression (ridge for
real targets) on cached features, its penalty chosen on validation. `mix` gives the weight-space
ensemble of a probed and a finetuned network (WiSE-FT, Wortsman et al., 2022), `mix_by_stage` one
with a mixing weight for each stage.
"""

from collections.abc import Callable, Sequence
from copy import deepcopy
from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.func import functional_call

from molhpft.core.annotations import Float, Shaped
from molhpft.core.data import Task
from molhpft.core.evaluate import Predictions, RunningScore, evaluation_batches, take
from molhpft.core.network import Network, Plain
from molhpft.core.objectives import Multiclass, Multilabel, Objective, ScoredByLoss, Squared
from molhpft.tuning.callbacks import Weights
from molhpft.tuning.fit import score
from molhpft.tuning.halving import highest
from molhpft.tuning.probe import with_head

Array = NDArray[np.float64]
Solution = tuple[Array, Array]  # weights (outputs, d) and biases (outputs,)
Solver = Callable[[Array, Tensor, float], Solution]
OneOutput = Callable[[Array, Array, float], tuple[Array, float]]


def solve_head(
    network: Network, task: Task, *, inverse_penalties: Sequence[float]
) -> tuple[Weights, float]:
    """The regularised linear head that validates best, and its inverse penalty C.

    Each output of a multi-label task is a problem of its own on the examples that have its label;
    features are standardised for the penalty and the head is given back in their own units.

    Args:
        network: with a head of one linear layer; left as it is.
        task: trained on "train", chosen on "valid".
        inverse_penalties: values of C to choose from, as scikit-learn has them; on ties the
            smallest is chosen.

    Raises:
        ValueError: the head is not one linear layer, the objective joins several or contrasts
            classes, an output lacks a class in training, or no validation score is finite.
    """
    linear, solve = _linear(network), _solver(task.objective)
    train = take(network, evaluation_batches(task, "train"))
    z = train.features.double()
    std, centre = torch.std_mean(z, 0)
    std = torch.where(std > 0, std, 1.0)
    x = ((z - centre) / std).numpy()
    rising = sorted(inverse_penalties)
    heads: list[Weights] = []
    for penalty in rising:
        weight, bias = map(torch.as_tensor, solve(x, train.targets, penalty))
        if weight.shape != linear.weight.shape:
            raise ValueError(
                f"a head can be solved when every class occurs in the training split, got "
                f"{len(weight)} of {linear.out_features}; use method lp"
            )
        own = {"weight": weight / std, "bias": bias - weight @ (centre / std)}
        heads.append(
            {
                name: own[name.rpartition(".")[2]].to(value)
                for name, value in network.head.state_dict().items()
            }
        )
    best = highest([score(with_head(network, head), task, "valid") for head in heads])
    return heads[best], rising[best]


def _linear(network: Network) -> nn.Linear:
    stages = list(network.head)
    if len(stages) == 1 and isinstance(stages[0], Plain):
        module = stages[0].module
        if isinstance(module, nn.Linear):
            return module
    raise ValueError(
        f"a head can be solved when it is one linear layer, got stages "
        f"{', '.join(network.head.names)}; set head: linear"
    )


def _solver(objective: Objective) -> Solver:
    """Solver of an objective, whatever it is scored by: (features, targets, C) to the solution."""
    if isinstance(objective, ScoredByLoss):
        return _solver(objective.objective)
    if isinstance(objective, Multiclass):
        return partial(_classes, ignore=objective.ignore)
    if isinstance(objective, Multilabel):
        return partial(_each, _yes_or_no)
    if isinstance(objective, Squared):
        return partial(_each, _number)
    raise ValueError(
        "a head can be solved for labels, classes or numbers, each by itself; the objective of "
        f"this task is {type(objective).__name__}: use method lp"
    )


def _each(one: OneOutput, x: Array, targets: Shaped[Tensor, "n ..."], penalty: float) -> Solution:
    columns = targets.double().numpy().T
    solved = [one(x[~np.isnan(y)], y[~np.isnan(y)], penalty) for y in columns]
    return np.stack([weight for weight, _ in solved]), np.array([bias for _, bias in solved])


def _classes(
    x: Array, targets: Shaped[Tensor, "n ..."], penalty: float, *, ignore: int
) -> Solution:
    from sklearn.linear_model import LogisticRegression

    y = targets.numpy()
    model = LogisticRegression(C=penalty, max_iter=5000).fit(x[y != ignore], y[y != ignore])
    if len(model.classes_) > 2:
        return model.coef_, model.intercept_
    # two classes have one row of logits; as two they are opposite halves of it
    return np.concatenate([-model.coef_, model.coef_]) / 2, np.repeat(
        model.intercept_, 2
    ) * np.array([-0.5, 0.5])


def _yes_or_no(x: Array, y: Array, penalty: float) -> tuple[Array, float]:
    from sklearn.linear_model import LogisticRegression

    if len(np.unique(y)) < 2:
        raise ValueError(
            "a head can be solved when every output has both classes in the training split, "
            f"got {len(y)} labels of one class; use method lp"
        )
    model = LogisticRegression(C=penalty, max_iter=5000).fit(x, y)
    return model.coef_[0], float(model.intercept_[0])


def _number(x: Array, y: Array, penalty: float) -> tuple[Array, float]:
    from sklearn.linear_model import Ridge

    model = Ridge(alpha=1 / penalty).fit(x, y)
    return model.coef_, float(model.intercept_)


def interpolated(start: Weights, end: Weights, alpha: float) -> Weights:
    """`(1 - alpha) start + alpha end`, batch-norm statistics included.

    Args:
        start: of the network as finetuning began.
        end: of the same architecture as finetuning ended.
        alpha: 0 gives `start`, 1 gives `end`. Counts (integers) are those of `end`.
    """
    return {
        name: torch.lerp(value, end[name], alpha) if value.is_floating_point() else end[name]
        for name, value in start.items()
    }


def mix(
    start: Network, end: Network, task: Task, *, alphas: Sequence[float]
) -> tuple[Network, float]:
    """The mixture of two networks that validates best, and its mixing weight alpha.

    Args:
        start: as finetuning began.
        end: of the same architecture, as finetuning ended.
        task: whose validation score decides.
        alphas: weights of `end` to choose from; on ties the smallest is chosen.

    Raises:
        ValueError: no mixture has a finite validation score.
    """
    rising, mixture = sorted(alphas), deepcopy(end)
    scores = []
    for alpha in rising:
        mixture.load_state_dict(interpolated(start.state_dict(), end.state_dict(), alpha))
        scores.append(score(mixture, task, "valid"))
    best = rising[highest(scores)]
    mixture.load_state_dict(interpolated(start.state_dict(), end.state_dict(), best))
    return mixture, best


def mix_by_stage(
    start: Network, end: Network, task: Task, *, steps: int, lr: float
) -> tuple[Network, dict[str, float]]:
    """The mixture of two networks with a mixing weight for each stage, learned on validation.

    DWiSE-FT (RoFt-Mol, Liu et al., 2025). Weights start at 1, which is `end`, and follow the
    gradient of the validation loss by Adam within [0, 1]; running statistics are mixed with their
    stage, and the gradient takes them as constants. Of the mixtures on that way, `end` among them,
    the one that scores best on validation is given back, on ties the first.

    Args:
        start: as finetuning began.
        end: of the same architecture, as finetuning ended.
        task: whose validation split decides.
        steps: of gradient descent; 0 gives `end`.
        lr: learning rate of the mixing weights.

    Returns:
        the mixture, and stage name to mixing weight; the head is one stage.

    Raises:
        ValueError: no mixture has a finite validation score.
    """
    stages = _mixed_stages(end)
    weights = torch.ones(len(stages), requires_grad=True)
    optimizer = torch.optim.Adam([weights], lr=lr)
    tried: list[Tensor] = []
    scores: list[float] = []
    mixture = deepcopy(end).eval().requires_grad_(False)
    for _ in range(steps + 1):
        tried.append(weights.detach().clone())
        optimizer.zero_grad()
        scores.append(_validated(mixture, _mixed(start, end, stages, weights), task))
        optimizer.step()
        with torch.no_grad():
            weights.clamp_(0, 1)
    best = tried[highest(scores)]
    mixed = deepcopy(end)
    mixed.load_state_dict(_mixed(start, end, stages, best))
    return mixed, dict(zip(stages, best.tolist(), strict=True))


def _mixed_stages(network: Network) -> dict[str, str]:
    """Name of each stage that has numbers to mix, to the beginning of their names."""
    own = network.state_dict()
    keys = zip(network.backbone.names, network.backbone.stages, strict=True)
    named = {**{name: f"backbone.stages.{key}." for name, key in keys}, "head": "head."}
    return {
        name: prefix for name, prefix in named.items() if any(k.startswith(prefix) for k in own)
    }


def _mixed(
    start: Network, end: Network, stages: dict[str, str], weights: Float[Tensor, " stages"]
) -> Weights:
    """`interpolated`, each stage by its own mixing weight, differentiable in these."""
    before, mixed = start.state_dict(), end.state_dict()
    for prefix, weight in zip(stages.values(), weights, strict=True):
        for name, value in mixed.items():
            if name.startswith(prefix) and value.is_floating_point():
                mixed[name] = torch.lerp(before[name], value, weight.to(value))
    return mixed


def _validated(network: Network, weights: Weights, task: Task) -> float:
    """The validation score under `weights`, to which the gradient of the loss goes back."""
    rows = len(task.rows("valid"))
    # batch norm has no gradient for its running statistics
    trained = {name for name, _ in network.named_parameters()}
    weights = {name: w if name in trained else w.detach() for name, w in weights.items()}
    running = RunningScore(task.objective, rows=rows)
    with torch.enable_grad():
        for batch in evaluation_batches(task, "valid"):
            own = functional_call(network, weights, (batch,))
            loss = task.objective.loss(own, batch.targets) * len(batch.targets) / rows
            torch.autograd.backward(loss, retain_graph=True)
            running.add(Predictions(own.detach().cpu(), batch.targets.cpu()))
    return running.value()
