"""Real images and weights, which lie beside the folder of the molecules where they are at hand."""

import os
from pathlib import Path

import pytest


def _beside(folder, file):
    path = Path(os.environ.get("MOLHPFT_DATA", "")).expanduser().parent / folder / file
    if not os.environ.get("MOLHPFT_DATA") or not path.is_file():
        pytest.skip(f"real data absent: set MOLHPFT_DATA to a folder beside {folder}/{file}")
    return path


@pytest.fixture(scope="session")
def mnist_npz():
    return _beside("vision", "mnist.npz")


@pytest.fixture(scope="session")
def cifar10_zip():
    return _beside("vision", "cifar10_jpeg.zip")


@pytest.fixture(scope="session")
def resnet20_cifar10():
    return _beside("weights", "resnet20_cifar10.th")
