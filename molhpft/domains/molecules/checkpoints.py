"""Pretrained graph encoders from files: our own, OGB's, and the public ones of Hu et al. (2020)."""

import re
from pathlib import Path
from typing import Any

from torch import Tensor

from molhpft.core.network import Chain
from molhpft.domains.weights import WeightFile, read_weights

Renaming = tuple[tuple[str, str], ...]

PRETRAIN_GNNS: Renaming = (
    (r"x_embedding1\.weight", r"embed.columns.tables.0"),
    (r"x_embedding2\.weight", r"embed.columns.tables.1"),
    (r"gnns\.(\d+)\.linear\.(\w+)", r"conv\1.convolution.linear.\2"),
    (r"gnns\.(\d+)\.edge_embedding1\.weight", r"conv\1.convolution.bond.tables.0"),
    (r"gnns\.(\d+)\.edge_embedding2\.weight", r"conv\1.convolution.bond.tables.1"),
    (r"batch_norms\.(\d+)\.(\w+)", r"conv\1.norm.\2"),
)
OGB: Renaming = (
    (r"gnn_node\.atom_encoder\.atom_embedding_list\.(\d)\.weight", r"embed.columns.tables.\1"),
    (r"gnn_node\.convs\.(\d+)\.linear\.(\w+)", r"conv\1.convolution.linear.\2"),
    (r"gnn_node\.convs\.(\d+)\.root_emb\.weight", r"conv\1.convolution.root"),
    (
        r"gnn_node\.convs\.(\d+)\.bond_encoder\.bond_embedding_list\.(\d)\.weight",
        r"conv\1.convolution.bond.tables.\2",
    ),
    (r"gnn_node\.batch_norms\.(\d+)\.(\w+)", r"conv\1.norm.\2"),
)
# with a virtual node, every stage is wrapped in one that knows about it
OGB_VIRTUAL_NODE: Renaming = (
    *((old, new.replace("embed.", "embed.embed.", 1)) for old, new in OGB[:1]),
    *((old, new.replace(r"conv\1.", r"conv\1.convolution.", 1)) for old, new in OGB[1:]),
    (r"gnn_node\.virtualnode_embedding\.weight", r"embed.node"),
    (r"gnn_node\.mlp_virtualnode_list\.(\d+)\.(\d+)\.(\w+)", r"conv\1.update.\2.\3"),
)


def load_encoder(backbone: Chain, path: Path) -> None:
    """Put the weights of a file into a backbone; a head in the file is left out.

    Args:
        backbone: changed in place, or not at all.
        path: one of our `model.safetensors`, a state dict of OGB's example GNN, or a checkpoint
            of pretrain-gnns.

    Raises:
        FileNotFoundError: no such file.
        ValueError: the file cannot be read safely, is no graph encoder, or one of another
            architecture; the message says what it is and what fits it.
    """
    file = read_weights(path)
    weights, own = encoder_weights(file), backbone.state_dict()
    misfit = _first_misfit(weights, own)
    if misfit:
        raise ValueError(f"{path} is {describe(file)}; this encoder differs from it: {misfit}")
    backbone.load_state_dict({name: weights[name].view_as(own[name]) for name in own})


def encoder_weights(file: WeightFile) -> dict[str, Tensor]:
    """Weights of the encoder in a file, by the names a backbone chain has for them.

    Raises:
        ValueError: the file holds no graph encoder this package knows.
    """
    if _is_ours(file):
        prefix = "backbone."
        return {
            name.removeprefix(prefix): tensor
            for name, tensor in file.tensors.items()
            if name.startswith(prefix)
        }
    renaming = _renaming(file)
    renamed = ((_rename(name, renaming), tensor) for name, tensor in file.tensors.items())
    return {f"stages.{name}": tensor for name, tensor in renamed if name}


def describe(file: WeightFile) -> str:
    """What a weight file is and which encoder takes it, as the end of a sentence.

    Raises:
        ValueError: it is none of the files this package knows.
    """
    if _is_ours(file):
        return f"a molhpft model trained as encoder {file.about.get('encoder', 'unknown')}"
    return _KINDS[_renaming(file)]


def fitting_encoder(file: WeightFile) -> dict[str, Any]:
    """Name and shape of the encoder that takes a weight file, as a config's `encoder` has them.

    Dropout is none of it: how the weights were trained says little of how to finetune them.

    Raises:
        ValueError: it is none of the files this package knows.
    """
    if _is_ours(file):
        own: dict[str, Any] = file.about.get("config", {}).get("encoder", {})
        if not own:
            raise ValueError(f"{file.path} does not say which encoder it is of; name it in full")
        return {key: value for key, value in own.items() if key not in ("weights", "dropout")}
    weights, renaming = encoder_weights(file), _renaming(file)
    layers = {match[0] for name in weights if (match := re.search(r"conv\d+", name))}
    widths = {t.shape[1] for name, t in weights.items() if name.endswith("columns.tables.0")}
    own = {"layers": len(layers), "width": widths.pop()}
    if renaming is PRETRAIN_GNNS:
        return {"name": "gcn_pretrain_gnns", **own}
    return {"name": "gcn", **own, "virtual_node": renaming is OGB_VIRTUAL_NODE}


_KINDS = {
    PRETRAIN_GNNS: "a GCN of pretrain-gnns (Hu et al., 2020), which fits gcn_pretrain_gnns",
    OGB: "a GCN of OGB's examples, which fits gcn",
    OGB_VIRTUAL_NODE: "a GCN of OGB's examples with a virtual node, which fits gcn with "
    "virtual_node: true",
}


def _is_ours(file: WeightFile) -> bool:
    return any(name.startswith("backbone.stages.embed.") for name in file.tensors)


def _renaming(file: WeightFile) -> Renaming:
    names = file.tensors
    if "x_embedding1.weight" in names and any(n.startswith("gnns.0.linear.") for n in names):
        return PRETRAIN_GNNS
    if "gnn_node.virtualnode_embedding.weight" in names:
        return OGB_VIRTUAL_NODE
    if "gnn_node.convs.0.root_emb.weight" in names:
        return OGB
    raise ValueError(
        f"{file.path} is no graph encoder this package knows (its first tensors are "
        f"{', '.join(list(names)[:3]) or 'none'}); give a molhpft model.safetensors, a state dict "
        "of OGB's example GCN or a GCN checkpoint of pretrain-gnns"
    )


def _rename(name: str, renaming: Renaming) -> str | None:
    for old, new in renaming:
        if match := re.fullmatch(old, name):
            return match.expand(new)
    return None


def _first_misfit(weights: dict[str, Tensor], own: dict[str, Tensor]) -> str | None:
    """The first difference that cannot be bridged; a lone leading axis of 1 can."""
    for name in [*own, *weights]:
        if name not in weights:
            return f"it needs {name}, which the file lacks"
        if name not in own:
            return f"the file has {name}, which it has no place for"
        if weights[name].squeeze().shape != own[name].squeeze().shape:
            ours, theirs = tuple(own[name].shape), tuple(weights[name].shape)
            return f"{name} is {ours} in it and {theirs} in the file"
    return None
