"""Figures of what a run has where its config asks for it, and sentences where it does not."""

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from math import ceil
from statistics import mean
from typing import Any

import pandas as pd
import plotly.graph_objects as go
from plotly.colors import sample_colorscale

from molhpft.core.metrics import score_name
from molhpft.domains.files import Json, listed
from molhpft.report.content import Cell, Panel, Sheet, digits, real, scaled, words
from molhpft.report.figures import COLOURS, figure, tau_axis
from molhpft.results.read import Run
from molhpft.results.statistics import mean_interval, reported, summarise
from molhpft.results.table import Results
from molhpft.results.terminal import MEASURED, MEASURES_LEGEND

MOST_TARGETS = 40
SCALE = ("#4c7df0", "#22a08c", "#d99a1f", "#d4504c")  # seen on light and dark ground

KERNELS = {
    "ntk_change": "change since the start",
    "ntk_step": "change since the epoch before",
}
Key = tuple[int, int]  # tau, and epoch or bin
Variant = tuple[str, list[Run]]


def variants(results: Results, table: pd.DataFrame) -> list[Variant]:
    """Runs of every variant of one task, that which validates best first."""
    order = summarise(reported(table, by="variant"), by="variant")["variant"]
    return [(str(name), results.runs_of(table[table["variant"] == name])) for name in order]


def curves(found: Sequence[Variant]) -> Panel:
    """Loss and validation score by epoch of finetuning, of the best variant with several tau."""
    title = "Training curves"
    # a grid of tau has more to show than a single line
    for name, runs in sorted(found, key=lambda variant: not _has_grid(variant[1])):
        losses = _along(runs, "loss")
        if losses:
            metric = str(runs[0].summary["metric"])
            scores = {key: scaled(v, metric) for key, v in _along(runs, "valid").items()}
            shown = [_by_epoch(losses, y="training loss")]
            missing = " No validation score by epoch: finetune.keep is last."
            if scores:
                shown.append(_by_epoch(scores, y=f"validation {score_name(metric)}"))
            note = f"Finetuning of {name}, a line a tau, mean over {_seeds(runs)}."
            return Panel(title, note + ("" if scores else missing), tuple(shown))
    return Panel(title, "No run here has finetuned.")


def confidence(found: Sequence[Variant]) -> Panel:
    """Histograms of p(correct) over training labels, before and after finetuning."""
    title = "p(correct)"
    for name, runs in found:
        shares = {when: _histogram(runs, when) for when in ("before", "after")}
        if all(shares.values()):
            shown = [_histogram_figure(rows, when) for when, rows in shares.items()]
            note = (
                f"Share of training labels by the probability that {name} gives to the right "
                f"answer, a line a tau, mean over {_seeds(runs)}."
            )
            return Panel(title, note, tuple(shown))
    return Panel(title, _not_measured("confidence"))


def exchange(found: Sequence[Variant]) -> Panel:
    """Score of every backbone under every other's head."""
    title = "Heads and backbones exchanged"
    for name, runs in found:
        known = [r for r in runs if _exchanged(r).keys() >= {"train", "valid"}]
        taus = [branch["tau"] for branch in known[0].summary["branches"]] if known else []
        same = [r for r in known if [b["tau"] for b in r.summary["branches"]] == taus]
        if len(taus) > 1:
            shown = [_exchange_figure(same, split, taus) for split in ("train", "valid")]
            note = (
                f"{name}: score of the backbone of one tau under the head of another, without "
                f"retuning, mean over {_seeds(same)}. The diagonal has the networks as they are."
            )
            return Panel(title, note, tuple(shown))
    return Panel(title, _not_measured("exchange"))


def ntk(found: Sequence[Variant], labels: Mapping[str, str], palette: Mapping[str, str]) -> Panel:
    """Change of the empirical neural tangent kernel along finetuning (Figure 6 of the paper).

    Methods that measured it are on one plot, at the smallest tau that they share: a random backbone
    beside a pretrained one. Where one method did, a line is a tau.

    Args:
        found: variants of one task.
        labels: variant to method.
        palette: method to colour.
    """
    title = "eNTK change"
    kernels: dict[str, Variant] = {}
    for name, runs in found:
        if _along(runs, "ntk_change"):
            kernels.setdefault(labels[name], (name, runs))
    if not kernels:
        return Panel(title, _not_measured("ntk"))
    shown = {y: {k: _along(v[1], key) for k, v in kernels.items()} for key, y in KERNELS.items()}
    shown = {y: lines for y, lines in shown.items() if any(lines.values())}
    name, runs = next(iter(kernels.values()))
    what = "How far the kernel of the backbone has moved, relative to its size"
    if len(kernels) == 1:
        note = f"{name}: {what.lower()}, a line a tau, mean over {_seeds(runs)}."
        return Panel(title, note, tuple(_by_epoch(k[labels[name]], y=y) for y, k in shown.items()))
    taus = [{tau for tau, _ in _along(own, "ntk_change")} for _, own in kernels.values()]
    tau = min(set.intersection(*taus) or set.union(*taus))
    note = f"{what}, tau {tau}: {listed([own for own, _ in kernels.values()])}, means over seeds."
    drawn = (_by_method(lines, tau, palette, y=y) for y, lines in shown.items())
    return Panel(title, note, tuple(drawn))


