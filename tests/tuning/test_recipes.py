"""Methods as data: each is the phases of its paper."""

from dataclasses import replace
from functools import cache

import pytest
import torch

from molhpft.config.registry import METHODS
from molhpft.core.evaluate import predict
from molhpft.core.objectives import Multilabel
from molhpft.tuning import recipes
from molhpft.tuning.fit import fit
from molhpft.tuning.phase import Phase
from molhpft.tuning.recipes import AuxiliaryTask, Recipe, StageMixing
from tests.toy import same_weights, toy_network, toy_task

PROBE = Phase(trains="head", epochs=50, lr=0.1)
FINETUNE = Phase(trains="all", epochs=3, lr=0.01)


HEAD_3, HEAD_0 = replace(PROBE, epochs=3), replace(PROBE, epochs=0)


DEFINITIONS = {
    "scratch": ({}, Recipe(HEAD_0, (FINETUNE,), pretrained=False)),
    "zero_shot": ({}, Recipe(HEAD_0, (), keeps_head=True)),
    "ft": ({}, Recipe(HEAD_0, (FINETUNE,))),
    "lp": ({}, Recipe(PROBE, ())),
    "lp_logistic": (
        {"inverse_penalties": (0.5, 2.0)},
        Recipe(HEAD_0, (), inverse_penalties=(0.5, 2.0)),
    ),
    "lp_ft": ({}, Recipe(PROBE, (FINETUNE,))),
    "lp_ft_converged": (
        {"inverse_penalties": (0.5,)},
        Recipe(HEAD_0, (FINETUNE,), inverse_penalties=(0.5,)),
    ),
    "hp_ft": ({"tau": (3,)}, Recipe(HEAD_3, (FINETUNE,))),
    "ls_hp_ft": (
        {"tau": (3,), "smoothing": 0.2},
        Recipe(replace(HEAD_3, smoothing=0.2), (FINETUNE,)),
    ),
    "ls_everywhere": (
        {"tau": (3,), "smoothing": 0.2},
        Recipe(replace(HEAD_3, smoothing=0.2), (replace(FINETUNE, smoothing=0.2),)),
    ),
    "opposite_energy": (
        {"tau": (3,), "smoothing": 0.2},
        Recipe(HEAD_3, (replace(FINETUNE, smoothing=0.2),)),
    ),
    "l2_sp": ({"tau": (3,), "anchor": 0.5}, Recipe(HEAD_3, (replace(FINETUNE, anchor=0.5),))),
    "delta": ({"stage_anchor": 0.5}, Recipe(HEAD_0, (replace(FINETUNE, stage_anchor=0.5),))),
    "feature_distillation": (
        {"tau": (3,), "feature_anchor": 0.5},
        Recipe(HEAD_3, (replace(FINETUNE, feature_anchor=0.5),)),
    ),
    "bss": (
        {"tau": (3,), "spectral_shrinkage": 0.5},
        Recipe(HEAD_3, (replace(FINETUNE, spectral_shrinkage=0.5),)),
    ),
    "gtot": (
        {"tau": (3,), "node_transport": 0.5},
        Recipe(HEAD_3, (replace(FINETUNE, node_transport=0.5),)),
    ),
    "stochastic_norm": (
        {"tau": (3,), "running_statistics": 0.25},
        Recipe(HEAD_3, (replace(FINETUNE, running_statistics=0.25),)),
    ),
    "lora": (
        {"tau": (3,), "adapter_rank": 4},
        Recipe(HEAD_3, (replace(FINETUNE, adapter_rank=4, batch_norm="frozen"),)),
    ),
    "linear_adapter": (
        {"adapter_rank": 4, "adapter_scaling": 0.1},
        Recipe(
            HEAD_0,
            (replace(FINETUNE, adapter_rank=4, adapter_scaling=0.1, batch_norm="frozen"),),
        ),
    ),
    "layerwise": (
        {"tau": (3,), "layer_decay": 0.5},
        Recipe(HEAD_3, (replace(FINETUNE, layer_decay=0.5),)),
    ),
    "surgical": (
        {"tau": (3,), "stages": ("layer1",)},
        Recipe(HEAD_3, (replace(FINETUNE, stages=("layer1",)),)),
    ),
    "gradual": (
        {"tau": (3,), "unfreeze_every": 2},
        Recipe(HEAD_3, (replace(FINETUNE, unfreeze_every=2, layer_decay=1 / 2.6),)),
    ),
    "side_tuning": ({"tau": (3,)}, Recipe(HEAD_3, (FINETUNE,), side=True)),
    "wise_ft": (
        {"tau": (3,), "alphas": (0.0, 0.5)},
        Recipe(HEAD_3, (FINETUNE,), alphas=(0.0, 0.5)),
    ),
    "dwise_ft": (
        {"tau": (3,), "steps": 7, "mixing_lr": 0.5},
        Recipe(HEAD_3, (FINETUNE,), stage_mixing=StageMixing(7, 0.5)),
    ),
    "flyp": (
        {"tau": (3,), "pretraining": "assays", "weight": 0.5},
        Recipe(HEAD_3, (FINETUNE,), auxiliary=AuxiliaryTask("assays", 0.5)),
    ),
    "flyp_contrast": ({"tau": (3,)}, Recipe(HEAD_3, (FINETUNE,), contrast=True)),
    "uniform_soup": ({"tau": (3,)}, Recipe(HEAD_3, (FINETUNE,), soup="uniform")),
    "greedy_soup": ({"tau": (3,)}, Recipe(HEAD_3, (FINETUNE,), soup="greedy")),
}


