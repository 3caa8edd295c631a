"""The one training loop.

What a phase keeps of its progress, so that it can go on as if it had never stopped.

Optimizers, learning rates and their schedules, from a phase.
"""

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from math import ceil, cos, isfinite, isnan, pi
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.optim import Optimizer

from molhpft.core.data import Task
from molhpft.core.determinism import seed_dropout
from molhpft.core.evaluate import EVALUATION_SIZE, predict
from molhpft.core.network import Batch, Chain, Network
from molhpft.tuning.distributed import ALONE, Machine
from molhpft.tuning.phase import Phase


def make_optimizer(network: Network, phase: Phase) -> Optimizer:
    """A fresh optimizer over what the phase trains; `base_lr` of each group is its own rate.

    Raises:
        ValueError: no parameter of it requires gradients.
    """
    groups = _groups(network, phase)
    if not groups:
        trained = "the head" if phase.trains == "head" else "the network"
        raise ValueError(f"nothing to train: no parameter of {trained} requires gradients")
    # fused: one pass over the weights instead of one a formula, on CPU and GPU alike
    options: dict[str, Any] = {"weight_decay": phase.weight_decay, "fused": True}
    if phase.optimizer == "sgd":
        return torch.optim.SGD(groups, lr=phase.lr, momentum=phase.momentum, **options)
    kind = torch.optim.AdamW if phase.optimizer == "adamw" else torch.optim.Adam
    return kind(groups, lr=phase.lr, **options)


def set_learning_rate(optimizer: Optimizer, phase: Phase, *, done: float) -> None:
    """Set every group's rate for the share `done` in [0, 1] of the phase that lies behind."""
    factor = (1 + cos(pi * done)) / 2 if phase.schedule == "cosine" else 1.0
    for group in optimizer.param_groups:
        group["lr"] = group["base_lr"] * factor


def backbone_rate(network: Network, phase: Phase) -> float:
    """The learning rate of the fastest stage of the backbone; 0 where none of it is trained."""
    own = {id(parameter) for parameter in network.backbone.parameters()}
    groups = _groups(network, phase)
    return max(
        (g["base_lr"] for g in groups if any(id(p) in own for p in g["params"])), default=0.0
    )


def tensors(optimizer: Optimizer) -> dict[str, Tensor]:
    """Copies of moments and step counts, flat: "parameter number.name" to tensor."""
    state: dict[int, dict[str, Tensor]] = optimizer.state_dict()["state"]
    return {
        f"{i}.{name}": value.clone()
        for i, moments in state.items()
        for name, value in moments.items()
    }


def load_tensors(optimizer: Optimizer, saved: dict[str, Tensor]) -> None:
    """Put back what `tensors` gave, into an optimizer of the same network and phase.

    `saved` is copied: the optimizer steps on tensors of its own.
    """
    state: dict[int, dict[str, Tensor]] = {}
    for key, value in saved.items():
        i, name = key.split(".", 1)
        state.setdefault(int(i), {})[name] = value.clone()
    groups = optimizer.state_dict()["param_groups"]
    optimizer.load_state_dict({"state": state, "param_groups": groups})


def _groups(network: Network, phase: Phase) -> list[dict[str, Any]]:
    """Parameters by learning rate: few groups, as each is a call of its own in every step."""
    stages: list[tuple[nn.Module, float]] = [(network.head, phase.lr)]
    if phase.trains == "all":
        for depth, stage in enumerate(reversed(list(network.backbone)), start=1):
            rate = (phase.backbone_lr or phase.lr) * phase.layer_decay**depth
            stages.append((stage, rate))
    groups: dict[float, list[Tensor]] = {}
    for module, rate in stages:
        trainable = [p for p in module.parameters() if p.requires_grad]
        groups.setdefault(rate, []).extend(trainable)
    return [{"params": params, "base_lr": rate} for rate, params in groups.items() if params]


Row = dict[str, float]
Weights = dict[str, Tensor]


