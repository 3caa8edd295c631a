"""Weights of others under our names, and refusals that say what a file is."""

import json
import re

import pytest
import torch
from safetensors.torch import save_file

from molhpft.config.changes import parse_changes
from molhpft.config.registry import ENCODERS
from molhpft.config.schema import checked_choice
from molhpft.core.network import Batch
from molhpft.domains.molecules.checkpoints import describe, fitting_encoder, load_encoder
from molhpft.domains.molecules.gcn import ogb_gcn
from molhpft.domains.molecules.gine import gine
from molhpft.domains.molecules.graphs import pack
from molhpft.domains.molecules.pretrain_gnns import pretrain_gnns_gcn, pretrain_gnns_sage
from molhpft.domains.weights import read_weights
from tests.domains.molecules.pretrain_gnns_layout import ENCODERS as LAYOUT_ENCODERS
from tests.domains.molecules.pretrain_gnns_layout import (
    LAYOUTS,
    PROJECTION,
    published,
    with_rows_of_unit_length,
)
from tests.toy import same_weights

SIZES = {"layers": 2, "width": 4}
LAYER = {"linear.weight": (4, 4), "linear.bias": (4,)}
OGB_LAYER = {**LAYER, "root_emb.weight": (1, 4)}
NORM = {"weight": (4,), "bias": (4,), "running_mean": (4,), "running_var": (4,)}
VIRTUAL = {"0": LAYER["linear.weight"], "3": LAYER["linear.weight"]}


def filled(shapes, seed=0):
    rng = torch.Generator().manual_seed(seed)
    tensors = {name: torch.rand(shape, generator=rng) for name, shape in shapes.items()}
    return tensors | {k: torch.tensor(5) for k in shapes if k.endswith("num_batches_tracked")}


def norms(prefix):
    names = {f"{prefix}.{n}": shape for n, shape in NORM.items()}
    return {**names, f"{prefix}.num_batches_tracked": ()}


def pretrain_gnns_file(path, width=4):
    shapes = {"x_embedding1.weight": (120, width), "x_embedding2.weight": (3, width)}
    for layer in range(2):
        shapes |= {f"gnns.{layer}.linear.weight": (width, width)}
        shapes |= {f"gnns.{layer}.linear.bias": (width,)}
        shapes |= {f"gnns.{layer}.edge_embedding1.weight": (6, width)}
        shapes |= {f"gnns.{layer}.edge_embedding2.weight": (3, width)}
        shapes |= norms(f"batch_norms.{layer}")
    tensors = filled(shapes)
    torch.save(tensors, path)
    return tensors


GIN = {
    "eps": (1,),
    **{"mlp.0.weight": (8, 4), "mlp.0.bias": (8,), "mlp.3.weight": (4, 8), "mlp.3.bias": (4,)},
    **{k: (8,) if s else s for k, s in norms("mlp.1").items()},
}


def ogb_gin_file(path, *, virtual_node=False):
    return ogb_file(path, virtual_node=virtual_node, layer=GIN)


def ogb_file(path, *, virtual_node=False, layer=OGB_LAYER):
    sizes = (119, 5, 12, 12, 10, 6, 6, 2, 2)
    atoms = "gnn_node.atom_encoder.atom_embedding_list"
    shapes = {f"{atoms}.{k}.weight": (size, 4) for k, size in enumerate(sizes)}
    for k in range(2):
        conv = f"gnn_node.convs.{k}"
        shapes |= {f"{conv}.{name}": shape for name, shape in layer.items()}
        bonds = f"{conv}.bond_encoder.bond_embedding_list"
        shapes |= {f"{bonds}.{i}.weight": (size, 4) for i, size in enumerate((5, 6, 2))}
        shapes |= norms(f"gnn_node.batch_norms.{k}")
    if virtual_node:
        shapes |= {"gnn_node.virtualnode_embedding.weight": (1, 4)}
        mlp = "gnn_node.mlp_virtualnode_list.0"
        shapes |= {f"{mlp}.0.weight": (8, 4), f"{mlp}.0.bias": (8,)}
        shapes |= {f"{mlp}.3.weight": (4, 8), f"{mlp}.3.bias": (4,)}
        shapes |= {k: (8,) if s else s for k, s in norms(f"{mlp}.1").items()}
        shapes |= norms(f"{mlp}.4")
    tensors = filled(shapes | {"graph_pred_linear.weight": (1, 4), "graph_pred_linear.bias": (1,)})
    torch.save(tensors, path)
    return tensors


