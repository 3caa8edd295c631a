"""Runs in processes of their own are those of this process, and what they say is heard."""

import logging
import os
import sys
import time
import warnings
from dataclasses import replace

import pytest

from molhpft.core.determinism import one_thread, threads
from molhpft.domains.parallel import VARIABLE
from molhpft.estimator.settings import model_config
from molhpft.estimator.validation import draw_folds, fold_tasks
from molhpft.run import side_by_side
from molhpft.run.run import run
from molhpft.run.side_by_side import meanwhile, run_side_by_side
from tests.estimator.builders import BRIEF, unvalidated_size_task


def runs_of_folds():
    task = unvalidated_size_task()
    config = model_config(encoder=BRIEF["encoder"], tau=2, head="linear", more=BRIEF["config"])
    parts = fold_tasks(task, draw_folds(task, "random", count=3, seed=0))
    return [(replace(config, seed=seed), part) for seed, part in enumerate(parts)]


@pytest.mark.slow
def test_runs_side_by_side_are_those_one_after_another(tmp_path, monkeypatch):
    monkeypatch.delenv(VARIABLE, raising=False)
    monkeypatch.setattr(side_by_side, "_WORTH_A_PROCESS", 1)
    runs = runs_of_folds()
    with threads(2):
        found = run_side_by_side(runs, tmp_path / "together")
    with one_thread():
        expected = [run(config, tmp_path / "alone", task=task) for config, task in runs]
    assert [one.path.name for one in found] == [one.path.name for one in expected]
    for one, other in zip(found, expected, strict=True):
        assert one.is_complete
        file = "model.safetensors"
        assert (one.path / file).read_bytes() == (other.path / file).read_bytes()


@pytest.mark.slow
def test_what_is_wrong_with_a_run_is_raised_here(tmp_path, monkeypatch):
    monkeypatch.delenv(VARIABLE, raising=False)
    monkeypatch.setattr(side_by_side, "_WORTH_A_PROCESS", 1)
    (config, task), *_ = runs_of_folds()
    hopeless = replace(config, finetune=replace(config.finetune, lr=1e30))
    with threads(2), pytest.raises(ValueError, match="diverged"):
        run_side_by_side([(hopeless, task)] * 2, tmp_path)


def test_what_is_logged_and_warned_of_in_another_process_is_said_here(caplog, capsys):
    def talkative():
        logging.getLogger("molhpft.tuning").warning("after epoch %d", 3)
        warnings.warn("few molecules", UserWarning, stacklevel=1)
        print("50%", file=sys.stderr)
        return 4

    finished = side_by_side._quietly(talkative)
    assert not capsys.readouterr().err
    caplog.clear()
    with pytest.warns(UserWarning, match="few molecules"):
        assert finished.heard() == 4
    (record,) = caplog.records
    assert (record.name, record.getMessage()) == ("molhpft.tuning", "after epoch 3")


@pytest.mark.slow
def test_something_is_computed_in_another_process_while_runs_go_on(tmp_path, monkeypatch):
    monkeypatch.delenv(VARIABLE, raising=False)
    monkeypatch.setattr(side_by_side, "_WORTH_A_PROCESS", 1)
    runs = runs_of_folds()
    with threads(2), meanwhile(os.getpid, runs[1:]) as process:
        folders = run_side_by_side(runs[1:], tmp_path)
        assert process() != os.getpid()
    assert all(folder.is_complete for folder in folders)


def test_where_there_is_one_thread_it_is_computed_here_when_it_is_asked_for():
    with one_thread(), meanwhile(os.getpid, runs_of_folds()) as process:
        assert process() == os.getpid()


@pytest.mark.slow
def test_who_fails_meanwhile_leaves_no_process_behind(tmp_path, monkeypatch):
    monkeypatch.delenv(VARIABLE, raising=False)
    monkeypatch.setattr(side_by_side, "_WORTH_A_PROCESS", 1)
    place = tmp_path / "process"

    def endless():
        place.with_suffix(".new").write_text(str(os.getpid()))
        place.with_suffix(".new").rename(place)
        while True:
            time.sleep(1)

    def fail_once_it_is_there():
        while not place.exists():
            time.sleep(0.1)
        raise ZeroDivisionError

    with threads(2), pytest.raises(ZeroDivisionError), meanwhile(endless, runs_of_folds()):
        fail_once_it_is_there()
    with pytest.raises(ProcessLookupError):
        os.kill(int(place.read_text()), 0)
