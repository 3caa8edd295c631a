"""Further measures of a run, by the names that a config may ask for.

Energy, scores and shift are always measured. These cost more: some are measured after every epoch
of finetuning, some when a branch has ended, one over all branches together. They run on every
domain; where a measure has no meaning `check_measures` says so before anything is trained.

What a branch pays for each, whatever the width of its features and the size of its logits (k is
`PROBE_EXAMPLES` or the training split, r at most `PROBE_VECTORS`, passes are of one example):

    confidence      a forward pass of both networks over the training split, one for it and bound
    direction       3 k r passes through the head, and k r after every epoch
    ntk             2 k r backward passes, and k r before finetuning and after every epoch
    bound           that pass, 2 k r backward passes, and as many through the head
    decomposition   some twenty passes of `STEP_EXAMPLES` examples in float64
    drift           a forward pass over the training split for each epoch of finetuning
    targets         a forward pass over every split
    exchange        forward passes of every backbone over two splits, a head for each of the others

Splits pass in batches, of which nothing stays but counts and sums (of features five numbers a row):
memory does not grow with features, images or pixels. Only `targets` of labels that are no class ids
keeps the logits of a split, which its metrics rank.
"""

from collections.abc import Callable, Mapping, Sequence
from copy import deepcopy
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from math import ceil

import torch
from torch import Tensor

from molhpft.core.data import Task, probe_sample
from molhpft.core.determinism import seed_for
from molhpft.core.evaluate import (
    evaluation_batches,
    inference,
    predict,
    predictions_in_batches,
    take,
)
from molhpft.core.metrics import ClassCounts, measured
from molhpft.core.network import Batch, Network
from molhpft.core.objectives import (
    ClassContrast,
    Joint,
    Multiclass,
    Multilabel,
    Objective,
    Part,
    ScoredByLoss,
    Squared,
)
from molhpft.domains.files import Json
from molhpft.measure.dynamics import (
    alignment,
    decompose,
    descent_directions,
    direction_norms,
    first_order_error,
    head_bound,
    head_change,
    head_gradient,
    kernel_bound,
    one_step_change,
    proposition_1,
)
from molhpft.measure.exchange import exchange_scores
from molhpft.measure.features import (
    RunningConfidence,
    RunningEnergy,
    RunningShift,
    Shift,
    batch_norm_drift,
)
from molhpft.measure.tangent import ntk_change, ntk_distance, tangent_kernel, unit_vectors
from molhpft.tuning.callbacks import Callback, Measure, Row, Weights
from molhpft.tuning.fit import best_epoch
from molhpft.tuning.optimizer import backbone_rate
from molhpft.tuning.recipes import Recipe
from molhpft.tuning.stochastic_norm import stochastic_norm
from molhpft.tuning.trained_stages import set_modes

Scores = dict[str, float | None]


def target_scores(task: Task, logits: Tensor, targets: Tensor) -> Scores:
    """Name of each target to its score on one split, higher is better: a mean hides the lost ones.

    A class is scored by the share of its own units that are predicted right (its recall), any other
    target by its metric on its column alone, one that is served beside the task's by its own.

    Args:
        task: gives the objective, and the names where it has them.
        logits: of the split.
        targets: of the split, as in `Batch`.

    Returns:
        a score a target; None where it cannot be scored: no example of the class, labels of one
        class only.
    """
    objective = task.objective
    if isinstance(objective, Multiclass | ClassContrast):
        counts = ClassCounts(ignore=objective.ignore)
        counts.add(targets, logits)
        return _class_scores(task, counts)
    names = task.target_names or tuple(f"output {k}" for k in range(task.outputs))
    columns = (torch.stack([logits, targets])[..., [k]] for k in range(task.outputs))
    scores = [_score(_of_column(objective, k), *column) for k, column in enumerate(columns)]
    return dict(zip(names, scores, strict=True))


def _class_scores(task: Task, counts: ClassCounts) -> Scores:
    names = task.target_names or tuple(f"class {k}" for k in range(task.outputs))
    return dict(zip(names, counts.recalls(), strict=True))


