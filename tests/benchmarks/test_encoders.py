"""The protocol that judges encoders: its machines, its splits, its tables and what it resumes."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from scipy.sparse import csr_matrix
from sklearn.metrics import roc_auc_score
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC, SVR

from molhpft.core.network import Batch
from molhpft.domains.molecules.graphs import pack
from molhpft.domains.shipped import DEFAULT_ENCODER
from molhpft.estimator.frozen import pretrained_backbone
from tests.estimator.builders import SMILES

RINGS = ("O", "c1ccccc1", "C1CC1", "C1CCC1", "C1CCNCC1", "C1CCCC1")


@pytest.fixture
def protocol():
    import frozen_protocol

    return frozen_protocol


@pytest.fixture
def sets():
    import development_sets

    return development_sets


@pytest.fixture
def encoders():
    import encoders

    return encoders


def _drawn(n=60, d=5):
    rng = np.random.default_rng(0)
    features = rng.normal(3, 2, (n, d)).astype(np.float32)
    return features, features[:, 0] + 0.1 * rng.normal(size=n)


def _data(sets, labels, *, classes, train=40, name="drawn", group="ADMET"):
    n = len(labels)
    fold = sets.Fold(np.arange(train), np.arange(train, n))
    labels = np.asarray(labels, dtype=float).reshape(n, -1)
    return sets.DevelopmentSet(name, group, ("C",) * n, labels, classes, (fold,))


def test_numbers_are_fitted_as_by_scikit_learn_on_standardised_columns(protocol, sets):
    z, y = _drawn()
    data = _data(sets, 50 * y + 7, classes=False)
    (fold,) = data.folds
    score = protocol.machine_score(data, fold, protocol.gaussian_kernels(z, fold))
    scaler = StandardScaler().fit(z[:40].astype(float))
    a, b = (scaler.transform(part.astype(float)) for part in (z[:40], z[40:]))
    mean, std = y[:40].mean(), y[:40].std()
    machine = SVR(C=3, gamma=1 / (2 * z.shape[1])).fit(a, (y[:40] - mean) / std)
    expected = 50 * np.sqrt(np.mean((machine.predict(b) * std + mean - y[40:]) ** 2))
    assert score == pytest.approx(expected, rel=1e-3)


def test_each_target_learns_from_the_rows_it_is_measured_on(protocol, sets):
    z, y = _drawn()
    rng = np.random.default_rng(1)
    labels = np.stack([y > 3, rng.random(60) > 0.5], axis=1).astype(float)
    labels[::3, 0] = np.nan
    data = _data(sets, labels, classes=True)
    (fold,) = data.folds
    score = protocol.machine_score(data, fold, protocol.gaussian_kernels(z, fold))
    alone = []
    for k in range(2):
        rows = np.flatnonzero(~np.isnan(labels[:, k]))
        # the columns are standardised on all training rows, of the other target too
        scaled = StandardScaler().fit(z[:40].astype(float)).transform(z.astype(float))[rows]
        machine = SVC(C=3, gamma=0.1).fit(scaled[rows < 40], labels[rows[rows < 40], k])
        a = machine.decision_function(scaled[rows >= 40])
        alone.append(100 * roc_auc_score(labels[rows[rows >= 40], k], a))
    assert score == pytest.approx(np.mean(alone))


def test_a_constant_column_counts_for_nothing_but_the_width(protocol, sets):
    z, y = _drawn()
    data = _data(sets, y, classes=False)
    (fold,) = data.folds
    constant = np.concatenate([z, np.full((60, 1), 1e6, np.float32)], axis=1)
    kernel = protocol.gaussian_kernels(constant, fold).train
    assert np.isfinite(kernel).all()
    assert kernel ** (6 / 5) == pytest.approx(protocol.gaussian_kernels(z, fold).train)


def test_the_kernel_of_counts_is_the_sum_of_minima_over_that_of_maxima(protocol, sets):
    counts = np.random.default_rng(0).poisson(0.7, (12, 9)).astype(np.float32)
    fold = sets.Fold(np.arange(8), np.arange(8, 12))
    kernels = protocol.minmax_kernels(csr_matrix(counts), fold)
    for side, rows in ((kernels.train, fold.train), (kernels.scored, fold.scored)):
        a, b = counts[rows][:, None], counts[:8][None]
        expected = np.minimum(a, b).sum(-1) / np.maximum(a, b).sum(-1)
        assert side == pytest.approx(expected)


def test_rows_of_the_rarer_class_are_all_in_a_sample(protocol, sets, monkeypatch):
    monkeypatch.setattr(protocol, "MOST_ROWS", 30)
    monkeypatch.setattr(protocol, "SAMPLE", 20)
    data = _data(sets, np.arange(60) % 10 == 0, classes=True)
    some = protocol.sampled(data, data.folds[0])
    assert len(some.train) == 20
    assert set(range(0, 40, 10)) <= set(some.train.tolist()) <= set(range(40))
    assert some.scored is data.folds[0].scored


def test_features_are_those_of_the_backbone_in_eval_mode(protocol):
    backbone = pretrained_backbone(DEFAULT_ENCODER)
    backbone.train()
    features = protocol.encoder_features(backbone, tuple(SMILES))
    backbone.eval()
    batch = Batch(pack(SMILES).take(torch.arange(len(SMILES))), torch.empty(0))
    with torch.no_grad():
        expected = backbone(batch.inputs, batch)
    assert features == pytest.approx(expected.numpy(), rel=1e-5, abs=1e-6)


@pytest.fixture
def root(tmp_path, monkeypatch):
    """A folder of one assay and one ADMET table."""
    monkeypatch.setenv("MOLHPFT_CACHE", str(tmp_path / "cache"))
    chains = ["C" * k + end for k in range(1, 6) for end in RINGS]
    for folder in ("moleculeace", "admet"):
        (tmp_path / folder).mkdir()
    parts = ["train"] * 25 + ["test"] * 5
    assay = pd.DataFrame({"smiles": chains, "y": range(30), "split": parts})
    assay.to_csv(tmp_path / "moleculeace" / "CHEMBL1_Ki.csv.gz", index=False)
    caco2 = pd.DataFrame({"Drug_ID": "x", "Drug": chains, "Y": range(30)})
    caco2.to_csv(tmp_path / "admet" / "caco2.csv.gz", index=False)
    return tmp_path


@pytest.mark.parametrize("name", ["CHEMBL1_Ki", "caco2"])
def test_what_chooses_never_reads_a_row_of_the_test_split(sets, root, name):
    chosen, final = (sets.development_set(root, name, split) for split in ("valid", "test"))
    tested = set(final.folds[0].scored.tolist())
    assert tested
    for fold in (*chosen.folds, *final.folds):
        assert not set(fold.train.tolist()) & (tested | set(fold.scored.tolist()))
    assert not any(tested & set(fold.scored.tolist()) for fold in chosen.folds)


@pytest.mark.parametrize("name", ["CHEMBL1_Ki", "caco2"])
@pytest.mark.parametrize("quick", [False, True])
def test_rows_of_folds_are_all_that_the_final_table_learns_from(
    sets, root, name, quick, monkeypatch
):
    monkeypatch.setattr(sets, "QUICK_ROWS", 10)
    (fold,) = sets.development_set(root, name, "folds", quick=quick).folds
    (final,) = sets.development_set(root, name, "test").folds
    known = final.joined().train
    assert fold.is_out_of_fold
    assert not final.is_out_of_fold
    assert len(fold.train) == (10 if quick else len(known))
    assert set(fold.train.tolist()) <= set(known.tolist())
    assert fold.joined().train.tolist() == fold.scored.tolist()


def test_two_fifths_of_an_assay_are_held_out_in_turn(sets, root):
    folds = sets.development_set(root, "CHEMBL1_Ki", "valid").folds
    assert [len(fold.scored) for fold in folds] == [5, 5]
    assert all(sorted([*f.train, *f.scored]) == list(range(25)) for f in folds)
    assert not set(folds[0].scored) & set(folds[1].scored)


def test_a_set_with_an_unreadable_molecule_is_refused(sets, root):
    path = root / "admet" / "caco2.csv.gz"
    table = pd.read_csv(path)
    table.loc[3, "Drug"] = "not a molecule"
    table.to_csv(path, index=False)
    with pytest.raises(ValueError, match="1 are not"):
        sets.development_set(root, "caco2", "valid")


def test_rows_of_one_class_are_refused_rather_than_scored_as_nothing(sets):
    data = _data(sets, [0, 1] * 20 + [1] * 20, classes=True, name="hia")
    with pytest.raises(ValueError, match="scored rows of hia are of one class"):
        data.score(data.folds[0], np.zeros((20, 1)))


def test_ranks_count_from_the_best_of_each_set(encoders):
    scores = np.array([[1.0, 80.0], [2.0, 90.0], [3.0, 70.0]])
    assert encoders.mean_ranks(scores, [True, False]).tolist() == [1.5, 1.5, 3.0]


def test_a_table_has_the_mean_of_each_group_and_every_set(encoders, sets):
    some = [
        _data(sets, [0] * 50, classes=False, name="a", group="MoleculeACE"),
        _data(sets, [0] * 50, classes=False, name="b", group="MoleculeACE"),
        _data(sets, [0] * 50, classes=True, name="c"),
    ]
    scores = [np.array([[0.5, 0.7, 80]]), np.array([[0.4, 0.5, 90]])]
    lines = encoders.tables(["one", "two"], some, scores)
    assert "| MoleculeACE, mean RMSE of 2 | 0.6000 | 0.4500 |" in lines
    assert "| ADMET, mean rank over 1 | 2.00 | 1.00 |" in lines
    assert "| c (ROC-AUC) | 80.00 | 90.00 |" in lines


def test_seeds_are_averaged_and_their_spread_is_that_of_the_mean(encoders, sets):
    some = [_data(sets, [0] * 50, classes=False, name=n, group="MoleculeACE") for n in "ab"]
    scores = [np.array([[0.5, 0.9], [0.7, 0.7]]), np.array([[0.4, 0.5]])]
    lines = encoders.tables(["drawn", "fixed"], some, scores)
    assert "| MoleculeACE, mean RMSE of 2 | 0.7000 ± 0.0000 | 0.4500 |" in lines
    assert "| a (RMSE) | 0.6000 ± 0.1414 | 0.4000 |" in lines


@pytest.mark.parametrize("joined", [True, False])
def test_what_chooses_nothing_may_learn_from_validation_rows(encoders, sets, tmp_path, joined):
    from result_store import ResultStore

    data = _data(sets, np.zeros(60), classes=False)
    fold = sets.Fold(np.arange(0, 40, 2), np.arange(40, 60), np.arange(1, 40, 2))
    data, seen = replace(data, folds=(fold,)), []
    judged = encoders.Judged("a", "a", lambda _, given, __: seen.append(given) or 0, joined=joined)
    encoders.stored_scores(judged, data, ResultStore(tmp_path / "scores.jsonl"))
    (given,) = seen
    assert given.train.tolist() == list(range(40)) if joined else given is fold
    assert given.scored is fold.scored
    baselines = [encoders.judged_baseline(b, 1, joined=joined) for b in encoders.BASELINES]
    assert all(baseline.joined == joined for baseline in baselines)


def test_a_score_depends_on_how_molecules_are_read(encoders, sets, tmp_path, monkeypatch):
    from result_store import ResultStore

    data, calls = _data(sets, np.zeros(60), classes=False), []
    judged = encoders.Judged("a", "a", lambda *_: calls.append(1) or 0.0)
    store = ResultStore(tmp_path / "scores.jsonl")
    for _ in range(2):
        encoders.stored_scores(judged, data, store)
    assert len(calls) == 1
    monkeypatch.setattr(encoders, "FEATURISER_VERSION", -1)
    encoders.stored_scores(judged, data, store)
    assert len(calls) == 2


def test_a_second_run_computes_nothing_and_prints_the_same(encoders, root, capsys, monkeypatch):
    given = ["--data", str(root), "--sets", "CHEMBL1_Ki", "caco2", "--baselines", "svr_counts"]
    given += ["--store", str(root / "store.jsonl")]
    encoders.main(given)
    printed = capsys.readouterr().out
    monkeypatch.setattr(encoders, "machine_score", None)
    encoders.main(given)
    assert capsys.readouterr().out == printed
    assert f"{DEFAULT_ENCODER} | svr_counts" in printed


def test_a_half_written_line_is_computed_again(tmp_path):
    from result_store import ResultStore

    path = tmp_path / "store.jsonl"
    store = ResultStore(path)
    store.once({"a": 1}, lambda: 1.0)
    store.once({"a": 2}, lambda: 2.0)
    path.write_text(path.read_text().rstrip()[:-4])
    again = ResultStore(path)
    assert again.once({"a": 1}, lambda: 5.0) == 1.0
    assert again.once({"a": 2}, lambda: 5.0) == 5.0
    assert ResultStore(path).once({"a": 2}, lambda: 6.0) == 5.0


def test_no_seed_is_no_number_of_seeds(encoders, capsys):
    parser = encoders.judging_parser("about", "store")
    assert encoders.seeds_of(parser.parse_args(["--seeds", "2"])) == 2
    with pytest.raises(SystemExit):
        parser.parse_args(["--seeds", "0"])
    assert "should be at least 1, got 0" in capsys.readouterr().err