@dataclass(frozen=True)
class Progress:
    """Everything a phase needs to go on, between two epochs or in the middle of one.

    Its tensors are copies: a progress that is kept in memory does not change while training does.

    Attributes:
        rows: one per finished epoch.
        losses: those of the steps done since, (steps,).
        weights: the network's.
        best: the network's at its best validation score; empty if the phase keeps the last.
        anchor: the backbone's when the phase began; empty if nothing pulls it back there.
        moments: the optimizer's.
        epoch_rng: state of the generator given to `fit` when the epoch under way began.
        rng: its state now.
    """

    rows: tuple[Row, ...]
    losses: Tensor
    weights: Weights
    best: Weights
    anchor: Weights
    moments: Weights
    epoch_rng: Tensor
    rng: Tensor


def _nothing() -> None:
    return None


def _nowhere(progress: Progress) -> None:
    pass


@dataclass(frozen=True)
class Checkpoints:
    """Where a phase keeps its progress, and how often.

    Attributes:
        load: what `save` was last given, None where there is nothing to go on from.
        save: called after every epoch and, within one, after every `steps` steps.
        steps: None saves between epochs only.
    """

    load: Callable[[], Progress | None] = _nothing
    save: Callable[[Progress], None] = _nowhere
    steps: int | None = None


NO_CHECKPOINTS = Checkpoints()


_log = logging.getLogger(__name__)


def fit(
    network: Network,
    phase: Phase,
    task: Task,
    *,
    rng: torch.Generator,
    observe: Callable[[Network], Row] | None = None,
    checkpoints: Checkpoints = NO_CHECKPOINTS,
    machine: Machine = ALONE,
    tick: Callable[[int], object] | None = None,
    until: int | None = None,
) -> list[Row]:
    """Train `network` in place for one phase; one row per epoch.

    Parameters that do not require gradients stay as they are, and a stage of nothing but such
    parameters is in eval mode, so that its batch-norm statistics stay as well.

    Args:
        network: changed in place; with `phase.trains == "head"` its backbone is not. Afterwards
            the same parameters require gradients as before, also when training fails.
        phase: what to train and how.
        task: trained on its "train" split; "valid" is watched when the phase asks for it.
        rng: draws the order of the examples and, through a seed a step, dropout.
        observe: numbers to add to each epoch's row. It may look, not touch.
        checkpoints: what to go on from, and where to keep what a later call can go on from; the
            result is that of an uninterrupted run, to the last bit on a CPU.
        machine: precision, and the processes that share the work; all of them call `fit` alike.
        tick: called after every step with the number of examples seen in the phase.
        until: pause after this many epochs of the phase, with the weights that it would end with
            there; a later call goes on from `checkpoints` as if there had been no pause. None
            trains to the end.

    Returns:
        a row per epoch: epoch (from 1), loss (mean over steps), valid (score, when watched), and
        what `observe` adds.

    Raises:
        ValueError: the loss, a weight, or the validation score of every epoch that could be kept
            became infinite or NaN; nothing is left to train; or batches are smaller than the
            number of processes.
    """
    with torch.enable_grad(), _global_rng_kept(network), _frozen_where_untrained(network, phase):
        optimizer = make_optimizer(network, phase)
        training = _Training(network, phase, task, rng, optimizer, checkpoints, machine, tick)
        training.restore()
        last = phase.epochs if until is None else min(until, phase.epochs)
        while len(training.rows) < last and not _out_of_patience(training.rows, phase):
            training.epoch(observe)
        training.end()
    return training.rows


def score(network: Network, task: Task, split: str, *, size: int = EVALUATION_SIZE) -> float:
    """The objective's score on a whole split, in eval mode, no row dropped."""
    found = predict(network, task, split, size=size)
    return task.objective.score(found.logits, found.targets)


class DivergedError(ValueError):
    """A loss, prediction or weight became infinite or NaN."""

    def __init__(self, how: str, phase: Phase) -> None:
        super().__init__(f"training diverged: {how}; try a learning rate below lr={phase.lr}")


def _check_loss(loss: float, phase: Phase, *, epoch: int) -> None:
    """Refuse to go on with what has diverged.

    Raises:
        DivergedError: the loss of an epoch is infinite or NaN.
    """
    if not isfinite(loss):
        raise DivergedError(f"the loss is {loss} in epoch {epoch}", phase)


