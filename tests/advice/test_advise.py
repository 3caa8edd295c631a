"""Advice from whole configs: what it measures, what it never reads, how it is shown."""

import json
from functools import partial

import pytest
import torch
from rich.console import Console
from sklearn.ensemble import RandomForestClassifier
from sklearn.metrics import roc_auc_score

from molhpft.advice import advise as advising
from molhpft.advice.advise import (
    QUICK_TREES,
    READS,
    advice_reading,
    advice_table,
    advise,
    curve_table,
)
from molhpft.config.build import build_recipes, build_task
from molhpft.config.schema import load_config, resolved
from molhpft.core.data import Task
from molhpft.core.determinism import seed_for
from molhpft.core.evaluate import Predictions
from molhpft.core.objectives import Multiclass, Multilabel, Squared
from molhpft.domains.molecules.count_fingerprints import count_fingerprints
from molhpft.measure.features import initial_energy
from molhpft.run.probe_grid import Grid, probe_grid
from molhpft.run.run import run
from tests.toy import toy_task

PROBE = {"lr": 0.01, "epochs": 20}
TOPICS = ["tau", "label smoothing", "MLP head", "batch norm", "partial backbone", "class balance"]


@pytest.fixture(scope="module")
def small(small):
    """The part of a config that advice is read off."""
    return partial(small, reader=READS)


@pytest.fixture(scope="module")
def found(small):
    return advise(small(probe=PROBE))


def test_there_is_a_line_for_everything_the_guide_is_about(found):
    assert [line["topic"] for line in found["advice"]] == TOPICS
    assert all(line["advice"] and line["reason"] for line in found["advice"])
    assert json.loads(json.dumps(found))["probe"] == found["probe"]


def test_rows_are_those_of_a_probe(found, small):
    taus = [row["tau"] for row in found["probe"]]
    assert (taus[0], taus[-1]) == (0, 20)
    for row, same in zip(
        found["probe"], probe_grid(small(probe=PROBE), Grid(taus=taus))["rows"], strict=True
    ):
        for name in ("aie", "train", "valid"):
            assert row[name] == pytest.approx(same[name], rel=1e-4)


def test_the_baseline_is_a_random_forest_on_counts(found, small):
    config = small(probe=PROBE)
    task = build_task(config, build_recipes(config)[0])
    x = count_fingerprints("morgan", task.examples.smiles)
    y = task.examples.targets[:, 0].numpy()
    train, valid = task.rows("train").numpy(), task.rows("valid").numpy()
    seed = seed_for(config.seed, "target 0") % 2**32
    model = RandomForestClassifier(
        QUICK_TREES, criterion="entropy", min_samples_split=10, random_state=seed
    ).fit(x[train], y[train])
    expected = roc_auc_score(y[valid], model.predict_proba(x[valid])[:, 1])
    assert found["morgan"] == pytest.approx(expected)
    assert found["molecules"] == len(train)


def test_a_large_training_split_is_sampled(small, monkeypatch):
    monkeypatch.setattr(advising, "MOST_MOLECULES", 20)
    assert advise(small(probe=PROBE))["molecules"] == 20


def test_the_test_split_is_never_read(small, monkeypatch):
    asked, real = set(), Task.rows
    checked = advising.build_task

    def built(config, recipe):
        task = checked(config, recipe)  # which looks whether every split can be scored
        asked.clear()
        return task

    monkeypatch.setattr(advising, "build_task", built)
    monkeypatch.setattr(Task, "rows", lambda self, split: asked.add(split) or real(self, split))
    advise(small(probe=PROBE))
    assert asked == {"train", "valid"}


@pytest.mark.parametrize("objective", [Multilabel(), Multiclass()], ids=str)
def test_the_base_rate_is_the_energy_of_a_constant_head(objective):
    task = toy_task(objective)
    targets = task.examples.targets[task.rows("train")][:-1].clone()
    if isinstance(objective, Multilabel):
        targets[0, 1] = float("nan")
    y = objective.labels(targets, outputs=3)
    shares = y.nanmean(0)
    logits = shares.logit() if isinstance(objective, Multilabel) else shares.log()
    constant = Predictions(logits.expand(len(targets), -1), targets)
    labels = advising.class_balance(task, targets)
    assert labels.base_rate == pytest.approx(initial_energy(constant, objective))
    rarer = torch.minimum(shares, 1 - shares)
    multiclass = isinstance(objective, Multiclass)
    expected = shares.min() if multiclass else rarer.mean()
    assert labels.rarest == pytest.approx(expected.item())


