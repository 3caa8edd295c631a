"""What is said about a table, counted by hand."""

from dataclasses import replace

import pytest
import torch

from molhpft.core.objectives import Multilabel
from molhpft.domains.molecules.examples import molecule_task
from molhpft.domains.molecules.pretraining_sources import molecules_trained_on
from molhpft.domains.shipped import DEFAULT_ENCODER
from molhpft.estimator import notes as notes_module
from molhpft.estimator.notes import notes_on, thin_split_notes
from molhpft.estimator.settings import model_config
from tests.advice.test_inventory import write_encoder
from tests.domains.molecules.test_checkpoints import pretrain_gnns_file
from tests.estimator.builders import SMILES, random_model, ring_task, size_task
from tests.toy import NAN, toy_task

CLEAN = ("CCO", "CCN", "c1ccccc1", "CC1CC1", "CCCCl", "CCCBr")


def task_of(smiles, labels=None, **splits):
    """A task that trains on all molecules that no split is given for."""
    given = {name: torch.tensor(rows) for name, rows in splits.items()}
    taken = {row for rows in splits.values() for row in rows}
    rows = [row for row in range(len(smiles)) if row not in taken]
    labels = labels or [k % 2 for k in range(len(smiles))]
    targets = torch.tensor(labels, dtype=torch.float32).reshape(len(smiles), -1)
    target_names = tuple(f"t{k}" for k in range(targets.shape[1]))
    parts = {"train": torch.tensor(rows), **given}
    return ring_task(smiles=smiles, targets=targets, target_names=target_names, splits=parts)


def config_of(encoder={"name": "gcn"}):  # noqa: B006 - read only
    return model_config(encoder=encoder, tau=1, head="linear", seed=0, more={})


def texts(config, task):
    return tuple(note.text for note in notes_on(config, task))


def notes(*args, **splits):
    return texts(config_of(), task_of(*args, **splits))


@pytest.fixture(autouse=True)
def few_molecules_are_enough(request, monkeypatch):
    if request.function is not test_scores_that_rest_on_a_molecule_or_two_are_said:
        monkeypatch.setattr(notes_module, "_SCARCE", 0)


def test_nothing_is_said_of_a_clean_table_and_random_weights():
    assert notes(CLEAN, valid=[2, 3], test=[4, 5]) == ()


def test_scores_that_rest_on_a_molecule_or_two_are_said():
    labels = [float(k in (0, 25)) for k in range(len(SMILES))]
    end = "molecules of one class in {}, and say little: t0."
    said = notes(SMILES, labels, valid=list(range(20, 30)))
    assert said == (f"Scores rest on fewer than 5 {end.format('the valid split')}",)
    assert notes(SMILES, labels) == (f"Scores rest on fewer than 5 {end.format('the folds')}",)


def test_splits_of_one_class_are_said_and_warned_of():
    found = notes_on(config_of(), task_of(CLEAN, valid=[4], test=[0, 1]))
    assert [note.serious for note in found] == [True]
    assert found[0].text.startswith("Never validated: the valid split (1 molecule) has no target")


def test_what_a_weight_file_of_others_is_taken_for_is_said_with_the_reason(tmp_path):
    pretrain_gnns_file(tmp_path / "w.pth")
    said, *_ = texts(config_of(tmp_path / "w.pth"), task_of(CLEAN, valid=[4], test=[5]))
    assert said.startswith("The encoder's file w.pth is a GCN of pretrain-gnns")
    assert "names and shapes, which a GraphSAGE shares" in said


def test_molecules_that_cannot_be_read_are_counted():
    (said,) = notes([*CLEAN, "no molecule", ""])
    assert said == ("2 of 8 molecules cannot be read and were left out: 'no molecule' and ''.")
    (said,) = notes([*CLEAN, *"??????"])
    assert said.endswith("left out: '?', '?', '?', '?', '?' and 1 more.")


