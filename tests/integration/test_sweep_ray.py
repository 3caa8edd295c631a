"""Sweeps by a real Ray cluster on this machine, a node of which is lost."""

import tempfile

import pytest

from tests.integration.test_sweep import under_way, until
from tests.sweeps import finish, raw_sweep, results_of, start, undisturbed, write_table

pytestmark = pytest.mark.slow

pytest.importorskip("ray", reason="Ray is absent: pip install 'molhpft[cluster]'")

LONG = {"epochs": 200, "lr": 0.003, "keep": "best", "batch_size": 8}


@pytest.fixture
def cluster(tmp_path, monkeypatch):
    """A head with one processor, to which sweeps connect while it is alone."""
    from ray.cluster_utils import Cluster

    monkeypatch.setenv("MOLHPFT_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.setenv("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1})
    try:
        yield cluster
    finally:
        cluster.shutdown()


@pytest.fixture
def scratch(tmp_path, monkeypatch):
    """Where the nodes' temporary folders are; asked for before the cluster."""
    # Ray's own hold sockets, whose paths may not be this long
    monkeypatch.setenv("RAY_TMPDIR", tempfile.gettempdir())
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr(tempfile, "tempdir", None)
    return tmp_path


def test_a_sweep_that_loses_a_node_ends_with_the_same_results(tmp_path, scratch, cluster):
    raw = raw_sweep(write_table(tmp_path), finetune=LONG)
    out = tmp_path / "out"
    options = ("--backend", "ray", "--address", cluster.address)
    process = start(raw, out, *options)
    until(lambda: under_way(scratch), process)
    node = cluster.add_node(num_cpus=1)
    until(lambda: len(under_way(scratch)) == 2, process)
    cluster.remove_node(node, allow_graceful=False)
    assert "4 of 4 trials done." in finish(process)
    assert results_of(out) == undisturbed(raw, tmp_path / "alone")
    assert not [path for path in out.rglob("*") if "partial" in path.name or "aside" in path.name]


def test_results_go_to_a_url_and_are_not_redone(tmp_path, cluster):
    raw = raw_sweep(write_table(tmp_path))
    out = tmp_path / "out"
    options = ("--backend", "ray", "--address", cluster.address, "--out", f"file://{out}")
    for _ in range(2):
        assert "4 of 4 trials done." in finish(start(raw, out, *options))
    assert results_of(out) == undisturbed(raw, tmp_path / "alone")
    said = finish(start(raw, out, *options, "--gpus-per-trial", "0.5", "--retry"))
    assert "4 of 4" in said  # nothing is left, so nothing is asked of the cluster
    raw["sweep"] = {"seed": [9], "method": ["lp_ft"]}
    said = finish(start(raw, out, *options, "--gpus-per-trial", "0.5"), status=2)
    assert "a trial takes 0.5 GPU, and the cluster has 0" in said


def test_no_cluster_at_an_address_is_one_sentence(tmp_path):
    raw = raw_sweep(write_table(tmp_path))
    options = ("--backend", "ray", "--address", "127.0.0.1:1")
    said = finish(start(raw, tmp_path / "out", *options), status=2)
    assert "error: no Ray cluster at 127.0.0.1:1" in said
