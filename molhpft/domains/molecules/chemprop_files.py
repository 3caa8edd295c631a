"""Weights of chemprop 2 for our D-MPNN: whole models, and message passing alone, as CheMeleon's.

Both are a state dict beside `hyper_parameters`. A whole model also says how atoms are aggregated.
"""

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from molhpft.core.network import Chain
from molhpft.domains.molecules.chemprop_features import ATOM_FEATURES, BOND_FEATURES
from molhpft.domains.molecules.dmpnn import NORM_CONSTANT, Aggregate, Messages
from molhpft.domains.weights import WeightFile, strip_prefix

LANDMARKS = ("W_i.weight", "W_h.weight", "W_o.weight")

_PASSING, _BATCH_NORM = "message_passing.", "bn."
_AGGREGATIONS = {"MeanAggregation": "mean", "SumAggregation": "sum", "NormAggregation": "norm"}
_WHOLE = {
    "W_i.bias": "stages.embed.sent.bias",
    "W_h.weight": "stages.message.linear.weight",
    "W_h.bias": "stages.message.linear.bias",
    "W_o.bias": "stages.embed.own.bias",
}
_W_H = ("W_h.weight", "W_h.bias")
_CHEMELEON = {"depth": 6, "width": 2048}
_ACTIVATIONS = ("relu", "RELU", "ReLU")


def backbone_weights(file: WeightFile, prefix: str) -> dict[str, Tensor]:
    """Weights of a D-MPNN under the names of a backbone chain.

    Args:
        file: of chemprop.
        prefix: before the names of its message passing.

    Raises:
        ValueError: it is of a variant that `dmpnn` has no place for.
    """
    _check_variant(file, prefix)
    ours: dict[str, Tensor] = {}
    for name, tensor in strip_prefix(file.tensors, prefix).items():
        # there is a W_h at depth 1 too, where no message is left for it to read
        if name not in _W_H or _passing_settings(file)["depth"] > 1:
            ours |= _renamed(name, tensor)
    norm = _batch_norm(file, prefix)
    return ours | {f"stages.norm.module.{name}": tensor for name, tensor in norm.items()}


def dmpnn_options(file: WeightFile, prefix: str) -> dict[str, Any]:
    """What a D-MPNN of chemprop says of its shape, as the options of `dmpnn`.

    A file of message passing alone says nothing of aggregation; see `assumed_aggregation`.

    Raises:
        ValueError: it is of a variant that `dmpnn` has no place for.
    """
    _check_variant(file, prefix)
    settings, tensors = _passing_settings(file), strip_prefix(file.tensors, prefix)
    options: dict[str, Any] = {
        "depth": settings["depth"],
        "width": len(tensors["W_i.weight"]),
        "bias": "W_i.bias" in tensors,
    }
    if _batch_norm(file, prefix):
        options["batch_norm"] = True
    pooling = file.settings.get("agg", {})
    if pooling:
        options["aggregation"] = _AGGREGATIONS[pooling["cls"]]
    if options.get("aggregation") == "norm":
        options["norm_constant"] = float(pooling.get("norm", NORM_CONSTANT))
    return options


def assumed_aggregation(options: Mapping[str, Any]) -> dict[str, Any]:
    """How atoms are aggregated where a file does not say it: as chemprop does by default.

    That is the mean for CheMeleon, which is known by its depth and width, and norm for all others.

    Args:
        options: what the file says of itself.

    Returns:
        the option `aggregation`, or nothing where the file says it.
    """
    if "aggregation" in options:
        return {}
    is_chemeleon = options.items() >= _CHEMELEON.items()
    return {"aggregation": "mean" if is_chemeleon else "norm"}