def test_a_pretrain_gnns_checkpoint_fills_every_weight(tmp_path):
    theirs = pretrain_gnns_file(tmp_path / "w.pth")
    chain = pretrain_gnns_gcn(**SIZES)
    load_encoder(chain, tmp_path / "w.pth")
    ours = sorted(float(v.sum()) for v in chain.state_dict().values())
    assert ours == pytest.approx(sorted(float(v.sum()) for v in theirs.values()))
    second = chain.stages["conv1"].convolution
    assert torch.equal(second.bond.tables[1], theirs["gnns.1.edge_embedding2.weight"])


@pytest.mark.parametrize("virtual_node", [False, True])
@pytest.mark.parametrize(("write", "build"), [(ogb_file, ogb_gcn), (ogb_gin_file, gine)])
def test_an_ogb_state_dict_fills_every_weight_and_its_head_is_left_out(
    tmp_path, write, build, virtual_node
):
    theirs = write(tmp_path / "w.pth", virtual_node=virtual_node)
    chain = build(**SIZES, virtual_node=virtual_node)
    load_encoder(chain, tmp_path / "w.pth")
    encoder = {k: v for k, v in theirs.items() if not k.startswith("graph_pred_linear")}
    ours = sorted(float(v.sum()) for v in chain.state_dict().values())
    assert ours == pytest.approx(sorted(float(v.sum()) for v in encoder.values()))
    assert len(ours) == len(encoder)


WRAPPERS = ["module.", "_orig_mod.module.", "model.gnn.", "backbone.encoder.", "model._orig_mod."]


@pytest.mark.parametrize("prefix", WRAPPERS)
@pytest.mark.parametrize("write", [pretrain_gnns_file, ogb_file])
def test_a_wrapped_checkpoint_loads_as_the_bare_one_does(tmp_path, write, prefix):
    bare = write(tmp_path / "bare.pth")
    build = {pretrain_gnns_file: pretrain_gnns_gcn, ogb_file: ogb_gcn}[write]
    # as Lightning saves it, beside the head that was finetuned with it
    wrapped = {f"{prefix}{name}": tensor for name, tensor in bare.items()}
    head = {"graph_head.weight": torch.ones(1, 4)}
    torch.save({"state_dict": {**wrapped, **head}, "epoch": 3}, tmp_path / "wrapped.pth")
    chains = [build(**SIZES), build(**SIZES)]
    for chain, name in zip(chains, ("bare.pth", "wrapped.pth"), strict=True):
        load_encoder(chain, tmp_path / name)
    assert same_weights(*chains)
    kinds = [fitting_encoder(read_weights(tmp_path / n)) for n in ("bare.pth", "wrapped.pth")]
    assert kinds[0] == kinds[1]


def test_parts_that_were_compiled_one_by_one_load_as_the_others_do(tmp_path):
    theirs = pretrain_gnns_file(tmp_path / "w.pth")
    compiled = {k.replace("gnns.1.", "gnns.1._orig_mod."): v for k, v in theirs.items()}
    torch.save(compiled, tmp_path / "compiled.pth")
    chains = [pretrain_gnns_gcn(**SIZES), pretrain_gnns_gcn(**SIZES)]
    for chain, name in zip(chains, ("w.pth", "compiled.pth"), strict=True):
        load_encoder(chain, tmp_path / name)
    assert same_weights(*chains)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_weights_of_another_precision_are_those_rounded_to_it(tmp_path, dtype):
    theirs = pretrain_gnns_file(tmp_path / "w.pth")
    other = {k: v.to(dtype) if v.is_floating_point() else v for k, v in theirs.items()}
    torch.save(other, tmp_path / "w.pth")
    chain = pretrain_gnns_gcn(**SIZES)
    load_encoder(chain, tmp_path / "w.pth")
    weight = chain.stages["conv0"].convolution.linear.weight
    assert weight.dtype == torch.float32
    assert torch.equal(weight, theirs["gnns.0.linear.weight"].to(dtype).float())


