"""Run folders: written whole under another name, complete only with every file of the manifest."""

import json
import math
import os

import numpy as np
import pytest
import torch

from molhpft.run.folder import RunFolder


@pytest.fixture
def folder(tmp_path):
    folder = RunFolder(tmp_path / "runs" / "a")
    folder.open()
    return folder


def names(place):
    return sorted(path.name for path in place.iterdir())


def test_a_run_is_complete_only_under_its_own_name_without_what_it_resumed_from(folder):
    folder.write_tensors("resume/tau1.safetensors", {"w": torch.ones(2)}, {})
    folder.write_json("summary.json", {"x": 1})
    # where a kill broke off a file
    (folder.partial / ".model.safetensors.0a.aside").write_bytes(b"half of")
    assert not folder.is_complete
    folder.open()
    folder.close()
    assert folder.is_complete
    assert folder.read_json("summary.json") == {"x": 1}
    assert names(folder.path) == ["manifest.json", "summary.json"]
    assert not folder.partial.exists()


@pytest.mark.parametrize(
    ("step", "complete"), [("manifest_of", False), ("os.replace", False), ("rmtree", True)]
)
def test_a_kill_while_a_folder_closes_costs_no_finished_branch(folder, monkeypatch, step, complete):
    def killed(path, *_, **__):
        if step != "os.replace" or path == folder.partial:
            raise KeyboardInterrupt
        return replace(path, *_, **__)

    branch, replace = {"w": torch.ones(2)}, os.replace
    folder.write_tensors("resume/tau1.safetensors", branch, {})
    folder.write_json("summary.json", {"x": 1})
    with monkeypatch.context() as patched:
        patched.setattr(f"molhpft.run.folder.{step}", killed)
        with pytest.raises(KeyboardInterrupt):
            folder.close()
    assert folder.is_complete is complete
    if not complete:
        folder.open()
        assert torch.equal(folder.read_tensors("resume/tau1.safetensors")[0]["w"], branch["w"])
        folder.close()
    assert folder.is_complete
    assert not folder.partial.exists()


def test_what_is_left_of_resuming_is_no_part_of_a_complete_run(folder, monkeypatch):
    for name in ("resume/tau1.safetensors", "members/tau1.safetensors", "model.safetensors"):
        folder.write_tensors(name, {"w": torch.ones(2)}, {})
    with monkeypatch.context() as patched:
        patched.setattr("molhpft.run.folder.rmtree", lambda *_, **__: None)
        folder.close()
    folder.drop("members")
    left = folder.path / "resume" / "tau1.safetensors"
    assert left.is_file()
    left.unlink()
    assert folder.is_complete


@pytest.mark.parametrize("name", ["summary.json", "members/tau4.safetensors", "manifest.json"])
def test_a_run_that_lacks_any_of_its_files_is_not_complete(folder, name):
    folder.write_json("summary.json", {})
    folder.write_tensors("members/tau4.safetensors", {"w": torch.ones(2)}, {})
    folder.close()
    assert folder.is_complete
    whole = (folder.path / name).read_bytes()
    (folder.path / name).write_bytes(whole[:-3])
    assert folder.lacking == [name]
    (folder.path / name).unlink()
    assert folder.lacking == [name]
    words = rf"is no complete run \(missing, or not in its size: {name}\); move it away or delete"
    with pytest.raises(ValueError, match=words):
        folder.open()


def test_a_run_is_complete_without_what_was_dropped_of_it(folder):
    for name in ("members/tau4.safetensors", "model.safetensors"):
        folder.write_tensors(name, {"w": torch.ones(2)}, {})
    folder.close()
    folder.drop("members")
    assert folder.is_complete
    assert sorted(p.name for p in folder.path.iterdir()) == ["manifest.json", "model.safetensors"]


def test_tensors_come_back_with_what_is_said_of_them_and_are_no_view_of_the_file(folder):
    assert folder.read_tensors("resume/x.safetensors") is None
    tensors = {"w": torch.arange(6).reshape(2, 3).T, "empty": torch.empty(0)}
    folder.write_tensors("resume/x.safetensors", tensors, {"row": {"tau": 3, "score": 0.1}})
    read, about = folder.read_tensors("resume/x.safetensors")
    folder.write_tensors("resume/x.safetensors", {"w": torch.zeros(3, 2).long()}, {})
    assert about == {"row": {"tau": 3, "score": 0.1}}
    assert all(torch.equal(read[k], tensors[k]) for k in tensors)


def test_numbers_that_json_lacks_become_null(folder):
    folder.write_json("a.json", {"x": math.nan, "rows": [math.inf, 1.5], "n": (1, 2)})
    folder.write_lines("b.jsonl", [{"x": math.nan}, {"x": 2}])
    content = json.loads((folder.partial / "a.json").read_text())
    assert content == {"x": None, "rows": [None, 1.5], "n": [1, 2]}
    lines = (folder.partial / "b.jsonl").read_text().splitlines()
    assert [json.loads(line) for line in lines] == [{"x": None}, {"x": 2}]


def test_arrays_come_back(folder):
    folder.write_arrays("features.npz", {"a": torch.arange(4.0)})
    with np.load(folder.partial / "features.npz") as arrays:
        assert arrays["a"].tolist() == [0, 1, 2, 3]


def test_the_file_that_is_named_is_removed_and_no_temporary_file_is_left(folder):
    for name in ("tau1-0", "tau10-0"):
        folder.write_json(f"phase-{name}.json", {})
    folder.write_yaml("config.yaml", {"a": 1})
    for _ in range(2):
        folder.remove("phase-tau1-0.json")
    assert names(folder.partial) == ["config.yaml", "phase-tau10-0.json"]


def test_a_place_that_cannot_be_written_is_an_error(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match="file"):
        RunFolder(tmp_path / "file" / "a").open()


def test_json_of_an_unfinished_run_is_read_back(folder):
    assert folder.read_unfinished("a.json") is None
    folder.write_json("a.json", {"x": 0.1 + 0.2, "rows": []})
    assert folder.read_unfinished("a.json") == {"x": 0.1 + 0.2, "rows": []}
