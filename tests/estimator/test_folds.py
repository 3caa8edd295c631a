"""Models that are chosen fold by fold: what each molecule is predicted by, and what is kept."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
import yaml
from sklearn.base import clone

from molhpft.config.build import build_recipes
from molhpft.config.schema import parse_config
from molhpft.core.evaluate import predict
from molhpft.core.objectives import Multilabel
from molhpft.domains.molecules import tables
from molhpft.domains.molecules.fingerprints import Neighbours, morgan_fingerprints
from molhpft.domains.weights import read_weights
from molhpft.estimator import HPFTClassifier, HPFTRegressor, about
from molhpft.estimator import finetune as finetuning
from molhpft.estimator.card import alone
from molhpft.estimator.finetune import finetune_table
from molhpft.estimator.model import Model
from molhpft.estimator.networks import with_chosen
from molhpft.estimator.settings import IN_MEMORY, Inference, model_config
from molhpft.estimator.train import train
from molhpft.estimator.validation import draw_folds, fold_tasks
from molhpft.measure.error_scale import ErrorScale
from tests.estimator.builders import (
    BRIEF,
    CHANGES,
    RING,
    SIZE,
    SMILES,
    ring_task,
    size_task,
    unvalidated_size_task,
    write_table,
)

BRIEF_CONFIG = model_config(encoder=BRIEF["encoder"], tau=2, head="linear", more=BRIEF["config"])
FOLDED = {key: BRIEF[key] for key in ("encoder", "config")} | {"tau": 2, "folds": 3}


@pytest.fixture(scope="module")
def folded(tmp_path_factory):
    """A model of three folds, of networks and a kernel model, its task, folds and runs.

    Without noise in its labels, or after a few epochs, the kernel model would answer alone.
    """
    noise = torch.randn(len(SMILES), generator=torch.Generator().manual_seed(0))
    task = unvalidated_size_task(torch.tensor(SIZE) + 5 * noise)
    folds = draw_folds(task, "random", count=3, seed=0)
    finetune = replace(BRIEF_CONFIG.finetune, epochs=30)
    config = replace(BRIEF_CONFIG, finetune=finetune, precision=32)
    model, runs = train(config, task, tmp_path_factory.mktemp("runs"), Inference(), folds=folds)
    return model, task, folds, runs


def test_every_molecule_is_judged_by_the_network_that_did_not_train_on_it(folded):
    model, task, folds, runs = folded
    assert len(runs) == 3
    logits = torch.full((len(SMILES), 1), torch.nan)
    for run, part in zip(runs, fold_tasks(task, folds), strict=True):
        network = model.spec.network()
        network.load_state_dict(read_weights(run.path / "model.safetensors").tensors)
        assert part.objective.mean != task.objective.mean  # what is held out says nothing of it
        numbers = part.objective.values(predict(network, part, "valid").logits)
        logits[part.rows("valid")] = task.objective.standard(numbers).float()
    rows = task.rows("train")
    score = task.objective.score(logits[rows], task.examples.targets[rows])
    (member,) = [m for m in model.about["members"] if m["tau"] == 2]
    assert member["valid"] == pytest.approx(score, rel=1e-5)
    assert len(member["folds"]) == 3


def test_classes_are_ranked_within_folds_by_members_that_are_chosen_so(tmp_path):
    task = ring_task()
    task = replace(task, splits={"train": torch.arange(len(SMILES))})
    folds = draw_folds(task, "random", count=3, seed=0)
    model, _ = train(BRIEF_CONFIG, task, tmp_path, Inference(members="kernels"), folds=folds)
    assert model.about["chosen_by"] == "rocauc"
    for member in model.about["members"]:
        assert member["valid"] == pytest.approx(np.mean(member["folds"]))
    assert model.about["scores"]["valid"]["rocauc"] >= max(
        member["valid"] for member in model.about["members"]
    )


def test_where_each_fold_has_one_class_the_loss_chooses(tmp_path):
    task = ring_task()
    task = replace(task, splits={"train": torch.arange(len(SMILES))})
    different = sorted(set(SMILES))
    groups = [(r, different.index(s) % 2) for s, r in zip(SMILES, RING, strict=True)]
    folds = draw_folds(task, "random", count=4, seed=0, groups=groups)
    model, _ = train(BRIEF_CONFIG, task, tmp_path, Inference(members="kernels"), folds=folds)
    assert model.about["chosen_by"] == "neg_loss"
    assert model.about["scores"]["valid"]["rocauc"] is None


@pytest.mark.slow
def test_labels_of_new_molecules_say_nothing_to_networks_that_know_older_ones():
    """Not even of the scale of numbers."""
    times = np.arange(len(SMILES))
    later = np.where(times >= 50, np.array(SIZE) + 100, SIZE)
    last = {**BRIEF["config"]["finetune"], "keep": "last"}
    given = {**FOLDED, "config": {**BRIEF["config"], "finetune": last, "precision": 32}}
    found = [
        HPFTRegressor(members="networks", **given).fit(SMILES, y, times=times).out_of_fold_
        for y in (SIZE, later)
    ]
    assert np.isfinite(found[0][30:]).all()
    # Adam makes whole steps of a gradient that is 0 but for rounding, as targets of mean 0 give it
    np.testing.assert_allclose(*found, atol=0.2)


def test_networks_of_folds_differ_in_their_seed(folded):
    seeds = [yaml.safe_load((run.path / "config.yaml").read_text())["seed"] for run in folded[3]]
    assert len(set(seeds)) == len(seeds) == 3


def test_a_molecule_is_as_near_as_it_is_to_what_trained_while_it_was_held_out(folded):
    model, task, folds, _ = folded
    bits, rows = morgan_fingerprints(SMILES), task.rows("train")
    found = model.held_out.splits["valid"].similarity
    assert (found < 1).any()
    for fold in folds:
        nearest, _ = Neighbours(bits[fold.train]).nearest(bits[fold.held])
        assert found[torch.isin(rows, fold.held)].equal(nearest)


def test_sets_of_a_prediction_heed_how_far_kinds_of_member_disagree(brief, tmp_path):
    task = unvalidated_size_task()
    folds = draw_folds(task, "random", count=2, seed=0)
    config = replace(brief, method=replace(brief.method, options={"tau": (0, 2)}))
    model, _ = train(config, task, tmp_path, Inference(members="networks"), folds=folds)
    assert model.sizes == (2, 2)
    rows, held = task.rows("test"), model.held_out.splits["test"]
    smiles = [SMILES[row] for row in rows.tolist()]
    of_table = model.held_out.of_all(len(SMILES)).sets[rows]
    torch.testing.assert_close(model.predict(smiles).sets, of_table, rtol=1e-5, atol=1e-5)
    # the same of errors that are as large as disagreement, whatever the fit made of it
    nothing, one = torch.zeros(1, 3), torch.ones(1, 3)
    slopes = torch.tensor([[1.0, 0.0, 0.0]])
    scale = ErrorScale(slopes, centres=nothing, units=one, lows=-9 * one, highs=9 * one)
    model.uncertainty = replace(model.uncertainty, error_scale=scale, domain_threshold=0.0)
    expected = model.uncertainty.sets(held.logits, model.spec.objective, held.similarity, held.std)
    assert expected.isfinite().all()
    torch.testing.assert_close(model.predict(smiles).sets, expected, rtol=1e-5, atol=1e-5)


def weights_of(model):
    return {member["name"]: member["weight"] for member in model.about["members"]}


def test_networks_of_all_folds_count_as_one_kind_of_member(folded, tmp_path):
    model, _, _, _ = folded
    weights = weights_of(model)
    assert weights["networks, tau 2"] > 0
    kernels = sum(weight > 0 for weight in weights.values()) - 1
    assert kernels > 0
    assert model.sizes == (3, *[1] * kernels)
    assert len(model.weights) == 3 + kernels
    model.save_pretrained(tmp_path)
    assert Model.from_pretrained(tmp_path).sizes == model.sizes


def test_networks_of_all_folds_are_averaged_and_kernel_models_know_everything(folded):
    model, task, _, _ = folded
    weights = weights_of(model)
    assert sum(weights.values()) == pytest.approx(1)
    assert 0 < weights["networks, tau 2"] < 1
    assert len(model.networks) == 3
    third = weights["networks, tau 2"] / 3
    assert model.weights[:3].tolist() == pytest.approx([third] * 3)
    assert model.weights.sum() == pytest.approx(1)
    assert len(model.kernel_models.references) == len(task.rows("train"))
    assert set(model.training_smiles) == {SMILES[row] for row in task.rows("train").tolist()}


def test_scores_are_of_molecules_that_were_new_and_sets_are_fitted_to_all_of_them(folded):
    model, task, _, _ = folded
    assert list(model.about["scores"]) == ["test", "valid"]
    assert model.about["scores"]["valid"]["coverage"] is None
    assert model.about["scores"]["test"]["coverage"] is not None
    assert model.uncertainty.label_counts.tolist() == [len(task.rows("train"))]
    assert (
        "46 molecules, each as members predict it that did not train on its fold"
        in (model.about["coverage"][0])
    )
    rows = task.rows("test")
    found = model.predict([SMILES[row] for row in rows.tolist()]).values[:, 0]
    numbers = task.objective.values(task.examples.targets[rows])[:, 0]
    rmse = (found - numbers).square().mean().sqrt().item()
    assert model.about["scores"]["test"]["rmse"] == pytest.approx(rmse, rel=1e-5)


def test_the_first_fold_chooses_tau_for_all(tmp_path):
    config = model_config(
        encoder=BRIEF["encoder"],
        tau="auto",
        head="linear",
        more={"finetune": {"epochs": 4, "lr": 0.01, "batch_size": 16}, "probe": {"epochs": 5}},
    )
    task = size_task()
    task = type(task)(**{**vars(task), "splits": {"train": torch.arange(len(SMILES))}})
    folds = draw_folds(task, "random", count=2, seed=0)
    model, runs = train(config, task, tmp_path, Inference(members="networks"), folds=folds)
    first, second = (run.read_json("summary.json") for run in runs)
    assert "choice" in first
    assert "choice" not in second
    assert first["chosen_tau"] == second["chosen_tau"] == model.about["chosen_tau"]
    assert len(model.networks) == 2


@pytest.mark.parametrize(
    ("method", "smoothing"), [("hp_ft", 0.0), ("hp_ft", 0.1), ("ls_hp_ft", 0.1)]
)
def test_heads_of_further_folds_are_smoothed_as_that_of_the_first(method, smoothing):
    config = with_chosen(model_config(more={"method": method}), {"tau": 20, "smoothing": smoothing})
    recipe = build_recipes(config)[0]
    assert (recipe.tau, recipe.probe.smoothing) == (20, smoothing)


@pytest.mark.parametrize(
    ("members", "kinds"),
    [("networks", (3, 0)), ("fingerprints", (0, 1)), ("kernels", (0, 1))],
)
def test_members_are_of_the_kind_that_is_asked_for(members, kinds):
    model = HPFTClassifier(**FOLDED, members=members).fit(SMILES, RING).model_
    kernel_models = model.kernel_models.models if model.kernel_models else ()
    assert (len(model.networks), len(kernel_models)) == kinds
    assert model.predict(["CCO"]).values.isfinite().all()


def test_a_model_without_networks_needs_no_finetuning_and_says_what_it_lacks(tmp_path):
    fitted = HPFTRegressor(**FOLDED, members="fingerprints").fit(SMILES, SIZE)
    assert fitted.tau_ is None
    assert fitted.energy_ == {}
    assert abs(fitted.predict(SMILES) - np.array(SIZE)).mean() < np.std(SIZE)
    with pytest.raises(ValueError, match=r"fingerprints alone .* --encoder gcn_structure, in Py"):
        fitted.transform(["CCO"])
    with pytest.raises(ValueError, match="members: features needs a pretrained encoder"):
        HPFTRegressor(**FOLDED, members="features").fit(SMILES, SIZE)
    fitted.save_pretrained(tmp_path)
    again = HPFTRegressor.from_pretrained(tmp_path)
    assert (again.predict(SMILES) == fitted.predict(SMILES)).all()


def test_folds_are_drawn_where_a_table_is_small_and_nothing_else_is_said():
    quick = {**FOLDED, "folds": "auto", "members": "fingerprints"}
    own = HPFTClassifier(**quick)
    assert own.fit(SMILES, RING).model_.about["folds"] == 5
    assert clone(own).set_params(split="random").fit(SMILES, RING).model_.about["folds"] == 0
    held = clone(own).fit(SMILES[:40], RING[:40], eval_set=(SMILES[40:], RING[40:]))
    assert held.model_.about["folds"] == 0


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"folds": 1}, "folds should be 'auto', at least 2, or 0 for one held-out part, got 1"),
        ({"folds": "five"}, "folds should be 'auto', at least 2, or 0 for .*, got 'five'"),
        (
            {"members": "forest"},
            "members should be one of all, networks, kernels, features, fingerprints",
        ),
    ],
)
def test_wrong_options_are_refused(options, words):
    with pytest.raises(ValueError, match=words):
        HPFTClassifier(**{**FOLDED, **options}).fit(SMILES, RING)
    with pytest.raises(ValueError, match="an eval_set chooses in the place of folds"):
        HPFTClassifier(**FOLDED).fit(SMILES, RING, eval_set=(SMILES, RING))


@pytest.mark.parametrize("given", [{"split_column": "part"}, {"split": "column"}], ids=str)
def test_a_table_of_its_own_test_rows_keeps_them_and_pools_the_rest(tmp_path, given):
    given = {"split_column": "part", **given}
    path = tmp_path / "rings.csv"
    rows = [
        f"{s},{y},{'test' if k % 5 == 0 else 'train'}"
        for k, (s, y) in enumerate(zip(SMILES, RING, strict=True))
    ]
    path.write_text("\n".join(["smiles,ring,part", *rows]) + "\n")
    table = {"path": str(path), **given}
    made = finetune_table(
        table,
        tmp_path / "model",
        folds=3,
        changes=CHANGES,
        inference=Inference(members="fingerprints"),
    )
    assert made.model.about["sizes"] == {"train": 48, "test": 12}
    assert made.model.about["scores"]["test"]["rocauc"] > 0.5


@pytest.mark.parametrize(
    ("columns", "sizes"),
    [
        ({"group_column": "series"}, {"train": 60}),
        ({"time_column": "year"}, {"train": 60}),
        ({"split": "column", "split_column": "part", "group_column": "series"}, {"train": 48}),
    ],
    ids=str,
)
def test_folds_are_by_the_column_that_is_given(tmp_path, monkeypatch, columns, sizes):
    rows = [
        f"{s},{y},{'test' if k % 5 == 0 else 'train'},s{k % 11},{1960 + k}"
        for k, (s, y) in enumerate(zip(SMILES, RING, strict=True))
    ]
    path = tmp_path / "rings.csv"
    path.write_text("\n".join(["smiles,ring,part,series,year", *rows]) + "\n")
    folds = []
    drawn = finetuning.draw_folds
    monkeypatch.setattr(
        finetuning, "draw_folds", lambda *a, **b: folds.append(drawn(*a, **b)) or folds[0]
    )
    table = {"path": str(path), "target_columns": ("ring",), **columns}
    inference = Inference(members="fingerprints")
    made = finetune_table(table, tmp_path / "model", changes=CHANGES, inference=inference)
    assert sizes.items() <= made.model.about["sizes"].items()
    assert made.model.about["folds"] == 5
    for fold in folds[0]:
        train, held = (rows.tolist() for rows in (fold.train, fold.held))
        if "time_column" in columns:
            assert max(train) < min(held)
        else:
            assert not {row % 11 for row in train} & {row % 11 for row in held}


def test_groups_and_times_of_fit_hold_out_with_folds_and_without():
    quick = {**FOLDED, "members": "fingerprints"}
    years, series = list(range(60)), [k // 4 for k in range(60)]
    model = HPFTRegressor(**quick).fit(SMILES, SIZE, times=years).model_
    assert f"{len(SMILES) // 2} molecules, each as members" in model.about["coverage"][0]
    held = HPFTRegressor(**{**quick, "folds": 0}, validation=0.2)
    by_time = held.fit(SMILES, SIZE, times=years).model_
    assert set(by_time.training_smiles) == set(SMILES[: by_time.about["sizes"]["train"]])
    by_group = held.fit(SMILES, SIZE, groups=series).model_
    train = {SMILES.index(smiles) // 4 for smiles in by_group.training_smiles}
    assert 4 * len(train) == len(by_group.training_smiles)
    other = clone(held).set_params(split_seed=1).fit(SMILES, SIZE, groups=series).model_
    assert other.training_smiles != by_group.training_smiles
    with pytest.raises(ValueError, match="leave split_seed out"):
        clone(held).set_params(split_seed=1).fit(SMILES, SIZE, times=years)
    with pytest.raises(ValueError, match="leave split_seed out"):
        HPFTRegressor(**quick, split_seed=1).fit(SMILES, SIZE, groups=series)


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"groups": [np.nan] + [0] * 59}, "every molecule should have a group; row 0 is nan"),
        ({"groups": [0, 1]}, "groups should be .n,., one for each of 60 molecules, got .2,."),
        ({"times": ["May"] * 60}, "times should be numbers, or dates .*; row 0 is 'May'"),
        ({"times": ["2020-01-01"] + [1] * 59}, "times should be numbers or dates, not both"),
        ({"groups": RING, "eval_set": (SMILES, RING)}, "leave eval_set out"),
    ],
    ids=["NaN", "too few", "no times", "two kinds", "an eval_set"],
)
def test_groups_and_times_that_cannot_be_meant_are_refused(given, words):
    with pytest.raises(ValueError, match=words):
        HPFTClassifier(**FOLDED).fit(SMILES, RING, **given)
    if "eval_set" not in given:
        with pytest.raises(ValueError, match="leave split out"):
            HPFTClassifier(**FOLDED, split="random").fit(SMILES, RING, times=range(60))


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"split": "column"}, "split 'column' needs a column of splits"),
        (
            {"split": "random", "split_column": "part"},
            "'part', is read by split 'column' alone",
        ),
        ({"split": "scaffold", "split_seed": 1}, "split_seed is for split random"),
        ({"split": "random_and_scaffold"}, "folds are drawn by split random or scaffold"),
        ({"calibration": 0.2}, "with folds every molecule calibrates; leave task.calibration out"),
    ],
    ids=str,
)
def test_an_option_that_folds_would_ignore_is_refused(tmp_path, options, words):
    table = {"path": str(write_table(tmp_path / "rings.csv")), **options}
    with pytest.raises(ValueError, match=words):
        finetune_table(table, tmp_path / "model", folds=3, changes=CHANGES)
    assert not (tmp_path / "model").exists()


def test_a_table_is_read_once_and_divided_in_five(tmp_path, monkeypatch):
    read = tables.read_sheet
    paths = []
    monkeypatch.setattr(tables, "read_sheet", lambda path: paths.append(path) or read(path))
    table = {"path": str(write_table(tmp_path / "rings.csv"))}
    inference = Inference(members="fingerprints")
    made = finetune_table(table, tmp_path / "model", changes=CHANGES, inference=inference)
    assert made.model.about["folds"] == 5
    assert len(paths) == 1


def test_of_members_that_are_equally_good_the_simplest_answers(monkeypatch):
    monkeypatch.setattr(Multilabel, "score", lambda *_: 0.5)
    model = HPFTClassifier(**FOLDED).fit(SMILES, RING).model_
    assert weights_of(model) == {
        "GP, fingerprints": 1.0,
        "GP, fingerprints and properties": 0.0,
        "networks, tau 2": 0.0,
    }
    sentence = "This model is one Gaussian process (GP, fingerprints): nothing else adds to it on t"
    assert alone(model).startswith(sentence)


def test_a_model_of_one_gaussian_process_says_so(folded):
    only = HPFTClassifier(**FOLDED, members="fingerprints").fit(SMILES, RING).model_
    assert alone(only) == "This model is one Gaussian process (GP, fingerprints)."
    assert alone(folded[0]) == ""


def test_networks_behind_a_solved_head_have_no_tau_and_are_no_gaussian_process():
    config = {"finetune": BRIEF["config"]["finetune"], "method": "lp_ft_converged"}
    options = {**FOLDED, "tau": None, "head": "linear", "members": "networks", "config": config}
    estimator = HPFTClassifier(**options).fit(SMILES, RING)
    (member,) = estimator.model_.about["members"]
    assert (member["name"], member["tau"]) == ("networks, lp_ft_converged", None)
    assert estimator.tau_ is None
    assert list(estimator.energy_) == [None]
    assert alone(estimator.model_) == ""


def test_the_same_table_with_folds_is_found_made(tmp_path):
    table = {"path": str(write_table(tmp_path / "rings.csv"))}
    given = {"changes": CHANGES, "inference": Inference(members="fingerprints")}
    assert finetune_table(table, tmp_path / "model", **given).is_new
    assert not finetune_table(table, tmp_path / "model", **given).is_new
    with pytest.raises(ValueError, match="holds a model of other data or settings"):
        finetune_table(table, tmp_path / "model", folds=4, **given)


def test_the_last_epoch_is_kept_and_many_molecules_are_seen_in_fewer_epochs():
    epochs = {n: model_config(more={}, molecules=n).finetune.epochs for n in (0, 600, 6_000, 10**6)}
    assert epochs == {0: 12, 600: 12, 6_000: 10, 10**6: 3}
    assert model_config(more={"finetune": {"epochs": 7}}, molecules=6_000).finetune.epochs == 7
    assert model_config(more={}).finetune.keep == "last"
    assert parse_config({}, task=IN_MEMORY).finetune.keep == "best"


def test_a_score_that_is_no_number_is_null_in_what_is_recorded(monkeypatch):
    monkeypatch.setattr(about, "by_fold", lambda *_: [float("nan"), 0.5, 0.5])
    model = HPFTClassifier(**FOLDED, members="fingerprints").fit(SMILES, RING).model_
    (member,) = model.about["members"]
    assert member["folds"] == [None, 0.5, 0.5]
    json.dumps(model.about, allow_nan=False)
