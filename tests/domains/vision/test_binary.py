"""Byte formats: what is written in the published layout is read back, and nothing else is."""

import gzip
import struct

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from molhpft.domains.vision.arrays import read_cifar, read_idx, read_stl_images, read_stl_labels

few = settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


def idx(array):
    """Yann LeCun's format: two zeros, type 8, axes, sizes big-endian, values last axis fastest."""
    sizes = struct.pack(f">{array.ndim}I", *array.shape)
    return bytes([0, 0, 8, array.ndim]) + sizes + array.tobytes()


byte_arrays = arrays.arrays(np.uint8, arrays.array_shapes(min_dims=1, max_dims=4, max_side=5))


@few
@given(array=byte_arrays, gzipped=st.booleans())
def test_an_idx_file_is_read_as_it_was_written(array, gzipped, tmp_path):
    path = tmp_path / ("file.gz" if gzipped else "file")
    path.write_bytes(gzip.compress(idx(array)) if gzipped else idx(array))
    assert torch.equal(read_idx(path), torch.from_numpy(array))


@few
@given(array=byte_arrays, data=st.data())
def test_an_idx_file_cut_anywhere_or_with_bytes_to_spare_is_refused(array, data, tmp_path):
    whole = idx(array)
    cut = data.draw(st.integers(0, len(whole) - 1))
    for content in (whole[:cut], whole + b"\0"):
        (tmp_path / "file").write_bytes(content)
        with pytest.raises(ValueError, match="should"):
            read_idx(tmp_path / "file")


@few
@given(content=st.binary(max_size=7))
def test_bytes_too_few_for_an_array_are_one_sentence(content, tmp_path):
    (tmp_path / "file").write_bytes(content)
    axes = content[3] if content[:3] == b"\0\0\x08" and len(content) > 3 else None
    if axes == 0 and len(content) == 5:
        assert read_idx(tmp_path / "file").tolist() == content[4]
    else:
        with pytest.raises(ValueError, match=r"file should .*[^\n]$"):
            read_idx(tmp_path / "file")


def test_an_idx_file_of_floats_is_refused(tmp_path):
    (tmp_path / "file").write_bytes(bytes([0, 0, 13, 1, 0, 0, 0, 1, 0, 0, 0, 0]))
    with pytest.raises(ValueError, match=r"should be an idx .* it starts with 00 00 0d 01"):
        read_idx(tmp_path / "file")


def test_a_truncated_gzip_file_is_refused(tmp_path):
    whole = gzip.compress(idx(np.zeros((100, 28, 28), np.uint8)))
    (tmp_path / "file.gz").write_bytes(whole[:-20])
    with pytest.raises(ValueError, match="damaged gzip file"):
        read_idx(tmp_path / "file.gz")


def records(labels, pixels):
    rows = [np.concatenate([y, x.reshape(-1)]) for y, x in zip(labels, pixels, strict=True)]
    return np.stack(rows).tobytes()


@few
@given(n=st.integers(1, 4), labels=st.sampled_from([1, 2]), seed=st.integers(0, 999))
def test_cifar_records_are_labels_then_red_green_blue_rows(n, labels, seed, tmp_path):
    rng = np.random.default_rng(seed)
    y = rng.integers(0, 100, (n, labels), dtype=np.uint8)
    x = rng.integers(0, 256, (n, 3, 32, 32), dtype=np.uint8)
    (tmp_path / "batch.bin").write_bytes(records(y, x))
    pixels, read = read_cifar(tmp_path / "batch.bin", labels=labels)
    assert torch.equal(pixels, torch.from_numpy(x))
    assert read.dtype == torch.int64
    assert read.tolist() == y.tolist()


@few
@given(cut=st.integers(0, 2 * 3073 - 1).filter(lambda cut: cut % 3073))
def test_a_cut_cifar_file_is_refused(cut, tmp_path):
    (tmp_path / "batch.bin").write_bytes(bytes(2 * 3073)[:cut])
    with pytest.raises(ValueError, match=f"records of 3073 bytes; its {cut} bytes are no whole"):
        read_cifar(tmp_path / "batch.bin", labels=1)


def test_an_stl_file_goes_down_columns_and_its_labels_start_at_one(tmp_path):
    upright = np.random.default_rng(0).integers(0, 256, (2, 3, 96, 96), dtype=np.uint8)
    (tmp_path / "x.bin").write_bytes(upright.transpose(0, 1, 3, 2).tobytes())
    (tmp_path / "y.bin").write_bytes(bytes([1, 10]))
    assert torch.equal(read_stl_images(tmp_path / "x.bin"), torch.from_numpy(upright))
    assert read_stl_labels(tmp_path / "y.bin").tolist() == [0, 9]


@pytest.mark.parametrize("length", [0, 3 * 96 * 96 - 1])
def test_a_cut_stl_file_is_refused(length, tmp_path):
    (tmp_path / "x.bin").write_bytes(bytes(length))
    with pytest.raises(ValueError, match=f"images of 27648 bytes; its {length} bytes are no whole"):
        read_stl_images(tmp_path / "x.bin")


def test_an_absent_file_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no file at .*nothing\.bin"):
        read_stl_labels(tmp_path / "nothing.bin")