@pytest.mark.parametrize(("name", "definition"), DEFINITIONS.items(), ids=DEFINITIONS)
def test_weights_are_chosen_on_validation_by_few_methods_and_by_epochs(name, definition):
    _, recipe = definition
    chooses = name in ("lp_logistic", "wise_ft", "dwise_ft", "greedy_soup")
    assert recipe.chooses_weights is chooses
    for changes in ({"keep": "best"}, {"patience": 3}):
        watching = tuple(replace(phase, **changes) for phase in recipe.after)
        after = replace(recipe, after=watching).chooses_weights
        assert after is (chooses or bool(recipe.after))
        assert replace(recipe, probe=replace(recipe.probe, **changes)).chooses_weights


def test_every_method_of_the_catalog_is_defined_here():
    assert set(DEFINITIONS) == set(METHODS)


@pytest.mark.parametrize(("name", "definition"), DEFINITIONS.items(), ids=DEFINITIONS)
def test_a_method_is_its_papers_phases_and_nothing_else(name, definition):
    options, recipe = definition
    assert getattr(recipes, name)(PROBE, FINETUNE, **options) == (recipe,)


def test_a_soup_has_so_many_members_of_each_tau():
    soup = recipes.uniform_soup(PROBE, FINETUNE, tau=(0, 3), repeats=2)
    assert [(one.tau, one.repeat) for one in soup] == [(0, 0), (0, 1), (3, 0), (3, 1)]


def test_what_a_method_does_not_say_is_as_its_documentation_says():
    def of(name, **options):
        return getattr(recipes, name)(PROBE, FINETUNE, **options)[0]

    assert of("ls_hp_ft", tau=(3,)).probe.smoothing == 0.1
    everywhere = of("ls_everywhere", tau=(3,))
    assert everywhere.probe.smoothing == everywhere.after[0].smoothing == 0.1
    assert of("opposite_energy", tau=(3,)).after[0].smoothing == 0.1
    assert of("l2_sp").after[0].anchor == 0.01
    assert of("l2_sp").after[0].head_penalty == 0
    assert of("l2_sp", head_penalty=0.2).after[0].head_penalty == 0.2
    assert of("layerwise").after[0].layer_decay == 0.7
    with_options = of("flyp", pretraining={"name": "pretraining", "of": ["a.csv"]})
    assert with_options.auxiliary == AuxiliaryTask("pretraining", 1.0, {"of": ["a.csv"]})
    with pytest.raises(ValueError, match=r"method\.pretraining must be a name, or keys with a n"):
        of("flyp", pretraining={"of": ["a.csv"]})
    flyp = of("flyp", pretraining="assays")
    assert (flyp.tau, flyp.auxiliary.weight) == (0, 1.0)


def test_tau_zero_gives_the_weights_of_plain_finetuning_bit_for_bit():
    (recipe,), task = recipes.hp_ft(PROBE, FINETUNE, tau=(0,)), toy_task()
    probed, plain = toy_network(), toy_network()
    for network, phases in ((probed, (recipe.probe, *recipe.after)), (plain, (FINETUNE,))):
        rng = torch.Generator().manual_seed(5)
        for phase in phases:
            fit(network, phase, task, rng=rng)
    assert same_weights(probed, plain)


