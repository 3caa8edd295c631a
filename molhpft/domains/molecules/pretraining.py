"""Tasks to pretrain an encoder on: molecules of several sources, targets of several kinds.

They are scored by minus their loss: the metric of assays with a handful of actives is noise, and
validation decides which epoch's encoder is kept. `joint_task` goes on serving such a task while
finetuning, on the same molecules.
"""

import logging
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Literal, get_args

import torch
from rdkit import rdBase
from torch import Tensor

from molhpft.core.annotations import Count, Positive, Seed
from molhpft.core.data import Portion, Task
from molhpft.core.objectives import Joint, Multilabel, Part, ScoredByLoss, Squared
from molhpft.domains.files import digest
from molhpft.domains.molecules.computed_targets import (
    COMPUTED_VERSION,
    KINDS,
    Kind,
    Labels,
    Scaled,
    TargetColumns,
    computed_targets,
)
from molhpft.domains.molecules.examples import Molecules
from molhpft.domains.molecules.graphs import joined
from molhpft.domains.molecules.pretraining_sources import (
    FileOptions,
    HeldOut,
    Source,
    Splits,
    Use,
    names_of,
    one_each,
    read_sources,
    starts_of,
    used_splits,
)
from molhpft.domains.molecules.smiles import FEATURISER_VERSION
from molhpft.domains.molecules.splits import NAMES, Split

Target = Literal["assays", Kind]

_TARGETS: tuple[Target, ...] = ("assays", *KINDS)

_log = logging.getLogger(__name__)


def pretraining_task(
    *,
    of: tuple[Path, ...],
    targets: tuple[Target, ...] = ("descriptors",),
    weights: tuple[Positive, ...] | None = None,
    use: Use = "train",
    most: tuple[Count, ...] | None = None,
    share: tuple[Positive, ...] | None = None,
    without: tuple[Path, ...] = (),
    smiles_column: str | None = None,
    split: Split | None = None,
    split_seed: Seed | None = None,
    held_out: HeldOut | None = None,
) -> Task:
    """Data sets, tables and plain lists of SMILES to pretrain on, scored by minus the loss.

    Args:
        of: OGB data sets by name, and paths of tables or lists of any kind that can be read.
        targets: "assays" are the labels of data sets, and of all columns of tables that can be
            targets; the others are computed from structure, see `computed_targets`.
        weights: of the loss of each kind of targets, 1 by default; only their ratios matter.
        use: "train" leaves the other splits out; "all" trains on their molecules as well, and what
            is then scored on them is no estimate any more.
        most: molecules of each source to use, spread evenly over it; all of them by default.
        share: of its training molecules that an epoch takes of each source, drawn anew for every
            epoch, 1 by default; 2 takes each of them twice.
        without: OGB data sets whose validation and test molecules (of OGB's split), and tables, or
            folders of tables, whose molecules, all of them, are left out of every split, so that an
            encoder is never tested on molecules it was pretrained on; see `overlap.is_among`.
        smiles_column: of files, "smiles" by default.
        split: of files, by scaffold (the default), at random or both; OGB's sets have their own.
        split_seed: draws the random splits, 0 by default; for those only.
        held_out: fraction of a file's molecules to validate on, and another as large to test on;
            a tenth by default.

    Raises:
        FileNotFoundError: the data are absent.
        ValueError: the data cannot be used, or the options contradict each other.
    """
    _check(targets, weights, use)
    how = FileOptions(smiles_column, split, split_seed, held_out)
    sources = read_sources(of, how, most, labelled="assays" in targets)
    splits = used_splits(sources, use, without)
    whole = _joined_splits(sources, splits)
    smiles = tuple(smiles for source in sources for smiles in source.smiles)
    if use == "train":
        _warn_of_shared(smiles, whole)
    columns, (first, *others) = _targets(sources, whole["train"], targets, weights)
    objective = Joint(first.objective, first.outputs, tuple(others)) if others else first.objective
    portions = _portions(splits, one_each("share", share, of)) if share else ()
    return Task(
        name=f"pretraining-on-{use}-of-{names_of(sources)}",
        examples=Molecules(joined([source.store for source in sources]), columns, smiles),
        splits=whole,
        objective=ScoredByLoss(objective),
        outputs=len(columns.names),
        fingerprint=_fingerprint(sources, whole, (objective, columns.names, share)),
        target_names=columns.names,
        portions=portions,
    )


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
    auxiliary = _targets_of(new.smiles, old, pretraining.outputs)
    if auxiliary is None:
        raise ValueError(
            f"{pretraining.name} has targets for none of the {len(new):,} molecules of "
            f"{task.name}; name a pretraining task on the same molecules"
        )
    everything = torch.arange(len(new))
    part = Part(pretraining.objective, pretraining.outputs, weight)
    return replace(
        task,
        examples=replace(new, targets=torch.cat([new.targets[everything], auxiliary], dim=1)),
        objective=Joint(task.objective, task.outputs, (part,)),
        outputs=task.outputs + pretraining.outputs,
        target_names=(*task.target_names, *pretraining.target_names),
        auxiliary=digest(f"{pretraining.fingerprint} {weight}"),
    )


def _targets_of(smiles: Sequence[str], old: Molecules, outputs: int) -> Tensor | None:
    """What a task knows of molecules written so, (n, outputs); None if it has none of them.

    Of a molecule in several rows, as where sources overlap, each target is the first that is there.
    """
    rows_of: dict[str, list[int]] = {}
    for row, written in enumerate(old.smiles):
        rows_of.setdefault(written, []).append(row)
    rows = [rows_of.get(written, []) for written in smiles]
    if not any(rows):
        return None
    targets = torch.full((len(smiles), outputs), torch.nan)
    for k in range(max(map(len, rows))):
        here = [place for place, several in enumerate(rows) if len(several) > k]
        more = old.targets[torch.tensor([rows[place][k] for place in here])].float()
        targets[here] = torch.where(targets[here].isnan(), more, targets[here])
    return targets


