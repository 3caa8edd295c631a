"""Steps of a stack against PyTorch's optimizers, and the orders that it sees."""

from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from molhpft.core.data import Rows
from molhpft.core.network import Chain, Network, cosine_head, linear_head, mlp_head
from molhpft.core.objectives import Multiclass, Multilabel, Squared
from molhpft.tuning import stacked
from molhpft.tuning.fit import make_optimizer
from molhpft.tuning.frozen_features import Views
from molhpft.tuning.phase import Phase
from molhpft.tuning.stacked import Lesson, Stack, feature_rows, labels, orders, stepping, train
from tests.toy import toy_network, toy_task


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
        slopes = torch.randn_like(stack.flat)
        stack.gradient.copy_(slopes)
        step()
        for network, single, head in zip(networks, theirs, stack.heads(slopes), strict=True):
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


def test_only_a_head_on_a_matrix_is_trained_as_a_stack():
    head, task = Network(Chain({}), linear_head(6, 3)), toy_task()
    assert feature_rows(head, task) is task.examples
    viewed = replace(task, examples=Views(task.examples, torch.arange(90)[:, None]))
    assert feature_rows(head, viewed) is task.examples
    assert feature_rows(toy_network(), task) is None
    assert feature_rows(Network(Chain({}), cosine_head(6, 3)), task) is None
    maps = replace(task, examples=Rows(torch.zeros(90, 6, 2, 2), task.examples.targets))
    assert feature_rows(head, maps) is None


def trained(task, phases, *, seeds, epochs, head=linear_head):
    """Final weights of a stack of a head for each seed and phase, and its losses."""
    torch.manual_seed(0)
    start = head(6, 3).state_dict()
    stack = Stack(head(6, 3), [start] * (seeds * len(phases)), groups=seeds)
    rngs = [torch.Generator().manual_seed(seed) for seed in range(seeds)]
    smoothing = [phase.smoothing for phase in phases]
    taught = labels(task.objective, task.examples.targets, outputs=3, smoothing=smoothing)
    size = phases[0].batch_size
    lesson = Lesson(task.examples.inputs, taught, orders(task, size=size, rngs=rngs))
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
    found = []
    for block in (1, 100, 2**22):
        monkeypatch.setattr(stacked, "BLOCK", block)
        found.append(trained(toy_task(objective), phases, seeds=2, epochs=3, head=head))
    for flat, losses in found[1:]:
        assert torch.equal(flat, found[0][0])
        assert torch.equal(losses, found[0][1])


def largest_allocation(task, *, heads):
    phases = [Phase(trains="head", epochs=1, lr=0.01, batch_size=50)] * heads
    activities = [torch.profiler.ProfilerActivity.CPU]
    with torch.profiler.profile(activities=activities, profile_memory=True) as profile:
        trained(task, phases, seeds=1, epochs=1)
    return max(event.self_cpu_memory_usage for event in profile.events())


def test_memory_does_not_grow_with_heads_times_examples(monkeypatch):
    monkeypatch.setattr(stacked, "BLOCK", 2**12)
    task = toy_task(Multilabel(), n=6000)  # of which 2,000 train
    whole_epoch = 4 * 40 * 3 * 2000
    assert largest_allocation(task, heads=40) < whole_epoch / 4
