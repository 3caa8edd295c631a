"""Splits and folds that keep molecules together: repeated ones, those of a group, of a time.

A molecule that trains in one row and is predicted in another is no new molecule, and its prediction
says nothing of new ones.
"""

from collections.abc import Hashable, Sequence
from itertools import accumulate, groupby, pairwise
from typing import Any

import numpy as np
import torch
from rdkit import Chem
from torch import Tensor

from molhpft.domains.molecules.overlap import inchikey_blocks
from molhpft.domains.molecules.smiles import parse
from molhpft.domains.molecules.splits import (
    CALIBRATION,
    EIGHT_ONE_ONE,
    NAMES,
    Fractions,
    dealt_groups,
    joined_groups,
    split_shares,
)


def replicates(smiles: Sequence[str]) -> list[list[int]]:
    """Rows of each molecule that can be read, in the order of their first row.

    Rows are of one molecule where the first blocks of their InChIKeys say so (`inchikey_blocks`):
    stereoisomers and salts of one compound, whose labels differ little, go together.

    >>> replicates(["CCO", "C", "OCC", "not a molecule", "C.Cl"])
    [[0, 2], [1, 4]]
    """
    rows: dict[str, list[int]] = {}
    for row, block in enumerate(inchikey_blocks(smiles).tolist()):
        name = block.decode() or _canonical(smiles[row])
        if name is not None:
            rows.setdefault(name, []).append(row)
    return list(rows.values())


def _canonical(smiles: str) -> str | None:
    """The canonical SMILES of what has no InChI; None for what cannot be read."""
    mol = parse(smiles)
    return None if mol is None else Chem.MolToSmiles(mol)


def grouped_split(
    together: Sequence[Sequence[int]],
    *,
    groups: Sequence[Hashable] | None,
    times: Sequence[float] | None,
    seed: int,
    fractions: Fractions = EIGHT_ONE_ONE,
    calibration: float = 0.0,
) -> dict[str, Tensor]:
    """`time_split` where there are times, else `group_split`.

    Args:
        together: rows of each molecule (`replicates`).
        groups: (n,), of all rows; None joins no molecules.
        times: (n,), of all rows, if any.
        seed: of what is drawn.
        fractions: shares of train, valid and test.
        calibration: share of a fourth split, which training gives up.

    Raises:
        ValueError: groups or times are too few to fill a split.
    """
    if groups is not None:
        together = joined_groups(together, groups)
    shares: dict[str, Any] = {"fractions": fractions, "calibration": calibration}
    if times is not None:
        return time_split(together, times, **shares)
    splits = group_split(together, rng=torch.Generator().manual_seed(seed), **shares)
    for name, share in split_shares(**shares).items():
        if share and not len(splits[name]):
            raise ValueError(
                f"a split by groups needs groups enough to leave one to each split; of "
                f"{len(together)} {name} gets none: take smaller groups, another split, or folds "
                "(--folds in finetune)"
            )
    return splits


def group_split(
    groups: Sequence[Sequence[int]],
    *,
    rng: torch.Generator,
    fractions: Fractions = EIGHT_ONE_ONE,
    calibration: float = 0.0,
) -> dict[str, Tensor]:
    """Whole groups dealt at random, each to the split that lacks most of its share.

    Args:
        groups: rows that stay together.
        rng: draws the order.
        fractions: shares of train, valid and test.
        calibration: share of a fourth split, which training gives up.

    Returns:
        ascending row numbers of "train", "valid", "test" and, with a share, "calibration"; of few
        groups some come out empty.

    Raises:
        ValueError: the fractions are not shares of a whole.
    """
    shares = {name: share for name, share in split_shares(fractions, calibration).items() if share}
    dealt = {**{key: list[int]() for key in NAMES}, **dealt_groups(groups, shares, rng=rng)}
    return {name: torch.tensor(sorted(rows), dtype=torch.long) for name, rows in dealt.items()}


