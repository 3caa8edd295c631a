"""What the terminal shows of a sweep: counts that add up, a pace, a line a minute, means."""

from statistics import mean, stdev

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from molhpft.sweep import progress
from molhpft.sweep.progress import Board, Lines, displayed, seeds_table, sweep_reading, sweep_table


@pytest.fixture
def clock(monkeypatch):
    now = [0.0]
    monkeypatch.setattr(progress, "monotonic", lambda: now[0])
    return now


def printed(renderable, width=150):
    console = Console(width=width)
    with console.capture() as captured:
        console.print(renderable)
    return captured.get()


@given(st.permutations("aabbcc"), st.lists(st.booleans(), min_size=3, max_size=3))
def test_counts_always_add_up(events, done):
    board = Board(done=2, failed=1, left=6)
    results = dict(zip("abc", done, strict=True))
    for name in events:
        if name in board.running:
            board.end(name, done=results[name])
        else:
            board.start(name, "x")
        assert board.done + board.failed + board.left + len(board.running) == 9
    assert (board.done, board.ended) == (2 + sum(done), 3)


def test_time_left_goes_by_the_pace_of_this_call(clock):
    board = Board(done=50, failed=0, left=5)
    board.start("a", "seed=0")
    assert board.line == "sweep: 50 done, 1 running, 0 failed, 4 left"
    clock[0] = 60.0
    board.end("a", done=True)
    board.start("b", "seed=1")
    assert board.line == "sweep: 51 done, 1 running, 0 failed, 3 left, 0:04:00 to go"


def test_the_board_names_running_trials_and_counts_those_it_has_no_room_for(clock):
    board = Board(done=0, failed=0, left=30)
    for number in range(25):
        board.start(str(number), f"[seed]={number}")
    clock[0] = 90.0
    text = printed(board.table(), width=80)
    for words in ("[seed]=19", "and 5 more", "0:01:30"):
        assert words in text
    assert "[seed]=20" not in text


def test_a_log_gets_a_line_a_minute_and_no_table(clock, capsys):
    board = Board(done=1, failed=1, left=2)
    with displayed(board):
        report = Lines(board)
        for second in range(121):
            clock[0] = float(second)
            report()
            if second == 59:
                assert capsys.readouterr().err == ""  # a short sweep leaves no line
    assert capsys.readouterr().err == "sweep: 1 done, 0 running, 1 failed, 2 left\n" * 2


def row(seed=0, *, lr=0.001, test=0.75, tau=0, seconds=10.0, **others):
    return {
        "status": "done",
        "settings": {"finetune.lr": lr, "seed": seed},
        "task": "rings",
        "metric": "rocauc",
        "parameters": 527701,
        "valid": 0.8,
        "test": test,
        "tau": tau,
        "seconds": seconds,
        "hardware": "a processor, 1 thread",
        **others,
    }


def failed(**settings):
    settings = settings or {"finetune.lr": 0.001, "seed": 1}
    return {"status": "failed", "settings": settings, "error": "no such column", "seconds": 3.0}


def cells(table):
    columns = [list(column.cells) for column in table.columns]
    names = [str(column.header) for column in table.columns]
    return [dict(zip(names, map(str, line), strict=True)) for line in zip(*columns, strict=True)]


def test_the_table_has_a_line_a_trial_and_the_reading_every_error():
    rows = [row(), failed(**{"task.target_columns": "[nothing]"}), row(1, test=None)]
    lines = cells(sweep_table(rows))
    assert [line["tau"] for line in lines] == ["0", "failed", "0"]
    assert [line["test"] for line in lines] == ["75.00", "", "-"]
    assert lines[1]["task.target_columns"] == "[nothing]"
    assert "rings, ROC-AUC (%)" in printed(sweep_table(rows))
    assert sweep_reading(rows) == (
        "2 of 3 trials done; failed (--retry runs them again):\n"
        "  task.target_columns=[nothing]: no such column"
    )
    assert sweep_reading(rows[:1]) == "1 of 1 trials done."


@given(st.lists(st.floats(0, 1), min_size=2, max_size=6))
def test_a_setting_has_mean_and_unbiased_deviation_over_seeds(scores):
    (line,) = cells(seeds_table([row(seed, test=score) for seed, score in enumerate(scores)]))
    shown = [float(part) for part in line["test"].split(" ± ")]
    assert shown == pytest.approx([100 * mean(scores), 100 * stdev(scores)], abs=0.0051)
    assert line["seeds"] == str(len(scores))


def test_one_seed_has_no_deviation_and_failed_trials_are_in_no_mean():
    (line,) = cells(seeds_table([row(test=0.5), failed()]))
    assert (line["test"], line["seeds"]) == ("50.00", "1")


def test_a_mean_over_fewer_seeds_than_were_run_says_of_how_many():
    (line,) = cells(seeds_table([row(0, test=0.5), row(1, test=0.7), row(2, test=None)]))
    assert (line["test"], line["valid"]) == ("60.00 ± 14.14 (2 of 3)", "80.00 ± 0.00")
    (line,) = cells(seeds_table([row(0, test=None), row(1, test=None)]))
    assert line["test"] == "-"


def test_settings_have_a_line_each_whatever_the_order_of_their_trials():
    rows = [row(seed, lr=lr) for seed in range(3) for lr in (0.1, 0.01)]
    lines = [(line["finetune.lr"], line["seeds"]) for line in cells(seeds_table(rows))]
    assert lines == [("0.1", "3"), ("0.01", "3")]


def test_a_line_has_every_tau_and_hardware_and_the_mean_time():
    settings = {"method": {"name": "hp_ft", "tau": [4, 16]}}
    rows = [
        row(settings={**settings, "seed": 0}, seconds=10),
        row(settings={**settings, "seed": 1}, tau=4, seconds=30, hardware="a GPU"),
    ]
    (line,) = cells(seeds_table(rows))
    assert (line["tau"], line["seconds"]) == ("0, 4", "20")
    assert line["hardware"] == "a processor, 1 thread, a GPU"
    assert line["method"] == "hp_ft tau=[4, 16]"


def test_a_soup_has_a_dash_for_its_tau():
    rows = [row(tau=None)]
    assert [line["tau"] for table in (sweep_table, seeds_table) for line in cells(table(rows))] == [
        "-",
        "-",
    ]
