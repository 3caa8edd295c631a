"""Predictions of a model, its folder, its card and the hub."""

import json
import pickle
from pathlib import Path

import pytest
import torch
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from molhpft.core.network import Batch
from molhpft.core.objectives import Multilabel, Squared
from molhpft.domains.files import digest
from molhpft.domains.molecules.featurized import featurized
from molhpft.domains.molecules.graphs import graph_store
from molhpft.estimator.card import model_card
from molhpft.estimator.model import Model
from tests.estimator.builders import ABOUT, NETWORKS, SMILES, random_model
from tests.toy import same_weights

NUMBERS = {"objective": Squared(mean=(3.0, -1.0), std=(2.5, 0.5)), "targets": ("a", "b")}
molecules = st.lists(st.sampled_from([*SMILES[:9], "no molecule", ""]), max_size=12)


@pytest.fixture(scope="module")
def model():
    return random_model(members=3)


@settings(max_examples=25, deadline=None)
@given(molecules)
def test_an_answer_depends_on_its_molecule_alone(model, smiles):
    whole = model.predict(smiles)
    assert len(whole) == len(smiles)
    for row, text in enumerate(smiles):
        alone = model.predict([text])
        for name in ("values", "std", "similarity"):
            torch.testing.assert_close(
                getattr(whole, name)[row],
                getattr(alone, name)[0],
                rtol=1e-4,
                atol=1e-6,
                equal_nan=True,
            )
        for name in ("readable", "nearest", "in_domain"):
            assert getattr(whole, name)[row] == getattr(alone, name)[0]


@pytest.mark.parametrize("kind", [{}, NUMBERS, {"calibration": "isotonic"}], ids=str)
def test_values_are_those_of_the_mean_logit_and_std_is_over_members(kind):
    model = random_model(members=3, **kind)
    molecules = featurized(SMILES)
    store, rows = graph_store(molecules.graphs), torch.arange(len(SMILES))
    logits = model.logits(store, rows, molecules.columns)
    assert logits.shape == (3, len(SMILES), len(model.spec.target_names))
    found, objective = model.predict(SMILES), model.spec.objective
    torch.testing.assert_close(found.values, model.uncertainty.values(logits.mean(0), objective))
    members = torch.stack([model.uncertainty.values(member, objective) for member in logits])
    torch.testing.assert_close(found.std, members.std(0, correction=0))
    assert (found.std > 0).any()


def test_a_single_member_has_no_std():
    assert random_model(members=1).predict(SMILES).std.isnan().all()


def test_what_cannot_be_read_has_no_answer_and_is_near_nothing(model):
    found = model.predict(["no molecule", "", "C" * 40_000])
    assert not found.readable.any()
    assert not found.in_domain.any()
    assert not found.sets.any()
    for answer in (found.values, found.std, found.similarity):
        assert answer.isnan().all()


@pytest.mark.parametrize("kind", [{}, NUMBERS], ids=["classes", "numbers"])
def test_no_molecules_have_no_answers(kind):
    model = random_model(**kind)
    found, t = model.predict([]), len(model.spec.target_names)
    assert len(found) == 0
    assert (found.values.shape, found.sets.shape) == ((0, t), (0, t, 2))


def test_training_molecules_are_near_and_their_own_nearest(model):
    found = model.predict(SMILES)
    assert (found.similarity == 1).all()
    prints = model.uncertainty.fingerprints
    assert (prints[found.nearest] == prints).all()
    assert found.in_domain.all()
    assert model.predict(["no molecule", SMILES[3]]).nearest.tolist()[0] == -1


def test_features_are_those_of_the_members_side_by_side(model):
    molecules, rows = featurized(SMILES), torch.tensor([5, 0, 5])
    store = graph_store(molecules.graphs)
    z = model.features(store, rows)
    assert z.shape == (3, model.width) == (3, 24)
    assert z[0].equal(z[2])
    assert model.features(store, rows[:0]).shape == (0, 24)
    heads = [
        network.head(part, Batch(part, torch.zeros(3)))
        for network, part in zip(model.networks, z.split(8, 1), strict=True)
    ]
    torch.testing.assert_close(torch.stack(heads), model.logits(store, rows, molecules.columns))


def test_answering_trains_nothing_and_leaves_no_mode_changed(model):
    before = [{k: v.clone() for k, v in n.state_dict().items()} for n in model.networks]
    model.networks[0].train()
    found = model.predict(SMILES)
    assert model.networks[0].training
    model.networks[0].eval()
    assert model.predict(SMILES).values.equal(found.values)
    for network, kept in zip(model.networks, before, strict=True):
        assert all(tensor.equal(kept[name]) for name, tensor in network.state_dict().items())


