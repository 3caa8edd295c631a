"""The linear theory beside real gradient descent: the same curves, from formulas and from `fit`."""

from collections.abc import Sequence
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from rich.table import Table
from torch import Tensor
from torch.nn import functional as F

from molhpft.core.annotations import Seed
from molhpft.core.data import Rows, Task
from molhpft.core.evaluate import take
from molhpft.core.network import Network
from molhpft.domains.files import Json
from molhpft.domains.toy.linear import linear_network, linear_task
from molhpft.measure import linear_theory
from molhpft.measure.linear_theory import LinearStart
from molhpft.studies.drawing import BLUE, GREEN, GREY, ORANGE, new_figure, open_frame, save
from molhpft.tuning.callbacks import Weights
from molhpft.tuning.fit import fit
from molhpft.tuning.frozen_features import on_features
from molhpft.tuning.phase import Phase
from molhpft.tuning.probe import probe

if TYPE_CHECKING:
    from matplotlib.axes import Axes

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
_POINTS = 101  # of the curves that the lemmas draw
# what each lemma says is highest, and where
_CRITICAL = {"dot": "Lemma 2: $q_0 = Y/2$", "norm": "Lemma 3: $q_0^*$"}


@dataclass(frozen=True)
class LinearStudy:
    """Results of the linear study.

    Attributes:
        rows: one a tau: tau, energy (mean `|q0 - Y|`), regime, loss at the end, `moved`, the mean
            distance, and `bound`, what Proposition 1 says it stays below; `theory` and `trained`,
            the means of distance, dot, norm (squares, as the lemmas have them), cosine.
        lemmas: under the random head, with outputs `q0` from 0 to `Y` in place of its own:
            `energies` of these outputs, mean `distance`, `dot` and `norm` from each; `critical`,
            "dot" and "norm" to (energy, value) where Lemmas 2 and 3 put their maxima; and
            `regimes`, the energies at which the regime changes.
        figures: name to picture: all against the energy.
    """

    rows: list[Json]
    lemmas: Json
    figures: dict[str, Path]

    @property
    def table(self) -> Table:
        """A line a tau, theory and training side by side."""
        table = Table(
            title="Linear network: closed form | gradient descent",
            caption="energy: mean |q0 - Y|; moved: mean distance | Proposition 1's bound on it; "
            "distance and norm: squared, as in the lemmas",
            title_justify="left",
            caption_justify="left",
        )
        for column in ("tau", "energy", "moved", *_SHIFTS):
            table.add_column(column, justify="right")
        table.add_column("regime")
        for row in self.rows:
            pairs = (f"{row['theory'][k]:.3f} | {row['trained'][k]:.3f}" for k in _SHIFTS)
            moved = f"{row['moved']:.3f} | {row['bound']:.3f}"
            table.add_row(str(row["tau"]), f"{row['energy']:.3f}", moved, *pairs, row["regime"])
        return table

    @property
    def reading(self) -> str:
        """The table in words."""
        peaks = {
            (name, how): max(self.rows, key=lambda row: float(row[how][name]))["tau"]
            for name in ("dot", "norm")
            for how in ("theory", "trained")
        }
        strong, tiny = self.lemmas["regimes"]
        critical = {name: point[0] for name, point in self.lemmas["critical"].items()}
        first = self.rows[0]
        return (
            "Longer probing leaves less energy and moves features less. Their norm peaks at tau "
            f"{peaks['norm', 'theory']} in theory and {peaks['norm', 'trained']} in training, "
            f"their dot product with the start at tau {peaks['dot', 'theory']} and "
            f"{peaks['dot', 'trained']}. On the straight way from outputs 0 to Y, Lemma 3 puts the "
            f"first at energy {critical['norm']:.2f}, Lemma 2 the second at "
            f"{critical['dot']:.2f}; probing goes another way, so that its peaks lie elsewhere. "
            f"Adaptation is strong above energy {strong:.2f}, tiny below {tiny:.2f}, mild between. "
            f"At tau {first['tau']} finetuning moves features by {first['moved']:.3f} where "
            f"Proposition 1 allows {first['bound']:.3f}. The random head has norm "
            f"{self.lemmas['head_norm']:.1f}, where PyTorch's would have 0.6: a size chosen so "
            "that dot product and norm rise before they fall."
        )

    @property
    def summary(self) -> Json:
        """Everything as plain values."""
        return {
            "rows": self.rows,
            "lemmas": self.lemmas,
            "figures": {k: str(path) for k, path in self.figures.items()},
            "reading": self.reading,
        }


