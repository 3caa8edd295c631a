"""Pretrained graph encoders from files: our own, OGB's, and public ones of others.

A public file is recognised by its digest, any other by the names and shapes of its tensors, and
where two architectures share those, by the statistics of its batch norms.
"""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from molhpft.core.network import Chain
from molhpft.domains.molecules import chemprop_files
from molhpft.domains.molecules.gcn import Convolution
from molhpft.domains.molecules.pooling import POOLS
from molhpft.domains.weights import (
    WeightFile,
    backbone_weights,
    encoder_prefix,
    read_weights,
    strip_prefix,
)

Renaming = tuple[tuple[str, str], ...]

_OURS = (
    "stages.embed.columns.tables.0",
    "stages.embed.embed.columns.tables.0",
    "stages.embed.sent.weight",
)

_NODES_AND_BONDS: Renaming = (
    (r"x_embedding1\.weight", r"embed.columns.tables.0"),
    (r"x_embedding2\.weight", r"embed.columns.tables.1"),
    (r"gnns\.(\d+)\.edge_embedding1\.weight", r"conv\1.convolution.bond.tables.0"),
    (r"gnns\.(\d+)\.edge_embedding2\.weight", r"conv\1.convolution.bond.tables.1"),
    (r"batch_norms\.(\d+)\.(\w+)", r"conv\1.norm.\2"),
)
_GIN: Renaming = (
    *_NODES_AND_BONDS,
    (r"gnns\.(\d+)\.mlp\.0\.(\w+)", r"conv\1.convolution.hidden.\2"),
    (r"gnns\.(\d+)\.mlp\.2\.(\w+)", r"conv\1.convolution.out.\2"),
)
_MOLCLR_PROJECTION: Renaming = ((r"feat_lin\.(\w+)", r"project.module.\1"),)
_OGB: Renaming = (
    (r"gnn_node\.atom_encoder\.atom_embedding_list\.(\d)\.weight", r"embed.columns.tables.\1"),
    (r"gnn_node\.convs\.(\d+)\.linear\.(\w+)", r"conv\1.convolution.linear.\2"),
    (r"gnn_node\.convs\.(\d+)\.root_emb\.weight", r"conv\1.convolution.root"),
    (
        r"gnn_node\.convs\.(\d+)\.bond_encoder\.bond_embedding_list\.(\d)\.weight",
        r"conv\1.convolution.bond.tables.\2",
    ),
    (r"gnn_node\.batch_norms\.(\d+)\.(\w+)", r"conv\1.norm.\2"),
)
_OGB_GIN: Renaming = (
    _OGB[0],
    (r"gnn_node\.convs\.(\d+)\.eps", r"conv\1.convolution.eps"),
    (r"gnn_node\.convs\.(\d+)\.mlp\.0\.(\w+)", r"conv\1.convolution.hidden.\2"),
    (r"gnn_node\.convs\.(\d+)\.mlp\.1\.(\w+)", r"conv\1.convolution.norm.\2"),
    (r"gnn_node\.convs\.(\d+)\.mlp\.3\.(\w+)", r"conv\1.convolution.out.\2"),
    *_OGB[-2:],
)


def _with_virtual_node(renaming: Renaming) -> Renaming:
    """The same where every stage is wrapped in one that knows about a virtual node."""
    return (
        *((old, new.replace("embed.", "embed.embed.", 1)) for old, new in renaming[:1]),
        *((old, new.replace(r"conv\1.", r"conv\1.convolution.", 1)) for old, new in renaming[1:]),
        (r"gnn_node\.virtualnode_embedding\.weight", r"embed.node"),
        (r"gnn_node\.mlp_virtualnode_list\.(\d+)\.(\d+)\.(\w+)", r"conv\1.update.\2.\3"),
    )


@dataclass(frozen=True)
class Architecture:
    """A published graph encoder.

    Attributes:
        what: its name and where it comes from, as the end of a sentence.
        landmarks: tensors that tell it from the others; the first says where its names begin.
        fits: the encoder of this package that takes its weights, as a config's `encoder` has it.
        renaming: patterns of its names and what a backbone chain calls them.
    """

    what: str
    landmarks: tuple[str, ...]
    fits: dict[str, Any]
    renaming: Renaming = ()


