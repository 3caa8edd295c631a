"""From a task on molecules to a model: its config, one run with all members, its uncertainty."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from molhpft.config.build import build_recipes
from molhpft.config.options import Options, keywords
from molhpft.config.registry import METHODS
from molhpft.config.schema import DEFAULTS, Choice, RunConfig, parse_config, unused_keys, without
from molhpft.config.used_keys import unused_message
from molhpft.core.data import Task
from molhpft.core.evaluate import predict
from molhpft.core.network import Network
from molhpft.core.objectives import Multilabel, ScoredByLoss, Squared
from molhpft.domains.files import Json
from molhpft.domains.molecules.examples import Molecules
from molhpft.domains.molecules.fingerprints import Neighbours, packed_fingerprints, unpack_bits
from molhpft.domains.molecules.graphs import load_or_pack
from molhpft.domains.molecules.splits import CALIBRATION, calibration_share, molecule_splits
from molhpft.domains.shipped import DEFAULT_ENCODER
from molhpft.domains.weights import read_weights
from molhpft.estimator.calibrate import (
    CalibrationName,
    HeldOut,
    coverage_guarantee,
    fit_uncertainty,
    held_out_scores,
)
from molhpft.estimator.model import Model, NetworkSpec
from molhpft.run.folder import RunFolder
from molhpft.run.run import run
from molhpft.tuning.halving import highest, ranked

Encoder = str | Path | Mapping[str, Any]
Tau = int | Literal["auto"] | tuple[int, ...]
Holdout = Literal["scaffold", "random"]

TAU: Tau = "auto"
# what validated best and is not a config's own default
HEAD = "mlp"
_DEFAULTS: Options = {**DEFAULTS, "finetune": {**DEFAULTS["finetune"], "batch_size": 32}}

IN_MEMORY = Choice("table", {})
"""The task of a config whose molecules are in no file."""

_log = logging.getLogger(__name__)


def model_config(
    *,
    encoder: Encoder | None = None,
    tau: Tau | None = None,
    head: str | Mapping[str, Any] | None = None,
    seed: int | None = None,
    more: Mapping[str, Any],
    task: Choice = IN_MEMORY,
) -> RunConfig:
    """The config of a run that makes a model, from a few options and any further keys.

    Args:
        encoder: name of a shipped encoder or path of a weight file, whose encoder is recognised; or
            the keys of a config's `encoder`, such as `{"name": "gcn"}` for random weights. Like the
            three options that follow, None where the user has not given it.
        tau: epochs of head probing, one or several, or "auto"; of the method in `more`, if any.
        head: as in a config.
        seed: of every random number.
        more: further keys of a config, such as `finetune`, `probe`, `device` or `cut`, and any of
            the options above that is None. The default batch size of `finetune` is 32 here.
        task: of the config.

    Raises:
        FileNotFoundError: there is no such weight file.
        ValueError: a key or value does not fit, is given twice or would do nothing, or no encoder
            takes the weights.
    """
    given: Options = jsonable(more)
    if "task" in given:
        raise ValueError(
            f"task is the molecules that are given and no key of this config, got "
            f"{given['task']!r}; split, split_seed and validation say which are held out"
        )
    if "members" in given:
        raise ValueError(
            "members is no key of this config: the option ensemble (--ensemble, --no-ensemble) "
            "says whether several networks predict together"
        )
    raw = {
        **given,
        "encoder": _entry("encoder", given, encoder, default=DEFAULT_ENCODER),
        "head": _entry("head", given, head, default=HEAD),
        "method": _method(given.get("method", {}), tau),
        "seed": _once("seed", given, seed, default=0),
        # under a cut the head begins with layers that were trained on features as they are
        "standardise": given.get("standardise", given.get("cut") is None),
    }
    if tau is not None:
        raw = _without_idled_by_tau(raw, task)
    return parse_config(raw, task=task, defaults=_DEFAULTS)


def _without_idled_by_tau(raw: Options, task: Choice) -> Options:
    """The config without keys, such as those of `probe`, that only do nothing for this tau.

    A search over tau tries 0, too, with one config for all.
    """
    automatic = {**raw, "method": {**raw["method"], "tau": "auto"}}
    before = unused_keys(automatic, task=task, defaults=_DEFAULTS)
    now = unused_keys(raw, task=task, defaults=_DEFAULTS)
    idled = {key: why for key, why in now.items() if key not in before}
    if idled:
        _log.warning("%s; left out of this run", unused_message(idled))
    return without(raw, idled)


def _once(key: str, given: Mapping[str, Any], option: Any, *, default: Any) -> Any:
    """The value of a key that an option or the config gives, but not both."""
    if option is not None and key in given:
        raise ValueError(
            f"{key} is given twice, by its option as {option} and in the config as {given[key]}; "
            "leave one out"
        )
    return given.get(key, default if option is None else option)


def _entry(section: str, given: Options, option: Any, *, default: str) -> Any:
    """The encoder or head; keys without a name among them modify the one that the option names."""
    keys = given.get(section)
    if not isinstance(keys, Mapping) or "name" in keys:
        value = _once(section, given, option, default=default)
        return value if section in given else _named(section, value)
    entry = _named(section, default if option is None else option)
    for key in keys.keys() & (option.keys() if isinstance(option, Mapping) else set()):
        _once(key, keys, entry[key], default=None)
    return {**entry, **keys}


def _named(section: str, value: Any) -> Options:
    """An entry of the catalog, from its keys, its name, or an encoder's weight file."""
    if isinstance(value, Mapping):
        return dict(jsonable(value))
    if section == "head":
        return {"name": value}
    return {"weights": str(value)}


