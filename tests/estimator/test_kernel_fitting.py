"""What kernel models of folds say is what models without the held-out molecules say."""

from dataclasses import replace

import torch

from molhpft.estimator.kernel_fitting import fit_kernel_models
from molhpft.estimator.settings import model_config
from molhpft.estimator.validation import draw_folds, held_rows
from tests.estimator.builders import BRIEF, unvalidated_size_task


def test_each_fold_is_judged_by_a_model_that_learned_from_the_others_alone():
    task = unvalidated_size_task()
    folds = draw_folds(task, "random", count=3, seed=0)
    config = model_config(encoder=BRIEF["encoder"], tau=2, head="linear", more=BRIEF["config"])
    judged = fit_kernel_models(config, task, folds, only="fingerprints").outputs["valid"]
    held = held_rows(folds)
    for fold in folds:
        without = replace(task, splits={"train": fold.train, "valid": fold.held})
        alone = fit_kernel_models(config, without, [], only="fingerprints").outputs["valid"]
        assert alone.std() > 0.01
        torch.testing.assert_close(judged[:, torch.isin(held, fold.held)], alone)
