"""What a model says of molecules: its members together, molecule by molecule."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from molhpft.core.objectives import Squared
from molhpft.domains.molecules.fingerprints import featurized
from molhpft.domains.molecules.graphs import graph_store
from tests.estimator.models import random_model
from tests.estimator.rings import SMILES

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
        for name in ("values", "spread", "similarity"):
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
def test_values_are_those_of_the_mean_logit_and_spread_is_over_members(kind):
    model = random_model(members=3, **kind)
    store = graph_store(featurized(SMILES).graphs)
    logits = model.logits(store, torch.arange(len(SMILES)))
    assert logits.shape == (3, len(SMILES), len(model.shape.targets))
    found, objective = model.predict(SMILES), model.shape.objective
    torch.testing.assert_close(found.values, model.trust.values(logits.mean(0), objective))
    members = torch.stack([model.trust.values(member, objective) for member in logits])
    torch.testing.assert_close(found.spread, members.std(0, correction=0))
    assert (found.spread > 0).any()


def test_a_single_member_has_no_spread():
    assert (random_model(members=1).predict(SMILES).spread == 0).all()


def test_what_cannot_be_read_has_no_answer_and_is_near_nothing(model):
    found = model.predict(["no molecule", "", "C" * 40_000])
    assert not found.readable.any()
    assert not found.in_domain.any()
    assert not found.sets.any()
    for answer in (found.values, found.spread, found.similarity):
        assert answer.isnan().all()


@pytest.mark.parametrize("kind", [{}, NUMBERS], ids=["classes", "numbers"])
def test_no_molecules_have_no_answers(kind):
    model = random_model(**kind)
    found, t = model.predict([]), len(model.shape.targets)
    assert len(found) == 0
    assert (found.values.shape, found.sets.shape) == ((0, t), (0, t, 2))


def test_training_molecules_are_near_and_their_own_nearest(model):
    found = model.predict(SMILES)
    assert (found.similarity == 1).all()
    prints = model.trust.prints
    assert (prints[found.nearest] == prints).all()
    assert found.in_domain.all()


def test_features_are_those_of_the_members_side_by_side(model):
    store, rows = graph_store(featurized(SMILES).graphs), torch.tensor([5, 0, 5])
    z = model.features(store, rows)
    assert z.shape == (3, model.width) == (3, 24)
    assert z[0].equal(z[2])
    assert model.features(store, rows[:0]).shape == (0, 24)
    heads = [
        network.head(part, None)
        for network, part in zip(model.networks, z.split(8, 1), strict=True)
    ]
    torch.testing.assert_close(torch.stack(heads), model.logits(store, rows))


def test_answering_trains_nothing_and_leaves_no_mode_changed(model):
    before = [{k: v.clone() for k, v in n.state_dict().items()} for n in model.networks]
    model.networks[0].train()
    found = model.predict(SMILES)
    assert model.networks[0].training
    model.networks[0].eval()
    assert model.predict(SMILES).values.equal(found.values)
    for network, kept in zip(model.networks, before, strict=True):
        assert all(tensor.equal(kept[name]) for name, tensor in network.state_dict().items())
