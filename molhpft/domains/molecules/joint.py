"""A task that goes on serving a pretraining task: both sets of targets on the same molecules."""

from dataclasses import replace
from hashlib import sha256

import torch

from molhpft.core.joint import Joint
from molhpft.core.task import Task
from molhpft.domains.molecules.examples import Molecules


def joint_task(task: Task, pretraining: Task, *, weight: float) -> Task:
    """The new task with the pretraining targets of its molecules as further outputs.

    Molecules are the same when their SMILES are written the same; others lack pretraining targets.

    Args:
        task: of molecules; its splits, score and energy stay its own.
        pretraining: of molecules, any splits.
        weight: of the pretraining loss beside the new task's.

    Raises:
        ValueError: a task is not one of molecules, or they have no molecule in common.
    """
    new, old = task.examples, pretraining.examples
    if not isinstance(new, Molecules) or not isinstance(old, Molecules):
        raise ValueError(
            f"pretraining targets can be kept between tasks of molecules, "
            f"got {task.name} and {pretraining.name}"
        )
    row_of = {smiles: row for row, smiles in enumerate(old.smiles)}
    rows = torch.tensor([row_of.get(smiles, -1) for smiles in new.smiles])
    if (rows < 0).all():
        raise ValueError(
            f"{pretraining.name} has targets for none of the {len(rows):,} molecules of "
            f"{task.name}; name a pretraining task on the same molecules"
        )
    kept = torch.where(rows[:, None] < 0, torch.nan, old.targets[rows])
    identity = f"{pretraining.fingerprint} {weight}"
    return replace(
        task,
        examples=replace(new, targets=torch.cat([new.targets, kept], dim=1)),
        objective=Joint(task.objective, pretraining.objective, task.outputs, weight),
        outputs=task.outputs + pretraining.outputs,
        describes=(*task.describes, *pretraining.describes),
        auxiliary=sha256(identity.encode()).hexdigest(),
    )
