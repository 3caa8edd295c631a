"""The steps of the toy study: pretrain, probe to infinity, finetune from a head and look."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import asdict, dataclass, replace
from itertools import pairwise
from math import ceil

import torch

from molhpft.core.heads import linear_head
from molhpft.core.network import Chain, Network
from molhpft.core.snapshot import Snapshot
from molhpft.core.task import Task
from molhpft.domains.toy.digits import toy_mlp
from molhpft.experiments.branch import describe_start, scores, snapshots
from molhpft.experiments.folder import Json
from molhpft.experiments.seeds import stream
from molhpft.measure.direction import head_change, head_gradient
from molhpft.measure.ntk import ntk_change, tangent_kernel, unit_vectors
from molhpft.measure.sample import probe_sample
from molhpft.measure.shift import shift
from molhpft.tuning.checkpoints import Row, Weights
from molhpft.tuning.features import on_features
from molhpft.tuning.fit import fit, score
from molhpft.tuning.phase import Phase
from molhpft.tuning.probe import probe

PRETRAIN = Phase(trains="all", epochs=20, lr=1e-3, schedule="cosine")
PROBE = Phase(trains="head", epochs=1, lr=1e-3, optimizer="sgd", momentum=0.0)
FINETUNE = Phase(trains="all", epochs=50, lr=1e-3, optimizer="sgd", momentum=0.0)
HEAD_SCALE = 5.0
"""Times PyTorch's initialisation, by which a random head starts: our choice, not the paper's.

