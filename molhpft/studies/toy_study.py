"""The toy study: the whole story of energy on handwritten digits, in about a minute.

Pretrains a small dense network, probes new heads for tau = 0 to 1,024 epochs and for "infinity",
finetunes from each, and draws Figures 2, 3, 6 and 11 of Ren et al. (2023).
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import asdict, dataclass, replace
from itertools import pairwise
from math import ceil
from pathlib import Path

import torch
from rich.table import Table
from torch import Tensor

from molhpft.core.data import Task, probe_sample
from molhpft.core.determinism import one_thread, seed_for
from molhpft.core.evaluate import Snapshot
from molhpft.core.metrics import comparable, show
from molhpft.core.network import Chain, Network, linear_head, mlp_head
from molhpft.domains.console import track
from molhpft.domains.files import Json
from molhpft.domains.toy.digits import toy_mlp, toy_pretrain_task, toy_task
from molhpft.measure.dynamics import head_change, head_gradient
from molhpft.measure.exchange import exchange_scores
from molhpft.measure.features import correct_probability, shift
from molhpft.measure.tangent import ntk_change, tangent_kernel, unit_vectors
from molhpft.results.terminal import branch_table
from molhpft.run.branch import before_finetuning, scores, snapshots
from molhpft.studies.drawing import confidence_figure, exchange_figure, kernel_figure, shift_figure
from molhpft.tuning.callbacks import Measure, Row, Weights
from molhpft.tuning.fit import fit, score
from molhpft.tuning.frozen_features import on_features
from molhpft.tuning.phase import Phase
from molhpft.tuning.probe import probe, with_head

TAUS = (0, 2, 4, 8, 16, 64, 256, 1024)
INFINITY = 50_000
SMOOTHING = 0.1
PRETRAIN = Phase(trains="all", epochs=20, lr=1e-3, schedule="cosine")
PROBE = Phase(trains="head", epochs=1, lr=1e-3, optimizer="sgd", momentum=0.0)
FINETUNE = Phase(trains="all", epochs=50, lr=1e-3, optimizer="sgd", momentum=0.0)
KERNEL_TAU = 16
# a random backbone needs momentum to learn the task at all within as many epochs
KERNEL_FINETUNE = replace(FINETUNE, epochs=30, momentum=0.9)
HEAD_SCALE = 5.0
"""Factor on PyTorch's initialisation of a random head: our choice, not the paper's.

