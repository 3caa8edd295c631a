"""A run's config: nested dictionaries in, checked values out.

What a key may be is read off the signatures of the catalog and of `Phase`, so that no option has a
second definition here. A key is used, or is an error (see `config.used_keys`).
"""

import inspect
import logging
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

from molhpft.config.changes import SWEEP, parse_changes, read_config, spelled_out
from molhpft.config.measures import NAMES
from molhpft.config.options import Options, Parameters, checked, keywords, unknown
from molhpft.config.registry import HEADS, SECTIONS
from molhpft.config.used_keys import (
    FINETUNE_KEYS,
    PROBE_KEYS,
    UsedKeys,
    has_batch_norm,
    stage_name,
    unused_in_method,
    unused_message,
    used_keys,
)
from molhpft.core.annotations import Count, Seed, Whole
from molhpft.core.few_labels import recorded
from molhpft.domains.molecules.checkpoints import fitting_encoder
from molhpft.domains.molecules.featurized import Reading
from molhpft.domains.shipped import DEFAULT_ENCODER
from molhpft.domains.weights import read_weights, weight_file
from molhpft.tuning.phase import MOMENTUM, Phase

_log = logging.getLogger(__name__)

RECORDED = ("measures", "features", "members")
"""Keys that decide what a run measures and writes; they change no score."""

MACHINE = ("device", "devices", "nodes", "checkpoint")
"""Keys that decide where a run is made and what an interruption costs."""

BESIDE = "beside"
"""The option of a head that names what it reads of molecules beside the features."""

DEFAULTS: Options = {
    "encoder": {"weights": DEFAULT_ENCODER},
    "head": {"name": "linear"},
    "method": {"name": "hp_ft", "tau": [0, 1, 4, 16, 50, 200]},
    "probe": {"epochs": 200, "lr": 1e-3},
    "finetune": {"epochs": 20, "lr": 1e-3, "keep": "best"},
}

PRESETS: dict[str, dict[str, Options]] = {
    "paper": {
        "probe": {"epochs": 200, "lr": 0.01, "batch_size": 128, "optimizer": "sgd"},
        "finetune": {
            "epochs": 200,
            "lr": 0.01,
            "batch_size": 128,
            "optimizer": "sgd",
            "schedule": "cosine",
            "keep": "best",
            "patience": 20,
        },
    }
}
"""Settings of `probe` and `finetune` by one word: `finetune: paper`, or `{name: paper, lr: 0.1}`.

"paper" is that of Ren et al. (2023): SGD with momentum, batches of 128, at most 200 epochs of each
phase, and of finetuning a cosine and early stopping. Rates and patience are ours: copies of the
paper have lost the first and do not give the second. The probe's rate is constant, so that heads of
every tau lie on one trajectory.
"""


@dataclass(frozen=True)
class Choice:
    """An entry of the catalog with every option filled in."""

    name: str
    options: Options


