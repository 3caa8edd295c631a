import shutil

import numpy as np
import pytest
import torch

from molhpft.core.evaluate import take
from molhpft.core.network import Network
from molhpft.core.objectives import Multiclass
from molhpft.domains.vision.checkpoints import load_resnet, supervised_head
from molhpft.domains.vision.layouts import CIFAR10_CLASSES
from molhpft.domains.vision.resnet import cifar_resnet
from molhpft.domains.vision.tasks import corrupted, image_task
from tests.domains.vision import published
from tests.domains.vision.test_images import png, write


@pytest.fixture
def npz(tmp_path):
    rng = np.random.default_rng(0)
    x, y = rng.integers(0, 256, (200, 8, 8), dtype=np.uint8), np.arange(200) % 4
    np.savez(tmp_path / "grey.npz", x_train=x, y_train=y, x_test=x[:40], y_test=y[:40])
    return tmp_path / "grey.npz"


def rows_of(task, split):
    return task.examples.pixels[task.rows(split)]


def sizes(task):
    return {split: len(rows) for split, rows in task.splits.items()}


def test_validation_images_come_out_of_the_training_images(npz):
    task = image_task("npz", path=npz, size=8)
    assert sizes(task) == {"train": 180, "valid": 20, "test": 40}
    seen = torch.cat([rows_of(task, "train"), rows_of(task, "valid")])[:, 0]
    source = torch.from_numpy(np.load(npz)["x_train"])
    assert {x.numpy().tobytes() for x in seen} == {x.numpy().tobytes() for x in source}


def test_numbers_of_images_are_those_asked_for_with_equal_classes(npz):
    task = image_task("npz", path=npz, size=8, train=40, valid=20, test=12)
    assert sizes(task) == {"train": 40, "valid": 20, "test": 12}
    for split, each in {"train": 10, "valid": 5, "test": 3}.items():
        counts = torch.bincount(task.examples.targets[task.rows(split)])
        assert counts.tolist() == pytest.approx([each] * 4, abs=1)


def test_a_seed_decides_which_images_are_taken(npz):
    fingerprints = [image_task("npz", path=npz, train=30, seed=s).fingerprint for s in (1, 1, 2)]
    assert fingerprints[0] == fingerprints[1] != fingerprints[2]


def test_images_are_brought_to_the_layouts_size_or_the_one_asked_for(npz):
    assert rows_of(image_task("npz", path=npz), "test").shape[1:] == (3, 32, 32)
    assert rows_of(image_task("npz", path=npz, size=12), "test").shape[1:] == (3, 12, 12)


def test_a_task_is_scored_by_accuracy_and_named_after_its_source(npz):
    task = image_task("npz", path=npz)
    assert (task.name, task.outputs) == ("npz_grey", 4)
    assert task.objective == Multiclass()


def test_images_can_be_left_unnormalised(npz):
    task = image_task("npz", path=npz, size=8, normalise="none")
    batch = next(task.batches("test", size=40))
    torch.testing.assert_close(batch.inputs, rows_of(task, "test") / 255)


def test_only_training_is_augmented(npz, rng):
    task = image_task("npz", path=npz, augment="flip_crop")
    plain = image_task("npz", path=npz)
    batches = [next(t.batches("train", size=9, rng=rng)).inputs for t in (task, plain)]
    assert not torch.equal(*batches)
    batches = [next(t.batches("valid", size=9)).inputs for t in (task, plain)]
    assert torch.equal(*batches)


def test_corruptions_are_splits_of_their_own(npz):
    task = image_task("npz", path=npz, size=8, corruptions=("blur", "jpeg"), severity=5)
    assert list(task.splits) == ["train", "valid", "test", "test_blur", "test_jpeg"]
    clean = rows_of(task, "test")
    rng = torch.Generator()
    for name in ("blur", "jpeg"):
        expected = corrupted(clean, name, severity=5, rng=rng)
        assert torch.equal(rows_of(task, f"test_{name}"), expected)
        targets = [task.examples.targets[task.rows(s)] for s in ("test", f"test_{name}")]
        assert torch.equal(*targets)


def test_an_array_is_a_further_test_set(npz):
    x = np.random.default_rng(1).integers(0, 256, (6, 8, 8, 3), dtype=np.uint8)
    np.save(npz.with_name("new_data.npy"), x)
    np.save(npz.with_name("new_labels.npy"), np.arange(6) % 4)
    task = image_task("npz", path=npz, size=8, shifted=(str(npz.with_name("new_data.npy")),))
    expected = torch.from_numpy(x).permute(0, 3, 1, 2)
    assert torch.equal(rows_of(task, "new_data"), expected)


def test_another_domain_is_a_further_test_set(tmp_path):
    path = published.write_domainnet(tmp_path)
    task = image_task("domainnet", path=path, size=8, shifted=(str(tmp_path / "sketch"),), valid=1)
    assert sizes(task) == {"train": 3, "valid": 1, "test": 1, "sketch": 1}
    assert rows_of(task, "sketch")[0, 0, 4, 4] == pytest.approx(201, abs=3)
    assert task.name == "domainnet_real"


