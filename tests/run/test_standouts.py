"""The molecules of a run that stand out: those that moved most, those that kept most energy."""

from dataclasses import replace
from math import isnan

import pytest
import torch

from molhpft.core.data import Task
from molhpft.core.evaluate import Snapshot
from molhpft.core.objectives import Joint, Multilabel, Part, Squared
from molhpft.domains.molecules.examples import Molecules
from molhpft.domains.molecules.graphs import pack
from molhpft.run.standouts import SHOWN, standouts
from tests.toy import NAN, toy_task

SMILES = tuple("C" * n for n in range(1, 9))


def task_of(objective, *, names=()):
    molecules = Molecules(pack(SMILES), torch.zeros(8, 2), SMILES)
    splits = {"train": torch.arange(8)}
    return Task("chains", molecules, splits, objective, 2, target_names=names)


def snapshots(logits, targets):
    """Molecule k moves by k."""
    before = Snapshot(logits=torch.zeros(8, 2), targets=targets, features=torch.zeros(8, 3))
    moved = torch.arange(8.0)[:, None] * torch.tensor([1.0, 0, 0])
    return before, Snapshot(logits=logits, targets=targets, features=moved)


def test_molecules_stand_out_by_shift_and_by_energy_with_their_worst_target():
    targets = torch.zeros(8, 2)
    targets[2] = NAN
    logits = torch.full((8, 2), -9.0)
    logits[5, 1] = 9.0
    task = task_of(Multilabel(), names=("a", "b"))
    chosen = standouts(*snapshots(logits, targets), task)
    assert [m["smiles"] for m in chosen["moved"]] == list(reversed(SMILES))[:SHOWN]
    assert [m["moved"] for m in chosen["moved"]] == [7.0, 6.0, 5.0, 4.0, 3.0, 2.0]
    first = chosen["energy"][0]
    assert (first["smiles"], first["target"], first["label"]) == (SMILES[5], "b", 0.0)
    assert first["energy"] == pytest.approx(1.0, abs=1e-3)
    assert first["predicted"] == pytest.approx(1.0, abs=1e-3)
    (unlabelled,) = (m for m in chosen["moved"] if m["smiles"] == SMILES[2])
    assert unlabelled["energy"] == 0
    assert isnan(unlabelled["label"])


def test_numbers_are_in_their_own_unit_also_beside_an_auxiliary_task():
    scaled = Squared(mean=(5.0, 0.0), std=(10.0, 1.0))
    logits = torch.zeros(8, 2)
    logits[3, 0] = 2.0
    first = standouts(*snapshots(logits, torch.zeros(8, 2)), task_of(scaled))["energy"][0]
    assert (first["smiles"], first["target"]) == (SMILES[3], "output 0")
    assert (first["label"], first["predicted"]) == (5.0, 25.0)
    joint = replace(task_of(Joint(scaled, 2, (Part(Squared(), 1),))), outputs=3)
    wide = torch.cat([logits, torch.ones(8, 1)], 1)
    before, after = snapshots(wide, torch.zeros(8, 3))
    assert standouts(before, after, joint)["energy"][0] == first


def test_other_examples_have_none():
    assert standouts(*snapshots(torch.zeros(8, 2), torch.zeros(8, 2)), toy_task()) is None


def test_where_features_are_those_of_atoms_no_molecule_is_said_to_have_moved():
    before, after = snapshots(torch.zeros(8, 2), torch.ones(8, 2))
    atoms = torch.arange(36.0)[:, None]
    after = replace(after, features=atoms)
    chosen = standouts(replace(before, features=0 * atoms), after, task_of(Multilabel()))
    assert list(chosen) == ["energy"]
    assert all(isnan(m["moved"]) for m in chosen["energy"])
