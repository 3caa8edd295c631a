"""SMILES become features of an encoder that stays as it is, inside scikit-learn or alone."""

import json
import os
import pickle
import tracemalloc

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.torch import load_file, save_file
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.linear_model import Ridge
from sklearn.model_selection import cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from molhpft.core.evaluate import inference
from molhpft.core.network import Batch
from molhpft.domains.molecules.checkpoints import load_encoder
from molhpft.domains.molecules.gcn import ogb_gcn
from molhpft.domains.molecules.graphs import pack
from molhpft.domains.parallel import VARIABLE
from molhpft.domains.shipped import DEFAULT_ENCODER, REPLACED, SHIPPED
from molhpft.estimator import MoleculeEncoder
from tests.estimator.builders import SIZE, SMILES, random_model

ASKED = ["CCO", "no molecule", "c1ccccc1O", "", "C.[Na+]", "C" * 40]
PUBLIC = "weights/gcn_supervised_contextpred.pth"


def write_weights(path, *, width=8, layers=2, dtype=torch.float32):
    torch.manual_seed(0)
    chain = ogb_gcn(layers=layers, width=width)
    for name, buffer in chain.named_buffers():
        if name.endswith(("running_mean", "running_var")):
            buffer.uniform_(0.5, 1.5)
    options = {"name": "gcn", "layers": layers, "width": width}
    about = {"encoder": "gcn", "config": {"encoder": options}}
    state = {f"backbone.{name}": value for name, value in chain.state_dict().items()}
    halved = {k: v.to(dtype) if v.is_floating_point() else v for k, v in state.items()}
    save_file(halved, path, metadata={"molhpft": json.dumps(about)})
    return path


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    return write_weights(tmp_path_factory.mktemp("encoder") / "w.safetensors")


@pytest.fixture(scope="module")
def encoder(weights):
    return MoleculeEncoder(weights).fit(SMILES)


def by_hand(path, smiles, **shape):
    """Features of readable molecules, all in one batch."""
    chain, graphs = ogb_gcn(**shape), pack(smiles)
    load_encoder(chain, path)
    inputs = graphs.take(torch.arange(len(smiles)))
    with inference(chain):
        return chain(inputs, Batch(inputs, torch.empty(len(smiles), 0))).numpy()


def test_features_are_those_of_the_chain_with_the_weights_of_the_file(encoder, weights):
    z = encoder.transform(SMILES)
    assert (z.shape, z.dtype) == ((len(SMILES), 8), np.float32)
    expected = by_hand(weights, SMILES, layers=2, width=8)
    np.testing.assert_allclose(z, expected, rtol=2e-5, atol=1e-6)
    assert len(np.unique(z, axis=0)) > 50


def test_an_unreadable_molecule_is_a_row_of_nan_and_changes_no_other(encoder):
    z = encoder.transform(ASKED)
    readable = [k for k in range(len(ASKED)) if k not in (1, 3)]
    assert np.flatnonzero(np.isnan(z).any(1)).tolist() == [1, 3]
    assert np.isnan(z[[1, 3]]).all()
    alone = encoder.transform([ASKED[k] for k in readable])
    np.testing.assert_allclose(z[readable], alone, rtol=2e-5, atol=1e-6)


def test_no_molecules_and_unreadable_ones_alone_have_features_too(encoder):
    assert encoder.transform([]).shape == (0, 8)
    assert np.isnan(encoder.transform(["?", None])).all()


FORMS = {
    "array": np.array,
    "objects": lambda smiles: np.array(smiles, dtype=object),
    "series": pd.Series,
    "tuple": tuple,
    "column": lambda smiles: np.array(smiles)[:, None],
    "frame of one column": lambda smiles: pd.DataFrame({"mol": smiles}),
    "frame with smiles": lambda smiles: pd.DataFrame({"id": 1, "smiles": smiles}),
}


@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)
def test_molecules_come_in_every_form_that_estimators_take(encoder, form):
    np.testing.assert_array_equal(encoder.transform(form(SMILES)), encoder.transform(SMILES))


@pytest.mark.parametrize("workers", ["1", "2"])
def test_batches_and_processes_change_nothing_but_rounding(encoder, weights, monkeypatch, workers):
    monkeypatch.setenv(VARIABLE, workers)
    whole, threads = encoder.transform(SMILES + ASKED), torch.get_num_threads()
    in_parts = MoleculeEncoder(weights, batch_size=7).fit_transform(SMILES + ASKED)
    np.testing.assert_allclose(in_parts, whole, rtol=2e-5, atol=1e-6)
    assert torch.get_num_threads() == threads


@pytest.mark.slow
def test_memory_beside_the_result_does_not_grow_with_the_molecules(encoder, monkeypatch):
    monkeypatch.setenv(VARIABLE, "1")
    few = MoleculeEncoder(encoder.encoder, batch_size=16).fit([])
    few.transform(["C" * 60])  # what is made once is made before
    tracemalloc.start()
    peaks = []
    for n in (100, 700):
        tracemalloc.reset_peak()
        size = few.transform(["C" * 60] * n).nbytes
        peaks.append(tracemalloc.get_traced_memory()[1] - size)
    tracemalloc.stop()
    per_molecule = (peaks[1] - peaks[0]) / 600
    assert per_molecule < 400  # bytes, of the list of texts; graph and fingerprint are 1,268