FILES = {"README.md", "config.json", "model.safetensors"}
ASKED = [*SMILES[:30], "no molecule", "", "c1ccccc1O"]
BESIDE = {"name": "mlp", "beside": ["morgan", "properties"]}
TWO_NUMBERS = Squared(mean=(3.0, -1.0), std=(2.5, 0.5))
KINDS = NETWORKS | {
    "platt": {"calibration": "platt"},
    "isotonic": {"calibration": "isotonic"},
    "uncalibrated": {"calibration": "none"},
    "average precision": {"objective": Multilabel(metric="ap")},
    "numbers": {"objective": TWO_NUMBERS, "targets": ("a, b", "ü [red]x[/red]")},
    "alone": {"members": 1},
    "standardised": {"standardise": True},
    "beside": {"standardise": True, "head": BESIDE},
    "beside, cut": {"cut": "conv1", "head": BESIDE},
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
    sha256 = digest(folder / "model.safetensors")
    change_config(folder, lambda config: config.update(sha256=sha256))


@pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS)
def test_a_model_that_was_read_back_gives_the_same_answers_bit_for_bit(kind, tmp_path):
    model = random_model(**kind)
    model.save_pretrained(tmp_path)
    again = Model.from_pretrained(tmp_path)
    ours, theirs = (vars(one.predict(ASKED)) for one in (model, again))
    for name, answer in ours.items():
        torch.testing.assert_close(theirs[name], answer, rtol=0, atol=0, equal_nan=True)
    assert all(map(same_weights, model.networks, again.networks))
    assert (again.spec, again.about) == (model.spec, model.about)
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
    "older": (
        with_value(format=1),
        "whose models this version does not read; make the model again, in another folder",
    ),
    "of one width": (
        with_value(format=4),
        "whose models this version does not read; make the model again, in another folder",
    ),
    "other sizes": (with_value(sizes=[5]), "no model that this version reads"),
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
        *[(key,) for key in ("format", "sha256", "members", "kernel_models", "weights", "sizes")],
        *[(key,) for key in ("network", "uncertainty", "about")],
        ("network", "target_names"),
        *[("network", key) for key in ("encoder", "head", "cut", "standardise", "objective")],
        *[("uncertainty", key) for key in ("calibration", "target_coverage", "domain_threshold")],
        ("uncertainty", "log_losses"),
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


def test_an_empty_folder_is_no_model(tmp_path):
    with pytest.raises(FileNotFoundError, match="holds no model"):
        Model.from_pretrained(tmp_path)


def test_a_folder_has_no_options_and_nothing_has_unknown_ones(folder):
    with pytest.raises(ValueError, match="no options to load it with, got revision and token"):
        Model.from_pretrained(folder, token="x", revision="main")
    for name in (folder, "owner/name"):
        with pytest.raises(ValueError, match=r"should be of revision, .*files_only, got colour$"):
            Model.from_pretrained(name, colour="red")


def test_the_options_go_to_the_hub(folder, monkeypatch):
    asked = {}

    def fetched(name, **options):
        asked.update(options, name=name)
        return str(folder)

    monkeypatch.setattr("huggingface_hub.snapshot_download", fetched)
    model = Model.from_pretrained("owner/name", revision="v1", token=False, local_files_only=True)
    assert model.predict(["CCO"]).readable.all()
    expected = {"name": "owner/name", "revision": "v1", "token": False, "local_files_only": True}
    assert expected.items() <= asked.items()


def test_the_card_has_front_matter_scores_and_the_warning_about_molecules(folder):
    _, front, text = (folder / "README.md").read_text().split("---\n", 2)
    assert yaml.safe_load(front)["library_name"] == "molhpft"
    assert "| ROC-AUC | 0.7500 | 0.6125 |" in text
    assert "| calibration error | - | 0.1000 |" in text
    assert "training molecules are part of the weight file" in " ".join(text.split())
    for words in (
        *ABOUT["notes"],
        *ABOUT["coverage"],
        "of `ring` from SMILES",
        f"all of the {len(SMILES)} training",
    ):
        assert words in text


def test_the_card_speaks_of_an_encoder_where_a_member_reads_one(monkeypatch):
    model = random_model()
    assert model.reads_encoder
    assert "with molhpft's encoder `gcn`" in model_card(model)
    monkeypatch.setattr(model, "networks", [])
    assert not model.reads_encoder
    assert "encoder" not in model_card(model).split("```")[0].partition("# rings")[2]


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
