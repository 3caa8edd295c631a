"""Soups: means of finetuned networks, and which of them a greedy soup is made of."""

import pytest
import torch

from molhpft.tuning.fit import score
from molhpft.tuning.soup import averaged, greedy_members
from tests.toy import NAN, same_weights, scripted, toy_network, toy_task


def members(*seeds):
    return [{k: v.clone() for k, v in toy_network(seed=s).state_dict().items()} for s in seeds]


def soup_of(*weights):
    network = toy_network()
    network.load_state_dict(averaged(weights))
    return network


def test_a_soup_of_one_member_is_that_member_bit_for_bit():
    (one,) = members(4)
    assert all(torch.equal(value, one[name]) for name, value in averaged([one]).items())


def test_weights_and_batch_norm_statistics_are_averaged_and_counts_are_not():
    one, other, third = members(1, 2, 3)
    mean, count = (
        f"backbone.stages.layer0.module.1.{k}" for k in ("running_mean", "num_batches_tracked")
    )
    other[mean] += 3.0
    one[count] += 7
    soup = averaged([one, other, third])
    torch.testing.assert_close(soup[mean], one[mean] + 1.0)
    assert soup[count] == one[count]
    weight = "head.stages.linear.module.weight"
    expected = (one[weight] + other[weight] + third[weight]) / 3
    torch.testing.assert_close(soup[weight], expected)


@pytest.mark.parametrize(
    ("alone", "together", "used"),
    [
        ((0.5, 0.7, 0.6), (0.8, 0.9), [0, 1, 2]),  # 1, with 2, with 0
        ((0.5, 0.7, 0.6), (0.69, 0.9), [0, 1]),
        ((0.5, 0.7, 0.6), (0.7, 0.1), [1, 2]),  # what is no worse goes in
        ((0.7, 0.7, NAN), (0.6, 0.6), [0]),
        ((NAN, 0.2, 0.1), (NAN, 0.2), [0, 1]),
    ],
)
def test_a_member_that_lowers_the_score_is_left_out_of_a_greedy_soup(alone, together, used):
    task = scripted(*alone, *together)
    assert greedy_members(toy_network(), members(1, 2, 3), task) == used


def test_a_greedy_soup_validates_no_worse_than_its_best_member():
    task, weights, network = toy_task(), members(*range(6)), toy_network()
    used = greedy_members(network, weights, task)
    soup = score(soup_of(*(weights[k] for k in used)), task, "valid")
    assert soup >= max(score(soup_of(one), task, "valid") for one in weights)
    assert same_weights(network, toy_network())


def test_members_without_a_finite_score_make_no_greedy_soup():
    with pytest.raises(ValueError, match=r"^nothing to choose among: 2 scores, none of them fin"):
        greedy_members(toy_network(), members(1, 2), scripted(NAN, NAN))
