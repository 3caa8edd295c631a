"""The quickstart, shortened: its parts are real, its training is brief."""

import json

import pytest
from rich.console import Console
from safetensors.torch import save_file

from molhpft.config.build import build_network, build_recipes, build_task
from molhpft.config.schema import parse_config
from molhpft.domains.molecules.gcn import ogb_gcn
from molhpft.domains.shipped import shipped_encoders
from molhpft.studies import quickstart as module


@pytest.fixture(scope="module")
def result(tmp_path_factory):
    weights = tmp_path_factory.mktemp("encoders") / "tiny.safetensors"
    tensors = {f"backbone.{k}": v for k, v in ogb_gcn(layers=1, width=16).state_dict().items()}
    save_file(tensors, weights, metadata={"molhpft": '{"encoder": "gcn"}'})
    tiny = {"name": "gcn", "layers": 1, "width": 16, "weights": str(weights)}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "ENCODER", tiny)
        patch.setattr(module, "TAUS", [0, 2, 8])
        patch.setitem(module.COMPARE, "finetune", {"epochs": 1, "lr": 1e-3, "keep": "best"})
        patch.setitem(module.COMPARE, "probe", {"epochs": 8, "lr": 1e-3})
        yield module.quickstart(tmp_path_factory.mktemp("quickstart"))


@pytest.mark.usefixtures("few_nci_molecules")
@pytest.mark.skipif(not shipped_encoders(), reason="no encoder is shipped yet")
def test_the_quickstart_and_the_defaults_start_from_a_shipped_encoder_that_fits():
    assert module.ENCODER["weights"] in shipped_encoders()
    config = parse_config({"task": "nci_alerts"})
    assert str(config.encoder.options["weights"]) in shipped_encoders()
    recipe = build_recipes(config)[0]
    build_network(config, build_task(config, recipe), recipe)


def test_an_encoder_that_is_named_without_weights_is_random():
    config = parse_config({"task": "nci_alerts", "encoder": "gcn"})
    assert config.encoder.options["weights"] is None


@pytest.mark.slow
def test_every_method_has_its_row(result):
    methods = [name for name, _ in result.rows]
    assert methods == ["scratch", "FT", "HP-FT", "LP-FT", "LP"]


@pytest.mark.slow
def test_validation_chooses(result):
    valid = [row["final"]["valid"] for _, row in result.rows]
    assert result.chosen == valid.index(max(valid))


@pytest.mark.slow
def test_linear_probing_is_the_head_that_lp_ft_starts_from(result):
    rows = dict(result.rows)
    assert rows["LP"]["probe"] == rows["LP-FT"]["probe"]


@pytest.mark.slow
def test_energy_falls_with_tau(result):
    energies = [row["energy"]["aie"] for name, row in result.rows if name.endswith("FT")]
    assert energies == sorted(energies, reverse=True)


@pytest.mark.slow
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


@pytest.mark.slow
def test_the_figure_is_a_picture(result):
    assert result.figure.read_bytes().startswith(b"\x89PNG")


@pytest.mark.slow
def test_the_summary_is_plain_json(result):
    assert len(json.loads(json.dumps(result.summary))["rows"]) == len(result.rows)
