"""Texts survive being tensors, and many of them are listed as a person does."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from molhpft.domains.files import listed, texts_from_tensors, texts_to_tensors


@given(st.lists(st.text(st.characters(), max_size=8), max_size=9))
def test_texts_come_back_as_they_were(texts):
    assert texts_from_tensors(texts_to_tensors(texts)) == texts


@pytest.mark.parametrize(
    ("count", "text"),
    [(0, ""), (1, "0"), (2, "0 and 1"), (3, "0, 1 and 2"), (1_003, "0, 1, 2 and 1,000 more")],
)
def test_the_first_of_many_items_are_listed_and_the_others_counted(count, text):
    assert listed(map(str, range(count)), most=3) == text


def test_without_a_limit_all_items_are_listed():
    assert listed("abcde") == "a, b, c, d and e"
