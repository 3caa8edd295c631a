"""Fewer training examples: exactly so many, of each class so many, and no other split touched."""

import inspect

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from molhpft.config.registry import TASKS
from molhpft.core.data import Portion, Rows, Task
from molhpft.core.few_labels import OPTIONS, fewer_to_train, taking_fewer
from molhpft.core.objectives import Multiclass, Multilabel, Squared

NAN = float("nan")
quick = settings(max_examples=40, deadline=None)
class_counts = st.lists(st.integers(1, 9), min_size=1, max_size=4)
seeds = st.integers(0, 99)


def task_of(targets, objective, *, train, outputs, fingerprint="data"):
    """A task whose training rows are the first `train`, in a shuffled order, and others behind."""
    order = torch.randperm(train, generator=torch.Generator().manual_seed(5))
    rest = torch.arange(train, len(targets))
    splits = {"train": order, "valid": rest[::2], "test": rest[1::2], "ood": rest}
    rows = Rows(torch.arange(float(len(targets)))[:, None], targets)
    return Task("few", rows, splits, objective, outputs=outputs, fingerprint=fingerprint)


def with_classes(counts):
    ids = torch.arange(len(counts)).repeat_interleave(torch.tensor(counts))
    more = torch.arange(10) % len(counts)
    train = len(ids)
    return task_of(torch.cat([ids, more]), Multiclass(), train=train, outputs=len(counts))


def labels_of(task):
    return task.examples.targets[task.rows("train")]


def untouched(task, fewer):
    assert list(fewer.splits) == list(task.splits)
    others = [split for split in task.splits if split != "train"]
    assert all(torch.equal(fewer.rows(split), task.rows(split)) for split in others)
    assert fewer.examples is task.examples
    order = {row: place for place, row in enumerate(task.rows("train").tolist())}
    places = [order[row] for row in fewer.rows("train").tolist()]  # all are training rows
    assert places == sorted(set(places))  # in their order, each once


@quick
@given(counts=class_counts, shots=st.integers(1, 9), seed=seeds)
def test_shots_are_exact_in_every_class_or_refused(counts, shots, seed):
    task = with_classes(counts)
    if shots > min(counts):
        with pytest.raises(ValueError, match=rf"shots is {shots}, .* {min(counts)} training exam"):
            fewer_to_train(task, shots=shots, train_seed=seed)
        return
    fewer = fewer_to_train(task, shots=shots, train_seed=seed)
    assert labels_of(fewer).bincount().tolist() == [shots] * len(counts)
    untouched(task, fewer)


@quick
@given(counts=class_counts, size=st.integers(1, 36), seed=seeds)
def test_a_train_size_is_exact_and_every_class_has_its_share_to_less_than_one(counts, size, seed):
    task, total = with_classes(counts), sum(counts)
    if size > total:
        with pytest.raises(ValueError, match=rf"train_size is {size}, .* has {total} training"):
            fewer_to_train(task, train_size=size, train_seed=seed)
        return
    fewer = fewer_to_train(task, train_size=size, train_seed=seed)
    assert len(fewer.rows("train")) == size
    found = labels_of(fewer).bincount(minlength=len(counts)).tolist()
    for count, some in zip(counts, found, strict=True):
        assert abs(some - count * size / total) < 1
    untouched(task, fewer)


@st.composite
def tables(draw):
    n, t = draw(st.integers(6, 25)), draw(st.integers(1, 3))
    value = st.sampled_from([0.0, 1.0, 1.0, NAN])
    rows = draw(st.lists(st.lists(value, min_size=t, max_size=t), min_size=n, max_size=n))
    return torch.tensor(rows)


@quick
@given(targets=tables(), shots=st.integers(1, 4), size=st.integers(1, 25), seed=seeds)
def test_of_several_labels_every_class_has_at_least_the_shots(targets, shots, size, seed):
    n = len(targets)
    more = torch.cat([targets, torch.ones(6, targets.shape[1])])
    task = task_of(more, Multilabel(), train=n, outputs=targets.shape[1])
    counts = [int((column == label).sum()) for column in targets.T for label in (0, 1)]
    if min(counts) < shots:
        with pytest.raises(ValueError, match=r"of class \d = [01]; give no more"):
            fewer_to_train(task, shots=shots, train_seed=seed)
    else:
        fewer = fewer_to_train(task, shots=shots, train_seed=seed)
        found = labels_of(fewer)
        assert all((column == label).sum() >= shots for column in found.T for label in (0, 1))
        if targets.shape[1] == 1:
            assert len(found) == 2 * shots
        untouched(task, fewer)
    if size <= n:
        fewer = fewer_to_train(task, train_size=size, train_seed=seed)
        assert len(fewer.rows("train")) == size
        untouched(task, fewer)