_GCN = Architecture(
    "a GCN of pretrain-gnns (Hu et al., 2020)",
    ("x_embedding1.weight", "gnns.0.linear.weight"),
    {"name": "gcn_pretrain_gnns"},
    (*_NODES_AND_BONDS, (r"gnns\.(\d+)\.linear\.(\w+)", r"conv\1.convolution.linear.\2")),
)
_GRAPHSAGE = Architecture(
    "a GraphSAGE of pretrain-gnns (Hu et al., 2020)",
    _GCN.landmarks,
    {"name": "sage_pretrain_gnns"},
    (*_NODES_AND_BONDS, (r"gnns\.(\d+)\.linear\.(\w+)", r"conv\1.convolution.message.\2")),
)
_GAT = Architecture(
    "a GAT of pretrain-gnns (Hu et al., 2020)",
    ("x_embedding1.weight", "gnns.0.att"),
    {"name": "gat_pretrain_gnns"},
    (
        *_NODES_AND_BONDS,
        (r"gnns\.(\d+)\.weight_linear\.(\w+)", r"conv\1.convolution.linear.\2"),
        (r"gnns\.(\d+)\.att", r"conv\1.convolution.attention"),
        (r"gnns\.(\d+)\.bias", r"conv\1.convolution.bias"),
    ),
)
_DMPNN = Architecture("a D-MPNN of chemprop", chemprop_files.LANDMARKS, {"name": "dmpnn"})
_ARCHITECTURES = (  # of two that fit, the first is meant
    _GCN,
    Architecture(
        "a GIN of MolCLR (Wang et al., 2022)",
        ("x_embedding1.weight", "gnns.0.mlp.0.weight", "feat_lin.weight"),
        {"name": "gin_molclr"},
        (*_GIN, *_MOLCLR_PROJECTION),
    ),
    Architecture(
        "a GIN of pretrain-gnns (Hu et al., 2020)",
        ("x_embedding1.weight", "gnns.0.mlp.0.weight"),
        {"name": "gin_pretrain_gnns"},
        _GIN,
    ),
    _GAT,
    Architecture(
        "a GCN of MolCLR (Wang et al., 2022)",
        ("x_embedding1.weight", "gnns.0.weight", "feat_lin.weight"),
        {"name": "gcn_molclr"},
        (
            *_NODES_AND_BONDS,
            (r"gnns\.(\d+)\.(weight|bias)", r"conv\1.convolution.\2"),
            *_MOLCLR_PROJECTION,
        ),
    ),
    Architecture(
        "a GCN of OGB's examples with a virtual node",
        ("gnn_node.virtualnode_embedding.weight", "gnn_node.convs.0.root_emb.weight"),
        {"name": "gcn", "virtual_node": True},
        _with_virtual_node(_OGB),
    ),
    Architecture(
        "a GCN of OGB's examples",
        ("gnn_node.convs.0.root_emb.weight",),
        {"name": "gcn", "virtual_node": False},
        _OGB,
    ),
    Architecture(
        "a GIN of OGB's examples with a virtual node",
        ("gnn_node.virtualnode_embedding.weight", "gnn_node.convs.0.eps"),
        {"name": "gine", "virtual_node": True},
        _with_virtual_node(_OGB_GIN),
    ),
    Architecture(
        "a GIN of OGB's examples",
        ("gnn_node.convs.0.eps", "gnn_node.convs.0.mlp.0.weight"),
        {"name": "gine", "virtual_node": False},
        _OGB_GIN,
    ),
    _DMPNN,
)

# SHA-256 of files that pretrain-gnns has published, with their names and what they are of
_PUBLIC = {
    "ff1d9c5e5c198b8faf8af576c303808853e3f55a52aed7ae27964e3c8635a81a": (
        "gcn_contextpred.pth",
        _GCN,
    ),
    "8fb73bcce4991d6778e7309474505fcf2e5ff69f5debf166a5e6b91edf3f1493": (
        "gcn_supervised.pth",
        _GCN,
    ),
    "49cf0465e623c14fc802cdc67b47cbb78326f43fc7991afe6a14e1ff471755d5": (
        "gcn_supervised_contextpred.pth",
        _GCN,
    ),
    "aca7caa7c15a0e478b57d5d2cca84d8bda6d4500614bd96486b84739bff3929b": (
        "graphsage_supervised_contextpred.pth",
        _GRAPHSAGE,
    ),
    "ad433c867915b166fbc98154d763eaa83fa53cd60bf3a3b0c2086a0ef7dc684e": (
        "gat_supervised_contextpred.pth",
        _GAT,
    ),
}