Left as small as PyTorch makes it, a head without probing begins to finetune by growing, which is
probing by another name: dot product and norm then fall with tau without rising first, and every
backbone takes every head.
"""

_PRETRAIN_STEPS = 1000  # at least: twenty epochs of scikit-learn's digits are 180
_MOMENTUM = 0.99
_WATCHED = 50  # examples between all pairs of which the kernel is followed
_VECTORS = 4
_EVERY = 2  # epochs from one kernel to the next


@dataclass(frozen=True)
class Branch:
    """A head finetuned together with the encoder, and what that did.

    Attributes:
        tau: epochs of head probing.
        before: snapshot of every split when finetuning starts.
        after: snapshot of every split when it has ended.
        gradient: length of the loss's gradient in the head when finetuning starts.
        turned: relative change of the head since then, from 0 at the start on, after every epoch.
        tuned: the finetuned network.
    """

    tau: int
    before: Mapping[str, Snapshot]
    after: Mapping[str, Snapshot]
    gradient: float
    turned: tuple[float, ...]
    tuned: Network

    def row(self, task: Task) -> Json:
        """Tau, energy, scores before and after finetuning, shift of features, turn of the head."""
        moved = shift(self.before["train"].features, self.after["train"].features)
        start = describe_start(self.tau, self.before.items(), task)
        return {
            **start,
            "final": scores(self.after.items(), task),
            "shift": asdict(moved),
            "head": {"gradient": self.gradient, "change": self.turned[-1]},
        }


def random_mlp(*, seed: int) -> Chain:
    """The toy encoder with the random weights of a seed."""
    with _drawn_from(seed, "weights"):
        return toy_mlp()


def pretrained_mlp(task: Task, *, seed: int, phase: Phase = PRETRAIN) -> Chain:
    """`random_mlp` trained on `task`, by default to convergence, as the paper does.

    Args:
        task: of pretraining.
        seed: of weights and the order of examples.
        phase: how to train. A small task is gone through more often, for 1,000 steps at least.
    """
    encoder = random_mlp(seed=seed)
    # a stream of its own: drawn from that of `with_head`, the first rows of this head would be the
    # head of the downstream task, which would then know its first classes before any probing
    with _drawn_from(seed, "pretraining head"):
        network = Network(encoder, linear_head(encoder.width, task.outputs))
    steps = ceil(len(task.rows("train")) / phase.batch_size)
    phase = replace(phase, epochs=max(phase.epochs, ceil(_PRETRAIN_STEPS / steps)))
    fit(network, phase, task, rng=torch.Generator().manual_seed(stream(seed, "pretrain")))
    return encoder


def with_head(
    encoder: Chain,
    task: Task,
    *,
    seed: int,
    build: Callable[[int, int], Chain] = linear_head,
    scale: float = HEAD_SCALE,
) -> Network:
    """A copy of the encoder under a random head whose last stage is `scale` times as large."""
    with _drawn_from(seed, "head"):
        head = build(encoder.width, task.outputs)
    with torch.no_grad():
        for weight in list(head)[-1].parameters():
            weight.mul_(scale)
    return Network(deepcopy(encoder), head)


def probed_heads(
    network: Network,
    task: Task,
    *,
    taus: Sequence[int],
    infinity: int | None = None,
    phase: Phase = PROBE,
    seed: int,
) -> dict[int, Weights]:
    """Heads along one run of head probing, by tau; `network` is left with the last of them.

    Past the largest of `taus` the way to `infinity` is taken by full batches with momentum
    m = 0.99. Once up to speed, after the time of m / (1 - m) steps, each step covers as much of
    gradient flow as 1 / (1 - m) plain ones, and what still moves by then moves slowly enough to
    follow the flow. After 50,000 epochs the energy is that of plain probing to 1 % (MNIST: 0.0868
    for 0.0869), fifteen times as fast.

    Args:
        network: encoder and random head.
        task: the downstream task.
        taus: numbers of epochs.
        infinity: one more, larger number of epochs.
        phase: how to probe.
        seed: of the order of examples.
    """
    rng = torch.Generator().manual_seed(stream(seed, "probe"))
    probed, features = on_features(network, task)
    heads = probe(probed, phase, features, taus=taus, rng=rng).heads
    if infinity is not None:
        n = len(task.rows("train"))
        left = (infinity - max(taus)) * ceil(n / phase.batch_size)
        fast = replace(phase, batch_size=n, momentum=_MOMENTUM)
        steps = ceil(left * (1 - _MOMENTUM) + _MOMENTUM / (1 - _MOMENTUM))
        heads[infinity] = probe(probed, fast, features, taus=[steps], rng=rng).heads[steps]
    return heads


def finetuned(
    network: Network, task: Task, tau: int, head: Weights, *, phase: Phase = FINETUNE, seed: int
) -> Branch:
    """Finetune a copy of the network from a probed head.

    Args:
        network: encoder and a head of the right shape; left as it is.
        task: the downstream task.
        tau: epochs that the head was probed for.
        head: its weights.
        phase: how to finetune.
        seed: of the order of examples, the same for every tau.
    """
    tuned = deepcopy(network)
    tuned.head.load_state_dict(head)
    start, before, gradient = deepcopy(tuned.head), snapshots(tuned, task), slope(tuned, task)
    rng = torch.Generator().manual_seed(stream(seed, "finetune"))
    rows = fit(
        tuned, phase, task, rng=rng, observe=lambda now: {"turned": head_change(start, now.head)}
    )
    turned = (0.0, *(row["turned"] for row in rows))
    return Branch(tau, before, snapshots(tuned, task), gradient, turned, tuned)


@dataclass(frozen=True)
class KernelPath:
    """How the tangent kernel of a backbone goes along finetuning, every second epoch.

    Attributes:
        epochs: at which it was looked at, from 0 on.
        train: training accuracy there.
        from_start: relative change of the kernel since the start, from 0 on.
        from_last: relative change since the epoch before in `epochs`, from the second on.
    """

    epochs: tuple[int, ...]
    train: tuple[float, ...]
    from_start: tuple[float, ...]
    from_last: tuple[float, ...]


def kernel_path(
    network: Network, task: Task, head: Weights, *, phase: Phase = FINETUNE, seed: int
) -> KernelPath:
    """Finetune a copy of the network from a head and follow the tangent kernel of its backbone.

    Between all pairs of 50 training examples, as in Figure 6 of Ren et al. (2023), contracted with
    random vectors that are the same throughout.

    Args:
        network: encoder and a head of the right shape; left as it is.
        task: the downstream task.
        head: weights of the head.
        phase: how to finetune.
        seed: of examples, vectors and their order in finetuning.
    """
    tuned = deepcopy(network)
    tuned.head.load_state_dict(head)
    rng = torch.Generator().manual_seed(stream(seed, "ntk"))
    rows = probe_sample(task, _WATCHED, rng=rng)
    watched = [task.examples.take(row[None]) for row in rows]
    vectors = unit_vectors(_VECTORS, network.backbone.width, rng=rng)
    kernels = [tangent_kernel(tuned, watched, vectors)]
    accuracies, epochs = [score(tuned, task, "train")], [0]
    passed = 0

    def look(now: Network) -> Row:
        nonlocal passed
        passed += 1
        if passed % _EVERY == 0:
            kernels.append(tangent_kernel(now, watched, vectors))
            accuracies.append(score(now, task, "train"))
            epochs.append(passed)
        return {}

    fit(
        tuned,
        phase,
        task,
        rng=torch.Generator().manual_seed(stream(seed, "finetune")),
        observe=look,
    )
    return KernelPath(
        tuple(epochs),
        tuple(accuracies),
        tuple(ntk_change(kernels[0], kernel) for kernel in kernels),
        tuple(ntk_change(a, b) for a, b in pairwise(kernels)),
    )


def slope(network: Network, task: Task) -> float:
    """Length of the gradient of the training loss in the head's weights: 0 where probing ends."""
    batch = task.examples.take(task.rows("train"))
    return head_gradient(network, [batch], task.objective)


@contextmanager
def _drawn_from(seed: int, purpose: str) -> Iterator[None]:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(stream(seed, purpose))
        yield
