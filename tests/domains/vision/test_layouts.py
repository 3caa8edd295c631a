"""Published layouts: every image and label comes back, and what is missing or pickled is named."""

import pickle
import shutil

import numpy as np
import pytest
import torch
from scipy.io import savemat

from molhpft.domains.vision.layouts import CIFAR10_CLASSES, LAYOUTS
from tests.domains.vision import published
from tests.domains.vision.published import pixels


def read(layout, path, size=8):
    return LAYOUTS[layout].read(path, size)


def taken(source):
    return source.take(torch.arange(len(source.targets)))


def reds(source):
    """The red of images of one colour."""
    return taken(source).pixels[:, 0, 4, 4].tolist()


@pytest.mark.parametrize("gzipped", [True, False])
def test_mnist_is_read_from_its_idx_files(gzipped, tmp_path):
    found = read("mnist", published.write_mnist(tmp_path, gzipped=gzipped))
    assert found["train"].targets.tolist() == [0, 1, 2, 3, 4, 5]
    expected = torch.from_numpy(pixels(3, 28, 28, seed=3))
    assert all(torch.equal(found["test"].pixels[:, c], expected) for c in range(3))


def test_mnist_needs_as_many_labels_as_images(tmp_path):
    published.write_mnist(tmp_path / "a", gzipped=False)
    other = published.write_mnist(tmp_path / "b", gzipped=False, train=5)
    shutil.copy(tmp_path / "a" / "train-labels-idx1-ubyte", other)
    with pytest.raises(ValueError, match=r"they hold \(5, 28, 28\) and \(6,\)"):
        read("mnist", other)


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


@pytest.mark.parametrize("content", [b"", b"junk", b"MATLAB 7.3 MAT-file" + bytes(200)])
def test_what_is_no_matlab_file_is_refused(content, tmp_path):
    published.write_flowers102(tmp_path)
    (tmp_path / "imagelabels.mat").write_bytes(content)
    with pytest.raises(ValueError, match=r"imagelabels\.mat in .* with the variable labels"):
        read("flowers102", tmp_path)


def test_a_truncated_matlab_file_is_refused(tmp_path):
    path = published.write_flowers102(tmp_path) / "imagelabels.mat"
    savemat(path, {"labels": np.arange(10_000)}, do_compression=True)
    path.write_bytes(path.read_bytes()[:-500])
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


def test_every_layout_says_what_it_expects():
    for layout in LAYOUTS.values():
        assert layout.size >= 32
        assert layout.expects
