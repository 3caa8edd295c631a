"""Head probing: one trajectory gives the head of every tau, one training many trajectories.

On cached features (`on_features`) heads of linear maps and ReLUs are stacked and trained together:
several learning rates, smoothings and seeds cost little more than one. The result is that of `fit`
up to rounding; `fit` remains the way for every other head, objective, or network with a backbone,
and for every setting of a phase that a stack does not know.
"""

from collections.abc import Callable, Sequence
from contextlib import nullcontext, suppress
from copy import deepcopy
from dataclasses import dataclass, fields, replace
from math import isfinite, nan

import torch

from molhpft.core.data import Rows, Task
from molhpft.core.determinism import one_thread
from molhpft.core.evaluate import Snapshot, evaluation_batches, take
from molhpft.core.network import Network
from molhpft.tuning.callbacks import Callback, Progress, Row, Weights
from molhpft.tuning.fit import DivergedError, diverged, fit
from molhpft.tuning.phase import Phase
from molhpft.tuning.stacked import Lesson, Stack, feature_rows, labels, orders, stepping, train

Rngs = Sequence[torch.Generator]

_STACKED = {"trains", "epochs", "lr", "batch_size", "optimizer", "momentum", "weight_decay"}
_STACKED |= {"smoothing", "keep", "patience"}
"""Settings that a stack of heads is trained by, or that no probe has another value of."""
SMALL = 2**22  # products of numbers in a step, below which threads wait longer than they compute


@dataclass(frozen=True)
class Trajectory:
    """Heads along one run of head probing.

    Attributes:
        heads: tau to the head's weights after tau epochs; none from where training diverged.
        rows: training rows, one an epoch; the loss is NaN from there on.
        diverged: in which epoch and what to do; None where it did not.
    """

    heads: dict[int, Weights]
    rows: list[Row]
    diverged: str | None = None

    def snapshots(self, network: Network, task: Task, split: str) -> dict[int, Snapshot]:
        """What the head of each tau says about a split: tau to its snapshot.

        On features a linear head costs one product for all taus together.

        Args:
            network: whose head was probed; left as it is.
            task: that it was probed on.
            split: name of the split.
        """
        if feature_rows(network, task) is None:
            return {
                tau: take(with_head(network, head), evaluation_batches(task, split))
                for tau, head in self.heads.items()
            }
        (batch,) = task.batches(split, size=len(task.rows(split)))
        z, y = batch.inputs.cpu(), batch.targets.cpu()
        stack = Stack(network.head, list(self.heads.values()), groups=1)
        logits = stack.forward(batch.inputs[None])[0].mT.cpu()
        return {
            tau: Snapshot(logits=a, targets=y, features=z)
            for tau, a in zip(self.heads, logits, strict=True)
        }


def with_head(network: Network, head: Weights) -> Network:
    """The same backbone with a head of its own, which has the weights `head`."""
    copy = Network(network.backbone, deepcopy(network.head))
    copy.head.load_state_dict(head)
    return copy


def probe(
    network: Network, phase: Phase, task: Task, *, taus: Sequence[int], rng: torch.Generator
) -> Trajectory:
    """Train a copy of the head for the largest of `taus` epochs, and keep it at each of them.

    Where the rate of a step depends on how many steps there are, as along a cosine, the head of
    each tau is trained by itself, from the same start.

    Args:
        network: whose head is probed; left as it is.
        phase: how to train the head; its epochs are not used.
        task: as for `fit`; `on_features` gives the fast form of both.
        taus: numbers of epochs, each at least 0.
        rng: as for `fit`.

    Raises:
        ValueError: a setting under which there is no head after tau epochs: early stopping, or
            keeping the best epoch.
        DivergedError: the loss became infinite or NaN.
    """
    ((trajectory,),) = probe_many([network], [phase], task, taus=taus, rngs=[rng])
    if trajectory.diverged is not None:
        raise DivergedError(trajectory.diverged)
    return trajectory