A head as small as PyTorch makes it begins to finetune by growing, which is probing by another name:
without probing, dot product and norm then fall with tau without rising first, and every backbone
takes every head.
"""

_PRETRAIN_STEPS = 1000  # at least: twenty epochs of scikit-learn's digits are 180
_MOMENTUM = 0.99
_KERNEL_EXAMPLES = 50
_KERNEL_VECTORS = 4
_KERNEL_EVERY = 2  # epochs from one kernel to the next
_CURVE = ("epoch", "loss", "train", "valid")
_SHOWN = 7  # branches in figures that all of them would crowd
_LOSS = 0.05  # accuracy that a backbone may lose under a head that it is said to take
_NOTE = f"Random heads {HEAD_SCALE:g} times as large as PyTorch makes them: our choice"


@dataclass(frozen=True)
class Branch:
    """A head finetuned together with the encoder, and what that changed.

    Attributes:
        tau: epochs of head probing.
        before: snapshot of every split when finetuning starts.
        after: snapshot of every split when it has ended.
        gradient: length of the loss's gradient in the head when finetuning starts.
        head_changes: relative change of the head since then: 0, then a number after every epoch.
        curve: after every epoch of finetuning `epoch`, `loss`, and the accuracies `train`, `valid`.
        tuned: the finetuned network.
    """

    tau: int
    before: Mapping[str, Snapshot]
    after: Mapping[str, Snapshot]
    gradient: float
    head_changes: tuple[float, ...]
    curve: tuple[Row, ...]
    tuned: Network

    def row(self, task: Task) -> Json:
        """Tau, energy, scores before and after finetuning, shift of features, change of head."""
        moved = shift(self.before["train"].features, self.after["train"].features)
        start = before_finetuning(_whole(self.before), task)
        return {
            "tau": self.tau,
            **start,
            "final": scores(_whole(self.after), task),
            "shift": asdict(moved),
            "head": {"gradient": self.gradient, "change": self.head_changes[-1]},
        }


def _whole(snapshots: Mapping[str, Snapshot]) -> list[tuple[str, list[Snapshot]]]:
    """Splits and their predictions, in one piece each."""
    return [(split, [snapshot]) for split, snapshot in snapshots.items()]


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
    # a stream of its own: drawn from that of `with_random_head`, the first rows of this head would
    # be the head of the downstream task, which would know its first classes before any probing
    with _drawn_from(seed, "pretraining head"):
        network = Network(encoder, linear_head(encoder.width, task.outputs))
    steps = ceil(len(task.rows("train")) / phase.batch_size)
    phase = replace(phase, epochs=max(phase.epochs, ceil(_PRETRAIN_STEPS / steps)))
    fit(network, phase, task, rng=torch.Generator().manual_seed(seed_for(seed, "pretrain")))
    return encoder


def with_random_head(
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
    """Heads along one run of head probing, by tau.

    Past the largest of `taus` the way to `infinity` is taken by full batches with momentum
    m = 0.99. Once up to speed, after the time of m / (1 - m) steps, each step covers as much of
    gradient flow as 1 / (1 - m) plain ones, and what still moves by then moves slowly enough to
    follow the flow. After 50,000 epochs the energy is that of plain probing to 1 % (MNIST: 0.0868
    for 0.0869), fifteen times as fast.

    """
    rng = torch.Generator().manual_seed(seed_for(seed, "probe"))
    probed, features = on_features(network, task)
    heads = probe(probed, phase, features, taus=taus, rng=rng).heads
    if infinity is not None:
        n = len(task.rows("train"))
        left = (infinity - max(taus)) * ceil(n / phase.batch_size)
        fast = replace(phase, batch_size=n, momentum=_MOMENTUM)
        steps = ceil(left * (1 - _MOMENTUM) + _MOMENTUM / (1 - _MOMENTUM))
        last = with_head(probed, heads[max(taus)])
        heads[infinity] = probe(last, fast, features, taus=[steps], rng=rng).heads[steps]
    return heads


def finetuned(
    network: Network, task: Task, tau: int, head: Weights, *, phase: Phase = FINETUNE, seed: int
) -> Branch:
    """Finetune a copy of the network from a probed head, in the same order for every tau."""
    tuned = deepcopy(network)
    tuned.head.load_state_dict(head)
    start, before = deepcopy(tuned.head), snapshots(tuned, task)
    gradient = training_gradient(tuned, task)
    rng = torch.Generator().manual_seed(seed_for(seed, "finetune"))

    def follow(now: Network) -> Row:
        accuracies = {split: score(now, task, split) for split in ("train", "valid")}
        return {"change": head_change(start, now.head), **accuracies}

    rows = fit(tuned, phase, task, rng=rng, callbacks=[Measure(follow)])
    changes = (0.0, *(row["change"] for row in rows))
    curve = tuple({key: row[key] for key in _CURVE} for row in rows)
    return Branch(tau, before, snapshots(tuned, task), gradient, changes, curve, tuned)


@dataclass(frozen=True)
class KernelPath:
    """How the tangent kernel of a backbone changes along finetuning, every second epoch.

    Attributes:
        epochs: after which it was computed, from 0 on.
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
    """
    tuned = deepcopy(network)
    tuned.head.load_state_dict(head)
    rng = torch.Generator().manual_seed(seed_for(seed, "ntk"))
    rows = probe_sample(task, _KERNEL_EXAMPLES, rng=rng)
    examples = [task.examples.take(row[None]) for row in rows]
    vectors = unit_vectors(_KERNEL_VECTORS, network.backbone.width, rng=rng)
    kernels = [tangent_kernel(tuned, examples, vectors)]
    accuracies, epochs = [score(tuned, task, "train")], [0]
    passed = 0

    def follow(now: Network) -> Row:
        nonlocal passed
        passed += 1
        if passed % _KERNEL_EVERY == 0:
            kernels.append(tangent_kernel(now, examples, vectors))
            accuracies.append(score(now, task, "train"))
            epochs.append(passed)
        return {}

    rng = torch.Generator().manual_seed(seed_for(seed, "finetune"))
    fit(tuned, phase, task, rng=rng, callbacks=[Measure(follow)])
    return KernelPath(
        tuple(epochs),
        tuple(accuracies),
        tuple(ntk_change(kernels[0], kernel) for kernel in kernels),
        tuple(ntk_change(a, b) for a, b in pairwise(kernels)),
    )


def training_gradient(network: Network, task: Task) -> float:
    """Length of the gradient of the training loss in the head's weights: 0 where probing ends."""
    batch = task.examples.take(task.rows("train"))
    return head_gradient(network, [batch], task.objective)