def test_columns_are_named_as_embed_names_them(encoder):
    assert encoder.get_feature_names_out().tolist() == [f"z{k}" for k in range(8)]


def test_pandas_gets_its_index_and_names_back(weights):
    encoder = MoleculeEncoder(weights).set_output(transform="pandas")
    frame = pd.DataFrame({"smiles": ASKED}, index=[f"m{k}" for k in range(len(ASKED))])
    for given in (frame, frame["smiles"]):
        found = encoder.fit_transform(given)
        assert list(found.index) == list(frame.index)
        assert list(found.columns) == [f"z{k}" for k in range(8)]
        assert set(found.dtypes) == {np.dtype(np.float32)}


def test_pipelines_and_cross_validation_work(weights):
    model = make_pipeline(MoleculeEncoder(weights), StandardScaler(), Ridge())
    assert model.fit(SMILES, SIZE).score(SMILES, SIZE) > 0.5
    assert len(cross_val_score(clone(model), np.array(SMILES), SIZE, cv=2)) == 2
    named = model[:-1].get_feature_names_out()
    assert named.tolist() == [f"z{k}" for k in range(8)]


def test_a_pickle_holds_the_weights_and_a_clone_does_not(encoder, weights, tmp_path):
    moved = write_weights(tmp_path / "moved.safetensors")
    stored = pickle.dumps(MoleculeEncoder(moved).fit([]))
    os.remove(moved)
    again = pickle.loads(stored)
    np.testing.assert_array_equal(again.transform(SMILES), encoder.transform(SMILES))
    with pytest.raises(FileNotFoundError, match="no weight file at"):
        clone(again).fit(SMILES)


def test_features_of_a_file_in_half_precision_are_float32(weights, tmp_path):
    half = write_weights(tmp_path / "half.safetensors", dtype=torch.float16)
    assert half.stat().st_size < 0.7 * weights.stat().st_size
    z = MoleculeEncoder(half).fit_transform(SMILES)
    assert z.dtype == np.float32
    rounded = {k: v.float().half().float() for k, v in load_file(weights).items()}
    file = tmp_path / "rounded.safetensors"
    about = {"encoder": "gcn", "config": {"encoder": {"name": "gcn", "layers": 2, "width": 8}}}
    save_file(rounded, file, metadata={"molhpft": json.dumps(about)})
    np.testing.assert_array_equal(z, MoleculeEncoder(file).fit_transform(SMILES))


def test_the_default_is_the_shipped_encoder(encoder):
    found, path = MoleculeEncoder().fit(["CCO"]), SHIPPED / f"{DEFAULT_ENCODER}.safetensors"
    np.testing.assert_array_equal(
        found.transform(["CCO"]), MoleculeEncoder(path).fit_transform(["CCO"])
    )
    assert found.transform(["CCO"]).shape == (1, found.encoder_.width)


def test_the_encoder_of_a_model_and_a_public_one_are_taken(tmp_path, ogb_root):
    model = random_model()
    model.save_pretrained(tmp_path)
    z = MoleculeEncoder(tmp_path).fit_transform(SMILES)
    rows = torch.arange(len(SMILES))
    np.testing.assert_allclose(z, model.features(pack(SMILES), rows)[:, :8], rtol=2e-5, atol=1e-6)
    public = ogb_root.parent / PUBLIC
    if not public.is_file():
        pytest.skip(f"no public checkpoint at {public}")
    z = MoleculeEncoder(str(public)).fit_transform(ASKED)
    assert z.shape == (len(ASKED), 300)
    assert np.isnan(z).any(1).tolist() == [False, True, False, True, False, False]


WRONG = {
    "no such encoder": ({"encoder": "gcn_none"}, "no weight file at gcn_none"),
    "keys": ({"encoder": {"name": "gcn"}}, "encoder should be the name of a shipped encoder"),
    "batch of none": ({"batch_size": 0}, "batch_size should be a whole number from 1, got 0"),
    "batch of a half": ({"batch_size": 0.5}, "batch_size should be a whole number from 1"),
    "an earlier one": ({"encoder": "old"}, "^encoder old is not shipped any more; new replaced it"),
}


@pytest.mark.parametrize(("options", "says"), WRONG.values(), ids=WRONG)
def test_an_option_that_does_not_fit_is_one_sentence(monkeypatch, options, says):
    monkeypatch.setitem(REPLACED, "old", "new")
    with pytest.raises((ValueError, FileNotFoundError), match=says) as caught:
        MoleculeEncoder(**options).fit(SMILES)
    assert "\n" not in str(caught.value)


def test_what_is_no_text_is_refused_when_fitted_and_when_asked(encoder):
    for call in (encoder.transform, MoleculeEncoder(encoder.encoder).fit):
        with pytest.raises(ValueError, match="molecules should be SMILES strings; row 0 is 1"):
            call([1, 2])


def test_what_is_not_fitted_says_so():
    for call in (lambda e: e.transform(SMILES), lambda e: e.get_feature_names_out()):
        with pytest.raises(NotFittedError):
            call(MoleculeEncoder())
