"""How finetunings of folds are handed to processes, and that it makes no difference to networks."""

import json
from dataclasses import replace

import pytest
import torch

from molhpft.config.schema import Choice
from molhpft.core.determinism import one_thread
from molhpft.core.objectives import Multilabel
from molhpft.estimator.model import NetworkSpec
from molhpft.estimator.networks import finetuned
from molhpft.estimator.settings import model_config
from molhpft.estimator.validation import draw_folds, fold_tasks
from molhpft.run.side_by_side import HERE, Processes
from molhpft.run.timetable import timetable
from tests.estimator.builders import BRIEF, SMILES, ring_task
from tests.kills import killed_at_save
from tests.runs import files_of

FINETUNE = {"epochs": 4, "lr": 0.01, "batch_size": 16, "keep": "last"}


def config_of(tau=2, **finetune):
    return model_config(
        encoder=BRIEF["encoder"],
        tau=tau,
        head="linear",
        more={
            "finetune": {**FINETUNE, **finetune},
            "probe": {"lr": 0.01, **({"epochs": 5} if tau == "auto" else {})},
            "device": "cpu",
        },
    )


def whole(folds):
    return [(k, None) for k in range(folds)]


def networks_of(config, out, processes, *, folds=3):
    """Weights of the networks of folds, and the files of their runs."""
    task = replace(ring_task(), splits={"train": torch.arange(len(SMILES))})
    parts = fold_tasks(task, draw_folds(task, "random", count=folds, seed=0))
    spec = NetworkSpec(
        config.encoder, config.head, None, config.standardise, ("ring",), Multilabel()
    )
    made, folders = finetuned(config, parts, spec, out, processes)
    weights = [network.state_dict() for of_tau in made for network in of_tau.networks]
    return weights, [files_of(folder) for folder in folders]


def assert_same(found, expected):
    torch.testing.assert_close(found[0], expected[0], rtol=0, atol=0)
    assert found[1] == expected[1]


@pytest.fixture(params=[False, True], ids=["in order", "turned"])
def handed_out(request, monkeypatch):
    """Jobs that were to finetune: run, and the epoch that it pauses after; all are done here.

    Once in order and once with the last job first, as a slow process may have it.
    """
    jobs_seen = []

    def results(self, jobs, what):
        if what != "finetuning":
            return (job() for job in jobs)
        jobs_seen.extend((job.args[0].seed, job.keywords["until"]) for job in jobs)
        order = [*range(len(jobs))][:: -1 if request.param else 1]
        done = {k: jobs[k]() for k in order}
        return (done[k] for k in range(len(jobs)))

    monkeypatch.setattr(Processes, "results", results)
    return jobs_seen


def test_folds_are_handed_out_in_pieces_and_are_the_same_networks(tmp_path, handed_out):
    config = config_of()
    with one_thread():
        expected = networks_of(config, tmp_path / "whole", HERE, folds=5)
        assert handed_out == whole(5)
        handed_out.clear()
        found = networks_of(config, tmp_path / "pieces", Processes(2), folds=5)
    assert handed_out == [
        (0, None),
        (2, 2),
        (3, None),
        (1, None),
        (4, None),
        (2, None),
    ]
    assert_same(found, expected)
    names = [{path.name for path in (tmp_path / out).iterdir()} for out in ("whole", "pieces")]
    assert names[0] == names[1]


def test_epochs_that_chose_tau_are_not_handed_out_again(tmp_path, handed_out):
    config = config_of("auto", epochs=6)
    with one_thread():
        expected = networks_of(config, tmp_path / "whole", HERE)
        handed_out.clear()
        found = networks_of(config, tmp_path / "pieces", Processes(2))
    assert_same(found, expected)
    (file,) = (tmp_path / "pieces").glob("*/choice.json")
    choice = json.loads(file.read_text())
    chosen = [row for row in choice["scores"] if row["tau"] == choice["chosen"]["tau"]]
    behind = chosen[-1]["epochs"]
    assert 0 < behind < 6
    dealt = timetable([range(behind, 6), range(6), range(6)], processes=2)
    assert [(number, until or 6) for number, until in handed_out] == [
        (piece.run, piece.epochs.stop) for piece in dealt
    ]


@pytest.mark.parametrize(
    "config",
    [
        config_of(patience=3),
        config_of((0, 2)),
        replace(config_of(), method=Choice("lp", {})),
    ],
    ids=["patience", "two taus", "no finetuning"],
)
def test_runs_stay_whole_where_they_are_not_one_finetuning_of_known_length(
    tmp_path, handed_out, config
):
    with one_thread():
        networks_of(config, tmp_path, Processes(2))
    assert handed_out == whole(3)


@pytest.mark.parametrize("saves", [1, 5, 8, 10])
def test_interrupted_pieces_are_gone_on_with(tmp_path, handed_out, saves):
    config = config_of()
    with one_thread():
        expected = networks_of(config, tmp_path / "whole", HERE)
        with killed_at_save(saves):
            networks_of(config, tmp_path / "killed", Processes(2))
        found = networks_of(config, tmp_path / "killed", Processes(2))
    assert_same(found, expected)
    names = [{path.name for path in (tmp_path / out).iterdir()} for out in ("whole", "killed")]
    assert names[0] == names[1]


@pytest.mark.slow
def test_folds_side_by_side_in_pieces_are_the_same_networks(tmp_path):
    config = config_of("auto", epochs=6)
    with one_thread():
        expected = networks_of(config, tmp_path / "whole", HERE)
    assert_same(networks_of(config, tmp_path / "pieces", Processes(2)), expected)