def probe_many(
    networks: Sequence[Network],
    phases: Sequence[Phase],
    task: Task,
    *,
    taus: Sequence[int],
    rngs: Rngs,
) -> list[list[Trajectory]]:
    """Probe every network's head by every phase, all at once where they can be stacked.

    One that diverges takes no other with it: its trajectory ends there and says so.

    Args:
        networks: of one architecture, left as they are; a seed each, say.
        phases: how to train the heads; their epochs are not used.
        task: as for `fit`; `on_features` gives the fast form.
        taus: numbers of epochs, each at least 0.
        rngs: one a network, as for `fit`. Each phase begins with the state its generator has, and
            leaves it as one run of that phase does.

    Returns:
        trajectories, `[phase][network]`: those that `probe` gives one by one, up to rounding.

    Raises:
        ValueError: a setting as for `probe`, or networks of different architectures.
    """
    _check(networks, phases, taus, rngs)
    rows = feature_rows(networks[0], task)
    groups: dict[tuple[object, ...], list[int]] = {}
    for i, phase in enumerate(phases):
        # phases that step at the same times and by the same formula are one stack
        alone = rows is None or not _is_stacked(phase)
        kind = (i,) if alone else (phase.optimizer, phase.batch_size)
        groups.setdefault(kind, []).append(i)
    begin = [rng.get_state() for rng in rngs]
    by_phase: dict[int, list[Trajectory]] = {}
    for numbers in groups.values():
        for rng, state in zip(rngs, begin, strict=True):
            rng.set_state(state)
        some = [phases[i] for i in numbers]
        if rows is None or not _is_stacked(some[0]):
            pairs = zip(networks, rngs, strict=True)
            one_by_one = _tau_by_tau if some[0].depends_on_its_end else _through_fit
            results = [[one_by_one(n, some[0], task, taus=taus, rng=rng) for n, rng in pairs]]
        else:
            results = _stacked(networks, some, task, rows, taus=taus, rngs=rngs)
        by_phase.update(zip(numbers, results, strict=True))
    return [by_phase[i] for i in range(len(phases))]


def _check(
    networks: Sequence[Network], phases: Sequence[Phase], taus: Sequence[int], rngs: Rngs
) -> None:
    if not networks or not phases or not taus or len(networks) != len(rngs):
        raise ValueError(
            "a probe needs at least one network, phase and tau, and one generator per network; got "
            f"{len(networks)}, {len(phases)}, {len(taus)} and {len(rngs)} generators"
        )
    if min(taus) < 0:
        raise ValueError(f"tau is a number of epochs, at least 0, got {min(taus)}")
    for phase in phases:
        if phase.trains != "head":
            raise ValueError("a probe trains the head alone, got a phase that trains all")
        if phase.watches_validation:
            raise ValueError(
                "a probe that gives the head after tau epochs needs keep: last and no patience, "
                f"got keep: {phase.keep}, patience: {phase.patience}"
            )


def _is_stacked(phase: Phase) -> bool:
    """Whether one stack of heads gives every tau: nothing is set that a stack does not know."""
    others = (field for field in fields(Phase) if field.name not in _STACKED)
    return all(getattr(phase, field.name) == field.default for field in others)


