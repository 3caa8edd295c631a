"""Molecules with labels as a task: the step that every source of molecules ends in."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from molhpft.core.data import TargetTable, Task
from molhpft.core.network import Batch
from molhpft.core.objectives import Multilabel, Objective, Squared
from molhpft.domains.files import digest, listed
from molhpft.domains.molecules.graphs import GraphStore, load_or_pack
from molhpft.domains.molecules.smiles import FEATURISER_VERSION

ZERO_ONE = ("0", "1")

_NAMED = 5  # unreadable molecules that a sentence names


@dataclass(frozen=True, eq=False)
class Molecules:
    """Packed graphs with labels, row i for molecule i of the source.

    Attributes:
        store: n graphs; a molecule that cannot be read has none and is in no split.
        targets: (n, t), NaN where unmeasured; numbers in float32, in standard deviations from the
            mean where the objective says so, and 0 and 1 in float16, which loses nothing and halves
            the memory of a large table. What would not fit in memory is a `TargetTable`.
        smiles: (n,), as the source writes them.
        classes: (t,), what the source writes for 0 and for 1 of each target of a classification.
        notes: sentences of the source about how it was read, for people.
        lines: (n,), where the source has each molecule; empty where it has no lines.
        unit: what `lines` are, "line" or "row".
    """

    store: GraphStore
    targets: Tensor | TargetTable
    smiles: tuple[str, ...]
    classes: tuple[tuple[str, str], ...] = ()
    notes: tuple[str, ...] = ()
    lines: tuple[int, ...] = ()
    unit: str = "line"

    def __len__(self) -> int:
        return len(self.smiles)

    @property
    def unreadable(self) -> str:
        """A sentence about the molecules that cannot be read; empty where all can."""
        return unreadable_note(self.smiles, self.store.readable, lines=self.lines, unit=self.unit)

    def take(self, index: Tensor, *, rng: torch.Generator | None = None) -> Batch:
        """The molecules `index` (k,) as one batch of graphs; nothing is drawn."""
        rows = index.to(self.targets.device, non_blocking=True)
        targets = self.targets[rows]
        half = targets.dtype == torch.float16
        return Batch(self.store.take(index), targets.float() if half else targets)

    def to(self, device: torch.device | str) -> "Molecules":
        """The same molecules on `device`."""
        return replace(self, store=self.store.to(device), targets=self.targets.to(device))


def molecule_task(
    name: str,
    *,
    smiles: Sequence[str],
    targets: Tensor,
    target_names: Sequence[str],
    splits: Mapping[str, Tensor],
    objective: Objective,
    standardise: bool = False,
    classes: Sequence[tuple[str, str]] = (),
    notes: Sequence[str] = (),
    lines: Sequence[int] = (),
    unit: str = "line",
) -> Task:
    """A task on molecules, packed now or read from the cache of an earlier packing.

    Molecules that cannot be read are dropped from the splits, not from the rows;
    `Molecules.unreadable` names them.

    Args:
        name: for people and file names.
        smiles: (n,).
        targets: (n, t), NaN where unmeasured; 0 and 1 for a classification.
        target_names: (t,).
        splits: split name to row numbers.
        objective: `Multilabel` for a classification.
        standardise: whether to bring each target to mean 0 and standard deviation 1 over the
            training split, which the objective then undoes. For a regression.
        classes: (t,), what the source writes for 0 and for 1; "0" and "1" where left out.
        notes: sentences of the source about how it was read.
        lines: (n,), where the source has each molecule.
        unit: what `lines` are.

    Raises:
        ValueError: no molecule can be read or is left to train on, a target has no label, one class
            only (classification), or is constant (to be standardised).
    """
    store = load_or_pack(smiles)
    is_classification = isinstance(objective, Multilabel)
    readable = store.readable.cpu()
    with _naming_unreadable(smiles, readable, lines=lines, unit=unit):
        splits = _readable_splits(name, splits, readable)
        _check_labels(name, targets[readable], target_names, classes=is_classification)
        if standardise:
            objective, targets = _standardised(name, targets, splits["train"], target_names)
    targets = targets.to(torch.float16 if is_classification else torch.float32)
    classes = tuple(classes) or (ZERO_ONE,) * (targets.shape[1] if is_classification else 0)
    written = [classes] if any(pair != ZERO_ONE for pair in classes) else []
    about = (objective, tuple(target_names), *written)
    return Task(
        name=name,
        examples=Molecules(
            store, targets, tuple(smiles), classes, tuple(notes), tuple(lines), unit
        ),
        splits=splits,
        objective=objective,
        outputs=targets.shape[1],
        fingerprint=_fingerprint(smiles, targets, splits, about),
        target_names=tuple(target_names),
    )


def unreadable_note(
    smiles: Sequence[str], readable: Tensor, *, lines: Sequence[int] = (), unit: str = "line"
) -> str:
    """A sentence about the molecules that cannot be read; empty where all can.

    Args:
        smiles: (n,).
        readable: bool (n,).
        lines: (n,), where each molecule stands; empty where there are no lines.
        unit: what `lines` are.
    """
    rows = (~readable).nonzero().flatten().tolist()
    if not rows:
        return ""
    where = {row: f" ({unit} {lines[row]})" if lines else "" for row in rows}
    named = listed([f"{smiles[row][:40]!r}{place}" for row, place in where.items()], most=_NAMED)
    were = "was" if len(rows) == 1 else "were"
    return (
        f"{len(rows):,} of {len(smiles):,} molecules cannot be read and {were} left out: {named}."
    )


@contextmanager
def _naming_unreadable(
    smiles: Sequence[str], readable: Tensor, *, lines: Sequence[int], unit: str
) -> Iterator[None]:
    """A block whose errors end with `unreadable_note`: a label may be lacking only for that."""
    try:
        yield
    except ValueError as error:
        unreadable = unreadable_note(smiles, readable, lines=lines, unit=unit).removesuffix(".")
        raise ValueError(f"{error}; {unreadable}" if unreadable else str(error)) from None


def _check_labels(name: str, targets: Tensor, names: Sequence[str], *, classes: bool) -> None:
    """Refuse targets (n, t) of readable molecules that nobody could learn."""
    for column in targets.isnan().all(0).nonzero().flatten().tolist():
        raise ValueError(
            f"target {names[column]!r} of {name} should have labels; "
            f"all {len(targets):,} are missing: leave the column out"
        )
    zeros, ones = targets == 0, targets == 1
    both = zeros.any(0) & ones.any(0) & (zeros | ones | targets.isnan()).all(0)
    for column in (~both).nonzero().flatten().tolist() if classes else ():
        labels = targets[:, column]
        values = torch.unique(labels[~labels.isnan()].float()).tolist()
        raise ValueError(
            f"target {names[column]!r} of {name} should have labels of both classes, 0 and 1; "
            f"it has: {', '.join(f'{value:g}' for value in values[:10])}: leave the column out, or "
            "add molecules of the other class"
        )


def _readable_splits(
    name: str, splits: Mapping[str, Tensor], readable: Tensor
) -> dict[str, Tensor]:
    """The splits without molecules that cannot be read."""
    n = len(readable)
    if not readable.any():
        raise ValueError(f"{name} should hold SMILES; none of its {n:,} can be read")
    splits = {split: rows[readable[rows]] for split, rows in splits.items()}
    if not len(splits["train"]):
        raise ValueError(
            f"split 'train' of {name}, of {n:,} molecules in all, is empty; "
            "give more molecules that can be read, or another split"
        )
    return splits


def _standardised(
    name: str, targets: Tensor, rows: Tensor, names: Sequence[str]
) -> tuple[Squared, Tensor]:
    """The objective of targets in standard deviations over these rows, and such targets."""
    scales = []
    for target, whole in zip(names, targets.double().T, strict=True):
        scale = Squared.mean_and_std(whole[rows])
        if scale is None:
            raise ValueError(
                f"numbers of target {target!r} of {name} should differ over the training split; "
                f"{_constant(whole, rows)}"
            )
        scales.append(scale)
    means, stds = zip(*scales, strict=True)
    objective = Squared(means, stds)
    return objective, objective.standard(targets)


def _constant(target: Tensor, rows: Tensor) -> str:
    """What the numbers of a target are that do not differ over these rows, and what to do."""
    measured = target[rows][~target[rows].isnan()]
    values = f"all {len(measured)} are {measured[0]:g}" if len(measured) else "all are missing"
    varies = len(torch.unique(target[~target.isnan()])) > 1
    remedy = "leave the column out or split otherwise" if varies else "nothing to learn from"
    return f"{values}: {remedy}"


def _fingerprint(
    smiles: Sequence[str], targets: Tensor, splits: Mapping[str, Tensor], about: object
) -> str:
    return digest(
        f"{FEATURISER_VERSION} {about!r} {tuple(targets.shape)}",
        "\n".join(smiles),
        # every NaN is made the same one: its bytes carry a payload
        torch.where(targets.isnan(), torch.nan, targets),
        *(part for split in sorted(splits) for part in (split, splits[split])),
    )