@dataclass(frozen=True)
class RunConfig:
    """A whole run, as data: what decides its result, what it records and where it is made.

    Attributes:
        task: what to learn.
        encoder: the backbone; its option `weights` is the file to start from, or the name of a
            shipped encoder; None for random. A config without an encoder starts from
            `DEFAULT_ENCODER`; weights without a name mean the encoder that they are of, a name
            without weights a random one.
        head: what stands on the backbone; with `beside` it reads counts of substructures (morgan,
            atom_pairs, torsions) or properties of molecules as well (`core/beside.py`).
        method: how both are trained.
        probe: how a head alone is trained, where the method does not say.
        finetune: how everything is trained, where the method does not say.
        seed: of every random number.
        device: "auto" takes a GPU where there is one.
        devices: processes that share every batch on a machine, one a GPU or CPU; `torchrun` and
            `srun` set it themselves.
        nodes: machines, each with that many processes.
        precision: of finetuning's products: 32, "bf16-mixed" with sums in float32, or "auto",
            which takes bfloat16 for graph encoders on processors that have units for it.
        checkpoint: optimizer steps between two saves within an epoch; None saves after epochs
            only, at most every ten seconds. It changes no result, only what an interruption costs.
        cut: name of the stage from which on the backbone is re-initialised and counted as head (a
            partial backbone); None keeps all of it. A block of a ResNet may be called as in the
            paper, L4.3 for layer4.2.
        standardise: whether the head reads features of mean 0 and standard deviation 1 over the
            training split, by the encoder as it is before training (`core/standardise.py`).
        views: how the head sees augmented examples while it is probed: 0 for the features of the
            plain examples, a number of cached views of each, or "live" for a forward pass every
            epoch. Heads that read more than features are probed live, and take no number of views.
        measures: what to measure beside energy, scores and shift; see `measures.NAMES`.
        features: whether to write the features before and after finetuning.
        members: whether to write every finetuned network, one per tau, as an ensemble; those that
            `tau: auto` abandoned are among them.
    """

    task: Choice
    encoder: Choice
    head: Choice
    method: Choice
    probe: Phase
    finetune: Phase
    seed: Seed = 0
    device: Literal["auto", "cpu", "cuda"] = "auto"
    devices: Count = 1
    nodes: Count = 1
    precision: Literal["auto", 32, "bf16-mixed"] = "auto"
    checkpoint: Count | None = None
    cut: str | None = None
    standardise: bool = False
    views: Whole | Literal["live"] = 0
    measures: tuple[str, ...] = ()
    features: bool = False
    members: bool = False


@dataclass(frozen=True)
class Reader:
    """A command that reads a part of a run's config.

    Attributes:
        name: of the command.
        keys: that it reads: whole sections ("task"), or single keys of them ("finetune.lr").
        probes: whether it probes a head even where the method does not.
    """

    name: str
    keys: tuple[str, ...]
    probes: bool = False

    def check(self, changed: Collection[str]) -> None:
        """Refuse changes to keys that this command does not read.

        Raises:
            ValueError: there is one among them.
        """
        for key in changed:
            if not is_among(key, self.keys):
                raise ValueError(
                    f"{self.name} does not read {key}; it reads {', '.join(self.keys)}"
                )


def load_config(
    path: Path, changes: Sequence[str] = (), *, reader: Reader | None = None
) -> RunConfig:
    """Read a config file, apply changes, check it.

    No key is ignored: it is used or is an error. Keys of the file that a change makes useless, as
    "method=lp" does `finetune`, are dropped with a warning.

    Args:
        path: a YAML file.
        changes: "key=value" with dots between nested keys; the value is read as YAML.
        reader: reads only a part of the config. The file may hold the rest, a change may not.

    Raises:
        FileNotFoundError: no such file.
        ValueError: not YAML, a key or value that no entry of the catalog knows, or a key that
            would do nothing.
    """
    raw, changed = _with_encoder(read_config(path, changes)), parse_changes(changes)
    if reader:
        reader.check(changed)
    unused, before = unused_keys(raw, reader=reader), _unused_before(path, reader)
    unread = {key for key in unused if reader and not is_among(key, reader.keys)}
    dropped = {
        key: why
        for key, why in unused.items()
        if key not in unread and key not in before and not is_among(key, changed)
    }
    if dropped:
        _log.warning("%s; left out of this run", unused_message(dropped))
    return parse_config(without(raw, {*unread, *dropped}), reader=reader)