def test_salts_and_mixtures_are_counted():
    (said,) = notes([*CLEAN, "CC(=O)[O-].[Na+]", "O.O"])
    assert said == (
        "2 of 8 molecules are salts or mixtures (rows 6 and 7): their parts are read as one graph."
    )
    (said,) = notes([*CLEAN, "O.O"])
    assert said.startswith("1 of 7 molecules is a salt or mixture (row 6): its parts are")
    assert not notes([*CLEAN, "CCF |(1.5,2.0,;0,0,;1,1,)|"])


def test_molecules_of_a_file_are_named_by_its_lines():
    task = task_of([*CLEAN, "OCC", "O.O"], [0, 1, 0, 1, 0, 1, 1, 0])
    molecules = replace(task.examples, lines=tuple(range(2, 10)))
    mixtures, repeated = texts(config_of(), replace(task, examples=molecules))
    assert "(line 9)" in mixtures
    assert "(lines 2 and 8)" in repeated


def test_of_an_encoder_that_no_member_reads_nothing_is_said(tmp_path):
    pretrain_gnns_file(tmp_path / "w.pth")
    task = task_of(CLEAN, valid=[2, 3], test=[4, 5])
    found = notes_on(config_of(tmp_path / "w.pth"), task)
    assert len(found) == 2
    assert all(note.of_encoder for note in found)
    assert notes_on(config_of(tmp_path / "w.pth"), task, reads_encoder=False) == ()


@pytest.mark.parametrize(
    ("repeated", "molecules", "conflicts"),
    [
        ([("OCC", 0)], 1, "0"),
        ([("OCC", 1)], 1, "1 (rows 0 and 6)"),
        ([("OCC", NAN)], 1, "0"),
        ([("OCC", 0), ("C(C)O", 1), ("OCC", 0)], 1, "1 (rows 0, 6, 7 and 1 more)"),
        ([("OCC", 1), ("C1=CC=CC=C1", 1)], 2, "2 (rows 0 and 6; 2 and 7)"),
        ([("OCC", 1), ("NCC", 1)], 2, "1 (rows 0 and 6)"),
        (
            [("OCC", 1), ("C1=CC=CC=C1", 1), ("C1CC1C", 0), ("ClCCC", 1)],
            4,
            "4 (rows 0 and 6; 2 and 7; 3 and 8; 1 more)",
        ),
    ],
)
def test_repeated_molecules_are_counted_and_those_with_two_labels(repeated, molecules, conflicts):
    smiles, labels = zip(*repeated, strict=True)
    (said,) = notes([*CLEAN, *smiles], [0, 1, 0, 1, 0, 1, *labels])
    assert said.startswith("Molecules that occur more than once")
    assert f": {molecules}, with different labels: {conflicts}; all rows were kept." in said


@pytest.mark.parametrize(
    ("smiles", "labels", "splits", "serious"),
    [
        (["?"], [0], {}, True),
        (["O.O"], [0], {}, False),
        (["OCC"], [0], {}, False),
        (["OCC"], [1], {}, True),
        (["OCC"], [0], {"valid": [6]}, True),
    ],
    ids=["unreadable", "mixture", "repeated", "contradiction", "in two splits"],
)
def test_what_scores_or_molecules_are_lost_by_is_serious(smiles, labels, splits, serious):
    task = task_of([*CLEAN, *smiles], [0, 1, 0, 1, 0, 1, *labels], **splits)
    assert any(note.serious for note in notes_on(config_of(), task)) is serious


def test_measurements_of_a_molecule_may_differ():
    molecules, task = size_task().examples, size_task()
    repeated = replace(molecules, smiles=(molecules.smiles[1], *molecules.smiles[1:]))
    note, *_ = notes_on(config_of(), replace(task, examples=repeated))
    assert "with different labels: 1" in note.text
    assert not note.serious


def test_labels_of_different_targets_are_in_no_conflict():
    labels = [[0, 1], [1, 0], [0, 0], [1, 1], [0, NAN], [NAN, 1]]
    (said,) = notes(["CCO", "CCN", "CCC", "CCS", "CCF", "FCC"], labels)
    assert ": 1, with different labels: 0;" in said


