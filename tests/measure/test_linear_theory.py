import pytest
import torch
from torch.func import grad, hessian

from molhpft.core.evaluate import take
from molhpft.domains.toy.linear import linear_network, linear_task
from molhpft.measure import linear_theory as theory
from molhpft.measure.linear_theory import LinearStart
from molhpft.tuning.fit import fit
from molhpft.tuning.phase import Phase

SEEDS = range(4)


def start(seed=0, *, examples=6, inputs=12, width=8, head_norm=2.0):
    """A network with everything random, so that K and Theta do not commute."""
    rng = torch.Generator().manual_seed(seed)
    shapes = ((examples, inputs), (examples,), (width, inputs), (width,))
    x, y, b0, v0 = (torch.randn(s, generator=rng, dtype=torch.float64) for s in shapes)
    return LinearStart(x / inputs**0.5, y, b0 / width**0.5, head_norm * v0 / width**0.5)


def commuting(seed=0, *, examples=6, inputs=12):
    """Orthonormal features of orthogonal inputs of different lengths: K and Theta are diagonal."""
    rng = torch.Generator().manual_seed(seed)
    lengths = torch.rand(examples, 1, generator=rng, dtype=torch.float64) + 0.5
    x = lengths * torch.eye(examples, inputs, dtype=torch.float64)
    y, v0 = (torch.randn(n, generator=rng, dtype=torch.float64) for n in (examples, inputs))
    return LinearStart(x, y, torch.eye(inputs, dtype=torch.float64), v0)


def flow_to_the_end(start, *, steps=40_000):
    """Gradient descent on the network linearised in its weights, without a closed form."""
    db, dv = torch.zeros_like(start.backbone), torch.zeros_like(start.head)
    z0, step = start.features, 1.0 / torch.linalg.eigvalsh(start.kernel).max()
    for _ in range(steps):
        q = start.outputs + start.inputs @ db.T @ start.head + z0 @ dv
        u = start.targets - q
        db += step * torch.outer(start.head, u @ start.inputs)
        dv += step * (z0.T @ u)
    return start.backbone + db, start.head + dv


def tuned(start):
    """Features after finetuning, by Lemma 1."""
    backbone, _ = theory.ntk_solution(start)
    return start.inputs @ backbone.T


def with_outputs(start, q0):
    """The start whose residual is that of `q0`, by other targets; features and kernel stay."""
    return LinearStart(start.inputs, start.outputs + start.targets - q0, start.backbone, start.head)


