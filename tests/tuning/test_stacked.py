"""Stacked heads against modules and autograd, their steps against PyTorch's optimizers."""

from copy import deepcopy
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from molhpft.core.data import Rows
from molhpft.core.network import Batch, Chain, Network, Plain, cosine_head, linear_head, mlp_head
from molhpft.core.objectives import ClassContrast, Multiclass, Multilabel, Squared
from molhpft.tuning import stacked
from molhpft.tuning.fit import make_optimizer
from molhpft.tuning.frozen_features import Views
from molhpft.tuning.phase import Phase
from molhpft.tuning.stacked import (
    Lesson,
    Stack,
    feature_rows,
    has_closed_form,
    is_stackable,
    labels,
    orders,
    stepping,
    train,
)
from tests.toy import NAN, seeded, toy_network, toy_task

OBJECTIVES = [Multilabel(), Multiclass(), Multiclass(ignore=1), Squared()]


@settings(max_examples=60, deadline=None)
@given(
    objective=st.sampled_from(OBJECTIVES),
    n=st.integers(1, 6),
    missing=st.sampled_from([0.0, 0.5, 1.0]),
    smoothing=st.lists(st.sampled_from([0.0, 0.1, 0.7]), min_size=1, max_size=3),
    seed=st.integers(0, 9),
)
def test_loss_and_gradient_are_those_of_the_objective(objective, n, missing, smoothing, seed):
    smoothing = [0.0] if isinstance(objective, Squared) else smoothing
    rng = seeded(seed)
    targets = some_targets(objective, n, missing, rng)
    logits = 3 * torch.randn(len(smoothing), n, 3, generator=rng).double()
    own = labels(objective, targets, outputs=3, smoothing=smoothing)
    weights = own.measured / own.measured.sum().clamp(min=1)
    for row, a, s in zip(own.which, logits, smoothing, strict=True):
        y = own.y[row]
        a.requires_grad_()
        loss = objective.smoothed(s).loss(a, targets)
        (gradient,) = torch.autograd.grad(loss, a)
        entries = own.losses(a.detach().T, y) * weights
        torch.testing.assert_close(entries.sum().float(), loss.detach().float())
        written = (own.predictions(a.detach().T) - y) * weights
        torch.testing.assert_close(written.T.float(), gradient.float())


def some_targets(objective, n, missing, rng):
    if isinstance(objective, Multiclass):
        y = torch.randint(3, (n,), generator=rng)
        return torch.where(torch.rand(n, generator=rng) < missing, objective.ignore, y)
    y = torch.randn(n, 3, generator=rng).double()
    y = y if isinstance(objective, Squared) else (y > 0).double()
    return y.masked_fill(torch.rand(n, 3, generator=rng) < missing, NAN)


def test_each_row_has_its_own_labels_whatever_is_missing_around_it():
    targets = torch.tensor([[1.0, NAN], [NAN, NAN], [0.0, 1.0]])
    own = labels(Multilabel(), targets, outputs=2, smoothing=[0.0, 0.5, 0.0])
    assert own.which == (0, 1, 0)
    assert len(own.y) == 2
    assert own.measured.T.tolist() == [[1, 0], [0, 0], [1, 1]]
    assert own.y[0].T.tolist() == [[1, 0], [0, 0], [0, 1]]
    assert own.y[1].T.tolist() == [[0.75, 0], [0, 0], [0.25, 0.75]]


def test_numbers_cannot_be_smoothed():
    with pytest.raises(ValueError, match="no labels to smooth"):
        labels(Squared(), torch.zeros(2, 1), outputs=1, smoothing=[0.1])


def chain(*modules, width=3):
    return Chain({"all": Plain(nn.Sequential(*modules), width=width)})


def deep_head():
    return chain(nn.Linear(4, 5), nn.ReLU(), nn.Linear(5, 2), nn.ReLU(), nn.Linear(2, 3))


HEADS = {
    "linear": lambda: linear_head(4, 3),
    "mlp": lambda: mlp_head(4, 3, hidden=5),
    "deep": deep_head,
}