def _score(objective: Objective, logits: Tensor, targets: Tensor) -> float | None:
    labels = targets[measured(targets)]
    if not len(labels):
        return None
    one_class = isinstance(objective, Multilabel) and bool((labels == labels[0]).all())
    return None if one_class else objective.score(logits, targets)


def _of_column(objective: Objective, k: int) -> Objective:
    """What is asked of output k alone."""
    if isinstance(objective, Joint):
        for part in (Part(objective.main, objective.outputs), *objective.others):
            if k < part.outputs:
                return _of_column(part.objective, k)
            k -= part.outputs
    if isinstance(objective, ScoredByLoss):
        return replace(objective, objective=_of_column(objective.objective, k))
    return objective.column(k) if isinstance(objective, Squared) else objective


PROBE_EXAMPLES = 50  # 2,500 pairs, as in Figure 6 of Ren et al. (2023)
PROBE_VECTORS = 16
FEWEST_VECTORS = 4
GRADIENTS = 2 * 10**9  # numbers of gradients that a kernel may take, by fewer vectors
STEP_EXAMPLES = 4
STEP_LR = 1e-4
STEP_FACTORS = ("A", "K", "G", "K_z", "W")
BINS = 20
_WHEN = ("before", "after")


@dataclass(frozen=True)
class Ends:
    """What one pass over the training split through the first and last network of a branch shows.

    Attributes:
        shift: of the features.
        energies: average initial energy at the start, and the same of the end.
        confidence: of both, by "before" and "after"; empty for a regression.
        rows: of the features, of which an example has several where a head reads its parts.
    """

    shift: Shift
    energies: tuple[float, float]
    confidence: Mapping[str, RunningConfidence]
    rows: int


@dataclass(frozen=True)
class Branch:
    """A finetuned branch and what it came from.

    Attributes:
        start: the probed network that finetuning began with.
        end: the network that it ended with.
        task: what it is judged by: what was trained on, perhaps with a sample of its training rows.
        recipe: how.
        history: a row an epoch of every phase after the probe, see `phase_name`.
        seed: of the run.
        trained: what was trained on; None for `task`.
    """

    start: Network
    end: Network
    task: Task
    recipe: Recipe
    history: Sequence[Json]
    seed: int
    trained: Task | None = None

    @cached_property
    def ends(self) -> Ends:
        """Of the training split, before and after, batch by batch."""
        objective, shift, rows = self.task.objective, RunningShift(), 0
        energies = [RunningEnergy(objective) for _ in _WHEN]
        confidences = [RunningConfidence(objective, bins=BINS) for _ in _WHEN]
        for batch in evaluation_batches(self.task, "train"):
            both = [take(network, [batch]) for network in (self.start, self.end)]
            shift.add(*(snapshot.features for snapshot in both))
            rows += len(both[0].features)
            watching = zip(energies, confidences, both, strict=True)
            for energy, confidence, snapshot in watching:
                energy.add(snapshot)
                if objective.has_classes:
                    confidence.add(snapshot)
        start, end = (energy.value().aie for energy in energies)
        confidence_at = dict(zip(_WHEN, confidences, strict=True)) if objective.has_classes else {}
        return Ends(shift.mean(), (start, end), confidence_at, rows)

    @property
    def epochs(self) -> int:
        """Epochs of the first phase behind the weights that it ended with."""
        rows = [row for row in self.history if row["phase"] == phase_name(0)]
        best = best_epoch(rows) if self.recipe.after[0].keep == "best" else 0
        return best or len(rows)  # without a score to choose by, the last weights are kept


def phase_name(number: int) -> str:
    """What `history.jsonl` calls a phase after the probe, counted from 0."""
    return f"finetune{number or ''}"


def check_measures(names: Sequence[str], task: Task) -> None:
    """Find out before training that a measure has no meaning for a task.

    Raises:
        ValueError: p(correct) of a regression.
    """
    if "confidence" in names and not task.objective.has_classes:
        raise ValueError(
            f"measure confidence is the probability of the right class, and {task.name} is a "
            "regression; leave confidence out of measures"
        )


