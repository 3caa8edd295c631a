"""The table of all methods: one budget, what stands in a line, and what an encoder has seen."""

import re
from pathlib import Path
from zlib import crc32

import pytest
import torch

from molhpft.config.build import build_recipes
from molhpft.config.registry import METHODS
from molhpft.config.schema import parse_config
from molhpft.core.evaluate import predict
from molhpft.domains.weights import read_weights
from molhpft.run.identity import FORMAT
from molhpft.run.run import run
from molhpft.sweep.spec import Trial
from tests.runs import SMALL, network_of, task_of


@pytest.fixture
def benchmark():
    import methods

    return methods


@pytest.fixture
def trials(benchmark):
    shipped = next(pair for pair in benchmark.PAIRS if pair.encoder == "gcn_structure")
    return benchmark.trials_of(shipped, Path(shipped.encoder), seed=7)


def row(test, **others):
    numbers = {"ece_test": 0.1, "energy": 0.5, "head_norm": 1.0, "distance": 2.0}
    return {"final_test": test, "probe_epochs": 16, "epochs": 4, "seconds": 3.0, **numbers} | others


def test_every_method_of_the_registry_is_tried(trials):
    assert {trial.config.method.name for trial in trials} == set(METHODS)


def test_all_methods_have_one_budget_and_probe_for_themselves(trials):
    recipes = [recipe for trial in trials for recipe in build_recipes(trial.config)]
    phases = {
        (phase.epochs, phase.lr, phase.batch_size, phase.optimizer, phase.keep)
        for recipe in recipes
        for phase in recipe.after
    }
    assert len(phases) == 1
    assert {trial.config.seed for trial in trials} == {7}
    assert not any(trial.shared for trial in trials)


def test_no_result_of_another_format_of_runs_is_taken_for_one_of_today(
    benchmark, trials, monkeypatch, tmp_path
):
    from result_store import ResultStore

    store = ResultStore(tmp_path / "results.jsonl")
    for trial in trials:
        store.once(benchmark.depends_on(trial), dict)
    assert all(store.known(benchmark.depends_on(trial)) == {} for trial in trials)
    monkeypatch.setattr("molhpft.run.identity.FORMAT", FORMAT - 1)
    assert not any(store.known(benchmark.depends_on(trial)) == {} for trial in trials)


def test_labels_tell_all_trials_apart(benchmark, trials):
    assert len({benchmark.label(trial) for trial in trials}) == len(trials)


def test_the_best_method_comes_first_with_its_gap_to_plain_finetuning(benchmark):
    ft, lp = {0: row(0.70), 1: row(0.72)}, {0: row(0.71), 1: row(0.75, ece_test=0.2)}
    _, _, first, second = benchmark.table({"ft": ft, "lp": lp})
    assert first.startswith("| lp | 73.00 ± 2.83 | +2.00 [")
    assert first.endswith("| 0.150 | 0.500 | 1.00 | 2.00 | 16 | 4 | 3.0 | 2 |")
    assert second.startswith("| ft | 71.00 ± 1.41 | - | - |")


def test_a_gap_is_over_the_seeds_that_both_have(benchmark):
    ft = {0: row(0.70), 1: row(0.80), 2: row(0.90)}
    _, _, _, second = benchmark.table({"ft": ft, "lp": {0: row(0.69)}})
    assert second.startswith("| lp | 69.00 | -1.00 | - |")


def test_a_method_that_cannot_run_has_its_reason_below_the_table(benchmark):
    rows = {"ft": {0: row(0.7)}, "stochastic_norm": {0: {"error": "there is no batch norm"}}}
    *lines, reason = benchmark.table(rows)
    assert reason == "\nNo line for `stochastic_norm`: there is no batch norm."
    assert not any("stochastic_norm" in line for line in lines)


