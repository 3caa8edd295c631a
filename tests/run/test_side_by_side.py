"""Jobs in processes of their own are those of this process, and what they say is heard."""

import logging
import os
import subprocess
import sys
import time
import warnings
from contextlib import closing
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
from joblib.externals.loky import get_reusable_executor

from molhpft.core.determinism import one_thread, threads
from molhpft.domains.parallel import VARIABLE
from molhpft.estimator.settings import model_config
from molhpft.estimator.validation import draw_folds, fold_tasks
from molhpft.run import auto_tau, side_by_side
from molhpft.run.folder import RunFolder
from molhpft.run.run import choose, run
from molhpft.run.side_by_side import HERE, Processes, processes_for
from tests.estimator.builders import BRIEF, unvalidated_size_task
from tests.runs import files_of

ROOT = Path(__file__).parents[2]


def parts_of(tau=2, epochs=None):
    """A config, and parts of a task for runs of it."""
    task = unvalidated_size_task()
    more = BRIEF["config"]
    if epochs:
        more = {**more, "finetune": {**more["finetune"], "epochs": epochs}}
    more = {**more, "device": "cpu"}
    config = model_config(encoder=BRIEF["encoder"], tau=tau, head="linear", more=more)
    return config, fold_tasks(task, draw_folds(task, "random", count=3, seed=0))


def jobs_of(out, config, parts):
    configs = [replace(config, seed=seed) for seed in range(len(parts))]
    return [partial(run, c, out, task=part) for c, part in zip(configs, parts, strict=True)]


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
@pytest.mark.parametrize("turned", [False, True], ids=["in order", "the last piece first"])
def test_pieces_of_a_run_in_two_processes_are_the_whole_run(tmp_path, turned):
    """Whichever comes first: the other one waits for it."""
    config, (part, *_) = parts_of(epochs=4)
    out = tmp_path / "pieces"
    pieces = [partial(run, config, out, task=part, until=2), partial(run, config, out, task=part)]
    one, other = Processes(2).results(pieces[::-1] if turned else pieces, "finetuning")
    with one_thread():
        whole = run(config, tmp_path / "whole", task=part)
    assert one == other
    assert files_of(one) == files_of(whole)
    assert [path.name for path in out.iterdir()] == [whole.path.name]


@pytest.mark.slow
def test_a_choice_side_by_side_is_that_of_one_candidate_after_another(tmp_path):
    config, (part, *_) = parts_of("auto", epochs=6)
    chosen, found = [], []
    with one_thread():
        for place, processes in (("two", Processes(2)), ("one", HERE)):
            chosen.append(choose(config, tmp_path / place, task=part, processes=processes))
            assert len(chosen[-1]["candidates"]) > 2
            folders = [path for path in (tmp_path / place).iterdir() if path.is_dir()]
            assert [path.suffix for path in folders] == [".partial"]
            ended = run(config, tmp_path / place, task=part)
            assert choose(config, tmp_path / place, task=part, processes=processes) == chosen[-1]
            found.append(files_of(ended))
        alone = run(config, tmp_path / "alone", task=part)
    assert chosen[0] == chosen[1] == alone.read_json("choice.json")
    assert found == [files_of(alone)] * 2


@pytest.mark.slow
def test_what_is_wrong_with_a_run_is_raised_here(tmp_path):
    config, parts = parts_of()
    hopeless = replace(config, finetune=replace(config.finetune, lr=1e30))
    with pytest.raises(ValueError, match="diverged"):
        list(Processes(2).results(jobs_of(tmp_path, hopeless, parts[:2]), "finetuning"))


def talkative():
    logging.getLogger("molhpft.tuning").warning("after epoch %d", 3)
    warnings.warn("few molecules", UserWarning, stacklevel=1)
    print("50%", file=sys.stderr)
    return os.getpid()


@pytest.mark.slow
def test_what_is_logged_and_warned_of_in_another_process_is_said_here(caplog, capfd):
    get_reusable_executor().shutdown()  # whose processes do not write where capfd reads
    with pytest.warns(UserWarning, match="few molecules") as warned:
        (process,) = Processes(2).results([talkative], "talking")
    assert process != os.getpid()
    assert [str(one.message) for one in warned] == ["few molecules"]
    (record,) = caplog.records
    assert (record.name, record.levelname) == ("molhpft.tuning", "WARNING")
    assert record.getMessage() == "after epoch 3"
    assert not capfd.readouterr().err


@pytest.mark.slow
def test_something_is_computed_in_another_process_while_runs_go_on(tmp_path):
    config, parts = parts_of()
    processes = Processes(2)
    with processes.meanwhile(os.getpid) as process:
        folders = list(processes.results(jobs_of(tmp_path, config, parts[1:]), "finetuning"))
        assert process() != os.getpid()
    assert all(folder.is_complete for folder in folders)