def best_epoch(rows: list[Row]) -> int:
    """Epoch (from 1) of the highest validation score, the earliest of equals.

    Predictions that are not finite have no score: 0 where there is no other.
    """
    finite = [i for i, row in enumerate(rows, start=1) if isfinite(row["valid"])]
    return max(finite, key=lambda epoch: rows[epoch - 1]["valid"], default=0)


@dataclass
class _Training:
    """A phase under way."""

    network: Network
    phase: Phase
    task: Task
    rng: torch.Generator
    optimizer: Optimizer
    checkpoints: Checkpoints
    machine: Machine
    tick: Callable[[int], object] | None
    rows: list[Row] = field(default_factory=list)
    best: Weights = field(default_factory=dict)
    losses: list[Tensor] = field(default_factory=list)  # of the epoch under way

    def __post_init__(self) -> None:
        self.examples = len(self.task.rows("train"))
        self.steps = ceil(self.examples / self.phase.batch_size)
        self.epoch_rng = self.rng.get_state()
        backbone = self.network.backbone.named_parameters() if self.phase.anchor else ()
        self.anchor = _copy(dict(backbone))
        if self.examples // self.steps < self.machine.processes:
            raise ValueError(
                f"batches of {self.examples // self.steps} examples cannot be shared by "
                f"{self.machine.processes} processes; take a larger batch_size or fewer devices"
            )

    def restore(self) -> None:
        """Go on from what was kept, if anything was."""
        found = self.checkpoints.load()
        if found is None:
            return
        self.network.load_state_dict(found.weights)
        load_tensors(self.optimizer, found.moments)
        device = next(self.network.parameters()).device
        self.rows, self.losses = [*map(dict, found.rows)], list(found.losses.to(device))
        self.best = found.best
        if found.anchor:  # this network may have moved since the phase began
            self.anchor = {name: value.to(device) for name, value in found.anchor.items()}
        self.epoch_rng = found.epoch_rng
        self.rng.set_state(found.rng)

    def save(self) -> None:
        """Keep what `restore` needs."""
        progress = Progress(
            rows=tuple(map(dict, self.rows)),
            losses=torch.stack(self.losses) if self.losses else torch.empty(0),
            weights=_copy(self.network.state_dict()),
            best=self.best,
            anchor=self.anchor,
            moments=tensors(self.optimizer),
            epoch_rng=self.epoch_rng,
            rng=self.rng.get_state(),
        )
        self.checkpoints.save(progress)

    def epoch(self, observe: Callable[[Network], Row] | None) -> None:
        """Train for what is left of an epoch, then look at the network and add a row."""
        set_modes(self.network, self.phase)
        logits = self.machine.shared(self.network)
        seed, batches = self._drawn()
        for step, batch in enumerate(batches, start=len(self.losses)):
            turn = step * self.machine.processes + self.machine.rank
            seed_dropout(seed + turn, batch.targets.device)
            self._step(logits, batch, step)
            after = len(self.rows) * self.steps + step + 1
            if self.checkpoints.steps and after % self.checkpoints.steps == 0:
                self.save()
        row = {"epoch": len(self.rows) + 1, "loss": self._mean_loss()}
        if self.phase.watches_validation:
            row["valid"] = score(self.network, self.task, "valid")
            self._warn_of(row["valid"])
        row |= observe(self.network) if observe else {}
        self.rows.append(self.machine.agreed(row))
        if self.phase.keep == "best" and best_epoch(self.rows) == len(self.rows):
            self.best = _copy(self.network.state_dict())
        self.losses, self.epoch_rng = [], self.rng.get_state()
        self.save()

    def end(self) -> None:
        """Give the network the weights that the phase ends with.

        Raises:
            ValueError: there are none that give finite predictions.
        """
        if self.best:
            self.network.load_state_dict(self.best)
        elif self.phase.keep == "best" and self.rows:
            raise DivergedError(
                f"after none of {len(self.rows)} epochs were all predictions on the validation "
                "split finite, so that no epoch is the best",
                self.phase,
            )
        if not all(p.isfinite().all() for p in self.network.parameters()):
            raise DivergedError(f"weights are not finite after epoch {len(self.rows)}", self.phase)

    def _warn_of(self, valid: float) -> None:
        known = any(isnan(row["valid"]) for row in self.rows)
        if isnan(valid) and not known and self.machine.rank == 0:
            _log.warning(
                "predictions on the validation split of %s are not all finite after epoch %d: the "
                "score of that epoch is NaN, and its weights are never kept as the best; try a "
                "learning rate below lr=%s",
                self.task.name,
                len(self.rows) + 1,
                self.phase.lr,
            )

    def _drawn(self) -> tuple[int, Iterator[Batch]]:
        """Dropout's seed in this epoch, and its batches that are still to come."""
        now = self.rng.get_state()
        self.rng.set_state(self.epoch_rng)
        seed = int(torch.randint(2**62, (), generator=self.rng))
        batches = self.task.batches(
            "train",
            size=self.phase.batch_size,
            rng=self.rng,
            skip=len(self.losses),
            share=(self.machine.rank, self.machine.processes),
        )
        if self.losses:  # augmentations go on where they were
            self.rng.set_state(now)
        return seed, batches

    def _step(self, logits: Callable[[Batch], Tensor], batch: Batch, step: int) -> None:
        done = (len(self.rows) + step / self.steps) / self.phase.epochs
        set_learning_rate(self.optimizer, self.phase, done=done)
        total = self._seen(step + 1) - self._seen(step)
        objective = self.task.objective.smoothed(self.phase.smoothing)
        loss = objective.loss(
            self.machine.whole(logits(batch), total), self.machine.whole(batch.targets, total)
        )
        self.losses.append(loss.detach())
        if self.anchor:
            pull = _squared_distance(self.network.backbone, self.anchor)
            loss = loss + self.phase.anchor / 2 * pull
        self.optimizer.zero_grad()
        self.machine.backward(loss)
        self.optimizer.step()
        if self.tick:
            self.tick(len(self.rows) * self.examples + self._seen(step + 1))

    def _seen(self, steps: int) -> int:
        """Examples in the first so many batches of an epoch, the longer of which come first."""
        short, longer = divmod(self.examples, self.steps)
        return steps * short + min(steps, longer)

    def _mean_loss(self) -> float:
        mean = torch.stack(self.losses).mean().item()
        _check_loss(mean, self.phase, epoch=len(self.rows) + 1)
        return mean