def _check(targets: Sequence[Target], weights: Sequence[float] | None, use: Use) -> None:
    if not targets or len(set(targets)) < len(targets) or not {*targets} <= {*_TARGETS}:
        raise ValueError(
            f"targets should be some of {', '.join(_TARGETS)}, each once, got {list(targets)}"
        )
    if use not in get_args(Use):
        raise ValueError(f"use should be {' or '.join(get_args(Use))}, got {use!r}")
    if weights is None:
        return
    if len(weights) != len(targets) or not all(weight > 0 for weight in weights):
        raise ValueError(
            f"weights should be numbers above 0, one for each of {len(targets)} targets "
            f"({', '.join(targets)}), got {list(weights)}"
        )


def _joined_splits(sources: Sequence[Source], splits: Sequence[Splits]) -> dict[str, Tensor]:
    """Row numbers where the sources stand one after another."""
    starts = starts_of(sources)
    whole = {
        name: torch.cat([own[name] + start for own, start in zip(splits, starts, strict=True)])
        for name in NAMES
    }
    if not len(whole["train"]):
        raise ValueError(f"no molecule of {names_of(sources)} is left to pretrain on")
    return whole


def _warn_of_shared(smiles: Sequence[str], splits: Splits) -> None:
    """Say how many validation molecules train too: sources are split one by one, and overlap."""
    train = {smiles[row] for row in splits["train"].tolist()}
    valid = splits["valid"].tolist()
    if shared := sum(smiles[row] in train for row in valid):
        _log.warning(
            "%d of %d validation molecules are trained on as well, in another row or source; the "
            "loss on these is too good",
            *(shared, len(valid)),
        )


def _portions(splits: Sequence[Splits], share: Sequence[float]) -> tuple[Portion, ...]:
    sizes = [len(own["train"]) for own in splits]
    places = torch.split(torch.arange(sum(sizes)), sizes)
    return tuple(
        Portion(rows, max(1, round(fraction * len(rows))))
        for rows, fraction in zip(places, share, strict=True)
        if len(rows)
    )


def _targets(
    sources: Sequence[Source],
    train: Tensor,
    targets: Sequence[Target],
    weights: Sequence[float] | None,
) -> tuple[TargetColumns, list[Part]]:
    """All columns and their objectives; assays have one for each source, computed targets one."""
    columns: list[Labels | Scaled] = []
    parts = []
    weights = weights or (1.0,) * len(targets)
    for target, weight in zip(targets, weights, strict=True):
        weight = weight / weights[0]
        if target != "assays":
            computed = computed_targets(target, [source.smiles for source in sources], train)
            columns.append(computed)
            parts.append(Part(Squared(), len(computed.names), weight))
            continue
        starts = starts_of(sources)
        labelled = [(s, k) for s, k in zip(sources, starts, strict=True) if s.label_names]
        if not labelled:
            raise ValueError(
                f"assays should be labels of a data set or a table; "
                f"{names_of(sources)} has none: name such a source, or leave assays out"
            )
        for source, start in labelled:
            labels = _assays(source, train[train >= start] - start, start)
            columns.append(labels)
            kind = Multilabel() if isinstance(source.objective, Multilabel) else Squared()
            parts.append(Part(kind, len(labels.names), weight))
    return TargetColumns(tuple(columns)), parts


def _assays(source: Source, train: Tensor, start: int) -> Labels:
    """Labels that differ between training molecules, numbers in their standard deviations.

    Args:
        source: of the labels.
        train: row numbers of its training molecules; any beyond its end are of other sources.
        start: row number of its first molecule.

    Raises:
        ValueError: no labels differ.
    """
    measured = source.labels[train[train < len(source.labels)]].double()
    labelled = ~measured.isnan()
    counts = labelled.sum(0)
    mean = measured.nansum(0) / counts
    variance = torch.where(labelled, (measured - mean).square(), 0.0).sum(0) / counts
    learned = variance > 0  # nor is NaN, of no label at all
    names = tuple(name for name, one in zip(source.label_names, learned, strict=True) if one)
    if left := len(learned) - len(names):
        _log.warning(
            "%d of %d assays of %s are left out: their labels do not differ between training "
            "molecules, or there are none",
            *(left, len(learned), source.name),
        )
    if not names:
        raise ValueError(f"assays of {source.name} should differ between training molecules")
    values = source.labels[:, learned]
    if isinstance(source.objective, Multilabel):
        return Labels(values.half(), start, names)  # 0 and 1 lose nothing
    scaled = (values.double() - mean[learned]) / variance[learned].sqrt()
    return Labels(scaled.float(), start, names)


def _fingerprint(sources: Sequence[Source], splits: Splits, about: object) -> str:
    """What tells a task from every other; computed targets follow from their molecules."""
    return digest(
        f"{FEATURISER_VERSION} {COMPUTED_VERSION} {rdBase.rdkitVersion} {about!r}",
        *("\n".join(source.smiles) for source in sources),
        # every NaN is made the same one: its bytes carry a payload
        *(torch.where(source.labels.isnan(), torch.nan, source.labels) for source in sources),
        *(part for split in NAMES for part in (split, splits[split])),
    )