def callbacks_along(
    names: Sequence[str], start: Network, task: Task, *, seed: int
) -> list[Callback]:
    """What measures note after each epoch of finetuning.

    Args:
        names: those of `ALONG` count; others are left to the end.
        start: the probed network that finetuning will begin with.
        task: gives the probe examples.
        seed: of the run.
    """
    return [ALONG[name](start, task, seed) for name in names if name in ALONG]


def measure_branch(names: Sequence[str], branch: Branch) -> Json:
    """Name to what was measured when a branch has ended."""
    return {name: AT_END[name](branch) for name in names if name in AT_END}


def unmeasured(names: Sequence[str], summary: Json) -> list[str]:
    """Measures that a run was asked for and has not, as it has finetuned nothing."""
    members = [row for branch in summary["branches"] for row in branch.get("members", ())]
    rows = [*summary["branches"], *members, summary]
    measured_names = {name for row in rows for name in row.get("measures") or ()}
    return [name for name in names if name not in measured_names]


def measure_run(names: Sequence[str], networks: Sequence[Network], task: Task) -> Json:
    """Name to what was measured over the final networks of all branches."""
    return {name: TOGETHER[name](networks, task) for name in names if name in TOGETHER}


def _examples(task: Task, seed: int) -> list[Batch]:
    """Training examples to look at, one a batch: gradients by example are cheapest so.

    The same ones for every measure, method and tau of a seed.
    """
    rng = torch.Generator().manual_seed(seed_for(seed, "measures"))
    return [task.examples.take(row[None]) for row in probe_sample(task, PROBE_EXAMPLES, rng=rng)]


def _drawn(seed: int, purpose: str, count: int, width: int) -> Tensor:
    rng = torch.Generator().manual_seed(seed_for(seed, purpose))
    return unit_vectors(count, width, rng=rng)


@dataclass(frozen=True)
class _Head:
    """What the head's Jacobian is looked at by."""

    probe: list[Batch]
    vectors: Tensor | None

    @classmethod
    def of(cls, network: Network, task: Task, seed: int) -> "_Head":
        probe = _examples(task, seed)
        with inference(network):
            outputs = network(probe[0])[0].numel()
        few = outputs <= PROBE_VECTORS
        return cls(probe, None if few else _drawn(seed, "direction", PROBE_VECTORS, outputs))

    def norm(self, network: Network) -> float:
        return direction_norms(network, self.probe, vectors=self.vectors).mean().item()


@dataclass(frozen=True)
class _Backbone:
    """What the backbone's Jacobian is looked at by."""

    probe: list[Batch]
    vectors: Tensor

    @classmethod
    def of(cls, network: Network, task: Task, seed: int) -> "_Backbone":
        """Examples of some `PROBE_EXAMPLES` rows of features, vectors as many as time allows."""
        probe: list[Batch] = []
        rows, width = 0, 0
        with inference(network):
            for batch in _examples(task, seed):
                z = network.features(batch)
                rows, width = rows + len(z), z.flatten(1).shape[1]
                if probe and rows > PROBE_EXAMPLES:  # of a cut backbone a row is an atom
                    break
                probe.append(batch)
        weights = sum(weight.numel() for weight in network.backbone.parameters())
        affordable = GRADIENTS // (PROBE_EXAMPLES * weights)
        count = min(PROBE_VECTORS, max(FEWEST_VECTORS, affordable))
        return cls(probe, _drawn(seed, "ntk", count, width))

    def kernel(self, network: Network) -> Tensor:
        return tangent_kernel(network, self.probe, self.vectors)


def _confidence(branch: Branch) -> Json:
    confidence = branch.ends.confidence
    return {
        "histogram": {when: running.histogram() for when, running in confidence.items()},
        "mean": {when: running.mean() for when, running in confidence.items()},
    }


