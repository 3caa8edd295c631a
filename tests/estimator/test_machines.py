"""Support vector machines as sums of similarities: those of scikit-learn, in a file of tensors."""

import numpy as np
import pytest
import torch
from molhpft.estimator.machines import (
    Described,
    Machines,
    affordable_rows,
    fit_machine,
    machines_from,
    similarities,
)
from scipy.sparse import csr_matrix
from sklearn.metrics.pairwise import rbf_kernel
from sklearn.svm import SVC, SVR

from molhpft.estimator import machines
from tests.estimator.builders import random_model

D = 6


def described(n, *, d=D, seed=0):
    rng = np.random.default_rng(seed)
    counts = rng.poisson(0.02, (n, 2048)).clip(0, 255)
    return Described(rng.normal(size=(n, d)).astype(np.float32), csr_matrix(counts))


def minmax(a, b):
    """Row by row, from the definition."""
    pairs = [[np.minimum(x, y).sum() / np.maximum(x, y).sum() for y in b] for x in a]
    return np.array(pairs)


def test_kernels_are_those_of_their_definitions():
    asked, known = described(5, seed=1), described(9)
    found = similarities(asked, known)
    gaussian = rbf_kernel(asked.features, known.features, gamma=1 / (2 * D))
    counted = minmax(asked.counts.toarray(), known.counts.toarray())
    assert found["features"] == pytest.approx(gaussian, rel=1e-5)
    assert found["fingerprints"] == pytest.approx(counted)
    assert found["features and fingerprints"] == pytest.approx(gaussian + counted, rel=1e-5)
    without = similarities(described(5, d=0, seed=1), described(9, d=0))
    assert list(without) == ["fingerprints"]


@pytest.mark.parametrize("classes", [True, False])
def test_a_machine_is_that_of_scikit_learn_for_each_target_on_what_it_has_measured(classes):
    known, asked, rng = described(40), described(7, seed=1), np.random.default_rng(2)
    y = rng.integers(0, 2, (40, 2)).astype(float) if classes else rng.normal(size=(40, 2))
    y[5:20, 1] = np.nan
    kernel = similarities(known, known)["features"]
    machine = fit_machine("features", kernel, torch.from_numpy(y), classes=classes)
    found = machine.logits(similarities(asked, known)["features"])
    for k in range(2):
        rows = ~np.isnan(y[:, k])
        own = SVC(C=3, gamma=1 / (2 * D)) if classes else SVR(C=3, gamma=1 / (2 * D))
        own.fit(known.features[rows], y[rows, k])
        decide = own.decision_function if classes else own.predict
        # both stop at a tolerance of 1e-3
        assert found[:, k].numpy() == pytest.approx(decide(asked.features), abs=5e-3)


def test_a_target_with_nothing_to_tell_apart_is_a_constant():
    y = torch.tensor([[1.0, torch.nan], [1.0, torch.nan], [1.0, torch.nan]])
    kernel = np.eye(3)
    classes = fit_machine("features", kernel, y, classes=True)
    numbers = fit_machine("features", kernel, y * 2.5, classes=False)
    assert not classes.coefficients.any()
    assert classes.intercepts == pytest.approx([np.log(4), 0])
    assert numbers.intercepts == pytest.approx([2.5, 0])


def fitted(*, d=D):
    known, y = described(30, d=d), torch.randn(30, 2, generator=torch.Generator().manual_seed(0))
    by_kernel = similarities(known, known)
    return Machines(
        tuple(fit_machine(k, by_kernel[k], y, classes=False) for k in known.kernels), known, None
    )


def test_slopes_and_offsets_move_logits_and_nothing_else():
    group, asked = fitted(), described(4, seed=3)
    slopes, offsets = torch.tensor([[2.0, 3.0]] * 3), torch.tensor([[1.0, -1.0]] * 3)
    moved = group.scaled(slopes, offsets)
    for before, after in zip(group.machines, moved.machines, strict=True):
        kernel = similarities(asked, group.known)[before.kernel]
        expected = before.logits(kernel) * slopes[0] + offsets[0]
        torch.testing.assert_close(after.logits(kernel), expected.double())


def test_some_machines_need_only_their_own_molecules():
    group, asked = fitted(), described(4, seed=3)
    coefficients = group.machines[1].coefficients.copy()
    coefficients[::2] = 0
    sparse = type(group.machines[1])("fingerprints", coefficients, group.machines[1].intercepts)
    group = Machines((group.machines[0], sparse, group.machines[2]), group.known, None)
    alone = group.only([1])
    assert len(alone.known) == 15
    assert alone.known.features.shape[1] == 0
    kernels = (similarities(asked, some.known)["fingerprints"] for some in (group, alone))
    before, after = (m.logits(k) for m, k in zip((sparse, alone.machines[0]), kernels, strict=True))
    torch.testing.assert_close(after, before)


def test_what_a_file_holds_of_machines_gives_them_back():
    group, asked = fitted(), described(4, seed=3)
    tensors = group.to_tensors()
    again = machines_from(tensors, [one.kernel for one in group.machines], None)
    for ours, theirs in zip(group.machines, again.machines, strict=True):
        kernels = (similarities(asked, some.known)[ours.kernel] for some in (group, again))
        first, second = (m.logits(k) for m, k in zip((ours, theirs), kernels, strict=True))
        assert first.equal(second)


def test_a_large_table_is_sampled_within_what_its_labels_cost(monkeypatch):
    assert affordable_rows(torch.zeros(50, 3), seed=0).tolist() == list(range(50))
    monkeypatch.setattr(machines, "BUDGET", 3 * 20**2)
    sample = affordable_rows(torch.zeros(50, 3), seed=0)
    assert len(sample) == 20
    assert (np.diff(sample) > 0).all()
    monkeypatch.setattr(machines, "MOST_ROWS", 10)
    assert len(affordable_rows(torch.zeros(50, 3), seed=0)) == 10
    assert (
        affordable_rows(torch.zeros(50, 3), seed=0) == affordable_rows(torch.zeros(50, 3), seed=0)
    ).all()


def test_a_model_weighs_networks_and_machines_alike():
    model = random_model(members=1)
    with pytest.raises(ValueError, match="a weight for each, got 1 members"):
        type(model)(
            model.spec, model.networks, model.uncertainty, ("C",), model.about, weights=[0.5, 0.5]
        )
