"""Which images train, validate and test; corrupted and shifted test sets; real data."""

from itertools import chain
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file

from molhpft.core.network import Network, linear_head
from molhpft.core.objectives import Multiclass
from molhpft.domains.vision.checkpoints import load_resnet, supervised_head
from molhpft.domains.vision.examples import Labelled
from molhpft.domains.vision.layouts import CIFAR10_CLASSES, LAYOUTS
from molhpft.domains.vision.resnet import cifar_resnet
from molhpft.domains.vision.tasks import (
    CORRUPTIONS,
    choose_images,
    corrupted,
    image_task,
    stratified_order,
)
from molhpft.tuning.fit import fit, score
from molhpft.tuning.frozen_features import on_features
from molhpft.tuning.phase import Phase
from molhpft.tuning.probe import probe
from tests.domains.vision import published
from tests.domains.vision.test_images import png, write

NONE = {"train": None, "valid": None, "test": None}


@settings(max_examples=30, deadline=None)
@given(counts=st.lists(st.integers(0, 12), min_size=1, max_size=4), seed=st.integers(0, 99))
def test_every_beginning_has_the_class_proportions_of_the_whole(counts, seed):
    targets = torch.arange(len(counts)).repeat_interleave(torch.tensor(counts))
    order = stratified_order(targets, rng=torch.Generator().manual_seed(seed))
    assert order.sort().values.tolist() == list(range(len(targets)))
    for n in range(len(targets) + 1):
        seen = torch.bincount(targets[order[:n]], minlength=len(counts))
        expected = torch.tensor(counts) * n / max(1, len(targets))
        assert ((seen - expected).abs() <= len(counts)).all()


def test_equal_classes_are_divided_equally():
    targets = torch.arange(1000) % 10
    order = stratified_order(targets, rng=torch.Generator().manual_seed(0))
    assert torch.bincount(targets[order[:100]]).tolist() == pytest.approx([10] * 10, abs=1)


def numbered(first, n):
    """Images that show their own number."""
    pixels = torch.arange(first, first + n, dtype=torch.uint8)[:, None, None, None]
    return Labelled(pixels, torch.arange(n) % 2, ("even", "odd"))


def chosen(sources, **sizes):
    rng = torch.Generator().manual_seed(0)
    parts = choose_images(sources, NONE | sizes, place=Path("place"), rng=rng)
    return {split: part.pixels.flatten().tolist() for split, part in parts.items()}


def test_nothing_is_chosen_twice_and_nothing_is_lost():
    found = chosen({"all": numbered(0, 50)})
    assert {split: len(rows) for split, rows in found.items()} == {
        "train": 40,
        "valid": 5,
        "test": 5,
    }
    assert sorted(chain.from_iterable(found.values())) == list(range(50))


@pytest.mark.parametrize("layout", LAYOUTS)
def test_absent_images_are_one_sentence_on_what_should_be_there_and_where_it_is(layout, tmp_path):
    with pytest.raises(FileNotFoundError) as refused:
        image_task(layout, path=tmp_path / "absent")
    message = str(refused.value)
    assert message.startswith(f"no images of {layout} at {tmp_path / 'absent'} (")
    assert LAYOUTS[layout].expects in message
    assert LAYOUTS[layout].published in message
    assert ("published at http" in message) == (layout not in ("folder", "npz"))
    assert "\n" not in message


