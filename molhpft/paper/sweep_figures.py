"""Figures 1, 4 and 13 to 15: what finetuning from every tau gives, a row of panels a setting."""

from collections.abc import Sequence

from molhpft.core.metrics import PERCENTAGES, signed_name
from molhpft.paper.paper_tables import trained_on
from molhpft.paper.pictures import Picture, averaged, distance_panels, over_seeds, tau_numbers
from molhpft.studies.drawing import TauPanel, tau_panels_figure
from molhpft.sweep.grids import Setting

_ENERGY = "Energy when finetuning starts,\nmean $||p - y||$ (probability)"


def curves_picture(settings: Sequence[Setting]) -> Picture:
    """Figures 1 and 4: scores after probing and after finetuning, and the energy, against tau."""
    panels = [panel for setting in settings for panel in _curves(setting)]
    return _picture(settings, panels, columns=3, of="", reading=_best_taus(settings))


def distances_picture(settings: Sequence[Setting]) -> Picture:
    """Figures 13 to 15: the four distances of features against tau."""
    panels = [
        panel
        for setting in settings
        for panel in distance_panels(
            _taus(setting), [seed["branches"] for seed in setting.seeds], group=trained_on(setting)
        )
    ]
    of = "means over training examples; "
    return _picture(settings, panels, columns=4, of=of, reading=_shifts(settings))


def _picture(
    settings: Sequence[Setting], panels: Sequence[TauPanel], *, columns: int, of: str, reading: str
) -> Picture:
    note = f"{of}{over_seeds(len(settings[0].seeds))}"
    return Picture(
        lambda path, title: tau_panels_figure(
            panels, path, columns=columns, note=note, title=title
        ),
        tau_numbers(panels),
        reading,
    )


def _curves(setting: Setting) -> list[TauPanel]:
    metric, taus = setting.metric, _taus(setting)
    scale = 100.0 if metric in PERCENTAGES else 1.0
    score = signed_name(metric).removesuffix(" (%)")
    unit = " (%)" if metric in PERCENTAGES else ""
    probed = averaged("", _values(setting, "probe", "train", scale))
    tuned = averaged("", _values(setting, "final", "valid", scale))
    energy = averaged("", _values(setting, "energy", "aie"))
    return [
        TauPanel(f"Training {score}\nafter probing{unit}", taus, [probed], trained_on(setting)),
        TauPanel(f"Validation {score}\nafter finetuning{unit}", taus, [tuned], trained_on(setting)),
        TauPanel(_ENERGY, taus, [energy], trained_on(setting)),
    ]


def _values(setting: Setting, group: str, key: str, scale: float = 1.0) -> list[list[float]]:
    """A list a seed, a number a tau."""
    return [[scale * row[group][key] for row in seed["branches"]] for seed in setting.seeds]


def _taus(setting: Setting) -> list[str]:
    return [
        "-" if row["tau"] is None else f"{row['tau']:,}" for row in setting.seeds[0]["branches"]
    ]


def _best_taus(settings: Sequence[Setting]) -> str:
    sentences = []
    for setting in settings:
        means = averaged("", _values(setting, "final", "valid")).means
        taus = _taus(setting)
        sentences.append(
            f"{trained_on(setting)} validates best at tau {taus[means.index(max(means))]}"
        )
    return f"{'; '.join(sentences)} (grid: {', '.join(_taus(settings[0]))})."


def _shifts(settings: Sequence[Setting]) -> str:
    sentences = []
    for setting in settings:
        ends = {
            key: averaged("", _values(setting, "shift", key)).means
            for key in ("distance", "cosine")
        }
        sentences.append(
            f"{trained_on(setting)}: from tau {_taus(setting)[0]} to {_taus(setting)[-1]} the "
            f"distance goes from {ends['distance'][0]:.2f} to {ends['distance'][-1]:.2f}, the "
            f"cosine from {ends['cosine'][0]:.3f} to {ends['cosine'][-1]:.3f}"
        )
    return f"{'; '.join(sentences)}."
