import pytest
import torch

from molhpft.tuning import recipes
from molhpft.tuning.fit import fit
from molhpft.tuning.phase import Phase
from tests.toy import same_weights, toy_network, toy_task

PROBE = Phase(trains="head", epochs=50, lr=0.1)
FINETUNE = Phase(trains="all", epochs=3, lr=0.01)


def test_tau_zero_is_plain_finetuning():
    assert recipes.hp_ft(PROBE, FINETUNE, tau=(0,)) == recipes.ft(PROBE, FINETUNE)


def test_tau_zero_gives_the_weights_of_plain_finetuning_bit_for_bit():
    (recipe,), task = recipes.hp_ft(PROBE, FINETUNE, tau=(0,)), toy_task()
    probed, plain = toy_network(), toy_network()
    for phase in (recipe.probe, *recipe.after):
        fit(probed, phase, task, rng=torch.Generator().manual_seed(5))
    fit(plain, FINETUNE, task, rng=torch.Generator().manual_seed(5))
    assert same_weights(probed, plain)


def test_each_tau_has_a_recipe_that_differs_in_tau_only():
    short, long = recipes.hp_ft(PROBE, FINETUNE, tau=(3, 9))
    assert (short.tau, long.tau) == (3, 9)
    assert short.after == long.after == (FINETUNE,)


def test_linear_probing_never_trains_the_backbone():
    (recipe,) = recipes.lp(PROBE, FINETUNE)
    assert recipe.tau == PROBE.epochs
    assert recipe.after == ()


def test_lp_ft_probes_for_all_epochs_and_then_finetunes():
    assert recipes.lp_ft(PROBE, FINETUNE) == recipes.hp_ft(PROBE, FINETUNE, tau=(50,))


def test_ls_hp_ft_smooths_while_probing_only():
    (recipe,) = recipes.ls_hp_ft(PROBE, FINETUNE, tau=(5,), smoothing=0.2)
    assert recipe.probe.smoothing == 0.2
    assert recipe.after[0].smoothing == 0.0


def test_scratch_does_not_use_the_encoders_weights():
    (recipe,) = recipes.scratch(PROBE, FINETUNE)
    assert not recipe.pretrained
    assert recipe.tau == 0
    assert all(r.pretrained for r in recipes.hp_ft(PROBE, FINETUNE, tau=(1, 2)))


@pytest.mark.parametrize("tau", [(), (1, 1)])
def test_tau_must_list_different_numbers(tau):
    with pytest.raises(ValueError, match="tau lists at least one number of epochs, each once"):
        recipes.hp_ft(PROBE, FINETUNE, tau=tau)


@pytest.mark.parametrize("method", [recipes.hp_ft, recipes.ls_hp_ft, recipes.l2_sp])
def test_auto_is_one_recipe_that_is_still_to_be_settled(method):
    (recipe,) = method(PROBE, FINETUNE, tau="auto")
    (named,) = method(PROBE, FINETUNE, tau=(PROBE.epochs,))
    assert recipe.chooses
    assert not named.chooses
    assert (recipe.probe, recipe.after) == (named.probe, named.after)


def test_every_head_of_a_run_has_a_key_of_its_own():
    both = (
        *recipes.hp_ft(PROBE, FINETUNE, tau=(1, 10)),
        *recipes.ls_hp_ft(PROBE, FINETUNE, tau=(1, 10)),
    )
    assert len({recipe.key for recipe in both}) == 4
