"""A model in a folder is the model, and what is no whole model says so in one sentence."""

import hashlib
import json
import pickle
from pathlib import Path

import pytest
import torch
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from molhpft.core.objectives import Multilabel, Squared
from molhpft.estimator.model import Model
from tests.estimator.models import ABOUT, NETWORKS, random_model
from tests.estimator.rings import SMILES
from tests.toy import same_weights

FILES = {"README.md", "config.json", "model.safetensors"}
ASKED = [*SMILES[:30], "no molecule", "", "c1ccccc1O"]
NUMBERS = Squared(mean=(3.0, -1.0), std=(2.5, 0.5))
KINDS = NETWORKS | {
    "platt": {"calibration": "platt"},
    "isotonic": {"calibration": "isotonic"},
    "uncalibrated": {"calibration": "none"},
    "average precision": {"objective": Multilabel(metric="ap")},
    "numbers": {"objective": NUMBERS, "targets": ("a, b", "ü [red]x[/red]")},
    "alone": {"members": 1},
}


@pytest.fixture
def folder(tmp_path):
    random_model().save_pretrained(tmp_path / "model")
    return tmp_path / "model"


def change_config(folder, change):
    path = folder / "config.json"
    config = json.loads(path.read_text())
    change(config)
    path.write_text(json.dumps(config))


def sign(folder):
    digest = hashlib.sha256((folder / "model.safetensors").read_bytes()).hexdigest()
    change_config(folder, lambda config: config.update(sha256=digest))


@pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS)
def test_a_model_that_was_read_back_gives_the_same_answers_bit_for_bit(kind, tmp_path):
    model = random_model(**kind)
    model.save_pretrained(tmp_path)
    again = Model.from_pretrained(tmp_path)
    ours, theirs = (vars(one.predict(ASKED)) for one in (model, again))
    for name, answer in ours.items():
        torch.testing.assert_close(theirs[name], answer, rtol=0, atol=0, equal_nan=True)
    assert all(map(same_weights, model.networks, again.networks))
    assert (again.shape, again.about) == (model.shape, model.about)
    assert again.training_smiles == model.training_smiles


def test_a_folder_holds_three_files_and_may_be_written_over(folder):
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    assert before.keys() == FILES
    Model.from_pretrained(folder).save_pretrained(folder)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before


def test_molecules_with_a_line_break_behind_them_stay_one_molecule(tmp_path):
    smiles = ("C\nC", "CCO name", "c1ccccc1\té", "C1CC1\r\n2")
    random_model(smiles=smiles).save_pretrained(tmp_path)
    assert Model.from_pretrained(tmp_path).training_smiles == smiles


def test_nothing_is_unpickled(folder, monkeypatch):
    for module, name in ((pickle, "load"), (pickle, "loads"), (pickle, "Unpickler")):
        monkeypatch.setattr(module, name, lambda *_, **__: pytest.fail("unpickled"))
    monkeypatch.setattr(torch, "load", lambda *_, **__: pytest.fail("unpickled"))
    assert Model.from_pretrained(folder).predict(["CCO"]).readable.all()


def test_a_pickle_in_the_place_of_weights_is_refused_even_with_the_right_digest(folder):
    content = pickle.dumps({"training_smiles": torch.zeros(3)})
    (folder / "model.safetensors").write_bytes(content)
    sign(folder)
    with pytest.raises(ValueError, match="is no model that this version reads"):
        Model.from_pretrained(folder)


@settings(max_examples=25, deadline=None)
@given(where=st.floats(0, 1, exclude_max=True), bit=st.integers(0, 7))
def test_any_changed_bit_of_the_weights_is_noticed(tmp_path_factory, where, bit):
    folder = tmp_path_factory.mktemp("model")
    random_model(members=1).save_pretrained(folder)
    path = folder / "model.safetensors"
    content = bytearray(path.read_bytes())
    content[int(where * len(content))] ^= 1 << bit
    path.write_bytes(content)
    with pytest.raises(ValueError, match="damaged or was exchanged"):
        Model.from_pretrained(folder)


def cut_off(folder):
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-100])


def written(content):
    return lambda folder: (folder / "config.json").write_bytes(content)


def with_smiles(content):
    """Other bytes where the training molecules are, under their right digest."""

    def exchange(folder):
        path = folder / "model.safetensors"
        tensors = load_file(path) | {
            "training_smiles": torch.frombuffer(content, dtype=torch.uint8)
        }
        save_file(tensors, path)
        sign(folder)

    return exchange


def without(*keys):
    def drop(config):
        for key in keys[:-1]:
            config = config[key]
        del config[keys[-1]]

    return lambda folder: change_config(folder, drop)


