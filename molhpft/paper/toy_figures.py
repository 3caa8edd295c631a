"""Figures 2, 3, 6 and 11 of the toy, and Figure 16 of the linear theory."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import fmean

import torch

from molhpft import __version__
from molhpft.config.options import Options, checked, keywords, unknown
from molhpft.core.annotations import Seed
from molhpft.domains.files import Json, read_json, replacing, short_digest, writing
from molhpft.domains.toy.digits import toy_pretrain_task
from molhpft.paper.pictures import (
    DISTANCES,
    Number,
    Picture,
    distance_panels,
    over_seeds,
    tau_numbers,
)
from molhpft.studies.drawing import (
    confidence_figure,
    kernel_figure,
    story_figure,
    tau_panels_figure,
)
from molhpft.studies.linear_study import linear_numbers, theory_figure
from molhpft.studies.toy_record import kernel_record, toy_record
from molhpft.studies.toy_study import HEAD_SCALE, exchange_reading

_HEADS = f"random heads {HEAD_SCALE:g} times as large as PyTorch's, our choice"

_DIGITS = {"toy_mnist": "MNIST", "toy_digits": "scikit-learn's digits in place of MNIST"}
_OF_MEANS = ("fig11",)

Record = Callable[..., Json]


def theory_record(*, seed: Seed = 0) -> Json:
    """What Figure 16 shows: `rows` and `lemmas` of a `LinearStudy`."""
    rows, lemmas = linear_numbers(seed=seed)
    return {"rows": rows, "lemmas": lemmas}


STUDIES: dict[str, Record] = {
    "toy": toy_record,
    "kernels": kernel_record,
    "theory": theory_record,
}
"""What a config of the toy may name; their options are its keys."""


def check_toy_config(name: str, raw: Options) -> tuple[str, Options, list[int]]:
    """The study that a config of the toy names, its options, checked, and its seeds.

    Args:
        name: of the exhibit. One that shows means takes `seeds`, how many; the others a `seed`.
        raw: its config.

    Raises:
        ValueError: a key that the study has not, or a value that does not fit.
    """
    named = {key: value for key, value in raw.items() if key != "seeds"}
    if len(named) != 1:
        raise ValueError(
            f"the config of {name} should name one study ({', '.join(STUDIES)}), got {list(named)}"
        )
    ((key, given),) = named.items()
    if key not in STUDIES:
        raise ValueError(unknown(key, [*STUDIES, "seeds"]))
    if name not in _OF_MEANS and "seeds" in raw:
        raise ValueError(f"{name} shows one seed; give {key}.seed instead of seeds")
    parameters = keywords(STUDIES[key])
    if name in _OF_MEANS:
        del parameters["seed"]
    options = checked(key, parameters, given or {})
    return key, options, [options["seed"]] if "seed" in options else list(range(_count(raw)))


def _count(raw: Options) -> int:
    seeds = raw.get("seeds", 1)
    if type(seeds) is not int or seeds < 1:
        raise ValueError(f"seeds should be a whole number of at least 1, got {seeds!r}")
    return seeds


def toy_picture(name: str, raw: Options, records: Path) -> Picture:
    """A figure of the toy or of the linear theory.

    Args:
        name: of the exhibit.
        raw: its config.
        records: folder where what was computed is kept, for other figures of the same config.

    Raises:
        ValueError: the config does not fit.
    """
    key, options, seeds = check_toy_config(name, raw)
    studies = [_study(STUDIES[key], {**options, "seed": seed}, records / key) for seed in seeds]
    shown = f"training split; {over_seeds(len(seeds))}" if name in _OF_MEANS else f"seed {seeds[0]}"
    digits = _DIGITS.get(studies[0].get("task", ""))
    return _DRAWN[name](studies, f"{digits}; {shown}" if digits else shown)


def _study(study: Record, options: Options, folder: Path) -> Json:
    """What a study gives for some options, computed once."""
    about = {"version": __version__, **{k: str(v) for k, v in options.items()}}
    if "mnist" in options:  # MNIST or other digits, whichever are at hand
        about["digits"] = toy_pretrain_task(mnist=options["mnist"]).fingerprint
    path = folder / f"seed{options['seed']}-{short_digest(about)}.json"
    if not path.is_file():
        result = study(**options)
        with writing(path):
            folder.mkdir(parents=True, exist_ok=True)
            with replacing(path) as aside:
                aside.write_text(json.dumps(result), encoding="utf-8")
    return read_json(path, remedy="delete it, and it is computed again")


def _confidence(studies: Sequence[Json], seeds: str) -> Picture:
    """Figure 2."""
    seen = studies[0]
    p = {tau: torch.tensor(ps) for tau, ps in zip(seen["shown"], seen["p_correct"], strict=True)}
    numbers = [
        Number("p(correct) after probing", f"tau {tau}", example, value)
        for tau, ps in zip(seen["shown"], seen["p_correct"], strict=True)
        for example, value in enumerate(ps)
    ]
    numbers += [
        Number("gradient of the loss in the head", "", tau, value)
        for tau, value in zip(seen["shown"], seen["gradients"], strict=True)
    ]
    numbers += [
        Number("change of the head", f"tau {tau}", epoch, value)
        for tau, values in zip(seen["shown"], seen["changes"], strict=True)
        for epoch, value in enumerate(values)
    ]
    first, last = seen["changes"][0][-1], seen["changes"][-1][-1]
    means = [fmean(ps) for ps in seen["p_correct"]]
    return Picture(
        lambda path, title: confidence_figure(
            p, seen["gradients"], seen["changes"], path, note=f"{seeds}; {_HEADS}", title=title
        ),
        numbers,
        f"Mean p(correct) of training examples after probing: {means[0]:.2f} at tau "
        f"{seen['shown'][0]}, {means[-1]:.2f} at tau {seen['shown'][-1]}. By the end of finetuning "
        f"the head has changed by {first:.2g} and {last:.2g} of its length.",
    )


def _story(studies: Sequence[Json], seeds: str) -> Picture:
    """Figure 3."""
    seen = studies[0]
    exchange = {split: torch.tensor(matrix) for split, matrix in seen["exchange"].items()}
    story = {**seen, "exchange": exchange, "exchanged": seen["shown"]}
    numbers = [
        Number(f"training curve, {key}", f"tau {tau}", row["epoch"], row[key])
        for key in ("loss", "train", "valid")
        for tau, rows in zip(seen["taus"], seen["curves"], strict=True)
        for row in rows
    ]
    numbers += [
        Number(moment, f"class {seen['classes'][label]}", x, y)
        for moment, (points, labels) in seen["scatter"].items()
        for (x, y), label in zip(points, labels, strict=True)
    ]
    numbers += [
        Number(f"exchange, {split}", f"head of tau {head}", f"backbone of tau {backbone}", score)
        for split, matrix in seen["exchange"].items()
        for backbone, row in zip(seen["shown"], matrix, strict=True)
        for head, score in zip(seen["shown"], row, strict=True)
    ]
    note = f"{seeds}; features in the plane in which they vary most; {_HEADS}"
    return Picture(
        lambda path, title: story_figure(story, path, note=note, title=title),
        numbers,
        exchange_reading(exchange["train"], seen["shown"]),
    )


def _kernels(studies: Sequence[Json], seeds: str) -> Picture:
    """Figure 6."""
    kernels = {f"{name} backbone": path for name, path in studies[0]["paths"].items()}
    numbers = [
        Number(f"{key}, eNTK" if key != "train" else "training accuracy", name, epoch, value)
        for name, path in kernels.items()
        for key in ("train", "from_start", "from_last")
        for epoch, value in zip(path["epochs"][key == "from_last" :], path[key], strict=True)
    ]
    ends = {name: path["from_start"][-1] for name, path in kernels.items()}
    note = f"{seeds}; 50 random training examples, 2,500 pairs; {_HEADS}"
    return Picture(
        lambda path, title: kernel_figure(kernels, path, note=note, title=title),
        numbers,
        "Change of the tangent kernel by the end of finetuning, relative to its start: "
        + ", ".join(f"{name} {change:.2g}" for name, change in ends.items())
        + ".",
    )


def _distances(studies: Sequence[Json], seeds: str) -> Picture:
    """Figure 11."""
    panels = distance_panels(studies[0]["taus"], [seen["rows"] for seen in studies])
    note = f"{seeds}; {_HEADS}"
    means = {key: panel.lines[0].means for key, panel in zip(DISTANCES, panels, strict=True)}
    peaks = {key: studies[0]["taus"][values.index(max(values))] for key, values in means.items()}
    first, last = (means["distance"][k] for k in (0, -1))
    return Picture(
        lambda path, title: tau_panels_figure(panels, path, columns=2, note=note, title=title),
        tau_numbers(panels),
        f"From tau 0 to infinity the distance goes from {first:.2f} to {last:.2f}; the dot product "
        f"is highest at tau {peaks['dot']}, the norm at tau {peaks['norm']}.",
    )


def _theory(studies: Sequence[Json], seeds: str) -> Picture:
    """Figure 16."""
    rows, lemmas = studies[0]["rows"], studies[0]["lemmas"]
    numbers = [
        Number(key, how, row["energy"], row[kind][key])
        for kind, how in (("theory", "closed form, probed heads"), ("trained", "gradient descent"))
        for row in rows
        for key in row[kind]
    ]
    numbers += [
        Number(key, "closed form, outputs from 0 to Y", energy, value)
        for key in ("distance", "dot", "norm")
        for energy, value in zip(lemmas["energies"], lemmas[key], strict=True)
    ]
    numbers += [
        Number(key, "critical point of the lemma", *point)
        for key, point in lemmas["critical"].items()
    ]
    at = {key: point[0] for key, point in lemmas["critical"].items()}
    return Picture(
        lambda path, title: theory_figure(rows, lemmas, path, note=seeds, title=title),
        numbers,
        f"Lemma 2 puts the highest dot product at energy {at['dot']:.2f}, Lemma 3 the highest norm "
        f"at {at['norm']:.2f}.",
    )


_DRAWN: dict[str, Callable[[Sequence[Json], str], Picture]] = {
    "fig2": _confidence,
    "fig3": _story,
    "fig6": _kernels,
    "fig11": _distances,
    "fig16": _theory,
}