def _direction(branch: Branch) -> Json:
    head = _Head.of(branch.start, branch.task, branch.seed)
    z = [take(network, head.probe).features for network in (branch.start, branch.end)]
    asked = descent_directions(branch.start, head.probe, branch.task.objective)
    return {
        "norm_before": head.norm(branch.start),
        "norm_after": head.norm(branch.end),
        "alignment": alignment(asked, z[0], z[1]),
        "head_gradient": head_gradient(branch.start, head.probe, branch.task.objective),
        "head_change": head_change(branch.start.head, branch.end.head),
    }


def _ntk(branch: Branch) -> Json:
    backbone = _Backbone.of(branch.start, branch.task, branch.seed)
    before, after = (backbone.kernel(network) for network in (branch.start, branch.end))
    return {"change": ntk_change(before, after), "distance": ntk_distance(before, after)}


def _decomposition(branch: Branch) -> Json:
    # float64: at a step small enough to be first order, float32 sees rounding
    network = deepcopy(branch.start).double()
    rng = torch.Generator().manual_seed(seed_for(branch.seed, "measures"))
    rows = probe_sample(branch.task, STEP_EXAMPLES, rng=rng)
    batch = branch.task.examples.take(rows).double()
    objective = branch.task.objective
    parts = decompose(network, batch, objective, lr=STEP_LR)
    step = one_step_change(network, batch, objective, lr=STEP_LR)
    return {
        "lr": STEP_LR,
        **{factor: getattr(parts, factor) for factor in STEP_FACTORS},
        "first_order_error": first_order_error(parts.change, step),
    }


def _drift(branch: Branch) -> Json:
    phase = branch.recipe.after[0]
    epochs = branch.epochs if phase.batch_norm == "train" else 0
    rng = torch.Generator().manual_seed(seed_for(branch.seed, branch.recipe.stream))
    network = deepcopy(branch.start)
    with stochastic_norm(network.backbone, phase.running_statistics if epochs else 0.0):
        drift = batch_norm_drift(
            network,
            branch.trained or branch.task,
            epochs=epochs,
            rng=rng,
            size=phase.batch_size,
            set_modes=lambda network, epoch: set_modes(network, phase, epoch=epoch),
            compared_on=branch.task,
        )
    return asdict(drift)


def _bound(branch: Branch) -> Json:
    phase, ends = branch.recipe.after[0], (branch.start, branch.end)
    trained = branch.trained or branch.task
    steps = branch.epochs * ceil(trained.epoch_size / phase.batch_size)
    backbone = _Backbone.of(branch.start, branch.task, branch.seed)
    head = _Head.of(branch.start, branch.task, branch.seed)
    bound = proposition_1(
        branch.ends.shift.distance,
        branch.ends.energies[0],
        lr=backbone_rate(branch.start, phase),
        steps=steps,
        beta=kernel_bound(ends, backbone.probe, vectors=backbone.vectors),
        gamma=head_bound(ends, head.probe, vectors=head.vectors),
    )
    # where it is not derived for a run, the numbers are a comparison
    beyond = _beyond_proposition_1(branch)
    return {**asdict(bound), "holds": bound.holds, "applies": not beyond, "beyond": beyond}


def _beyond_proposition_1(branch: Branch) -> list[str]:
    """What of a branch Proposition 1 is not derived for, in words; see `proposition_1`."""
    task, recipe, phase = branch.task, branch.recipe, branch.recipe.after[0]
    objective = task.objective
    own = objective.objective if isinstance(objective, ScoredByLoss) else objective
    before, after = branch.ends.energies
    trained = branch.trained or task
    conditions = {
        f"steps of {phase.optimizer}": phase.optimizer != "sgd",
        f"momentum {phase.momentum:g}": phase.optimizer == "sgd" and phase.momentum > 0,
        "weight decay": phase.weight_decay > 0,
        "an anchor": phase.anchor > 0,
        "a penalty on the head": phase.head_penalty > 0,
        "a penalty on features": bool(
            phase.stage_anchor
            or phase.feature_anchor
            or phase.spectral_shrinkage
            or phase.node_transport
        ),
        "label smoothing": phase.smoothing > 0,
        "adapters in place of weights": phase.adapter_rank is not None,
        "a loss of more than the labels": isinstance(own, Joint | ClassContrast),
        "weights that are mixed afterwards": bool(recipe.alphas or recipe.stage_mixing),
        "several phases": len(recipe.after) > 1,
        "shares of sources": bool(trained.portions),
        "a sample of what was trained on": len(trained.rows("train")) != len(task.rows("train")),
        "features of parts of an example": branch.ends.rows != len(task.rows("train")),
        "dropout, batch statistics or augmentation": not _trained_as_measured(branch),
        "an energy that did not fall": not after <= before,
    }
    return [words for words, holds in conditions.items() if holds]