def test_two_encoders_that_differ_are_refused_and_a_momentum_encoder_is_left_out(tmp_path):
    one, two = (pretrain_gnns_file(tmp_path / "w.pth") for _ in range(2))
    two = {k: v + 1 for k, v in two.items()}
    both = {f"gnn.{k}": v for k, v in one.items()} | {f"other.{k}": v for k, v in two.items()}
    torch.save(both, tmp_path / "both.pth")
    with pytest.raises(ValueError, match=r"should hold one encoder; it has: gnn\., other\."):
        load_encoder(pretrain_gnns_gcn(**SIZES), tmp_path / "both.pth")
    torch.save({k.replace("other", "gnn_ema"): v for k, v in both.items()}, tmp_path / "ema.pth")
    chain = pretrain_gnns_gcn(**SIZES)
    load_encoder(chain, tmp_path / "ema.pth")
    assert torch.equal(chain.stages["conv0"].convolution.linear.weight, one["gnns.0.linear.weight"])


def test_a_graphsage_and_a_gcn_have_names_and_shapes_in_common_and_neither_loads_as_the_other(
    tmp_path,
):
    gcn = pretrain_gnns_file(tmp_path / "gcn.pth")
    torch.save(with_rows_of_unit_length(gcn), tmp_path / "sage.pth")
    kinds = [fitting_encoder(read_weights(tmp_path / n))["name"] for n in ("gcn.pth", "sage.pth")]
    assert kinds == ["gcn_pretrain_gnns", "sage_pretrain_gnns"]
    with pytest.raises(ValueError, match=r"fits sage_pretrain_gnns .* have length 1"):
        load_encoder(pretrain_gnns_gcn(**SIZES), tmp_path / "sage.pth")
    with pytest.raises(ValueError, match=r"fits gcn_pretrain_gnns .* differ in length"):
        load_encoder(pretrain_gnns_sage(**SIZES), tmp_path / "gcn.pth")
    own_file(tmp_path / "own.safetensors", "gcn_pretrain_gnns", pretrain_gnns_gcn)
    with pytest.raises(ValueError, match=r"trained as encoder gcn_pretrain_gnns; the encoder tha"):
        load_encoder(pretrain_gnns_sage(**SIZES), tmp_path / "own.safetensors")


def test_what_names_and_shapes_leave_open_is_said(tmp_path):
    pretrain_gnns_file(tmp_path / "w.pth")
    said = describe(read_weights(tmp_path / "w.pth"))
    assert "taken for one by its names and shapes, which a GraphSAGE shares" in said


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("other", ENCODERS)
def test_a_layout_loads_into_its_own_encoder_and_no_other(tmp_path, layout, other):
    if ENCODERS[other].load is not load_encoder or other == "pyg_gnn":
        pytest.skip("an encoder of other weights")
    torch.save(published(layout), tmp_path / "w.pth")
    sizes = {"depth": 2, "width": 4} if other == "dmpnn" else dict(SIZES)
    if "molclr" in other:
        sizes["projection"] = PROJECTION
    chain = ENCODERS[other].build(**sizes)
    if other == LAYOUT_ENCODERS[layout]:
        load_encoder(chain, tmp_path / "w.pth")
        return
    with pytest.raises(
        ValueError, match=f"fits {LAYOUT_ENCODERS[layout]} .* is another: leave its name"
    ):
        load_encoder(chain, tmp_path / "w.pth")


