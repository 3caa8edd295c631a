import pytest
import torch

from molhpft.domains.toy.linear import linear_network, linear_task
from molhpft.tuning.fit import fit
from molhpft.tuning.phase import Phase


def weights(network):
    (backbone,), (head,) = network.backbone.parameters(), network.head.parameters()
    return backbone.detach().clone(), head.detach()[0].clone()


def test_the_points_can_be_fitted_whatever_their_labels():
    task = linear_task()
    assert torch.linalg.matrix_rank(task.examples.inputs) == 10
    assert set(task.examples.targets.flatten().tolist()) == {-1.0, 1.0}


def test_points_have_length_one_on_average():
    squares = linear_task(examples=200, inputs=400).examples.inputs.square().sum(1)
    assert squares.mean().item() == pytest.approx(1, abs=0.02)


def test_more_examples_than_inputs_are_refused():
    with pytest.raises(ValueError, match="at most inputs=5, so that any labels can be fitted"):
        linear_task(examples=6, inputs=5)


def test_the_network_is_the_theorys_and_no_more(rng):
    task, network = linear_task(), linear_network(rng=rng)
    (batch,) = task.batches("train", size=10)
    b0, v0 = weights(network)
    torch.testing.assert_close(network(batch)[:, 0], batch.inputs @ b0.T @ v0)
    torch.testing.assert_close(network.features(batch), batch.inputs @ b0.T)


def test_a_head_has_the_length_asked_for_on_average():
    lengths = [
        weights(linear_network(head_norm=5.0, rng=torch.Generator().manual_seed(seed)))[1].norm()
        for seed in range(200)
    ]
    assert torch.stack(lengths).square().mean().sqrt().item() == pytest.approx(5, rel=0.05)


def test_the_generator_decides_all_weights():
    a, b = (linear_network(rng=torch.Generator().manual_seed(1)) for _ in range(2))
    assert all(torch.equal(x, y) for x, y in zip(weights(a), weights(b), strict=True))


def test_a_step_of_fit_is_one_of_the_theorys_gradient_descent(rng):
    task, network = linear_task(), linear_network(rng=rng)
    x, y = task.examples.inputs, task.examples.targets[:, 0]
    b0, v0 = weights(network)
    u = x @ b0.T @ v0 - y
    phase = Phase(trains="all", epochs=1, lr=0.1, optimizer="sgd", momentum=0.0)
    fit(network, phase, task, rng=rng)
    b1, v1 = weights(network)
    # the theory's loss is a sum over examples, that of the task a mean
    lr = 0.1 / len(y)
    torch.testing.assert_close(b1, b0 - lr * torch.outer(v0, u @ x))
    torch.testing.assert_close(v1, v0 - lr * (x @ b0.T).T @ u)