def time_split(
    groups: Sequence[Sequence[int]],
    times: Sequence[float],
    *,
    fractions: Fractions = EIGHT_ONE_ONE,
    calibration: float = 0.0,
) -> dict[str, Tensor]:
    """The oldest rows train, later ones validate, then calibrate, and the newest test.

    Args:
        groups: rows that stay together; all of them are as new as the newest.
        times: (n,), of all rows.
        fractions: as of `group_split`, like `calibration`.
        calibration: share of a fourth split.

    Returns:
        ascending row numbers of "train", "valid", "test" and, with a share, "calibration".

    Raises:
        ValueError: the fractions are not shares of a whole, or times are too few.
    """
    shares = split_shares(fractions, calibration)
    names = [name for name in ("train", "valid", CALIBRATION, "test") if shares.get(name)]
    ends = list(accumulate(shares[name] for name in names))
    dealt = dict(zip(names, _in_time(groups, times, ends[:-1], fewer="another split"), strict=True))
    empty = torch.empty(0, dtype=torch.long)
    return {**dict.fromkeys(NAMES, empty), **dealt}


def time_folds(
    groups: Sequence[Sequence[int]], times: Sequence[float], count: int
) -> list[tuple[Tensor, Tensor]]:
    """The newer half of the rows in so many folds, each with all older rows to train on.

    Forward chaining, which begins with half of the rows, so that no fold is judged by what a small
    part of the table teaches.

    >>> [[a.tolist(), b.tolist()] for a, b in time_folds([[0], [1], [2], [3]], [4, 3, 2, 1], 2)]
    [[[2, 3], [1]], [[1, 2, 3], [0]]]

    Args:
        groups: as of `time_split`.
        times: (n,), of all rows.
        count: of folds.

    Returns:
        for each fold ascending rows that are older, and those of the fold.

    Raises:
        ValueError: times are too few.
    """
    ends = [0.5 + 0.5 * k / count for k in range(count)]
    older, *folds = _in_time(groups, times, ends, fewer="fewer folds")
    pairs = []
    for fold in folds:
        pairs.append((older, fold))
        older = torch.cat([older, fold]).sort().values
    return pairs


def group_folds(groups: Sequence[Sequence[int]], count: int) -> list[Tensor]:
    """Whole groups dealt to folds, the largest first, each to the fold that has fewest rows.

    Args:
        groups: rows that stay together.
        count: of folds; with fewer groups some come out empty.

    Returns:
        ascending rows of each fold.
    """
    folds: list[list[int]] = [[] for _ in range(count)]
    for group in sorted(groups, key=lambda group: (-len(group), group[0])):
        min(folds, key=len).extend(group)
    return [torch.tensor(sorted(fold), dtype=torch.long) for fold in folds]


def _in_time(
    groups: Sequence[Sequence[int]], times: Sequence[float], ends: Sequence[float], *, fewer: str
) -> list[Tensor]:
    """Rows in parts, the oldest first, that end nearest these shares of all rows.

    What is of one time stays together; `fewer` is what an error advises where times are too few.
    """
    by_time = sorted((max(times[row] for row in group), list(group)) for group in groups)
    blocks = [
        [row for _, group in same for row in group]
        for _, same in groupby(by_time, key=lambda pair: pair[0])
    ]
    last = list(accumulate(map(len, blocks)))
    cuts = [1 + int(np.argmin([abs(done - end * last[-1]) for done in last])) for end in ends]
    if any(a >= b for a, b in pairwise([0, *cuts, len(blocks)])):
        raise ValueError(
            f"{len(ends) + 1} parts in the order of time need that many times with like numbers of "
            f"molecules, {_times_left(groups, times, len(blocks), fewer)}"
        )
    parts = (blocks[a:b] for a, b in pairwise([0, *cuts, len(blocks)]))
    return [torch.tensor(sorted(row for block in part for row in block)) for part in parts]


def _times_left(
    groups: Sequence[Sequence[int]], times: Sequence[float], blocks: int, fewer: str
) -> str:
    """How many times there are where groups count as new as their newest row, and what to do."""
    distinct = len({times[row] for group in groups for row in group})
    if blocks == distinct:
        return f"there {'is' if blocks == 1 else 'are'} {blocks}; take {fewer}, or finer times"
    return (
        f"and of {distinct} times {blocks} {'is' if blocks == 1 else 'are'} left, as what stays "
        "together (rows of one molecule or one group) counts as new as its newest row; take "
        f"{fewer}, or groups that span less time, or none"
    )
