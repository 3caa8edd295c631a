"""Tox21 with a real pretrained encoder, from the committed config."""

from itertools import pairwise
from pathlib import Path

import pytest

from molhpft.config.schema import load_config
from molhpft.run.run import run

pytestmark = pytest.mark.slow

CONFIGS = Path(__file__).parents[2] / "configs" / "finetune"


@pytest.fixture(scope="module")
def rows(ogb_root, tmp_path_factory):
    weights = ogb_root.parent / "weights" / "gcn_supervised_contextpred.pth"
    if not weights.is_file():
        pytest.skip(f"no public checkpoint at {weights}")
    # the heads alone: finetuning takes minutes and is what the config's own command shows
    changes = [f"encoder.weights={weights}", "finetune.epochs=0"]
    config = load_config(CONFIGS / "tox21_hpft.yaml", changes)
    folder = run(config, tmp_path_factory.mktemp("runs"))
    return folder.read_json("summary.json")["branches"]


def test_energy_falls_strictly_as_tau_grows(rows):
    for name in ("aie", "per_entry", "balanced"):
        energies = [row["energy"][name] for row in rows]
        assert all(later < earlier for earlier, later in pairwise(energies))


def test_the_head_alone_reaches_what_the_encoder_is_known_for(rows):
    (longest,) = (row for row in rows if row["tau"] == 200)
    assert longest["probe"]["test"] >= 0.755


def test_without_finetuning_features_stay_where_they_are(rows):
    assert all(row["shift"]["distance"] == 0 for row in rows)
