"""Further measures of a run, by the names that a config may ask for.

Energy, scores and shift are always taken. These cost more: some look along finetuning, an epoch at
a time, some at a branch when it has ended, one at all branches together.
"""

from collections.abc import Callable, Sequence
from copy import deepcopy
from dataclasses import asdict, dataclass
from math import ceil

import torch
from torch import Tensor

from molhpft.core.batch import Batch
from molhpft.core.network import Network
from molhpft.core.snapshot import EVALUATION_SIZE, Snapshot, take
from molhpft.core.task import Task
from molhpft.experiments.folder import Json
from molhpft.experiments.seeds import stream
from molhpft.experiments.targets import target_scores
from molhpft.measure.bound import head_bound, kernel_bound, proposition_1
from molhpft.measure.confidence import correct_probability
from molhpft.measure.decomposition import decompose, first_order_error, one_step_change
from molhpft.measure.direction import alignment, descent_directions, direction_norms
from molhpft.measure.drift import batch_norm_drift
from molhpft.measure.ntk import ntk_change, ntk_distance, tangent_kernel, unit_vectors
from molhpft.measure.swap import exchange_scores
from molhpft.tuning.checkpoints import Row
from molhpft.tuning.recipes import Recipe

PROBE_EXAMPLES = 50  # 2,500 pairs, as in Figure 6 of Ren et al. (2023)
PROBE_VECTORS = 16
STEP_EXAMPLES = 4
STEP_LR = 1e-4
BINS = 20

Observer = Callable[[Network], Row]


@dataclass(frozen=True)
class Branch:
    """A finetuned branch and what it came from.

    Attributes:
        start: the probed network that finetuning began with.
        end: the network that it ended with.
        before: of the training split at the start.
        after: of the same examples at the end.
        task: what was trained on.
        recipe: how.
        seed: of the run.
    """

    start: Network
    end: Network
    before: Snapshot
    after: Snapshot
    task: Task
    recipe: Recipe
    seed: int


def observers(names: Sequence[str], start: Network, task: Task, *, seed: int) -> Observer | None:
    """What to note after each epoch of finetuning, or None for nothing.

    Args:
        names: of `ALONG`; others are left to the end.
        start: the probed network that finetuning will begin with.
        task: gives the probe examples.
        seed: of the run.
    """
    chosen = [ALONG[name](start, task, seed) for name in names if name in ALONG]
    if not chosen:
        return None
    return lambda network: {k: v for observe in chosen for k, v in observe(network).items()}


def measure_branch(names: Sequence[str], branch: Branch) -> Json:
    """Name to what was measured when a branch has ended."""
    return {name: AT_END[name](branch) for name in names if name in AT_END}


def measure_run(names: Sequence[str], networks: Sequence[Network], task: Task) -> Json:
    """Name to what was measured over the final networks of all branches."""
    return {name: TOGETHER[name](networks, task) for name in names if name in TOGETHER}


def _probe(task: Task, count: int = PROBE_EXAMPLES) -> list[Batch]:
    """The first training examples, one a batch: gradients by example are cheapest so."""
    return [task.examples.take(row[None]) for row in task.rows("train")[:count]]


def _vectors(network: Network, probe: Sequence[Batch], seed: int) -> Tensor:
    with torch.no_grad():
        width = deepcopy(network).eval().features(probe[0]).flatten(1).shape[1]
    rng = torch.Generator().manual_seed(stream(seed, "ntk"))
    return unit_vectors(PROBE_VECTORS, width, rng=rng)


def _confidence(branch: Branch) -> Json:
    ends = {"before": branch.before, "after": branch.after}
    right = {when: correct_probability(s, branch.task.objective) for when, s in ends.items()}
    counts = {w: torch.histc(p[p.isfinite()], BINS, 0, 1).int().tolist() for w, p in right.items()}
    return {"histogram": counts, "mean": {when: p.mean().item() for when, p in right.items()}}


