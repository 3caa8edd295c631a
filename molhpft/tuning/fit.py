"""The one training loop."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import dataclass
from math import ceil, isfinite

import torch
from torch import Tensor
from torch.nn.modules.batchnorm import _BatchNorm
from torch.optim import Optimizer

from molhpft.core.network import Chain, Network
from molhpft.core.snapshot import take
from molhpft.core.task import Task
from molhpft.tuning import optim
from molhpft.tuning.phase import Phase

Row = dict[str, float]
Weights = dict[str, Tensor]


@dataclass(frozen=True)
class Progress:
    """Everything a phase needs to go on after an epoch as if it had never stopped.

    Attributes:
        rows: one per finished epoch.
        weights: the network's.
        best: the network's at its best validation score; empty if the phase keeps the last.
        moments: the optimizer's.
        rng: state of the generator given to `fit`.
    """

    rows: tuple[Row, ...]
    weights: Weights
    best: Weights
    moments: Weights
    rng: Tensor


def fit(
    network: Network,
    phase: Phase,
    task: Task,
    *,
    rng: torch.Generator,
    observe: Callable[[Network], Row] | None = None,
    resume: Progress | None = None,
    save: Callable[[Progress], None] | None = None,
) -> list[Row]:
    """Train `network` in place for one phase; one row per epoch.

    Args:
        network: changed in place; with `phase.trains == "head"` its backbone is not.
        phase: what to train and how.
        task: trained on its "train" split; "valid" is watched when the phase asks for it.
        rng: draws the order of the examples and, through a seed an epoch, dropout.
        observe: numbers to add to each epoch's row. It may look, not touch.
        resume: what `save` was last given; the result is that of an uninterrupted run.
        save: called after every epoch.

    Returns:
        a row per epoch: epoch (from 1), loss (mean over steps), valid (score, when watched), and
        what `observe` adds.

    Raises:
        ValueError: the loss became infinite or NaN.
    """
    anchor = deepcopy(network.backbone).requires_grad_(False) if phase.anchor else None
    network.backbone.requires_grad_(phase.trains == "all")
    optimizer = optim.optimizer(network, phase)
    rows, best = _restore(network, optimizer, resume, rng) if resume else ([], {})
    with _global_rng_kept(network):
        while len(rows) < phase.epochs and not _out_of_patience(rows, phase):
            # dropout draws from the global generator; seeding it from ours lets ours decide all
            torch.manual_seed(int(torch.randint(2**62, (), generator=rng)))
            loss = _epoch(network, phase, task, optimizer, rng=rng, done=len(rows), anchor=anchor)
            row = {"epoch": len(rows) + 1, "loss": loss}
            if phase.watches_validation:
                row["valid"] = score(network, task, "valid")
            rows.append({**row, **(observe(network) if observe else {})})
            if phase.keep == "best" and best_epoch(rows) == len(rows):
                best = _copy(network.state_dict())
            if save:
                weights, moments = _copy(network.state_dict()), optim.tensors(optimizer)
                save(Progress(tuple(rows), weights, best, moments, rng.get_state()))
    if best:
        network.load_state_dict(best)
    network.backbone.requires_grad_(True)
    return rows


def score(network: Network, task: Task, split: str, *, size: int = 1024) -> float:
    """The objective's score on a whole split, in eval mode, no row dropped."""
    snapshot = take(network, task.batches(split, size=size))
    return task.objective.score(snapshot.logits, snapshot.targets)


def best_epoch(rows: list[Row]) -> int:
    """Epoch (from 1) of the highest validation score, the earliest of equals; 0 without rows."""
    return max(range(len(rows)), key=lambda i: rows[i]["valid"]) + 1 if rows else 0


def _epoch(
    network: Network,
    phase: Phase,
    task: Task,
    optimizer: Optimizer,
    *,
    rng: torch.Generator,
    done: int,
    anchor: Chain | None,
) -> float:
    _set_modes(network, phase)
    objective = task.objective.smoothed(phase.smoothing)
    steps = ceil(len(task.rows("train")) / phase.batch_size)
    losses = []
    for step, batch in enumerate(task.batches("train", size=phase.batch_size, rng=rng)):
        optim.set_learning_rate(optimizer, phase, done=(done + step / steps) / phase.epochs)
        loss = objective.loss(network(batch), batch.targets)
        losses.append(loss.detach())
        if anchor is not None:
            loss = loss + phase.anchor / 2 * _squared_distance(network.backbone, anchor)
        optimizer.zero_grad()
        torch.autograd.backward(loss)
        optimizer.step()
    mean = torch.stack(losses).mean().item()
    if not isfinite(mean):
        raise ValueError(
            f"training diverged: the loss is {mean} in epoch {done + 1}; "
            f"try a learning rate below lr={phase.lr}"
        )
    return mean


def _set_modes(network: Network, phase: Phase) -> None:
    network.train()
    # eval mode, not only requires_grad: batch-norm statistics would drift during probing
    network.backbone.train(phase.trains == "all")
    if phase.batch_norm == "frozen":
        for module in network.backbone.modules():
            if isinstance(module, _BatchNorm):
                module.eval()


def _restore(
    network: Network, optimizer: Optimizer, progress: Progress, rng: torch.Generator
) -> tuple[list[Row], Weights]:
    network.load_state_dict(progress.weights)
    optim.load_tensors(optimizer, progress.moments)
    rng.set_state(progress.rng)
    return list(progress.rows), progress.best


def _out_of_patience(rows: list[Row], phase: Phase) -> bool:
    return phase.patience is not None and len(rows) - best_epoch(rows) >= phase.patience


def _copy(weights: Weights) -> Weights:
    # a state_dict aliases the live weights: without clones the "best" would train on
    return {name: value.detach().clone() for name, value in weights.items()}


def _squared_distance(backbone: Chain, anchor: Chain) -> Tensor:
    pairs = zip(backbone.parameters(), anchor.parameters(), strict=True)
    return torch.stack([(p - q).square().sum() for p, q in pairs]).sum()


@contextmanager
def _global_rng_kept(network: Network) -> Iterator[None]:
    devices = {p.device for p in network.parameters() if p.device.type == "cuda"}
    with torch.random.fork_rng(devices=list(devices)):
        yield
