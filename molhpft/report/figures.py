"""Figures of what every run has: scores, energy and shift, over methods and over tau."""

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd
import plotly.graph_objects as go

from molhpft.core.metrics import score_name
from molhpft.domains.files import Json
from molhpft.report.content import Panel, real, scaled
from molhpft.results.statistics import over_tau, reported, summarise

COLOURS = ("#3b7dd8", "#d9772b", "#2a9d6f", "#b0539b", "#c94c4c", "#7a6ff0", "#8f8a2c", "#3f9db0")
GREY = "#8a94a3"
DISTANCES = {
    "distance": "distance ‖z_T - z_0‖",
    "dot": "dot product z_T · z_0",
    "cosine": "cosine of z_T and z_0",
    "norm": "norm ‖z_T‖",
}
NO_GRID = "No method here was run at more than one tau; give method.tau a list."


def colours(labels: Sequence[str]) -> dict[str, str]:
    """A colour for each method, the same in every figure of a task."""
    return {label: COLOURS[k % len(COLOURS)] for k, label in enumerate(labels)}


def figure(traces: Sequence[Any], *, x: str, y: str, height: int = 320, **layout: Any) -> Json:
    """A figure as plain values; the page adds the colours of its theme.

    Args:
        traces: of plotly.
        x: title of the x axis.
        y: title of the y axis.
        height: in pixels.
        **layout: of plotly.
    """
    made = go.Figure(list(traces))
    # the template of plotly.py is 7 kB a figure, and the page has one of its own
    made.update_layout(template="none", height=height, xaxis_title=x, yaxis_title=y, **layout)
    plain: Json = made.to_plotly_json()
    plain["layout"].pop("template", None)
    return plain


def over_methods(table: pd.DataFrame, palette: Mapping[str, str]) -> Panel:
    """Test and validation score of every method at its best, with intervals."""
    summary = summarise(reported(table))
    metric = str(summary["metric"].iloc[0])
    rows = summary.to_dict("records")[::-1]
    names = [str(row["label"]) for row in rows]
    traces = [
        go.Scatter(
            x=[_scaled(row, f"final_{split}", metric) for row in rows],
            y=names,
            # one colour: a bar cannot take those of the markers
            error_x={**_reach(rows, f"final_{split}", metric), "color": GREY},
            mode="markers",
            name=split,
            marker={
                "color": [palette[name] for name in names],
                "size": 11,
                "symbol": "circle" if split == "test" else "circle-open",
            },
        )
        for split in ("valid", "test")
    ]
    made = figure(traces, x=score_name(metric), y="", height=130 + 34 * len(rows))
    made["layout"]["yaxis"] |= {"automargin": True, "type": "category"}
    note = "Test (filled) and validation score (open) at the setting and tau that validate best."
    return Panel("Methods at their best", note, (made,))


def over_taus(table: pd.DataFrame, palette: Mapping[str, str]) -> list[Panel]:
    """Score, energy and the four distances against tau, for each method's best variant."""
    found = best_variants(table)
    titles = ("Score against tau", "Energy against tau", "How far features move")
    if found.empty:
        return [Panel(title, NO_GRID) for title in titles]
    metric = str(table["metric"].iloc[0])
    groups = {str(name): rows for name, rows in found.groupby("label", sort=False)}
    scores = [
        _line(rows, f"final_{split}", name, palette[name], metric, split=split)
        for name, rows in groups.items()
        for split in ("test", "valid")
    ]
    notes = (
        "Mean over seeds after finetuning with 95 % intervals. Solid: test, dotted: validation.",
        "Mean length of p - y over training examples when finetuning starts; probing longer leaves "
        "less of it.",
        "Training features after finetuning (z_T) against before (z_0), by tau.",
    )
    energy = [_line(rows, "energy", name, palette[name], "") for name, rows in groups.items()]
    distances = [
        _tau_figure(
            found,
            [_line(rows, key, name, palette[name], "") for name, rows in groups.items()],
            y=title,
            height=260,
        )
        for key, title in DISTANCES.items()
    ]
    return [
        Panel(titles[0], notes[0], (_tau_figure(found, scores, y=score_name(metric), height=360),)),
        Panel(titles[1], notes[1], (_tau_figure(found, energy, y="energy"),)),
        Panel(titles[2], notes[2], tuple(distances)),
    ]


def best_variants(table: pd.DataFrame) -> pd.DataFrame:
    """Means over tau of each method's best variant on validation, where it has several tau."""
    means = over_tau(table)
    several = means.groupby("variant")["tau"].transform("nunique") > 1
    means = means[several]
    if means.empty:
        return means
    peaks = means.groupby(["label", "variant"], sort=False)["final_valid"].max().reset_index()
    best = peaks.loc[peaks.groupby("label", sort=False)["final_valid"].idxmax()]
    return means[means["variant"].isin(best["variant"])]


def tau_axis(taus: Sequence[int]) -> Json:
    """An axis on which tau stand evenly: 0 has no logarithm, and grids are geometric."""
    return {"type": "category", "categoryorder": "array", "categoryarray": [str(t) for t in taus]}


def _tau_figure(found: pd.DataFrame, traces: Sequence[Any], *, y: str, height: int = 320) -> Json:
    made = figure(traces, x="tau (epochs of head probing)", y=y, height=height)
    made["layout"]["xaxis"] |= tau_axis(sorted({int(tau) for tau in found["tau"]}))
    return made


def _line(
    found: pd.DataFrame, key: str, name: str, colour: str, metric: str, *, split: str = "test"
) -> Any:
    rows = found.to_dict("records")
    dotted = split != "test"
    return go.Scatter(
        x=[str(row["tau"]) for row in rows],
        y=[_scaled(row, key, metric) for row in rows],
        # bars of both splits would cover each other
        error_y=None if dotted else _reach(rows, key, metric),
        mode="lines+markers",
        name=f"{name}, {split}" if dotted else name,
        line={"color": colour, "dash": "dot" if dotted else "solid"},
        marker={"size": 5 if dotted else 8},
        opacity=0.7 if dotted else 1,
    )


def _scaled(row: Mapping[Any, Any], key: str, metric: str) -> float | None:
    mean = real(row[key])
    return None if mean is None else scaled(mean, metric)


def _reach(rows: Sequence[Mapping[Any, Any]], key: str, metric: str) -> Json:
    """Half the interval of every point; none where there is one seed."""
    ends = [(real(row[key]), real(row[f"{key}_low"])) for row in rows]
    reach = [
        None if mean is None or low is None else scaled(mean - low, metric) for mean, low in ends
    ]
    return {"type": "data", "array": reach, "thickness": 1.5, "width": 4}