@pytest.mark.slow
def test_the_solution_is_where_linearised_gradient_descent_ends():
    begin = start(examples=4)
    for closed, reached in zip(theory.ntk_solution(begin), flow_to_the_end(begin), strict=True):
        torch.testing.assert_close(closed, reached, rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("seed", SEEDS)
def test_the_solution_fits_the_targets_to_first_order(seed):
    begin = start(seed)
    backbone, head = theory.ntk_solution(begin)
    z, b0, v0 = begin.features, begin.backbone, begin.head
    linearised = z @ v0 + begin.inputs @ (backbone - b0).T @ v0 + z @ (head - v0)
    torch.testing.assert_close(linearised, begin.targets)


@pytest.mark.parametrize("seed", SEEDS)
def test_means_of_features_are_those_of_the_solution(seed):
    begin = start(seed)
    z0, z = begin.features, tuned(begin)
    for closed, measured in (
        (theory.mean_squared_distance(begin), (z - z0).square().sum(1).mean()),
        (theory.mean_dot(begin), (z * z0).sum(1).mean()),
        (theory.mean_squared_norm(begin), z.square().sum(1).mean()),
    ):
        torch.testing.assert_close(closed, measured)


@pytest.mark.parametrize("seed", SEEDS)
def test_means_are_the_equations_of_the_lemmas(seed):
    s = start(seed)
    k, inverse, u = s.gram, torch.linalg.inv(s.kernel), s.targets - s.outputs
    n, v2, zz = len(u), s.head @ s.head, s.features @ s.features.T
    torch.testing.assert_close(
        theory.mean_squared_distance(s), v2 / n * (u @ inverse @ k @ k @ inverse @ u)
    )
    torch.testing.assert_close(theory.mean_dot(s), zz.trace() / n + s.outputs @ k @ inverse @ u / n)


def test_a_head_without_energy_moves_nothing():
    begin = start()
    assert theory.mean_squared_distance(begin, begin.targets) == 0
    torch.testing.assert_close(
        theory.mean_squared_norm(begin, begin.targets), begin.features.square().sum(1).mean()
    )


@pytest.mark.parametrize("seed", SEEDS)
def test_half_of_the_targets_maximises_the_dot_product_when_kernels_commute(seed):
    begin = commuting(seed)
    best = theory.dot_maximiser(begin)
    gradient = grad(lambda q: theory.mean_dot(begin, q))(best)
    curvature = hessian(lambda q: theory.mean_dot(begin, q))(best)
    torch.testing.assert_close(gradient, torch.zeros_like(gradient))
    assert torch.linalg.eigvalsh(curvature).max() < 0


@pytest.mark.parametrize("seed", SEEDS)
def test_lemma_3_maximises_the_norm_when_kernels_commute(seed):
    begin = commuting(seed)
    best = theory.norm_maximiser(begin)
    gradient = grad(lambda q: theory.mean_squared_norm(begin, q))(best)
    curvature = hessian(lambda q: theory.mean_squared_norm(begin, q))(best)
    torch.testing.assert_close(gradient, torch.zeros_like(gradient))
    assert torch.linalg.eigvalsh(curvature).max() < 0


@pytest.mark.parametrize("seed", SEEDS)
def test_half_of_the_targets_is_the_best_multiple_of_them_for_any_kernels(seed):
    begin, fractions = start(seed), torch.linspace(0, 1, 101, dtype=torch.float64)
    dots = torch.stack([theory.mean_dot(begin, fraction * begin.targets) for fraction in fractions])
    assert fractions[dots.argmax()].item() == pytest.approx(0.5)


def test_the_norm_peaks_at_zero_without_features_and_at_half_the_targets_without_a_head():
    begin = commuting()
    small = LinearStart(begin.inputs, begin.targets, 1e-4 * begin.backbone, begin.head)
    torch.testing.assert_close(
        theory.norm_maximiser(small), torch.zeros_like(begin.targets), atol=1e-6, rtol=0
    )
    weak = LinearStart(begin.inputs, begin.targets, begin.backbone, 1e-4 * begin.head)
    torch.testing.assert_close(theory.norm_maximiser(weak), begin.targets / 2, atol=1e-6, rtol=0)


@pytest.mark.parametrize("seed", SEEDS)
def test_less_energy_never_means_more_distance(seed):
    begin = start(seed)
    distances = [
        theory.mean_squared_distance(begin, fraction * begin.targets).item()
        for fraction in torch.linspace(0, 1, 11)
    ]
    assert distances == sorted(distances, reverse=True)


@pytest.mark.parametrize("seed", SEEDS)
def test_between_half_of_the_targets_and_the_targets_adaptation_is_mild(seed):
    # Table 9 of the paper: features grow longer and hardly turn
    begin = commuting(seed)
    for fraction in (0.5 + 1e-6, 0.7, 0.85):
        q0 = fraction * begin.targets
        assert theory.regime(begin, q0) == "mild"
        start_norm = begin.features.square().sum(1).mean()
        assert theory.mean_squared_norm(begin, q0) > start_norm
        less = theory.mean_dot(begin, (fraction + 0.05) * begin.targets)
        assert less < theory.mean_dot(begin, q0)


@pytest.mark.parametrize("seed", SEEDS)
def test_regimes_follow_each_other_as_the_energy_falls(seed):
    begin = start(seed)
    strong, tiny = theory.regime_energies(begin)
    around = [1.0, strong + 1e-6, strong - 1e-6, tiny + 1e-6, tiny - 1e-6, 0.0]
    q0 = [begin.targets * (1 - energy / begin.targets.abs().mean()) for energy in around]
    regimes = [theory.regime(begin, outputs) for outputs in q0]
    assert regimes == ["strong", "strong", "mild", "mild", "tiny", "tiny"]


@pytest.mark.parametrize("seed", SEEDS)
def test_tiny_energy_moves_features_less_than_a_tenth_as_far_as_outputs_of_zero(seed):
    begin = start(seed)
    fraction = 1 - theory.regime_energies(begin)[1] / begin.targets.abs().mean()
    near, far = (
        theory.mean_squared_distance(begin, fraction * begin.targets).sqrt().item()
        for fraction in (fraction, 0.0)
    )
    assert near == pytest.approx(theory.TINY * far)


def test_the_regime_is_that_of_the_networks_own_outputs():
    begin = start()
    assert theory.regime(begin) == theory.regime(begin, begin.outputs)
    assert theory.regime(with_outputs(begin, begin.targets)) == "tiny"


@pytest.mark.parametrize("seed", SEEDS)
def test_the_constant_bounds_the_distance_whatever_the_head_says(seed):
    begin, rng = start(seed), torch.Generator().manual_seed(seed)
    constant = theory.distance_constant(begin)
    for scale in (0.1, 1.0, 10.0):
        q0 = scale * torch.randn(len(begin.targets), generator=rng, dtype=torch.float64)
        other = with_outputs(begin, q0)
        moved = (tuned(other) - begin.features).norm(dim=1).mean()
        assert moved <= constant * (begin.targets - q0).abs().mean()


def test_the_constant_is_reached_where_one_example_has_all_the_energy():
    begin = start()
    distances = [
        (tuned(with_outputs(begin, begin.targets - unit)) - begin.features).norm(dim=1).mean()
        for unit in torch.eye(len(begin.targets), dtype=torch.float64)
    ]
    # the energy of a unit vector is 1 / N
    reached = max(distances).item() * len(begin.targets)
    assert reached == pytest.approx(theory.distance_constant(begin))


def finetuned(head_norm, *, epochs=600):
    """A linear network before and after finetuning through `fit`, as seen by the theory."""
    task = linear_task(examples=8, inputs=20)
    rng = torch.Generator().manual_seed(0)
    network = linear_network(inputs=20, width=12, head_norm=head_norm, rng=rng)
    x, y = task.examples.inputs, task.examples.targets.flatten()
    b0 = network.backbone.stages["linear0"].module.weight.detach().clone()
    begin = LinearStart(x, y, b0, network.head.stages["linear"].module.weight.detach()[0].clone())
    rate = len(y) / torch.linalg.eigvalsh(begin.kernel).max().item()
    phase = Phase(trains="all", epochs=epochs, lr=rate, optimizer="sgd", momentum=0.0)
    fit(network, phase, task, rng=rng)
    return begin, take(network, task.batches("train", size=8)).features


@pytest.mark.slow
def test_a_trained_network_with_a_large_head_ends_where_the_theory_says():
    begin, features = finetuned(head_norm=100.0)
    moved = features - begin.features
    torch.testing.assert_close(moved, tuned(begin) - begin.features, rtol=0.02, atol=1e-4)


@pytest.mark.slow
def test_a_trained_network_comes_nearer_to_the_theory_as_its_head_grows():
    errors = []
    for head_norm in (3.0, 10.0, 30.0):
        begin, features = finetuned(head_norm)
        moved, closed = features - begin.features, tuned(begin) - begin.features
        errors.append(((moved - closed).norm() / closed.norm()).item())
    assert errors == sorted(errors, reverse=True)
    assert errors[-1] < errors[0] / 5
