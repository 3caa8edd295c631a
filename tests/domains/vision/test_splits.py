import pathlib
from itertools import chain

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from molhpft.domains.vision.examples import Labelled, choose, stratified_order

NONE = {"train": None, "valid": None, "test": None}


@settings(max_examples=30, deadline=None)
@given(counts=st.lists(st.integers(0, 12), min_size=1, max_size=4), seed=st.integers(0, 99))
def test_every_beginning_has_the_class_shares_of_the_whole(counts, seed):
    targets = torch.arange(len(counts)).repeat_interleave(torch.tensor(counts))
    order = stratified_order(targets, rng=torch.Generator().manual_seed(seed))
    assert order.sort().values.tolist() == list(range(len(targets)))
    for n in range(len(targets) + 1):
        seen = torch.bincount(targets[order[:n]], minlength=len(counts))
        expected = torch.tensor(counts) * n / max(1, len(targets))
        assert ((seen - expected).abs() <= len(counts)).all()


def test_equal_classes_are_divided_equally():
    targets = torch.arange(1000) % 10
    order = stratified_order(targets, rng=torch.Generator().manual_seed(0))
    assert torch.bincount(targets[order[:100]]).tolist() == pytest.approx([10] * 10, abs=1)


def numbered(first, n):
    """Images that show their own number."""
    pixels = torch.arange(first, first + n, dtype=torch.uint8)[:, None, None, None]
    return Labelled(pixels, torch.arange(n) % 2, ("even", "odd"))


def chosen(sources, **sizes):
    rng = torch.Generator().manual_seed(0)
    found = choose(sources, NONE | sizes, place=pathlib.Path("place"), rng=rng)
    return {split: part.pixels.flatten().tolist() for split, part in found.items()}


def test_nothing_is_chosen_twice_and_nothing_is_lost():
    found = chosen({"all": numbered(0, 50)})
    assert {split: len(rows) for split, rows in found.items()} == {
        "train": 40,
        "valid": 5,
        "test": 5,
    }
    assert sorted(chain.from_iterable(found.values())) == list(range(50))


def test_each_split_comes_from_the_published_one_where_there_is_one():
    sources = {"train": numbered(0, 20), "valid": numbered(100, 4), "test": numbered(200, 6)}
    found = chosen(sources, train=10, test=3)
    assert len(found["train"]) == 10
    assert max(found["train"]) < 20
    assert found["valid"] == [100, 101, 102, 103]
    assert len(found["test"]) == 3
    assert min(found["test"]) >= 200


def test_test_images_are_never_used_to_validate():
    found = chosen({"train": numbered(0, 20), "test": numbered(200, 6)}, valid=7)
    assert found["test"] == list(range(200, 206))
    assert len(found["valid"]) == 7
    assert max(found["valid"]) < 20
    assert not set(found["valid"]) & set(found["train"])


def test_rows_keep_the_order_of_their_source():
    found = chosen({"all": numbered(0, 60)})
    assert all(rows == sorted(rows) for rows in found.values())


def test_a_single_image_cannot_serve_three_splits():
    with pytest.raises(ValueError, match="test is a number of images from 1 to the 0 that place"):
        chosen({"all": numbered(0, 1)})
