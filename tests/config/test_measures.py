"""Measures asked for by a config: present, in range, and without any influence on the run."""

import json
from copy import deepcopy
from dataclasses import asdict, replace

import pytest
import torch
from torch import nn

from molhpft.config.measures import (
    BINS,
    NAMES,
    Branch,
    callbacks_along,
    measure_branch,
    phase_name,
    unmeasured,
)
from molhpft.core.data import Rows
from molhpft.core.determinism import seed_for
from molhpft.core.network import Chain, Network, Plain, linear_head
from molhpft.core.objectives import ClassContrast
from molhpft.domains.console import plain_console
from molhpft.measure.features import shift
from molhpft.results.terminal import measures_table
from molhpft.run.run import run
from molhpft.tuning.fit import fit
from molhpft.tuning.phase import Phase
from molhpft.tuning.recipes import Recipe
from tests.runs import SMALL, rows_of
from tests.toy import toy_network, toy_task

BRIEF = {"probe": {"lr": 0.01, "epochs": 4}, "finetune": {"epochs": 2, "lr": 0.003}}


@pytest.fixture(scope="module")
def plain(small, tmp_path_factory):
    return run(small(**BRIEF), tmp_path_factory.mktemp("plain"))


@pytest.fixture(scope="module")
def measured(small, tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("molhpft.config.measures.PROBE_EXAMPLES", 8)  # 50 take a minute
        return run(small(measures=list(NAMES), **BRIEF), tmp_path_factory.mktemp("measured"))


def measures_of(folder):
    return [row["measures"] for row in rows_of(folder)]


def test_measuring_changes_no_weight_and_no_number(plain, measured):
    files = [(folder.path / "model.safetensors").read_bytes() for folder in (plain, measured)]
    weights = [content[-2000:] for content in files]  # the header names the config
    assert weights[0] == weights[1]
    stripped = [{k: v for k, v in row.items() if k != "measures"} for row in rows_of(measured)]
    assert stripped == rows_of(plain)


def test_every_measure_has_its_place(measured):
    for found in measures_of(measured):
        assert set(found) == set(NAMES) - {"exchange"}
    assert set(measured.read_json("summary.json")["measures"]) == {"exchange"}


def test_histograms_count_every_training_label(measured):
    size = measured.read_json("summary.json")["sizes"]["train"]
    for found in measures_of(measured):
        for counts in found["confidence"]["histogram"].values():
            assert len(counts) == BINS
            assert sum(counts) == size


def test_the_kernel_and_the_direction_are_noted_along_finetuning(measured):
    lines = (measured.path / "history.jsonl").read_text().splitlines()
    rows = [row for row in map(json.loads, lines) if row["phase"] == "finetune"]
    assert all(row["ntk_change"] > 0 and row["direction"] > 0 for row in rows)
    last = {row["tau"]: row["ntk_change"] for row in rows}
    for row in rows_of(measured):
        assert last[row["tau"]] >= 0
        assert row["measures"]["ntk"]["change"] > 0


def test_the_change_of_the_head_is_noted_along_finetuning_and_at_its_end(measured):
    lines = (measured.path / "history.jsonl").read_text().splitlines()
    rows = [row for row in map(json.loads, lines) if row["phase"] == "finetune"]
    for branch in rows_of(measured):
        found = branch["measures"]["direction"]
        assert found["head_gradient"] > 0
        # a branch ends with the weights of one of its epochs
        along = [row["head_change"] for row in rows if row["tau"] == branch["tau"]]
        assert min(along) > 0
        assert any(found["head_change"] == pytest.approx(change) for change in along)


def test_a_step_is_what_its_decomposition_predicts(measured):
    for found in measures_of(measured):
        assert found["decomposition"]["first_order_error"] < 0.05


def test_the_diagonal_of_the_exchange_has_the_networks_as_they_are(measured):
    exchange = measured.read_json("summary.json")["measures"]["exchange"]
    rows = rows_of(measured)
    for split in ("train", "valid"):
        diagonal = [exchange[split][k][k] for k in range(len(rows))]
        assert diagonal == pytest.approx([row["final"][split] for row in rows])


DESCENT = Phase(trains="all", epochs=3, lr=0.01, batch_size=8, optimizer="sgd", momentum=0.0)
NORMED, PLAIN = (
    toy_network(),
    Network(
        Chain(
            {
                "low": Plain(nn.Sequential(nn.Linear(6, 8), nn.Tanh()), width=8),
                "high": Plain(nn.Sequential(nn.Linear(8, 8), nn.Tanh()), width=8),
            }
        ),
        linear_head(8, 3),
    ),
)


def finetuned(phase, *, start=PLAIN, task=None, **recipe):
    """A branch that was really finetuned, by the generator that runs use."""
    task, end = task or toy_task(), deepcopy(start)
    rng = torch.Generator().manual_seed(seed_for(0, "finetune"))
    rows = fit(end, phase, task, rng=rng)
    method = Recipe(Phase(trains="head", epochs=0, lr=1.0), (phase,), **recipe)
    return Branch(start, end, task, method, [{"phase": phase_name(0), **row} for row in rows], 0)


def bound_of(branch):
    return measure_branch(["bound"], branch)["bound"]


def test_the_bound_holds_for_plain_gradient_descent_where_there_is_no_batch_norm():
    bound = bound_of(finetuned(DESCENT))
    assert bound["applies"] is bound["holds"] is True
    assert bound["beyond"] == []
    assert 0 < bound["distance"] < bound["most"]


def test_the_bound_holds_where_batch_norm_is_frozen():
    assert "batch statistics" in str(bound_of(finetuned(DESCENT, start=NORMED))["beyond"])
    bound = bound_of(finetuned(replace(DESCENT, batch_norm="frozen"), start=NORMED))
    assert bound["applies"] is bound["holds"] is True


@pytest.mark.parametrize(
    ("phase", "factor"),
    [
        (replace(DESCENT, lr=0.001, backbone_lr=0.05), 50),
        (replace(DESCENT, lr=0.001, layer_decay=0.5), 0.5),
        (replace(DESCENT, lr=0.001, backbone_lr=0.01, layer_decay=0.5), 5),
    ],
    ids=["backbone_lr", "layer_decay", "both"],
)
def test_the_bound_has_the_rate_of_the_backbone(phase, factor):
    bound = bound_of(finetuned(phase))
    steps = 3 * 4
    expected = 0.001 * factor * steps * bound["beta"] * bound["gamma"]
    assert bound["constant"] == pytest.approx(expected)
    assert bound["holds"]


def test_the_bound_counts_the_steps_behind_the_weights_that_are_kept():
    phase = replace(DESCENT, lr=0.3, epochs=12, keep="best", patience=3)
    branch = finetuned(phase)
    assert branch.epochs < 12
    bound = bound_of(branch)
    expected = 0.3 * 4 * branch.epochs * bound["beta"] * bound["gamma"]
    assert bound["constant"] == pytest.approx(expected)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"optimizer": "adam", "momentum": 0.9}, "steps of adam"),
        ({"momentum": 0.5}, "momentum 0.5"),
        ({"weight_decay": 0.1}, "weight decay"),
        ({"anchor": 0.1}, "an anchor"),
        ({"smoothing": 0.1}, "label smoothing"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_the_bound_names_what_it_is_not_derived_for(changes, words):
    bound = bound_of(finetuned(replace(DESCENT, **changes)))
    assert bound["applies"] is False
    assert words in bound["beyond"]


def test_the_bound_is_not_derived_where_energy_has_not_fallen():
    branch = finetuned(DESCENT)
    backwards = replace(branch, start=branch.end, end=branch.start)
    assert bound_of(backwards)["beyond"] == ["an energy that did not fall"]


def test_the_bound_is_not_derived_for_dropout():
    dropped = replace(DESCENT, batch_norm="frozen")
    bound = bound_of(finetuned(dropped, start=toy_network(dropout=0.5)))
    assert bound["beyond"] == ["dropout, batch statistics or augmentation"]


def test_the_bound_is_not_derived_for_mixed_weights_or_another_loss():
    assert bound_of(finetuned(DESCENT, alphas=(0.5,)))["applies"] is False
    contrasted = replace(toy_task(), objective=ClassContrast())
    assert bound_of(finetuned(DESCENT, task=contrasted))["applies"] is False


@pytest.mark.parametrize("batch_size", [2, 30])
def test_drift_is_the_whole_shift_of_a_finetuning_that_changes_no_weight(batch_size):
    phase = replace(DESCENT, lr=1e-30, batch_size=batch_size)
    branch = finetuned(phase, start=toy_network(dropout=0.5))
    drift = measure_branch(["drift"], branch)["drift"]
    assert drift == pytest.approx(asdict(shift(branch.before.features, branch.after.features)))
    assert drift["distance"] > 0.05


def test_drift_goes_as_far_as_the_epoch_that_is_kept():
    phase = replace(DESCENT, epochs=6, lr=1e-30, keep="best")
    branch = finetuned(phase, start=toy_network())
    assert branch.epochs < 6  # nothing is learned: the statistics decide
    drift = measure_branch(["drift"], branch)["drift"]
    assert drift == pytest.approx(asdict(shift(branch.before.features, branch.after.features)))


def test_the_looks_of_a_seed_are_at_examples_of_every_class():
    y = torch.arange(300) // 100
    inputs = torch.randn(300, 6, generator=torch.Generator().manual_seed(0))
    ordered = replace(toy_task(), examples=Rows(inputs, y), splits={"train": torch.arange(300)})
    looked_at = []
    network = deepcopy(PLAIN)
    network.head.register_forward_pre_hook(lambda _, args: looked_at.append(args[1].targets.item()))
    (along,) = callbacks_along(["direction"], network, ordered, seed=0)
    looked_at.clear()
    along.measure(network)
    assert sorted(looked_at.count(label) for label in range(3)) == [16, 17, 17]


def test_p_correct_of_a_regression_is_refused_before_anything_is_trained(small, tmp_path):
    task = {**SMALL["task"], "target_columns": ["size"]}
    config = small(task=task, measures=["confidence"], **BRIEF)
    with pytest.raises(ValueError, match=r"rings is a regression; leave confidence out"):
        run(config, tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_measures_are_printed_with_a_column_a_tau(measured):
    screen = plain_console(width=132)
    with screen.capture() as capture:
        screen.print(measures_table(measured.read_json("summary.json")))
    text = " ".join(capture.get().split())
    for row in rows_of(measured):
        for value in (
            row["measures"]["direction"]["alignment"],
            row["measures"]["decomposition"]["first_order_error"],
            row["measures"]["drift"]["distance"],
            row["measures"]["bound"]["most"],
        ):
            assert f"{value:.4g}" in text
    assert "not derived for: steps of adam; dropout" in text


def test_a_run_without_measures_has_no_table_of_them(plain):
    assert measures_table(plain.read_json("summary.json")) is None


def test_a_method_that_finetunes_nothing_measures_what_it_can_and_says_what_it_cannot(
    small,
    tmp_path,
):
    config = small(method="lp", measures=["targets", "ntk", "bound", "exchange"], **BRIEF)
    folder = run(config, tmp_path)
    summary = folder.read_json("summary.json")
    (row,) = rows_of(folder)
    assert row["measures"]["targets"]["test"] == {"ring": pytest.approx(row["final"]["test"])}
    assert unmeasured(config.measures, summary) == ["ntk", "bound"]


def test_an_unknown_measure_names_the_measures(small):
    with pytest.raises(ValueError, match="unknown measure nkt; did you mean ntk"):
        small(measures=["nkt"])