def test_a_rare_yes_of_several_labels_is_kept_in_proportion():
    targets = torch.zeros(100, 2)
    targets[:50, 0], targets[40:60, 1] = 1, 1
    task = task_of(targets, Multilabel(), train=90, outputs=2)
    rare = labels_of(fewer_to_train(task, train_size=45))[:, 1].sum()
    assert rare == pytest.approx(10, abs=1)


def test_numbers_and_masks_are_drawn_alike_and_a_mask_counts_for_each_of_its_classes():
    numbers = task_of(torch.arange(12.0)[:, None], Squared(), train=8, outputs=1)
    assert len(fewer_to_train(numbers, train_size=3).rows("train")) == 3
    with pytest.raises(ValueError, match="task few has no classes; set train_size"):
        fewer_to_train(numbers, shots=1)
    masks = torch.zeros(9, 2, 2, dtype=torch.uint8)
    masks[:4, 0, 0], masks[3:6, 1, 1] = 1, 255
    dense = task_of(masks, Multiclass(metric="miou", ignore=255), train=6, outputs=2)
    assert len(fewer_to_train(dense, train_size=2).rows("train")) == 2
    shown = labels_of(fewer_to_train(dense, shots=3)).flatten(1)
    assert (shown == 1).any(1).sum() >= 3
    with pytest.raises(ValueError, match="4 training examples of class 1"):
        fewer_to_train(dense, shots=5)


def test_numbers_are_in_standard_deviations_of_what_is_left_to_train():
    y = torch.randn(40, 2).double() * torch.tensor([3.0, 0.2]) + 7
    y[1:, 1] = torch.nan  # too few to vary among the rest
    given = Squared(mean=(7.0, 7.0), std=(3.0, 0.2))
    standard = ((y - 7) / torch.tensor([3.0, 0.2])).float()
    task = task_of(standard, given, train=30, outputs=2)
    fewer = fewer_to_train(task, train_size=8)
    kept = labels_of(fewer)[:, 0].double()
    assert (kept.mean().item(), kept.std(correction=0).item()) == pytest.approx((0, 1), abs=1e-5)
    values = fewer.objective.values(fewer.examples.targets)
    torch.testing.assert_close(values[:, 0], y[:, 0], rtol=0, atol=1e-5)
    assert (fewer.objective.mean[1], fewer.objective.std[1]) == (7.0, 0.2)


def test_a_seed_draws_the_same_again_and_fewer_shots_are_among_more():
    task = with_classes([30, 40])
    four, again, more = (
        set(fewer_to_train(task, shots=k, train_seed=3).rows("train").tolist()) for k in (4, 4, 16)
    )
    other = set(fewer_to_train(task, shots=4, train_seed=4).rows("train").tolist())
    assert four == again
    assert four < more
    assert four != other


def test_other_rows_are_other_data_and_the_whole_task_is_the_task():
    task = with_classes([5, 5])
    prints = {fewer_to_train(task, shots=k).fingerprint for k in (1, 2)}
    assert len(prints | {"data"}) == 3
    assert fewer_to_train(task) is task
    bare = task_of(task.examples.targets, Multiclass(), train=10, outputs=2, fingerprint="")
    assert not fewer_to_train(bare, shots=1).fingerprint


def test_what_would_do_nothing_or_contradicts_itself_is_refused():
    task = with_classes([5, 5])
    with pytest.raises(ValueError, match="train_seed would do nothing without train_size or shots"):
        fewer_to_train(task, train_seed=1)
    with pytest.raises(ValueError, match=r"train_size \(4\) and shots \(2\) both say"):
        fewer_to_train(task, train_size=4, shots=2)
    shares = Task(
        "shares",
        task.examples,
        task.splits,
        Multiclass(),
        outputs=2,
        portions=(Portion(torch.arange(3), 3),),
    )
    with pytest.raises(ValueError, match=r"share of each of its sources .*; set most or share"):
        fewer_to_train(shares, train_size=4)


def test_a_function_that_makes_a_task_keeps_its_own_options_and_passes_them_on():
    def make(where, *, counts: tuple[int, ...] = (4, 4)):
        assert where == "here"
        return with_classes(list(counts))

    made = taking_fewer(make)
    assert list(inspect.signature(made).parameters) == ["where", "counts", *OPTIONS]
    assert len(made("here", counts=(3, 6), shots=2).rows("train")) == 4
    assert len(made("here").rows("train")) == 8


def test_a_contradiction_is_found_before_anything_is_read():
    made = taking_fewer(lambda: pytest.fail("read"))
    with pytest.raises(ValueError, match="would do nothing"):
        made(train_seed=1)


def test_every_task_of_the_catalog_takes_them():
    for entry in TASKS.values():
        assert set(OPTIONS) <= set(inspect.signature(entry, eval_str=True).parameters)
