"""A run's config: YAML in, checked values out.

What a key may be is read off the signatures of the catalog and of `Phase`, so that no option has a
second definition here.
"""

import inspect
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import yaml

from molhpft.experiments.catalog import SECTIONS
from molhpft.experiments.changes import apply, parse_change
from molhpft.experiments.measures import NAMES
from molhpft.experiments.options import Options, Parameters, checked, keywords, unknown
from molhpft.tuning.phase import Phase

RECORDED = ("measures", "features", "members")
"""Keys that say what a run keeps of what it finds; they change no score."""

MACHINE = ("device", "devices", "nodes", "checkpoint")
"""Keys that say where a run is made and what an interruption costs."""

DEFAULTS: Options = {
    "encoder": {"name": "gcn", "weights": "gcn_muv"},
    "head": {"name": "linear"},
    "method": {"name": "hp_ft", "tau": [0, 1, 4, 16, 50, 200]},
    "probe": {"epochs": 200, "lr": 1e-3},
    "finetune": {"epochs": 20, "lr": 1e-3, "keep": "best"},
}


@dataclass(frozen=True)
class Choice:
    """An entry of the catalog with every option filled in."""

    name: str
    options: Options


@dataclass(frozen=True)
class RunConfig:
    """Everything that decides the result of a run.

    Attributes:
        task: what to learn.
        encoder: the backbone; its option `weights` is the file to start from, or the name of a
            shipped encoder; None for random. A config without an encoder starts from a shipped
            one; an encoder that is named without weights is random.
        head: what stands on the backbone.
        method: how both are trained.
        probe: how a head alone is trained, where the method does not say.
        finetune: how everything is trained, where the method does not say.
        seed: of every random number.
        device: "auto" takes a GPU where there is one.
        devices: processes that share every batch on a machine, one a GPU or CPU; `torchrun` and
            `srun` say it themselves.
        nodes: machines, each with that many.
        precision: of products: 32, "bf16-mixed" with sums in float32, or "auto", which takes
            bfloat16 for graph encoders on processors that have units for it.
        checkpoint: steps between two savings of a phase under way, beside those after an epoch;
            None for those only. It decides nothing but what an interruption costs.
        cut: name of the stage from which on the backbone is re-initialised and counted as head (a
            partial backbone); None keeps all of it.
        views: what the head sees of augmented examples while it is probed: 0 for features of them
            as they are, a number of cached views of each, or "live" for a forward pass an epoch.
            Heads that read more than features are probed live anyway.
        measures: what to measure beside energy, scores and shift; see `measures.NAMES`.
        features: whether to keep the features before and after finetuning.
        members: whether to keep the network of every tau that was finetuned from, those that
            `tau: auto` did not finish among them: an ensemble.
    """

    task: Choice
    encoder: Choice
    head: Choice
    method: Choice
    probe: Phase
    finetune: Phase
    seed: int = 0
    device: Literal["auto", "cpu", "cuda"] = "auto"
    devices: int = 1
    nodes: int = 1
    precision: Literal["auto", 32, "bf16-mixed"] = "auto"
    checkpoint: int | None = None
    cut: str | None = None
    views: int | Literal["live"] = 0
    measures: tuple[str, ...] = ()
    features: bool = False
    members: bool = False


def load_config(path: Path, changes: Sequence[str] = ()) -> RunConfig:
    """Read a config file, apply changes, check it.

    Args:
        path: a YAML file.
        changes: "key=value" with dots between nested keys; the value is read as YAML.

    Raises:
        FileNotFoundError: no such file.
        ValueError: not YAML, or a key or value that no entry of the catalog knows.
    """
    return parse_config(read_config(path, changes))


def read_config(path: Path, changes: Sequence[str] = ()) -> Options:
    """What a config file holds, changes applied, not yet checked; `load_config` has the rest."""
    if not path.is_file():
        raise FileNotFoundError(f"no config at {path}; give a YAML file such as configs/finetune/*")
    try:
        raw = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} is not YAML: {' '.join(str(error).split())}") from error
    if not isinstance(raw, dict):
        raise ValueError(f"{path} must hold keys such as task and method, got {raw!r:.60}")
    for change in changes:
        apply(raw, *parse_change(change))
    return raw


