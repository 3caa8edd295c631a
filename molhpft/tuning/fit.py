"""The training loop: `fit` trains a network for one phase.

Heads on cached features have a faster form of it, `tuning.stacked`, which tests hold equal.
"""

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from math import ceil, isfinite, isnan
from typing import Any

import torch
from torch import Tensor

from molhpft.core.annotations import Float
from molhpft.core.data import Task
from molhpft.core.determinism import seed_dropout
from molhpft.core.evaluate import RunningScore, predictions_in_batches
from molhpft.core.network import Batch, Network
from molhpft.tuning.adapters import Adapters, adapted
from molhpft.tuning.callbacks import Callback, Progress, Row, Weights
from molhpft.tuning.distributed import ALONE, Machine
from molhpft.tuning.hardened import hardened
from molhpft.tuning.optimizer import (
    load_optimizer_tensors,
    make_optimizer,
    optimizer_tensors,
    set_learning_rate,
)
from molhpft.tuning.penalties import Penalties
from molhpft.tuning.phase import Phase
from molhpft.tuning.stochastic_norm import stochastic_norm
from molhpft.tuning.trained_stages import Freeze, frozen_where_untrained, set_modes

_log = logging.getLogger(__name__)


def fit(
    network: Network,
    phase: Phase,
    task: Task,
    *,
    rng: torch.Generator,
    callbacks: Sequence[Callback] = (),
    machine: Machine = ALONE,
) -> list[Row]:
    """Train `network` in place for one phase; one row per epoch.

    Parameters that do not require gradients stay as they are, and a stage of nothing but such
    parameters is in eval mode, so that its batch-norm statistics stay as well.

    Args:
        network: changed in place; with `phase.trains == "head"` its backbone is not. Afterwards
            the same parameters require gradients as before, even if training fails.
        phase: what to train and how.
        task: trained on its "train" split; "valid" is watched when the phase asks for it.
        rng: draws the order of the examples, and seeds dropout at every step.
        callbacks: numbers to add to each row, progress to show or keep, a pause; see `Callback`.
            A phase resumed by one of them ends as an uninterrupted one, to the last bit on a CPU.
        machine: precision, and the processes that share the work; all of them call `fit` alike.

    Returns:
        a row per epoch: epoch (from 1), loss (mean over steps), valid (score, when watched), and
        what callbacks measure.

    Raises:
        ValueError: the loss, a weight, or the validation score of every epoch that could be kept
            became infinite or NaN; no parameter is trainable; the phase wants of the backbone what
            it has not, such as a stage, batch norm or linear map; or several processes share what
            has to be of one, or share batches smaller than their number.
    """
    with (
        torch.enable_grad(),
        _global_rng_kept(network),
        adapted(network, phase, rng=rng) as adapters,
        frozen_where_untrained(network, phase) as freeze,
        stochastic_norm(network.backbone, phase.running_statistics, machine=machine),
    ):
        training = _Training(network, phase, task, rng, callbacks, machine, freeze, adapters)
        training.resume()
        while training.goes_on():
            training.epoch()
        training.end()
    return training.rows


def score(network: Network, task: Task, split: str) -> float:
    """The objective's score on a whole split, in eval mode, no row dropped."""
    running = RunningScore(task.objective, rows=len(task.rows(split)))
    for some in predictions_in_batches(network, task, split):
        running.add(some)
    return running.value()


class DivergedError(ValueError):
    """A loss, prediction or weight became infinite or NaN."""


def diverged(how: str, phase: Phase) -> DivergedError:
    """The error that says how a phase diverged."""
    return DivergedError(f"training diverged: {how}; try a learning rate below lr={phase.lr}")


def best_epoch(rows: Sequence[Mapping[str, Any]]) -> int:
    """Epoch (from 1) of the highest validation score, on ties the earliest.

    Predictions that are not finite have no score; 0 where no epoch has one.
    """
    finite = [i for i, row in enumerate(rows, start=1) if isfinite(row["valid"])]
    return max(finite, key=lambda epoch: rows[epoch - 1]["valid"], default=0)


