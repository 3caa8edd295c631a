"""Gaussian processes on what is known of molecules: sums of similarities, in a file of tensors."""

import numpy as np
import pytest
import torch
from scipy.sparse import csr_matrix
from sklearn.gaussian_process import GaussianProcessRegressor
from sklearn.gaussian_process.kernels import PairwiseKernel, WhiteKernel
from sklearn.metrics.pairwise import rbf_kernel

from molhpft.core.scale import fit_scale
from molhpft.estimator.kernel_models import (
    KernelModels,
    fit_kernel_model,
    groups,
    kernel_models_from,
    likeliest_covariance,
    sampled_rows,
    weighted_sum,
)
from molhpft.estimator.similarities import SIMILARITIES, Described, Describer, similarity
from tests.estimator.builders import random_model

D = 6
COUNTED = ("morgan", "atom_pairs", "torsions")


def described(n, *, seed=0):
    rng = np.random.default_rng(seed)
    counts = {name: csr_matrix(rng.poisson(0.02, (n, 2048)).astype(np.float32)) for name in COUNTED}
    dense = {
        name: rng.normal(size=(n, D)).astype(np.float32) for name in ("features", "properties")
    }
    return Described({**counts, **dense})


def among(known):
    return {name: similarity(name, known, known) for name in SIMILARITIES}


def fitted_to(name, kernels, y):
    rows = np.arange(len(y))
    covariance = likeliest_covariance(name, kernels, y, rows)
    return fit_kernel_model(covariance, weighted_sum(covariance.weights, kernels.__getitem__), y)


def between(asked, known):
    return {name: similarity(name, asked, known) for name in known.columns}


def minmax(a, b):
    """Row by row, from the definition."""
    pairs = [[np.minimum(x, y).sum() / np.maximum(x, y).sum() for y in b] for x in a]
    return np.array(pairs)


def test_similarities_are_those_of_their_definitions():
    asked, known = described(5, seed=1), described(9)
    for name in COUNTED:
        expected = minmax(asked.columns[name].toarray(), known.columns[name].toarray())
        assert similarity(name, asked, known) == pytest.approx(expected)
    for name, width in (("features", 1), ("properties", 2)):
        a, b = (some.columns[name].astype(float) / width for some in (asked, known))
        assert similarity(name, asked, known) == pytest.approx(rbf_kernel(a, b, gamma=0.5 / D))


def test_properties_are_scaled_by_known_molecules_and_what_is_undefined_is_ordinary():
    rng = np.random.default_rng(0)
    known = rng.normal(5, 3, (200, 3)).astype(np.float32)
    known[:, 1] = 7.0
    known[0, 2] = 1e30
    known[:100, 0] = np.nan
    scale = fit_scale(known)
    found = scale.filled(torch.from_numpy(known).double()).numpy()
    assert found.mean(0) == pytest.approx([0, 0, 0], abs=1e-5)
    assert np.isfinite(found).all()
    assert not found[:, 1].any()
    assert found[100:, 0].std() == pytest.approx(1, rel=1e-5)
    assert np.abs(found[:, 2]).max() < 4
    everywhere = scale.filled(torch.full((2, 3), torch.nan))
    assert not everywhere.any()


def test_predictions_are_those_of_scikit_learn_with_the_same_kernel_and_noise():
    known, asked = described(40), described(7, seed=1)
    y = torch.from_numpy(np.random.default_rng(2).normal(3, 2, (40, 1)))
    model = fitted_to("features", {"features": among(known)["features"]}, y)
    (weight,) = model.weights.values()
    found = model.outputs(between(asked, known))[:, 0].numpy()
    # the noise is in no attribute: it is what the coefficients leave of the labels
    standard = (y - y.mean()) / y.std(correction=0)
    coefficients = model.coefficients[:, 0] / float(y.std(correction=0))
    left = standard[:, 0].numpy() - weight * among(known)["features"] @ coefficients
    noise = float((left / coefficients).mean())
    assert left == pytest.approx(noise * coefficients, abs=1e-8)
    kernel = weight * PairwiseKernel(metric="rbf", gamma=0.5 / D) + WhiteKernel(noise)
    theirs = GaussianProcessRegressor(kernel, optimizer=None)
    theirs.fit(known.columns["features"].astype(float), standard.numpy()[:, 0])
    expected = theirs.predict(asked.columns["features"].astype(float))
    assert found == pytest.approx(expected * float(y.std(correction=0)) + float(y.mean()))


