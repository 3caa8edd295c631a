"""Heads that read more than features, in runs and in models."""

import json

import numpy as np
import pytest
import torch

from molhpft.config.build import build_recipes
from molhpft.core.beside import STAGE
from molhpft.core.evaluate import take
from molhpft.domains.molecules.properties import properties
from molhpft.estimator import HPFTClassifier
from molhpft.estimator.frozen import smiles_features
from molhpft.estimator.model import Model
from molhpft.measure.features import initial_energy
from molhpft.run.run import run
from molhpft.tuning.frozen_features import on_features
from molhpft.tuning.probe import probe
from tests.estimator.builders import BRIEF, RING, SMILES
from tests.kills import killed_at_save
from tests.runs import FLYP, SMALL, network_of, rows_of, task_of

HEAD = {"name": "mlp", "hidden": 16, "beside": ["properties", "morgan"]}
FILES = ("model.safetensors", "history.jsonl", "summary.json")


def files_of(folder):
    return {name: (folder.path / name).read_bytes() for name in FILES}


@pytest.fixture(scope="module")
def whole(small, tmp_path_factory):
    return run(small(head=HEAD, features=True), tmp_path_factory.mktemp("whole"))


def test_energy_is_that_of_the_head_on_features_and_columns_side_by_side(small):
    config = small(head=HEAD)
    network, task = network_of(config).eval(), task_of(config)
    rows = task.rows("train")
    batch = task.examples.take(rows)
    lower, _ = network.backbone.split(STAGE)
    raw = properties([task.examples.smiles[row] for row in rows]).astype(np.float64)
    cut = np.clip(raw, *np.quantile(raw, [0.01, 0.99], axis=0))
    varies = np.ptp(cut, axis=0) > 0
    numbers = np.where(varies, (cut - cut.mean(0)) / np.where(varies, cut.std(0), 1), 0)
    counts = np.log1p(task.examples.store.beside["morgan"][rows].numpy())
    with torch.no_grad():
        z = lower(batch.inputs, batch)
        matrix = torch.cat([z, *(torch.from_numpy(m).float() for m in (numbers, counts))], dim=1)
        residual = network.head(matrix, batch).sigmoid() - batch.targets
    snapshot = take(network, task.batches("train", size=16))
    torch.testing.assert_close(snapshot.features, matrix, rtol=1e-3, atol=1e-3)
    energy = initial_energy(snapshot, task.objective)
    assert energy == pytest.approx(residual.norm(dim=1).mean().item(), rel=1e-4)


def test_a_probe_on_cached_features_is_that_on_molecules(small):
    config = small(head=HEAD)
    network, task = network_of(config), task_of(config)
    phase = build_recipes(config)[0].probe
    heads = [
        probe(some, phase, of, taus=(3,), rng=torch.Generator().manual_seed(0)).heads[3]
        for some, of in (on_features(network, task), (network, task))
    ]
    for name, values in heads[0].items():
        torch.testing.assert_close(values, heads[1][name], rtol=1e-3, atol=1e-4)


def test_what_stands_beside_the_features_does_not_move(whole):
    arrays = np.load(whole.path / "features.npz")
    before, after = arrays["train_before"], arrays["train_after"]
    width = SMALL["encoder"]["width"]
    assert before.shape[1] == width + 79 + 2048
    assert np.array_equal(before[:, width:], after[:, width:])
    assert (before[:, :width] != after[:, :width]).any()
    moved = np.linalg.norm(after[:, :width] - before[:, :width], axis=1).mean()
    chosen = json.loads((whole.path / "summary.json").read_text())["chosen_tau"]
    (row,) = [row for row in rows_of(whole) if row["tau"] == chosen]
    assert row["shift"]["distance"] == pytest.approx(moved, rel=1e-4)


@pytest.mark.parametrize("save", [1, 5])
def test_a_run_that_is_killed_goes_on_to_the_same_bytes(small, whole, tmp_path, save):
    config = small(head=HEAD, features=True)
    with killed_at_save(save):
        run(config, tmp_path)
    assert files_of(run(config, tmp_path)) == files_of(whole)


def test_the_file_of_a_run_is_an_encoder_like_any_other(small, whole):
    encoder = {**SMALL["encoder"], "weights": str(whole.path / "model.safetensors")}
    names = network_of(small(encoder=encoder)).backbone.names
    assert names == network_of(small()).backbone.names
    assert network_of(small(encoder=encoder, head=HEAD)).backbone.names == [*names, STAGE]


@pytest.mark.parametrize(
    "changes",
    [{"cut": "conv1"}, {"standardise": True}, {"method": FLYP, "weights": True}],
    ids=str,
)
def test_cuts_standardised_features_and_flyp_go_with_it(small, sizes, tmp_path, changes):
    changes = dict(changes)
    if changes.pop("weights", False):
        task = {**SMALL["task"], "target_columns": ["size"]}
        first = run(small(task=task, method="scratch"), tmp_path / "first")
        weights = str(first.path / "model.safetensors")
        changes["encoder"] = {**SMALL["encoder"], "weights": weights}
    head = {"name": "linear", "beside": ["properties"]}
    rows = rows_of(run(small(head=head, **changes), tmp_path))
    energies = [row["energy"]["aie"] for row in rows]
    assert energies == sorted(energies, reverse=True)
    assert all(0 <= row["final"]["valid"] <= 1 for row in rows)


def test_a_model_predicts_for_new_molecules_and_is_the_same_when_read_back(tmp_path):
    config = {**BRIEF["config"], "standardise": True}
    options = {**BRIEF, "tau": 2, "folds": 2, "validation": 0.1, "config": config}
    estimator = HPFTClassifier(**options, head=HEAD, random_state=0).fit(SMILES, RING)
    new = ["CCCCCCCCCCCCO", "C1CCCCCCC1N", "no molecule", "C1CCCC1CCO"]
    model = estimator.model_
    ours = model.predict(new)
    model.save_pretrained(tmp_path)
    again = Model.from_pretrained(tmp_path)
    for name, values in vars(ours).items():
        torch.testing.assert_close(
            getattr(again.predict(new), name), values, rtol=0, atol=0, equal_nan=True
        )
    assert ours.readable.tolist() == [True, True, False, True]
    assert again.further == ("properties",)
    z = smiles_features(again, new, size=3)
    assert z.shape == (4, len(again.networks) * (8 + 79 + 2048))
    assert np.isfinite(z[[0, 1, 3]]).all()


def test_kernel_models_read_the_features_of_the_encoder_alone(small, tmp_path):
    first = run(small(method="scratch"), tmp_path)
    estimator = HPFTClassifier(
        encoder=str(first.path / "model.safetensors"), head=HEAD, members="features", folds=2
    ).fit(SMILES, RING)
    assert estimator.model_.width == SMALL["encoder"]["width"]
    estimator.model_.save_pretrained(tmp_path / "model")
    again = Model.from_pretrained(tmp_path / "model")
    assert again.predict(SMILES[:5]).values.equal(estimator.model_.predict(SMILES[:5]).values)