def misfit(options: Mapping[str, Any], backbone: Chain) -> str | None:
    """The first option of a file's D-MPNN that a chain of the same shapes has otherwise.

    Args:
        options: what the file says of itself; what it leaves out fits.
        backbone: any chain; one of another kind fits too.
    """
    written = {
        "norm_constant": NORM_CONSTANT,
        **{k: v for k, v in options.items() if v is not None},
    }
    for name, value in _options_of(backbone).items():
        if written.get(name, value) != value:
            return f"{name} is {value} in it and {written[name]} in the file"
    return None


def _options_of(backbone: Chain) -> dict[str, Any]:
    """Options of a D-MPNN that no tensor shows."""
    options: dict[str, Any] = {}
    for stage in backbone:
        if isinstance(stage, Messages):
            options["depth"] = stage.depth
        if isinstance(stage, Aggregate):
            options["aggregation"] = stage.aggregation
            if stage.aggregation == "norm":
                options["norm_constant"] = stage.norm_constant
    return options


def _renamed(name: str, tensor: Tensor) -> dict[str, Tensor]:
    """The parts that our chain has of a tensor of chemprop's message passing."""
    match name:
        case "W_i.weight":
            return {
                "stages.embed.sent.weight": tensor[:, :ATOM_FEATURES],
                "stages.message.bonds.weight": tensor[:, ATOM_FEATURES:],
            }
        case "W_o.weight":
            return {
                "stages.embed.own.weight": tensor[:, :ATOM_FEATURES],
                "stages.atoms.linear.weight": tensor[:, ATOM_FEATURES:],
            }
    return {_WHOLE[name]: tensor}


def _passing_settings(file: WeightFile) -> dict[str, Any]:
    """Hyper-parameters of the message passing."""
    settings: dict[str, Any] = file.settings.get("message_passing", file.settings)
    return settings


def _batch_norm(file: WeightFile, prefix: str) -> dict[str, Tensor]:
    """The batch norm of molecules' features, which a whole model may have."""
    if not prefix.endswith(_PASSING):
        return {}
    return strip_prefix(file.tensors, f"{prefix.removesuffix(_PASSING)}{_BATCH_NORM}")


def _check_variant(file: WeightFile, prefix: str) -> None:
    """Refuse what would be another function here.

    Raises:
        ValueError: the first such difference.
    """
    tensors = strip_prefix(file.tensors, prefix)
    reason = _other_shape(tensors) or _other_settings(file)
    if reason:
        raise ValueError(f"{file.path} is a D-MPNN of chemprop that {reason}")


def _other_shape(tensors: Mapping[str, Tensor]) -> str | None:
    """What the tensors of a message passing have that `dmpnn` has not, as the end of a sentence."""
    width, read = tensors["W_i.weight"].shape
    out = tuple(tensors["W_o.weight"].shape)
    others = [name for name in tensors if name not in (*LANDMARKS, *_WHOLE)]
    if read == ATOM_FEATURES:
        return "passes messages between atoms; dmpnn passes them along bonds"
    if read != ATOM_FEATURES + BOND_FEATURES or out != (width, ATOM_FEATURES + width):
        return (
            f"reads {read} columns and ends in {out}; dmpnn reads the {ATOM_FEATURES} columns of "
            f"atoms and {BOND_FEATURES} of bonds that chemprop 2 has by default"
        )
    if others:
        return f"has {others[0]} as well; dmpnn has no place for it"
    return None


def _other_settings(file: WeightFile) -> str | None:
    """What a file says of itself that `dmpnn` has not, as the end of a sentence."""
    settings = _passing_settings(file)
    pooling = file.settings.get("agg", {}).get("cls", "NormAggregation")
    if not isinstance(settings.get("depth"), int):
        return "does not say how deep it is; save it with hyper_parameters, as chemprop does"
    if settings.get("undirected"):
        return "is undirected; dmpnn keeps both directions of a bond apart"
    if settings.get("activation", "relu") not in _ACTIVATIONS:
        return f"has activation {settings['activation']}; dmpnn has ReLU"
    if pooling not in _AGGREGATIONS:
        return f"has {pooling}; dmpnn has {', '.join(_AGGREGATIONS)}"
    return None