def test_a_further_test_set_may_be_a_zip_file_with_the_same_classes(tmp_path):
    tree = {f"{kind}/{k}.png": png((k, 0, 0)) for kind in ("cat", "dog") for k in range(10)}
    path = write(tmp_path / "pets", tree, zipped=False)
    good = write(tmp_path / "sketches", tree, zipped=True)
    task = image_task("folder", path=path, size=8, shifted=(str(good),))
    assert sizes(task) == {"train": 16, "valid": 2, "test": 2, "sketches": 20}
    other = write(tmp_path / "other", {"cat/1.png": png(), "cow/1.png": png()}, zipped=True)
    with pytest.raises(ValueError, match="split 'other' differs in: cow, dog"):
        image_task("folder", path=path, size=8, shifted=(str(other),))


def test_published_validation_images_stay_apart(tmp_path):
    task = image_task("flowers102", path=published.write_flowers102(tmp_path), size=8)
    assert sizes(task) == {"train": 3, "valid": 1, "test": 2}


def test_without_test_images_the_published_validation_images_are_kept_for_testing(tmp_path):
    tree = {f"train/a/{k}.png": png((k, 0, 0)) for k in range(10)} | {
        "val/a/x.png": png((99, 0, 0))
    }
    task = image_task("folder", path=write(tmp_path / "set", tree, zipped=False), size=8)
    assert sizes(task) == {"train": 9, "valid": 1, "test": 1}
    assert rows_of(task, "test")[0, 0, 0, 0] == 99


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"train": 181}, r"train is a number of images from 1 to the 180 that .*npz has .*got 181"),
        ({"valid": 0}, "valid is a number of images from 1 to the 200"),
        ({"test": 41}, "test is a number of images from 1 to the 40"),
        ({"size": 0}, "size is a side of at least 1 pixel, got 0"),
        ({"augment": "mixup"}, "no augmentation named 'mixup'; there are: none, flip_crop"),
        ({"corruptions": ("fog",)}, "no corruption named 'fog'"),
        ({"shifted": ("test.zip",)}, r"test\.zip would be a second split 'test'; rename it"),
    ],
)
def test_options_that_cannot_be_met_are_refused(options, message, npz):
    with pytest.raises(ValueError, match=message):
        image_task("npz", path=npz, **options)


def test_an_unknown_layout_names_those_that_exist(npz):
    with pytest.raises(ValueError, match="no layout of images named 'imagenet'; there are: folder"):
        image_task("imagenet", path=npz)


def test_test_images_alone_are_no_task(tmp_path):
    path = write(tmp_path / "set", {"test/a/1.png": png()}, zipped=False)
    with pytest.raises(ValueError, match="should have training images; it has: test"):
        image_task("folder", path=path)


def test_a_further_set_of_training_images_only_is_refused(tmp_path):
    tree = {f"a/{k}.png": png((k, 0, 0)) for k in range(10)}
    path = write(tmp_path / "set", tree, zipped=False)
    only = write(tmp_path / "only", {"train/a/1.png": png()}, zipped=True)
    with pytest.raises(ValueError, match="should have test images; it has: train"):
        image_task("folder", path=path, shifted=(str(only),))


def test_mnist_is_the_same_from_idx_and_npz(tmp_path):
    folder = published.write_mnist(tmp_path / "idx", train=20, test=10)
    with_test = image_task("mnist", path=folder, train=10, valid=5)
    x, y = with_test.examples.pixels, with_test.examples.targets
    arrays = {
        f"{kind}_{split}": data
        for split, n in {"train": 20, "test": 10}.items()
        for kind, data in {
            "x": published.pixels(n, 28, 28, seed=n),
            "y": np.arange(n) % 10,
        }.items()
    }
    np.savez(tmp_path / "mnist.npz", **arrays)
    other = image_task("mnist", path=tmp_path / "mnist.npz", train=10, valid=5)
    assert torch.equal(other.examples.pixels, x)
    assert torch.equal(other.examples.targets, y)
    shutil.rmtree(folder)


def test_real_mnist_is_a_task(mnist_npz):
    task = image_task("mnist", path=mnist_npz, train=1000, valid=500, test=500)
    assert sizes(task) == {"train": 1000, "valid": 500, "test": 500}
    counts = torch.bincount(task.examples.targets[task.rows("train")])
    assert counts.tolist() == pytest.approx([98, 112, 99, 102, 97, 90, 99, 105, 98, 99], abs=3)


@pytest.fixture(scope="module")
def public_resnet20(resnet20_cifar10):
    backbone = cifar_resnet(depth=20)
    load_resnet(backbone, resnet20_cifar10)
    return Network(backbone, supervised_head(resnet20_cifar10))


def score(network, task, split):
    snapshot = take(network, task.batches(split, size=500))
    return task.objective.score(snapshot.logits, snapshot.targets)


def test_the_public_resnet20_classifies_cifar10(cifar10_zip, public_resnet20):
    task = image_task("folder", path=cifar10_zip, train=100, valid=100)
    assert task.target_names == CIFAR10_CLASSES
    assert len(task.rows("test")) == 5000
    assert score(public_resnet20, task, "test") >= 0.805


def test_corruptions_cost_the_public_resnet20_accuracy(cifar10_zip, public_resnet20):
    options = {"train": 50, "valid": 50, "test": 300}
    names = ("noise", "blur", "contrast", "jpeg")
    task = image_task("folder", path=cifar10_zip, corruptions=names, severity=5, **options)
    clean = score(public_resnet20, task, "test")
    for name in names:
        assert score(public_resnet20, task, f"test_{name}") < clean - 0.04
