"""Measuring a network changes nothing about it, for every measure that is given one."""

from copy import deepcopy

import pytest
import torch

from molhpft.core.objectives import Multiclass
from molhpft.measure.dynamics import (
    decompose,
    descent_directions,
    direction_norms,
    head_bound,
    head_gradient,
    kernel_bound,
    one_step_change,
)
from molhpft.measure.exchange import exchange_scores
from molhpft.measure.features import batch_norm_drift
from molhpft.measure.tangent import tangent_kernel, unit_vectors
from tests.toy import toy_network, toy_task

pytestmark = pytest.mark.filterwarnings("ignore:.torch.jit.script:DeprecationWarning")

TASK = toy_task()
OTHER = toy_network(seed=1)
BATCH = next(TASK.batches("train", size=5))
MEASURES = {
    "head_gradient": lambda n, rng: head_gradient(n, [BATCH], Multiclass()),
    "tangent_kernel": lambda n, rng: tangent_kernel(n, [BATCH], unit_vectors(2, 8, rng=rng)),
    "direction_norms": lambda n, rng: direction_norms(n, [BATCH]),
    "descent_directions": lambda n, rng: descent_directions(n, [BATCH], Multiclass()),
    "decompose": lambda n, rng: decompose(n, BATCH, Multiclass(), lr=0.1).change,
    "one_step_change": lambda n, rng: one_step_change(n, BATCH, Multiclass(), lr=0.1),
    "exchange_scores": lambda n, rng: exchange_scores([n, OTHER], TASK, "valid"),
    "batch_norm_drift": lambda n, rng: batch_norm_drift(n, TASK, epochs=1, rng=rng),
    "kernel_bound": lambda n, rng: kernel_bound([n], [BATCH], vectors=unit_vectors(3, 8, rng=rng)),
    "head_bound": lambda n, rng: head_bound([n], [BATCH]),
}
measures = pytest.mark.parametrize("measure", MEASURES.values(), ids=MEASURES)


@pytest.fixture
def network():
    """In the middle of training: mixed modes, frozen weights, gradients under way."""
    network = toy_network(dropout=0.5).train()
    network.backbone.stages["layer0"].eval()
    Multiclass().loss(network(BATCH), BATCH.targets).backward()
    network.backbone.stages["layer1"].requires_grad_(False)
    return network


@measures
def test_weights_buffers_and_gradients_stay(measure, network, rng):
    before = deepcopy(network.state_dict())
    gradients = [p.grad.clone() for p in network.parameters()]
    measure(network, rng)
    assert all(torch.equal(before[k], v) for k, v in network.state_dict().items())
    assert all(torch.equal(g, p.grad) for g, p in zip(gradients, network.parameters(), strict=True))


@measures
def test_modes_and_what_is_trained_stay(measure, network, rng):
    modes = [module.training for module in network.modules()]
    trained = [p.requires_grad for p in network.parameters()]
    parameters = list(network.parameters())
    measure(network, rng)
    assert [module.training for module in network.modules()] == modes
    assert [p.requires_grad for p in network.parameters()] == trained
    assert all(p is q for p, q in zip(parameters, network.parameters(), strict=True))


@measures
def test_no_number_is_drawn_from_the_global_generator(measure, network, rng):
    torch.manual_seed(5)
    state = torch.random.get_rng_state()
    measure(network, rng)
    assert torch.equal(torch.random.get_rng_state(), state)


@measures
def test_measuring_twice_gives_the_same(measure, network):
    first, second = (measure(network, torch.Generator().manual_seed(0)) for _ in range(2))
    equal = torch.equal(first, second) if isinstance(first, torch.Tensor) else first == second
    assert equal


@pytest.mark.parametrize("name", [n for n in MEASURES if n != "batch_norm_drift"])
def test_modes_come_back_when_a_measure_fails(name, network, rng, monkeypatch):
    modes = [module.training for module in network.modules()]

    def fails(*_):
        raise RuntimeError("out of memory")

    monkeypatch.setattr(network.backbone.stages["layer1"], "forward", fails)
    with pytest.raises(RuntimeError, match="out of memory"):
        MEASURES[name](network, rng)
    assert [module.training for module in network.modules()] == modes