@pytest.mark.parametrize(
    ("head", "stackable"),
    [
        *((build(), True) for build in HEADS.values()),
        (Chain({}), False),
        (cosine_head(4, 3), False),
        (chain(nn.Linear(4, 3, bias=False)), False),
        (chain(nn.Linear(4, 3), nn.ReLU()), False),
        (chain(nn.Linear(4, 4), nn.Linear(4, 3)), False),
        (chain(nn.Linear(4, 4), nn.GELU(), nn.Linear(4, 3)), False),
        (chain(nn.Linear(4, 4), nn.ReLU(), nn.Dropout(0.5), nn.Linear(4, 3)), False),
        (chain(nn.Linear(4, 4), nn.BatchNorm1d(4), nn.ReLU(), nn.Linear(4, 3)), False),
        (chain(nn.Conv2d(4, 3, 1)), False),
    ],
    ids=lambda value: str(value) if isinstance(value, bool) else "",
)
def test_heads_of_linear_maps_with_relus_between_are_stacked(head, stackable):
    assert is_stackable(head) is stackable


def test_only_a_head_on_a_matrix_is_trained_as_a_stack():
    head, task = Network(Chain({}), linear_head(6, 3)), toy_task()
    assert feature_rows(head, task) is task.examples
    viewed = replace(task, examples=Views(task.examples, torch.arange(90)[:, None]))
    assert feature_rows(head, viewed) is task.examples
    assert feature_rows(toy_network(), task) is None
    assert feature_rows(Network(Chain({}), cosine_head(6, 3)), task) is None
    maps = replace(task, examples=Rows(torch.zeros(90, 6, 2, 2), task.examples.targets))
    assert feature_rows(head, maps) is None


@pytest.mark.parametrize(
    ("objective", "shape", "closed"),
    [
        (Multilabel(), (4, 3), True),
        (Squared(), (4, 3), True),
        (Multiclass(), (4,), True),
        (Multiclass(), (4, 5, 5), False),
        (ClassContrast(), (4,), False),
    ],
)
def test_only_objectives_and_targets_of_some_kinds_have_a_closed_form(objective, shape, closed):
    assert has_closed_form(objective, torch.zeros(shape)) is closed


@settings(max_examples=50, deadline=None)
@given(
    kind=st.sampled_from(list(HEADS)),
    groups=st.integers(1, 3),
    each=st.integers(1, 3),
    n=st.integers(1, 4),
)
def test_logits_and_gradients_are_those_of_each_head_alone(kind, groups, each, n):
    torch.manual_seed(groups * 100 + each * 10 + n)
    heads = [HEADS[kind]().double() for _ in range(groups * each)]
    z = torch.randn(groups, n, 4, dtype=torch.double)
    gradient = torch.randn(groups, each, 3, n, dtype=torch.double)
    stack = Stack(heads[0], [head.state_dict() for head in heads], groups=groups)
    logits = stack.forward(z)
    stack.backward(gradient)
    assert logits.shape == (groups, each, 3, n)
    for number, (head, gradients) in enumerate(
        zip(heads, stack.heads(stack.gradient), strict=True)
    ):
        group, place = divmod(number, each)
        alone = head(z[group], Batch(None, torch.empty(0)))
        torch.testing.assert_close(logits[group, place].T, alone)
        alone.backward(gradient[group, place].T)
        for name, parameter in head.named_parameters():
            torch.testing.assert_close(gradients[name], parameter.grad)


@pytest.mark.parametrize("build", HEADS.values(), ids=HEADS)
def test_heads_come_out_as_they_went_in_and_share_nothing(build):
    torch.manual_seed(0)
    weights = [build().state_dict() for _ in range(4)]
    stack = Stack(build(), deepcopy(weights), groups=2)
    out = stack.heads(stack.flat)
    stack.flat.zero_()
    for before, after in zip(weights, out, strict=True):
        assert before.keys() == after.keys()
        assert all(torch.equal(before[key], after[key]) for key in before)


def test_a_number_a_head_reaches_all_its_weights():
    stack = Stack(deep_head(), [deep_head().state_dict()] * 3, groups=1)
    numbers = stack.per_weight([1.0, 2.0, 3.0])
    assert numbers.shape == stack.flat.shape
    for number, head in enumerate(stack.heads(numbers), start=1):
        assert all((value == number).all() for value in head.values())


