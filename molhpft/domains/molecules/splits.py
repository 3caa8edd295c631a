"""Which molecules train, choose and test: by scaffold, at random, or by columns of a table.

Train, valid and test are there always. `calibration`, where it is asked for, is drawn as test is
and kept from training and from every choice, so that prediction sets can be fitted to it. Any
further split, such as `ood`, is another distribution: it is scored like test.
"""

from collections.abc import Callable, Hashable, Mapping, Sequence
from itertools import accumulate, pairwise
from math import isclose
from typing import Any, Literal

import torch
from rdkit import Chem
from torch import Tensor

from molhpft.domains.console import track
from molhpft.domains.files import cached_tensors, digest, listed
from molhpft.domains.molecules.smiles import parse, reading_digest

Split = Literal["scaffold", "random", "random_and_scaffold"]
Fractions = tuple[float, float, float]
"""Of train, valid and test."""

NAMES = ("train", "valid", "test")
CALIBRATION = "calibration"
OWN_SPLITS = ("train", "valid", CALIBRATION, "test")
"""Splits of the distribution of training; all others are out of it."""
SPELLINGS = {
    **{name: name for name in (*NAMES, CALIBRATION, "ood")},
    "training": "train",
    "val": "valid",
    "validation": "valid",
    "dev": "valid",
    "cal": CALIBRATION,
    "calib": CALIBRATION,
}
"""What people call splits in lower case, and what they are called here."""

_VERSION = 1  # raised with every change of how groups are dealt
EIGHT_ONE_ONE: Fractions = (0.8, 0.1, 0.1)
_DRAWN = ("random", "random_and_scaffold", "group")


def check_choice(split: str, seed: int | None, choices: Sequence[str]) -> None:
    """Refuse a split that is none of `choices`, and a seed for one that nothing draws.

    Raises:
        ValueError: one of these.
    """
    if split not in choices:
        *others, last = choices
        raise ValueError(f"split should be {', '.join(others)} or {last}, got {split!r}")
    if seed is not None and split not in _DRAWN:
        drawn = " and ".join(name for name in _DRAWN if name in choices)
        raise ValueError(
            f"split_seed is for split {drawn} only; got split {split!r} and split_seed {seed}: "
            "leave it out"
        )


def molecule_splits(
    smiles: Sequence[str],
    split: Split,
    seed: int | None = None,
    *,
    rows: Tensor,
    fractions: Fractions = EIGHT_ONE_ONE,
    calibration: float = 0.0,
    labels: Tensor | None = None,
    together: Sequence[Sequence[int]] | None = None,
    scaffold: Callable[[], dict[str, Tensor]] | None = None,
) -> dict[str, Tensor]:
    """The split that an option names: the one splitter for data sets, tables and estimators.

    Args:
        smiles: (n,).
        split: by scaffold, at random, or both as in `shifted_split`.
        seed: of the random ones, 0 by default.
        rows: numbers of the molecules to deal at random: those that can be read.
        fractions: of train, valid and test.
        calibration: share of a fourth split.
        labels: of all molecules, (n, t), where what is drawn is to have every label in proportion.
        together: rows that no split parts, each of `rows` among them; None parts any.
        scaffold: gives a scaffold split that somebody else made, calibration included; called only
            where it is needed.
    """
    rng = torch.Generator().manual_seed(seed or 0)
    if split == "random":
        shares: dict[str, Any] = {"fractions": fractions, "calibration": calibration}
        return dealt_rows(rows, together, rng=rng, labels=labels, **shares)
    if scaffold is not None:
        by_scaffold = scaffold()
    else:
        share = calibration if split == "scaffold" else 0.0
        by_scaffold = cached_scaffold_split(smiles, fractions, calibration=share, together=together)
    if split == "scaffold":
        return by_scaffold
    return shifted_split(
        by_scaffold, rng=rng, calibration=calibration, labels=labels, together=together
    )