def direction(found: Sequence[Variant]) -> Panel:
    """Norm of the direction term along finetuning, from its start (Figure 2 of the paper)."""
    title = "Direction term"
    for name, runs in found:
        along = _along(runs, "direction")
        if along:
            start = _by_tau(runs, "direction", "norm_before")
            along = dict(sorted({**along, **{(t, 0): mean(v) for t, v in start.items()}}.items()))
            note = (
                f"{name}: mean norm of the gradient of the logits with respect to the features, "
                f"a line a tau, mean over {_seeds(runs)}."
            )
            return Panel(title, note, (_by_epoch(along, y="‖∂q/∂z‖"),))
    return Panel(title, _not_measured("direction"))


def first_step(found: Sequence[Variant]) -> Panel:
    """The factors of the features' first step, against tau."""
    title = "Kernel, direction and energy of the first step"
    lines = {key: ("decomposition", key) for key in ("kernel", "direction", "energy")}
    note = (
        "the features' first step is kernel times direction times energy; norms of the three, each "
        "relative to that of the smallest tau"
    )
    return _against_tau(title, found, lines, note, y="relative norm", relative=True)


def drift(found: Sequence[Variant]) -> Panel:
    """How far batch-norm statistics alone carry the features, against tau."""
    lines = {"all of it": ("", "distance"), "by batch norm alone": ("drift", "distance")}
    note = (
        "distance of training features from where finetuning began, and the part that batch norm's "
        "running statistics make when nothing is trained"
    )
    return _against_tau("Drift by batch norm", found, lines, note, y="distance ‖z_T - z_0‖")


def bound(found: Sequence[Variant]) -> Panel:
    """Both sides of Proposition 1, against tau."""
    lines = {"moved": ("bound", "distance"), "at most, by the bound": ("bound", "most")}
    note = "how far features moved, and how far Proposition 1 lets them"
    beyond = _beyond(found)
    if beyond:
        note += f" (a comparison: it is not derived for {listed(beyond)})"
    panel = _against_tau("Proposition 1", found, lines, note, y="distance ‖z_T - z_0‖")
    for made in panel.figures:
        made["layout"]["yaxis"] |= {"type": "log"}
    return panel


def further_sheet(found: Sequence[Variant]) -> Sheet | None:
    """What further measures say, a row each and a column a tau; None where nothing was measured."""
    taken = {
        (column, name): own
        for column, places in MEASURED.items()
        for name, runs in found
        if (own := _by_tau(runs, *places))
    }
    if not taken:
        return None
    taus = sorted({tau for own in taken.values() for tau in own})
    rows = [
        (words(column), words(name), *(_mean_cell(own.get(tau, [])) for tau in taus))
        for (column, name), own in taken.items()
    ]
    note = (
        f"Mean over seeds ± half of the 95 % interval. {MEASURES_LEGEND} bound applies, bound "
        "holds: share of the runs."
    )
    return Sheet(
        "Further measures", note, ("measure", "method", *(f"tau {t}" for t in taus)), tuple(rows)
    )


def per_target(results: Results, table: pd.DataFrame, palette: Mapping[str, str]) -> Panel:
    """Test score of every target, of each method at its best."""
    title = "Score of every target"
    metric = str(table["metric"].iloc[0])
    scores = _target_scores(results, reported(table))
    names = list(dict.fromkeys(name for own in scores.values() for name in own))
    if not names:
        return Panel(title, _not_measured("targets"))
    leader = next(iter(scores.values()))
    names.sort(key=lambda name: leader.get(name, float("-inf")))
    shown = names[-MOST_TARGETS:]
    traces = [
        go.Scatter(
            x=[None if name not in own else scaled(own[name], metric) for name in shown],
            y=shown,
            mode="markers",
            name=label,
            marker={"color": palette[label], "size": 10, "opacity": 0.85},
        )
        for label, own in scores.items()
    ]
    made = figure(traces, x=f"test {score_name(metric)}", y="", height=150 + 26 * len(shown))
    made["layout"]["yaxis"] |= {"automargin": True, "type": "category"}
    left = f" The best {len(shown)} of {len(names)} targets." if len(names) > len(shown) else ""
    return Panel(title, f"Mean over seeds, by the method's best tau and setting.{left}", (made,))


