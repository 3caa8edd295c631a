"""Texts survive being tensors."""

from hypothesis import given
from hypothesis import strategies as st

from molhpft.domains.texts import joined, separate


@given(st.lists(st.text(st.characters(), max_size=8), max_size=9))
def test_texts_come_back_as_they_were(texts):
    assert separate(joined(texts)) == texts
