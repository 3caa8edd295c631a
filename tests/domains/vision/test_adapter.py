"""Foreign ResNets as chains, against their own forward pass."""

import pytest
import torch
from torch import nn

from molhpft.core.network import Batch, Network, linear_head
from molhpft.domains.vision.resnet import resnet_chain
from tests.domains.vision.foreign import (
    CifarResNet,
    TimmResNet,
    TorchvisionResNet,
    with_random_statistics,
)

FOREIGN = [TorchvisionResNet, TimmResNet, CifarResNet]
foreign = pytest.mark.parametrize("make", FOREIGN, ids=lambda make: make.__name__)


@pytest.fixture
def batch(rng):
    images = torch.randn(3, 3, 48, 48, generator=rng)
    return Batch(images, torch.zeros(3, dtype=torch.long))


def classifier(module):
    return module.fc if hasattr(module, "fc") else module.linear


@foreign
def test_the_chain_computes_what_the_module_computes_before_its_classifier(make, batch):
    module = with_random_statistics(make())
    features = resnet_chain(module)(batch.inputs, batch)
    torch.testing.assert_close(classifier(module)(features), module(batch.inputs))


@foreign
def test_features_are_as_wide_as_the_chain_says(make, batch):
    chain = resnet_chain(make())
    h = batch.inputs
    for stage in chain:
        h = stage(h, batch)
        assert h.shape[1] == stage.width
    assert h.shape == (3, chain.width)


def test_stages_are_called_by_layer_and_block():
    assert resnet_chain(CifarResNet()).names == [
        "stem",
        *(f"layer{layer}.{block}" for layer in (1, 2, 3) for block in (0, 1, 2)),
        "pool",
    ]
    assert resnet_chain(TorchvisionResNet(width=4)).names[-2:] == ["layer4.1", "pool"]


@foreign
def test_every_parameter_but_the_classifiers_keeps_its_name_below_its_stage(make):
    module = make()
    theirs = {n for n in module.state_dict() if not n.startswith(("fc.", "linear."))}
    ours = set(resnet_chain(module).state_dict())
    assert len(ours) == len(theirs)
    for name in theirs:
        top, rest = name.split(".", 1)
        if top.startswith("layer"):
            block, parameter = rest.split(".", 1)
            assert f"stages.{top}_{block}.module.{parameter}" in ours
        else:
            assert f"stages.stem.module.{name}" in ours


def test_weights_are_shared_with_the_module():
    module = TorchvisionResNet(width=4)
    chain = resnet_chain(module)
    with torch.no_grad():
        module.layer1[0].conv1.weight.fill_(7.0)
    assert (chain.state_dict()["stages.layer1_0.module.conv1.weight"] == 7).all()


@foreign
def test_adapting_leaves_modes_and_statistics_alone(make):
    module = make().train()
    module.layer1.eval()
    before = {name: value.clone() for name, value in module.state_dict().items()}
    modes = [part.training for part in module.modules()]
    resnet_chain(module)
    assert [part.training for part in module.modules()] == modes
    assert all(torch.equal(value, before[name]) for name, value in module.state_dict().items())


@foreign
def test_every_block_is_a_place_to_cut(make, batch):
    module = with_random_statistics(make())
    chain = resnet_chain(module)
    network = Network(chain, linear_head(chain.width, 2)).eval()
    whole = network(batch)
    for name in chain.names:
        assert torch.equal(network.cut(name)(batch), whole)


class PreActivation(CifarResNet):
    """Normalises after the layers instead of before: the same attributes in another order."""

    def forward(self, x):
        out = self.layer1(self.conv1(x))
        out = torch.relu(self.bn1(out))
        out = self.layer3(self.layer2(out))
        return self.linear(out.mean((2, 3)))


def test_a_module_that_uses_its_parts_in_another_order_is_refused():
    with pytest.raises(ValueError, match=r"PreActivation should compute conv1, bn1, .* something"):
        resnet_chain(with_random_statistics(PreActivation()))


@pytest.mark.parametrize("missing", ["conv1", "bn1", "layer1"])
def test_a_missing_part_is_named(missing):
    module = CifarResNet()
    delattr(module, missing)
    with pytest.raises(ValueError, match=f"CifarResNet .* of a ResNet; it has no module {missing}"):
        resnet_chain(module)


def test_a_resnet_without_classifier_is_adapted_whole(batch):
    module = with_random_statistics(TorchvisionResNet(width=4))
    module.fc = nn.Identity()
    chain = resnet_chain(module)
    torch.testing.assert_close(chain(batch.inputs, batch), module(batch.inputs))


def test_images_of_one_channel_are_adapted():
    module = CifarResNet()
    module.conv1 = nn.Conv2d(1, 16, 3, 1, 1, bias=False)
    assert resnet_chain(module).width == 64
