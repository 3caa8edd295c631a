"""The usual supervised recipe (SGD, momentum, cosine, weight decay), and what it is good for."""

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from molhpft.core.network import Network, linear_head
from molhpft.domains.vision.checkpoints import load_resnet
from molhpft.domains.vision.resnet import cifar_resnet
from molhpft.domains.vision.tasks import image_task
from molhpft.tuning.fit import fit, score
from molhpft.tuning.frozen_features import on_features
from molhpft.tuning.phase import Phase
from molhpft.tuning.probe import probe

RECIPE = Phase(
    **{"trains": "all", "epochs": 6, "lr": 0.1, "batch_size": 32},
    **{"optimizer": "sgd", "schedule": "cosine", "weight_decay": 5e-4},
)


def stripes(n, periods, seed):
    """Images of stripes, the period is the class; direction of light, phase and noise are not."""
    rng = np.random.default_rng(seed)
    y = np.arange(n) % len(periods)
    phase, sign = rng.random((n, 1, 1)), rng.choice([-1, 1], (n, 1, 1))
    angle = np.arange(16)[None, None] / np.array(periods)[y][:, None, None] + phase
    x = 128 + 60 * sign * np.sin(2 * np.pi * angle) + rng.normal(0, 25, (n, 16, 16))
    return x.clip(0, 255).astype(np.uint8), y


@pytest.fixture(scope="module")
def tasks(tmp_path_factory):
    """Stripes of three periods to pretrain on, and of three others for the new task."""
    folder = tmp_path_factory.mktemp("stripes")
    made = {}
    for name, periods, n, augment in (
        ("old", (2, 4, 8), 360, "flip_crop"),
        ("new", (3, 5, 12), 90, "none"),
    ):
        x, y = stripes(n, periods, seed=len(periods) * n)
        test_x, test_y = stripes(90, periods, seed=1)
        np.savez(folder / f"{name}.npz", x_train=x, y_train=y, x_test=test_x, y_test=test_y)
        made[name] = image_task("npz", path=folder / f"{name}.npz", size=16, augment=augment)
    return made


@pytest.fixture(scope="module")
def pretrained(tasks, tmp_path_factory):
    """The file of a ResNet-20 pretrained with the recipe, and its score."""
    torch.manual_seed(0)
    network = Network(cifar_resnet(), linear_head(64, 3))
    fit(network, RECIPE, tasks["old"], rng=torch.Generator().manual_seed(0))
    path = tmp_path_factory.mktemp("weights") / "model.safetensors"
    save_file(network.state_dict(), path)
    return path, score(network, tasks["old"], "test")


def probed(backbone, task, **options):
    network = Network(backbone, linear_head(64, 3))
    head, cached = on_features(network, task, **options)
    phase = Phase(trains="head", epochs=20, lr=0.01, batch_size=32)
    probe(head, phase, cached, taus=[20], rng=torch.Generator().manual_seed(0))
    return score(network, task, "test")


def test_the_usual_recipe_pretrains_a_resnet(pretrained):
    assert pretrained[1] > 0.9


def test_a_pretrained_backbone_is_probed_better_than_a_random_one(tasks, pretrained):
    torch.manual_seed(1)
    random, loaded = cifar_resnet(), cifar_resnet()
    load_resnet(loaded, pretrained[0])
    assert probed(loaded, tasks["new"]) > probed(random, tasks["new"]) + 0.1


def test_a_head_is_probed_on_cached_views_of_images(tasks, pretrained):
    backbone = cifar_resnet()
    load_resnet(backbone, pretrained[0])
    rng = torch.Generator().manual_seed(0)
    assert probed(backbone, tasks["old"], views=2, rng=rng) > 0.9