def scaffold_split(
    smiles: Sequence[str],
    fractions: Fractions = EIGHT_ONE_ONE,
    *,
    calibration: float = 0.0,
    together: Sequence[Sequence[int]] | None = None,
) -> dict[str, Tensor]:
    """OGB's scaffold split: no scaffold is in two splits, and the rare ones are tested on.

    Molecules with the same Bemis-Murcko scaffold, chirality included, form a group. From the
    largest group down (among equals the later one first), a group trains while it fits into the
    training share, else validates while it fits into the first two shares, else tests.

    Calibration takes its share from training. The groups that then neither train nor validate are
    dealt to test and calibration at random, the same way on every call, so that the scaffolds of
    one are as rare as those of the other. A group larger than half of all held-out molecules
    trains, even where training then has more than its share: held out, it would fill a split by
    itself. The other splits then share what is left in proportion. Where groups are so few and
    large that a split would come out empty, no molecules are set aside for calibration.

    >>> rows = scaffold_split(["C1CC1", *["c1ccccc1"] * 8, "C1CCC1"])
    >>> rows["train"].tolist(), rows["valid"].tolist(), rows["test"].tolist()
    ([1, 2, 3, 4, 5, 6, 7, 8], [9], [0])

    Args:
        smiles: (n,); those that cannot be read enter no split and no share.
        fractions: shares of train, valid and test.
        calibration: share of a fourth split.
        together: as of `scaffold_groups`; None for the split that OGB makes.

    Returns:
        ascending row numbers of "train", "valid", "test" and, with a share for which there are
        scaffolds enough, "calibration".

    Raises:
        ValueError: the fractions are not shares of a whole.
    """
    shares = split_shares(fractions, calibration)
    groups = scaffold_groups(smiles, together)
    dealt = _by_size(groups, shares)
    if calibration and not all(dealt[name] for name, share in shares.items() if share):
        dealt = _by_size(groups, split_shares(fractions, 0.0))
    return {name: torch.tensor(sorted(rows), dtype=torch.long) for name, rows in dealt.items()}


def cached_scaffold_split(
    smiles: Sequence[str],
    fractions: Fractions = EIGHT_ONE_ONE,
    *,
    calibration: float = 0.0,
    together: Sequence[Sequence[int]] | None = None,
) -> dict[str, Tensor]:
    """`scaffold_split`, kept in the cache folder: 40,000 molecules take seconds."""
    key = f"scaffold-split/{reading_digest(smiles, _VERSION)}"
    if fractions != EIGHT_ONE_ONE:
        key += f"-fractions-{'-'.join(map(repr, fractions))}"
    if calibration:
        key += f"-calibration-{calibration!r}"
    if together is not None:
        key += f"-together-{digest(repr([list(group) for group in together]))}"
    options: dict[str, Any] = {"calibration": calibration, "together": together}
    rows = cached_tensors(key, lambda: scaffold_split(smiles, fractions, **options))
    return {name: rows[name] for name in (*NAMES, CALIBRATION) if name in rows}


def scaffold(mol: Chem.Mol) -> str:
    """Canonical SMILES of the Bemis-Murcko scaffold, chirality included; empty without a ring."""
    # RDKit's own MurckoScaffoldSmiles checks valences again: it fails on leniently read molecules
    core = Chem.MurckoDecompose(mol)
    core.ClearComputedProps()
    core.UpdatePropertyCache(strict=False)
    Chem.GetSymmSSSR(core)
    smiles: str = Chem.MolToSmiles(core, isomericSmiles=True)
    return smiles


def scaffold_groups(
    smiles: Sequence[str], together: Sequence[Sequence[int]] | None = None
) -> list[list[int]]:
    """Rows of the molecules that share a scaffold, group by group; unreadable ones are in none.

    >>> scaffold_groups(["C1CC1", "CC1CC1", "C1CC1.OC(=O)c1ccccc1", "Cc1ccccc1"])
    [[0, 1], [2], [3]]
    >>> scaffold_groups(["C1CC1", "CC1CC1", "C1CC1.OC(=O)c1ccccc1"], [[0, 2], [1]])
    [[0, 1, 2]]

    Args:
        smiles: (n,).
        together: rows of each molecule that can be read (`replicates`), whose scaffolds then form
            one group: those of a salt's counter-ion, of another tautomer or stereoisomer.
    """
    groups: dict[str, list[int]] = {}
    for i, text in enumerate(track(smiles, "finding scaffolds")):
        if (mol := parse(text)) is not None:
            groups.setdefault(scaffold(mol), []).append(i)
    if together is None:
        return list(groups.values())
    molecules = [-1] * len(smiles)
    for number, rows in enumerate(together):
        for row in rows:
            molecules[row] = number
    return joined_groups(list(groups.values()), molecules)