def test_the_similarity_that_tells_labels_apart_weighs_most():
    known = described(120)
    kernel = similarity("properties", known, known)
    rng = np.random.default_rng(1)
    y = np.linalg.cholesky(kernel + 1e-6 * np.eye(120)) @ rng.normal(size=(120, 1))
    model = fitted_to("all", among(known), torch.from_numpy(y))
    assert max(model.weights, key=model.weights.get) == "properties"


def test_each_target_learns_from_what_it_has_measured_and_what_does_not_vary_is_a_constant():
    known, rng = described(30), np.random.default_rng(0)
    y = torch.from_numpy(rng.normal(size=(30, 4)))
    y[5:20, 1], y[:, 2], y[:, 3] = torch.nan, 4.5, torch.nan
    model = fitted_to("fingerprints", {n: among(known)[n] for n in COUNTED}, y)
    assert not model.coefficients[5:20, 1].any()
    assert model.coefficients[:5, 1].all()
    assert not model.coefficients[:, 2:].any()
    assert model.intercepts[2:] == pytest.approx([4.5, 0])


def fitted(*, rows=30):
    known, y = described(rows), torch.randn(rows, 2, generator=torch.Generator().manual_seed(0))
    kernels = among(known)
    models = tuple(
        fitted_to(key, {name: kernels[name] for name in group}, y)
        for key, group in groups(SIMILARITIES).items()
    )
    scale = fit_scale(known.columns["properties"])
    return KernelModels(models, known, Describer(SIMILARITIES, torch.nn.Identity(), scale))


def test_groups_are_of_what_there_is():
    assert list(groups(SIMILARITIES)) == [
        "fingerprints",
        "features",
        "fingerprints, features and properties",
    ]
    without = groups([name for name in SIMILARITIES if name != "features"])
    assert list(without) == ["fingerprints", "fingerprints and properties"]
    assert without["fingerprints and properties"] == (*COUNTED, "properties")
    assert groups(COUNTED) == {"fingerprints": COUNTED}
    assert groups(["features"]) == {"features": ("features",)}


def test_some_models_need_only_what_they_read():
    group, asked = fitted(), described(4, seed=3)
    alone = group.only([0])
    assert set(alone.references.columns) <= set(COUNTED)
    assert alone.describer.scale is None
    assert alone.describer.backbone is None
    before, after = (
        some.models[0].outputs(between(asked, some.references)) for some in (group, alone)
    )
    torch.testing.assert_close(after, before)


def test_what_a_file_holds_gives_the_models_back():
    group, asked = fitted(), described(4, seed=3)
    tensors = {key: tensor.clone() for key, tensor in group.to_tensors().items()}
    again = kernel_models_from(tensors, group.to_json(), torch.nn.Identity())
    for ours, theirs in zip(group.models, again.models, strict=True):
        first, second = (
            one.outputs(between(asked, some.references))
            for one, some in ((ours, group), (theirs, again))
        )
        assert first.equal(second)
    values = torch.randn(3, D, generator=torch.Generator().manual_seed(5))
    assert again.describer.scale(values).equal(group.describer.scale(values))


def test_a_large_table_is_sampled_within_what_its_labels_cost():
    y = torch.randn(50, 3)
    assert sampled_rows(y, seed=0).tolist() == list(range(50))
    sample = sampled_rows(y, seed=0, budget=3 * 20**3)
    assert len(sample) == 20
    assert (np.diff(sample) > 0).all()
    assert len(sampled_rows(y, seed=0, most=10)) == 10
    assert (sampled_rows(y, seed=0, most=10) == sampled_rows(y, seed=0, most=10)).all()
    y[7:] = torch.nan
    assert sampled_rows(y, seed=0).tolist() == list(range(7))


def test_rare_labels_come_first_into_a_sample():
    y = torch.zeros(400, 1)
    y[::50] = 1
    sample = sampled_rows(y, seed=0, most=40)
    assert y[sample].sum() == 8
    half = sampled_rows(1 - y, seed=0, most=10)
    assert (1 - y)[half].sum() == 5


def test_a_model_has_a_weight_and_a_line_for_each_member():
    model = random_model(members=1)
    with pytest.raises(ValueError, match="a weight and a line for each, got 1 members"):
        type(model)(
            model.spec, model.networks, model.uncertainty, ("C",), model.about, weights=[0.5, 0.5]
        )