def test_some_classes_are_the_first_of_every_split_and_of_shifted_sets(tmp_path):
    path = published.write_domainnet(tmp_path)
    sketch = str(tmp_path / "sketch")
    task = image_task("domainnet", path=path, size=8, valid=1, shifted=(sketch,))
    with pytest.raises(ValueError, match="classes is a number from 1 to the 2 that there are, got"):
        image_task("domainnet", path=path, size=8, classes=3)
    (tmp_path / "real_test.txt").write_text("real/aircraft carrier/real_000_train0.jpg 0\n")
    (tmp_path / "sketch_test.txt").write_text(
        "sketch/aircraft carrier/sketch_000_train0.jpg 0\nsketch/zebra/sketch_001_test0.jpg 1\n"
    )
    some = image_task("domainnet", path=path, size=8, valid=1, classes=1, shifted=(sketch,))
    assert (task.outputs, some.outputs) == (2, 1)
    assert some.target_names == ("aircraft carrier",)
    sizes = {split: len(rows) for split, rows in some.splits.items()}
    assert sizes == {"train": 1, "valid": 1, "test": 1, "sketch": 1}
    assert (some.examples.targets == 0).all()


def test_each_split_comes_from_the_published_one_where_there_is_one():
    sources = {"train": numbered(0, 20), "valid": numbered(100, 4), "test": numbered(200, 6)}
    found = chosen(sources, train=10, test=3)
    assert len(found["train"]) == 10
    assert max(found["train"]) < 20
    assert found["valid"] == [100, 101, 102, 103]
    assert len(found["test"]) == 3
    assert min(found["test"]) >= 200


def test_test_images_are_never_used_to_validate():
    found = chosen({"train": numbered(0, 20), "test": numbered(200, 6)}, valid=7)
    assert found["test"] == list(range(200, 206))
    assert len(found["valid"]) == 7
    assert max(found["valid"]) < 20
    assert not set(found["valid"]) & set(found["train"])


def test_rows_keep_the_order_of_their_source():
    found = chosen({"all": numbered(0, 60)})
    assert all(rows == sorted(rows) for rows in found.values())


def test_a_single_image_cannot_serve_three_splits():
    with pytest.raises(ValueError, match="test is a number of images from 1 to the 0 that place"):
        chosen({"all": numbered(0, 1)})


@pytest.fixture(scope="module")
def smooth():
    """Images with large and small structure, far from black and white."""
    noise = torch.randn(6, 3, 48, 48, generator=torch.Generator().manual_seed(0))
    coarse = torch.nn.functional.interpolate(noise[:, :, ::8, ::8], size=48, mode="bilinear")
    return (128 + 35 * coarse + 8 * noise).clamp(10, 245).byte()


def corrupt(pixels, name, severity=3, seed=0):
    return corrupted(pixels, name, severity=severity, rng=torch.Generator().manual_seed(seed))


def error(a, b):
    return (a.float() - b.float()).square().mean().sqrt().item()


@pytest.mark.parametrize("name", CORRUPTIONS)
def test_each_severity_takes_images_further_away(name, smooth):
    errors = [error(corrupt(smooth, name, severity), smooth) for severity in range(1, 6)]
    assert errors == sorted(errors)
    assert 0.5 < errors[0] < errors[-1] < 100


@pytest.mark.parametrize("name", CORRUPTIONS)
def test_the_images_themselves_are_left_alone(name, smooth):
    before = smooth.clone()
    result = corrupt(smooth, name, 5)
    assert torch.equal(smooth, before)
    assert (result.shape, result.dtype) == (smooth.shape, torch.uint8)
    assert corrupt(smooth[:, :1], name).shape == (6, 1, 48, 48)


def test_noise_has_the_published_std():
    grey = torch.full((20, 3, 32, 32), 128, dtype=torch.uint8)
    result = corrupt(grey, "noise", severity=5)
    assert (result.float() - 128).std() == pytest.approx(0.10 * 255, rel=0.02)
    assert result.float().mean() == pytest.approx(128, abs=0.5)
    assert not torch.equal(result, corrupt(grey, "noise", severity=5, seed=1))


def test_blur_keeps_the_mean_and_spreads_a_point_alike_in_both_directions():
    point = torch.zeros(1, 1, 21, 21, dtype=torch.uint8)
    point[0, 0, 10, 10] = 255
    result = corrupt(point, "blur", severity=5)[0, 0].float()
    assert torch.equal(result, result.T)
    assert torch.equal(result, result.flip(0))
    # the middle of a Gaussian with sigma 1 in two dimensions
    assert result[10, 10] == pytest.approx(255 / (2 * torch.pi), abs=2)
    assert result.sum() == pytest.approx(255, rel=0.05)


