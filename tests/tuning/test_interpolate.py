import pytest
import torch

from molhpft.tuning.fit import score
from molhpft.tuning.solve_head import interpolated, mix
from tests.toy import NAN, same_weights, scripted, toy_network, toy_task


def weights(seed):
    return {k: v.clone() for k, v in toy_network(seed=seed).state_dict().items()}


@pytest.mark.parametrize(("alpha", "seed"), [(0.0, 1), (1.0, 2)])
def test_the_ends_are_the_two_models(alpha, seed):
    between = interpolated(weights(1), weights(2), alpha)
    assert all(torch.equal(between[k], v) for k, v in weights(seed).items())


def test_batch_norm_statistics_are_interpolated_and_counts_are_not():
    start, end = weights(1), weights(2)
    mean, count = (
        f"backbone.stages.layer0.module.1.{k}" for k in ("running_mean", "num_batches_tracked")
    )
    end[mean] += 4.0
    end[count] += 9
    between = interpolated(start, end, 0.25)
    torch.testing.assert_close(between[mean], start[mean] + 1.0)
    assert between[count] == end[count]


def test_the_mixture_that_validates_best_is_taken():
    task, end, start = toy_task(), toy_network(seed=2), toy_network(seed=1)
    alphas = (0.0, 0.5, 1.0)
    expected = {}
    for alpha in alphas:
        candidate = toy_network()
        candidate.load_state_dict(interpolated(weights(1), weights(2), alpha))
        expected[alpha] = score(candidate, task, "valid")
    network, chosen = mix(start, end, task, alphas=alphas)
    assert same_weights(end, toy_network(seed=2))
    assert expected[chosen] == max(expected.values())
    candidate.load_state_dict(interpolated(weights(1), weights(2), chosen))
    assert same_weights(network, candidate)


def test_the_smallest_of_alphas_that_validate_alike_is_taken():
    task, network = toy_task(), toy_network(seed=2)
    # the ends are one network, and so is all that lies between
    assert mix(network, network, task, alphas=(1.0, 0.25, 0.5))[1] == 0.25


def test_a_mixture_whose_score_is_nan_is_never_taken():
    ends = toy_network(seed=1), toy_network(seed=2)
    network, chosen = mix(*ends, scripted(NAN, 0.5, NAN, 0.1), alphas=(0.0, 0.3, 0.6, 1.0))
    assert chosen == 0.3
    candidate = toy_network()
    candidate.load_state_dict(interpolated(weights(1), weights(2), 0.3))
    assert same_weights(network, candidate)


def test_mixtures_that_all_score_nan_are_refused():
    with pytest.raises(
        ValueError, match=r"^nothing to choose among: 2 scores, none of them finite"
    ):
        mix(toy_network(seed=1), toy_network(seed=2), scripted(NAN, NAN), alphas=(0.0, 0.5))
