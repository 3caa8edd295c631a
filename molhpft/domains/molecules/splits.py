"""Which molecules train, choose and test: by scaffold as OGB does, at random, or by a column.

Train, valid and test are there always. Any further split, such as `ood`, is another distribution:
it is scored like them and never chosen by.
"""

from collections.abc import Callable, Mapping, Sequence
from math import isclose
from typing import Literal

import torch
from rdkit import Chem
from torch import Tensor

from molhpft.domains.cache import cached_tensors
from molhpft.domains.molecules.featurize import parse
from molhpft.domains.molecules.graphs import digest
from molhpft.domains.progress import track

Split = Literal["scaffold", "random", "random_and_scaffold"]

NAMES = ("train", "valid", "test")
_DRAWN = ("random", "random_and_scaffold")
_SPELLINGS = {"val": "valid", "validation": "valid", "dev": "valid"}


def scaffold_split(
    smiles: Sequence[str], fractions: tuple[float, float, float] = (0.8, 0.1, 0.1)
) -> dict[str, Tensor]:
    """OGB's scaffold split: no scaffold is in two splits, and the rare ones are tested on.

    Molecules with the same Bemis-Murcko scaffold, chirality included, form a group. From the
    largest group down (among equals the later one first), a group trains while it fits into the
    training share, else validates while it fits into the first two shares, else tests.

    Args:
        smiles: (n,); those that cannot be read enter no split and no share.
        fractions: shares of train, valid and test.

    Returns:
        ascending row numbers of "train", "valid" and "test".

    Raises:
        ValueError: the fractions are not shares of a whole.
    """
    _check(fractions)
    groups = _scaffold_groups(smiles)
    n = sum(len(group) for group in groups)
    ends = fractions[0] * n, (fractions[0] + fractions[1]) * n
    train: list[int] = []
    valid: list[int] = []
    test: list[int] = []
    for group in sorted(groups, key=lambda group: (len(group), group[0]), reverse=True):
        if len(train) + len(group) <= ends[0]:
            train += group
        elif len(train) + len(valid) + len(group) <= ends[1]:
            valid += group
        else:
            test += group
    rows = (torch.tensor(sorted(split), dtype=torch.long) for split in (train, valid, test))
    return dict(zip(NAMES, rows, strict=True))


def cached_scaffold_split(smiles: Sequence[str]) -> dict[str, Tensor]:
    """`scaffold_split(smiles)`, kept in the cache folder: 40,000 molecules take seconds."""
    rows = cached_tensors(f"scaffold-split/{digest(smiles)}", lambda: scaffold_split(smiles))
    return {name: rows[name] for name in NAMES}


def scaffold(mol: Chem.Mol) -> str:
    """Canonical SMILES of the Bemis-Murcko scaffold, chirality included; empty without a ring."""
    # RDKit's own MurckoScaffoldSmiles checks valences again: it fails on leniently read molecules
    core = Chem.MurckoDecompose(mol)
    core.ClearComputedProps()
    core.UpdatePropertyCache(strict=False)
    Chem.GetSymmSSSR(core)
    smiles: str = Chem.MolToSmiles(core, isomericSmiles=True)
    return smiles


def random_split(
    n: int,
    *,
    rng: torch.Generator,
    fractions: tuple[float, float, float] = (0.8, 0.1, 0.1),
) -> dict[str, Tensor]:
    """Rows 0 to n-1 dealt at random, each split in ascending order.

    Args:
        n: number of rows.
        rng: draws the order.
        fractions: shares of train, valid and test.

    Raises:
        ValueError: the fractions are not shares of a whole.
    """
    _check(fractions)
    ends = [round(fractions[0] * n), round((fractions[0] + fractions[1]) * n)]
    parts = torch.randperm(n, generator=rng).tensor_split(ends)
    return {name: rows.sort().values for name, rows in zip(NAMES, parts, strict=True)}


