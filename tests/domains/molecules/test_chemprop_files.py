"""Files of chemprop 2: read back, described, and refused where they are another function."""

import pytest
import torch

from molhpft.domains.molecules.checkpoints import describe, fitting_encoder, load_encoder
from molhpft.domains.molecules.dmpnn import dmpnn
from molhpft.domains.weights import read_weights
from molhpft.estimator.frozen import pretrained_backbone
from tests.domains.molecules.chemprop_layout import model_file, passing_file


@pytest.mark.parametrize(
    ("width", "depth", "aggregation"), [(6, 3, "norm"), (2048, 6, "mean"), (6, 1, "sum")]
)
def test_message_passing_fills_every_weight(tmp_path, width, depth, aggregation):
    theirs = passing_file(tmp_path / "w.pt", width, depth=depth)
    chain = dmpnn(depth=depth, width=width, aggregation=aggregation)
    load_encoder(chain, tmp_path / "w.pt")
    own = {name.removeprefix("stages."): t for name, t in chain.state_dict().items()}
    w_i = torch.cat([own["embed.sent.weight"], own["message.bonds.weight"]], 1)
    w_o = torch.cat([own["embed.own.weight"], own["atoms.linear.weight"]], 1)
    assert torch.equal(w_i, theirs["W_i.weight"])
    assert torch.equal(w_o, theirs["W_o.weight"])
    assert torch.equal(own["embed.own.bias"], theirs["W_o.bias"])
    if depth > 1:
        assert torch.equal(own["message.linear.weight"], theirs["W_h.weight"])


@pytest.mark.parametrize(
    ("width", "depth", "aggregation"), [(6, 3, "norm"), (2048, 6, "mean"), (2048, 3, "norm")]
)
def test_message_passing_alone_is_aggregated_as_chemprop_does(tmp_path, width, depth, aggregation):
    passing_file(tmp_path / "w.pt", width, depth=depth)
    file = read_weights(tmp_path / "w.pt")
    shape = {"name": "dmpnn", "depth": depth, "width": width, "bias": False}
    assert fitting_encoder(file) == {**shape, "aggregation": aggregation}
    assert f"set encoder.aggregation, or {aggregation} is taken" in describe(file)


@pytest.mark.parametrize(
    ("pooling", "options"),
    [
        ({"cls": "MeanAggregation"}, {"aggregation": "mean"}),
        ({"cls": "SumAggregation"}, {"aggregation": "sum"}),
        ({"cls": "NormAggregation", "norm": 50}, {"aggregation": "norm", "norm_constant": 50.0}),
    ],
)
def test_a_whole_model_says_its_aggregation_and_takes_no_other(tmp_path, pooling, options):
    theirs = model_file(tmp_path / "w.pt", pooling=pooling)
    found = fitting_encoder(read_weights(tmp_path / "w.pt"))
    assert found.pop("name") == "dmpnn"
    assert found == {"depth": 3, "width": 6, "bias": False, **options}
    chain = dmpnn(**found)
    load_encoder(chain, tmp_path / "w.pt")
    weight = chain.state_dict()["stages.message.linear.weight"]
    assert torch.equal(weight, theirs["message_passing.W_h.weight"])
    with pytest.raises(ValueError, match=r"norm_constant is 7.0 in it|aggregation is norm in it"):
        load_encoder(dmpnn(width=6, norm_constant=7.0), tmp_path / "w.pt")


def test_the_batch_norm_of_a_whole_model_comes_with_its_statistics(tmp_path):
    theirs = model_file(tmp_path / "w.pt", batch_norm=True)
    chain = pretrained_backbone(tmp_path / "w.pt")
    assert chain.names == ["embed", "message", "atoms", "pool", "norm"]
    norm = chain.state_dict()["stages.norm.module.running_var"]
    assert torch.equal(norm, theirs["bn.running_var"])


def test_an_aggregation_that_a_file_does_not_say_can_be_any(tmp_path):
    passing_file(tmp_path / "w.pt")
    for aggregation in ("mean", "sum", "norm"):
        chain = dmpnn(width=6, aggregation=aggregation)
        load_encoder(chain, tmp_path / "w.pt")
        theirs = read_weights(tmp_path / "w.pt").tensors["W_h.weight"]
        assert torch.equal(chain.state_dict()["stages.message.linear.weight"], theirs)


def test_a_file_says_what_takes_it(tmp_path):
    passing_file(tmp_path / "w.pt", bias=True)
    said = describe(read_weights(tmp_path / "w.pt"))
    assert "a D-MPNN of chemprop, which fits dmpnn with depth: 3, width: 6, bias: true" in said


def test_another_depth_than_the_file_has_is_refused(tmp_path):
    passing_file(tmp_path / "w.pt", depth=4)
    with pytest.raises(ValueError, match="depth is 3 in it and 4 in the file"):
        load_encoder(dmpnn(width=6), tmp_path / "w.pt")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"undirected": True}, "is undirected"),
        ({"activation": "TANH"}, "has activation TANH; dmpnn has ReLU"),
        ({"depth": None}, "does not say how deep it is"),
        ({"extra": {"W_i.weight": torch.ones(6, 72)}}, "passes messages between atoms"),
        ({"extra": {"W_i.weight": torch.ones(6, 147)}}, "reads 147 columns"),
        ({"extra": {"W_d.weight": torch.ones(6, 6)}}, r"has W_d\.weight as well"),
    ],
)
def test_another_function_is_refused_in_a_sentence(tmp_path, changes, message):
    passing_file(tmp_path / "w.pt", **changes)
    with pytest.raises(ValueError, match=f"is a D-MPNN of chemprop that {message}"):
        load_encoder(dmpnn(width=6), tmp_path / "w.pt")