class _Training:
    """A phase under way."""

    def __init__(
        self,
        network: Network,
        phase: Phase,
        task: Task,
        rng: torch.Generator,
        callbacks: Sequence[Callback],
        machine: Machine,
        freeze: Freeze,
        adapters: Adapters,
    ) -> None:
        self.network, self.phase, self.task, self.rng = network, phase, task, rng
        self.callbacks, self.machine, self.freeze = callbacks, machine, freeze
        self.adapters = adapters
        self.optimizer = make_optimizer(network, phase, adapters=adapters)
        self.rows: list[Row] = []
        self.best: Weights = {}
        self.losses: list[Tensor] = []  # of the steps of the current epoch
        self.epoch_rng = rng.get_state()
        self.penalties = Penalties(network, phase, machine)
        self.examples = task.epoch_size
        self.steps = ceil(self.examples / phase.batch_size)
        if self.examples // self.steps < machine.processes:
            raise ValueError(
                f"batches of {self.examples // self.steps} examples cannot be shared by "
                f"{machine.processes} processes; take a larger batch_size or fewer devices"
            )

    def resume(self) -> None:
        """Go on from the progress that a callback has, if one has any."""
        progress = next((p for c in self.callbacks if (p := c.resume())), None)
        if progress is None:
            return
        device = next(self.network.parameters()).device
        self.network.load_state_dict(progress.weights)
        self.adapters.load_state(progress.adapters)
        load_optimizer_tensors(self.optimizer, progress.moments)
        self.rows, self.losses = [*map(dict, progress.rows)], list(progress.losses.to(device))
        self.best = progress.best
        # this network may have moved since the phase began
        self.penalties.start = {name: w.to(device) for name, w in progress.anchor.items()}
        for i, callback in enumerate(self.callbacks):
            own = {k: v for k, v in progress.callbacks.items() if k.startswith(f"{i}.")}
            callback.load_state({k.partition(".")[2]: v for k, v in own.items()})
        self.epoch_rng = progress.epoch_rng
        self.rng.set_state(progress.rng)

    def progress(self) -> Progress:
        """A copy of everything that `resume` needs."""
        return Progress(
            rows=tuple(map(dict, self.rows)),
            losses=torch.stack(self.losses) if self.losses else torch.empty(0),
            weights=_copy(self.network.state_dict()),
            best=self.best,
            anchor=self.penalties.start,
            adapters=self.adapters.state(),
            moments=optimizer_tensors(self.optimizer),
            callbacks={
                f"{i}.{name}": value.clone()
                for i, callback in enumerate(self.callbacks)
                for name, value in callback.state().items()
            },
            epoch_rng=self.epoch_rng,
            rng=self.rng.get_state(),
        )

    def goes_on(self) -> bool:
        """Whether another epoch is to be trained."""
        patience = self.phase.patience
        if patience is not None and len(self.rows) - best_epoch(self.rows) >= patience:
            return False
        wanted = all(callback.wants_epoch(self.rows) for callback in self.callbacks)
        return wanted and len(self.rows) < self.phase.epochs

    def epoch(self) -> None:
        """Train for what is left of an epoch, then add its row."""
        phase, machine, before = self.phase, self.machine, len(self.rows)
        self.freeze(before)
        set_modes(self.network, phase, epoch=before)
        logits = machine.shared(self.network)
        seed, batches = self._batches()
        perturbed = hardened(self.network.head, self.task.objective, size=phase.perturbation)
        with self.penalties.watching(), perturbed:
            for step, batch in enumerate(batches, start=len(self.losses)):
                done = (before + step / self.steps) / phase.epochs
                set_learning_rate(self.optimizer, phase, done=done, steps=self.steps * phase.epochs)
                dropout = seed + step * machine.processes + machine.rank
                loss = self._loss(logits, batch, step, dropout=dropout)
                self.losses.append(loss.detach())
                loss = self.penalties.added_to(loss, batch, dropout=dropout)
                self.optimizer.zero_grad()
                machine.backward(loss)
                self.adapters.take_gradients()
                self.optimizer.step()
                self.adapters.merge()
                examples = before * self.examples + self._seen(step + 1)
                for callback in self.callbacks:
                    callback.after_step(before * self.steps + step + 1, examples, self.progress)
        self._add_row()

    def _loss(
        self, logits: Callable[[Batch], Tensor], batch: Batch, step: int, *, dropout: int
    ) -> Float[Tensor, ""]:
        """Of the labels of a whole batch, from this process's part of it."""
        seed_dropout(dropout, batch.targets.device)
        total, whole = self._seen(step + 1) - self._seen(step), self.machine.whole
        objective = self.task.objective.smoothed(self.phase.smoothing)
        loss: Tensor = objective.loss(whole(logits(batch), total), whole(batch.targets, total))
        return loss

    def end(self) -> None:
        """Give the network the weights that the phase ends with.

        Raises:
            DivergedError: there are none that give finite predictions.
        """
        for callback in self.callbacks:
            callback.after_phase(self.rows, self.progress)
        if self.best:
            self.network.load_state_dict(self.best)
        elif self.phase.keep == "best" and self.rows:
            raise diverged(
                f"no epoch of {len(self.rows)} gave finite predictions on the whole validation "
                "split, so that there is no best one to keep",
                self.phase,
            )
        # parameters, and statistics of batch norm
        if not all(tensor.isfinite().all() for tensor in self.network.state_dict().values()):
            raise diverged(f"weights are not finite after epoch {len(self.rows)}", self.phase)

    def _batches(self) -> tuple[int, Iterator[Batch]]:
        """Dropout's seed in this epoch, and its batches that are still to come."""
        now = self.rng.get_state()
        self.rng.set_state(self.epoch_rng)
        seed, batches = self.task.epoch(
            size=self.phase.batch_size,
            rng=self.rng,
            skip=len(self.losses),
            part=(self.machine.rank, self.machine.processes),
        )
        if self.losses:  # augmentations go on where they were
            self.rng.set_state(now)
        return seed, batches

    def _seen(self, steps: int) -> int:
        """Examples in the first `steps` batches of an epoch; the longer batches come first."""
        short, longer = divmod(self.examples, self.steps)
        return steps * short + min(steps, longer)

    def _add_row(self) -> None:
        """Measure an epoch that has ended, and note its weights if they are the best so far."""
        epoch, loss = len(self.rows) + 1, torch.stack(self.losses).mean().item()
        if not isfinite(loss):
            raise diverged(f"the loss is {loss} in epoch {epoch}", self.phase)
        row: Row = {"epoch": epoch, "loss": loss}
        if self.phase.watches_validation:
            row["valid"] = score(self.network, self.task, "valid")
            self._warn_of(row["valid"])
        for callback in self.callbacks:
            row |= callback.measure(self.network)
        self.rows.append(self.machine.agreed(row))
        if self.phase.keep == "best" and best_epoch(self.rows) == epoch:
            self.best = _copy(self.network.state_dict())
        self.losses, self.epoch_rng = [], self.rng.get_state()
        for callback in self.callbacks:
            callback.after_epoch(self.rows, self.progress)

    def _warn_of(self, valid: float) -> None:
        """Warn of the first epoch whose validation score is NaN."""
        before = any(isnan(row["valid"]) for row in self.rows)
        if isnan(valid) and not before and self.machine.rank == 0:
            _log.warning(
                "predictions on the validation split of %s are not all finite after epoch %d: the "
                "score of that epoch is NaN, and its weights are never kept as the best; try a "
                "learning rate below lr=%s",
                self.task.name,
                len(self.rows) + 1,
                self.phase.lr,
            )


def _copy(weights: Weights) -> Weights:
    # a state_dict aliases the live weights: without clones the "best" would train on
    return {name: value.detach().clone() for name, value in weights.items()}


@contextmanager
def _global_rng_kept(network: Network) -> Iterator[None]:
    devices = {p.device for p in network.parameters() if p.device.type == "cuda"}
    with torch.random.fork_rng(devices=list(devices)):
        yield
