"""Small dense networks and tasks that the tests of core, tuning and measures train."""

from collections.abc import Iterator
from dataclasses import dataclass, replace

import torch
from torch import nn

from molhpft.core.data import Rows, Task
from molhpft.core.network import Chain, Network, Plain, Stage
from molhpft.core.objectives import Multiclass, Multilabel, ScoredByLoss, Squared
from molhpft.tuning.callbacks import Callback

NAN = float("nan")


def block(inputs, outputs, *, dropout=0.0):
    layers = [nn.Linear(inputs, outputs), nn.BatchNorm1d(outputs), nn.ReLU(), nn.Dropout(dropout)]
    return Plain(nn.Sequential(*layers), width=outputs)


def toy_network(*, outputs=3, dropout=0.0, seed=0):
    torch.manual_seed(seed)
    backbone = Chain({"layer0": block(6, 8, dropout=dropout), "layer1": block(8, 8)})
    return Network(backbone, Chain({"linear": Plain(nn.Linear(8, outputs), width=outputs)}))


def toy_task(objective=None, *, n=90, seed=1):
    """Three noisy clusters; a third each to train, validate and test."""
    rng = torch.Generator().manual_seed(seed)
    centres = torch.randn(3, 6, generator=rng)
    classes = torch.arange(n) % 3
    inputs = centres[classes] + torch.randn(n, 6, generator=rng)
    objective = objective or Multiclass()
    targets = {
        Multiclass: classes,
        Multilabel: torch.eye(3)[classes],
        Squared: torch.eye(3)[classes] + 0.1 * torch.randn(n, 3, generator=rng),
    }[type(objective)]
    splits = dict(zip(("train", "valid", "test"), torch.arange(n).chunk(3), strict=True))
    return Task("toy", Rows(inputs, targets), splits, objective, outputs=3)


@dataclass(frozen=True)
class Scripted(ScoredByLoss):
    """A regression whose scores are known beforehand."""

    scores: Iterator[float]

    def score(self, logits, targets):
        return next(self.scores)


def scripted(*scores):
    """The toy regression, scored by `scores`, one after another."""
    return replace(toy_task(Squared()), objective=Scripted(Squared(), iter(scores)))


def without_labels(task, fraction):
    """The task with labels taken away at random, all of some examples among them."""
    targets = task.examples.targets.clone()
    rng = torch.Generator().manual_seed(3)
    gone = torch.rand(targets.shape, generator=rng) < fraction
    targets[gone] = -100 if isinstance(task.objective, Multiclass) else NAN
    return replace(task, examples=Rows(task.examples.inputs, targets))


class AddFirstInput(Stage):
    """A head stage that reads the batch it came from."""

    def __init__(self, width):
        super().__init__()
        self.width = width
        self.linear = nn.Linear(width, width)

    def forward(self, h, batch):
        return self.linear(h) + batch.inputs[:, :1]


def reading_network():
    """The toy network with a head that reads more than features."""
    network = toy_network(dropout=0.5)
    stages = {"reads": AddFirstInput(8), **network.head.named_stages()}
    return Network(network.backbone, Chain(stages))


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def same_weights(a, b):
    a, b = a.state_dict(), b.state_dict()
    return a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a)


class Saving(Callback):
    """Keeps every progress in memory, and resumes from one.

    Args:
        begin: the progress to resume from.
        every: steps between two savings within an epoch; None saves after epochs only.
    """

    def __init__(self, begin=None, *, every=None):
        self.begin, self.every, self.saved = begin, every, []

    def resume(self):
        return self.saved[-1] if self.saved else self.begin

    def after_step(self, step, examples, progress):
        if self.every and step % self.every == 0:
            self.saved.append(progress())

    def after_epoch(self, rows, progress):
        self.saved.append(progress())


class Counter(Callback):
    """Numbers the epochs, with a memory that only `state` carries over an interruption."""

    def __init__(self):
        self.epochs = torch.zeros(())

    def measure(self, network):
        self.epochs = self.epochs + 1
        return {"counted": self.epochs.item()}

    def state(self):
        return {"epochs": self.epochs}

    def load_state(self, state):
        self.epochs = state["epochs"]