def _method(given: Any, tau: Tau | None) -> Any:
    """The method's keys; `tau` is among them where it is given, or where the method needs one."""
    given = {"name": given} if isinstance(given, str) else given
    if not isinstance(given, Mapping):
        return given  # for `parse_config` to refuse
    method = {"name": "hp_ft", **given}
    name = method["name"]
    if not isinstance(name, str) or name not in METHODS:
        return method
    options = keywords(METHODS[name])
    if tau is not None and "tau" not in options:
        raise ValueError(f"method {name} is not probed for tau epochs; leave tau out, got {tau}")
    needed = "tau" in options and options["tau"].default is options["tau"].empty
    taus = jsonable(_once("tau", method, tau, default=TAU if needed else None))
    if taus is None:
        return method
    return {**method, "tau": taus if isinstance(taus, str | list) else [taus]}


def jsonable(value: Any) -> Any:
    """A value as YAML and JSON hold it: no numbers or arrays of numpy, paths as text."""
    if isinstance(value, Mapping):
        return {key: jsonable(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple | range):
        return [jsonable(inner) for inner in value]
    if isinstance(value, np.ndarray | np.generic):
        return value.tolist()
    return str(value) if isinstance(value, Path) else value


@dataclass(frozen=True)
class Inference:
    """How a model predicts.

    Attributes:
        ensemble: whether to average networks of several taus, as many of the best as validate best
            together; otherwise the network that the run has chosen predicts alone.
        calibration: method for probabilities, fitted to validation and calibration molecules.
        target_coverage: share of molecules whose label should be in its prediction set, between 0
            and 1.

    Raises:
        ValueError: there is no such calibration, or the coverage is out of range.
    """

    ensemble: bool = True
    calibration: CalibrationName = "platt"
    target_coverage: float = 0.9

    def __post_init__(self) -> None:
        if self.calibration not in get_args(CalibrationName):
            choices = ", ".join(get_args(CalibrationName))
            raise ValueError(f"calibration should be one of {choices}, got {self.calibration!r}")
        if not 0 < self.target_coverage < 1:
            raise ValueError(
                f"target coverage should lie between 0 and 1, got {self.target_coverage:g}"
            )


def train(
    config: RunConfig, task: Task, out: Path, inference: Inference, *, notes: Sequence[str] = ()
) -> tuple[Model, RunFolder]:
    """Run a config on a task of molecules and make a model of its networks.

    The run sees training and validation, and scores test and any further split. The calibration
    split, which prediction sets are fitted to, is read when everything is chosen.

    Args:
        config: of the run; `inference.ensemble` sets its `members`.
        task: on molecules, with a training and a validation split; "calibration" is optional, and
            further splits are scored.
        out: folder of run folders; an interrupted run resumes there.
        inference: how the model predicts.
        notes: sentences about the data for the model's card.

    Raises:
        ValueError: task, settings and this machine do not go together.
        OSError: `out` cannot be written to.
    """
    molecules, objective = task.examples, task.objective
    if not isinstance(molecules, Molecules) or not isinstance(objective, Multilabel | Squared):
        raise ValueError(f"a model is made of molecules with labels; {task.name} has others")
    _check_settings(config, task, inference)
    visible = without_calibration(task)
    folder = run(replace(config, members=inference.ensemble), out, task=visible)
    spec = NetworkSpec(
        config.encoder,
        config.head,
        config.cut,
        config.standardise,
        task.target_names,
        objective,
        molecules.classes,
    )
    members = _best_together(_read_members(folder, spec, visible), visible)
    smiles = tuple(molecules.smiles[row] for row in task.rows("train").tolist())
    fingerprints = packed_fingerprints(smiles)
    held = _held_out(members, task, fingerprints)
    uncertainty = fit_uncertainty(
        held["valid"],
        held.get(CALIBRATION),
        objective,
        calibration=inference.calibration,
        target_coverage=inference.target_coverage,
        fingerprints=fingerprints,
    )
    scores = {split: held_out_scores(one, objective, uncertainty) for split, one in held.items()}
    # sets hold the calibration labels by construction: they were fitted to them
    scores.get(CALIBRATION, {})["coverage"] = None
    about = {
        **_about(folder, members),
        "sizes": {split: len(rows) for split, rows in task.splits.items()},
        "scores": scores,
        "unscored": unscored_targets(task),
        "coverage": coverage_guarantee(
            uncertainty, task.target_names, scores, held, classes=molecules.classes
        ),
        "notes": list(notes),
    }
    return Model(spec, [m.network for m in members], uncertainty, smiles, about), folder


def _check_settings(config: RunConfig, task: Task, inference: Inference) -> None:
    if isinstance(task.objective, Squared) and inference.calibration not in (
        Inference.calibration,
        "none",
    ):
        raise ValueError(
            f"calibration {inference.calibration} is of probabilities, and {task.name} is a "
            "regression; leave it out"
        )
    recipe = build_recipes(config)[0]
    if recipe.side or recipe.auxiliary or recipe.contrast:
        raise ValueError(
            f"method {config.method.name} trains more than a network on the labels of the table, "
            "which is all that a model holds; take hp_ft, ls_hp_ft, l2_sp or another"
        )


def without_calibration(task: Task) -> Task:
    """The task without its calibration split and without splits that cannot be scored.

    Where no target has both classes in validation, validation is scored by the loss, so that there
    is something to choose by.

    Raises:
        ValueError: there is nothing to train on, or to choose by.
    """
    objective = task.objective
    scorable = {split: bool(scored_targets(task, split).any()) for split in task.splits}
    if isinstance(objective, Multilabel):
        if not scorable.get("train"):
            raise ValueError(
                f"no target of {task.name} has labels of both classes among its "
                f"{len(task.splits['train']):,} training molecules; give more molecules, or "
                "another split: a random one deals each class to all of its parts"
            )
        if not scorable.get("valid"):
            objective = ScoredByLoss(objective)
            scorable = {s: bool(_targets(task, s).isfinite().any()) for s in task.splits}
    for split in ("train", "valid"):
        if not scorable.get(split):
            raise ValueError(
                f"split {split!r} of {task.name} has no molecule with a label; give more "
                "molecules or another split"
            )
    splits = {s: rows for s, rows in task.splits.items() if s != CALIBRATION and scorable[s]}
    return replace(task, objective=objective, splits=splits)


def scored_targets(task: Task, split: str) -> Tensor:
    """Whether each target can be scored on a split: has both classes, or any number; bool (t,)."""
    y = _targets(task, split)
    if isinstance(task.objective, Multilabel):
        return (y == 0).any(0) & (y == 1).any(0)
    return (~y.isnan()).any(0)


def unscored_targets(task: Task) -> dict[str, list[str]]:
    """Names of the targets that cannot be scored, by split."""
    return {
        split: [
            name
            for name, is_scored in zip(
                task.target_names, scored_targets(task, split).tolist(), strict=True
            )
            if not is_scored
        ]
        for split in task.splits
        if split != CALIBRATION
    }


def _targets(task: Task, split: str) -> Tensor:
    """Targets of a split's molecules, float32 (n, t)."""
    return _molecules(task).targets[task.splits[split]].float()


def _molecules(task: Task) -> Molecules:
    assert isinstance(task.examples, Molecules)
    return task.examples


@dataclass(frozen=True)
class _Member:
    """A finetuned network, the tau it started from, its logits and validation score."""

    tau: int
    network: Network
    logits: dict[str, Tensor]
    valid: float


def _read_members(folder: RunFolder, spec: NetworkSpec, task: Task) -> list[_Member]:
    """Members that a run has written, best validating first; without any, its chosen network."""
    chosen = folder.read_json("summary.json")["chosen_tau"]
    paths = sorted((folder.path / "members").glob("*.safetensors"))
    members = []
    for path in paths or [folder.path / "model.safetensors"]:
        file, network = read_weights(path), spec.network()
        network.load_state_dict(file.tensors)
        predicted = {s: predict(network, task, s) for s in task.splits if s != "train"}
        valid = task.objective.score(predicted["valid"].logits, predicted["valid"].targets)
        logits = {split: one.logits for split, one in predicted.items()}
        members.append(_Member(file.about["tau"] if paths else chosen, network, logits, valid))
    return [members[i] for i in ranked([member.valid for member in members])]


def _best_together(members: list[_Member], task: Task) -> list[_Member]:
    """The first of the members, as many as validate best together (Caruana et al., 2004).

    Networks that were finetuned shortly, or from a poor head, would do harm.
    """
    targets = task.examples.take(task.rows("valid")).targets.cpu()
    scores = [
        task.objective.score(_mean_logits(members[:k], "valid"), targets)
        for k in range(1, len(members) + 1)
    ]
    return members[: 1 + highest(scores)]


def _mean_logits(members: Sequence[_Member], split: str) -> Tensor:
    return torch.stack([member.logits[split] for member in members]).mean(0)


def _held_out(
    members: Sequence[_Member], task: Task, fingerprints: NDArray[np.uint8]
) -> dict[str, HeldOut]:
    """Predictions of the ensemble for every split but the training split."""
    molecules, neighbours = _molecules(task), Neighbours(unpack_bits(fingerprints))
    held = {}
    for split, rows in task.splits.items():
        if split == "train" or not len(rows):
            continue
        logits = torch.stack([predict(m.network, task, split).logits for m in members]).mean(0)
        queries = packed_fingerprints([molecules.smiles[row] for row in rows.tolist()])
        similarity, _ = neighbours.nearest(unpack_bits(queries))
        held[split] = HeldOut(logits, _targets(task, split), similarity)
    return held


def _about(folder: RunFolder, members: list[_Member]) -> Json:
    summary = folder.read_json("summary.json")
    keys = ("task", "method", "metric", "seed", "chosen_tau", "parameters")
    return {
        **{key: summary[key] for key in keys},
        "encoder_weights": Path(summary["weights"]).name,
        "members": [{"tau": member.tau, "valid": member.valid} for member in members],
        "branches": [{key: row[key] for key in ("tau", "energy")} for row in summary["branches"]],
    }


def holdout_split(
    smiles: Sequence[str],
    how: Holdout,
    *,
    validation: float,
    seed: int,
    labels: Tensor | None = None,
) -> dict[str, Tensor]:
    """Rows of "train", "valid" and "calibration"; unreadable molecules are in none.

    Nothing is chosen by calibration molecules: prediction sets are fitted to them. Where molecules
    (`calibration_share`) or their scaffolds (`scaffold_split`) are too few, there is no such split.

    Args:
        smiles: (n,).
        how: "scaffold" holds out rare scaffolds, "random" draws molecules.
        validation: share of molecules, between 0 and 1.
        seed: of the random split.
        labels: (n, t) of 0, 1 or NaN, to stratify a random split by; None for a regression.

    Raises:
        ValueError: the share is out of range, or leaves a split empty.
    """
    if not 0 < validation < 1:
        raise ValueError(f"validation should be a share between 0 and 1, got {validation}")
    fractions = (1 - validation, 0.0, validation)
    readable = load_or_pack(smiles).readable.nonzero().flatten()
    calibration = calibration_share(max(len(readable), 1))
    calibration = calibration if calibration < 1 - validation else 0.0
    parts = molecule_splits(
        smiles,
        how,
        seed,
        rows=readable,
        fractions=fractions,
        calibration=calibration,
        labels=labels,
    )
    splits = {"train": parts["train"], "valid": parts["test"]}
    for split, rows in splits.items():
        if not len(rows):
            raise ValueError(
                f"{len(smiles):,} molecules leave none to {split}; give more, or an eval_set"
            )
    held = parts.get(CALIBRATION)
    return splits if held is None or not len(held) else {**splits, CALIBRATION: held}
