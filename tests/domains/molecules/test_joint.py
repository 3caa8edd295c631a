import pytest
import torch

from molhpft.core.objectives import Multilabel, Squared
from molhpft.domains.molecules.examples import molecule_task
from molhpft.domains.molecules.pretraining import joint_task
from tests.toy import toy_task


def task(name, smiles, targets, objective):
    rows = torch.arange(len(smiles))
    splits = {"train": rows, "valid": rows, "test": rows}
    names = [f"{name}{k}" for k in range(len(targets[0]))]
    return molecule_task(
        name,
        smiles=smiles,
        targets=torch.tensor(targets),
        target_names=names,
        splits=splits,
        objective=objective,
    )


NEW = task("new", ["C", "CC", "CCC"], [[0.0], [1.0], [0.0]], Multilabel())
OLD = task("old", ["CCC", "C", "O"], [[3.0, 30.0], [1.0, 10.0], [9.0, 90.0]], Squared())


def test_pretraining_targets_stand_behind_those_of_the_same_molecule():
    joined = joint_task(NEW, OLD, weight=0.5)
    targets = joined.examples.targets
    assert targets[:, 0].tolist() == [0, 1, 0]
    assert targets[0, 1:].tolist() == [1, 10]
    assert targets[2, 1:].tolist() == [3, 30]
    assert targets[1, 1:].isnan().all()


def test_a_joint_task_knows_what_its_outputs_are():
    joined = joint_task(NEW, OLD, weight=0.5)
    assert joined.outputs == 3
    assert joined.target_names == ("new0", "old0", "old1")
    assert joined.objective.outputs == 1
    assert joined.splits == NEW.splits


def test_the_weight_is_part_of_what_a_joint_task_is():
    joined = [joint_task(NEW, OLD, weight=w) for w in (0.5, 1.0)]
    assert len({task.auxiliary for task in [NEW, *joined]}) == 3
    assert {task.fingerprint for task in joined} == {NEW.fingerprint}


def test_tasks_without_a_common_molecule_are_refused():
    other = task("other", ["N"], [[1.0]], Squared())
    with pytest.raises(ValueError, match="other has targets for none of the 3 molecules of new"):
        joint_task(NEW, other, weight=1.0)


def test_tasks_of_something_else_are_refused():
    with pytest.raises(ValueError, match="between tasks of molecules, got new and toy"):
        joint_task(NEW, toy_task(), weight=1.0)