@settings(max_examples=40, deadline=None)
@given(
    kind=st.sampled_from(["adam", "adamw", "sgd"]),
    rates=st.lists(st.sampled_from([1e-3, 0.02, 0.3]), min_size=1, max_size=3),
    decay=st.sampled_from([0.0, 0.01, 0.3]),
    momentum=st.sampled_from([0.0, 0.6]),
)
def test_steps_are_those_of_pytorch(kind, rates, decay, momentum):
    options = {"momentum": momentum} if kind == "sgd" else {}
    phases = [
        # one head without decay among those with it
        Phase(trains="head", epochs=1, lr=lr, optimizer=kind, weight_decay=decay * i, **options)
        for i, lr in enumerate(rates)
    ]
    torch.manual_seed(0)
    networks = [Network(Chain({}), linear_head(4, 3).double()) for _ in rates]
    stack = Stack(networks[0].head, [n.head.state_dict() for n in networks], groups=1)
    step, theirs = stepping(stack, phases), list(map(make_optimizer, networks, phases))
    for _ in range(5):
        gradients = torch.randn_like(stack.flat)
        stack.gradient.copy_(gradients)
        step()
        for network, single, head in zip(networks, theirs, stack.heads(gradients), strict=True):
            for name, parameter in network.head.named_parameters():
                parameter.grad = head[name]
            single.step()
    for network, head in zip(networks, stack.heads(stack.flat), strict=True):
        for name, value in network.head.state_dict().items():
            torch.testing.assert_close(head[name], value)


@pytest.mark.parametrize("views", [0, 2])
def test_orders_are_the_rows_that_the_task_cuts_its_batches_from(views):
    task = toy_task()
    rows = Rows(torch.arange(90.0)[:, None], task.examples.targets)
    examples = Views(rows, torch.arange(90)[:, None] // 2 + torch.arange(views)) if views else rows
    task = replace(task, examples=examples)
    rngs = [torch.Generator().manual_seed(seed) for seed in (3, 4)]
    following = orders(task, size=8, rngs=rngs)
    plain = [torch.Generator().manual_seed(seed) for seed in (3, 4)]
    for _ in range(2):
        for order, rng in zip(following(), plain, strict=True):
            torch.randint(2**62, (), generator=rng)
            batches = [batch.inputs[:, 0] for batch in task.batches("train", size=8, rng=rng)]
            assert [rows.tolist() for rows in order] == [batch.tolist() for batch in batches]


def trained(task, phases, *, seeds, epochs, head=linear_head):
    """Final weights of a stack of a head for each seed and phase, and its losses."""
    torch.manual_seed(0)
    start = head(6, 3).state_dict()
    stack = Stack(head(6, 3), [start] * (seeds * len(phases)), groups=seeds)
    rngs = [torch.Generator().manual_seed(seed) for seed in range(seeds)]
    smoothing = [phase.smoothing for phase in phases]
    own = labels(task.objective, task.examples.targets, outputs=3, smoothing=smoothing)
    size = phases[0].batch_size
    lesson = Lesson(task.examples.inputs, own, orders(task, size=size, rngs=rngs))
    each = [phase for _ in range(seeds) for phase in phases]
    losses = list(train(stack, stepping(stack, each), lesson, epochs=epochs))
    return stack.flat, torch.stack(losses)


@pytest.mark.parametrize("objective", [Multiclass(), Multilabel(), Squared()], ids=repr)
@pytest.mark.parametrize("head", [linear_head, mlp_head])
def test_no_bit_depends_on_how_much_is_made_ready_at_once(monkeypatch, objective, head):
    smoothings = [0.0] if isinstance(objective, Squared) else [0.0, 0.2, 0.0]
    phases = [
        Phase(trains="head", epochs=1, lr=0.05, batch_size=7, smoothing=smoothing)
        for smoothing in smoothings
    ]
    results = []
    for block in (1, 100, 2**22):
        monkeypatch.setattr(stacked, "BLOCK", block)
        results.append(trained(toy_task(objective), phases, seeds=2, epochs=3, head=head))
    for flat, losses in results[1:]:
        assert torch.equal(flat, results[0][0])
        assert torch.equal(losses, results[0][1])


def largest_allocation(task, *, heads):
    phases = [Phase(trains="head", epochs=1, lr=0.01, batch_size=50)] * heads
    activities = [torch.profiler.ProfilerActivity.CPU]
    with torch.profiler.profile(
        activities=activities, profile_memory=True, acc_events=True
    ) as profile:
        trained(task, phases, seeds=1, epochs=1)
    return max(event.self_cpu_memory_usage for event in profile.events())


def test_memory_does_not_grow_with_heads_times_examples(monkeypatch):
    monkeypatch.setattr(stacked, "BLOCK", 2**12)
    task = toy_task(Multilabel(), n=6000)  # of which 2,000 train
    whole_epoch = 4 * 40 * 3 * 2000
    assert largest_allocation(task, heads=40) < whole_epoch / 4
