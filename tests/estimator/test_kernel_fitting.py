"""What kernel models of folds say is what models without the held-out molecules say."""

from dataclasses import replace

import torch

from molhpft.core.scale import fit_scale
from molhpft.domains.molecules.properties import properties
from molhpft.estimator.kernel_fitting import fit_kernel_models
from molhpft.estimator.kernel_models import groups
from molhpft.estimator.settings import model_config
from molhpft.estimator.similarities import SIMILARITIES
from molhpft.estimator.validation import draw_folds, held_rows
from tests.estimator.builders import BRIEF, SMILES, size_task, unvalidated_size_task

CONFIG = model_config(encoder=BRIEF["encoder"], tau=2, head="linear", more=BRIEF["config"])


def test_each_fold_is_judged_by_a_model_that_learned_from_the_others_alone():
    task = unvalidated_size_task()
    folds = draw_folds(task, "random", count=3, seed=0)
    judged = fit_kernel_models(CONFIG, task, folds, only="fingerprints").outputs["valid"]
    held = held_rows(folds)
    for fold in folds:
        without = replace(task, splits={"train": fold.train, "valid": fold.held})
        alone = fit_kernel_models(CONFIG, without, [], only="fingerprints").outputs["valid"]
        assert alone.std() > 0.01
        torch.testing.assert_close(judged[:, torch.isin(held, fold.held)], alone)


def test_labels_of_a_fold_say_nothing_of_it_to_models_of_any_group():
    """Structures of all folds may: of properties the scale is theirs."""
    config = model_config(encoder=None, tau=2, head="linear", more={})
    task = unvalidated_size_task()
    first, *others = folds = draw_folds(task, "random", count=3, seed=0)
    targets = task.examples.targets.clone()
    targets[first.held] = 5 - 3 * targets[first.held]
    changed = replace(task, examples=replace(task.examples, targets=targets))
    ours, theirs = (fit_kernel_models(config, one, folds) for one in (task, changed))
    assert [model.name for model in ours.models.models] == list(groups(SIMILARITIES))
    held = held_rows(folds)
    for before, after in zip(ours.outputs["valid"], theirs.outputs["valid"], strict=True):
        own = torch.isin(held, first.held)
        assert before[own].std() > 0.01
        torch.testing.assert_close(before[own], after[own])
        for other in others:
            known = torch.isin(held, other.held)
            assert (before[known] - after[known]).abs().max() > 0.01


def test_features_are_compared_whatever_becomes_of_the_head():
    """`zero_shot` takes the head of the encoder's file, which features are not standardised for."""
    options = {"encoder": None, "tau": None, "more": {"standardise": False}}
    zero_shot = model_config(**{**options, "more": {**options["more"], "method": "zero_shot"}})
    task = unvalidated_size_task()
    folds = draw_folds(task, "random", count=2, seed=0)
    found, expected = (
        fit_kernel_models(config, task, folds, only="features").outputs["valid"]
        for config in (zero_shot, model_config(**options))
    )
    assert found.std() > 0.01
    assert found.equal(expected)


def test_properties_are_on_the_scale_of_training_molecules_alone():
    task = size_task()
    # few, so that models are fitted at once
    splits = {"train": task.rows("train")[:6], "valid": task.rows("valid")[:4]}
    fitted = fit_kernel_models(CONFIG, replace(task, splits=splits), [])
    expected = fit_scale(properties([SMILES[row] for row in splits["train"].tolist()]))
    for name, found in vars(fitted.models.describer.scale).items():
        assert found.equal(getattr(expected, name)), name
