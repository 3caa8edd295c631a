import logging
import os

import pytest
import torch

from molhpft.domains import files
from molhpft.domains.files import cached_tensors


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setenv("MOLHPFT_CACHE", str(tmp_path))
    return tmp_path


def _build():
    return {"a": torch.arange(6).view(2, 3), "b": torch.tensor([1.5, float("nan")])}


def _refuse():
    raise AssertionError("built although the file is there")


def test_the_second_call_reads_what_the_first_wrote(folder):
    first = cached_tensors("x/1", _build)
    second = cached_tensors("x/1", _refuse)
    assert second.keys() == first.keys()
    assert all(torch.equal(first[k].nan_to_num(7), second[k].nan_to_num(7)) for k in first)
    assert [path.name for path in (folder / "x").iterdir()] == ["1.safetensors"]


def test_another_key_is_another_file(folder):
    cached_tensors("x/1", _build)
    other = cached_tensors("x/2", lambda: {"a": torch.zeros(1)})
    assert other["a"].shape == (1,)


def test_tensors_that_are_views_are_kept_whole(folder):
    view = torch.arange(6).view(2, 3).T
    cached_tensors("v", lambda: {"a": view})
    assert torch.equal(cached_tensors("v", _refuse)["a"], view)


@pytest.mark.parametrize("damage", [b"", b"junk", None])
def test_a_damaged_file_is_built_anew_with_a_warning(folder, caplog, damage):
    cached_tensors("x", _build)
    path = folder / "x.safetensors"
    path.write_bytes(path.read_bytes()[:-3] if damage is None else damage)
    with caplog.at_level(logging.WARNING):
        again = cached_tensors("x", _build)
    assert torch.equal(again["a"], _build()["a"])
    assert "damaged" in caplog.text
    assert str(path) in caplog.text
    assert torch.equal(cached_tensors("x", _refuse)["a"], _build()["a"])


def test_a_failed_build_leaves_nothing(folder):
    with pytest.raises(AssertionError):
        cached_tensors("x", _refuse)
    assert list(folder.iterdir()) == []


def test_a_write_stopped_half_way_leaves_nothing(folder, monkeypatch):
    def stop(tensors, path):
        with open(path, "wb") as half:
            half.write(b"half")
        raise KeyboardInterrupt

    monkeypatch.setattr(files, "save_file", stop)
    with pytest.raises(KeyboardInterrupt):
        cached_tensors("x", _build)
    assert os.listdir(folder) == []


def test_where_the_cache_cannot_be_written_tensors_are_still_given_with_a_warning(
    tmp_path, monkeypatch, caplog
):
    (tmp_path / "file").write_text("no folder")
    monkeypatch.setenv("MOLHPFT_CACHE", str(tmp_path / "file"))
    with caplog.at_level(logging.WARNING):
        built = cached_tensors("x", _build)
    assert torch.equal(built["a"], _build()["a"])
    assert "cache folder cannot be used" in caplog.text