def load_encoder(backbone: Chain, path: Path) -> None:
    """Put the weights of a file into a backbone; a head in the file is left out.

    Args:
        backbone: changed in place, or not at all.
        path: one of our `model.safetensors`, a state dict of OGB's example GNN, a checkpoint of
            pretrain-gnns or MolCLR, or a model of chemprop 2; in any floating point format, its
            names behind any wrapper such as `module.` or `model.gnn.`.

    Raises:
        FileNotFoundError: no such file.
        ValueError: the file cannot be read safely, is no graph encoder, or one of another
            architecture; the message says what it is and what fits it.
    """
    file = read_weights(path)
    weights, own = encoder_weights(file), backbone.state_dict()
    misfit = _first_misfit(weights, own) or _unseen_misfit(file, backbone)
    if misfit:
        raise ValueError(
            f"{path} is {describe(file)}; the encoder that is to take its weights is another: "
            f"{_without_a_name(file, path)} (the first difference: {misfit})"
        )
    backbone.load_state_dict({name: weights[name].view_as(own[name]) for name in own})


def encoder_weights(file: WeightFile) -> dict[str, Tensor]:
    """Weights of the encoder in a file, under the names of a backbone chain.

    Raises:
        ValueError: the file holds no graph encoder this package has a place for.
    """
    ours = encoder_prefix(file, _OURS)
    if ours is not None:
        weights = backbone_weights(file, ours)
        return {name: tensor for name, tensor in weights.items() if name.startswith("stages.")}
    architecture, prefix = _recognised(file)
    if architecture is _DMPNN:
        return chemprop_files.backbone_weights(file, prefix)
    weights, renaming = {}, architecture.renaming
    roots = {landmark.partition(".")[0] for landmark in architecture.landmarks}
    for name, tensor in strip_prefix(file.tensors, prefix).items():
        new = _rename(name, renaming)
        if new is None and name.partition(".")[0] in roots:
            raise ValueError(
                f"{file.path} looks like {architecture.what}, but has {name}, which that should "
                "not have; `molhpft encoders` lists what can be loaded"
            )
        if new is not None:
            weights[f"stages.{new}"] = tensor
    return weights


def describe(file: WeightFile) -> str:
    """What a weight file is, how it was recognised, and which encoder of this package takes it.

    Returns:
        the end of a sentence.

    Raises:
        ValueError: it is none of the files this package knows.
    """
    if encoder_prefix(file, _OURS) is not None:
        return f"a molhpft model trained as encoder {file.about.get('encoder', 'unknown')}"
    architecture, prefix = _recognised(file)
    fits = architecture.fits
    if architecture is _DMPNN:
        takes = _fitting_dmpnn(chemprop_files.dmpnn_options(file, prefix))
    elif fits.get("virtual_node"):
        takes = f"which fits {fits['name']} with virtual_node: true"
    else:
        takes = f"which fits {fits['name']}"
    return f"{architecture.what}, {takes} ({_reason(file, architecture)})"


def _without_a_name(file: WeightFile, path: Path) -> str:
    """How a config comes to the encoder of a weight file."""
    try:
        fitting_encoder(file)
    except ValueError:
        return "the file does not say which options it was trained with, so give those in full"
    alone = f"{{weights: {path}}}"
    return (
        f"leave its name and options out, by encoder: {alone} in a config or --set "
        f"'encoder={alone}', and they are read from the file"
    )


def _fitting_dmpnn(options: dict[str, Any]) -> str:
    """Which `dmpnn` takes a file that says these options of itself."""
    fits = f"which fits dmpnn with {', '.join(f'{k}: {_in_yaml(v)}' for k, v in options.items())}"
    assumed = chemprop_files.assumed_aggregation(options)
    if not assumed:
        return fits
    return (
        f"{fits}, and any aggregation, of which it says nothing: set encoder.aggregation, or "
        f"{assumed['aggregation']} is taken"
    )