def test_contrast_pulls_each_channel_to_its_mean(smooth):
    result = corrupt(smooth, "contrast", severity=2).float()
    mean = smooth.float().mean((2, 3), keepdim=True)
    torch.testing.assert_close(result - mean, (smooth.float() - mean) / 2, rtol=0, atol=0.51)


def test_brightness_keeps_hues_and_lifts_black():
    colours = torch.tensor([[100, 50, 0], [0, 0, 0], [250, 125, 25]], dtype=torch.uint8)
    result = corrupt(colours[:, :, None, None], "brightness", severity=2)[:, :, 0, 0]
    assert result.tolist() == [
        [126, 63, 0],  # the largest grows by a tenth of 255, the others in proportion
        [26, 26, 26],
        [255, 128, 26],
    ]


def test_a_flat_image_survives_recompression():
    flat = torch.full((1, 3, 16, 16), 90, dtype=torch.uint8)
    assert error(corrupt(flat, "jpeg", 5), flat) <= 1


@pytest.mark.parametrize(
    ("name", "severity", "message"),
    [
        ("fog", 1, "no corruption named 'fog'; there are: noise, blur, contrast, brightness, jpeg"),
        ("blur", 0, "severity lies from 1 to 5, got 0"),
        ("blur", 6, "severity lies from 1 to 5, got 6"),
    ],
)
def test_unknown_corruptions_and_severities_are_refused(name, severity, message, smooth):
    with pytest.raises(ValueError, match=message):
        corrupt(smooth, name, severity)


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


@pytest.fixture(scope="module")
def public_resnet20(resnet20_cifar10):
    backbone = cifar_resnet(depth=20)
    load_resnet(backbone, resnet20_cifar10)
    return Network(backbone, supervised_head(resnet20_cifar10))


@pytest.mark.slow
def test_the_public_resnet20_classifies_cifar10(cifar10_zip, public_resnet20):
    task = image_task("folder", path=cifar10_zip, train=100, valid=100)
    assert task.target_names == CIFAR10_CLASSES
    assert len(task.rows("test")) == 5000
    assert score(public_resnet20, task, "test") >= 0.805


@pytest.mark.slow
def test_corruptions_cost_the_public_resnet20_accuracy(cifar10_zip, public_resnet20):
    options = {"train": 50, "valid": 50, "test": 300}
    names = ("noise", "blur", "contrast", "jpeg")
    task = image_task("folder", path=cifar10_zip, corruptions=names, severity=5, **options)
    clean = score(public_resnet20, task, "test")
    for name in names:
        assert score(public_resnet20, task, f"test_{name}") < clean - 0.04


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
    heads = probe(head, phase, cached, taus=[20], rng=torch.Generator().manual_seed(0)).heads
    network.head.load_state_dict(heads[20])
    return score(network, task, "test")


@pytest.mark.slow
def test_the_usual_recipe_pretrains_a_resnet(pretrained):
    assert pretrained[1] > 0.9


@pytest.mark.slow
def test_a_pretrained_backbone_is_probed_better_than_a_random_one(tasks, pretrained):
    torch.manual_seed(1)
    random, loaded = cifar_resnet(), cifar_resnet()
    load_resnet(loaded, pretrained[0])
    assert probed(loaded, tasks["new"]) > probed(random, tasks["new"]) + 0.1


@pytest.mark.slow
def test_a_head_is_probed_on_cached_views_of_images(tasks, pretrained):
    backbone = cifar_resnet()
    load_resnet(backbone, pretrained[0])
    rng = torch.Generator().manual_seed(0)
    assert probed(backbone, tasks["old"], views=2, rng=rng) > 0.9
