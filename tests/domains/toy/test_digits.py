"""Handwritten digits: their sources, turns and cuts, and the tasks and the network on them."""

import io
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from sklearn.datasets import load_digits
from torch.nn import functional as F

from molhpft.core.network import Network, linear_head
from molhpft.domains.toy.digits import (
    SIDE,
    load_pictures,
    load_toy_mlp,
    toy_mlp,
    toy_pretrain_task,
    toy_task,
    turned_and_cut,
)
from tests.toy import same_weights

DATA = Path(os.environ.get("MOLHPFT_DATA", "")).expanduser()


def write_mnist(path, *, train=12, test=4, **changes):
    """A tiny file in MNIST's layout; picture i is all of shade i."""
    n = train + test
    pixels = np.broadcast_to(np.arange(n, dtype=np.uint8)[:, None, None], (n, SIDE, SIDE))
    digits = (np.arange(n) % 10).astype(np.uint8)
    arrays = {
        "x_train": pixels[:train],
        "y_train": digits[:train],
        "x_test": pixels[train:],
        "y_test": digits[train:],
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    np.savez(path, **{k: v for k, v in {**arrays, **changes}.items() if v is not None})
    return path


@pytest.fixture(autouse=True)
def alone(monkeypatch, tmp_path):
    """A data folder with no MNIST beside it, so that every test runs anywhere and fast."""
    monkeypatch.setenv("MOLHPFT_DATA", str(tmp_path / "ogb"))
    return tmp_path


def dot(*, x, y):
    picture = torch.zeros(1, SIDE, SIDE, dtype=torch.uint8)
    picture[0, y : y + 2, x : x + 2] = 255
    return picture


def radius(pictures):
    """Distance of the centre of all ink from the middle of the picture, in pixels, (n,)."""
    ink = pictures.double() / pictures.double().sum((1, 2), keepdim=True)
    at = torch.arange(SIDE) - (SIDE - 1) / 2
    return torch.hypot((ink.sum(1) * at).sum(1), (ink.sum(2) * at).sum(1))


def test_digits_stand_in_where_no_mnist_lies_beside_the_data_folder(alone):
    assert load_pictures(None).source == "digits"


def test_mnist_beside_the_data_folder_is_found(alone):
    write_mnist(alone / "vision" / "mnist.npz")
    assert load_pictures(None).source == "mnist"


@pytest.mark.parametrize("source", ["digits", "mnist"])
def test_every_picture_is_in_one_split(source, alone):
    pictures = load_pictures(write_mnist(alone / "a.npz") if source == "mnist" else None)
    rows = torch.cat(list(pictures.splits.values()))
    assert sorted(rows.tolist()) == list(range(len(pictures.digits)))
    assert list(pictures.splits) == ["train", "valid", "test"]


def test_the_test_pictures_of_mnist_test_and_a_sixth_of_the_others_validates(alone):
    pictures = load_pictures(write_mnist(alone / "a.npz", train=60, test=7))
    assert {k: len(rows) for k, rows in pictures.splits.items()} == {
        "train": 50,
        "valid": 10,
        "test": 7,
    }
    assert pictures.splits["test"].min() == 60


def test_labels_stay_with_their_pictures(alone):
    pictures = load_pictures(write_mnist(alone / "a.npz"))
    assert torch.equal(pictures.digits, pictures.pixels[:, 0, 0].long() % 10)


def test_a_file_sorted_by_class_does_not_make_a_split_of_few_classes(alone):
    sorted_digits = (np.arange(60) // 6).astype(np.uint8)
    pictures = load_pictures(write_mnist(alone / "a.npz", train=60, y_train=sorted_digits))
    assert pictures.digits[pictures.splits["valid"]].unique().numel() > 3


def test_digits_scaled_up_and_down_again_are_those_of_scikit_learn(alone):
    large = load_pictures(None).pixels.float()[:, None] / 255
    small = F.interpolate(large, size=(8, 8), mode="area")[:, 0] * 16
    true = torch.from_numpy(load_digits().images).float()
    assert torch.corrcoef(torch.stack([small.flatten(), true.flatten()]))[0, 1] > 0.95


def test_an_absent_file_is_an_error_and_not_another_data_set(alone):
    with pytest.raises(FileNotFoundError, match=r"no MNIST at .*leave mnist out"):
        load_pictures(alone / "absent.npz")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"y_test": None}, "should be an .npz file with x_train, y_train, x_test, y_test"),
        (
            {"x_test": np.zeros((4, 8, 8), np.uint8)},
            r"28 x 28 pixels, one a label, got torch\.uint8",
        ),
        ({"x_train": np.zeros((12, 28, 28))}, "should hold 8-bit pictures"),
        ({"y_train": np.zeros(5, np.uint8)}, r"\(12, 28, 28\) for 5 labels"),
        ({"y_train": np.array([None] * 12)}, "reading it gave: Object arrays cannot be loaded"),
    ],
)
def test_a_file_that_is_not_mnist_says_what_is_wrong(alone, changes, message):
    with pytest.raises(ValueError, match=message):
        load_pictures(write_mnist(alone / "a.npz", **changes))