def parse_config(
    raw: Mapping[str, Any],
    *,
    task: Choice | None = None,
    defaults: Options = DEFAULTS,
    unused_are: Literal["refused", "dropped"] = "refused",
    reader: Reader | None = None,
) -> RunConfig:
    """Check a config given as nested dictionaries and fill in every default.

    Args:
        raw: what a file would hold.
        task: a task that is given to the run as it is, and is in no catalog.
        defaults: of keys that are not given.
        unused_are: what becomes of keys that would do nothing; "dropped" suits one template for
            several runs.
        reader: reads only a part of the config; it may use keys that a run does not.

    Raises:
        ValueError: the first key or value that does not fit, with what would, or a key that would
            do nothing, with the reason.
    """
    # before the weights are left out, which may be all that says which encoder is meant
    raw = _with_encoder(raw)
    unused = unused_keys(raw, task=task, defaults=defaults, reader=reader)
    if unused and unused_are == "refused":
        it = "it" if len(unused) == 1 else "them"
        raise ValueError(f"{unused_message(unused)}; leave {it} out")
    config = _parsed(without(raw, unused), task, defaults)
    if _used(config).weights:
        return config
    options = {**config.encoder.options, "weights": None}
    return replace(config, encoder=Choice(config.encoder.name, options))


def unused_keys(
    raw: Mapping[str, Any],
    *,
    task: Choice | None = None,
    defaults: Options = DEFAULTS,
    reader: Reader | None = None,
) -> dict[str, str]:
    """Keys of a config that would do nothing in its run, dotted, each with the reason.

    Arguments are those of `parse_config`.

    Raises:
        ValueError: a key or value does not fit.
    """
    config = _parsed(raw, task, defaults)
    method, probes = config.method, reader is not None and reader.probes
    reasons = unused_in_method(
        method.name, method.options, probe=config.probe, finetune=config.finetune, probes=probes
    )
    finetune = config.finetune
    encoder, asked = config.encoder, finetune.batch_norm == "frozen" or finetune.running_statistics
    if asked and not has_batch_norm(encoder.name, _shape(encoder), config.cut):
        why = f"encoder {encoder.name} has no batch norm below its head"
        for key in ("finetune.batch_norm", "finetune.running_statistics"):
            reasons.setdefault(key, why)
    read = reader.keys if reader else ()
    return {k: reasons[k] for k in given_keys(raw) if k in reasons and k not in read}


def given_keys(raw: Mapping[str, Any]) -> list[str]:
    """Dotted keys that a config gives, of those that may do nothing in some run."""
    keys = []
    for section in ("probe", "finetune"):
        given = spelled_out(raw.get(section))
        keys += [f"{section}.{key}" for key in given] if isinstance(given, Mapping) else []
    encoder = raw.get("encoder")
    if isinstance(encoder, Mapping) and encoder.get("weights") is not None:
        keys.append("encoder.weights")
    keys += [key for key in ("views", "checkpoint") if raw.get(key)]
    return [*keys, *(["precision"] if raw.get("precision", "auto") != "auto" else [])]


def finetunes(config: RunConfig) -> bool:
    """Whether a run finetunes anything."""
    return _used(config).finetunes


def without(raw: Mapping[str, Any], keys: Collection[str]) -> Options:
    """A copy of an unchecked config without some dotted keys."""
    rest: Options = {}
    for key, value in raw.items():
        inner = {k.partition(".")[2] for k in keys if k.startswith(f"{key}.")}
        value = spelled_out(value) if inner else value
        if key not in keys:
            rest[key] = {k: v for k, v in value.items() if k not in inner} if inner else value
    return rest


def resolved(config: RunConfig) -> Options:
    """The config as plain nested dictionaries, from which `parse_config` gives it back.

    Of `probe` and `finetune` only the keys that are used are among them.
    """
    used = _used(config)
    choices = {key: getattr(config, key) for key in SECTIONS}
    phases = {"probe": used.probe, "finetune": used.finetune}
    return {
        **{key: {"name": c.name, **plain(c.options)} for key, c in choices.items()},
        **{
            section: plain({k: v for k, v in asdict(getattr(config, section)).items() if k in keys})
            for section, keys in phases.items()
            if keys
        },
        **plain({key: getattr(config, key) for key in _scalars()}),
    }


