"""Work shared out to processes gives what one process gives, in order."""

import os
from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from molhpft.domains import parallel


def squares(numbers: Sequence[int]) -> list[int]:
    return [number**2 for number in numbers]


def where(numbers: Sequence[int]) -> int:
    return os.getpid()


def complain(numbers: Sequence[int]) -> int:
    raise ValueError(f"number {numbers[0]} cannot be used")


@settings(max_examples=10, deadline=None)
@given(items=st.lists(st.integers(0, 99), max_size=20), chunk=st.integers(1, 7))
def test_results_come_in_the_order_of_the_items(items, chunk):
    found = parallel.parallel_map(squares, items, "squaring", chunk=chunk)
    assert [square for part in found for square in part] == squares(items)


def test_several_stretches_are_done_by_other_processes(monkeypatch):
    monkeypatch.setenv(parallel.VARIABLE, "2")
    assert os.getpid() not in parallel.parallel_map(where, range(40), "asking", chunk=10)


def test_one_worker_or_one_stretch_stays_in_this_process(monkeypatch):
    monkeypatch.setenv(parallel.VARIABLE, "2")
    assert parallel.parallel_map(where, range(9), "asking", chunk=10) == [os.getpid()]
    monkeypatch.setenv(parallel.VARIABLE, "1")
    assert set(parallel.parallel_map(where, range(90), "asking", chunk=10)) == {os.getpid()}


def test_an_error_of_a_worker_reaches_the_caller(monkeypatch):
    monkeypatch.setenv(parallel.VARIABLE, "2")
    with pytest.raises(ValueError, match="number 0 cannot be used"):
        parallel.parallel_map(complain, range(40), "complaining", chunk=10)


@pytest.mark.parametrize("value", ["0", "-1", "two", ""])
def test_a_number_of_workers_that_cannot_be_meant_is_refused(monkeypatch, value):
    monkeypatch.setenv(parallel.VARIABLE, value)
    with pytest.raises(ValueError, match="MOLHPFT_WORKERS should be a number"):
        parallel.parallel_map(squares, [1], "squaring")
