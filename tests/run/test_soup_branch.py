"""Runs that end with a soup: the members are those of HP-FT, the result is their mean."""

import pytest
import torch

from molhpft.domains.weights import read_weights
from molhpft.results.table import read_results
from molhpft.results.terminal import plain_console, reading, run_table
from molhpft.run.run import run
from tests.runs import rows_of

BRIEF = {"probe": {"lr": 0.01}, "finetune": {"epochs": 2, "lr": 0.003}}


def soup(how="uniform", **options):
    return {"method": {"name": f"{how}_soup", **options}, **BRIEF}


def weights_of(folder, name="model"):
    return read_weights(folder.path / f"{name}.safetensors").tensors


@pytest.fixture
def several(small, tmp_path):
    """Uniform soup of two finetunings from each of two heads, all kept."""
    config = small(**soup(tau=[0, 3], repeats=2), members=True, measures=["targets"])
    return run(config, tmp_path)


@pytest.mark.parametrize("how", ["uniform", "greedy"])
def test_a_soup_of_one_tau_is_its_finetuning_bit_for_bit(small, tmp_path, how):
    plain = run(small(method={"name": "hp_ft", "tau": [3]}, **BRIEF), tmp_path)
    made = run(small(**soup(how, tau=[3])), tmp_path)
    one, other = weights_of(plain), weights_of(made)
    assert all(torch.equal(one[name], other[name]) for name in one | other)
    (tuned,), (row,) = rows_of(plain), rows_of(made)
    for key in ("energy", "head", "final", "ece", "shift"):
        assert row[key] == tuned[key]
    assert row["members"] == [{**tuned, "repeat": 0, "used": True}]


def test_members_are_the_finetunings_and_the_model_is_their_mean(small, several, tmp_path):
    plain = run(small(method={"name": "hp_ft", "tau": [0, 3]}, **BRIEF), tmp_path)
    (row,) = rows_of(several)
    members = row["members"]
    assert [(m["tau"], m["repeat"]) for m in members] == [(0, 0), (0, 1), (3, 0), (3, 1)]
    assert [m["final"] for m in members[::2]] == [own["final"] for own in rows_of(plain)]
    names = ("tau0", "tau0-repeat1", "tau3", "tau3-repeat1")
    kept = [weights_of(several, f"members/{name}") for name in names]
    for name, value in weights_of(several).items():
        if value.is_floating_point():
            torch.testing.assert_close(value, sum(own[name] for own in kept) / 4)
    # another order of examples, from the same head
    name = "head.stages.linear.module.weight"
    assert not torch.equal(kept[0][name], kept[1][name])
    assert members[0]["energy"] == members[1]["energy"]
    energies = [m["energy"]["aie"] for m in members]
    assert row["energy"]["aie"] == pytest.approx(sum(energies) / 4)


def test_a_soup_that_was_interrupted_ends_as_one_that_was_not(
    small, several, tmp_path, monkeypatch
):
    config = small(**soup(tau=[0, 3], repeats=2), members=True, measures=["targets"])
    monkeypatch.setattr("molhpft.run.run.soup_branch", interrupted)
    with pytest.raises(KeyboardInterrupt):
        run(config, tmp_path / "again")
    monkeypatch.undo()
    again = run(config, tmp_path / "again")
    assert again.read_json("summary.json") == several.read_json("summary.json")


def interrupted(*arguments):
    raise KeyboardInterrupt


def test_a_soup_is_printed_and_tabled_as_one_result_without_a_tau(several):
    summary = several.read_json("summary.json")
    screen = plain_console(width=200)
    with screen.capture() as capture:
        screen.print(run_table(summary))
    lines = [line.strip(" │").split() for line in capture.get().splitlines()]
    assert sum(line[:4] == ["member,", "in", "the", "soup"] for line in lines) == 4
    assert "uniform_soup" in [line[0] for line in lines if line]
    assert "a soup of 4 of 4 finetuned networks" in reading(summary)
    (row,) = read_results(several.path.parent).table.to_dict("records")
    assert row["chosen"]
    assert row["epochs"] == 8
    assert set(summary["branches"][0]["measures"]["targets"]) == set(summary["sizes"])


def test_soups_of_other_taus_are_other_settings(small, tmp_path):
    for taus in ([0], [0, 3]):
        run(small(**soup(tau=taus)), tmp_path)
    table = read_results(tmp_path).table
    assert set(table["method.tau"]) == {"[0]", "[0, 3]"}
    assert table["variant"].nunique() == 2
