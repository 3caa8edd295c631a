"""Our own ResNets, against parameter counts and layouts that are published for them."""

import pytest
import torch

from molhpft.core.network import Batch
from molhpft.domains.vision.resnet import PadShortcut, cifar_resnet, resnet
from tests.domains.vision.foreign import CifarResNet, TorchvisionResNet, with_random_statistics


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


def test_names_and_shapes_are_torchvisions():
    ours = resnet(depth=18).state_dict()
    for name, value in TorchvisionResNet().state_dict().items():
        if name.startswith("layer"):
            layer, block, rest = name.split(".", 2)
            assert ours[f"stages.{layer}_{block}.module.{rest}"].shape == value.shape
        elif not name.startswith("fc."):
            assert ours[f"stages.stem.module.{name}"].shape == value.shape


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
    classifier = module.linear if hasattr(module, "linear") else module.fc
    torch.testing.assert_close(classifier(chain(batch.inputs, batch)), module(batch.inputs))


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
    maps = [chain.split("pool")[0](batch.inputs, batch) for chain in (strided, dense)]
    torch.testing.assert_close(maps[1][:, :, ::4, ::4], maps[0], rtol=1e-3, atol=1e-4)


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
