"""Fits of prediction sets: kept by what they depend on, and read again."""

from argparse import Namespace

import numpy as np
import pytest
import torch

from molhpft.core.objectives import Multilabel
from molhpft.estimator import blend
from molhpft.estimator.held_out import HeldOut


@pytest.fixture
def sets():
    import prediction_sets

    return prediction_sets


@pytest.fixture
def made(sets, monkeypatch):
    """Names and seeds of what is fitted."""
    made, rng = [], torch.Generator().manual_seed(0)

    def held():
        logits = torch.randn(40, 1, generator=rng)
        return HeldOut(logits, (logits > 0).float(), torch.rand(40, generator=rng))

    def fitted(name, seed, members):
        made.append((name, seed))
        fingerprints = np.random.default_rng(0).integers(0, 256, (5, 256), dtype=np.uint8)
        return sets.Fit(Multilabel(), {"valid": held(), "test": held()}, fingerprints)

    monkeypatch.setattr(sets, "fitted", fitted)
    return made


def given(out, *, no_fits=False):
    return Namespace(out=out, seeds=2, sets=["bace"], members="kernels", no_fits=no_fits)


def test_a_changed_constant_of_the_package_is_another_fit(sets, made, tmp_path, monkeypatch):
    found = list(sets.all_fits(given(tmp_path)))
    assert list(sets.all_fits(given(tmp_path))) == found
    assert made == [("bace", 0), ("bace", 1)]
    monkeypatch.setattr(blend, "MOST", 10)
    others = list(sets.all_fits(given(tmp_path)))
    assert len(made) == 4
    assert not set(others) & set(found)


def test_without_fitting_the_files_of_these_settings_are_taken(sets, made, tmp_path):
    (_, first), second = sets.all_fits(given(tmp_path))
    first.rename(tmp_path / "bace-kernels-0.npz")  # of settings that nobody knows
    assert list(sets.all_fits(given(tmp_path, no_fits=True))) == [second]
    assert len(made) == 2


def test_no_fit_at_all_is_refused_rather_than_an_empty_table(sets, tmp_path, monkeypatch, capsys):
    options = ["--out", str(tmp_path), "--no-fits", "--sets", "bace"]
    monkeypatch.setattr("sys.argv", ["prediction_sets.py", *options])
    with pytest.raises(SystemExit):
        sets.main()
    assert "holds no fit of these settings; leave out --no-fits" in capsys.readouterr().err
