"""Heads of pretraining that weight files still have: what they say, and why some are not read."""

from pathlib import Path

import pytest
import torch

from molhpft.advice.source_heads import source_head
from molhpft.core.standardise import STAGE
from molhpft.domains.weights import WeightFile, read_weights
from molhpft.run.run import run
from tests.runs import network_of, task_of

QUICK = {"method": "ft", "finetune": {"epochs": 1, "lr": 0.003, "batch_size": 16}}


def own(head="linear", outputs="labels", **config):
    tensors = {
        "head.stages.linear.module.weight": torch.randn(3, 4),
        "head.stages.linear.module.bias": torch.randn(3),
    }
    about = {"config": {"head": {"name": head}, **config}, "outputs": outputs}
    return WeightFile(Path("w"), tensors, about)


def chemprop(**predictor):
    rng = torch.Generator().manual_seed(0)
    shapes = {"0.0.weight": (5, 4), "0.0.bias": (5,), "1.2.weight": (2, 5), "1.2.bias": (2,)}
    tensors = {
        f"predictor.ffn.{name}": torch.randn(shape, generator=rng) for name, shape in shapes.items()
    }
    settings = {"cls": "BinaryClassificationFFN", "activation": "ReLU", **predictor}
    return WeightFile(Path("w"), tensors, {}, settings={"predictor": settings})


@pytest.mark.parametrize("changes", [{}, {"head": "mlp"}, {"standardise": True}], ids=str)
def test_a_run_leaves_a_head_that_says_what_its_network_says(small, tmp_path, changes):
    config = small(**QUICK, **changes)
    file = read_weights(run(config, tmp_path).path)
    network = network_of(config)
    network.load_state_dict(file.tensors)
    network.eval()
    batch = next(task_of(config).batches("train", size=20))
    with torch.no_grad():
        z, logits = network.features(batch), network(batch)
        if STAGE in network.backbone.names:
            stage = network.backbone.named_stages()[STAGE]
            z = z * stage.std + stage.mean
    head = source_head(file, width=z.shape[1])
    torch.testing.assert_close(head.probabilities(z), logits.sigmoid())


def test_classes_exclude_one_another():
    p = source_head(own(outputs="classes"), width=4).probabilities(torch.randn(5, 4))
    torch.testing.assert_close(p.sum(1), torch.ones(5))


def test_a_model_of_chemprop_has_linear_layers_with_relu_between():
    file, z = chemprop(), torch.randn(6, 4)
    w = {name.removeprefix("predictor.ffn."): t for name, t in file.tensors.items()}
    hidden = (z @ w["0.0.weight"].T + w["0.0.bias"]).relu()
    expected = (hidden @ w["1.2.weight"].T + w["1.2.bias"]).sigmoid()
    torch.testing.assert_close(source_head(file, width=4).probabilities(z), expected)


@pytest.mark.parametrize(
    ("file", "reason"),
    [
        (own(outputs="other"), "predicts numbers"),
        (own(outputs=None), "does not say what"),
        (own(cut="conv1"), "layers of the encoder"),
        (WeightFile(Path("w"), {}, {"config": {"head": {"name": "linear"}}}), "has no head"),
        (WeightFile(Path("w"), {"gnns.0.bias": torch.zeros(1)}, {}), "no head that is known"),
        (chemprop(cls="RegressionFFN"), "RegressionFFN"),
        (chemprop(activation="GELU"), "GELU"),
    ],
)
def test_a_head_that_is_not_read_has_a_reason(file, reason):
    assert reason in source_head(file, width=4)


def test_a_head_of_further_inputs_is_not_read():
    assert "more than features" in source_head(chemprop(), width=3)