def lone_array():
    file = io.BytesIO()
    np.save(file, np.zeros(3))
    return file.getvalue()


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04broken", b"no archive", lone_array()])
def test_a_file_that_is_no_archive_is_refused(alone, content):
    path = alone / "a.npz"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"a\.npz should be an \.npz file"):
        load_pictures(path)


def test_no_turn_and_no_cut_leave_pictures_as_they_are(rng, alone):
    pixels = load_pictures(None).pixels[:20]
    assert torch.equal(turned_and_cut(pixels, degrees=0, crop=SIDE, rng=rng), pixels)


def test_a_turn_keeps_the_distance_from_the_middle(rng):
    turned = turned_and_cut(dot(x=20, y=8).expand(30, -1, -1), degrees=180, crop=SIDE, rng=rng)
    expected = radius(dot(x=20, y=8)).expand(30)
    torch.testing.assert_close(radius(turned), expected, atol=0.1, rtol=0)


def test_a_turn_stays_within_its_degrees(rng):
    turned = turned_and_cut(dot(x=24, y=13).expand(50, -1, -1), degrees=30, crop=SIDE, rng=rng)
    ink = turned.double() / turned.double().sum((1, 2), keepdim=True)
    at = torch.arange(SIDE) - (SIDE - 1) / 2
    angles = torch.atan2((ink.sum(2) * at).sum(1), (ink.sum(1) * at).sum(1)).rad2deg()
    assert angles.abs().max() < 31
    assert angles.min() < -15
    assert angles.max() > 15


def test_a_cut_enlarges_by_no_more_than_asked(rng):
    cut = turned_and_cut(dot(x=17, y=13).expand(50, -1, -1), degrees=0, crop=14, rng=rng)
    growth = radius(cut) / radius(dot(x=17, y=13))
    assert growth.min() >= 0.99
    assert 1.5 < growth.max() <= 2.01


def test_the_same_generator_draws_the_same_turns():
    pixels = dot(x=20, y=8).expand(5, -1, -1)
    first, second = (
        turned_and_cut(pixels, degrees=90, crop=20, rng=torch.Generator().manual_seed(3))
        for _ in range(2)
    )
    assert torch.equal(first, second)


def test_the_real_mnist_has_its_known_size():
    path = DATA.parent / "vision" / "mnist.npz"
    if not path.is_file():
        pytest.skip("MNIST absent: no vision/mnist.npz beside the folder MOLHPFT_DATA")
    pictures = load_pictures(path)
    assert [len(rows) for rows in pictures.splits.values()] == [50_000, 10_000, 10_000]
    # counts of 0-9 among the test pictures, from the data set's own description
    counts = pictures.digits[pictures.splits["test"]].bincount().tolist()
    assert counts == [980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009]


def test_a_file_with_a_damaged_middle_is_refused(alone):
    path = write_mnist(alone / "a.npz")
    content = bytearray(path.read_bytes())
    content[200:400] = b"x" * 200
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"a\.npz should be an \.npz file"):
        load_pictures(path)


def pictures_of(task, split):
    """The pictures of a split, as bytes."""
    return [row.numpy().tobytes() for row in task.examples.inputs[task.rows(split)]]


def unchanged(**options):
    """The downstream task without turns and cuts."""
    return toy_task(degrees=0, crop=28, **{"per_class": 30, **options})


def test_names_say_whose_digits_they_are(tmp_path):
    path = write_mnist(tmp_path / "a.npz", train=600, test=60)
    names = [task.name for task in (toy_pretrain_task(mnist=path), toy_task(mnist=path))]
    assert names == ["toy_mnist_pretrain", "toy_mnist"]
    names = [task.name for task in (toy_pretrain_task(), toy_task(per_class=2))]
    assert names == ["toy_digits_pretrain", "toy_digits"]


