"""Stores: what is written is read again, whole or not at all, on disks and on stores of objects."""

import json

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from molhpft.config.schema import parse_config
from molhpft.domains.files import UnwritableError
from molhpft.run.folder import RunFolder
from molhpft.sweep.spec import Trial
from molhpft.sweep.store import Outcome, store_at

CONFIG = parse_config({"task": "toy", "encoder": "toy_mlp"})
TRIAL = Trial("toy-ft-0", {"seed": 0}, CONFIG)


@pytest.fixture(params=["path", "file", "memory"])
def store(request, tmp_path):
    """Memory is a store of objects: it has no folders to rename."""
    urls = {"path": str(tmp_path / "out"), "file": f"file://{tmp_path}/out"}
    store = store_at(urls.get(request.param, f"memory://{tmp_path}/out/"))
    store.prepare()
    return store


@pytest.fixture
def finished(tmp_path):
    """An ensemble's run: more than the files of its own folder."""
    folder = RunFolder(tmp_path / "scratch" / "a-run")
    folder.open()
    folder.write_yaml("config.yaml", {"seed": 0})
    folder.write_tensors("model.safetensors", {"w": torch.ones(3)}, {})
    for tau in (0, 4):
        folder.write_tensors(f"members/tau{tau}.safetensors", {"w": torch.ones(3)}, {})
    folder.write_json("summary.json", {"task": "a"})
    folder.close()
    return folder.path


@settings(max_examples=30, deadline=None)
@given(error=st.none() | st.text(), seconds=st.floats(0, 1e6), value=st.text() | st.floats())
def test_a_record_is_read_as_it_was_written(error, seconds, value):
    store = store_at("memory://records")
    store.prepare()
    trial = Trial("x", {"key": value}, CONFIG)
    outcome = Outcome("x", "failed", error=error, seconds=seconds)
    store.write_record(trial, outcome)
    record = store.record(trial)
    assert (record["error"], record["seconds"]) == (error, seconds)
    assert repr(record["settings"]["key"]) == repr(value)


def test_a_record_replaces_the_one_before(store):
    assert store.record(TRIAL) is None
    for outcome in (Outcome(TRIAL.name, "failed", error="x"), Outcome(TRIAL.name, "done", run="r")):
        store.write_record(TRIAL, outcome)
        assert store.record(TRIAL)["status"] == outcome.status
    assert len(store.fs.ls(f"{store.root}/trials")) == 1


def test_a_run_is_published_whole(store, finished):
    assert not store.is_complete("a-run")
    with pytest.raises(ValueError, match="a-run is no complete run"):
        store.summary("a-run")
    for _ in range(2):  # whoever was taken for lost may come second
        store.publish(finished)
    assert store.is_complete("a-run")
    assert store.summary("a-run") == {"task": "a"}
    for file in (path for path in finished.rglob("*") if path.is_file()):
        name = file.relative_to(finished).as_posix()
        assert store.fs.cat_file(f"{store.root}/a-run/{name}") == file.read_bytes()
    names = store.fs.ls(store.root, detail=False)
    assert {name.rpartition("/")[2] for name in names} == {"a-run", "trials"}


@pytest.mark.parametrize("name", ["members/tau4.safetensors", "members", "config.yaml"])
def test_a_run_that_has_lost_a_file_is_not_complete_and_is_made_whole(store, finished, name):
    store.publish(finished)
    store.fs.rm(f"{store.root}/a-run/{name}", recursive=True)
    assert not store.is_complete("a-run")
    store.publish(finished)
    assert store.is_complete("a-run")


def test_a_file_that_was_cut_short_is_not_complete(store, finished):
    store.publish(finished)
    store.fs.pipe_file(f"{store.root}/a-run/model.safetensors", b"short")
    assert not store.is_complete("a-run")


@pytest.mark.parametrize("broken_at", range(6))
def test_a_copy_that_breaks_off_is_never_read(tmp_path, finished, monkeypatch, broken_at):
    store = store_at(f"memory://{tmp_path}/broken")
    real, calls = type(store.fs).put_file, iter(range(100))

    def break_off(*args, **options):
        if next(calls) == broken_at:
            raise OSError("no space left")
        return real(*args, **options)

    monkeypatch.setattr(type(store.fs), "put_file", break_off)
    with pytest.raises(UnwritableError, match="no space left; make room"):
        store.publish(finished)
    assert not store.is_complete("a-run")
    store.publish(finished)
    assert store.summary("a-run") == json.loads((finished / "summary.json").read_text())


def test_only_places_of_this_machine_are_local(tmp_path):
    assert store_at(str(tmp_path)).local == tmp_path
    assert store_at(f"file://{tmp_path}").local == tmp_path
    assert store_at("memory://x").local is None


@pytest.mark.parametrize("url", ["nosuch://bucket/x", "abfs://bucket/x"])
def test_an_unknown_protocol_is_one_sentence(url):
    with pytest.raises(ValueError, match=f"cannot use {url} for results"):
        store_at(url)
