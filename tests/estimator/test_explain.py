"""What each atom contributes: the parts add up, and a picture of them can be drawn."""

from dataclasses import replace

import pytest
import torch

from molhpft.core.objectives import Squared
from molhpft.domains.files import UnwritableError
from molhpft.domains.molecules.featurized import featurized
from molhpft.domains.molecules.further_columns import store_beside
from molhpft.estimator import explain as explaining
from molhpft.estimator.blend import Line
from molhpft.estimator.explain import draw, explain
from tests.estimator.builders import NETWORKS, random_model

KINDS = NETWORKS | {
    "numbers": {"objective": Squared(mean=(3.0,), std=(2.0,)), "targets": ("size",)},
    "several": {"targets": ("a", "b")},
    "beside": {"head": {"name": "linear", "beside": ["morgan", "properties"]}},
    "lines": {
        "targets": ("a", "b"),
        "lines": (
            Line(torch.tensor([2.0, 0.5]), torch.tensor([0.5, 3.0])),
            Line(torch.tensor([0.25, 4.0]), torch.tensor([-2.0, 1.0])),
        ),
    },
}
ASKED = "CC(=O)Nc1ccccc1"


def logit_of(model, smiles, k):
    molecules = featurized([smiles], model.further)
    store = store_beside(molecules, model.beside)
    return model.logits(store, torch.tensor([0]), molecules.columns)[:, 0, k].mean()


@pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS)
def test_contributions_add_up_to_the_logit_but_for_the_gap_that_is_said(kind):
    model = random_model(**kind)
    for network in model.networks:
        for name, parameter in network.named_parameters():
            if name.endswith("embed.node"):
                torch.nn.init.normal_(parameter)
    for k, target in enumerate(model.spec.target_names):
        found = explain(model, ASKED, target=target)
        assert (found.smiles, found.target, found.atoms.shape) == (ASKED, target, (10,))
        assert found.logit == pytest.approx(logit_of(model, ASKED, k).item(), rel=1e-4, abs=1e-6)
        missed = found.logit - found.baseline - found.atoms.sum().item()
        assert found.gap == pytest.approx(abs(missed), abs=1e-6)
        if kind != KINDS["virtual node"]:
            assert found.gap < 1e-3 + 0.01 * found.atoms.abs().sum().item()


@pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS)
def test_what_the_sum_misses_is_the_virtual_node_and_the_error_of_steps(kind):
    model = random_model(**kind)
    for network in model.networks:
        for name, parameter in network.named_parameters():
            if name.endswith("embed.node"):
                torch.nn.init.normal_(parameter)
    found = explain(model, ASKED, target=model.spec.target_names[0])
    steps = found.logit - found.baseline - found.atoms.sum().item() - found.virtual_node
    assert abs(steps) < 1e-3 + 0.01 * found.atoms.abs().sum().item()
    assert ("the virtual node contributes" in found.reading) == (kind == KINDS["virtual node"])
    assert ("standard deviations" in found.reading) == (kind == KINDS["numbers"])
    assert "Gaussian" not in found.reading


def test_the_weight_of_members_that_are_not_explained_is_said():
    found = replace(explain(random_model(), ASKED), logit=2.0, baseline=0.5, gap=0.0, weight=0.4)
    assert found.reading == (
        "ring: logit of the networks 2.000, of which the atoms contribute +1.500 to that of an "
        "average training atom, 0.500. The sum over atoms misses this by 0.000, for the integral "
        "is taken in 256 steps. Networks have weight 0.40 in the logit of the model; the Gaussian "
        "processes, with 0.60, are not explained."
    )


def test_the_class_that_atoms_speak_for_is_said():
    model = random_model()
    model.spec = replace(model.spec, classes=(("binder", "non-binder"),))
    found = explain(model, ASKED)
    assert found.value == f"{found.target} p(non-binder)"
    assert found.reading.startswith(f"{found.value}: logit ")


def test_contributions_are_the_mean_of_those_of_the_members():
    model = random_model(members=2)
    alone = []
    for network in model.networks:
        one = random_model(members=1)
        one.networks[0].load_state_dict(network.state_dict())
        alone.append(explain(one, ASKED))
    together = explain(model, ASKED)
    torch.testing.assert_close(together.atoms, torch.stack([one.atoms for one in alone]).mean(0))
    assert together.baseline == pytest.approx(sum(one.baseline for one in alone) / 2)


def test_atoms_that_are_alike_contribute_alike():
    atoms = explain(random_model(), "c1ccccc1").atoms
    torch.testing.assert_close(atoms, atoms[:1].expand(6))


def test_of_many_training_molecules_some_make_the_baseline(monkeypatch):
    model = random_model(smiles=("CCO", "no molecule", "c1ccccc1", "CCN"))
    monkeypatch.setattr(explaining, "_SAMPLE", 2)
    some = explain(model, ASKED).baseline
    assert some == explain(random_model(smiles=("CCO", "c1ccccc1")), ASKED).baseline


@pytest.mark.parametrize(
    ("smiles", "target", "says"),
    [
        ("no molecule", "a", "'no molecule' cannot be read as a molecule"),
        ("", "a", "'' cannot be read as a molecule"),
        ("CCO", "c", "no target is named 'c'; there are: a, b"),
        ("CCO", None, r"which target should be explained\? there are: a, b"),
        ("C" * 40_000, "a", "at most 32,767 atoms"),
    ],
)
def test_what_cannot_be_explained_is_one_sentence(smiles, target, says):
    with pytest.raises(ValueError, match=says):
        explain(random_model(targets=("a", "b")), smiles, target=target)


@pytest.mark.parametrize(("name", "begins"), [("a.svg", b"<svg"), ("a.png", b"\x89PNG")])
def test_a_picture_is_what_its_name_says(tmp_path, name, begins):
    draw(explain(random_model(), ASKED), tmp_path / "new" / name)
    assert (tmp_path / "new" / name).read_bytes().startswith(begins)


def test_a_picture_that_cannot_be_written_is_one_sentence(tmp_path):
    found = explain(random_model(), ASKED)
    for name in ("a.gif", "a", "a.SVG"):
        with pytest.raises(ValueError, match=r"should end in \.svg or \.png"):
            draw(found, tmp_path / name)
    (tmp_path / "a.svg").mkdir()
    with pytest.raises(UnwritableError, match=r"cannot write .* choose another file"):
        draw(found, tmp_path / "a.svg")
