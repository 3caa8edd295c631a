"""Stochastic norm against the equations of Kou et al. (2020), channel by channel."""

from copy import deepcopy
from dataclasses import replace

import pytest
import torch
from torch import nn

from molhpft.core.network import Chain, Network, Plain, side_tuned
from molhpft.tuning.distributed import Machine
from molhpft.tuning.fit import fit
from molhpft.tuning.phase import Phase
from molhpft.tuning.stochastic_norm import StochasticNorm, check_norms, stochastic_norm
from tests.toy import same_weights, seeded, toy_network, toy_task

FT = Phase(trains="all", epochs=3, lr=0.01, batch_size=10)


def norm_of(kind, *, channels=6):
    torch.manual_seed(1)
    norm = kind(channels)
    for value in (norm.weight.data, norm.bias.data, norm.running_mean):
        value.normal_()
    norm.running_var.uniform_(0.5, 2.0)
    return norm


def by_equation(x, norm, kept):
    """`(1 - s) x_hat_running + s x_hat_batch`, scaled and shifted; `kept` where s is 0."""
    y = torch.empty_like(x)
    for j in range(x.shape[1]):
        mu, sigma2 = x[:, j].mean(), x[:, j].var(unbiased=False)
        if kept[j]:
            mu, sigma2 = norm.running_mean[j], norm.running_var[j]
        y[:, j] = norm.weight[j] * (x[:, j] - mu) / (sigma2 + norm.eps).sqrt() + norm.bias[j]
    return y


@pytest.mark.parametrize(
    ("kind", "shape"), [(nn.BatchNorm1d, (9, 6)), (nn.BatchNorm2d, (4, 6, 3, 3))]
)
@pytest.mark.parametrize("running", [0.0, 0.4, 1.0])
def test_each_channel_is_normalised_by_the_statistics_of_its_coin(kind, shape, running):
    norm, x = norm_of(kind), torch.randn(shape)
    before, plain = deepcopy(norm), deepcopy(norm)
    torch.manual_seed(5)
    kept = torch.rand(6) < running
    torch.manual_seed(5)
    y = StochasticNorm(norm, running=running)(x)
    torch.testing.assert_close(y, by_equation(x, before, kept))
    plain(x)  # running statistics move as those of batch norm, whatever the coin
    assert same_weights(norm, plain)


def test_evaluation_is_that_of_batch_norm():
    norm, x = norm_of(nn.BatchNorm1d).eval(), torch.randn(9, 6)
    assert torch.equal(StochasticNorm(norm, running=0.5)(x), norm(x))


def test_a_phase_with_it_leaves_a_network_of_plain_batch_norms():
    network, start = toy_network(dropout=0.3), toy_network(dropout=0.3)
    fit(network, replace(FT, running_statistics=0.5), toy_task(), rng=seeded())
    assert [type(m) for m in network.modules()] == [type(m) for m in start.modules()]
    assert network.state_dict().keys() == start.state_dict().keys()
    plain = toy_network(dropout=0.3)
    fit(plain, FT, toy_task(), rng=seeded())
    assert not same_weights(network, plain)


def test_batch_norms_come_back_as_they_were_even_after_an_error():
    network = toy_network()

    def failing():
        with stochastic_norm(network.backbone, 0.5):
            assert not any(type(m) is nn.BatchNorm1d for m in network.backbone.modules())
            network.backbone.eval()
            raise KeyError

    norms = [m for m in network.modules() if isinstance(m, nn.BatchNorm1d)]
    with pytest.raises(KeyError):
        failing()
    back = [m for m in network.modules() if isinstance(m, nn.BatchNorm1d)]
    assert all(one is other for one, other in zip(norms, back, strict=True))
    assert not any(norm.training for norm in back)


def test_it_is_refused_where_it_has_no_meaning():
    backbone = Chain({"linear": Plain(nn.Linear(2, 2), width=2)})
    for check in (lambda: check_norms(backbone), stochastic_norm(backbone, 0.5).__enter__):
        with pytest.raises(ValueError, match="the backbone has no batch norm with running stat"):
            check()
    with stochastic_norm(backbone, 0.0):
        pass

    class Shared(Machine):
        processes = 2

    with pytest.raises(ValueError, match="set devices: 1, got 2 processes"):
        stochastic_norm(toy_network().backbone, 0.5, machine=Shared()).__enter__()


def test_the_frozen_base_of_side_tuning_keeps_its_batch_norm():
    plain = toy_network()
    network = Network(side_tuned(plain.backbone), plain.head)
    base = deepcopy(dict(network.backbone.named_buffers()))
    fit(network, replace(FT, running_statistics=0.5), toy_task(), rng=seeded())
    kept = {name: value for name, value in network.backbone.named_buffers() if ".base." in name}
    assert kept
    assert all(torch.equal(value, base[name]) for name, value in kept.items())
