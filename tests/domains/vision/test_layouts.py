"""Published layouts: every image and label comes back, and files that are wrong are named."""

import gzip
import pickle
import shutil

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from scipy.io import savemat

from molhpft.domains.vision.examples import Labelled
from molhpft.domains.vision.layouts import (
    CIFAR10_CLASSES,
    LAYOUTS,
    grey_to_rgb,
    read_npy_set,
    resized,
)
from tests.domains.vision import published
from tests.domains.vision.published import pixels

TEN = tuple("abcdefghij")
few = settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


def read(layout, path, size=8):
    return LAYOUTS[layout].read(path, size)


def taken(source):
    return source.take(torch.arange(len(source.targets)))


def reds(source):
    """The red of images of one colour."""
    return taken(source).pixels[:, 0, 4, 4].tolist()


@pytest.mark.parametrize("shape", [(8, 6), (8, 6, 1), (8, 6, 3)], ids=str)
def test_npz_images_come_back_with_three_channels_first(shape, tmp_path):
    x, y = pixels(5, *shape), np.array([0, 1, 2, 0, 1])
    np.savez(tmp_path / "data.npz", x_train=x, y_train=y, x_test=x[:2], y_test=y[:2])
    splits = read("npz", tmp_path / "data.npz")
    assert list(splits) == ["train", "test"]
    expected = torch.from_numpy(x.reshape(5, 8, 6, -1)).permute(0, 3, 1, 2)
    assert torch.equal(splits["train"].pixels, expected.expand(5, 3, 8, 6))
    assert splits["test"].targets.tolist() == [0, 1]
    assert splits["test"].classes == ("0", "1", "2")


def test_real_mnist_is_read_whole(mnist_npz):
    splits = read("npz", mnist_npz)
    assert [len(part) for part in splits.values()] == [60_000, 10_000]
    assert torch.bincount(splits["test"].targets).tolist() == [
        *(980, 1135, 1032, 1010, 982),
        *(892, 958, 1028, 974, 1009),
    ]


TWO = pixels(2, 4, 4)


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"a": np.zeros(2)}, "should hold x_train, y_train, x_test, y_test; it has: a"),
        ({"x_train": TWO}, "should hold y_train as a plain array"),
        (
            {"x_train": TWO.astype(float), "y_train": np.zeros(2, int)},
            r"should be uint8 .* they are float64 \(2, 4, 4\)",
        ),
        (
            {"x_train": pixels(2, 4, 4, 2), "y_train": np.zeros(2, int)},
            r"should be uint8 .* they are uint8 \(2, 4, 4, 2\)",
        ),
        ({"x_train": TWO, "y_train": np.zeros(3, int)}, r"integers \(2,\); they are int64 \(3,\)"),
        ({"x_train": TWO, "y_train": np.zeros(2)}, r"integers \(2,\); they are float64 \(2,\)"),
        ({"x_train": TWO, "y_train": np.array(["cat", "dog"])}, "they are <U3"),
        (
            {"x_train": TWO, "y_train": np.array([0, -3])},
            "should lie from 0 to 0; 1 do not, such as -3",
        ),
        (
            {"x_train": TWO, "y_train": np.array([object(), None])},
            "should hold y_train as a plain array: Object arrays cannot be loaded",
        ),
    ],
)
def test_other_arrays_are_refused_in_one_sentence(arrays, message, tmp_path):
    np.savez(tmp_path / "data.npz", **arrays)
    with pytest.raises(ValueError, match=message):
        read("npz", tmp_path / "data.npz")


@pytest.mark.parametrize("content", [b"", b"junk", b"PK\x03\x04 half a zip", b"\x93NUMPY\x01"])
def test_what_is_no_array_file_is_refused(content, tmp_path):
    (tmp_path / "data.npz").write_bytes(content)
    with pytest.raises(ValueError, match=r"should be numpy's \.npy or \.npz of plain arrays"):
        read("npz", tmp_path / "data.npz")


def test_a_single_array_is_no_data_set(tmp_path):
    np.save(tmp_path / "data.npy", TWO)
    with pytest.raises(ValueError, match="it is a single array"):
        read("npz", tmp_path / "data.npy")


def shifted(folder, x, y, *, severity=1, name="fog", labels="labels"):
    np.save(folder / f"{name}.npy", x)
    np.save(folder / f"{labels}.npy", y)
    return read_npy_set(folder / f"{name}.npy", classes=TEN, severity=severity)