def shifted_split(scaffold: Mapping[str, Tensor], *, rng: torch.Generator) -> dict[str, Tensor]:
    """Train, valid and test at random, and beside them `ood`, whose scaffolds none of them has.

    The same run is then scored on molecules like those it trained on (`test`) and on others
    (`ood`), as Kumar et al. (2022) compare LP, FT and LP-FT.

    Args:
        scaffold: a scaffold split; its test rows become `ood`, the others are dealt 8 : 1 : 1.
        rng: draws the order.

    Returns:
        ascending row numbers of "train", "valid", "test" and "ood".
    """
    rest = torch.cat([scaffold["train"], scaffold["valid"]]).sort().values
    return {**_dealt(rest, rng), "ood": scaffold["test"]}


def chosen_split(
    split: Split, seed: int | None, *, rows: Tensor, scaffold: Callable[[], dict[str, Tensor]]
) -> dict[str, Tensor]:
    """The split that an option names.

    Args:
        split: by scaffold, at random, or both as in `shifted_split`.
        seed: of the random ones, 0 by default.
        rows: numbers of the molecules to deal at random.
        scaffold: gives the scaffold split; called only where it is needed.
    """
    rng = torch.Generator().manual_seed(seed or 0)
    if split == "random":
        return _dealt(rows, rng)
    return scaffold() if split == "scaffold" else shifted_split(scaffold(), rng=rng)


def check_choice(split: str, seed: int | None, choices: Sequence[str]) -> None:
    """Refuse a split that is none of `choices`, and a seed for one that nothing draws.

    Raises:
        ValueError: one of these.
    """
    if split not in choices:
        *others, last = choices
        raise ValueError(f"split should be {', '.join(others)} or {last}, got {split!r}")
    if seed is not None and split not in _DRAWN:
        raise ValueError(
            f"split_seed is for split {' and '.join(_DRAWN)} only; got split {split!r} and "
            f"split_seed {seed}: leave it out"
        )


def column_split(values: Sequence[str]) -> dict[str, Tensor]:
    """Splits as a table names them: row i is in the split `values[i]`.

    Names are read without regard to case or surrounding spaces; "val", "validation" and "dev" mean
    "valid". Any name beside train, valid and test is a further split.

    Returns:
        ascending row numbers of "train", "valid", "test", then of the further splits by name.

    Raises:
        ValueError: a row names no split, or one of train, valid and test is never named.
    """
    names = [_SPELLINGS.get(value, value) for value in (v.strip().lower() for v in values)]
    found = set(names)
    if "" in found:
        raise ValueError(f"every row should name its split; row {names.index('')} names none")
    if missing := [name for name in NAMES if name not in found]:
        raise ValueError(
            f"a split column should name train, valid and test; {' and '.join(missing)} "
            f"never occurs, found: {', '.join(sorted(found)[:10]) or 'no rows'}"
        )
    further = sorted(found.difference(NAMES))
    rows: dict[str, list[int]] = {name: [] for name in (*NAMES, *further)}
    for i, name in enumerate(names):
        rows[name].append(i)
    return {name: torch.tensor(index, dtype=torch.long) for name, index in rows.items()}


def _dealt(rows: Tensor, rng: torch.Generator) -> dict[str, Tensor]:
    return {name: rows[index] for name, index in random_split(len(rows), rng=rng).items()}


def _scaffold_groups(smiles: Sequence[str]) -> list[list[int]]:
    groups: dict[str, list[int]] = {}
    for i, text in enumerate(track(smiles, "finding scaffolds")):
        if (mol := parse(text)) is not None:
            groups.setdefault(scaffold(mol), []).append(i)
    return list(groups.values())


def _check(fractions: tuple[float, float, float]) -> None:
    if min(fractions) < 0 or fractions[0] == 0 or not isclose(sum(fractions), 1, abs_tol=1e-6):
        raise ValueError(
            "split fractions should be shares of train (above 0), valid and test that sum to 1, "
            f"got {fractions}"
        )
