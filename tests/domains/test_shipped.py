"""Encoders of this version by their names, and those of earlier versions by what replaced them."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from molhpft.advice.inventory import describe_data
from molhpft.config.schema import parse_config
from molhpft.domains.shipped import DEFAULT_ENCODER, REPLACED, shipped_encoders, shipped_file
from molhpft.domains.weights import read_weights, weight_file
from molhpft.estimator.settings import model_config

SAYS = "^encoder gcn_old is not shipped any more; gcn_new replaced it$"


@pytest.fixture
def replaced(monkeypatch):
    monkeypatch.setitem(REPLACED, "gcn_old", "gcn_new")


def test_the_default_is_shipped_and_so_is_what_replaced_others():
    assert DEFAULT_ENCODER in shipped_encoders()
    assert set(REPLACED.values()) <= set(shipped_encoders())
    assert not REPLACED.keys() & set(shipped_encoders())


def test_a_name_that_no_version_has_shipped_has_no_file():
    assert shipped_file("none") is None


WAYS = {
    "weight_file": lambda: weight_file(Path("gcn_old")),
    "read_weights": lambda: read_weights(Path("gcn_old")),
    "config": lambda: parse_config({"task": "nci_alerts", "encoder": {"weights": "gcn_old"}}),
    "data --against": lambda: describe_data("nci_alerts", against="gcn_old"),
    "estimator": lambda: model_config(encoder="gcn_old", more={}),
}


@pytest.mark.parametrize("resolve", WAYS.values(), ids=WAYS)
def test_a_name_of_an_earlier_version_says_what_replaced_it(replaced, resolve):
    with pytest.raises(FileNotFoundError, match=SAYS):
        resolve()


def test_a_file_of_ones_own_may_have_the_name_of_an_earlier_version(
    replaced, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    for name in ("gcn_old", "gcn_old.safetensors"):
        save_file({"mine": torch.zeros(1)}, name)
        assert list(read_weights(Path(name)).tensors) == ["mine"]