def joined_groups(groups: Sequence[Sequence[int]], labels: Sequence[Hashable]) -> list[list[int]]:
    """Groups joined where rows of several of them have one label.

    >>> joined_groups([[0, 3], [1], [2]], ["a", "b", "c", "b"])
    [[0, 1, 3], [2]]

    Args:
        groups: of rows, each row in one of them.
        labels: (n,), of all rows.

    Returns:
        ascending rows of each group, the groups in the order of their first row.
    """
    parents = list(range(len(groups)))

    def root(group: int) -> int:
        while parents[group] != group:
            parents[group] = group = parents[parents[group]]
        return group

    first: dict[Hashable, int] = {}
    for number, rows in enumerate(groups):
        for row in rows:
            other = root(first.setdefault(labels[row], number))
            parents[max(other, root(number))] = min(other, root(number))
    joined: dict[int, list[int]] = {}
    for number, rows in enumerate(groups):
        joined.setdefault(root(number), []).extend(rows)
    return sorted(sorted(rows) for rows in joined.values())


def random_split(
    n: int,
    *,
    rng: torch.Generator,
    fractions: Fractions = EIGHT_ONE_ONE,
    calibration: float = 0.0,
    labels: Tensor | None = None,
    together: Sequence[Sequence[int]] | None = None,
) -> dict[str, Tensor]:
    """Rows 0 to n-1 dealt at random, each split in ascending order.

    Args:
        n: number of rows.
        rng: draws the order.
        fractions: shares of train, valid and test.
        calibration: share of a fourth split, which training gives up.
        labels: (n, t) of 0, 1 or NaN; both labels of every target are then dealt to all splits in
            proportion, the rarest first (iterative stratification, Sechidis et al. 2011). Of a
            label too rare for that, what training does not need goes to valid, then to test, then
            to calibration, one each.
        together: groups of rows that are dealt whole, by the label that most of them have; None
            deals each row.

    Returns:
        row numbers of "train", "valid", "test" and, with a share, "calibration".

    Raises:
        ValueError: the fractions are not shares of a whole.
    """
    if together is not None:
        own = None if labels is None else _common_labels(labels, together)
        dealt = random_split(
            len(together), rng=rng, fractions=fractions, calibration=calibration, labels=own
        )
        return {name: _rows_of(together, groups) for name, groups in dealt.items()}
    shares = split_shares(fractions, calibration)
    ends = [0, *(round(end * n) for end in accumulate(shares.values()))]
    order = torch.randperm(n, generator=rng)
    sizes = [end - start for start, end in pairwise(ends)]
    parts = torch.split(order, sizes) if labels is None else _stratified(order, sizes, labels)
    return {name: rows.sort().values for name, rows in zip(shares, parts, strict=True)}


def random_folds(
    n: int,
    count: int,
    *,
    rng: torch.Generator,
    labels: Tensor | None = None,
    together: Sequence[Sequence[int]] | None = None,
) -> list[Tensor]:
    """Rows 0 to n-1 dealt at random to folds of equal size, or one more, each in ascending order.

    Args:
        n: number of rows.
        count: of folds.
        rng: draws the order.
        labels: (n, t) of 0, 1 or NaN, dealt in proportion as by `random_split`.
        together: groups of rows that are dealt whole, as by `random_split`; folds are then of equal
            numbers of groups.
    """
    if together is not None:
        own = None if labels is None else _common_labels(labels, together)
        dealt = random_folds(len(together), count, rng=rng, labels=own)
        return [_rows_of(together, groups) for groups in dealt]
    order, sizes = (
        torch.randperm(n, generator=rng),
        [len(p) for p in torch.arange(n).tensor_split(count)],
    )
    parts = torch.split(order, sizes) if labels is None else _stratified(order, sizes, labels)
    return [part.sort().values for part in parts]


