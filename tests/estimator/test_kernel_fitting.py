"""Kernel models are the same however many of their similarities are in memory at a time."""

import torch

from molhpft.estimator import kernel_fitting
from molhpft.estimator.kernel_fitting import fit_kernel_models
from molhpft.estimator.settings import model_config
from molhpft.estimator.validation import draw_folds
from tests.estimator.builders import BRIEF, unvalidated_size_task


def test_models_of_many_molecules_are_those_of_few(monkeypatch):
    task = unvalidated_size_task()
    folds = draw_folds(task, "random", count=3, seed=0)
    config = model_config(encoder=BRIEF["encoder"], tau=2, head="linear", more=BRIEF["config"])
    few = fit_kernel_models(config, task, folds)
    monkeypatch.setattr(kernel_fitting, "_MOST_KEPT", 1)
    many = fit_kernel_models(config, task, folds)
    assert len(few.models.models) > 1
    assert few.outputs.keys() == many.outputs.keys() == {"valid", "test"}
    for split, outputs in few.outputs.items():
        assert outputs.std() > 0.01
        torch.testing.assert_close(many.outputs[split], outputs)
