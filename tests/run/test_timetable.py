"""Timetables of runs in pieces: all is trained once and in order, and nothing could end earlier."""

from heapq import heapreplace
from itertools import pairwise
from math import ceil

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from molhpft.run.timetable import Piece, timetable

SPANS = st.lists(
    st.builds(
        lambda begin, count: range(begin, begin + count), st.integers(0, 9), st.integers(0, 20)
    ),
    max_size=8,
)
PROCESSES = st.integers(1, 6)
FOLDS = [range(8, 15), *[range(15)] * 4]


def end_of(pieces):
    return max((piece.start + len(piece.epochs) for piece in pieces), default=0)


def earliest_end(runs, processes):
    lengths = [len(epochs) for epochs in runs]
    return max([*lengths, ceil(sum(lengths) / processes)], default=0)


@given(SPANS, PROCESSES)
def test_every_epoch_of_each_run_is_dealt_once_and_in_order(runs, processes):
    pieces = timetable(runs, processes=processes)
    for number, epochs in enumerate(runs):
        own = [piece.epochs for piece in pieces if piece.run == number]
        assert [epoch for some in own for epoch in some] == [*epochs]
        assert own[-1].stop == epochs.stop
        assert all(own) or own == [epochs]


@given(SPANS, PROCESSES)
def test_no_run_is_in_two_places_at_once(runs, processes):
    pieces = timetable(runs, processes=processes)
    for number in range(len(runs)):
        own = [piece for piece in pieces if piece.run == number]
        for piece, later in pairwise(own):
            assert piece.start + len(piece.epochs) <= later.start


@given(SPANS, PROCESSES)
def test_no_more_runs_go_on_at_once_than_there_are_processes(runs, processes):
    pieces = timetable(runs, processes=processes)
    for time in range(end_of(pieces)):
        going_on = [p for p in pieces if p.start <= time < p.start + len(p.epochs)]
        assert len(going_on) <= processes


@given(SPANS, PROCESSES)
@example(FOLDS, 2)
def test_all_is_done_as_early_as_can_be(runs, processes):
    pieces = timetable(runs, processes=processes)
    assert end_of(pieces) == earliest_end(runs, processes)


@given(SPANS, PROCESSES)
@example(FOLDS, 4)
def test_handed_out_in_order_to_who_is_free_pieces_end_no_later(runs, processes):
    """A piece that comes before the earlier one of its run has ended waits for that."""
    free, ended = [0] * processes, dict.fromkeys(range(len(runs)), 0)
    for piece in timetable(runs, processes=processes):
        ended[piece.run] = max(free[0], ended[piece.run]) + len(piece.epochs)
        heapreplace(free, ended[piece.run])
    assert max(free) <= earliest_end(runs, processes)


@given(SPANS, PROCESSES)
def test_pieces_are_ordered_by_their_start(runs, processes):
    starts = [piece.start for piece in timetable(runs, processes=processes)]
    assert starts == sorted(starts)


def test_five_folds_on_two_processes_are_one_run_in_two_pieces_and_four_whole_ones():
    assert timetable(FOLDS, processes=2) == [
        Piece(0, range(8, 15), 0),
        Piece(2, range(3), 0),
        Piece(3, range(15), 3),
        Piece(1, range(15), 7),
        Piece(4, range(15), 18),
        Piece(2, range(3, 15), 22),
    ]


@pytest.mark.parametrize(
    ("runs", "processes"),
    [
        (FOLDS, 1),
        (FOLDS, 5),
        ([range(4), range(10), range(10)], 3),
        ([range(7), range(15), range(15), range(8)], 2),
    ],
)
def test_runs_that_end_as_early_whole_stay_whole(runs, processes):
    pieces = timetable(runs, processes=processes)
    assert [(piece.run, piece.epochs) for piece in pieces] == [*enumerate(runs)]