def shifted_split(
    scaffold: Mapping[str, Tensor],
    *,
    rng: torch.Generator,
    calibration: float = 0.0,
    labels: Tensor | None = None,
    together: Sequence[Sequence[int]] | None = None,
) -> dict[str, Tensor]:
    """Train, valid and test at random, and beside them `ood`, whose scaffolds none of them has.

    The same run is then scored on molecules like those it trained on (`test`) and on others
    (`ood`), as Kumar et al. (2022) compare LP, FT and LP-FT.

    Args:
        scaffold: a scaffold split; its test rows become `ood`, the others are dealt 8 : 1 : 1.
        rng: draws the order.
        calibration: share of a fourth split of those others.
        labels: of all rows, for dealing every label of those others in proportion.
        together: rows that are not parted, each of those others among them; None parts any.

    Returns:
        ascending row numbers of "train", "valid", "test" and "ood".
    """
    rest = torch.cat([scaffold["train"], scaffold["valid"]]).sort().values
    dealt = dealt_rows(rest, together, rng=rng, labels=labels, calibration=calibration)
    return {**dealt, "ood": scaffold["test"]}


def column_split(
    values: Sequence[str],
    *,
    source: str = "a table",
    lines: Sequence[int] | None = None,
    unit: str = "row",
    needed: Sequence[str] = NAMES,
) -> dict[str, Tensor]:
    """Splits as a table names them: row i is in the split `values[i]`.

    Names are read without regard to case or surrounding spaces, and as `SPELLINGS` has them. Any
    name beside these is a further split.

    >>> {name: rows.tolist() for name, rows in column_split(["Train", "val", "test"]).items()}
    {'train': [0], 'valid': [1], 'test': [2]}

    Args:
        values: (n,).
        source: what errors call the table.
        lines: (n,), where the table has each row; counted from 0 where left out.
        unit: what `lines` are.
        needed: names that have to occur.

    Returns:
        ascending row numbers of those of "train", "valid", "test" that occur, then of the further
        splits by name.

    Raises:
        ValueError: a row names no split, or one of `needed` is never named.
    """
    names = [SPELLINGS.get(value, value) for value in (v.strip().lower() for v in values)]
    distinct = set(names)
    if "" in distinct:
        row = names.index("")
        raise ValueError(
            f"every row of {source} should name its split; "
            f"{unit} {lines[row] if lines else row} names none"
        )
    if missing := [name for name in needed if name not in distinct]:
        raise ValueError(
            f"the split column of {source} should name {listed(needed)}; it has no row of "
            f"{' or '.join(missing)}, found: {listed(sorted(distinct), most=10) or 'no rows'}; "
            f"{_without_rows_of(missing)}"
        )
    ordered = [n for n in NAMES if n in distinct] + sorted(distinct.difference(NAMES))
    rows: dict[str, list[int]] = {name: [] for name in ordered}
    for i, name in enumerate(names):
        rows[name].append(i)
    return {name: torch.tensor(index, dtype=torch.long) for name, index in rows.items()}


def _without_rows_of(missing: Sequence[str]) -> str:
    """What to do about a column that never names some splits."""
    if "train" in missing:
        return "give another column, or call what learns train"
    rows = f"call some of its rows {' and some '.join(missing)}"
    if "test" in missing:
        return f"{rows}, or let another split than the column's be drawn"
    return f"{rows}, or take folds, which validate on the others in turn (--folds 5 in finetune)"


def split_shares(fractions: Fractions, calibration: float) -> dict[str, float]:
    """Shares of all splits by name; calibration's is taken from training's.

    Raises:
        ValueError: the fractions are not shares of a whole.
    """
    if min(fractions) < 0 or fractions[0] == 0 or not isclose(sum(fractions), 1, abs_tol=1e-6):
        raise ValueError(
            "split fractions should be shares of train (above 0), valid and test that sum to 1, "
            f"got {fractions}"
        )
    if not 0 <= calibration < fractions[0]:
        raise ValueError(
            f"calibration should be a share below that of train, {fractions[0]:g}, "
            f"got {calibration:g}"
        )
    shares = dict(zip(NAMES, fractions, strict=True))
    if calibration:
        shares["train"] -= calibration
        shares[CALIBRATION] = calibration
    return shares


def dealt_groups(
    groups: Sequence[Sequence[int]], shares: Mapping[str, float], *, rng: torch.Generator
) -> dict[str, list[int]]:
    """Whole groups at random, each to the split that lacks most; the first of equals."""
    if len(shares) == 1:
        return {name: [row for group in groups for row in group] for name in shares}
    dealt: dict[str, list[int]] = {name: [] for name in shares}
    n, whole = sum(map(len, groups)), sum(shares.values())
    for k in torch.randperm(len(groups), generator=rng).tolist():
        lacking = {name: shares[name] / whole * n - len(rows) for name, rows in dealt.items()}
        dealt[max(lacking, key=lambda name: lacking[name])] += groups[k]
    return dealt


