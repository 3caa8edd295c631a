import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from molhpft.core.data import Rows, Task
from molhpft.core.objectives import Squared
from tests.toy import toy_task


def numbered(n):
    inputs = torch.arange(float(n))[:, None]
    splits = {"train": torch.arange(n).flip(0), "none": torch.arange(0)}
    return Task("numbers", Rows(inputs, inputs), splits, Squared(), outputs=1)


@given(n=st.integers(1, 60), size=st.integers(1, 70), seed=st.none() | st.integers(0, 99))
@settings(max_examples=60, deadline=None)
def test_batches_hold_every_row_once(n, size, seed):
    rng = None if seed is None else torch.Generator().manual_seed(seed)
    batches = list(numbered(n).batches("train", size=size, rng=rng))
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
def test_shares_of_the_batches_after_those_skipped_make_up_the_rest(n, size, skip, parts):
    def cut(**options):
        rng = torch.Generator().manual_seed(5)
        return [b.inputs for b in numbered(n).batches("train", size=size, rng=rng, **options)]

    shares = [cut(skip=skip, share=(part, parts)) for part in range(parts)]
    together = [torch.cat(rows) for rows in zip(*shares, strict=True)]
    assert [t.tolist() for t in together] == [b.tolist() for b in cut()[skip:]]


def test_the_order_is_drawn_at_once_and_augmentations_later():
    rng = torch.Generator().manual_seed(0)
    batches = numbered(9).batches("train", size=4, rng=rng)
    state = rng.get_state()
    list(batches)
    assert torch.equal(rng.get_state(), state)  # plain rows draw nothing
    assert not torch.equal(state, torch.Generator().manual_seed(0).get_state())


def test_inputs_and_targets_stay_together(rng):
    for batch in numbered(30).batches("train", size=7, rng=rng):
        assert torch.equal(batch.inputs, batch.targets)


def test_an_unknown_split_names_the_splits_that_exist():
    with pytest.raises(ValueError, match="no split 'dev'; it has: train, valid, test"):
        toy_task().rows("dev")


def test_an_empty_split_is_an_error():
    with pytest.raises(ValueError, match=r"^split 'none' of task numbers is empty"):
        list(numbered(3).batches("none", size=2))


def test_a_task_moves_its_examples():
    moved = numbered(3).to("meta")
    assert moved.examples.take(torch.arange(2)).inputs.device.type == "meta"
    assert len(moved.examples) == 3
