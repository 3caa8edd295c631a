"""The paper's settings for images: complete up to the first read of data."""

from pathlib import Path

import pytest

from molhpft.config.build import build_network, build_recipes, build_task
from molhpft.config.schema import load_config, parse_config, resolved
from molhpft.sweep.spec import load_sweep
from tests.domains.vision import published

ROOT = Path(__file__).parents[2]
CONFIGS = sorted((ROOT / "configs" / "paper" / "vision").glob("*.yaml"))
SWEEPS = [path for path in CONFIGS if path.stem != "voc"]
names = {"ids": lambda path: path.stem}

TABLE_1 = {  # most epochs of finetuning, the probe's of HP200 and lsHP200
    "stl10": 100,
    "cifar10": 100,
    "cifar100": 100,
    "flowers102": 1000,
    "flowers102_swapped": 1000,
    "stanford_cars": 1000,
    "stl10_from_cifar10": 200,
    "cifar100_from_cifar10": 200,
    "flowers102_from_cifar10": 1000,
}


def configs(path):
    if path in SWEEPS:
        return [trial.config for trial in load_sweep(path)]
    return [load_config(path)]


@pytest.mark.parametrize("path", CONFIGS, **names)
def test_every_trial_gets_as_far_as_its_data(path):
    (refusal,) = {refusal_of(config) for config in configs(path)[:1]}
    assert "task.path should be the folder" in refusal
    assert "published at http" in refusal


def refusal_of(config):
    recipes = build_recipes(config)
    with pytest.raises(FileNotFoundError) as refused:
        build_task(config, recipes[0])
    return str(refused.value)


@pytest.mark.parametrize("name", TABLE_1)
def test_table_1_has_the_papers_rows_over_three_seeds(name):
    trials = configs(ROOT / "configs" / "paper" / "vision" / f"{name}.yaml")
    rows = {(c.method.name, c.probe.epochs if c.method.name == "lp_ft" else 0) for c in trials}
    assert rows == {("ft", 0), ("lp_ft", 200), ("hp_ft", 0), ("ls_hp_ft", 0)}
    assert {c.seed for c in trials} == {0, 1, 2}
    for config in trials:
        phase = config.finetune
        assert (phase.batch_size, phase.optimizer, phase.momentum) == (128, "sgd", 0.9)
        assert (phase.schedule, phase.keep, phase.epochs) == ("cosine", "best", TABLE_1[name])
        assert phase.patience
        assert config.probe.schedule == "constant"


def test_partial_backbones_are_cut_where_the_paper_cuts_them():
    path = ROOT / "configs" / "paper" / "vision" / "domainnet_partial.yaml"
    cuts = {config.cut for config in configs(path)}
    assert cuts == {None, "layer4.2", "layer4.1", "layer4.0"}


def test_segmentation_trains_200_epochs_without_decay_or_schedule_behind_the_whole_aspp_head():
    (config,) = configs(ROOT / "configs" / "paper" / "vision" / "voc.yaml")
    phase = config.finetune
    assert (phase.epochs, phase.weight_decay, phase.schedule) == (200, 0, "constant")
    assert (phase.optimizer, phase.momentum, config.task.options["size"]) == ("sgd", 0.9, 256)
    assert (config.encoder.options["depth"], config.head.name) == (50, "aspp")


@pytest.mark.parametrize("name", ["domainnet_partial", "stl10_from_cifar10"])
def test_with_data_in_the_published_layout_a_network_is_built_and_reads_them(name, tmp_path):
    raw = resolved(configs(ROOT / "configs" / "paper" / "vision" / f"{name}.yaml")[-1])
    write = published.write_domainnet if name.startswith("domainnet") else published.write_stl10
    smaller = {"size": 32, "classes": None, "train": None, "valid": 1, "test": None}
    task_raw = {**raw["task"], **smaller, "path": str(write(tmp_path / "data"))}
    config = parse_config({**raw, "task": task_raw}, unused_are="dropped")
    recipe = build_recipes(config)[0]
    task = build_task(config, recipe)
    network = build_network(config, task, recipe).eval()
    batch = next(task.batches("test", size=2))
    assert network(batch).shape == (len(batch.targets), task.outputs)