def dealt_rows(
    rows: Tensor,
    together: Sequence[Sequence[int]] | None,
    *,
    rng: torch.Generator,
    labels: Tensor | None,
    **shares: Any,
) -> dict[str, Tensor]:
    """`random_split` of some of the rows of a table, whose labels and groups are of all rows."""
    own = None if labels is None else labels[rows]
    if together is not None:
        place = {row: k for k, row in enumerate(rows.tolist())}
        groups = ([place[row] for row in group if row in place] for group in together)
        together = [group for group in groups if group]
    dealt = random_split(len(rows), rng=rng, labels=own, together=together, **shares)
    return {name: rows[index] for name, index in dealt.items()}


def _rows_of(groups: Sequence[Sequence[int]], numbers: Tensor) -> Tensor:
    """Ascending rows of some of the groups."""
    rows = sorted(row for number in numbers.tolist() for row in groups[number])
    return torch.tensor(rows, dtype=torch.long)


def _common_labels(labels: Tensor, groups: Sequence[Sequence[int]]) -> Tensor:
    """Of each group the label that most of its rows have, 1 of equally many; NaN without any."""
    means = torch.empty(len(groups), labels.shape[1])
    for number, group in enumerate(groups):
        means[number] = labels[list(group)].float().nanmean(0)
    return torch.where(means.isnan(), means, (means >= 0.5).float())


def _by_size(groups: Sequence[list[int]], shares: Mapping[str, float]) -> dict[str, Sequence[int]]:
    """Whole groups by the rules of `scaffold_split`."""
    n = sum(len(group) for group in groups)
    end = shares["train"] * n
    largest = (n - end) / 2 if CALIBRATION in shares else n
    train: list[int] = []
    valid: list[int] = []
    rare: list[list[int]] = []
    for group in sorted(groups, key=lambda group: (len(group), group[0]), reverse=True):
        if len(train) + len(group) <= end or len(group) > largest:
            train += group
        elif len(train) + len(valid) + len(group) <= _end_of_valid(len(train), n, shares):
            valid += group
        else:
            rare.append(group)
    further = {name: share for name, share in shares.items() if name not in ("train", "valid")}
    same = torch.Generator().manual_seed(0)  # on every call
    return {"train": train, "valid": valid, **dealt_groups(rare, further, rng=same)}


def _end_of_valid(train: int, n: int, shares: Mapping[str, float]) -> float:
    """How many molecules may train or validate; a split's share, or of what training leaves."""
    if train <= shares["train"] * n:
        return (shares["train"] + shares["valid"]) * n
    return train + shares["valid"] / (1 - shares["train"]) * (n - train)


def _stratified(order: Tensor, sizes: Sequence[int], labels: Tensor) -> list[Tensor]:
    """Parts of `order`, of these sizes, which hold every label in proportion."""
    labels, part = labels[order], torch.full((len(order),), -1)
    room, everywhere = list(sizes), range(len(sizes))
    sides = [labels[:, k] == label for k in range(labels.shape[1]) for label in (0, 1)]
    sides = sorted(sides, key=lambda side: int(side.sum()))
    for side in (*sides, torch.ones(len(order), dtype=torch.bool)):
        rows = (side & (part < 0)).nonzero().flatten()
        if not len(rows):
            continue
        have = torch.bincount(part[side & (part >= 0)], minlength=len(sizes)).tolist()
        fair = [
            int(side.sum()) * size / len(order) - has for size, has in zip(sizes, have, strict=True)
        ]
        # a part without any of them goes before a second one elsewhere
        fair = [max(wish, 1.0) if not has else wish for wish, has in zip(fair, have, strict=True)]
        given = []
        for _ in rows:
            to = max((s for s in everywhere if room[s]), key=lambda s: fair[s])
            room[to], fair[to] = room[to] - 1, fair[to] - 1
            given.append(to)
        part[rows] = torch.tensor(given)
    return [order[part == s] for s in everywhere]