def test_molecules_of_other_splits_that_are_trained_on_are_counted():
    smiles = [*CLEAN, "OCC", "NCC", "BrCCC", "?", "?"]
    _, repeated, across = notes(smiles, valid=[6, 5], test=[7, 8, 10])
    assert ": 3, with different labels:" in repeated
    assert across == "Also among the training molecules: 1 of valid, 1 of test."


def test_an_encoder_that_does_not_say_its_molecules_is_said_to_be_silent(tmp_path):
    path = write_encoder(tmp_path / "e.safetensors")
    given = {"name": "gcn", "layers": 1, "width": 2, "weights": str(path)}
    (said,) = texts(config_of(given), task_of(CLEAN))
    assert said.startswith("Whether the encoder was pretrained on these molecules is not known: ")
    random_model().save_pretrained(tmp_path / "model")
    (said,) = texts(config_of(tmp_path / "model"), task_of(CLEAN))
    assert "is not known" in said


def test_molecules_that_the_encoder_was_pretrained_on_are_counted(tmp_path):
    names = tmp_path / "theirs.smi"
    names.write_text("\n".join(["OCC", "C1=CC=CC=C1", "CCCBr", *(f"{'N' * k}C" for k in range(9))]))
    task = {"name": "pretraining", "of": str(names), "use": "all"}
    path = write_encoder(tmp_path / "e.safetensors", **task)
    given = {"name": "gcn", "layers": 1, "width": 2, "weights": str(path)}
    *_, said = texts(config_of(given), task_of(CLEAN, valid=[0, 1], test=[4]))
    assert "OCC" in molecules_trained_on(of=(names,), use="all")
    counts = "2 of 3 of train, 1 of 2 of valid, 0 of 1 of test"
    assert said == f"Molecules that the encoder e.safetensors was pretrained on: {counts}."


def test_what_has_no_molecules_has_no_notes():
    assert notes_on(config_of(), toy_task()) == ()


def test_no_data_set_is_fetched_only_to_look_for_shared_molecules(tmp_path, monkeypatch):
    task = {"name": "pretraining", "of": "ogbg-molmuv", "without": ["ogbg-moltox21"]}
    path = write_encoder(tmp_path / "e.safetensors", **task)
    data = tmp_path / "data"
    data.mkdir()
    monkeypatch.setenv("MOLHPFT_DATA", str(data))
    given = {"name": "gcn", "layers": 1, "width": 2, "weights": str(path)}
    *_, said = texts(config_of(given), task_of(CLEAN, valid=[4], test=[5]))
    assert "for lack of ogbg-molmuv, ogbg-moltox21 on this machine" in said
    assert not list(data.iterdir())


def test_the_shipped_encoder_knows_its_molecules_without_their_data(tmp_path, monkeypatch):
    monkeypatch.setenv("MOLHPFT_DATA", str(tmp_path))
    *_, said = texts(config_of(DEFAULT_ENCODER), task_of(CLEAN, valid=[4], test=[5]))
    assert f"Molecules that the encoder {DEFAULT_ENCODER} was pretrained on: " in said
    assert not list(tmp_path.iterdir())


def labelled(columns, names):
    """A task of 60 molecules, 40 to train on and 10 each to validate and test on."""
    smiles = ["C" * k for k in range(1, 61)]
    rows = torch.arange(60)
    return molecule_task(
        "thin",
        smiles=smiles,
        targets=torch.tensor(columns, dtype=torch.float32).T,
        target_names=names,
        splits={"train": rows[:40], "valid": rows[40:50], "test": rows[50:]},
        objective=Multilabel(),
    )


BALANCED = [float(k % 2) for k in range(60)]
FOUR = [1.0, 0.0, 1.0, 0.0, *[float("nan")] * 56]


def test_a_target_with_four_labels_is_marked_as_never_validated():
    assert thin_split_notes(labelled([BALANCED, FOUR], ("many", "four"))) == [
        "Never validated, for the valid split (10 molecules) lacks labels of both classes: four.",
        "Not scored, for the test split (10 molecules) lacks labels of both classes: four.",
    ]


def test_splits_with_both_classes_of_every_target_need_no_words():
    assert thin_split_notes(labelled([BALANCED], ("many",))) == []