@pytest.mark.parametrize(
    ("layout", "name", "shape", "message"),
    [
        ("gat", "gnns.1.att", (1, 4, 8), r"attention is \(2, 8\) in it and \(1, 4, 8\) in the"),
        ("gin", "gnns.0.mlp.2.bias", (5,), r"out\.bias is \(4,\) in it and \(5,\) in the file"),
        ("molclr gcn", "gnns.0.edge_embedding1.weight", (6, 1), r"tables\.0 is \(5, 1\) in it and"),
        ("molclr gin", "x_embedding1.weight", (120, 4), r"is \(119, 4\) in it and \(120, 4\) in"),
    ],
)
def test_a_tensor_of_another_shape_than_the_architectures_is_refused(
    tmp_path, layout, name, shape, message
):
    torch.save({**published(layout), name: torch.ones(shape)}, tmp_path / "w.pth")
    options = fitting_encoder(read_weights(tmp_path / "w.pth"))
    chain = ENCODERS[options.pop("name")].build(**options)
    with pytest.raises(ValueError, match=message):
        load_encoder(chain, tmp_path / "w.pth")


def test_a_layer_that_the_architecture_has_not_is_never_left_out_in_silence(tmp_path):
    theirs = pretrain_gnns_file(tmp_path / "w.pth")
    torch.save({**theirs, "gnns.0.gate.weight": torch.ones(4)}, tmp_path / "w.pth")
    with pytest.raises(
        ValueError, match=r"but has gnns\.0\.gate\.weight, which that should not have"
    ):
        load_encoder(pretrain_gnns_gcn(**SIZES), tmp_path / "w.pth")


def test_our_own_file_comes_back_without_its_head(tmp_path):
    chain = ogb_gcn(**SIZES)
    weights = {f"backbone.{k}": v for k, v in chain.state_dict().items()}
    head = {"head.stages.linear.module.weight": torch.zeros(1, 4)}
    save_file(
        {**weights, **head}, tmp_path / "w.safetensors", metadata={"molhpft": '{"encoder": "gcn"}'}
    )
    other = ogb_gcn(**SIZES)
    load_encoder(other, tmp_path / "w.safetensors")
    assert same_weights(chain, other)
    description = describe(read_weights(tmp_path / "w.safetensors"))
    assert description == "a molhpft model trained as encoder gcn"


@pytest.mark.parametrize(
    ("write", "chain", "message"),
    [
        (
            pretrain_gnns_file,
            ogb_gcn,
            r"GCN of pretrain-gnns .* which fits gcn_pretrain_gnns \(.*\); the encoder that is",
        ),
        (
            ogb_file,
            pretrain_gnns_gcn,
            r"GCN of OGB's examples, which fits gcn \(by the names of its tensors\); the enc",
        ),
    ],
    ids=["pretrain-gnns into ogb", "ogb into pretrain-gnns"],
)
def test_a_file_of_another_architecture_is_named_and_refused(tmp_path, write, chain, message):
    write(tmp_path / "w.pth")
    target = chain(**SIZES)
    before = {k: v.clone() for k, v in target.state_dict().items()}
    with pytest.raises(ValueError, match=message):
        load_encoder(target, tmp_path / "w.pth")
    assert all(torch.equal(v, before[k]) for k, v in target.state_dict().items())


def test_what_a_file_does_not_fit_into_says_how_its_own_encoder_is_taken(tmp_path):
    path = tmp_path / "w.safetensors"
    own_file(path, "gcn", ogb_gcn)
    with pytest.raises(ValueError, match="leave its name and options out") as refused:
        load_encoder(pretrain_gnns_gcn(**SIZES), path)
    (change,) = re.findall("--set '(.*?)'", str(refused.value))
    named = checked_choice("encoder", parse_changes([change])["encoder"])
    assert (named.name, str(named.options["weights"])) == ("gcn", str(path))
    weights = {f"backbone.{k}": v for k, v in ogb_gcn(**SIZES).state_dict().items()}
    save_file(weights, path, metadata={"molhpft": '{"encoder": "gcn"}'})
    with pytest.raises(ValueError, match="does not say which options it was trained with, so give"):
        load_encoder(pretrain_gnns_gcn(**SIZES), path)