def test_pretraining_tells_ten_digits_apart_in_every_split():
    task = toy_pretrain_task()
    assert task.outputs == 10
    for split in ("train", "valid", "test"):
        assert task.examples.targets[task.rows(split)].unique().tolist() == list(range(10))


def test_every_split_has_as_many_pictures_of_each_class():
    task = toy_task(per_class=17, classes=(3, 8, 9, 0))
    for split in ("train", "valid", "test"):
        assert task.examples.targets[task.rows(split)].bincount().tolist() == [17] * 4
    assert task.outputs == 4
    assert task.target_names == ("3", "8", "9", "0")


def test_a_label_is_the_place_of_the_digit_among_the_classes():
    source, task = toy_pretrain_task(), unchanged(classes=(7, 1))
    digit_of = dict(
        zip(
            (row.numpy().tobytes() for row in source.examples.inputs),
            source.examples.targets.tolist(),
            strict=True,
        )
    )
    shown = [digit_of[picture] for picture in pictures_of(task, "train")]
    assert shown == [(7, 1)[label] for label in task.examples.targets[task.rows("train")]]


@pytest.mark.parametrize("split", ["train", "valid", "test"])
def test_a_downstream_split_shows_pictures_of_the_same_split_of_pretraining(split):
    assert set(pictures_of(unchanged(), split)) <= set(pictures_of(toy_pretrain_task(), split))


def test_nothing_that_is_tested_on_was_trained_on():
    trained = set(pictures_of(toy_pretrain_task(), "train")) | set(
        pictures_of(unchanged(), "train")
    )
    assert not trained & set(pictures_of(unchanged(), "test"))
    assert not trained & set(pictures_of(unchanged(), "valid"))


@pytest.mark.parametrize("option", [{"seed": 1}, {"degrees": 10.0}, {"crop": 25}, {"per_class": 6}])
def test_other_data_have_another_fingerprint(option):
    plain = {"per_class": 5}
    assert toy_task(**plain).fingerprint == toy_task(**plain).fingerprint
    assert toy_task(**plain).fingerprint != toy_task(**{**plain, **option}).fingerprint


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ({"classes": (1,)}, r"two or more different digits of 0-9, got \[1\]"),
        ({"classes": (1, 1)}, r"different digits of 0-9, got \[1, 1\]"),
        ({"classes": (1, 10)}, r"digits of 0-9, got \[1, 10\]"),
        ({"per_class": 0}, "per_class is at least 1, got 0"),
        ({"degrees": 181.0}, r"degrees lie in \[0, 180\], got 181"),
        ({"degrees": float("nan")}, r"degrees lie in \[0, 180\], got nan"),
        ({"crop": 29}, "crop is a side of 1 to 28 pixels, got 29"),
    ],
)
def test_an_option_out_of_range_is_refused(option, message):
    with pytest.raises(ValueError, match=message):
        toy_task(**option)


def test_the_mlp_has_the_papers_shape():
    backbone = toy_mlp()
    assert backbone.names == ["layer0", "layer1", "layer2", "layer3"]
    assert [stage.width for stage in backbone] == [128] * 4
    assert [tuple(p.shape) for p in backbone.parameters() if p.ndim == 2] == [
        (128, 784),
        *[(128, 128)] * 3,
    ]


def saved(path, **options):
    network = Network(toy_mlp(**options), linear_head(options["width"], 3))
    save_file(network.state_dict(), path)
    return network.backbone


def test_an_encoder_comes_back_from_the_model_of_a_run(tmp_path):
    backbone, other = saved(tmp_path / "m.safetensors", width=16), toy_mlp(width=16)
    load_toy_mlp(other, tmp_path / "m.safetensors")
    assert same_weights(backbone, other)


@pytest.mark.parametrize("options", [{"width": 8}, {"width": 16, "layers": 3}])
def test_an_encoder_of_another_size_is_refused_and_changes_nothing(tmp_path, options):
    saved(tmp_path / "m.safetensors", **options)
    backbone = toy_mlp(width=16)
    before = {name: value.clone() for name, value in backbone.state_dict().items()}
    with pytest.raises(ValueError, match=r"should hold a toy_mlp of this size; stages\.layer"):
        load_toy_mlp(backbone, tmp_path / "m.safetensors")
    assert all(torch.equal(value, before[name]) for name, value in backbone.state_dict().items())
