import numpy as np
import pytest
import torch

from molhpft.domains.vision.arrays import grey_to_rgb, read_npy_set, read_npz, resized
from molhpft.domains.vision.examples import Labelled

TEN = tuple("abcdefghij")


def images(n, *shape, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (n, *shape), dtype=np.uint8)


@pytest.mark.parametrize("shape", [(8, 6), (8, 6, 1), (8, 6, 3)], ids=str)
def test_images_come_back_with_channels_first(shape, tmp_path):
    x, y = images(5, *shape), np.array([0, 1, 2, 0, 1])
    np.savez(tmp_path / "data.npz", x_train=x, y_train=y, x_test=x[:2], y_test=y[:2])
    found = read_npz(tmp_path / "data.npz")
    assert list(found) == ["train", "test"]
    channels = shape[2] if len(shape) == 3 else 1
    assert found["train"].pixels.shape == (5, channels, 8, 6)
    last = x[4] if len(shape) == 2 else x[4, :, :, 0]
    assert torch.equal(found["train"].pixels[4, 0], torch.from_numpy(last))
    assert found["test"].targets.tolist() == [0, 1]
    assert found["test"].classes == ("0", "1", "2")


def test_mnist_is_read_whole(mnist_npz):
    found = read_npz(mnist_npz)
    assert [len(part) for part in found.values()] == [60_000, 10_000]
    assert torch.bincount(found["test"].targets).tolist() == [
        *(980, 1135, 1032, 1010, 982),
        *(892, 958, 1028, 974, 1009),
    ]


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"a": np.zeros(2)}, "should hold x_train, y_train, x_test, y_test; it has: a"),
        ({"x_train": images(2, 4, 4)}, "should hold y_train as a plain array"),
        (
            {"x_train": images(2, 4, 4).astype(float), "y_train": np.zeros(2, int)},
            r"should be uint8 .* they are float64 \(2, 4, 4\)",
        ),
        (
            {"x_train": images(2, 4, 4, 2), "y_train": np.zeros(2, int)},
            r"should be uint8 .* they are uint8 \(2, 4, 4, 2\)",
        ),
        (
            {"x_train": images(2, 4, 4), "y_train": np.zeros(3, int)},
            r"should be integers \(2,\); they are int64 \(3,\)",
        ),
        (
            {"x_train": images(2, 4, 4), "y_train": np.zeros(2)},
            r"should be integers \(2,\); they are float64 \(2,\)",
        ),
        (
            {"x_train": images(2, 4, 4), "y_train": np.array([1, np.nan])},
            r"should be integers \(2,\); they are float64 \(2,\)",
        ),
        (
            {"x_train": images(2, 4, 4), "y_train": np.array(["cat", "dog"])},
            r"should be integers \(2,\); they are <U3 \(2,\)",
        ),
        (
            {"x_train": images(2, 4, 4), "y_train": np.array([0, -3])},
            "should lie from 0 to 0; 1 do not, such as -3",
        ),
        (
            {"x_train": images(2, 4, 4), "y_train": np.array([object(), None])},
            "should hold y_train as a plain array: Object arrays cannot be loaded",
        ),
    ],
)
def test_other_arrays_are_refused_in_one_sentence(arrays, message, tmp_path):
    np.savez(tmp_path / "data.npz", **arrays)
    with pytest.raises(ValueError, match=message):
        read_npz(tmp_path / "data.npz")


@pytest.mark.parametrize("content", [b"", b"junk", b"PK\x03\x04 half a zip", b"\x93NUMPY\x01"])
def test_what_is_no_array_file_is_refused(content, tmp_path):
    (tmp_path / "data.npz").write_bytes(content)
    with pytest.raises(ValueError, match=r"should be numpy's \.npy or \.npz of plain arrays"):
        read_npz(tmp_path / "data.npz")


def test_a_single_array_is_no_data_set(tmp_path):
    np.save(tmp_path / "data.npy", images(2, 4, 4))
    with pytest.raises(ValueError, match="it is a single array"):
        read_npz(tmp_path / "data.npy")


