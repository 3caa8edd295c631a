"""The line of a leaderboard: the trials of a setting over their seeds."""

from statistics import mean, stdev

import pytest
from hypothesis import given
from hypothesis import strategies as st

from molhpft.sweep.progress import seeds_table


def trial(seed=0, *, lr=0.001, test=0.75, tau=0, seconds=10.0, **others):
    return {
        "status": "done",
        "settings": {"finetune.lr": lr, "seed": seed},
        "metric": "rocauc",
        "parameters": 527701,
        "valid": 0.8,
        "test": test,
        "tau": tau,
        "seconds": seconds,
        "hardware": "a processor, 1 thread",
        **others,
    }


def cells(rows):
    table = seeds_table(rows)
    columns = [list(column.cells) for column in table.columns]
    names = [str(column.header) for column in table.columns]
    return [dict(zip(names, map(str, line), strict=True)) for line in zip(*columns, strict=True)]


@given(st.lists(st.floats(0, 1), min_size=2, max_size=6))
def test_a_line_has_mean_and_unbiased_deviation_over_seeds(scores):
    (line,) = cells([trial(seed, test=score) for seed, score in enumerate(scores)])
    shown = [float(part) for part in line["test"].split(" ± ")]
    assert shown == pytest.approx([100 * mean(scores), 100 * stdev(scores)], abs=0.0051)
    assert line["seeds"] == str(len(scores))


def test_one_seed_has_no_deviation():
    (line,) = cells([trial(test=0.5)])
    assert line["test"] == "50.00"


def test_settings_have_a_line_each_whatever_the_order_of_their_trials():
    rows = [trial(seed, lr=lr) for seed in range(3) for lr in (0.1, 0.01)]
    assert [(line["finetune.lr"], line["seeds"]) for line in cells(rows)] == [
        ("0.1", "3"),
        ("0.01", "3"),
    ]


def test_a_line_tells_every_tau_and_machine_and_the_mean_time():
    (line,) = cells([trial(0, seconds=10), trial(1, tau=4, seconds=30, hardware="a GPU")])
    assert (line["tau"], line["seconds"]) == ("0, 4", "20")
    assert line["hardware"] == "a processor, 1 thread, a GPU"


def test_failed_trials_are_no_part_of_a_mean():
    failed = {"status": "failed", "settings": {"finetune.lr": 0.001, "seed": 1}}
    (line,) = cells([trial(), failed])
    assert line["seeds"] == "1"


def test_options_of_a_method_are_told_in_words():
    settings = {"method": {"name": "hp_ft", "tau": [4, 16]}, "seed": 0}
    (line,) = cells([trial(settings=settings)])
    assert line["method"] == "hp_ft tau=[4, 16]"
