"""The quickstart, shortened: its parts are real, its training is brief."""

import json

import pytest
from rich.console import Console

from molhpft.experiments import quickstart as module


@pytest.fixture(scope="module")
def result(tmp_path_factory):
    brief = {"epochs": 1, "lr": 1e-3, "keep": "best"}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "ENCODER", {"name": "gcn", "layers": 1, "width": 16})
        patch.setattr(module, "TAUS", [0, 2, 8])
        patch.setitem(module.PRETRAIN, "encoder", module.ENCODER)
        patch.setitem(module.PRETRAIN, "finetune", brief)
        patch.setitem(module.COMPARE, "finetune", brief)
        patch.setitem(module.COMPARE, "probe", {"epochs": 8, "lr": 1e-3})
        yield module.quickstart(tmp_path_factory.mktemp("quickstart"))


def test_every_method_has_its_row(result):
    methods = [name for name, _ in result.rows]
    assert methods == ["scratch", "FT", "HP-FT", "LP-FT", "LP"]


def test_validation_chooses(result):
    valid = [row["final"]["valid"] for _, row in result.rows]
    assert result.chosen == valid.index(max(valid))


def test_linear_probing_is_the_head_that_lp_ft_starts_from(result):
    rows = dict(result.rows)
    assert rows["LP"]["probe"] == rows["LP-FT"]["probe"]


def test_energy_falls_with_tau(result):
    energies = [row["energy"]["aie"] for name, row in result.rows if name.endswith("FT")]
    assert energies == sorted(energies, reverse=True)


def test_the_table_and_its_reading_show_the_numbers(result):
    console = Console(width=140)
    with console.capture() as capture:
        console.print(result.table)
    shown = capture.get()
    method, best = result.rows[result.chosen]
    for number in (best["energy"]["aie"], best["shift"]["distance"]):
        assert f"{number:.3f}" in shown
    assert f"{100 * best['final']['test']:.2f}" in result.reading
    assert f"Validation chooses {method}" in result.reading


def test_the_figure_is_a_picture(result):
    assert result.figure.read_bytes().startswith(b"\x89PNG")


def test_the_summary_is_plain_json(result):
    assert len(json.loads(json.dumps(result.summary))["rows"]) == len(result.rows)