def _stacked(
    networks: Sequence[Network],
    phases: Sequence[Phase],
    task: Task,
    rows: Rows,
    *,
    taus: Sequence[int],
    rngs: Rngs,
) -> list[list[Trajectory]]:
    """Trajectories [phase][network] of phases that share optimizer and batch size."""
    starts = [network.head.state_dict() for network in networks for _ in phases]
    stack = Stack(networks[0].head, starts, groups=len(networks))
    smoothing = [phase.smoothing for phase in phases]
    targets = labels(task.objective, rows.targets, outputs=stack.outputs, smoothing=smoothing)
    lesson = Lesson(rows.inputs, targets, orders(task, size=phases[0].batch_size, rngs=rngs))
    each = [phase for _ in networks for phase in phases]
    weights = {0: stack.flat.clone()} if 0 in taus else {}
    losses: list[list[float]] = []
    small = stack.flat.numel() * phases[0].batch_size < SMALL
    with one_thread() if small else nullcontext():
        for loss in train(stack, stepping(stack, each), lesson, epochs=max(taus)):
            losses.append(loss.flatten().tolist())
            if not any(map(isfinite, losses[-1])):
                losses += [losses[-1]] * (max(taus) - len(losses))
                break
            if len(losses) in taus:
                weights[len(losses)] = stack.flat.clone()
    heads = {tau: stack.heads(flat) for tau, flat in weights.items()}

    def trajectory(number: int) -> Trajectory:
        own = {tau: stacked[number] for tau, stacked in heads.items()}
        return _ended([loss[number] for loss in losses], own, each[number])

    many = range(len(networks))
    return [[trajectory(k * len(phases) + i) for k in many] for i in range(len(phases))]


def _ended(losses: Sequence[float], heads: dict[int, Weights], phase: Phase) -> Trajectory:
    """A trajectory, which ends where training diverged, if it did.

    Args:
        losses: of every epoch.
        heads: of every tau.
        phase: that it was trained by.
    """
    lost = [epoch for epoch, loss in enumerate(losses, start=1) if not isfinite(loss)]
    # the weights of a tau may be lost in the last step of an epoch whose mean loss is not
    lost += [tau for tau, head in heads.items() if not _is_finite(head)]
    end = min(lost, default=len(losses) + 1)
    rows = [{"epoch": i, "loss": x if i < end else nan} for i, x in enumerate(losses, start=1)]
    error = diverged(f"the loss is not finite from epoch {end} on", phase) if lost else None
    finite = {tau: head for tau, head in heads.items() if tau < end}
    return Trajectory(finite, rows, None if error is None else str(error))


def _is_finite(head: Weights) -> bool:
    return all(bool(value.isfinite().all()) for value in head.values())


class _HeadsAlong(Callback):
    """Keeps the head at each of `taus`, and the rows of the epochs that did not diverge."""

    def __init__(self, network: Network, taus: Sequence[int]) -> None:
        self.taus = taus
        self.heads: dict[int, Weights] = {}
        self.losses: list[float] = []
        self._keep(network, 0)

    def measure(self, network: Network) -> Row:
        """Nothing, but keep the head."""
        self._keep(network, len(self.losses) + 1)
        return {}

    def after_epoch(self, rows: Sequence[Row], progress: Callable[[], Progress]) -> None:
        """Note the loss."""
        self.losses.append(rows[-1]["loss"])

    def _keep(self, network: Network, epoch: int) -> None:
        if epoch in self.taus:
            self.heads[epoch] = deepcopy(network.head.state_dict())


def _tau_by_tau(
    network: Network, phase: Phase, task: Task, *, taus: Sequence[int], rng: torch.Generator
) -> Trajectory:
    """The head of each tau trained by itself; rows are those of the largest tau."""
    begin, longest = rng.get_state(), max(taus)
    trajectories: list[Trajectory] = []
    for tau in sorted(taus):  # the largest comes last, and leaves the generator as one run does
        rng.set_state(begin)
        trajectories.append(_through_fit(network, phase, task, taus=[tau], rng=rng))
    lost = next((t.diverged for t in trajectories if t.diverged), None)
    heads = {tau: head for t in trajectories for tau, head in t.heads.items()}
    rows = trajectories[-1].rows if longest else []
    return Trajectory(heads, rows, lost)


def _through_fit(
    network: Network, phase: Phase, task: Task, *, taus: Sequence[int], rng: torch.Generator
) -> Trajectory:
    """The trajectory of one head by the training loop that serves every network."""
    network, longest = deepcopy(network), replace(phase, epochs=max(taus))
    along = _HeadsAlong(network, taus)
    with suppress(DivergedError):
        fit(network, longest, task, rng=rng, callbacks=[along])
    missing = longest.epochs - len(along.losses)
    return _ended([*along.losses, *[nan] * missing], along.heads, phase)