def test_cifar_10_1_has_its_labels_beside_it(tmp_path):
    x, y = pixels(4, 32, 32, 3), np.array([9, 0, 3, 3], dtype=np.int32)
    images = shifted(tmp_path, x, y, name="cifar10.1_v6_data", labels="cifar10.1_v6_labels")
    assert images.targets.tolist() == [9, 0, 3, 3]
    assert torch.equal(images.pixels, torch.from_numpy(x).permute(0, 3, 1, 2))


@pytest.mark.parametrize("severity", [1, 3, 5])
def test_cifar_10_c_gives_the_rows_of_one_severity(severity, tmp_path):
    x = pixels(10, 32, 32, 3)
    images = shifted(tmp_path, x, np.tile([4, 7], 5), severity=severity)
    rows = torch.from_numpy(x).permute(0, 3, 1, 2)[2 * severity - 2 : 2 * severity]
    assert torch.equal(images.pixels, rows)
    assert images.targets.tolist() == [4, 7]


@pytest.mark.parametrize(
    ("labels", "severity", "message"),
    [
        ([0, 1, 2, 3, 10], 1, "should lie from 0 to 9; 1 do not, such as 10"),
        ([0, 1, 2, 3], 1, "should hold 5 severities, it has 4 images"),
        ([0, 1, 2, 3, 4], 0, "severity lies from 1 to 5, got 0"),
        ([0, 1, 2, 3, 4], 6, "severity lies from 1 to 5, got 6"),
    ],
)
def test_a_shifted_set_that_does_not_fit_is_refused(labels, severity, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        shifted(tmp_path, pixels(len(labels), 4, 4), np.array(labels), severity=severity)


def test_a_shifted_set_needs_its_labels(tmp_path):
    np.save(tmp_path / "fog.npy", pixels(5, 4, 4))
    with pytest.raises(FileNotFoundError, match=r"no array file at .*labels\.npy"):
        read_npy_set(tmp_path / "fog.npy", classes=TEN, severity=1)


def labelled(images):
    images = torch.as_tensor(images)
    return Labelled(images, torch.zeros(len(images), dtype=torch.long), ("only",))


def test_images_that_have_the_size_are_left_as_they_are():
    same = labelled(pixels(3, 1, 8, 8))
    assert resized(same, 8) is same


@pytest.mark.parametrize("size", [4, 28])
def test_a_flat_image_stays_flat_at_any_size(size):
    flat = labelled(torch.full((2, 3, 12, 20), 77, dtype=torch.uint8))
    expected = torch.full((2, 3, size, size), 77, dtype=torch.uint8)
    assert torch.equal(resized(flat, size).pixels, expected)


def test_halving_is_close_to_the_mean_of_each_block():
    x = torch.from_numpy(pixels(2, 1, 32, 32)).float()
    smooth = torch.nn.functional.avg_pool2d(x, 5, 1, 2).byte()  # no detail that aliasing could see
    blocks = torch.nn.functional.avg_pool2d(smooth.float(), 2)
    assert (resized(labelled(smooth), 16).pixels - blocks).abs()[:, :, 1:-1, 1:-1].max() < 12


def test_grey_images_get_three_equal_channels():
    grey = labelled(pixels(3, 1, 8, 8))
    colour = grey_to_rgb(grey).pixels
    assert colour.shape == (3, 3, 8, 8)
    assert (colour == grey.pixels).all()
    assert grey_to_rgb(labelled(colour)).pixels is colour


def test_mnist_is_read_from_its_idx_files_gzipped_or_not(tmp_path):
    for gzipped in (True, False):
        path = published.write_mnist(tmp_path / str(gzipped), gzipped=gzipped)
        splits = read("mnist", path)
        assert splits["train"].targets.tolist() == [0, 1, 2, 3, 4, 5]
        expected = torch.from_numpy(pixels(3, 28, 28, seed=3))
        assert all(torch.equal(splits["test"].pixels[:, c], expected) for c in range(3))


def test_mnist_needs_as_many_labels_as_images(tmp_path):
    published.write_mnist(tmp_path / "a", gzipped=False)
    other = published.write_mnist(tmp_path / "b", gzipped=False, train=5)
    shutil.copy(tmp_path / "a" / "train-labels-idx1-ubyte", other)
    with pytest.raises(ValueError, match=r"they hold \(5, 28, 28\) and \(6,\)"):
        read("mnist", other)


@few
@given(data=st.data())
def test_an_idx_file_cut_anywhere_or_with_bytes_to_spare_is_refused(data, tmp_path):
    path = published.write_mnist(tmp_path / "mnist", gzipped=False) / "train-images-idx3-ubyte"
    whole = path.read_bytes()
    cut = data.draw(st.integers(0, 30) | st.integers(0, len(whole) - 1))
    for content in (whole[:cut], whole + b"\0"):
        path.write_bytes(content)
        with pytest.raises(ValueError, match=r"train-images-idx3-ubyte should .*[^\n]$"):
            read("mnist", path.parent)


def test_an_idx_file_of_floats_is_refused(tmp_path):
    path = published.write_mnist(tmp_path, gzipped=False) / "train-images-idx3-ubyte"
    path.write_bytes(bytes([0, 0, 13, 1, 0, 0, 0, 1, 0, 0, 0, 0]))
    with pytest.raises(ValueError, match=r"should be an idx .* it starts with 00 00 0d 01"):
        read("mnist", tmp_path)


def test_a_truncated_gzip_file_is_refused(tmp_path):
    path = published.write_mnist(tmp_path) / "train-images-idx3-ubyte.gz"
    path.write_bytes(gzip.compress(bytes(78_400))[:-20])
    with pytest.raises(ValueError, match="damaged gzip file"):
        read("mnist", tmp_path)


@few
@given(cut=st.integers(0, 4 * 3073 - 1).filter(lambda cut: cut % 3073 or not cut))
def test_a_cut_cifar_file_is_refused(cut, tmp_path):
    path = published.write_cifar10(tmp_path / "cifar") / "data_batch_3.bin"
    path.write_bytes(path.read_bytes()[:cut])
    with pytest.raises(ValueError, match=f"records of 3073 bytes; its {cut} bytes are no whole"):
        read("cifar10", path.parent)


@pytest.mark.parametrize("length", [0, 3 * 96 * 96 - 1])
def test_a_cut_stl_file_is_refused(length, tmp_path):
    (published.write_stl10(tmp_path) / "train_X.bin").write_bytes(bytes(length))
    with pytest.raises(ValueError, match=f"images of 27648 bytes; its {length} bytes are no whole"):
        read("stl10", tmp_path)


def test_cifar10_is_read_from_its_binary_version(tmp_path):
    found = read("cifar10", published.write_cifar10(tmp_path))
    assert found["train"].targets.tolist() == [k % 10 for k in range(20)]
    assert found["test"].targets.tolist() == [k % 10 for k in range(20, 24)]
    assert found["test"].classes == CIFAR10_CLASSES
    assert torch.equal(found["train"].pixels[9], torch.from_numpy(pixels(3, 32, 32, seed=21)))


def test_cifar100_uses_its_fine_labels(tmp_path):
    found = read("cifar100", published.write_cifar100(tmp_path))
    assert found["train"].targets.tolist() == [99, 0, 50]
    assert found["test"].classes[7] == "fine7"
    assert torch.equal(found["test"].pixels[0], torch.from_numpy(pixels(3, 32, 32, seed=7)))


@pytest.mark.parametrize(
    ("layout", "file", "archive"),
    [
        ("cifar10", "data_batch_1", "cifar-10-binary.tar.gz"),
        ("cifar100", "meta", "cifar-100-binary.tar.gz"),
    ],
)
def test_pickled_versions_are_refused_unread(layout, file, archive, tmp_path):
    class Bomb:
        def __reduce__(self):
            return (open, (str(tmp_path / "exploded"), "w"))

    (tmp_path / file).write_bytes(pickle.dumps(Bomb()))
    with pytest.raises(ValueError, match=rf"holds pickled Python objects \({file}\).* {archive}$"):
        read(layout, tmp_path)
    assert not (tmp_path / "exploded").exists()


def test_a_missing_batch_is_named(tmp_path):
    published.write_cifar10(tmp_path)
    (tmp_path / "data_batch_3.bin").unlink()
    with pytest.raises(FileNotFoundError, match=r"no file at .*data_batch_3\.bin"):
        read("cifar10", tmp_path)


def test_a_label_beyond_the_classes_is_refused(tmp_path):
    published.write_cifar10(tmp_path)
    (tmp_path / "test_batch.bin").write_bytes(bytes([10]) + bytes(3072))
    with pytest.raises(ValueError, match="should lie from 0 to 9; 1 do not, such as 10"):
        read("cifar10", tmp_path)


def test_stl10_is_upright_and_counts_from_zero(tmp_path):
    found = read("stl10", published.write_stl10(tmp_path))
    assert found["train"].targets.tolist() == [0, 9, 2]
    assert [found["train"].classes[k] for k in (0, 9)] == ["a", "j"]
    assert torch.equal(found["test"].pixels, torch.from_numpy(pixels(2, 3, 96, 96, seed=2)))


def test_stl10_needs_as_many_labels_as_images(tmp_path):
    published.write_stl10(tmp_path)
    (tmp_path / "test_y.bin").write_bytes(bytes([1]))
    with pytest.raises(ValueError, match=r"test_X\.bin and test_y\.bin .* they hold 2 and 1"):
        read("stl10", tmp_path)


def test_flowers_have_three_published_splits_and_labels_from_one(tmp_path):
    found = read("flowers102", published.write_flowers102(tmp_path))
    assert {split: part.targets.tolist() for split, part in found.items()} == {
        "train": [101, 0, 6],
        "valid": [101],
        "test": [0, 6],
    }
    assert reds(found["train"]) == [pytest.approx(red, abs=3) for red in (10, 30, 40)]
    assert len(found["test"].classes) == 102


def test_swapped_flowers_train_on_the_published_test_images_and_test_on_the_others(tmp_path):
    found = read("flowers102_swapped", published.write_flowers102(tmp_path))
    assert {split: part.targets.tolist() for split, part in found.items()} == {
        "train": [0, 6],
        "test": [101, 0, 6, 101],
    }
    assert reds(found["test"]) == [pytest.approx(red, abs=3) for red in (10, 30, 40, 60)]


def test_flowers_are_read_from_a_zip_file_too(tmp_path):
    published.write_flowers102(tmp_path / "flowers")
    path = shutil.make_archive(str(tmp_path / "flowers"), "zip", tmp_path / "flowers")
    found = read("flowers102", tmp_path / path)
    assert reds(found["valid"]) == [pytest.approx(60, abs=3)]


def test_a_flower_without_a_label_is_refused(tmp_path):
    published.write_flowers102(tmp_path)
    rows = {"trnid": [[1, 9]], "valid": [[2]], "tstid": [[3]]}
    savemat(tmp_path / "setid.mat", {key: np.array(ids) for key, ids in rows.items()})
    with pytest.raises(ValueError, match=r"setid\.mat should lie from 0 to 5; 1 do not, such as 8"):
        read("flowers102", tmp_path)


@pytest.mark.parametrize("content", [b"", b"junk", b"MATLAB 7.3 MAT-file" + bytes(200), None])
def test_what_is_no_whole_matlab_file_is_refused(content, tmp_path):
    path = published.write_flowers102(tmp_path) / "imagelabels.mat"
    savemat(path, {"labels": np.arange(10_000)}, do_compression=True)
    path.write_bytes(path.read_bytes()[:-500] if content is None else content)
    with pytest.raises(ValueError, match=r"imagelabels\.mat in .* with the variable labels"):
        read("flowers102", tmp_path)


def test_a_matlab_file_of_something_else_is_refused(tmp_path):
    published.write_flowers102(tmp_path)
    savemat(tmp_path / "imagelabels.mat", {"other": np.zeros(3)})
    with pytest.raises(ValueError, match="with the variable labels: 'labels'"):
        read("flowers102", tmp_path)


def test_stanford_cars_are_read_by_their_annotations(tmp_path):
    found = read("stanford_cars", published.write_stanford_cars(tmp_path / "cars"))
    assert found["train"].targets.tolist() == [1, 0, 2]
    assert found["test"].targets.tolist() == [2]  # a lone annotation is a list of one
    assert found["train"].classes[0] == "AM General Hummer SUV 2000"
    assert reds(found["train"]) == [pytest.approx(red, abs=3) for red in (100, 50, 150)]


def test_stanford_cars_without_test_labels_name_the_file(tmp_path):
    path = published.write_stanford_cars(tmp_path / "cars")
    (path / "cars_test_annos_withlabels.mat").unlink()
    with pytest.raises(ValueError, match=r"should hold cars_test_annos_withlabels\.mat; it is abs"):
        read("stanford_cars", path)


def test_a_domain_is_read_by_the_lists_beside_it(tmp_path):
    path = published.write_domainnet(tmp_path)
    found = read("domainnet", path)
    assert found["train"].targets.tolist() == [0, 0, 1, 1]
    assert found["test"].classes == ("aircraft carrier", "zebra")
    assert reds(found["train"]) == [pytest.approx(red, abs=3) for red in (100, 100, 101, 101)]
    assert reds(read("domainnet", tmp_path / "sketch")["test"]) == [pytest.approx(201, abs=3)]


@pytest.mark.parametrize("line", ["real/zebra/1.jpg", "real/zebra/1.jpg x", "1.jpg 3"])
def test_a_wrong_line_of_a_list_is_named(line, tmp_path):
    path = published.write_domainnet(tmp_path)
    lists = tmp_path / "real_test.txt"
    lists.write_text(lists.read_text() + line)
    with pytest.raises(ValueError, match=r"line 2 of .*real_test\.txt should be <domain>/<class>"):
        read("domainnet", path)