def _target_scores(results: Results, best: pd.DataFrame) -> dict[str, dict[str, float]]:
    """Method to target to mean test score, the method that validates best first."""
    found: dict[str, dict[str, list[float]]] = {}
    for label in summarise(best)["label"]:
        own: dict[str, list[float]] = defaultdict(list)
        for row in best[best["label"] == label].to_dict("records"):
            (run,) = results.runs_of(pd.DataFrame([row]))
            tau = None if pd.isna(row["tau"]) else int(row["tau"])
            branch = next(b for b in run.summary["branches"] if b["tau"] == tau)
            measured = (branch.get("measures") or {}).get("targets") or {}
            for name, value in measured.get("test", {}).items():
                if value is not None:
                    own[name].append(value)
        if own:
            found[str(label)] = dict(own)
    return {label: {n: mean(v) for n, v in own.items()} for label, own in found.items()}


def _against_tau(
    title: str,
    found: Sequence[Variant],
    lines: Mapping[str, tuple[str, str]],
    note: str,
    *,
    y: str,
    relative: bool = False,
) -> Panel:
    """Numbers of the best variant that measured them at several tau."""
    single = False
    for name, runs in found:
        values = {line: _by_tau(runs, *places) for line, places in lines.items()}
        taus = sorted(set.intersection(*(set(own) for own in values.values())))
        single |= len(taus) == 1
        if len(taus) < 2:
            continue
        means = {line: [mean(own[tau]) for tau in taus] for line, own in values.items()}
        if relative:
            means = {k: [v / own[0] if own[0] else 0 for v in own] for k, own in means.items()}
        traces = [
            go.Scatter(
                x=[str(tau) for tau in taus],
                y=own,
                name=line,
                mode="lines+markers",
                line={"color": COLOURS[k]},
            )
            for k, (line, own) in enumerate(means.items())
        ]
        made = figure(traces, x="tau (epochs of head probing)", y=y, height=300)
        made["layout"]["xaxis"] |= tau_axis(taus)
        made["layout"]["yaxis"] |= {"rangemode": "tozero"}
        return Panel(title, f"{name}: {note}. Mean over {_seeds(runs)}.", (made,))
    if single:
        return Panel(title, 'Measured at one tau; its numbers are in the table "Further measures".')
    return Panel(title, _not_measured(next(m for m, _ in lines.values() if m)))


def _by_tau(runs: Iterable[Run], *places: str) -> dict[int, list[float]]:
    """Tau to the numbers of the runs that have them.

    Args:
        runs: of one variant.
        places: keys under a branch's `measures`; "" stands for the shift of its features.
    """
    values: dict[int, list[float]] = defaultdict(list)
    for run in runs:
        for branch in run.summary["branches"]:
            found: Any = {"": branch["shift"], **(branch.get("measures") or {})}
            for place in places:
                found = found.get(place) if isinstance(found, dict) else None
            value = real(found)
            if value is not None and branch["tau"] is not None:
                values[branch["tau"]].append(value)
    return dict(values)


def _beyond(found: Sequence[Variant]) -> list[str]:
    """What of the runs Proposition 1 is not derived for, each once."""
    branches = [b for _, runs in found for run in runs for b in run.summary["branches"]]
    bounds = [(branch.get("measures") or {}).get("bound") or {} for branch in branches]
    return list(dict.fromkeys(word for own in bounds for word in own.get("beyond") or ()))


def _mean_cell(values: Sequence[float]) -> Cell:
    if not values:
        return Cell("-", None)
    found = mean_interval(values)
    half = "" if found.n == 1 else f" ± {found.mean - found.low:.2g}"
    return Cell(f"{found.mean:.3g}{half}", found.mean)


def _by_method(
    lines: Mapping[str, Mapping[Key, float]], tau: int, palette: Mapping[str, str], *, y: str
) -> Json:
    """A line a method, at one tau."""
    own = {k: {epoch: v for (t, epoch), v in line.items() if t == tau} for k, line in lines.items()}
    traces = [
        go.Scatter(
            x=list(line),
            y=list(line.values()),
            name=label,
            mode="lines+markers",
            line={"color": palette[label]},
            showlegend=True,
        )
        for label, line in own.items()
    ]
    return _with_epochs(figure(traces, x="epoch of finetuning", y=y, height=300), own.values())


def _with_epochs(made: Json, lines: Iterable[Iterable[int]]) -> Json:
    """Ticks at whole epochs: an axis of its own choice would have half ones."""
    last = max((epoch for line in lines for epoch in line), default=1)
    made["layout"]["xaxis"] |= {"tick0": 1 if last <= 10 else 0, "dtick": ceil(last / 10)}
    return made


