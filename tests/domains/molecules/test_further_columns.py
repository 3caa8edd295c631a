"""Counts and properties that come with every batch of molecules."""

from dataclasses import replace
from typing import get_args

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from molhpft.domains.molecules.count_fingerprints import count_fingerprints
from molhpft.domains.molecules.featurized import Reading, featurized
from molhpft.domains.molecules.further_columns import (
    column_counts,
    reading_beside,
    store_beside,
)
from molhpft.domains.molecules.properties import properties
from tests.estimator.builders import SMILES, ring_task

READINGS = get_args(Reading)


@pytest.fixture(scope="module")
def task():
    return reading_beside(ring_task(), READINGS)


@settings(max_examples=25, deadline=None)
@given(
    rows=st.lists(st.integers(0, len(SMILES) - 1), min_size=1, max_size=9),
    moved=st.booleans(),
)
def test_every_batch_has_the_columns_of_its_own_molecules(task, rows, moved):
    molecules = [SMILES[row] for row in rows]
    batch = task.examples.take(torch.tensor(rows))
    beside = (batch.to("cpu") if moved else batch).inputs.beside
    assert {name: values.shape[1] for name, values in beside.items()} == column_counts(READINGS)
    for kind in ("morgan", "atom_pairs", "torsions"):
        assert beside[kind].dtype == torch.uint8
        assert np.array_equal(beside[kind].numpy(), count_fingerprints(kind, molecules).toarray())
    assert np.array_equal(beside["properties"].numpy(), properties(molecules), equal_nan=True)


def test_new_molecules_have_the_columns_that_a_table_has(task):
    store = store_beside(featurized(SMILES, READINGS), READINGS)
    for kind, values in task.examples.store.beside.items():
        torch.testing.assert_close(store.beside[kind], values, equal_nan=True, rtol=0, atol=0)
        assert store.beside[kind].dtype == values.dtype


def test_some_molecules_of_a_store_keep_their_columns(task):
    rows = torch.tensor([7, 3])
    part, whole = task.examples.store.subset(rows), task.examples.store
    assert part.beside["morgan"].equal(whole.beside["morgan"][rows])
    assert part.nbytes < whole.nbytes


def test_what_is_read_already_is_not_read_again_and_nothing_else_of_the_task_changes(task):
    assert reading_beside(task, ("properties",)) is task
    plain = ring_task()
    assert reading_beside(plain, ()) is plain
    more = reading_beside(plain, ("morgan",))
    assert replace(more, examples=plain.examples) == plain
    assert more.examples.store.atoms is plain.examples.store.atoms
