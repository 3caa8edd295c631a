"""The table of pretraining configs: what it is compared with, and what it does about failures."""

import json
import os
from pathlib import Path

import numpy as np
import pytest

from molhpft.domains.shipped import DEFAULT_ENCODER


@pytest.fixture
def ablation():
    import ablation

    return ablation


@pytest.fixture
def sets(ablation):
    def one(name, group, classes):
        return ablation.DevelopmentSet(name, group, (), np.zeros((0, 1)), classes, ())

    return [
        one("a", "MoleculeACE", False),
        one("bace", "OGB", True),
        one("caco2", "ADMET", False),
        one("ames", "ADMET", True),
    ]


def _row(ablation, scores, **of_run):
    run = {"folder": Path(), "parameters": 1000, "rate": 500.0, "loss": 0.5, **of_run}
    return ablation.Row("any", ablation.Pretrained(**run), np.array(scores))


def test_a_row_is_relative_to_the_base(ablation, sets):
    base = _row(ablation, [0.8, 70.0, 0.4, 80.0])
    row = _row(ablation, [0.6, 72.0, 0.2, 90.0], parameters=2000, rate=400.0)
    assert ablation.cells(row, base, sets) == [
        "2,000 (+100.0%)",
        "400 (-20.0%)",
        "0.5000 (+0.0%)",
        "0.6000 (-25.0%)",
        "72.00 (+2.00)",
        "0.5000",
    ]
    assert ablation.cells(base, base, sets)[-3:] == ["0.8000", "70.00", "1.0000"]


def test_a_run_is_as_fast_as_its_epochs_between_its_files(ablation, tmp_path):
    files = {"config.yaml": 1000, "history.jsonl": 1050, "summary.json": 1400}
    epochs = [{"phase": "probe", "loss": 9}] + [{"phase": "finetune", "loss": k} for k in (3, 2)]
    texts = {
        "config.yaml": "",
        "history.jsonl": "\n".join(map(json.dumps, epochs)) + "\n",
        "summary.json": json.dumps({"sizes": {"train": 300}, "epoch_size": 100, "parameters": 7}),
    }
    for name, time in files.items():
        (tmp_path / name).write_text(texts[name])
        os.utime(tmp_path / name, (time, time))
    run = ablation.finished_run(tmp_path)
    assert (run.rate, run.loss, run.parameters) == (pytest.approx(4.0), 2, 7)


def test_an_old_run_on_shares_that_does_not_say_its_epochs_has_no_rate(ablation, tmp_path):
    (tmp_path / "config.yaml").write_text("task: {share: [0.5]}")
    (tmp_path / "history.jsonl").write_text(json.dumps({"phase": "finetune", "loss": 1}))
    (tmp_path / "summary.json").write_text(json.dumps({"sizes": {"train": 300}}))
    with pytest.raises(ValueError, match="should say its epoch_size"):
        ablation.finished_run(tmp_path)


def test_the_shipped_changes_are_changes(ablation):
    from molhpft.config.changes import parse_changes

    entries = ablation.read_changes(ablation.CHANGES)
    assert next(iter(entries.values())) == []
    assert all(map(parse_changes, list(entries.values())[1:]))


@pytest.mark.parametrize("text", ["- a\n- b", "base: encoder.width=3", "base: [1]", ""])
def test_a_file_of_something_else_is_refused(ablation, tmp_path, text):
    path = tmp_path / "changes.yaml"
    path.write_text(text)
    with pytest.raises(ValueError, match="should hold names"):
        ablation.read_changes(path)


@pytest.fixture
def pretend(ablation, monkeypatch, sets):
    """Runs that end at once, or fail where a change says so, and encoders of fixed scores."""

    def pretrained(config, changes, out):
        if "fail=1" in changes:
            raise RuntimeError("no such key")
        return ablation.Pretrained(Path(), 1, 1.0, 1.0)

    judged = ablation.judged_encoder(DEFAULT_ENCODER)
    monkeypatch.setattr(ablation, "pretrained", pretrained)
    monkeypatch.setattr(ablation, "judged_encoder", lambda given: judged)
    scores = np.array([[1.0, 50.0, 1.0, 50.0]])
    monkeypatch.setattr(ablation, "scored", lambda *given: (sets, [scores]))

    def ablate(entries):
        return ablation.ablate(Path("c.yaml"), entries, out=Path(), sets=sets, store=None)

    return ablate


def test_an_entry_that_fails_does_not_keep_others_from_their_rows(pretend, capsys):
    failures = pretend({"base": [], "broken": ["fail=1"], "last": ["a=1"]})
    assert failures == ["broken has failed: no such key"]
    assert [row.split(" | ")[0] for row in capsys.readouterr().out.splitlines()[2:]] == [
        "| base",
        "| last",
    ]


def test_nothing_is_compared_with_a_base_that_has_failed(pretend):
    with pytest.raises(RuntimeError, match="no such key"):
        pretend({"base": ["fail=1"], "other": []})