def test_numbers_have_no_base_rate():
    task = toy_task(Squared())
    assert advising.class_balance(task, task.examples.targets) == advising.ClassBalance(
        None, 0, None
    )


def test_a_regression_is_advised_on_without_shares(small):
    found = advise(small(task={"name": "csv", "target_columns": ["size"]}, probe=PROBE))
    topics = {line["topic"]: line for line in found["advice"]}
    assert topics["class balance"]["advice"] == "does not apply"
    assert topics["tau"]["changes"]


@pytest.mark.parametrize("changes", [{"cut": "conv1"}, {"views": "live"}, {"head": "mlp"}], ids=str)
def test_every_kind_of_probe_is_read(small, changes):
    assert len(advise(small(probe=PROBE, **changes))["advice"]) == len(TOPICS)


@pytest.mark.parametrize("method", ["scratch", "lp_logistic", "lp_ft_converged"])
def test_a_method_without_a_probe_is_one_sentence(small, method):
    with pytest.raises(ValueError, match=f"method {method} with probe.epochs 20 has none"):
        advise(small(method=method, probe=PROBE))


def test_encoders_are_ranked_where_there_are_any_to_compare(found, small, tmp_path):
    assert found["ranking"] is None
    other = str(run(small(method="ft", finetune={"epochs": 1}, seed=3), tmp_path).path)
    own = small(probe=PROBE, encoder={"weights": other})
    advised = advise(own, encoders=["gcn_structure", other])
    assert [line["topic"] for line in advised["advice"]] == ["encoder", *TOPICS]
    compared = {row["weights"] for row in advised["ranking"]["encoders"]}
    assert compared == {"gcn_structure", other}


def test_random_weights_are_not_among_the_encoders_compared(small):
    advised = advise(small(probe=PROBE), encoders=["gcn_structure"])
    (row,) = advised["ranking"]["encoders"]
    assert row["weights"] == "gcn_structure"
    assert advised["advice"][0]["advice"] == "start from gcn_structure"


def test_a_change_of_tau_is_taken_by_the_config(found, small, tmp_path):
    path = tmp_path / "config.yaml"
    path.write_text(json.dumps(resolved(small(probe=PROBE))))
    changes = found["advice"][0]["changes"]
    taus = load_config(path, changes).method.options["tau"]
    assert taus[0] == 0
    assert len(taus) > 1


def shown(renderable):
    console = Console(width=100)
    with console.capture() as captured:
        console.print(renderable, markup=False)
    return " ".join(captured.get().split())


def test_tables_and_reading_show_what_was_found(found):
    assert "HP valid" in shown(curve_table(found))
    assert "test split was not read" in shown(curve_table(found))
    text = shown(advice_table(found))
    assert all(topic in text for topic in TOPICS)
    reading = advice_reading(found)
    assert "--set 'method.tau=[0, " in reading
    assert "random weights" in reading
    assert "A random forest on Morgan counts, fitted to 48 molecules" in reading
    assert "--expect strong, mild or tiny" in reading
    quiet = {**found, "advice": [], "molecules": 0, "weights": "some.pth", "expects": "mild"}
    assert advice_reading(quiet) == "Nothing in this config calls for a change."


def test_what_is_expected_changes_the_taus_and_another_word_is_refused(found, small):
    tiny = advise(small(probe=PROBE), expects="tiny")
    assert tiny["probe"] == found["probe"]
    assert tiny["advice"][0]["changes"] != found["advice"][0]["changes"]
    assert "for tiny adaptation" in tiny["advice"][0]["reason"]
    with pytest.raises(ValueError, match="one of strong, mild, tiny, got 'some'"):
        advise(small(probe=PROBE), expects="some")


@pytest.mark.parametrize(("objective", "classes"), [(Multilabel(), 2), (Multiclass(), 3)], ids=str)
def test_a_label_is_one_of_two_and_a_class_one_of_all(objective, classes):
    task = toy_task(objective)
    assert advising.class_balance(task, task.examples.targets).classes == classes


def test_advice_leaves_the_global_generator_alone(small):
    before = torch.get_rng_state()
    advise(small(probe=PROBE))
    assert torch.equal(torch.get_rng_state(), before)
