"""Overlap of data sets and encoders, on molecules few enough to count by hand."""

import json
import re

import pytest
import torch
from safetensors.torch import save_file

from molhpft.advice.inventory import (
    absent_data,
    describe_data,
    encoders,
    overlap,
    overlap_with,
    trained_on,
)
from molhpft.config.registry import TASKS
from molhpft.domains.molecules.gcn import ogb_gcn
from molhpft.domains.molecules.pretraining_sources import molecules_trained_on
from molhpft.domains.molecules.tables import csv_task
from molhpft.domains.weights import read_weights
from tests.toy import toy_task

# split, SMILES, and whether the molecule, and whether its ring, is among THEIRS
OURS = (
    ("train", "OCC", True, False),
    ("train", "C1=CC=CC=C1", True, True),
    ("train", "CCCCN", False, False),
    ("train", "Cc1ccccc1", False, True),
    ("valid", "CC(=O)[O-].[Na+]", True, False),
    ("valid", "C1CC1", False, False),
    ("test", "CC1CCCCC1", True, True),
    ("test", "OC1CCCCC1", False, True),
    ("test", "no molecule", False, False),
    ("test", "CCCCCCO", False, False),
)
THEIRS = ("CCO", "c1ccccc1", "CC(=O)O", "CC1CCCCC1", "no molecule", "CCCF")


def write_ours(path):
    rows = [f"{smiles},{k % 2},{split}" for k, (split, smiles, *_) in enumerate(OURS)]
    path.write_text("\n".join(["smiles,y,fold", *rows]) + "\n")
    return path


def write_theirs(path, smiles=THEIRS):
    """Acyclic molecules of their own fill the other splits, so that all of these train."""
    more = [f"{'N' * k}CC" for k in range(1, 31)]
    rows = [f"{text},{k % 2}" for k, text in enumerate([*smiles, *more])]
    path.write_text("\n".join(["smiles,y", *rows]) + "\n")
    return path


def write_encoder(path, *, start=None, **task):
    weights = {f"backbone.{k}": v for k, v in ogb_gcn(layers=1, width=2).state_dict().items()}
    config = {"task": task, "encoder": {"name": "gcn", "weights": start}}
    about = {"encoder": "gcn", "config": config} if task else {"encoder": "gcn"}
    save_file(weights, path, metadata={"molhpft": json.dumps(about)})
    return path


@pytest.fixture
def ours(tmp_path):
    path = write_ours(tmp_path / "ours.csv")
    return csv_task(path=path, target_columns=("y",), split="column", split_column="fold")


def by_hand():
    return [
        {
            "split": split,
            "molecules": sum(row[0] == split and row[1] != "no molecule" for row in OURS),
            "shared": sum(row[0] == split and row[2] for row in OURS),
            "scaffolds": sum(row[0] == split and row[3] for row in OURS),
        }
        for split in ("train", "valid", "test")
    ]


def test_molecules_and_rings_are_counted_split_by_split(ours):
    assert overlap_with(ours, THEIRS) == by_hand()


def test_nothing_is_shared_with_nothing_and_all_with_itself(ours):
    for found in overlap_with(ours, []):
        assert (found["shared"], found["scaffolds"]) == (0, 0)
    for found in overlap_with(ours, ours.examples.smiles):
        assert found["shared"] == found["molecules"]


def test_a_table_counts_whole(ours, tmp_path):
    other = write_theirs(tmp_path / "theirs.csv")
    task = csv_task(path=other)
    assert len(task.rows("train")) < len(task.examples.smiles)
    assert overlap(ours, str(other)) == overlap_with(ours, task.examples.smiles)


def test_a_table_is_counted_whatever_the_case_of_its_column_of_molecules(ours, tmp_path):
    other = write_theirs(tmp_path / "theirs.csv")
    expected = overlap(ours, str(other))
    other.write_text(other.read_text().replace("smiles", "SMILES"))
    assert overlap(ours, str(other)) == expected


def test_a_table_whose_molecules_are_called_otherwise_says_how_they_should_be(ours, tmp_path):
    (tmp_path / "theirs.csv").write_text("Drug,y\nCCO,1\n")
    with pytest.raises(ValueError, match=r"should be called smiles, as --against .*: Drug and y$"):
        overlap(ours, str(tmp_path / "theirs.csv"))


@pytest.mark.parametrize("use", ["train", "all"])
def test_of_an_encoder_its_pretraining_molecules_count(ours, tmp_path, use):
    names = tmp_path / "theirs.smi"
    names.write_text("\n".join([*THEIRS, *(f"{'N' * k}CC" for k in range(1, 31))]) + "\n")
    task = {"name": "pretraining", "of": str(names), "use": use, "targets": ["descriptors"]}
    path = write_encoder(tmp_path / "e.safetensors", **task)
    trained = molecules_trained_on(of=(names,), use=use)
    assert overlap(ours, str(path)) == overlap_with(ours, trained)
    assert (set(trained) >= set(THEIRS[:4])) == (use == "all")