def set_modes(network: Network, phase: Phase) -> None:
    """Put every module into the mode in which a phase trains it."""
    network.train()
    # eval mode, not only requires_grad: batch-norm statistics would drift during probing
    network.backbone.train(phase.trains == "all")
    for stage in (*network.backbone, *network.head):
        if _is_frozen(stage):
            stage.eval()
    if phase.batch_norm == "frozen":
        for module in network.backbone.modules():
            if isinstance(module, _BatchNorm):
                module.eval()


def _is_frozen(stage: nn.Module) -> bool:
    parameters = list(stage.parameters())
    return bool(parameters) and not any(p.requires_grad for p in parameters)


def _out_of_patience(rows: list[Row], phase: Phase) -> bool:
    return phase.patience is not None and len(rows) - best_epoch(rows) >= phase.patience


def _copy(weights: Weights) -> Weights:
    # a state_dict aliases the live weights: without clones the "best" would train on
    return {name: value.detach().clone() for name, value in weights.items()}


def _squared_distance(backbone: Chain, anchor: Weights) -> Tensor:
    moved = [(p - anchor[name]).square().sum() for name, p in backbone.named_parameters()]
    return torch.stack(moved).sum()


@contextmanager
def _frozen_where_untrained(network: Network, phase: Phase) -> Iterator[None]:
    """Gradients for what the phase trains and the caller has not frozen."""
    before = [(p, p.requires_grad) for p in network.parameters()]
    if phase.trains == "head":
        network.backbone.requires_grad_(False)
    try:
        yield
    finally:
        for parameter, trainable in before:
            parameter.requires_grad_(trainable)


@contextmanager
def _global_rng_kept(network: Network) -> Iterator[None]:
    devices = {p.device for p in network.parameters() if p.device.type == "cuda"}
    with torch.random.fork_rng(devices=list(devices)):
        yield