@pytest.mark.slow
def test_beside_a_single_run_one_other_process_computes_and_jobs_are_done_here():
    processes = Processes(1)
    with processes.meanwhile(os.getpid) as process:
        assert list(processes.results([os.getpid], "naming")) == [os.getpid()]
        assert process() != os.getpid()


def test_where_there_is_no_other_process_it_is_computed_here_when_it_is_asked_for():
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
        assert processes_for(config, parts[:1]) == Processes(1)
        monkeypatch.setenv(VARIABLE, "2")
        assert processes_for(config, parts) == Processes(2)
    with one_thread():
        assert processes_for(config, parts) == HERE


AS_GOOD_AS_ENDLESS = 150  # seconds, more than anything here waits for


def noting(place, *, endless=True):
    """A job that writes its process's number to a file, and may not end while a test goes on."""
    place.with_suffix(".new").write_text(str(os.getpid()))
    place.with_suffix(".new").rename(place)
    if endless:
        time.sleep(AS_GOOD_AS_ENDLESS)


def process_at(place):
    for _ in range(1200):
        if place.exists():
            return int(place.read_text())
        time.sleep(0.05)
    raise AssertionError(f"no process has written its number to {place} within a minute")


def assert_is_gone(process):
    with pytest.raises(ProcessLookupError):
        os.kill(process, 0)


@pytest.mark.slow
def test_who_fails_meanwhile_leaves_no_process_behind(tmp_path):
    place = tmp_path / "process"

    def fail():
        process_at(place)
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError), Processes(2).meanwhile(partial(noting, place)):
        fail()
    assert_is_gone(process_at(place))


@pytest.mark.slow
def test_who_stops_reading_results_leaves_no_process_behind(tmp_path):
    places = [tmp_path / "first", tmp_path / "second"]
    jobs = [partial(noting, places[0], endless=False), partial(noting, places[1])]
    with closing(Processes(2).results(jobs, "noting")) as results:
        next(results)
        process = process_at(places[1])
    assert_is_gone(process)


@pytest.mark.slow
def test_a_choice_that_fails_leaves_no_process_behind(tmp_path, monkeypatch):
    """As where the disk is full: no candidate is finetuned on in a folder that is not locked."""
    config, (part, *_) = parts_of("auto", epochs=6)
    place, write = tmp_path / "process", RunFolder.write_json

    def fail_on_scores(folder, name, content):
        if content["scores"]:
            process_at(place)
            raise OSError("disk full")
        write(folder, name, content)

    def finetune_endlessly(network, head, task, recipe, *others):
        if recipe.tau == 1:
            noting(place)
        if recipe.tau:
            time.sleep(AS_GOOD_AS_ENDLESS)
        return 1, 0.5

    monkeypatch.setattr(RunFolder, "write_json", fail_on_scores)
    monkeypatch.setattr(auto_tau, "_finetuned", finetune_endlessly)
    with one_thread(), pytest.raises(OSError, match="disk full") as kept:
        choose(config, tmp_path, task=part, processes=Processes(2))
    assert kept.value.__traceback__  # which holds on to all that the choice was made with
    assert_is_gone(process_at(place))


@pytest.mark.slow
def test_other_processes_end_with_one_that_is_killed(tmp_path):
    place = tmp_path / "process"
    script = f"""
from functools import partial
from pathlib import Path
from molhpft.run.side_by_side import Processes
from tests.run.test_side_by_side import noting
list(Processes(2).results([partial(noting, Path({str(place)!r}))], "noting"))
"""
    parent = subprocess.Popen([sys.executable, "-c", script], cwd=ROOT, start_new_session=True)
    try:
        process = process_at(place)
    finally:
        parent.kill()
        parent.wait()
    assert ends(process)


def ends(process):
    """Whether a process ends within a minute; one that nobody has waited for has, too."""
    stat = Path(f"/proc/{process}/stat")
    for _ in range(600):
        try:
            if stat.read_text().rpartition(")")[2].split()[0] == "Z":
                return True
        except (FileNotFoundError, ProcessLookupError):
            return True
        time.sleep(0.1)
    return False


KEPT = []


def grow():
    KEPT.append(bytearray(400_000_000))
    time.sleep(1.1)  # joblib looks once a second
    return os.getpid()


@pytest.mark.slow
def test_a_process_that_grows_is_kept(recwarn):
    pytest.importorskip("psutil")
    processes = Processes(2)
    names = set(processes.results([os.getpid] * 2, "naming"))
    grown = [*processes.results([grow] * 2, "growing"), *processes.results([grow] * 4, "growing")]
    assert len({*names, *grown}) <= 2
    assert not recwarn.list