@contextmanager
def _drawn_from(seed: int, purpose: str) -> Iterator[None]:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed_for(seed, purpose))
        yield


@dataclass(frozen=True)
class ToyStudy:
    """Results of the toy study.

    Attributes:
        task: name of the downstream task, which says whose digits they are.
        rows: a row for every tau, the last for infinity.
        variants: method name and row of an MLP head and of label-smoothed probing, from one tau.
        exchange: split to scores of backbone i under head j, (m, m).
        exchanged_taus: of the m networks that were exchanged.
        kernels: "pretrained" and "random" to how the backbone's tangent kernel changes.
        figures: number of the paper's figure to file.
    """

    task: str
    rows: list[Json]
    variants: list[tuple[str, Json]]
    exchange: dict[str, Tensor]
    exchanged_taus: tuple[int, ...]
    kernels: dict[str, KernelPath]
    figures: dict[str, Path]

    @property
    def lines(self) -> list[tuple[str, Json]]:
        """Method name and row of everything that was finetuned."""
        names = ["FT", *["HP-FT"] * (len(self.rows) - 2), "LP-FT"]
        return [*zip(names, self.rows, strict=True), *self.variants]

    @property
    def chosen(self) -> int:
        """Number of the line that validates best."""
        lines = self.lines
        return max(range(len(lines)), key=lambda i: comparable(lines[i][1]["final"]["valid"]))

    @property
    def table(self) -> Table:
        """All lines, the chosen one marked."""
        title = f"{self.task}, score: accuracy (%)"
        return branch_table(self.lines, title=title, metric="accuracy", chosen=self.chosen)

    @property
    def reading(self) -> str:
        """The table in words."""
        first, last = self.rows[0], self.rows[-1]
        dot, norm = self._peak("dot"), self._peak("norm")
        method, best = self.lines[self.chosen]
        sentences = (
            f"From tau {first['tau']} to tau {last['tau']:,} the energy goes from "
            f"{first['energy']['aie']:.3f} to {last['energy']['aie']:.3f}, the distance that "
            f"finetuning moves features from {first['shift']['distance']:.2f} to "
            f"{last['shift']['distance']:.2f} and the cosine from {first['shift']['cosine']:.4f} "
            f"to {last['shift']['cosine']:.4f}; the dot product is highest at tau {dot:,}, the "
            f"norm at tau {norm:,}. At tau {last['tau']:,} the loss still falls, by "
            f"{last['head']['gradient']:.1g} a unit of head weight. Validation chooses {method} "
            f"from tau {best['tau']:,}: test accuracy {show(best['final']['test'], 'accuracy')}.",
            self._direction(),
            exchange_reading(self.exchange["train"], self.exchanged_taus),
            self._kernels(),
            f"Random heads are {HEAD_SCALE:g} times as large as PyTorch makes them, which is our "
            "choice, not the paper's: from smaller ones dot product and norm fall with tau without "
            "rising first, and every backbone takes every head (benchmarks/toy_exchange.py).",
        )
        return "\n".join(sentences)

    def _direction(self) -> str:
        """Figure 2's right panel in words."""
        first, last = self.rows[0]["head"], self.rows[-1]["head"]
        falls = first["gradient"] > last["gradient"] and first["change"] > last["change"]
        return (
            "Direction term: where finetuning starts, the loss's gradient in the head is "
            f"{first['gradient']:.3g} long at tau {self.rows[0]['tau']} and {last['gradient']:.1g} "
            f"at tau {self.rows[-1]['tau']:,}; by its end the head has changed by "
            f"{first['change']:.2g} and {last['change']:.1g} of its length. The paper: a direction "
            f"changes less the longer the head is probed: {_reproduced(falls)}."
        )

    def _kernels(self) -> str:
        """Figure 6 in words."""
        own, other = self.kernels["pretrained"], self.kernels["random"]
        steadier = own.from_start[-1] < other.from_start[-1]
        return (
            "Tangent kernel: finetuning changes that of the pretrained backbone by "
            f"{own.from_start[-1]:.2g} times its length, that of a random one by "
            f"{other.from_start[-1]:.2g} times (training accuracy "
            f"{show(own.train[-1], 'accuracy')} and {show(other.train[-1], 'accuracy')}). The "
            f"paper: a pretrained backbone's changes less: {_reproduced(steadier)}."
        )

    def _peak(self, name: str) -> int:
        """The tau at which a measure of the features' shift is highest."""
        row = max(self.rows, key=lambda row: float(row["shift"][name]))
        tau: int = row["tau"]
        return tau

    @property
    def summary(self) -> Json:
        """Everything as plain values."""
        return {
            "task": self.task,
            "chosen": self.chosen,
            "rows": [{"method": method, **row} for method, row in self.lines],
            "exchange": {split: scores.tolist() for split, scores in self.exchange.items()},
            "exchanged_taus": list(self.exchanged_taus),
            "kernels": {name: asdict(path) for name, path in self.kernels.items()},
            "figures": {number: str(path) for number, path in self.figures.items()},
            "reading": self.reading,
        }