def test_a_file_of_an_earlier_version_which_wrote_down_every_default_is_understood(
    tmp_path, ogb_root
):
    ogb = {"name": "pretraining", "of": "ogbg-molbace", "split": "scaffold", "split_seed": None}
    files = write_encoder(tmp_path / "e.safetensors", **ogb, use="train", smiles_column=None)
    assert len(trained_on(read_weights(files))) == 1_210


def test_a_file_that_does_not_say_its_molecules_says_that(ours, tmp_path):
    for path in (
        write_encoder(tmp_path / "silent.safetensors"),
        write_encoder(tmp_path / "tox.safetensors", name="ogbg-moltox21"),
    ):
        with pytest.raises(ValueError, match="does not say on which molecules it was pretrained"):
            overlap(ours, str(path))
    for name in ("w.pth", "w.pt"):
        torch.save({"a": torch.zeros(2)}, tmp_path / name)
        with pytest.raises(ValueError, match="does not say on which molecules"):
            overlap(ours, str(tmp_path / name))


def test_molecules_that_are_gone_are_said_to_be(ours, tmp_path):
    task = {"name": "pretraining", "of": str(tmp_path / "gone.smi"), "use": "train"}
    with pytest.raises(FileNotFoundError, match=r"gone\.smi"):
        overlap(ours, str(write_encoder(tmp_path / "e.safetensors", **task)))


def test_an_option_of_pretraining_that_nobody_knows_is_refused(tmp_path):
    task = {"name": "pretraining", "of": "a.smi", "use": "half"}
    with pytest.raises(ValueError, match=r"task\.use"):
        trained_on(read_weights(write_encoder(tmp_path / "e.safetensors", **task)))


@pytest.mark.parametrize("other", ["ours.xyz", "gcn", "ogbg-moltox", ""])
def test_what_is_neither_data_nor_encoder_is_one_sentence(ours, other):
    with pytest.raises(ValueError, match="should be a data set, the file of a table, or") as no:
        overlap(ours, other)
    assert "\n" not in str(no.value)


@pytest.mark.parametrize("other", ["gcn", "absent.pth"])
def test_what_is_neither_is_said_before_the_data_are_read(monkeypatch, other):
    monkeypatch.setitem(TASKS, "nci_alerts", lambda: pytest.fail("the data were read"))
    with pytest.raises((ValueError, FileNotFoundError), match=other):
        describe_data("nci_alerts", against=other)


def test_what_has_no_molecules_cannot_be_compared(ours):
    with pytest.raises(ValueError, match="toy has no molecules to compare"):
        overlap_with(toy_task(), THEIRS)
    with pytest.raises(ValueError, match="has no molecules to compare"):
        overlap(ours, "shapes")


def test_the_std_of_large_numbers_close_together_is_theirs(tmp_path, monkeypatch):
    monkeypatch.setattr("molhpft.advice.inventory._STRETCH", 4)
    values = [16_000_000.0, None, *(16_000_000.0 + k % 3 for k in range(1, 28))]
    cells = [f"{'C' * (n + 1)},{'' if y is None else y}" for n, y in enumerate(values)]
    path = tmp_path / "dates.csv"
    path.write_text("\n".join(["smiles,y", *cells]) + "\n")
    (target,) = describe_data(str(path), ["kind=regression", "split=random"])["targets"]
    y = torch.tensor([y for y in values if y is not None]).double()
    assert (target["labels"], target["missing"]) == (28, 1)
    assert target["mean"] == pytest.approx(y.mean().item(), abs=1e-5)
    assert target["std"] == pytest.approx(y.std().item(), rel=1e-5)


def test_of_an_encoder_that_started_from_another_the_molecules_of_both_count(ours, tmp_path):
    options = {"name": "pretraining", "use": "all", "targets": ["descriptors"]}
    lists = {name: tmp_path / f"{name}.smi" for name in ("first", "second")}
    lists["first"].write_text("\n".join(THEIRS) + "\n")
    lists["second"].write_text("\n".join(f"{'N' * k}CC" for k in range(1, 31)) + "\n")
    first = write_encoder(tmp_path / "first.safetensors", of=str(lists["first"]), **options)
    second = write_encoder(
        tmp_path / "second.safetensors",
        start=str(first),
        of=str(lists["second"]),
        **options,
    )
    assert overlap(ours, str(second))[0]["shared"] == overlap(ours, str(first))[0]["shared"] > 0
    first.unlink()
    with pytest.raises(FileNotFoundError, match=r"no weight file at .*first"):
        absent_data(read_weights(second))


def test_encoders_refer_to_one_another_by_names_that_are_listed():
    listed = encoders()
    named = {name for row in listed for name in re.findall(r"as for `(\w+)`", row["what"])}
    assert "gcn" in named
    assert named <= {row["name"] for row in listed}
