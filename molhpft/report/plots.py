"""Building blocks of figures: plain values that plotly.js draws."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from math import ceil
from typing import Any

from molhpft.domains.extras import require
from molhpft.domains.files import Json
from molhpft.report.content import finite_or_none, in_points

COLOURS = ("#3b7dd8", "#d9772b", "#2a9d6f", "#b0539b", "#c94c4c", "#7a6ff0", "#8f8a2c", "#3f9db0")
SCALE = ("#4c7df0", "#22a08c", "#d99a1f", "#d4504c")  # seen on light and dark ground
TAU = "tau (epochs of head probing)"
EPOCH = "epoch of finetuning"

Tau = int | None  # None for what no number of epochs of probing led to, as a solved head
Key = tuple[Tau, int]  # tau, and epoch or bin


def colours(labels: Sequence[str]) -> dict[str, str]:
    """A colour for each method, the same in every figure of a task."""
    return {label: COLOURS[k % len(COLOURS)] for k, label in enumerate(labels)}


def figure(traces: Sequence[Json], *, x: str, y: str, height: int = 320) -> Json:
    """A figure as plain values; the page adds the colours of its theme."""
    axes = {"xaxis": {"title": {"text": x}}, "yaxis": {"title": {"text": y}}}
    return {"data": list(traces), "layout": {"height": height, **axes}}


def scatter(x: Iterable[Any], y: Iterable[Any], **style: Any) -> Json:
    """A trace of points or lines."""
    return {"type": "scatter", "x": list(x), "y": list(y), **style}


def _tau_axis(taus: Sequence[int]) -> Json:
    """An axis on which tau stand evenly: 0 has no logarithm, and grids are geometric."""
    return {"type": "category", "categoryorder": "array", "categoryarray": [str(t) for t in taus]}


def against_tau(traces: Sequence[Json], taus: Sequence[int], *, y: str, height: int = 320) -> Json:
    """A figure over tau."""
    made = figure(traces, x=TAU, y=y, height=height)
    made["layout"]["xaxis"] |= _tau_axis(taus)
    return made


def by_name(traces: Sequence[Json], *, x: str, height: int) -> Json:
    """A figure with names up its side."""
    made = figure(traces, x=x, y="", height=height)
    made["layout"]["yaxis"] |= {"automargin": True, "type": "category"}
    return made


def mean_line(
    rows: Sequence[Mapping[Any, Any]],
    key: str,
    name: str,
    colour: str,
    *,
    metric: str = "",
    split: str = "test",
) -> Json:
    """A mean against tau; of validation it is dotted, without bars, which would cover others."""
    dotted = split == "valid"
    return scatter(
        [str(row["tau"]) for row in rows],
        [points(row[key], metric) for row in rows],
        mode="lines+markers",
        name=f"{name}, {split}" if dotted else name,
        line={"color": colour, "dash": "dot" if dotted else "solid"},
        marker={"size": 5 if dotted else 8},
        opacity=0.7 if dotted else 1,
        **({} if dotted else {"error_y": reach(rows, key, metric)}),
    )


def points(value: Any, metric: str) -> float | None:
    """A score as it is drawn; None where it is missing."""
    number = finite_or_none(value)
    return None if number is None else in_points(number, metric)


def reach(rows: Sequence[Mapping[Any, Any]], key: str, metric: str) -> Json:
    """Half the interval of every point; no bar where there is none."""
    ends = [(finite_or_none(row[key]), finite_or_none(row[f"{key}_low"])) for row in rows]
    # plotly draws None as a bar of no length, and leaves out what is no number
    halves = [
        "none" if mean is None or low is None else in_points(mean - low, metric)
        for mean, low in ends
    ]
    return {"type": "data", "array": halves, "thickness": 1.5, "width": 4}


def over_epochs(values: Mapping[Key, float], *, y: str) -> Json:
    """A figure over epochs of finetuning with a line a tau."""
    made = figure(_tau_lines(values, lambda epoch: epoch), x=EPOCH, y=y, height=300)
    return _with_whole_epochs(made, [epoch for _, epoch in values])


def in_order(taus: Iterable[Tau]) -> list[Tau]:
    """Every tau once, rising; none at all comes first."""
    return sorted(set(taus), key=lambda tau: -1 if tau is None else tau)


def tau_name(tau: Tau) -> str:
    """Tau in a legend or above a column."""
    return "no tau" if tau is None else f"tau {tau}"


def method_lines(
    lines: Mapping[str, Mapping[int, float]], palette: Mapping[str, str], *, y: str
) -> Json:
    """A figure over epochs of finetuning with a line a method."""
    traces = [
        scatter(
            line,
            line.values(),
            name=label,
            mode="lines+markers",
            line={"color": palette[label]},
            showlegend=True,
        )
        for label, line in lines.items()
    ]
    made = figure(traces, x=EPOCH, y=y, height=300)
    return _with_whole_epochs(made, [epoch for line in lines.values() for epoch in line])


def _with_whole_epochs(made: Json, epochs: Iterable[int]) -> Json:
    """Ticks at whole epochs: an axis of its own choice would have half ones."""
    last = max(epochs, default=1)
    made["layout"]["xaxis"] |= {"tick0": 1 if last <= 10 else 0, "dtick": ceil(last / 10)}
    return made


def histogram(values: Mapping[Key, float], *, x: str, y: str) -> Json:
    """A figure of steps from 0 to 1 with a line a tau."""
    bins = 1 + max(k for _, k in values)
    # a step begins at the left edge of its bin; the last one needs an end
    closed = {**values, **{(tau, bins): v for (tau, k), v in values.items() if k == bins - 1}}
    traces = _tau_lines(closed, lambda k: k / bins, steps=True)
    return figure(traces, x=x, y=y, height=300)


def _tau_lines(
    values: Mapping[Key, float], place: Callable[[int], float], *, steps: bool = False
) -> list[Json]:
    """A line a tau, from blue to red as tau grows."""
    taus = in_order(tau for tau, _ in values)
    sample = require("plotly.colors", extra="report").sample_colorscale
    shades = sample(SCALE, [k / max(len(taus) - 1, 1) for k in range(len(taus))])
    traces = []
    for tau, shade in zip(taus, shades, strict=True):
        line = {place(k): v for (t, k), v in values.items() if t == tau}
        traces.append(
            scatter(
                line,
                line.values(),
                name=tau_name(tau),
                showlegend=True,
                mode="lines" if steps else "lines+markers",
                marker={"size": 5},
                line={"color": shade, "width": 2, **({"shape": "hv"} if steps else {})},
            )
        )
    return traces


def heatmap(
    means: Sequence[Sequence[float | None]], taus: Sequence[int], *, x: str, y: str, digits: int
) -> Json:
    """A matrix of numbers with a row and a column a tau."""
    names = [str(tau) for tau in taus]
    trace = {
        "type": "heatmap",
        "z": means,
        "x": names,
        "y": names,
        "text": [["" if v is None else f"{v:.{digits}f}" for v in row] for row in means],
        "texttemplate": "%{text}",
        "colorscale": "Viridis",
        "colorbar": {"thickness": 10},
    }
    made = figure([trace], x=x, y=y)
    for axis in ("xaxis", "yaxis"):
        made["layout"][axis] |= _tau_axis(taus)
    return made