def parse_config(raw: Mapping[str, Any], *, task: Choice | None = None) -> RunConfig:
    """Check a config given as nested dictionaries and fill in every default.

    Args:
        raw: what a file would hold.
        task: stands for a task that is given to the run as it is, and is in no catalog.

    Raises:
        ValueError: the first key or value that does not fit, with what would.
    """
    fields = inspect.signature(RunConfig).parameters
    for key in raw:
        if key not in fields:
            raise ValueError(unknown(key, list(fields)))
    if "task" not in raw and task is None:
        raise ValueError(
            f"missing key task; for example task: {{name: {next(iter(SECTIONS['task']))}}}"
        )
    merged = {**DEFAULTS, **raw}
    scalars = checked("", _scalars(), {k: v for k, v in raw.items() if k in _scalars()})
    for name in scalars["measures"]:
        if name not in NAMES:
            raise ValueError(unknown(name, list(NAMES), "measure"))
    for name in ("devices", "nodes", "checkpoint"):
        if scalars[name] is not None and scalars[name] < 1:
            raise ValueError(f"{name} is at least 1, got {scalars[name]}")
    given: Options = {"task": task} if task else {}
    named = (key for key in SECTIONS if key not in given)
    choices: Options = given | {key: checked_choice(key, merged[key]) for key in named}
    return RunConfig(
        **choices,
        probe=_phase("probe", "head", merged["probe"]),
        finetune=_phase("finetune", "all", merged["finetune"]),
        **scalars,
    )


def resolved(config: RunConfig) -> Options:
    """The config as plain nested dictionaries: `parse_config` gives the same config back."""
    choices = {key: getattr(config, key) for key in SECTIONS}
    phases = {key: asdict(getattr(config, key)) for key in ("probe", "finetune")}
    return {
        **{key: {"name": c.name, **plain(c.options)} for key, c in choices.items()},
        **{key: {k: v for k, v in p.items() if k != "trains"} for key, p in phases.items()},
        **plain({key: getattr(config, key) for key in _scalars()}),
    }


def checked_choice(section: str, value: Any) -> Choice:
    """An entry of a section of the catalog, every option checked and filled in.

    Args:
        section: "task", "encoder", "head" or "method".
        value: the entry's name, or a dictionary of its `name` and options.

    Raises:
        ValueError: the section has no such entry, or the entry no such option.
    """
    value = {"name": value} if isinstance(value, str) else value
    if not isinstance(value, Mapping) or not isinstance(value.get("name"), str):
        raise ValueError(f"{section} must be a name, or keys with a name among them, got {value!r}")
    entries = SECTIONS[section]
    name, options = value["name"], {k: v for k, v in value.items() if k != "name"}
    if name not in entries:
        raise ValueError(unknown(name, list(entries), section))
    parameters = keywords(entries[name])
    if section == "encoder":
        parameters["weights"] = inspect.Parameter(
            "weights", inspect.Parameter.KEYWORD_ONLY, default=None, annotation=Path | None
        )
    return Choice(name, checked(section, parameters, options))


def _phase(section: str, trains: Literal["head", "all"], value: Any) -> Phase:
    if not isinstance(value, Mapping):
        raise ValueError(f"{section} must be keys such as epochs and lr, got {value!r}")
    parameters = keywords(Phase)
    del parameters["trains"]
    options = checked(section, parameters, {**DEFAULTS[section], **value})
    try:
        return Phase(trains=trains, **options)
    except ValueError as error:
        raise ValueError(f"{section}: {error}") from error


def _scalars() -> Parameters:
    parameters = inspect.signature(RunConfig, eval_str=True).parameters
    return {k: p for k, p in parameters.items() if p.default is not inspect.Parameter.empty}


def plain(options: Options) -> Options:
    """Options as YAML writes them: paths as text, tuples as lists."""
    return {
        key: str(value)
        if isinstance(value, Path)
        else list(value)
        if isinstance(value, tuple)
        else value
        for key, value in options.items()
    }