@one_thread()
def toy_study(
    out: Path,
    *,
    mnist: Path | None = None,
    taus: Sequence[int] = TAUS,
    infinity: int = INFINITY,
    per_class: int = 1000,
    seed: int = 0,
) -> ToyStudy:
    """Pretrain on ten digits, then finetune on three of them behind heads of every tau.

    Args:
        out: folder for the figures.
        mnist: MNIST as one `.npz` file; None takes what is at hand, see `toy_task`.
        taus: epochs of head probing, rising.
        infinity: epochs that stand for probing to the end.
        per_class: training pictures of each downstream class.
        seed: of every random number.

    Raises:
        FileNotFoundError: `mnist` is given and is not there.
        ValueError: the file is not MNIST, or tau does not rise up to `infinity`.
    """
    check_taus(taus, infinity)
    task = toy_task(mnist=mnist, per_class=per_class, seed=seed)
    encoder = pretrained_mlp(toy_pretrain_task(mnist=mnist), seed=seed)
    branches = finetuned_branches(encoder, task, taus=taus, infinity=infinity, seed=seed)
    variants = _variants(encoder, task, taus[-1], seed)
    shown = spread(branches)
    exchange = exchanged(shown, task)
    kernels = kernel_paths(encoder, task, seed=seed)
    return ToyStudy(
        task=task.name,
        rows=[branch.row(task) for branch in branches],
        variants=[(method, branch.row(task)) for method, branch in variants.items()],
        exchange=exchange,
        exchanged_taus=tuple(branch.tau for branch in shown),
        kernels=kernels,
        figures=_draw(out, task, branches, exchange, kernels),
    )


def finetuned_branches(
    encoder: Chain, task: Task, *, taus: Sequence[int], infinity: int, seed: int
) -> list[Branch]:
    """A branch from every tau and from infinity, all of one run of head probing."""
    network = with_random_head(encoder, task, seed=seed)
    heads = probed_heads(network, task, taus=taus, infinity=infinity, seed=seed)
    what = f"finetuning from every tau, seed {seed}"
    return [
        finetuned(network, task, tau, head, seed=seed)
        for tau, head in track(heads.items(), what, total=len(heads))
    ]


def exchanged(branches: Sequence[Branch], task: Task) -> dict[str, Tensor]:
    """Training and validation accuracy of every backbone under every head, see `ToyStudy`."""
    networks = [branch.tuned for branch in branches]
    return {split: exchange_scores(networks, task, split) for split in ("train", "valid")}


def check_taus(taus: Sequence[int], infinity: int) -> None:
    """Refuse taus from which no curve can be drawn.

    Raises:
        ValueError: there are fewer than two, or they do not rise from 0 on and below infinity.
    """
    if len(taus) < 2 or list(taus) != sorted({*taus}) or not 0 <= taus[0] < taus[-1] < infinity:
        raise ValueError(
            f"taus should be two or more, rising from 0 and below infinity ({infinity}), "
            f"got {list(taus)}"
        )


def _variants(encoder: Chain, task: Task, tau: int, seed: int) -> dict[str, Branch]:
    mlp, linear = (
        with_random_head(encoder, task, seed=seed, build=mlp_head),
        with_random_head(encoder, task, seed=seed),
    )
    plain = probed_heads(mlp, task, taus=[tau], seed=seed)
    smoothing = replace(PROBE, smoothing=SMOOTHING)
    smoothed = probed_heads(linear, task, taus=[tau], phase=smoothing, seed=seed)
    return {
        "HP-FT, MLP head": finetuned(mlp, task, tau, plain[tau], seed=seed),
        "lsHP-FT": finetuned(linear, task, tau, smoothed[tau], seed=seed),
    }