def checked_choice(section: str, value: Any) -> Choice:
    """An entry of a section of the catalog, every option checked and filled in.

    Args:
        section: "task", "encoder", "head" or "method".
        value: the entry's name, or a dictionary of its `name` and options. An encoder's name and
            shape may be left to its `weights`; options that are given go before those of the file.

    Raises:
        FileNotFoundError: an encoder without a name has weights that are not there.
        ValueError: the section has no such entry, or the entry no such option, or no encoder takes
            the weights.
    """
    value = spelled_out(value)
    value = _recognised(value) if section == "encoder" else value
    if not isinstance(value, Mapping) or not isinstance(value.get("name"), str):
        raise ValueError(f"{section} must be a name, or keys with a name among them, got {value!r}")
    entries = SECTIONS[section]
    name = value["name"]
    if name not in entries:
        raise ValueError(unknown(name, list(entries), section))
    parameters = {"name": _option("name", str), **keywords(entries[name])}
    if section == "encoder":
        parameters["weights"] = _option("weights", Path | None, default=None)
    if section == "head" and HEADS[name].reads == "vectors":
        parameters[BESIDE] = _option(BESIDE, tuple[Reading, ...], default=())
    options = checked(section, parameters, dict(value))
    del options["name"]
    choice = Choice(name, recorded(options) if section == "task" else options)
    return _checked_beside(choice) if section == "head" else choice


def _option(
    name: str, annotation: Any, *, default: Any = inspect.Parameter.empty
) -> inspect.Parameter:
    """An option that entries of a section have beside the keywords of their own."""
    keyword = inspect.Parameter.KEYWORD_ONLY
    return inspect.Parameter(name, keyword, default=default, annotation=annotation)


def beside_of(head: Choice) -> tuple[Reading, ...]:
    """What a head reads of molecules beside the features."""
    kinds: tuple[Reading, ...] = head.options.get(BESIDE, ())
    return kinds


def without_beside(head: Choice) -> Choice:
    """The head as it is where it reads features alone, with the options of its own."""
    return Choice(head.name, {k: v for k, v in head.options.items() if k != BESIDE})


def _checked_beside(head: Choice) -> Choice:
    """A head that reads features alone is recorded as it was before it could read more."""
    kinds = beside_of(head)
    if len(set(kinds)) < len(kinds):
        raise ValueError(f"head.beside should name each of its readings once, got {list(kinds)}")
    return head if kinds else without_beside(head)


def _with_encoder(raw: Mapping[str, Any]) -> Options:
    return {**raw, "encoder": _recognised(raw["encoder"])} if "encoder" in raw else dict(raw)


def _recognised(encoder: Any) -> Any:
    """An encoder's keys with the name and shape that its weight file says, if they have no name."""
    if not isinstance(encoder, Mapping) or "name" in encoder:
        return encoder
    weights = encoder.get("weights")
    if not isinstance(weights, str | Path):
        return encoder
    file = weight_file(Path(weights))
    return {**_fitting(file, file.stat().st_mtime_ns if file.is_file() else None), **encoder}


@lru_cache(maxsize=8)
def _fitting(file: Path, changed: int | None) -> Options:
    """`fitting_encoder` of a file as it is since `changed`: a sweep asks for each of its runs."""
    return fitting_encoder(read_weights(file))


def _parsed(raw: Mapping[str, Any], task: Choice | None, defaults: Options) -> RunConfig:
    """Every key checked by itself, whether it is used or not."""
    fields = inspect.signature(RunConfig).parameters
    for key in raw:
        if key == SWEEP:
            raise ValueError("sweep lists runs; `molhpft sweep` takes such a config")
        if key not in fields:
            valid = [name for name in fields if name != "task" or task is None]
            phases = {"finetune": FINETUNE_KEYS, "probe": PROBE_KEYS}
            inner = [f"{phase}.{key}" for phase, keys in phases.items() if key in keys]
            raise ValueError(unknown(str(key), [*inner, *valid]))
    if "task" in raw and task is not None:
        raise ValueError(f"the task is given already ({task.name}); leave task out of the config")
    if "task" not in raw and task is None:
        raise ValueError(
            f"missing key task; for example task: {{name: {next(iter(SECTIONS['task']))}}}"
        )
    merged = {**defaults, **raw}
    scalars = _checked_scalars(raw)
    given: Options = {"task": task} if task else {}
    named = (key for key in SECTIONS if key not in given)
    choices: Options = given | {key: checked_choice(key, merged[key]) for key in named}
    if scalars["cut"] is not None:
        encoder: Choice = choices["encoder"]
        scalars["cut"] = stage_name(encoder.name, _shape(encoder), scalars["cut"])
    return RunConfig(
        **choices,
        probe=_phase("probe", "head", merged["probe"], defaults),
        finetune=_phase("finetune", "all", merged["finetune"], defaults),
        **scalars,
    )