def test_a_virtual_node_on_one_side_only_is_refused(tmp_path):
    ogb_file(tmp_path / "w.pth", virtual_node=True)
    with pytest.raises(ValueError, match=r"fits gcn with virtual_node: true \(.*\); the encoder"):
        load_encoder(ogb_gcn(**SIZES), tmp_path / "w.pth")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"layers": 2, "width": 6}, r"tables\.0 is \(120, 6\) in it and \(120, 4\) in the file"),
        ({"layers": 3, "width": 4}, "it needs stages.conv2.* which the file lacks"),
        ({"layers": 1, "width": 4}, "the file has stages.conv1.* which it has no place for"),
    ],
)
def test_another_size_is_refused_with_both_sizes(tmp_path, options, message):
    pretrain_gnns_file(tmp_path / "w.pth")
    with pytest.raises(ValueError, match=message):
        load_encoder(pretrain_gnns_gcn(**options), tmp_path / "w.pth")


def test_a_file_that_is_no_graph_encoder_is_refused(tmp_path):
    torch.save({"layer1.weight": torch.zeros(2)}, tmp_path / "w.pth")
    with pytest.raises(ValueError, match=r"no graph encoder this package knows .*layer1\.weight"):
        load_encoder(ogb_gcn(**SIZES), tmp_path / "w.pth")


PUBLIC = {
    "gcn_supervised_contextpred": ("gcn_pretrain_gnns", {}),
    "gcn_supervised": ("gcn_pretrain_gnns", {}),
    "gcn_contextpred": ("gcn_pretrain_gnns", {}),
    "graphsage_supervised_contextpred": ("sage_pretrain_gnns", {}),
    "gat_supervised_contextpred": ("gat_pretrain_gnns", {}),
    "molclr_gcn": ("gcn_molclr", {"projection": 512}),
}


@pytest.mark.parametrize("name", PUBLIC)
def test_the_public_checkpoints_say_what_they_are_load_and_give_finite_features(ogb_root, name):
    path = ogb_root.parent / "weights" / f"{name}.pth"
    if not path.is_file():
        pytest.skip(f"no public checkpoint at {path}")
    encoder, more = PUBLIC[name]
    file = read_weights(path)
    assert fitting_encoder(file) == {"name": encoder, "layers": 5, "width": 300, **more}
    reason = "by the names" if name == "molclr_gcn" else f"its digest is that of {name}.pth"
    assert f"which fits {encoder} ({reason}" in describe(file)
    chain = ENCODERS[encoder].build(**more).eval()
    load_encoder(chain, path)
    batch = Batch(pack(["CCO", "c1ccccc1O"]).take(torch.arange(2)), torch.zeros(2, 1))
    features = chain(batch.inputs, batch)
    assert features.shape == (2, chain.width)
    assert features.isfinite().all()
    assert not torch.allclose(features[0], features[1])


@pytest.mark.parametrize(
    ("write", "expected"),
    [
        (pretrain_gnns_file, {"name": "gcn_pretrain_gnns", **SIZES}),
        (ogb_file, {"name": "gcn", **SIZES, "virtual_node": False}),
        (
            lambda path: ogb_file(path, virtual_node=True),
            {"name": "gcn", **SIZES, "virtual_node": True},
        ),
        (ogb_gin_file, {"name": "gine", **SIZES, "virtual_node": False}),
        *(
            (
                lambda path, layout=layout: torch.save(published(layout), path),
                {
                    **{"name": LAYOUT_ENCODERS[layout], **SIZES},
                    **({"projection": PROJECTION} if "molclr" in layout else {}),
                },
            )
            for layout in LAYOUTS
        ),
    ],
    ids=["pretrain-gnns", "ogb", "ogb with a virtual node", "ogb's gin", *LAYOUTS],
)
def test_the_encoder_that_fits_a_file_is_found_and_takes_it(tmp_path, write, expected):
    write(tmp_path / "w.pth")
    found = fitting_encoder(read_weights(tmp_path / "w.pth"))
    assert found == expected
    load_encoder(ENCODERS[found.pop("name")].build(**found), tmp_path / "w.pth")