def fitting_encoder(file: WeightFile) -> dict[str, Any]:
    """Name, shape and dropout of the encoder that takes a weight file, as `encoder` of a config.

    Dropout is that of the weights' training. Features that were learned without it do not survive
    it: on a small table, finetuning with a half of them dropped is worse than from random weights.

    Raises:
        ValueError: it is none of the files this package has an encoder for.
    """
    if encoder_prefix(file, _OURS) is not None:
        own: dict[str, Any] = file.about.get("config", {}).get("encoder", {})
        if not own:
            raise ValueError(f"{file.path} does not say which encoder it is of; name it in full")
        return {key: value for key, value in own.items() if key != "weights"}
    architecture, prefix = _recognised(file)
    if architecture is _DMPNN:
        options = chemprop_files.dmpnn_options(file, prefix)
        return {"name": "dmpnn", **options, **chemprop_files.assumed_aggregation(options)}
    weights = encoder_weights(file)
    layers = {match[0] for name in weights if (match := re.search(r"conv\d+", name))}
    widths = {t.shape[1] for name, t in weights.items() if name.endswith("columns.tables.0")}
    fits = dict(architecture.fits)
    if "stages.project.module.weight" in weights:
        fits["projection"] = len(weights["stages.project.module.weight"])
    return {"name": fits.pop("name"), "layers": len(layers), "width": widths.pop(), **fits}


def _recognised(file: WeightFile) -> tuple[Architecture, str]:
    """The architecture of a file and the wrapper before its names."""
    if file.digest in _PUBLIC:
        return _PUBLIC[file.digest][1], ""
    for architecture in _ARCHITECTURES:
        prefix = encoder_prefix(file, architecture.landmarks[:1])
        if prefix is None or not all(prefix + n in file.tensors for n in architecture.landmarks):
            continue
        if architecture is _GCN and _saw_rows_of_unit_length(strip_prefix(file.tensors, prefix)):
            return _GRAPHSAGE, prefix
        return architecture, prefix
    raise ValueError(
        f"{file.path} is no graph encoder this package knows (its first tensors are "
        f"{', '.join(list(file.tensors)[:3]) or 'none'}); give a molhpft model.safetensors, a "
        "state dict of OGB's example GNNs, a checkpoint of pretrain-gnns or MolCLR or a model of "
        "chemprop 2"
    )


def _reason(file: WeightFile, architecture: Architecture) -> str:
    """How a file was recognised."""
    if file.digest in _PUBLIC:
        return f"its digest is that of {_PUBLIC[file.digest][0]} of pretrain-gnns"
    if architecture is _GCN:
        return (
            "taken for one by its names and shapes, which a GraphSAGE shares, and since the rows "
            "that its batch norms have seen differ in length; a GraphSAGE's have length 1"
        )
    if architecture is _GRAPHSAGE:
        return (
            "its names and shapes are also a GCN's, but the rows that its batch norms have seen "
            "have length 1, as a GraphSAGE makes them and a GCN does not"
        )
    return "by the names of its tensors"


def _saw_rows_of_unit_length(tensors: dict[str, Tensor]) -> bool:
    """Whether all batch norms have seen rows x of length 1: E|x|^2 = sum(mean^2 + variance).

    Each layer of pretrain-gnns' GraphSAGE ends by scaling every row to length 1; its tensors have
    the names and shapes of those of the GCN.
    """
    norms = [n.removesuffix("running_mean") for n in tensors if n.endswith(".running_mean")]
    squares = [
        (tensors[f"{norm}running_mean"].double().square() + tensors[f"{norm}running_var"]).sum()
        for norm in norms
    ]
    return bool(squares) and all(abs(square.item() - 1) < 0.05 for square in squares)


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


def _unseen_misfit(file: WeightFile, backbone: Chain) -> str | None:
    """The first option in which a file says it differs and of which no tensor tells."""
    written: dict[str, Any] = file.about.get("config", {}).get("encoder", {})
    if encoder_prefix(file, _OURS) is None:
        architecture, prefix = _recognised(file)
        written = chemprop_files.dmpnn_options(file, prefix) if architecture is _DMPNN else {}
    misfit = chemprop_files.misfit(written, backbone)
    if misfit:
        return misfit
    for key, value in _unseen_options(backbone).items() if written else ():
        # a file from before there was the option was trained with what is now the default
        trained = written.get(key, _UNSEEN_DEFAULTS[key])
        if trained != value:
            return f"the file was trained with {key}: {_in_yaml(trained)}, it has {_in_yaml(value)}"
    return None


_UNSEEN_DEFAULTS = {"residual": False, "pool": "mean"}


def _unseen_options(backbone: Chain) -> dict[str, Any]:
    """Options of a backbone that has them, of which its tensors tell nothing."""
    options: dict[str, Any] = {}
    for module in backbone.modules():
        if isinstance(module, Convolution):
            options["residual"] = module.residual
        for name, kind in POOLS.items():
            if isinstance(module, kind):
                options["pool"] = name
    return options


def _in_yaml(value: Any) -> str:
    return str(value).lower()