def _checked_scalars(raw: Mapping[str, Any]) -> Options:
    """The keys that are no sections, with defaults filled in."""
    scalars = checked("", _scalars(), {k: v for k, v in raw.items() if k in _scalars()})
    for name in scalars["measures"]:
        if name not in NAMES:
            raise ValueError(unknown(name, list(NAMES), "measure"))
    return scalars


def _shape(encoder: Choice) -> tuple[tuple[str, Any], ...]:
    """Options that decide an encoder's stages."""
    return tuple((k, v) for k, v in encoder.options.items() if k != "weights")


def _phase(section: str, trains: Literal["head", "all"], value: Any, defaults: Options) -> Phase:
    value = spelled_out(value)
    if not isinstance(value, Mapping):
        raise ValueError(
            f"{section} must be keys such as epochs and lr, got {value!r}; or the name of a "
            f"preset: {', '.join(PRESETS)}"
        )
    parameters = keywords(Phase)
    del parameters["trains"]
    options = checked(section, parameters, {**defaults[section], **_preset(section, value)})
    # what does not fit such a phase is unused, see `unused_keys`
    options = {key: options[key] for key in (PROBE_KEYS if trains == "head" else FINETUNE_KEYS)}
    if options["optimizer"] != "sgd":
        options["momentum"] = MOMENTUM
    if options.get("adapter_rank") is None:
        options.pop("adapter_scaling", None)
    try:
        return Phase(trains=trains, **options)
    except ValueError as error:
        raise ValueError(f"{section}: {error}") from error


def _preset(section: str, value: Mapping[str, Any]) -> Options:
    """The keys of a phase, those of the preset that it names among them."""
    own = {key: one for key, one in value.items() if key != "name"}
    if "name" not in value:
        return own
    if value["name"] not in PRESETS:
        raise ValueError(unknown(str(value["name"]), list(PRESETS), f"preset of {section}"))
    return {**PRESETS[value["name"]][section], **own}


def _used(config: RunConfig) -> UsedKeys:
    method = config.method
    return used_keys(method.name, method.options, probe=config.probe, finetune=config.finetune)


def _unused_before(path: Path, reader: Reader | None) -> dict[str, str]:
    """Keys of a file that would do nothing even without the changes."""
    try:
        raw = read_config(path)
        task = None if "task" in raw else Choice("any", {})
        return unused_keys(raw, task=task, reader=reader)
    except (ValueError, FileNotFoundError):
        return {}  # it is no whole config before the changes


def is_among(key: str, keys: Collection[str]) -> bool:
    """Whether a dotted key is one of `keys`, or in a group that is."""
    return any(key == one or key.startswith(f"{one}.") for one in keys)


@lru_cache
def _scalars() -> Parameters:
    parameters = inspect.signature(RunConfig, eval_str=True).parameters
    return {k: p for k, p in parameters.items() if p.default is not inspect.Parameter.empty}


def plain(options: Options) -> Options:
    """Options as YAML writes them: paths as text, tuples as lists."""
    return {key: _plain(value) for key, value in options.items()}


def _plain(value: Any) -> Any:
    if isinstance(value, tuple):
        return [_plain(one) for one in value]
    return str(value) if isinstance(value, Path) else value