def test_over_all_pairs_stand_the_methods_that_ran_in_each(benchmark):
    one, other = benchmark.PAIRS[:2]
    failed = {0: {"error": "cannot"}}
    rows = {
        one: {"ft": {0: row(0.7)}, "surgical a": {0: row(0.8)}, "bss": {0: row(0.9)}},
        other: {"ft": {0: row(0.5)}, "surgical b": {0: row(0.4)}, "bss": failed},
    }
    _, _, *lines = benchmark.table_of_all(rows)
    assert "| ft | - | - | - |" in lines
    (surgical,) = [line for line in lines if "surgical" in line]
    assert surgical.startswith("| surgical | +0.00 [")
    assert surgical.endswith("| 1 of 2 |")
    assert len(lines) == 2


def test_a_result_is_of_the_branch_that_validates_best_and_counts_all_epochs(benchmark, tmp_path):
    raw = {
        "task": {"name": "toy", "per_class": 20},
        "encoder": "toy_mlp",
        "method": {"name": "uniform_soup", "tau": [1, 3]},
        "probe": {"lr": 0.01},
        "finetune": {"epochs": 2, "lr": 0.001},
    }
    trial = Trial("toy", {}, parse_config(raw))
    store = benchmark.ResultStore(tmp_path / "results.jsonl")
    result = benchmark.result_of(trial, tmp_path, store)
    assert (result["tau"], result["probe_epochs"], result["epochs"]) == (None, 3, 4)
    assert 0 <= result["ece_test"] <= 1
    assert benchmark.result_of(trial, tmp_path / "elsewhere", store) == result


def test_a_run_that_is_refused_gives_its_reason(benchmark, tmp_path):
    raw = {"task": {"name": "toy", "per_class": 20}, "encoder": "toy_mlp", "method": "zero_shot"}
    store = benchmark.ResultStore(tmp_path / "results.jsonl")
    result = benchmark.result_of(Trial("toy", {}, parse_config(raw)), tmp_path, store)
    assert list(result) == ["error"]


def test_the_output_that_tells_a_target_best_is_found_past_missing_labels(benchmark):
    targets = torch.tensor([[0.0, 1.0], [1.0, 0.0], [1.0, 1.0], [0.0, float("nan")]])
    outputs = torch.stack([torch.zeros(4), targets[:, 0], targets[:, 1].nan_to_num()], dim=1)
    assert benchmark.best_outputs(outputs, targets) == [(1, 1.0), (2, 1.0)]


@pytest.fixture
def two_targets(tmp_path):
    """Chains and rings with two targets of chance, some missing, which no head tells wholly."""
    rows = ["smiles,first,second"]
    for n in range(3, 33):
        for smiles in (f"{'C' * n}O", f"C1{'C' * n}1N"):
            chance = crc32(smiles.encode())
            rows.append(f"{smiles},{chance % 2},{chance // 2 % 2 if n % 5 else ''}")
    table = tmp_path / "two.csv"
    table.write_text("\n".join(rows) + "\n")
    task = {"name": "csv", "path": str(table), "target_columns": ["first", "second"]}
    return {**SMALL, "method": "ft", "task": {**task, "split": "random", "split_seed": 1}}


def test_the_leak_check_tells_each_target_by_the_outputs_of_the_head_on_test(
    benchmark, two_targets, tmp_path
):
    config = parse_config(two_targets, unused_are="dropped")
    weights = run(config, tmp_path).path / "model.safetensors"
    network = network_of(config)
    network.load_state_dict(read_weights(weights).tensors)
    own = predict(network, task_of(config), "test")
    best = benchmark.best_outputs(own.logits.sigmoid(), own.targets)
    encoder = {"weights": str(weights)}
    unknown, told = benchmark.leaks(
        parse_config({**two_targets, "encoder": encoder}, unused_are="dropped")
    )
    assert unknown.startswith("Whether it was pretrained on these molecules is not known: ")
    outputs, *scores, different = re.search(
        r"its (\d) outputs, .* of first ([\d.]+), second ([\d.]+)\. .* by (\d) different", told
    ).groups()
    assert scores == [f"{100 * score:.1f}" for _, score in best]
    assert (outputs, different) == ("2", str(len({k for k, _ in best})))