def test_cifar_10_1_has_its_labels_beside_it(tmp_path):
    x, y = images(4, 32, 32, 3), np.array([9, 0, 3, 3], dtype=np.int32)
    np.save(tmp_path / "cifar10.1_v6_data.npy", x)
    np.save(tmp_path / "cifar10.1_v6_labels.npy", y)
    found = read_npy_set(tmp_path / "cifar10.1_v6_data.npy", classes=TEN, severity=3)
    assert found.targets.tolist() == [9, 0, 3, 3]
    assert torch.equal(found.pixels, torch.from_numpy(x).permute(0, 3, 1, 2))


@pytest.mark.parametrize("severity", [1, 3, 5])
def test_cifar_10_c_gives_the_rows_of_one_severity(severity, tmp_path):
    x, y = images(10, 32, 32, 3), np.tile([4, 7], 5)
    np.save(tmp_path / "fog.npy", x)
    np.save(tmp_path / "labels.npy", y)
    found = read_npy_set(tmp_path / "fog.npy", classes=TEN, severity=severity)
    rows = torch.from_numpy(x).permute(0, 3, 1, 2)[2 * severity - 2 : 2 * severity]
    assert torch.equal(found.pixels, rows)
    assert found.targets.tolist() == [4, 7]


def test_a_shifted_set_needs_its_labels(tmp_path):
    np.save(tmp_path / "fog.npy", images(5, 4, 4))
    with pytest.raises(FileNotFoundError, match=r"no array file at .*labels\.npy"):
        read_npy_set(tmp_path / "fog.npy", classes=TEN, severity=1)
    np.save(tmp_path / "labels.npy", np.array([0, 1, 2, 3, 10]))
    with pytest.raises(ValueError, match="should lie from 0 to 9; 1 do not, such as 10"):
        read_npy_set(tmp_path / "fog.npy", classes=TEN, severity=1)


def test_a_corruption_with_rows_missing_is_refused(tmp_path):
    np.save(tmp_path / "fog.npy", images(4, 4, 4))
    np.save(tmp_path / "labels.npy", np.arange(4))
    with pytest.raises(ValueError, match="should hold 5 severities, it has 4 images"):
        read_npy_set(tmp_path / "fog.npy", classes=TEN, severity=1)


@pytest.mark.parametrize("severity", [0, 6])
def test_an_unknown_severity_is_refused(severity, tmp_path):
    np.save(tmp_path / "fog.npy", images(5, 4, 4))
    np.save(tmp_path / "labels.npy", np.arange(5))
    with pytest.raises(ValueError, match=f"severity lies from 1 to 5, got {severity}"):
        read_npy_set(tmp_path / "fog.npy", classes=TEN, severity=severity)


def labelled(pixels):
    return Labelled(pixels, torch.zeros(len(pixels), dtype=torch.long), ("only",))


def test_images_that_have_the_size_are_left_as_they_are():
    same = labelled(torch.from_numpy(images(3, 1, 8, 8)))
    assert resized(same, 8) is same


@pytest.mark.parametrize("size", [4, 28, 32])
def test_a_flat_image_stays_flat_at_any_size(size):
    flat = labelled(torch.full((2, 3, 12, 20), 77, dtype=torch.uint8))
    assert torch.equal(
        resized(flat, size).pixels, torch.full((2, 3, size, size), 77, dtype=torch.uint8)
    )


def test_halving_is_close_to_the_mean_of_each_block():
    x = torch.from_numpy(images(2, 1, 32, 32)).float()
    smooth = torch.nn.functional.avg_pool2d(x, 5, 1, 2).byte()  # no detail that aliasing could see
    blocks = torch.nn.functional.avg_pool2d(smooth.float(), 2)
    assert (resized(labelled(smooth), 16).pixels - blocks).abs()[:, :, 1:-1, 1:-1].max() < 12


def test_grey_images_get_three_equal_channels():
    grey = labelled(torch.from_numpy(images(3, 1, 8, 8)))
    colour = grey_to_rgb(grey).pixels
    assert colour.shape == (3, 3, 8, 8)
    assert (colour == grey.pixels).all()
    assert grey_to_rgb(labelled(colour)).pixels is colour