def _exchanged(run: Run) -> Json:
    found: Json = (run.summary.get("measures") or {}).get("exchange") or {}
    return found


def _has_grid(runs: Sequence[Run]) -> bool:
    return any(len(run.summary["branches"]) > 1 for run in runs)


def _along(runs: Iterable[Run], key: str) -> dict[Key, float]:
    """(tau, epoch) to the mean over runs of a number that finetuning has noted."""
    values: dict[Key, list[float]] = defaultdict(list)
    for run in runs:
        for row in run.history or ():
            value = real(row.get(key))
            if value is not None and str(row["phase"]) == "finetune":
                values[row["tau"], row["epoch"]].append(value)
    return {place: mean(v) for place, v in sorted(values.items())}


def _histogram(runs: Iterable[Run], when: str) -> dict[Key, float]:
    """(tau, bin) to the share of labels in it."""
    counts: dict[int, list[float]] = {}
    for run in runs:
        for branch in run.summary["branches"]:
            measured = (branch.get("measures") or {}).get("confidence")
            if measured:
                own = measured["histogram"].get(when, [])
                old = counts.get(branch["tau"], [0.0] * len(own))
                # another version may have had other bins: what does not add up is left out
                if len(old) == len(own):
                    counts[branch["tau"]] = [a + b for a, b in zip(old, own, strict=True)]
    return {
        (tau, k): n / max(sum(own), 1)
        for tau, own in sorted(counts.items())
        for k, n in enumerate(own)
    }


def _by_epoch(values: Mapping[Key, float], *, y: str) -> Json:
    made = figure(_lines(values, lambda epoch: epoch), x="epoch of finetuning", y=y, height=300)
    return _with_epochs(made, [[epoch for _, epoch in values]])


def _histogram_figure(values: Mapping[Key, float], when: str) -> Json:
    bins = 1 + max(k for _, k in values)
    # a step begins at the left edge of its bin; the last one needs an end
    closed = {**values, **{(tau, bins): v for (tau, k), v in values.items() if k == bins - 1}}
    traces = _lines(closed, lambda k: k / bins)
    for trace in traces:
        trace.line.shape = "hv"
        trace.mode = "lines"
    return figure(traces, x=f"p(correct), {when} finetuning", y="share of labels", height=300)


def _lines(values: Mapping[Key, float], place: Callable[[int], float]) -> list[Any]:
    """A line a tau, from blue to red as tau grows."""
    taus = sorted({tau for tau, _ in values})
    steps = [k / max(len(taus) - 1, 1) for k in range(len(taus))]
    shades = sample_colorscale(SCALE, steps)
    traces = []
    for tau, shade in zip(taus, shades, strict=True):
        own = {place(k): v for (t, k), v in values.items() if t == tau}
        line = {"color": shade, "width": 2}
        style: Json = {"mode": "lines+markers", "marker": {"size": 5}, "line": line}
        own_place = {"x": list(own), "y": list(own.values())}
        traces.append(go.Scatter(**own_place, name=f"tau {tau}", showlegend=True, **style))
    return traces


def _exchange_figure(runs: Sequence[Run], split: str, taus: Sequence[int]) -> Json:
    metric = str(runs[0].summary["metric"])
    matrices = [_exchanged(run)[split] for run in runs]
    size = range(len(taus))
    # rows of the matrix have one backbone each; in the paper's figure columns have
    means = [[_scaled_mean([m[j][i] for m in matrices], metric) for j in size] for i in size]
    names = [str(tau) for tau in taus]
    trace = go.Heatmap(
        z=means,
        x=names,
        y=names,
        text=[
            ["" if value is None else f"{value:.{digits(metric) - 1}f}" for value in row]
            for row in means
        ],
        texttemplate="%{text}",
        colorscale="Viridis",
        colorbar={"thickness": 10},
    )
    made = figure([trace], x=f"backbone of tau ({split})", y="head of tau")
    for axis in ("xaxis", "yaxis"):
        made["layout"][axis] |= tau_axis(taus)
    return made


def _scaled_mean(scores: Sequence[float | None], metric: str) -> float | None:
    """Mean over seeds, as it is shown; None where a run predicts what is not finite."""
    finite = [score for score in scores if score is not None]
    return scaled(mean(finite), metric) if len(finite) == len(scores) else None


def _seeds(runs: Sequence[Run]) -> str:
    n = len({run.summary["seed"] for run in runs})
    return "1 seed" if n == 1 else f"{n} seeds"


def _not_measured(name: str) -> str:
    return f"Not measured by any run here; add {name} to measures in the config."