def kernel_paths(encoder: Chain, task: Task, *, seed: int) -> dict[str, KernelPath]:
    """Figure 6, of the "pretrained" and a "random" backbone under heads of one tau."""
    paths = {}
    for name, backbone in {"pretrained": encoder, "random": random_mlp(seed=seed)}.items():
        network = with_random_head(backbone, task, seed=seed)
        head = probed_heads(network, task, taus=[KERNEL_TAU], seed=seed)[KERNEL_TAU]
        paths[name] = kernel_path(network, task, head, phase=KERNEL_FINETUNE, seed=seed)
    return paths


def exchange_reading(scores: Tensor, taus: Sequence[int | str]) -> str:
    """What an exchange shows, in words, against what the paper concludes from its own.

    As we read the paper's Figure 3: networks do best as they were tuned; strongly adapted
    backbones, those of tau 0, reject the heads of others (here: lose twice what other backbones
    lose, and 5 points); mildly and tinily adapted ones take each other's (lose less than that).

    Args:
        scores: in [0, 1], (m, m); row i has backbone i, column j head j.
        taus: of the m networks, rising; the first is the strongly adapted one.
    """
    best = int((scores.diag() >= scores.max(1).values).sum())
    strong, own = scores[0, 1:].mean().item(), scores[0, 0].item()
    rest = scores[1:, 1:]
    others = (rest.sum() - rest.trace()).item() / (rest.numel() - len(rest))
    lost, lost_others = own - strong, rest.diag().mean().item() - others
    outside = scores[1:, 0].mean().item()

    return (
        f"Exchange, training accuracy. The paper: networks do best as they were tuned. Here "
        f"{best} of {len(scores)} backbones do best under their own head: "
        f"{_reproduced(best > len(scores) / 2)}. The paper: strongly adapted backbones reject the "
        f"heads of others. That of tau {taus[0]} has {_percent(own)} under its own head, "
        f"{_percent(strong)} under the others': {_reproduced(lost > max(2 * lost_others, _LOSS))}. "
        "The paper: mildly and tinily adapted ones take each other's. Those of the other taus lose "
        f"{_percent(lost_others)} points under one another's heads and have {_percent(others)}: "
        f"{_reproduced(lost_others < _LOSS)}. Under the head of tau {taus[0]}, tuned with features "
        f"that differ most from theirs, they have {_percent(outside)}."
    )


def _reproduced(is_so: bool) -> str:
    return "reproduced" if is_so else "not reproduced"


def _percent(fraction: float) -> str:
    return f"{100 * fraction:.1f}"


def spread(branches: Sequence[Branch]) -> list[Branch]:
    """The first, the last and what lies evenly between them, seven at most."""
    places = torch.linspace(0, len(branches) - 1, min(_SHOWN, len(branches)))
    return [branches[i] for i in places.round().int().tolist()]


def tau_names(branches: Sequence[Branch]) -> dict[int, str]:
    """Tau of each branch to its text, the last of them infinity."""
    return {branch.tau: f"{branch.tau:,}" for branch in branches[:-1]} | {branches[-1].tau: "∞"}


def _draw(
    out: Path,
    task: Task,
    branches: Sequence[Branch],
    exchange: dict[str, Tensor],
    kernels: dict[str, KernelPath],
) -> dict[str, Path]:
    names = tau_names(branches)
    shown = spread(branches)
    figures = {number: out / f"{task.name}_figure{number}.png" for number in ("2", "3", "6", "11")}
    confidence_figure(
        {names[b.tau]: correct_probability(b.before["train"], task.objective) for b in shown},
        [branch.gradient for branch in shown],
        [branch.head_changes for branch in shown],
        figures["2"],
        note=_NOTE,
    )
    exchange_figure(exchange, [names[branch.tau] for branch in shown], figures["3"], note=_NOTE)
    paths = {name: asdict(path) for name, path in kernels.items()}
    kernel_figure(paths, figures["6"], note=_NOTE)
    rows = [branch.row(task) for branch in branches]
    shift_figure(rows, list(names.values()), figures["11"], note=_NOTE)
    return figures
