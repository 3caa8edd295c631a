import pickle
import sys
import types
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file

from molhpft.domains import shipped as places
from molhpft.domains.shipped import shipped_encoders
from molhpft.domains.weights import read_weights, weight_file

TENSORS = {"a.weight": torch.arange(6.0).reshape(2, 3), "b": torch.tensor(7)}


@pytest.fixture
def safe(tmp_path):
    save_file(TENSORS, tmp_path / "w.safetensors", metadata={"molhpft": '{"encoder": "gcn"}'})
    return tmp_path / "w.safetensors"


def same(found):
    return found.keys() == TENSORS.keys() and all(torch.equal(found[k], TENSORS[k]) for k in found)


def test_a_safetensors_file_comes_back_with_its_text(safe):
    file = read_weights(safe)
    assert same(file.tensors)
    assert file.about == {"encoder": "gcn"}


@pytest.mark.parametrize("wrapper", [None, "state_dict", "model_state_dict", "model"])
@pytest.mark.parametrize("zipped", [True, False])
def test_a_state_dict_comes_back_wrapped_or_not(tmp_path, wrapper, zipped):
    content = {wrapper: TENSORS, "epoch": 3} if wrapper else TENSORS
    torch.save(content, tmp_path / "w.pth", _use_new_zipfile_serialization=zipped)
    assert same(read_weights(tmp_path / "w.pth").tensors)


@pytest.fixture
def shipped(tmp_path, monkeypatch):
    """A package that ships one encoder, `small`."""
    monkeypatch.setattr(places, "SHIPPED", tmp_path / "encoders")
    (tmp_path / "encoders").mkdir()
    save_file(TENSORS, tmp_path / "encoders" / "small.safetensors")
    (tmp_path / "encoders" / "small.md").write_text("card")
    return tmp_path / "encoders" / "small.safetensors"


def test_a_shipped_encoder_is_read_by_its_name(shipped):
    assert shipped_encoders() == ["small"]
    assert weight_file(Path("small")) == shipped
    assert same(read_weights(Path("small")).tensors)


def test_a_path_that_exists_wins_over_a_shipped_name(shipped, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    save_file({"mine": torch.zeros(1)}, "small")
    assert weight_file(Path("small")) == Path("small")
    assert list(read_weights(Path("small")).tensors) == ["mine"]


@pytest.mark.parametrize("name", ["smaller", "small.safetensors", "runs/small"])
def test_an_unknown_name_lists_what_is_shipped(shipped, name):
    with pytest.raises(FileNotFoundError, match=f"no weight file at {name}; .* encoder: small$"):
        read_weights(Path(name))


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no weight file at .*none\.pth"):
        read_weights(tmp_path / "none.pth")


class Bomb:
    """Unpickling it would create a file."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (open, (str(self.path), "w"))


def test_what_needs_unpickling_is_refused_and_not_run(tmp_path):
    for name, save in (
        ("zip", torch.save),
        ("plain", lambda x, p: p.write_bytes(pickle.dumps(x, 2))),
    ):
        path = tmp_path / f"{name}.pth"
        save({"a": Bomb(tmp_path / "burst")}, path)
        with pytest.raises(ValueError, match="only unpickling would restore"):
            read_weights(path)
    assert not (tmp_path / "burst").exists()


def test_objects_in_a_chemprop_file_are_read_by_name_and_not_run(tmp_path, monkeypatch):
    own = types.ModuleType("chemprop")
    own.Passing = type("Passing", (), {"__module__": "chemprop"})
    monkeypatch.setitem(sys.modules, "chemprop", own)
    settings = {"cls": own.Passing, "made": own.Passing(), "depth": 3, "x": [1, {"y": None}]}
    burst = {"bomb": Bomb(tmp_path / "burst")}
    file = {"hyper_parameters": {**settings, **burst}, "state_dict": TENSORS}
    torch.save(file, tmp_path / "w.pt")
    found = read_weights(tmp_path / "w.pt")
    assert not (tmp_path / "burst").exists()
    assert found.tensors.keys() == TENSORS.keys()
    names = {"cls": "Passing", "made": "Passing", "bomb": "open"}
    assert found.settings == {**settings, **names}


def test_a_whole_pickled_model_is_refused(tmp_path):
    torch.save(torch.nn.Linear(2, 2), tmp_path / "w.pth")
    with pytest.raises(ValueError, match=r"torch\.save\(model\.state_dict\(\), path\)"):
        read_weights(tmp_path / "w.pth")


def test_an_archive_of_something_else_is_refused(tmp_path):
    torch.save([1, 2], tmp_path / "w.pth")
    with pytest.raises(ValueError, match="holds a list, not a dictionary of named tensors"):
        read_weights(tmp_path / "w.pth")


@pytest.mark.parametrize("content", [b"", b"smiles,y\nC,1\n", b"\x89PNG\r\n\x1a\n0000"])
def test_another_kind_of_file_is_refused(tmp_path, content):
    (tmp_path / "w.pth").write_bytes(content)
    with pytest.raises(ValueError, match="is not a weight file"):
        read_weights(tmp_path / "w.pth")


@given(cut=st.floats(0, 0.99), kind=st.sampled_from(["safe", "zip", "plain"]))
@settings(max_examples=60, deadline=None)
def test_a_truncated_file_is_refused_wherever_it_ends(tmp_path_factory, cut, kind):
    path = tmp_path_factory.mktemp("cut") / "w"
    if kind == "safe":
        save_file(TENSORS, path)
    else:
        torch.save(TENSORS, path, _use_new_zipfile_serialization=kind == "zip")
    whole = path.read_bytes()
    path.write_bytes(whole[: int(cut * len(whole))])
    with pytest.raises(ValueError, match=r"truncated|is not a weight file"):
        read_weights(path)


def test_a_folder_of_a_model_means_the_first_of_its_networks(tmp_path):
    tensors = {f"member{k}.backbone.w": torch.full((2,), float(k)) for k in range(2)}
    save_file({**tensors, "trust.limits": torch.zeros(1)}, tmp_path / "model.safetensors")
    found = read_weights(tmp_path)
    assert found.path == tmp_path / "model.safetensors"
    assert found.tensors.keys() == {"backbone.w"}
    assert found.tensors["backbone.w"].tolist() == [0, 0]


def test_weights_that_are_not_those_of_their_config_are_refused(tmp_path):
    save_file({"w": torch.zeros(1)}, tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text('{"sha256": "0123abcd"}')
    with pytest.raises(ValueError, match="another SHA-256 than is written beside it"):
        read_weights(tmp_path)


def test_a_name_on_the_hub_that_cannot_be_had_is_one_sentence(monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    for name in ("hub:nobody/nothing", "hub:nothing", "hub:a/b/c", "hub:../x"):
        with pytest.raises(FileNotFoundError, match="no folder at") as caught:
            read_weights(Path(name))
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize("odd", [float("nan"), float("inf")])
@pytest.mark.parametrize("save", [torch.save, save_file], ids=["pth", "safetensors"])
def test_weights_that_are_not_finite_are_refused_by_name(tmp_path, odd, save):
    save({**TENSORS, "conv.weight": torch.tensor([1.0, odd])}, tmp_path / "w")
    with pytest.raises(ValueError, match=r"weights that are not finite, in conv\.weight"):
        read_weights(tmp_path / "w")


def test_wrappers_around_wrappers_are_opened(tmp_path):
    torch.save({"model": {"epoch": 1, "state_dict": TENSORS}}, tmp_path / "w.pth")
    assert same(read_weights(tmp_path / "w.pth").tensors)
