"""ResNets against published sizes, and foreign ones as chains against their own forward pass."""

import importlib
import re

import pytest
import torch
from torch import nn
from torch.nn import functional

from molhpft.core.network import Batch
from molhpft.domains.vision.resnet import PadShortcut, cifar_resnet, resnet, resnet_chain
from tests.domains.vision.foreign import (
    CifarResNet,
    TimmResNet,
    TorchvisionResNet,
    with_random_statistics,
)


def batch_of(*shape):
    images = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    return Batch(images, torch.zeros(len(images), dtype=torch.long))


def parameters(chain):
    return sum(p.numel() for p in chain.parameters())


@pytest.mark.parametrize(("depth", "millions"), [(20, 0.27), (32, 0.46), (44, 0.66), (56, 0.85)])
def test_cifar_resnets_have_the_size_that_he_et_al_give(depth, millions):
    classifier = 64 * 10 + 10
    assert round((parameters(cifar_resnet(depth=depth)) + classifier) / 1e6, 2) == millions


@pytest.mark.parametrize(
    ("depth", "with_classifier", "width"),
    [(18, 11_689_512, 512), (34, 21_797_672, 512), (50, 25_557_032, 2048)],
)
def test_imagenet_resnets_have_the_size_that_torchvision_gives(depth, with_classifier, width):
    chain = resnet(depth=depth)
    assert chain.width == width
    assert parameters(chain) + 1000 * width + 1000 == with_classifier


@pytest.mark.parametrize(
    ("make", "reference"),
    [(cifar_resnet, CifarResNet), (lambda: resnet(depth=18), TorchvisionResNet)],
    ids=["cifar", "imagenet"],
)
def test_the_same_weights_compute_the_same_features(make, reference):
    module, chain, batch = (
        with_random_statistics(reference()),
        make().eval(),
        batch_of(2, 3, 40, 40),
    )
    theirs = {n: v for n, v in module.state_dict().items() if not n.startswith(("fc.", "linear."))}
    chain.load_state_dict(dict(zip(chain.state_dict(), theirs.values(), strict=True)))
    features = chain(batch.inputs, batch)
    torch.testing.assert_close(classifier(module)(features), module(batch.inputs))