def test_the_encoder_of_our_own_file_is_as_it_says_without_its_origin(tmp_path):
    weights = {f"backbone.{k}": v for k, v in ogb_gcn(**SIZES).state_dict().items()}
    own = {"name": "gcn", **SIZES, "virtual_node": False, "dropout": 0.25}
    config = {"encoder": {**own, "weights": "elsewhere.pth"}}
    about = {"molhpft": json.dumps({"encoder": "gcn", "config": config})}
    save_file(weights, tmp_path / "w.safetensors", metadata=about)
    assert fitting_encoder(read_weights(tmp_path / "w.safetensors")) == own


def own_file(path, name, build, **options):
    """As a run leaves it, and its backbone."""
    chain = build(**SIZES, **options)
    weights = {f"backbone.{k}": v for k, v in chain.state_dict().items()}
    about = {"encoder": name, "config": {"encoder": {"name": name, **SIZES, **options}}}
    save_file(weights, path, metadata={"molhpft": json.dumps(about)})
    return chain


@pytest.mark.parametrize(("name", "build"), [("gcn", ogb_gcn), ("gine", gine)])
@pytest.mark.parametrize(
    "options",
    [
        {"norm": "layer", "residual": True, "pool": "mean+sum", "projection": 7},
        {"norm": "none", "jumping_knowledge": True, "pool": "attention", "virtual_node": True},
    ],
)
def test_our_own_file_tells_the_options_with_which_it_comes_back(tmp_path, name, build, options):
    chain = own_file(tmp_path / "w.safetensors", name, build, **options)
    found = fitting_encoder(read_weights(tmp_path / "w.safetensors"))
    assert found.pop("name") == name
    other = build(**found)
    load_encoder(other, tmp_path / "w.safetensors")
    assert same_weights(chain, other)


@pytest.mark.parametrize(
    ("trained", "built", "message"),
    [
        ({"pool": "mean+sum"}, {}, r"trained with pool: mean\+sum, it has mean\)$"),
        ({}, {"pool": "sum"}, r"trained with pool: mean, it has sum\)$"),
        ({"residual": True}, {}, r"trained with residual: true, it has false\)$"),
        ({"norm": "layer"}, {}, r"needs stages\.conv0\.norm\.running_mean, which the file lacks"),
        ({"norm": "layer"}, {"norm": "none"}, r"has stages\.conv0\.norm\.\w+, which it has no"),
        ({"jumping_knowledge": True}, {}, "which the file lacks"),
        ({}, {"projection": 4}, r"needs stages\.project\.module\.weight, which the file lacks"),
    ],
)
def test_an_encoder_with_other_options_than_the_files_is_refused(tmp_path, trained, built, message):
    own_file(tmp_path / "w.safetensors", "gcn", ogb_gcn, **trained)
    with pytest.raises(ValueError, match=message):
        load_encoder(ogb_gcn(**SIZES, **built), tmp_path / "w.safetensors")


def test_a_file_that_does_not_say_its_encoder_is_asked_to_be_named(tmp_path):
    weights = {f"backbone.{k}": v for k, v in ogb_gcn(**SIZES).state_dict().items()}
    save_file(weights, tmp_path / "w.safetensors")
    with pytest.raises(ValueError, match=r"w\.safetensors does not say which encoder it is of"):
        fitting_encoder(read_weights(tmp_path / "w.safetensors"))
    torch.save({"layer1.weight": torch.zeros(2)}, tmp_path / "x.pth")
    with pytest.raises(ValueError, match="no graph encoder this package knows"):
        fitting_encoder(read_weights(tmp_path / "x.pth"))
