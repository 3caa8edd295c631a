"""Work shared out to processes gives what one process gives, in order."""

import multiprocessing
import os
import warnings
from collections.abc import Sequence
from itertools import count, islice

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from molhpft.domains import parallel


def squares(numbers: Sequence[int]) -> list[int]:
    return [number**2 for number in numbers]


def square(number: int) -> int:
    return number**2


def inverse(number: int) -> float:
    return 1 / number


def place(number: int) -> int:
    return os.getpid()


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


def in_a_pool(function, *arguments):
    """The answer of a worker of `multiprocessing.Pool`, which may have no children."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # newer Pythons, of forks near threads
        with multiprocessing.get_context("fork").Pool(1) as pool:
            return pool.apply(function, arguments)


def mapped_and_streamed():
    mapped = parallel.parallel_map(squares, range(40), "squaring", chunk=10)
    return mapped, list(parallel.parallel_stream(square, range(9)))


def test_a_worker_of_somebodys_pool_does_all_the_work_itself(monkeypatch):
    monkeypatch.setenv(parallel.VARIABLE, "2")
    assert in_a_pool(mapped_and_streamed) == mapped_and_streamed()


@pytest.mark.parametrize("value", ["0", "-1", "two", ""])
def test_a_number_of_workers_that_cannot_be_meant_is_refused(monkeypatch, value):
    monkeypatch.setenv(parallel.VARIABLE, value)
    with pytest.raises(ValueError, match="MOLHPFT_WORKERS should be a number"):
        parallel.parallel_map(squares, [1], "squaring")


@settings(max_examples=15, deadline=None)
@given(items=st.lists(st.integers(0, 99), max_size=20), workers=st.sampled_from("123"))
def test_a_stream_gives_what_a_loop_gives(items, workers):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(parallel.VARIABLE, workers)
        assert list(parallel.parallel_stream(square, iter(items))) == squares(items)


@pytest.mark.parametrize("workers", [1, 2])
def test_a_stream_without_end_is_read_a_few_items_ahead(monkeypatch, workers):
    monkeypatch.setenv(parallel.VARIABLE, str(workers))
    items = count()
    stream = parallel.parallel_stream(square, items)
    assert list(islice(stream, 10)) == squares(range(10))
    stream.close()
    assert next(items) <= 10 + 2 * workers


def test_a_stream_is_shared_out_unless_there_is_one_worker_or_item(monkeypatch):
    monkeypatch.setenv(parallel.VARIABLE, "2")
    assert os.getpid() not in set(parallel.parallel_stream(place, range(9)))
    assert list(parallel.parallel_stream(place, [1])) == [os.getpid()]
    monkeypatch.setenv(parallel.VARIABLE, "1")
    assert set(parallel.parallel_stream(place, range(9))) == {os.getpid()}


@pytest.mark.parametrize("workers", ["1", "2"])
def test_a_stream_ends_at_the_first_error_of_a_worker_and_keeps_what_came_before(
    monkeypatch, workers
):
    monkeypatch.setenv(parallel.VARIABLE, workers)
    stream = parallel.parallel_stream(inverse, [1, 2, 0, 4, 5])
    assert list(islice(stream, 2)) == [1, 0.5]
    with pytest.raises(ZeroDivisionError):
        next(stream)


@pytest.mark.parametrize("workers", ["1", "2"])
def test_an_error_of_the_items_reaches_who_reads_the_stream(monkeypatch, workers):
    def items():
        yield from range(8)
        raise ValueError("line 9 has 3 cells")

    monkeypatch.setenv(parallel.VARIABLE, workers)
    with pytest.raises(ValueError, match="line 9 has 3 cells"):
        list(parallel.parallel_stream(square, items()))


def test_a_stream_refuses_a_number_of_workers_that_cannot_be_meant(monkeypatch):
    monkeypatch.setenv(parallel.VARIABLE, "none")
    with pytest.raises(ValueError, match="MOLHPFT_WORKERS should be a number"):
        list(parallel.parallel_stream(square, [1]))
