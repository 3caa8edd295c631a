"""Progress: items pass through unchanged, logs get a line a minute, helpers are silent."""

import pytest

from molhpft.domains import console


@pytest.fixture
def clock(monkeypatch):
    now = [0.0]
    monkeypatch.setattr(console, "monotonic", lambda: now[0])
    return now


def test_tracked_items_pass_through_in_order():
    assert list(console.track((str(n) for n in range(5)), "counting", total=5)) == list("01234")


def test_a_log_gets_a_line_a_minute_with_speed_and_time_left(clock, capsys):
    with console.pace("training", 1000) as tick:
        tick(0)
        for second in range(1, 121):
            clock[0] = second
            tick(second * 4)
    lines = capsys.readouterr().err.splitlines()
    assert lines == [
        "training: 24%, 4 examples/s, 3 min left",
        "training: 48%, 4 examples/s, 2 min left",
    ]


def test_steps_leave_a_line_a_minute_too(clock, capsys):
    def items():
        for second in (50, 100, 150, 200):
            clock[0] = second
            yield second

    assert list(console.track(items(), "packing", total=8)) == [50, 100, 150, 200]
    assert capsys.readouterr().err.splitlines() == [
        "packing: 25%, 5 min left",
        "packing: 50%, 3 min left",
    ]
    with console.bar("reading", total=2) as move:
        clock[0] = 300
        move(2)
    assert not capsys.readouterr().err  # what is done has no time left
    with console.bar("reading", total=None) as move:
        clock[0] = 400
        move(1)
    assert not capsys.readouterr().err


def test_a_resumed_training_counts_only_what_it_did_itself(clock, capsys):
    with console.pace("training", 1000) as tick:
        tick(600)
        clock[0] = 60
        tick(720)
    assert capsys.readouterr().err == "training: 72%, 2 examples/s, 2 min left\n"


def test_short_work_and_helpers_leave_no_line(clock, capsys):
    with console.pace("training", 10) as tick:
        tick(10)
    with console.pace("training", 10, shown=False) as tick:
        tick(0)
        clock[0] = 300
        tick(10)
    assert capsys.readouterr().err == ""