def _trained_as_measured(branch: Branch) -> bool:
    """Whether training sees the examples and the network that a snapshot sees."""
    task, network = branch.task, deepcopy(branch.start)
    phase = branch.recipe.after[0]
    rng = torch.Generator().manual_seed(seed_for(branch.seed, "measures"))
    rows = probe_sample(task, min(PROBE_EXAMPLES, phase.batch_size), rng=rng)
    with inference(network):
        expected = network(task.examples.take(rows))
    set_modes(network, phase)
    devices = [expected.device] if expected.is_cuda else []
    with torch.random.fork_rng(devices=devices), torch.no_grad():
        seen = network(task.examples.take(rows, rng=rng))
    return torch.allclose(seen, expected, rtol=1e-4, atol=1e-6)


def _targets(branch: Branch) -> Json:
    """Final score of every target, by split and name."""
    return {split: _split_scores(branch.end, branch.task, split) for split in branch.task.splits}


def _split_scores(network: Network, task: Task, split: str) -> Scores:
    objective = task.objective
    if not isinstance(objective, Multiclass | ClassContrast):
        whole = predict(network, task, split)
        return target_scores(task, whole.logits, whole.targets)
    counts = ClassCounts(ignore=objective.ignore)
    for some in predictions_in_batches(network, task, split):
        counts.add(some.targets, some.logits)
    return _class_scores(task, counts)


def _exchange(networks: Sequence[Network], task: Task) -> Json:
    return {s: exchange_scores(networks, task, s).tolist() for s in ("train", "valid")}


def _direction_along(start: Network, task: Task, seed: int) -> Callback:
    head = _Head.of(start, task, seed)
    first = deepcopy(start.head)
    return Measure(
        lambda network: {
            "direction": head.norm(network),
            "head_change": head_change(first, network.head),
        }
    )


class _KernelAlong(Callback):
    """Change of the kernel since the start, and since the epoch before (Figure 6 of the paper)."""

    def __init__(self, start: Network, task: Task, seed: int) -> None:
        self._backbone = _Backbone.of(start, task, seed)
        self._first = self._last = self._backbone.kernel(start)

    def measure(self, network: Network) -> Row:
        """Both changes."""
        before, self._last = self._last, self._backbone.kernel(network)
        return {
            "ntk_change": ntk_change(self._first, self._last),
            "ntk_step": ntk_change(before, self._last),
        }

    def state(self) -> Weights:
        """The kernel after the last epoch."""
        return {"last": self._last}

    def load_state(self, state: Weights) -> None:
        """Go on from that epoch."""
        self._last = state["last"].to(self._last.device)


ALONG: dict[str, Callable[[Network, Task, int], Callback]] = {
    "direction": _direction_along,
    "ntk": _KernelAlong,
}
AT_END: dict[str, Callable[[Branch], Json]] = {
    "confidence": _confidence,
    "direction": _direction,
    "ntk": _ntk,
    "decomposition": _decomposition,
    "drift": _drift,
    "bound": _bound,
    "targets": _targets,
}
WITHOUT_FINETUNING = ("confidence", "targets")
TOGETHER: dict[str, Callable[[Sequence[Network], Task], Json]] = {"exchange": _exchange}
NAMES = tuple(dict.fromkeys([*AT_END, *ALONG, *TOGETHER]))
