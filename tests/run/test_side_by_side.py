"""Jobs in processes of their own are those of this process, and what they say is heard."""

import logging
import os
import sys
import time
import warnings
from dataclasses import replace
from functools import partial

import pytest

from molhpft.core.determinism import one_thread, threads
from molhpft.domains.parallel import VARIABLE
from molhpft.estimator.settings import model_config
from molhpft.estimator.validation import draw_folds, fold_tasks
from molhpft.run import side_by_side
from molhpft.run.auto_tau import choice_of
from molhpft.run.run import run
from molhpft.run.side_by_side import HERE, Processes, processes_for
from tests.estimator.builders import BRIEF, unvalidated_size_task


def parts_of(tau=2, epochs=None):
    """A config, and parts of a task for runs of it."""
    task = unvalidated_size_task()
    more = BRIEF["config"]
    if epochs:
        more = {**more, "finetune": {**more["finetune"], "epochs": epochs}}
    config = model_config(encoder=BRIEF["encoder"], tau=tau, head="linear", more=more)
    return config, fold_tasks(task, draw_folds(task, "random", count=3, seed=0))


def jobs_of(out, config, parts):
    configs = [replace(config, seed=seed) for seed in range(len(parts))]
    return [partial(run, c, out, task=part) for c, part in zip(configs, parts, strict=True)]


def files_of(folder):
    return {
        path.relative_to(folder.path).as_posix(): path.read_bytes()
        for path in sorted(folder.path.rglob("*"))
        if path.is_file()
    }


@pytest.mark.slow
def test_runs_side_by_side_are_those_one_after_another(tmp_path):
    config, parts = parts_of()
    found = list(Processes(2).results(jobs_of(tmp_path / "two", config, parts), "finetuning"))
    with one_thread():
        expected = list(HERE.results(jobs_of(tmp_path / "one", config, parts), "finetuning"))
    assert [one.path.name for one in found] == [one.path.name for one in expected]
    for one, other in zip(found, expected, strict=True):
        assert one.is_complete
        file = "model.safetensors"
        assert (one.path / file).read_bytes() == (other.path / file).read_bytes()


@pytest.mark.slow
def test_a_choice_side_by_side_is_that_of_one_candidate_after_another(tmp_path):
    config, (part, *_) = parts_of("auto", epochs=6)
    chosen = []
    with one_thread():
        for place, processes in (("two", Processes(2)), ("one", HERE)):
            folder = run(config, tmp_path / place, task=part, choosing=processes)
            assert not folder.is_complete
            assert len(choice_of(folder)["candidates"]) > 2
            chosen.append(choice_of(folder))
            run(config, tmp_path / place, task=part)
            assert choice_of(folder) == chosen[-1]
        alone = run(config, tmp_path / "alone", task=part)
    assert chosen[0] == chosen[1] == choice_of(alone)
    for place in ("one", "two"):
        assert files_of(replace(alone, path=tmp_path / place / alone.path.name)) == files_of(alone)


@pytest.mark.slow
def test_what_is_wrong_with_a_run_is_raised_here(tmp_path):
    config, parts = parts_of()
    hopeless = replace(config, finetune=replace(config.finetune, lr=1e30))
    with pytest.raises(ValueError, match="diverged"):
        list(Processes(2).results(jobs_of(tmp_path, hopeless, parts[:2]), "finetuning"))


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
def test_something_is_computed_in_another_process_while_runs_go_on(tmp_path):
    config, parts = parts_of()
    processes = Processes(2)
    with processes.meanwhile(os.getpid) as process:
        folders = list(processes.results(jobs_of(tmp_path, config, parts[1:]), "finetuning"))
        assert process() != os.getpid()
    assert all(folder.is_complete for folder in folders)


def test_where_there_is_one_process_it_is_computed_here_when_it_is_asked_for():
    with HERE.meanwhile(os.getpid) as process:
        assert process() == os.getpid()


def test_processes_are_as_many_as_threads_and_tasks_and_one_for_what_is_short(monkeypatch):
    monkeypatch.setenv(VARIABLE, "8")
    config, parts = parts_of()
    seen = min(len(part.rows("train")) for part in parts) * config.finetune.epochs
    with threads(8):
        assert processes_for(config, parts) == HERE
        monkeypatch.setattr(side_by_side, "_WORTH_A_PROCESS", seen)
        assert processes_for(config, parts) == Processes(3)
        assert processes_for(config, parts[:1]) == Processes(2)
        monkeypatch.setenv(VARIABLE, "2")
        assert processes_for(config, parts) == Processes(2)
    with one_thread():
        assert processes_for(config, parts) == HERE


@pytest.mark.slow
def test_who_fails_meanwhile_leaves_no_process_behind(tmp_path):
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

    with pytest.raises(ZeroDivisionError), Processes(2).meanwhile(endless):
        fail_once_it_is_there()
    with pytest.raises(ProcessLookupError):
        os.kill(int(place.read_text()), 0)


@pytest.mark.slow
def test_who_stops_reading_results_leaves_no_process_behind(tmp_path):
    def place(number):
        return tmp_path / f"process{number}"

    def noting(number):
        place(number).with_suffix(".new").write_text(str(os.getpid()))
        place(number).with_suffix(".new").rename(place(number))
        while number:
            time.sleep(1)

    results = Processes(2).results([partial(noting, number) for number in (0, 1)], "noting")
    next(results)
    while not place(1).exists():
        time.sleep(0.1)
    results.close()
    with pytest.raises(ProcessLookupError):
        os.kill(int(place(1).read_text()), 0)
