"""Every config that comes with the repository is one that can be run."""

from pathlib import Path

import pytest
import yaml

from molhpft.config.build import build_recipes
from molhpft.config.schema import load_config, resolved
from molhpft.sweep.spec import load_sweep

ROOT = Path(__file__).parents[2]
CONFIGS = sorted(path.relative_to(ROOT) for path in (ROOT / "configs").rglob("*.yaml"))


@pytest.mark.parametrize("path", CONFIGS, ids=str)
def test_a_config_is_valid_and_opens_with_the_command_that_runs_it(path):
    text = (ROOT / path).read_text()
    command = next(line for line in text.splitlines() if line.startswith("# $ molhpft "))
    if path.parent.name == "paper":  # whose content tests/paper checks
        name = path.stem.removesuffix("_stand_in")
        assert command.startswith(f"# $ molhpft paper {name} ")
        assert ("--stand-in" in command) == path.stem.endswith("_stand_in")
        return
    assert str(path) in command
    if "sweep" in yaml.safe_load(text):
        assert " sweep " in command
        trials = load_sweep(ROOT / path)
        assert len({trial.name for trial in trials}) == len(trials)
    else:
        assert " run " in command
        assert build_recipes(load_config(ROOT / path))


@pytest.mark.parametrize("path", [p for p in CONFIGS if p.parent.name == "ogb"], ids=str)
def test_a_config_of_ogb_has_its_protocol(path):
    trials = load_sweep(ROOT / path)
    assert [trial.config.seed for trial in trials] == list(range(10))
    for trial in trials:
        (recipe,) = build_recipes(trial.config)
        (phase,) = recipe.after
        assert not recipe.tau
        assert (phase.epochs, phase.batch_size, phase.lr) == (100, 32, 1e-3)
        assert (phase.optimizer, phase.schedule, phase.keep) == ("adam", "constant", "best")
        options = trial.config.encoder.options
        assert (options["layers"], options["width"], options["dropout"]) == (5, 300, 0.5)
        assert options["virtual_node"] == ("virtual_node" in path.stem)
        assert options["weights"] is None


def test_pretraining_starts_from_random_weights_and_is_of_pcba_as_of_muv():
    paths = [path for path in CONFIGS if path.parent.name == "pretrain"]
    for path in paths:
        config = load_config(ROOT / path)
        assert config.method.name == "scratch"
        assert config.encoder.options["weights"] is None
    muv, pcba = (
        resolved(load_config(ROOT / path))
        for name in ("muv_gcn", "molpcba_gcn")
        for path in paths
        if path.stem == name
    )
    assert {**muv, "task": {**muv["task"], "of": pcba["task"]["of"]}} == pcba
    assert [str(one) for one in pcba["task"]["of"]] == ["ogbg-molpcba"]
