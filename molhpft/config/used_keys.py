"""Which keys of a config a run uses: one that would do nothing is an error.

What a method does with its templates is not declared a second time for that, but tried: it is given
two templates that differ in every setting, and a setting is used where the resulting phases differ.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields
from functools import lru_cache

import torch
from torch.nn.modules.batchnorm import _BatchNorm

from molhpft.config.options import Options
from molhpft.config.registry import ENCODERS, METHODS
from molhpft.core.network import Chain
from molhpft.domains.files import listed
from molhpft.tuning.phase import OF_BACKBONE, Phase

_PROBE_PAIR = (
    Phase(
        trains="head",
        epochs=1,
        lr=0.1,
        batch_size=1,
        optimizer="sgd",
        schedule="cosine",
        warmup=0.1,
        weight_decay=0.1,
        smoothing=0.1,
        perturbation=0.1,
        momentum=0.1,
    ),
    Phase(
        trains="head",
        epochs=2,
        lr=0.2,
        batch_size=2,
        warmup=0.2,
        weight_decay=0.2,
        smoothing=0.2,
        perturbation=0.2,
    ),
)
_FINETUNE_PAIR = (
    Phase(
        trains="all",
        epochs=1,
        lr=0.1,
        backbone_lr=0.1,
        batch_size=1,
        optimizer="sgd",
        schedule="cosine",
        warmup=0.1,
        weight_decay=0.1,
        smoothing=0.1,
        layer_decay=0.1,
        momentum=0.1,
        stages=("one",),
        unfreeze_every=1,
        anchor=0.1,
        head_penalty=0.1,
        stage_anchor=0.1,
        feature_anchor=0.1,
        spectral_shrinkage=0.1,
        node_transport=0.1,
        adapter_rank=1,
        adapter_scaling=0.1,
        batch_norm="frozen",
        keep="best",
        patience=1,
    ),
    Phase(
        trains="all",
        epochs=2,
        lr=0.2,
        backbone_lr=0.2,
        batch_size=2,
        warmup=0.2,
        weight_decay=0.2,
        smoothing=0.2,
        layer_decay=0.2,
        stages=("other",),
        unfreeze_every=2,
        anchor=0.2,
        head_penalty=0.2,
        stage_anchor=0.2,
        feature_anchor=0.2,
        spectral_shrinkage=0.2,
        node_transport=0.2,
        running_statistics=0.2,
        adapter_rank=2,
        adapter_scaling=0.2,
        patience=2,
    ),
)


def _differing_keys(one: Phase, other: Phase) -> tuple[str, ...]:
    names = (field.name for field in fields(Phase))
    return tuple(name for name in names if getattr(one, name) != getattr(other, name))


# keys of a probe: the rest of a phase is of the backbone, or would leave no head after tau epochs
PROBE_KEYS = _differing_keys(*_PROBE_PAIR)
# keys of finetuning: the rest is of a head that is trained alone
FINETUNE_KEYS = _differing_keys(*_FINETUNE_PAIR)
_KEYS_OF = {
    "probe": (
        PROBE_KEYS,
        "a probe trains the head alone and keeps it as it is after tau epochs",
    ),
    "finetune": (FINETUNE_KEYS, "it is of a head that is trained alone (probe)"),
}

# settings that options of other names decide as well
_DECIDED_BY = {
    "batch_norm": ("running_statistics", "adapter_rank"),
    "running_statistics": ("adapter_rank",),
    "adapter_scaling": ("adapter_rank",),
}
# settings of a backbone that is trained; adapters of rank 0 leave it as it is
_OF_TRAINED_BACKBONE = frozenset(OF_BACKBONE) - {"adapter_rank"}
# of a head that is looked at along its probe they would say where the probe ends
SCHEDULE_KEYS = ("schedule", "warmup")


@dataclass(frozen=True)
class UsedKeys:
    """Which parts of a config a method uses.

    Attributes:
        probe: keys of the probe template.
        finetune: keys of the finetuning template.
        finetunes: whether anything is finetuned.
        weights: whether the encoder starts from its weights.
        trains_head: whether a head is trained on features.
    """

    probe: frozenset[str]
    finetune: frozenset[str]
    finetunes: bool
    weights: bool
    trains_head: bool


def used_keys(
    method: str, options: Options, *, probe: Phase, finetune: Phase, probes: bool = False
) -> UsedKeys:
    """What a run of a method uses.

    Args:
        method: its name.
        options: its own, checked.
        probe: the config's; with 0 epochs no other key of it matters.
        finetune: the config's, likewise.
        probes: whether a head is probed even where the method itself does not.

    Raises:
        ValueError: the method cannot have these options, or has some of the backbone's training
            where `finetune` trains nothing of it.
    """
    _check_backbone_trained(method, options, finetune)
    build = METHODS[method]
    first, second = (
        build(*pair, **options) for pair in zip(_PROBE_PAIR, _FINETUNE_PAIR, strict=True)
    )
    pairs = list(zip(first, second, strict=True))
    probed = [(a.probe, b.probe) for a, b in pairs if probes or a.probe.epochs]
    tuned = [both for a, b in pairs for both in zip(a.after, b.after, strict=True)]
    trained = _differing(probed, probe) & {*PROBE_KEYS}
    if probes or first[0].chooses:
        trained -= {*SCHEDULE_KEYS}
    has_epochs = "epochs" not in trained or probe.epochs > 0
    of_tuning = _differing(tuned, finetune)
    if _adapter_rank(options, finetune) == 0:
        of_tuning -= _OF_TRAINED_BACKBONE
    return UsedKeys(
        probe=trained,
        finetune=of_tuning,
        finetunes=bool(of_tuning) and finetune.epochs > 0,
        weights=first[0].pretrained,
        trains_head=bool(probed) and has_epochs,
    )


def unused_in_method(
    method: str, options: Options, *, probe: Phase, finetune: Phase, probes: bool = False
) -> dict[str, str]:
    """Dotted keys that a run of a method does not use, each with the reason.

    Arguments are those of `used_keys`. Covers the keys of `probe` and `finetune`, and those beside
    them that need a phase the method does not have.
    """
    used = used_keys(method, options, probe=probe, finetune=finetune, probes=probes)
    tau = options.get("tau")
    with_tau = f" with tau {', '.join(map(str, tau)) if isinstance(tau, tuple) else tau}"
    name = f"{method}{with_tau}" if "tau" in options else method
    reasons: dict[str, str] = {}
    for section, keys, phase, lacks in (
        ("probe", used.probe, probe, f"method {name} probes no head"),
        ("finetune", used.finetune, finetune, f"method {name} does not finetune"),
    ):
        if not keys:
            reasons[f"{section}.name"] = lacks
        for key in (field.name for field in fields(Phase) if field.name != "trains"):
            if key not in keys:
                why = _why(section, key, options, phase) if keys else lacks
                reasons[f"{section}.{key}"] = why
    if not used.weights:
        reasons["encoder.weights"] = f"method {name} starts from random weights"
    if not used.trains_head:
        reasons["views"] = f"method {name} trains no head on features"
    if not used.finetunes:
        reasons |= dict.fromkeys(("checkpoint", "precision"), "nothing is finetuned")
    return reasons


def unused_message(reasons: Mapping[str, str]) -> str:
    """Which keys would do nothing, and why: "finetune.lr would do nothing: method lp ..."."""
    by_reason: dict[str, list[str]] = {}
    for key, why in reasons.items():
        by_reason.setdefault(why, []).append(key)
    return "; ".join(f"{listed(keys)} would do nothing: {why}" for why, keys in by_reason.items())


@lru_cache
def has_batch_norm(encoder: str, options: tuple[tuple[str, object], ...], cut: str | None) -> bool:
    """Whether a backbone has batch norm, found out without allocating its weights.

    Raises:
        ValueError: the encoder has no such stage to cut at.
    """
    backbone = _weightless(encoder, options)
    lower = backbone if cut is None else backbone.split(cut)[0]
    return any(isinstance(module, _BatchNorm) for module in lower.modules())


@lru_cache
def stage_name(encoder: str, options: tuple[tuple[str, object], ...], given: str) -> str:
    """The own name of an encoder's stage, which papers may give another one.

    Raises:
        ValueError: the encoder has no such stage.
    """
    return _weightless(encoder, options).stage_name(given)


def _weightless(encoder: str, options: tuple[tuple[str, object], ...]) -> Chain:
    with torch.device("meta"):
        return ENCODERS[encoder].build(**dict(options))


def _check_backbone_trained(method: str, options: Options, finetune: Phase) -> None:
    idle = [f"method.{key}" for key in options if key in _OF_TRAINED_BACKBONE]
    if idle and finetune.adapter_rank == 0 and "adapter_rank" not in options:
        raise ValueError(
            f"{listed(idle)} would do nothing: finetune.adapter_rank is 0, so that nothing of the "
            f"backbone is trained; leave finetune.adapter_rank out, or take another method than "
            f"{method}"
        )


def _adapter_rank(options: Options, finetune: Phase) -> int | None:
    rank: int | None = options.get("adapter_rank", finetune.adapter_rank)
    return rank


def _differing(pairs: Iterable[tuple[Phase, Phase]], own: Phase) -> frozenset[str]:
    """Settings in which phases differ that were made of templates that differ in every setting."""
    names = {name for pair in pairs for name in _differing_keys(*pair)}
    if own.optimizer != "sgd":
        names.discard("momentum")
    if own.adapter_rank is None:
        names.discard("adapter_scaling")
    if "epochs" in names and not own.epochs:
        names = {"epochs"}
    return frozenset(names)


def _why(section: str, key: str, options: Options, phase: Phase) -> str:
    keys, otherwise = _KEYS_OF[section]
    if key not in keys:
        return otherwise
    if section == "probe" and key in SCHEDULE_KEYS:
        return "heads are chosen along one probe, whatever its length, and a schedule needs its end"
    if nothing_trained := _why_of_backbone(key, options, phase):
        return nothing_trained
    for option in (key, *_DECIDED_BY.get(key, ())):
        if option in options:
            return f"method.{option} decides it"
    if (section, key) == ("probe", "epochs"):
        return "method.tau says how long the head is probed"
    if key == "momentum" and phase.optimizer != "sgd":
        return f"optimizer {phase.optimizer} has no such momentum (sgd has)"
    return f"{section}.epochs is 0"


def _why_of_backbone(key: str, options: Options, finetune: Phase) -> str | None:
    """Why a setting of the backbone does nothing, if that is for the rank of adapters."""
    if key in _OF_TRAINED_BACKBONE and _adapter_rank(options, finetune) == 0:
        place = "method" if "adapter_rank" in options else "finetune"
        return f"{place}.adapter_rank is 0, so that nothing of the backbone is trained"
    if key == "adapter_scaling" and _adapter_rank(options, finetune) is None:
        return "there are no adapters without finetune.adapter_rank"
    return None