def with_value(**values):
    return lambda folder: change_config(folder, lambda config: config.update(values))


WRONG = {
    "cut off": (cut_off, "damaged or was exchanged"),
    "no weights": (lambda f: (f / "model.safetensors").unlink(), "model.safetensors is missing"),
    "no config": (lambda f: (f / "config.json").unlink(), "config.json is missing; `molhpft"),
    "garbage": (written(b"{garbage"), "config.json is damaged"),
    "no text": (written(b"\xff\xfe"), "config.json is damaged"),
    "empty": (written(b""), "config.json is damaged"),
    "a list": (written(b"[1]"), "not the config of a molhpft model"),
    "another library's": (written(b'{"hidden_size": 8}'), "not the config of a molhpft model"),
    "a format in words": (with_value(format="two"), "not the config of a molhpft model"),
    "newer": (with_value(format=99, molhpft="9.9"), "written by molhpft 9.9.*update molhpft"),
    "older": (with_value(format=1), "older version of molhpft, whose .* sets promise more than"),
    "no encoder": (without("network", "encoder"), "no model that this version reads .*encoder"),
    "other members": (with_value(members=3), "no model that this version reads"),
    "no molecules": (with_smiles(bytearray(b"CCO")), "no model that this version reads"),
    "no digest": (with_value(sha256=None), "not the config of a molhpft model"),
    "other encoder": (with_value(network={"objective": "classification"}), "that this version"),
}


@pytest.mark.parametrize(("damage", "says"), WRONG.values(), ids=WRONG)
def test_what_is_no_whole_model_is_one_sentence(folder, damage, says):
    damage(folder)
    with pytest.raises((ValueError, FileNotFoundError), match=says) as caught:
        Model.from_pretrained(folder)
    assert str(folder) in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "keys",
    [
        *[(key,) for key in ("format", "sha256", "members", "network", "answers", "made")],
        *[("network", key) for key in ("encoder", "head", "cut", "targets", "objective")],
        *[("answers", key) for key in ("calibration", "level", "near")],
    ],
    ids="-".join,
)
def test_every_key_that_answers_depend_on_is_missed(folder, keys):
    without(*keys)(folder)
    with pytest.raises(ValueError, match=f"{folder}.* (no model that this|not the config)"):
        Model.from_pretrained(folder)


@pytest.mark.parametrize("name", ["nowhere", "no/such/folder", "/no/such", "a b/c d", "owner/name"])
def test_a_name_that_is_no_folder_and_not_on_the_hub_is_one_sentence(name, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(FileNotFoundError, match=f"no folder at '{name}'") as caught:
        Model.from_pretrained(name, cache_dir=tmp_path)
    assert "\n" not in str(caught.value)


def test_an_empty_folder_is_no_model_and_an_option_is_none_of_it(folder, tmp_path):
    with pytest.raises(FileNotFoundError, match="holds no model"):
        Model.from_pretrained(tmp_path)
    with pytest.raises(ValueError, match=r"no options to load it with, got \['colour'\]"):
        Model.from_pretrained(folder, colour="red")


def test_the_card_has_front_matter_scores_and_the_warning_about_molecules(folder):
    _, front, text = (folder / "README.md").read_text().split("---\n", 2)
    assert yaml.safe_load(front)["library_name"] == "molhpft"
    assert "| ROC-AUC | 0.7500 | 0.6125 |" in text
    assert "| calibration error | - | 0.1000 |" in text
    assert "training molecules are part of the weight file" in " ".join(text.split())
    for words in (
        *ABOUT["notes"],
        *ABOUT["promise"],
        "of `ring` from SMILES",
        f"all of the {len(SMILES)} training",
    ):
        assert words in text


def test_the_code_on_the_card_runs(folder):
    code = (folder / "README.md").read_text().split("```")[1].removeprefix("python")
    found = {}
    exec(code.replace("folder, or name on the hub", str(folder)), found)
    assert found["prediction"].readable.tolist() == [True]


def test_pushing_hands_over_exactly_the_three_files(monkeypatch):
    pushed = {}

    def upload(self, *, repo_id, folder_path, **_):
        pushed[repo_id] = {p.name for p in Path(folder_path).iterdir()}
        pushed["model"] = Model.from_pretrained(folder_path)
        return "https://hub/commit"

    made = type("Repo", (), {"repo_id": "me/rings"})
    monkeypatch.setattr("huggingface_hub.HfApi.create_repo", lambda *_, **__: made)
    monkeypatch.setattr("huggingface_hub.HfApi.upload_folder", upload)
    model = random_model()
    assert model.push_to_hub("me/rings") == "https://hub/commit"
    assert pushed["me/rings"] == FILES
    assert all(map(same_weights, model.networks, pushed["model"].networks))