def _direction(branch: Branch) -> Json:
    probe = _probe(branch.task)
    with torch.no_grad():
        z = [
            torch.cat([deepcopy(n).eval().features(b).cpu() for b in probe])
            for n in (branch.start, branch.end)
        ]
    asked = descent_directions(branch.start, probe, branch.task.objective)
    return {
        "norm_before": direction_norms(branch.start, probe).mean().item(),
        "norm_after": direction_norms(branch.end, probe).mean().item(),
        "alignment": alignment(asked, z[0], z[1]),
    }


def _ntk(branch: Branch) -> Json:
    probe = _probe(branch.task)
    vectors = _vectors(branch.start, probe, branch.seed)
    kernels = [tangent_kernel(n, probe, vectors) for n in (branch.start, branch.end)]
    return {"change": ntk_change(*kernels), "distance": ntk_distance(*kernels)}


def _decomposition(branch: Branch) -> Json:
    # float64: at a step small enough to be first order, float32 sees rounding
    network = deepcopy(branch.start).double()
    batch = branch.task.examples.take(branch.task.rows("train")[:STEP_EXAMPLES])
    objective = branch.task.objective
    parts = decompose(network, batch, objective, lr=STEP_LR)
    taken = one_step_change(network, batch, objective, lr=STEP_LR)
    return {
        "lr": STEP_LR,
        "kernel": parts.kernel,
        "direction": parts.direction,
        "energy": parts.energy,
        "first_order_error": first_order_error(parts.change, taken),
    }


def _drift(branch: Branch) -> Json:
    epochs = sum(p.epochs for p in branch.recipe.after if p.batch_norm == "train")
    rng = torch.Generator().manual_seed(stream(branch.seed, "finetune"))
    return asdict(batch_norm_drift(branch.start, branch.task, epochs=epochs, rng=rng))


def _bound(branch: Branch) -> Json:
    phase, ends = branch.recipe.after[0], (branch.start, branch.end)
    steps = phase.epochs * ceil(len(branch.task.rows("train")) / phase.batch_size)
    probe = _probe(branch.task)
    vectors = _vectors(branch.start, probe, branch.seed)
    bound = proposition_1(
        branch.before,
        branch.after,
        branch.task.objective,
        lr=phase.lr,
        steps=steps,
        beta=kernel_bound(ends, probe, vectors=vectors),
        gamma=head_bound(ends, probe),
    )
    # it is derived for plain gradient descent in eval mode; elsewhere the numbers are a comparison
    setting = (phase.optimizer, phase.momentum, phase.schedule, phase.batch_norm)
    applies = setting == ("sgd", 0.0, "constant", "frozen")
    return {**asdict(bound), "holds": bound.holds, "applies": applies}


def _targets(branch: Branch) -> Json:
    """Final score of every target, by split and name."""
    task, taken = branch.task, {}
    for split in task.splits:
        end = take(branch.end, task.batches(split, size=EVALUATION_SIZE))
        taken[split] = target_scores(task, end.logits, end.targets)
    return taken


def _exchange(networks: Sequence[Network], task: Task) -> Json:
    return {s: exchange_scores(networks, task, s).tolist() for s in ("train", "valid")}


def _direction_along(start: Network, task: Task, seed: int) -> Observer:
    probe = _probe(task)
    return lambda network: {"direction": direction_norms(network, probe).mean().item()}


def _ntk_along(start: Network, task: Task, seed: int) -> Observer:
    probe = _probe(task)
    vectors = _vectors(start, probe, seed)
    first = tangent_kernel(start, probe, vectors)
    return lambda network: {
        "ntk_change": ntk_change(first, tangent_kernel(network, probe, vectors))
    }


ALONG: dict[str, Callable[[Network, Task, int], Observer]] = {
    "direction": _direction_along,
    "ntk": _ntk_along,
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
TOGETHER: dict[str, Callable[[Sequence[Network], Task], Json]] = {"exchange": _exchange}
NAMES = tuple(dict.fromkeys([*AT_END, *ALONG, *TOGETHER]))