def linear_study(out: Path, *, seed: int = 0) -> LinearStudy:
    """Probe a linear network once, finetune from every tau, and compare with the theory.

    Args:
        out: folder for the figure.
        seed: of points, signs and weights.
    """
    rows, lemmas = linear_numbers(seed=seed)
    figure = out / "linear_theory.png"
    theory_figure(rows, lemmas, figure)
    return LinearStudy(rows, lemmas, {"theory": figure})


def linear_numbers(*, seed: Seed = 0) -> tuple[list[Json], Json]:
    """`rows` and `lemmas` of a `LinearStudy`, undrawn."""
    task, rng = linear_task(seed=seed), torch.Generator().manual_seed(seed)
    network = linear_network(rng=rng)
    probed, features = on_features(network, task)
    heads = probe(probed, PROBE, features, taus=TAUS, rng=rng).heads
    rows = [_row(network, task, tau, head, rng) for tau, head in heads.items()]
    network.head.load_state_dict(heads[TAUS[0]])
    return rows, _lemmas(linear_start(network, task))


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
    energy = (start.outputs - start.targets).abs().mean().item()
    return {
        "tau": tau,
        "energy": energy,
        "moved": (z - z0).norm(dim=1).mean().item(),
        "bound": linear_theory.distance_constant(start) * energy,
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


def _lemmas(start: LinearStart) -> Json:
    """Distance, dot product and norm from outputs that go straight from 0 to `Y`."""
    y, fractions = start.targets, torch.linspace(0, 1, _POINTS, dtype=torch.float64)
    means = {
        "distance": linear_theory.mean_squared_distance,
        "dot": linear_theory.mean_dot,
        "norm": linear_theory.mean_squared_norm,
    }
    maximisers = {
        "dot": linear_theory.dot_maximiser(start),
        "norm": linear_theory.norm_maximiser(start),
    }
    return {
        "energies": ((1 - fractions) * y.abs().mean()).tolist(),
        **{name: [f(start, s * y).item() for s in fractions] for name, f in means.items()},
        "critical": {
            name: [(y - q0).abs().mean().item(), means[name](start, q0).item()]
            for name, q0 in maximisers.items()
        },
        "regimes": list(linear_theory.regime_energies(start)),
        "head_norm": start.head.norm().item(),
    }


def theory_figure(
    rows: Sequence[Json], lemmas: Json, path: Path, *, note: str = "", title: str = ""
) -> None:
    """Draw Figure 16: distance, dot product, norm and cosine against the energy."""
    figure = new_figure(11, 7)
    for axes, (name, text) in zip(figure.subplots(2, 2).flat, _SHIFTS.items(), strict=True):
        _panel(axes, name, rows, lemmas)
        open_frame(axes, f"Mean {text}")
        axes.grid(axis="y", alpha=0.25)
    # one legend for all panels, each entry once
    entries = {
        text: line
        for axes in figure.axes
        for line, text in zip(*axes.get_legend_handles_labels(), strict=True)
    }
    figure.legend(
        entries.values(),
        entries.keys(),
        loc="outside lower center",
        ncols=2,
        frameon=False,
        fontsize=9,
    )
    save(figure, path, note=note, title=title)


def _panel(axes: "Axes", name: str, rows: Sequence[Json], lemmas: Json) -> None:
    highest = max(lemmas["energies"])
    strong, tiny = lemmas["regimes"]
    for regime, low, high in (
        ("strong", strong, highest),
        ("mild", tiny, strong),
        ("tiny", 0, tiny),
    ):
        axes.axvspan(low, high, color=_COLORS[regime], alpha=0.08, lw=0)
        axes.text(
            (low + high) / 2,
            0.02,
            regime,
            color=_COLORS[regime],
            ha="center",
            va="bottom",
            transform=axes.get_xaxis_transform(),
            fontsize=9,
        )
    energies = [row["energy"] for row in rows]
    if name in lemmas:
        label = "closed form, outputs straight from 0 to Y"
        axes.plot(lemmas["energies"], lemmas[name], "--", color=GREY, lw=1, label=label)
    label = "closed form, outputs of probed heads"
    axes.plot(energies, [row["theory"][name] for row in rows], color=BLUE, label=label)
    trained = [row["trained"][name] for row in rows]
    axes.plot(energies, trained, "o", color=BLUE, ms=5, label="gradient descent from probed heads")
    if name in _CRITICAL:
        energy, value = lemmas["critical"][name]
        axes.plot(energy, value, "D", color="black", ms=6, label="highest by Lemma 2 or 3")
        axes.annotate(
            _CRITICAL[name], (energy, value), (6, 6), textcoords="offset points", fontsize=9
        )
    axes.margins(y=0.14)
    axes.set_xlim(1.02 * highest, -0.02 * highest)
    axes.set_xlabel("initial energy, mean $|q_0 - Y|$: falls with tau")
