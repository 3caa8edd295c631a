"""The linear theory beside real gradient descent: the same curves, from formulas and from `fit`."""

from collections.abc import Sequence
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path

import torch
from matplotlib.figure import Figure
from rich.table import Table
from torch import Tensor
from torch.nn import functional as F

from molhpft.core.network import Network
from molhpft.core.snapshot import take
from molhpft.core.task import Rows, Task
from molhpft.domains.toy.linear import linear_network, linear_task
from molhpft.experiments.figures import BLUE, GREEN, GREY, ORANGE
from molhpft.experiments.folder import Json
from molhpft.measure import linear_theory
from molhpft.measure.linear_theory import LinearStart
from molhpft.tuning.checkpoints import Weights
from molhpft.tuning.features import on_features
from molhpft.tuning.fit import fit
from molhpft.tuning.phase import Phase
from molhpft.tuning.probe import probe

TAUS = (0, 1, 2, 3, 5, 8, 10, 15, 20, 30, 50, 100, 300, 1000)
# full batches; the loss is a mean over 10 examples, so these are 0.05 and 0.02 for the theory's sum
PROBE = Phase(trains="head", epochs=1, lr=0.5, optimizer="sgd", momentum=0.0)
FINETUNE = Phase(trains="all", epochs=300, lr=0.2, optimizer="sgd", momentum=0.0)

_SHIFTS = {
    "distance": "distance$^2$ $||z_T - z_0||^2$",
    "dot": r"dot product $z_T \cdot z_0$",
    "norm": "norm$^2$ $||z_T||^2$",
    "cosine": r"cosine of $z_T$ and $z_0$",
}
_COLORS = {"strong": ORANGE, "mild": GREEN, "tiny": GREY}


@dataclass(frozen=True)
class LinearStudy:
    """What the linear study found.

    Attributes:
        rows: one a tau: tau, energy (mean `|q0 - Y|`), regime, loss at the end, and `theory` and
            `trained`, the means of distance, dot, norm (squares, as the lemmas have them), cosine.
        figures: name to picture: both against the energy.
    """

    rows: list[Json]
    figures: dict[str, Path]

    @property
    def table(self) -> Table:
        """A line a tau, theory and training side by side."""
        table = Table(
            title="Linear network: closed form | gradient descent",
            caption="energy: mean |q0 - Y|; distance and norm: squared, as in the lemmas",
            title_justify="left",
            caption_justify="left",
        )
        for column in ("tau", "energy", *_SHIFTS):
            table.add_column(column, justify="right")
        table.add_column("regime")
        for row in self.rows:
            pairs = (f"{row['theory'][k]:.3f} | {row['trained'][k]:.3f}" for k in _SHIFTS)
            table.add_row(str(row["tau"]), f"{row['energy']:.3f}", *pairs, row["regime"])
        return table

    @property
    def reading(self) -> str:
        """The table in words."""
        peaks = {
            (name, how): max(self.rows, key=lambda row: float(row[how][name]))["tau"]
            for name in ("dot", "norm")
            for how in ("theory", "trained")
        }
        return (
            "Longer probing leaves less energy and moves features less. Their norm peaks at tau "
            f"{peaks['norm', 'theory']} in theory and {peaks['norm', 'trained']} in training, "
            f"their dot product with the start at tau {peaks['dot', 'theory']} and "
            f"{peaks['dot', 'trained']}."
        )

    @property
    def summary(self) -> Json:
        """Everything as plain values."""
        return {
            "rows": self.rows,
            "figures": {k: str(path) for k, path in self.figures.items()},
            "reading": self.reading,
        }


def linear_study(out: Path, *, seed: int = 0) -> LinearStudy:
    """Probe a linear network once, finetune from every tau, and hold it against the theory.

    Args:
        out: folder for the figure.
        seed: of points, signs and weights.
    """
    task, rng = linear_task(seed=seed), torch.Generator().manual_seed(seed)
    network = linear_network(rng=rng)
    probed, features = on_features(network, task)
    heads = probe(probed, PROBE, features, taus=TAUS, rng=rng).heads
    rows = [_row(network, task, tau, head, rng) for tau, head in heads.items()]
    figure = out / "linear_theory.png"
    _draw(rows, figure)
    return LinearStudy(rows, {"theory": figure})


def linear_start(network: Network, task: Task) -> LinearStart:
    """Weights of a `linear_network` and training data of a `linear_task`, for the theory."""
    examples = task.examples
    if not isinstance(examples, Rows):
        raise TypeError(f"the linear theory needs rows of numbers, got {type(examples).__name__}")
    (backbone,), (head,) = network.backbone.parameters(), network.head.parameters()
    rows = task.rows("train")
    return LinearStart(
        examples.inputs[rows],
        examples.targets[rows, 0],
        backbone.detach().clone(),
        head.detach()[0].clone(),
    )


def _row(network: Network, task: Task, tau: int, head: Weights, rng: torch.Generator) -> Json:
    tuned = deepcopy(network)
    tuned.head.load_state_dict(head)
    start = linear_start(tuned, task)
    loss = fit(tuned, FINETUNE, task, rng=rng)[-1]["loss"]
    z0 = start.features
    backbone, _ = linear_theory.ntk_solution(start)
    z = take(tuned, task.batches("train", size=len(z0))).features
    return {
        "tau": tau,
        "energy": (start.outputs - start.targets).abs().mean().item(),
        "regime": linear_theory.regime(start),
        "loss": loss,
        "theory": {
            "distance": linear_theory.mean_squared_distance(start).item(),
            "dot": linear_theory.mean_dot(start).item(),
            "norm": linear_theory.mean_squared_norm(start).item(),
            "cosine": F.cosine_similarity(start.inputs @ backbone.T, z0).mean().item(),
        },
        "trained": _means(z0, z),
    }


def _means(z0: Tensor, z: Tensor) -> dict[str, float]:
    return {
        "distance": (z - z0).square().sum(1).mean().item(),
        "dot": (z * z0).sum(1).mean().item(),
        "norm": z.square().sum(1).mean().item(),
        "cosine": F.cosine_similarity(z, z0).mean().item(),
    }


def _draw(rows: Sequence[Json], path: Path) -> None:
    figure = Figure(figsize=(11, 6.4), layout="constrained")
    energies = [row["energy"] for row in rows]
    for axes, (name, title) in zip(figure.subplots(2, 2).flat, _SHIFTS.items(), strict=True):
        axes.plot(energies, [row["theory"][name] for row in rows], color=BLUE, label="closed form")
        for regime, color in _COLORS.items():
            found = [row for row in rows if row["regime"] == regime]
            axes.plot(
                [row["energy"] for row in found],
                [row["trained"][name] for row in found],
                "o",
                color=color,
                ms=5,
                label=f"gradient descent, {regime}",
            )
        axes.invert_xaxis()
        axes.set_xlabel("initial energy, mean $|q_0 - Y|$: falls with tau")
        axes.set_title(f"Mean {title}", loc="left", fontsize=10)
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(axis="y", alpha=0.25)
    figure.axes[0].legend(frameon=False, fontsize=8)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=150)
