"""The board: counts add up, time left goes by the pace, logs get a line a minute."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from molhpft.sweep import progress as boards
from molhpft.sweep.progress import Board, Lines, shown


@pytest.fixture
def clock(monkeypatch):
    now = [0.0]
    monkeypatch.setattr(boards, "monotonic", lambda: now[0])
    return now


@given(st.lists(st.tuples(st.integers(0, 5), st.sampled_from(["start", "well", "badly"]))))
def test_counts_always_add_up(events):
    board, ended = Board(done=2, failed=1, left=6), set()
    for number, event in events:
        name = str(number)
        if name in ended:
            continue
        if event == "start":
            board.start(name, "x")  # a second time where its process was lost
        elif name in board.running:
            board.end(name, well=event == "well")
            ended.add(name)
        assert board.done + board.failed + board.left + len(board.running) == 9
        assert board.ended == len(ended)


def test_time_left_goes_by_the_pace_of_this_call(clock):
    board = Board(done=50, failed=0, left=5)
    board.start("a", "seed=0")
    assert board.line == "sweep: 50 done, 1 running, 0 failed, 4 left"
    clock[0] = 60.0
    board.end("a", well=True)
    board.start("b", "seed=1")
    assert board.line == "sweep: 51 done, 1 running, 0 failed, 3 left, 0:04:00 to go"


def test_the_table_names_those_under_way(clock):
    board = Board(done=0, failed=0, left=30)
    for number in range(25):
        board.start(str(number), f"[seed]={number}")
    clock[0] = 90.0
    console = Console(width=80)
    with console.capture() as captured:
        console.print(board.table())
    text = captured.get()
    assert "[seed]=19" in text
    assert "[seed]=20" not in text
    assert "and 5 more" in text
    assert "0:01:30" in text


def test_a_log_gets_a_line_a_minute_and_no_table(clock, capsys):
    board = Board(done=1, failed=1, left=2)
    with shown(board):
        tick = Lines(board)
        for second in range(121):
            clock[0] = float(second)
            tick()
    assert (
        capsys.readouterr().err.splitlines() == ["sweep: 1 done, 0 running, 1 failed, 2 left"] * 2
    )


def test_short_sweeps_leave_no_line(clock, capsys):
    tick = Lines(Board(done=0, failed=0, left=1))
    tick()
    assert capsys.readouterr().err == ""