@pytest.mark.parametrize("depth", [18, 50])
@pytest.mark.parametrize("stride", [8, 16, 32])
def test_the_feature_map_is_smaller_by_the_output_stride(depth, stride):
    chain, batch = resnet(depth=depth, output_stride=stride).eval(), batch_of(1, 3, 64, 96)
    feature_map = chain.split("pool")[0](batch.inputs, batch)
    assert feature_map.shape == (1, chain.width, 64 // stride, 96 // stride)


@pytest.mark.parametrize("depth", [18, 50])
def test_dilation_computes_the_strided_features_in_between(depth):
    """Every 4th step of the dense map is the strided map: the weights see what they always saw."""
    strided, dense = resnet(depth=depth).eval(), resnet(depth=depth, output_stride=8).eval()
    dense.load_state_dict(strided.state_dict())
    batch = batch_of(1, 3, 128, 128)
    # in float64: how float32 sums of fifty layers are rounded is another matter on every processor
    parts = [chain.double().split("pool")[0] for chain in (strided, dense)]
    maps = [part(batch.inputs.double(), batch) for part in parts]
    torch.testing.assert_close(maps[1][:, :, ::4, ::4], maps[0])


def published_resnet18_for_cifar(weights, images):
    """A forward pass of what is called ResNet-18 for CIFAR, from weights of torchvision's names."""

    def norm(h, name):
        numbers = (
            weights[f"{name}.{k}"] for k in ("running_mean", "running_var", "weight", "bias")
        )
        return functional.batch_norm(h, *numbers)

    def block(h, name, stride):
        out = functional.conv2d(h, weights[f"{name}.conv1.weight"], stride=stride, padding=1)
        out = norm(out, f"{name}.bn1").relu()
        out = norm(
            functional.conv2d(out, weights[f"{name}.conv2.weight"], padding=1), f"{name}.bn2"
        )
        if f"{name}.downsample.0.weight" in weights:
            h = functional.conv2d(h, weights[f"{name}.downsample.0.weight"], stride=stride)
            h = norm(h, f"{name}.downsample.1")
        return (out + h).relu()

    h = functional.conv2d(images, weights["conv1.weight"], padding=1)
    h = norm(h, "bn1").relu()
    for k, stride in enumerate((1, 2, 2, 2), start=1):
        h = block(block(h, f"layer{k}.0", stride), f"layer{k}.1", 1)
    return h.mean((2, 3))


def in_torchvisions_names(chain):
    names = {n: re.sub(r"stages\.(layer\d)_(\d+)\.module", r"\1.\2", n) for n in chain.state_dict()}
    renamed = {n: new.removeprefix("stages.stem.module.") for n, new in names.items()}
    return {renamed[n]: value for n, value in chain.state_dict().items()}


def test_resnet_18_for_cifar_is_a_3_x_3_stem_without_pool_and_imagenets_layers():
    chain, batch = with_random_statistics(cifar_resnet(depth=18)), batch_of(2, 3, 32, 32)
    expected = published_resnet18_for_cifar(in_torchvisions_names(chain), batch.inputs)
    torch.testing.assert_close(chain(batch.inputs, batch), expected)
    # 11,173,962 as pytorch-cifar and others print it, with their classifier
    assert parameters(chain) + 512 * 10 + 10 == 11_173_962
    assert chain.split("pool")[0](batch.inputs, batch).shape == (2, 512, 4, 4)


@pytest.mark.parametrize(("depth", "width"), [(34, 512), (50, 2048)])
def test_deeper_ones_for_cifar_differ_from_imagenets_in_the_stem_alone(depth, width):
    cifar, imagenet = cifar_resnet(depth=depth).state_dict(), resnet(depth=depth).state_dict()
    assert {n: t.shape for n, t in cifar.items() if "stem" not in n} == {
        n: t.shape for n, t in imagenet.items() if "stem" not in n
    }
    assert cifar["stages.stem.module.conv1.weight"].shape == (64, 3, 3, 3)
    assert cifar_resnet(depth=depth).width == width


def test_timms_resnet_18_with_a_cifar_stem_computes_the_same():
    try:
        timm = importlib.import_module("timm")
    except (ImportError, RuntimeError) as error:
        # its torchvision registers operators that a torch without CUDA may lack
        pytest.skip(f"timm cannot be imported: {error}")
    module = timm.create_model("resnet18", num_classes=10)
    module.conv1, module.maxpool = nn.Conv2d(3, 64, 3, padding=1, bias=False), nn.Identity()
    module, batch = with_random_statistics(module), batch_of(2, 3, 32, 32)
    chain = cifar_resnet(depth=18).eval()
    theirs = {n: v for n, v in module.state_dict().items() if not n.startswith("fc.")}
    chain.load_state_dict(dict(zip(chain.state_dict(), theirs.values(), strict=True)))
    torch.testing.assert_close(module.fc(chain(batch.inputs, batch)), module(batch.inputs))


def test_blocks_answer_to_the_names_of_the_paper_too():
    chain = resnet(depth=50)
    assert [chain.stage_name(f"L4.{k}") for k in (1, 2, 3)] == ["layer4.0", "layer4.1", "layer4.2"]
    assert chain.split("L4.3")[0].names == chain.split("layer4.2")[0].names
    with pytest.raises(
        ValueError, match=r"'L4\.4'; .*layer4\.1 \(L4\.2\), layer4\.2 \(L4\.3\), pool$"
    ):
        chain.split("L4.4")
    with pytest.raises(ValueError, match=r"'L4\.3'"):  # which is above the cut
        chain.split("L4.2")[0].split("L4.3")


def test_a_resnet_can_be_laid_out_without_weights():
    with torch.device("meta"):
        assert resnet(depth=18).names == cifar_resnet(depth=18).names


def test_one_channel_is_enough():
    batch = batch_of(2, 1, 32, 32)
    assert cifar_resnet(channels=1).eval()(batch.inputs, batch).shape == (2, 64)


def test_the_padded_shortcut_keeps_every_second_pixel_and_adds_zeros_on_both_sides():
    x = torch.arange(2.0 * 4 * 4).reshape(1, 2, 4, 4)
    y = PadShortcut(2)(x)
    assert torch.equal(y[:, 1:3], x[:, :, ::2, ::2])
    assert (y[:, [0, 3]] == 0).all()


def test_a_fresh_network_neither_explodes_nor_vanishes():
    torch.manual_seed(0)
    batch = batch_of(8, 3, 32, 32)
    for chain in (cifar_resnet(depth=56), resnet(depth=50)):
        h = chain.train()(batch.inputs, batch)
        assert 1e-2 < h.norm(dim=1).mean() / chain.width**0.5 < 1e2


FOREIGN = [TorchvisionResNet, TimmResNet, CifarResNet]


foreign = pytest.mark.parametrize("make", FOREIGN, ids=lambda make: make.__name__)


@pytest.fixture
def batch():
    return batch_of(3, 3, 48, 48)


def classifier(module):
    return module.fc if hasattr(module, "fc") else module.linear


@foreign
def test_the_chain_computes_what_the_module_computes_before_its_classifier(make, batch):
    module = with_random_statistics(make())
    features = resnet_chain(module)(batch.inputs, batch)
    torch.testing.assert_close(classifier(module)(features), module(batch.inputs))


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
