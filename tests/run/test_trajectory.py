"""What the heads along a probe give, however many are taken at once; and probes that are shared."""

import os
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from molhpft.measure.features import initial_energy
from molhpft.run import run as running
from molhpft.run import trajectory as trajectories
from molhpft.run.run import run
from molhpft.run.trajectory import (
    at_taus,
    head_energies,
    head_rows,
    shared_trajectory,
    without_test,
)
from molhpft.sweep.spec import parse_sweep
from molhpft.tuning.fit import DivergedError
from molhpft.tuning.frozen_features import on_features
from molhpft.tuning.phase import Phase
from molhpft.tuning.probe import Trajectory, probe
from tests.sweeps import raw_sweep, results_of, undisturbed, write_table
from tests.toy import seeded, toy_network, toy_task

TAUS = (0, 1, 3, 8)


@pytest.fixture(params=["features", "live"])
def probed(request):
    network, task = toy_network(), without_test(toy_task())
    if request.param == "features":
        network, task = on_features(network, task)
    phase = Phase(trains="head", epochs=8, lr=0.05, batch_size=8)
    return probe(network, phase, task, taus=TAUS, rng=seeded()), network, task


@pytest.mark.parametrize("together", [1, 100, 2**26])
def test_rows_are_those_of_each_snapshot(probed, monkeypatch, together):
    trajectory, network, task = probed
    monkeypatch.setattr(trajectories, "_LOGITS", together)
    rows = head_rows(trajectory, network, task)
    assert tuple(rows) == TAUS
    for split in ("train", "valid"):
        for tau, snapshot in trajectory.snapshots(network, task, split).items():
            assert rows[tau][split] == task.objective.score(snapshot.logits, snapshot.targets)
            if split == "train":
                assert rows[tau]["aie"] == pytest.approx(initial_energy(snapshot, task.objective))
    energies = head_energies(trajectory, network, task)
    assert energies == {tau: row["aie"] for tau, row in rows.items()}


def test_at_taus_keeps_the_heads_that_are_named(probed):
    trajectory, *_ = probed
    some = at_taus(trajectory, {3, 0, 99})
    assert tuple(some.heads) == (0, 3)
    assert some.rows == trajectory.rows


def test_a_task_without_its_test_split_has_the_other_two():
    task = toy_task()
    blind = without_test(task)
    assert list(blind.splits) == ["train", "valid"]
    assert all(torch.equal(blind.rows(split), task.rows(split)) for split in blind.splits)


def trajectory(taus, seed=0):
    """Heads that say which epoch they are of."""
    rng = torch.Generator().manual_seed(seed)
    noise = torch.randn(max(taus) + 1, 3, generator=rng)
    heads = {tau: {"linear.weight": noise[tau], "linear.n": torch.tensor(tau)} for tau in taus}
    rows = [{"epoch": i + 1, "loss": float(noise[i, 0])} for i in range(max(taus))]
    return Trajectory(heads, rows)


def same(one, other):
    assert one.rows == other.rows
    assert [list(row) for row in one.rows] == [list(row) for row in other.rows]
    assert one.heads.keys() == other.heads.keys()
    for tau, head in one.heads.items():
        assert head.keys() == other.heads[tau].keys()
        assert all(torch.equal(value, other.heads[tau][key]) for key, value in head.items())


epochs = st.lists(st.integers(0, 30), min_size=1, max_size=5, unique=True)


@settings(max_examples=40, deadline=None)
@given(taus=epochs, others=epochs, seed=st.integers(0, 10**6))
def test_a_shared_trajectory_is_the_runs_own(taus, others, seed):
    calls = []
    full = trajectory(range(31), seed)

    def build(every):
        calls.append(every)
        return Trajectory({tau: full.heads[tau] for tau in every}, full.rows[: max(every)])

    own = Trajectory({tau: full.heads[tau] for tau in taus}, full.rows[: max(taus)])
    for _ in range(2):
        same(
            shared_trajectory(f"hypothesis {seed} {taus} {others}", taus, build, shared=others), own
        )
    # hypothesis may repeat an example, which then is kept already
    assert len(calls) <= 1 if max(taus) else calls == [taus, taus]


@settings(max_examples=25, deadline=None)
@given(values=arrays("float64", 3, elements=st.floats(allow_nan=False, width=64)))
def test_losses_come_back_to_the_last_bit(values):
    rows = [{"epoch": i, "loss": loss} for i, loss in enumerate(values.tolist(), start=1)]
    built = Trajectory({3: {"w": torch.zeros(1)}}, rows)
    name = f"losses {values.tobytes().hex()}"
    for _ in range(2):
        assert shared_trajectory(name, [3], lambda _: built, shared=[3]).rows == rows


def test_a_run_that_shares_nothing_keeps_nothing():
    def cached():
        return set((Path(os.environ["MOLHPFT_CACHE"]) / "probes").glob("*"))

    before = cached()
    same(shared_trajectory("alone", [2, 5], trajectory), trajectory([2, 5]))
    assert cached() == before


def test_a_probe_that_diverges_where_only_others_go_is_the_runs_own():
    def build(taus):
        if max(taus) > 5:
            raise DivergedError("training diverged")
        return trajectory(taus)

    same(shared_trajectory("diverges", [2, 5], build, shared=[9]), trajectory([2, 5]))
    with pytest.raises(ValueError, match="diverged"):
        shared_trajectory("diverges", [2, 7], build, shared=[9])


def test_a_probe_that_fails_otherwise_is_not_tried_again():
    calls = []

    def build(taus):
        calls.append(taus)
        raise ValueError("no such file")

    with pytest.raises(ValueError, match="no such file"):
        shared_trajectory("fails", [2, 5], build, shared=[9])
    assert calls == [[2, 5, 9]]


@pytest.mark.slow
def test_a_scheduled_probe_has_the_rows_of_its_own_taus(tmp_path, monkeypatch):
    raw = raw_sweep(write_table(tmp_path), probe={"lr": 0.01, "schedule": "cosine"})
    monkeypatch.setenv("MOLHPFT_CACHE", str(tmp_path / "cache"))
    alone = undisturbed(raw, tmp_path / "alone")
    for trial in parse_sweep(raw):
        run(trial.config, tmp_path / "shared", shared=trial.shared)
    assert results_of(tmp_path / "shared") == alone


@pytest.mark.slow
@pytest.mark.parametrize("changes", [{}, {"cut": "conv1"}], ids=["features", "live"])
def test_runs_that_share_give_the_bytes_of_runs_that_do_not(tmp_path, monkeypatch, changes):
    raw = raw_sweep(write_table(tmp_path), **changes)
    monkeypatch.setenv("MOLHPFT_CACHE", str(tmp_path / "cache"))
    alone = undisturbed(raw, tmp_path / "alone")
    probes, real = [], running.probe
    monkeypatch.setattr(running, "probe", lambda *a, **k: probes.append(k["taus"]) or real(*a, **k))
    for trial in parse_sweep(raw):
        run(trial.config, tmp_path / "shared", shared=trial.shared)
    assert results_of(tmp_path / "shared") == alone
    assert [taus for taus in probes if max(taus)] == [[2, 4, 6]]