def test_each_tau_has_a_recipe_that_differs_in_tau_only():
    short, long = recipes.hp_ft(PROBE, FINETUNE, tau=(3, 9))
    assert (short.tau, long.tau) == (3, 9)
    assert replace(short, probe=long.probe) == long


@cache
def residuals_along(recipe):
    """Mean |p - y| of the training labels after probing, and after finetuning."""
    network, task, residuals = toy_network(), toy_task(Multilabel()), []
    for phase in (replace(recipe.probe, epochs=150), replace(recipe.after[0], epochs=150, lr=0.02)):
        fit(network, phase, task, rng=torch.Generator().manual_seed(0))
        predicted = predict(network, task, "train")
        residuals.append((predicted.logits.sigmoid() - predicted.targets).abs().mean().item())
    return residuals


@pytest.mark.slow
@pytest.mark.parametrize("method", ["ls_hp_ft", "ls_everywhere", "opposite_energy"])
def test_a_phase_that_smooths_reserves_energy_and_no_other_does(method):
    (recipe,) = getattr(recipes, method)(PROBE, FINETUNE, tau=(50,), smoothing=0.2)
    (plain,) = recipes.hp_ft(PROBE, FINETUNE, tau=(50,))
    probed, tuned = residuals_along(recipe)
    plainly_probed, plainly_tuned = residuals_along(plain)
    assert (probed > plainly_probed + 0.02) == (method != "opposite_energy")
    # the network can fit every label: half the smoothing is left of each, or nothing
    assert plainly_tuned < 0.02
    assert (tuned > 0.09) == (method != "ls_hp_ft")


@pytest.mark.parametrize("tau", [(), (1, 1)])
def test_tau_must_list_different_numbers(tau):
    with pytest.raises(ValueError, match=r"^tau lists at least one number of epochs, each once"):
        recipes.hp_ft(PROBE, FINETUNE, tau=tau)


@pytest.mark.parametrize("method", [recipes.hp_ft, recipes.ls_hp_ft, recipes.l2_sp])
def test_auto_is_one_recipe_that_is_still_to_be_settled(method):
    (recipe,) = method(PROBE, FINETUNE, tau="auto")
    (named,) = method(PROBE, FINETUNE, tau=(PROBE.epochs,))
    assert recipe.chooses
    assert not named.chooses
    assert (recipe.probe, recipe.after) == (named.probe, named.after)


@pytest.mark.parametrize("epochs", [(0, 3), (50, 0), (0, 0)])
def test_tau_is_chosen_among_epochs_that_there_are(epochs):
    probe, finetune = (replace(p, epochs=n) for p, n in zip((PROBE, FINETUNE), epochs, strict=True))
    words = f"got probe.epochs {epochs[0]} and finetune.epochs {epochs[1]}"
    with pytest.raises(ValueError, match=f"^tau: auto chooses among 0 to .* each; {words}"):
        recipes.hp_ft(probe, finetune, tau="auto")


def test_one_epoch_of_each_is_enough_to_choose_by():
    once = [replace(p, epochs=1) for p in (PROBE, FINETUNE)]
    assert recipes.hp_ft(*once, tau="auto")[0].chooses


@pytest.mark.parametrize("name", ["lp_logistic", "lp_ft_converged", "wise_ft"])
def test_a_choice_among_nothing_is_refused(name):
    options = {"tau": (3,), "alphas": ()} if name == "wise_ft" else {"inverse_penalties": ()}
    with pytest.raises(ValueError, match="lists at least one number, got none"):
        getattr(recipes, name)(PROBE, FINETUNE, **options)


def test_a_head_is_named_by_tau_and_by_smoothing_where_there_is_any():
    plain = recipes.hp_ft(PROBE, FINETUNE, tau=(1, 7))
    smoothed = recipes.ls_hp_ft(PROBE, FINETUNE, tau=(1, 7), smoothing=0.25)
    keys = [recipe.key for recipe in (*plain, *smoothed)]
    assert keys == ["tau1", "tau7", "tau1-smoothing0.25", "tau7-smoothing0.25"]
