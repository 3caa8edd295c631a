"""The toy study: the whole story of energy on handwritten digits, in about a minute.

Pretrains a small dense network, probes new heads for tau = 0 to 1,024 epochs and for "infinity",
finetunes from each, and draws Figures 2, 3, 6 and 11 of Ren et al. (2023).
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import torch
from rich.table import Table
from torch import Tensor

from molhpft.core.heads import mlp_head
from molhpft.core.measured import comparable
from molhpft.core.network import Chain
from molhpft.core.task import Task
from molhpft.core.threads import one_thread
from molhpft.domains.progress import track
from molhpft.domains.toy.digits import toy_pretrain_task, toy_task
from molhpft.experiments import toy_figures
from molhpft.experiments.folder import Json
from molhpft.experiments.tables import branch_table, show
from molhpft.experiments.toy_branches import (
    FINETUNE,
    HEAD_SCALE,
    PROBE,
    Branch,
    KernelPath,
    finetuned,
    kernel_path,
    pretrained_mlp,
    probed_heads,
    random_mlp,
    slope,
    with_head,
)
from molhpft.measure.confidence import correct_probability
from molhpft.measure.swap import exchange_scores

TAUS = (0, 2, 4, 8, 16, 64, 256, 1024)
INFINITY = 50_000
SMOOTHING = 0.1
KERNEL_TAU = 16
# a random backbone needs momentum to learn the task at all within as many epochs
LEARN = replace(FINETUNE, epochs=30, momentum=0.9)
_SHOWN = 7  # branches in figures that all of them would crowd
_LOSS = 0.05  # accuracy that a backbone may lose under another's head and be said to take it


@dataclass(frozen=True)
class ToyStudy:
    """What the toy study found.

    Attributes:
        task: name of the downstream task, which says whose digits they are.
        rows: a row for every tau, the last for infinity.
        variants: method name and row of an MLP head and of label-smoothed probing, from one tau.
        slope: length of the loss's gradient in the head's weights where probing to infinity ends.
        exchange: split to scores of backbone i under head j, (m, m).
        exchanged: tau of the m networks that were exchanged.
        kernels: "pretrained" and "random" to how the backbone's tangent kernel changes.
        figures: number of the paper's figure to file.
    """

    task: str
    rows: list[Json]
    variants: list[tuple[str, Json]]
    slope: float
    exchange: dict[str, Tensor]
    exchanged: tuple[int, ...]
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
            f"{self.slope:.1g} a unit of head weight. Validation chooses {method} from tau "
            f"{best['tau']:,}: test accuracy {show(best['final']['test'], 'accuracy')}.",
            self._direction(),
            exchange_reading(self.exchange["train"], self.exchanged),
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
            "slope": self.slope,
            "exchange": {split: scores.tolist() for split, scores in self.exchange.items()},
            "exchanged": list(self.exchanged),
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
    _check(taus, infinity)
    task = toy_task(mnist=mnist, per_class=per_class, seed=seed)
    encoder = pretrained_mlp(toy_pretrain_task(mnist=mnist), seed=seed)
    network = with_head(encoder, task, seed=seed)
    heads = probed_heads(network, task, taus=taus, infinity=infinity, seed=seed)
    branches = [
        finetuned(network, task, tau, head, seed=seed)
        for tau, head in track(heads.items(), "finetuning from every tau", total=len(heads))
    ]
    variants = _variants(encoder, task, taus[-1], seed)
    shown = _spread(branches)
    networks = [branch.tuned for branch in shown]
    exchange = {split: exchange_scores(networks, task, split) for split in ("train", "valid")}
    kernels = _kernels(encoder, task, seed)
    return ToyStudy(
        task=task.name,
        rows=[branch.row(task) for branch in branches],
        variants=[(method, branch.row(task)) for method, branch in variants.items()],
        slope=slope(network, task),
        exchange=exchange,
        exchanged=tuple(branch.tau for branch in shown),
        kernels=kernels,
        figures=_draw(out, task, branches, exchange, kernels),
    )


def _check(taus: Sequence[int], infinity: int) -> None:
    if len(taus) < 2 or list(taus) != sorted({*taus}) or not 0 <= taus[0] < taus[-1] < infinity:
        raise ValueError(
            f"taus should be two or more, rising from 0 and below infinity ({infinity}), "
            f"got {list(taus)}"
        )


def _variants(encoder: Chain, task: Task, tau: int, seed: int) -> dict[str, Branch]:
    mlp, linear = (
        with_head(encoder, task, seed=seed, build=mlp_head),
        with_head(encoder, task, seed=seed),
    )
    plain = probed_heads(mlp, task, taus=[tau], seed=seed)
    smoothing = replace(PROBE, smoothing=SMOOTHING)
    smoothed = probed_heads(linear, task, taus=[tau], phase=smoothing, seed=seed)
    return {
        "HP-FT, MLP head": finetuned(mlp, task, tau, plain[tau], seed=seed),
        "lsHP-FT": finetuned(linear, task, tau, smoothed[tau], seed=seed),
    }


def _kernels(encoder: Chain, task: Task, seed: int) -> dict[str, KernelPath]:
    """Figure 6: both backbones under heads of the same tau, finetuned alike."""
    paths = {}
    for name, backbone in {"pretrained": encoder, "random": random_mlp(seed=seed)}.items():
        network = with_head(backbone, task, seed=seed)
        head = probed_heads(network, task, taus=[KERNEL_TAU], seed=seed)[KERNEL_TAU]
        paths[name] = kernel_path(network, task, head, phase=LEARN, seed=seed)
    return paths


def exchange_reading(scores: Tensor, taus: Sequence[int]) -> str:
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


def _percent(share: float) -> str:
    return f"{100 * share:.1f}"


def _spread(branches: Sequence[Branch]) -> list[Branch]:
    """The first, the last and what lies evenly between them, seven at most."""
    places = torch.linspace(0, len(branches) - 1, min(_SHOWN, len(branches)))
    return [branches[i] for i in places.round().int().tolist()]


def _draw(
    out: Path,
    task: Task,
    branches: Sequence[Branch],
    exchange: dict[str, Tensor],
    kernels: dict[str, KernelPath],
) -> dict[str, Path]:
    names = {branch.tau: f"{branch.tau:,}" for branch in branches[:-1]} | {branches[-1].tau: "∞"}
    shown = {names[branch.tau]: branch for branch in _spread(branches)}
    figures = {number: out / f"{task.name}_figure{number}.png" for number in ("2", "3", "6", "11")}
    known = {
        tau: correct_probability(branch.before["train"], task.objective)
        for tau, branch in shown.items()
    }
    toy_figures.confidence_figure(known, shown, figures["2"])
    toy_figures.exchange_figure(exchange, list(shown), figures["3"])
    toy_figures.kernel_figure(kernels, figures["6"])
    rows = [branch.row(task) for branch in branches]
    toy_figures.shift_figure(rows, list(names.values()), figures["11"])
    return figures
