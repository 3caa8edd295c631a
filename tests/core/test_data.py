"""Batches of a task hold every row once; samples of it are balanced over classes."""

from collections import Counter
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from molhpft.core.data import Rows, Task, probe_sample
from molhpft.core.objectives import Joint, Multiclass, Multilabel, Part, Squared
from tests.toy import NAN, toy_task


def numbered(n):
    inputs = torch.arange(float(n))[:, None]
    splits = {"train": torch.arange(n).flip(0), "none": torch.arange(0)}
    return Task("numbers", Rows(inputs, inputs), splits, Squared(), outputs=1)


@given(n=st.integers(1, 60), size=st.integers(1, 70), seed=st.none() | st.integers(0, 99))
@settings(max_examples=60, deadline=None)
def test_batches_hold_every_row_once(n, size, seed):
    rng = None if seed is None else torch.Generator().manual_seed(seed)
    batches = list(numbered(n).batches("train", size=size, rng=rng))
    assert all(torch.equal(b.inputs, b.targets) for b in batches)
    seen = torch.cat([b.inputs for b in batches]).flatten().tolist()
    assert sorted(seen) == list(range(n))
    lengths = [len(b.inputs) for b in batches]
    assert max(lengths) <= size
    assert max(lengths) - min(lengths) <= 1
    if seed is None:
        assert seen == list(range(n))[::-1]


def test_a_generator_decides_the_order():
    def order(seed):
        rng = torch.Generator().manual_seed(seed)
        batches = numbered(50).batches("train", size=8, rng=rng)
        return [b.inputs.flatten().tolist() for b in batches]

    assert order(3) == order(3)
    assert order(3) != order(4)


@given(
    n=st.integers(1, 60), size=st.integers(1, 20), skip=st.integers(0, 5), parts=st.integers(1, 4)
)
@settings(max_examples=60, deadline=None)
def test_parts_of_the_batches_after_those_skipped_make_up_the_rest(n, size, skip, parts):
    def inputs(**options):
        rng = torch.Generator().manual_seed(5)
        return [b.inputs for b in numbered(n).batches("train", size=size, rng=rng, **options)]

    pieces = [inputs(skip=skip, part=(part, parts)) for part in range(parts)]
    together = [torch.cat(rows) for rows in zip(*pieces, strict=True)]
    assert [t.tolist() for t in together] == [b.tolist() for b in inputs()[skip:]]


def test_the_order_is_drawn_at_once_and_augmentations_later():
    rng = torch.Generator().manual_seed(0)
    batches = numbered(9).batches("train", size=4, rng=rng)
    state = rng.get_state()
    list(batches)
    assert torch.equal(rng.get_state(), state)  # plain rows draw nothing
    assert not torch.equal(state, torch.Generator().manual_seed(0).get_state())


def test_an_unknown_split_and_an_empty_one_are_errors():
    with pytest.raises(ValueError, match="no split 'dev'; it has: train, valid, test"):
        toy_task().rows("dev")
    with pytest.raises(ValueError, match=r"^split 'none' of task numbers is empty; give more"):
        list(numbered(3).batches("none", size=2))


def test_a_task_moves_its_examples():
    moved = numbered(3).to("meta")
    assert moved.examples.take(torch.arange(2)).inputs.device.type == "meta"
    assert len(moved.examples) == 3


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def task_of(targets, objective, *, outputs):
    n = len(targets)
    splits = {"train": torch.arange(n).flip(0)[: n - 10], "valid": torch.arange(10)}
    return Task("ordered", Rows(torch.zeros(n, 1), targets), splits, objective, outputs)


def test_an_ordered_data_set_gives_as_many_of_every_class():
    y = torch.arange(4).repeat_interleave(100)
    task = task_of(y, Multiclass(), outputs=4)
    assert Counter(y[probe_sample(task, 40, rng=seeded())].tolist()) == dict.fromkeys(range(4), 10)


def test_rare_actives_are_half_of_the_examples_or_all_that_there_are():
    y = (torch.arange(1000) >= 970).float()[:, None]
    drawn = probe_sample(task_of(y, Multilabel(), outputs=1), 50, rng=seeded())
    assert y[drawn].sum() == 25
    drawn = probe_sample(task_of(y, Multilabel(), outputs=1), 100, rng=seeded())
    assert y[drawn].sum() == 30


def test_both_values_of_every_target_take_turns():
    y = torch.zeros(300, 3)
    y[100:103, 0], y[200:203, 1], y[250:253, 2] = 1, 1, 1
    y[:90, 2] = NAN
    drawn = probe_sample(task_of(y, Multilabel(), outputs=3), 12, rng=seeded())
    assert (y[drawn] == 1).sum(0).tolist() == [2, 2, 2]


def test_examples_without_a_label_come_last():
    y = torch.full((60, 1), NAN)
    y[40:45], y[45:50] = 0.0, 1.0
    task = task_of(y, Multilabel(), outputs=1)
    assert not y[probe_sample(task, 10, rng=seeded())].isnan().any()
    assert len(set(probe_sample(task, 30, rng=seeded()).tolist())) == 30


def test_a_class_that_only_few_pixels_have_is_seen():
    masks = torch.zeros(200, 4, 4, dtype=torch.uint8)
    masks[150, 1, 1], masks[:, 0] = 2, 255
    drawn = probe_sample(task_of(masks, Multiclass(ignore=255), outputs=3), 5, rng=seeded())
    assert 150 in drawn.tolist()


def test_numbers_are_drawn_alike_even_when_they_are_zero_and_one():
    y = (torch.arange(2000) % 50 == 0).float()[:, None]
    drawn = probe_sample(task_of(y, Squared(), outputs=1), 400, rng=seeded())
    assert 2 <= y[drawn].sum() <= 16  # 8 expected; balanced there would be 40


def test_a_second_task_takes_no_turns():
    y = torch.zeros(400, 2)
    y[:200, 0] = 1
    y[300, 1] = 1
    task = task_of(y, Joint(Multilabel(), 1, (Part(Squared(), 1),)), outputs=2)
    drawn = torch.cat([probe_sample(task, 4, rng=seeded(s)) for s in range(20)])
    assert 300 not in drawn.tolist()
    assert y[drawn, 0].mean() == 0.5


@given(seed=st.integers(0, 1000), count=st.integers(1, 60), n=st.integers(11, 60))
@settings(max_examples=30, deadline=None)
def test_rows_are_of_the_training_split_and_each_is_drawn_once(seed, count, n):
    task = task_of(torch.arange(n) % 3, Multiclass(), outputs=3)
    drawn = probe_sample(task, count, rng=seeded(seed)).tolist()
    assert len(set(drawn)) == len(drawn) == min(count, n - 10)
    assert set(drawn) <= set(task.rows("train").tolist())


@pytest.mark.parametrize("objective", [Multiclass(), Squared()], ids=str)
def test_the_generator_decides_all(objective):
    y = torch.arange(500) % 3
    y = y if isinstance(objective, Multiclass) else y[:, None].float()
    task = task_of(y, objective, outputs=3 if y.ndim == 1 else 1)
    one, same, other = (probe_sample(task, 20, rng=seeded(s)) for s in (1, 1, 2))
    assert torch.equal(one, same)
    assert not torch.equal(one, other)
    elsewhere = replace(task, splits={**task.splits, "valid": torch.arange(3)})
    assert torch.equal(one, probe_sample(elsewhere, 20, rng=seeded(1)))
