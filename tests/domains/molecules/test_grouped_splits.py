"""No split parts a molecule, a group or a time, and what is held out by time is newer."""

from itertools import pairwise

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from rdkit import Chem

from molhpft.domains.molecules.grouped_splits import (
    grouped_split,
    replicates,
    time_split,
)
from molhpft.domains.molecules.splits import joined_groups, molecule_splits

WORDS = ["CCO", "OCC", "c1ccccc1", "C1=CC=CC=C1", "x", "CCN", "N(C)C", "CCN.Cl"]


@given(st.lists(st.sampled_from(WORDS), max_size=20))
def test_rows_of_one_molecule_are_one_group_and_unreadable_ones_are_in_none(smiles):
    groups = replicates(smiles)
    assert sorted(row for rows in groups for row in rows) == [
        row for row, text in enumerate(smiles) if text != "x"
    ]
    names = [{Chem.CanonSmiles(smiles[row]).removesuffix(".Cl") for row in rows} for rows in groups]
    assert all(len(name) == 1 for name in names)
    assert len(set().union(*names)) == len(groups)


@given(st.lists(st.tuples(st.integers(0, 9), st.integers(0, 9)), min_size=1, max_size=30))
def test_groups_are_joined_where_anything_joins_them(pairs):
    numbers: dict[int, list[int]] = {}
    for row, (number, _) in enumerate(pairs):
        numbers.setdefault(number, []).append(row)
    joined = joined_groups(list(numbers.values()), [label for _, label in pairs])
    group_of = {row: k for k, rows in enumerate(joined) for row in rows}
    assert sorted(group_of) == list(range(len(pairs)))
    for a, one in enumerate(pairs):
        for b, other in enumerate(pairs):
            if one[0] == other[0] or one[1] == other[1]:
                assert group_of[a] == group_of[b]
    # and nowhere else: within a group, rows reach one another step by step
    for rows in joined:
        reached, new = {rows[0]}, [rows[0]]
        while new:
            row = new.pop()
            near = {b for b in rows if pairs[b][0] == pairs[row][0] or pairs[b][1] == pairs[row][1]}
            new += near - reached
            reached |= near
        assert reached == set(rows)


@given(sizes=st.lists(st.integers(1, 5), min_size=20, max_size=40), seed=st.integers(0, 99))
def test_no_group_is_in_two_splits_and_shares_are_kept(sizes, seed):
    groups = [k for k, size in enumerate(sizes) for _ in range(size)]
    alone = [[row] for row in range(len(groups))]
    splits = grouped_split(alone, groups=groups, times=None, seed=seed, calibration=0.1)
    own = [{groups[row] for row in rows.tolist()} for rows in splits.values()]
    assert sum(map(len, own)) == len(sizes)
    assert torch.cat(list(splits.values())).sort().values.tolist() == list(range(len(groups)))
    assert abs(len(splits["train"]) - 0.7 * len(groups)) <= 5
    assert list(splits) == ["train", "valid", "test", "calibration"]


def test_groups_that_leave_a_split_empty_are_refused():
    alone = [[row] for row in range(20)]
    with pytest.raises(
        ValueError, match=r"of 2 valid gets none: take smaller .* folds \(--folds in"
    ):
        grouped_split(alone, groups=[0, 1] * 10, times=None, seed=0)


@settings(deadline=None)
@given(times=st.lists(st.integers(0, 500), min_size=50, max_size=80, unique=True))
def test_what_is_held_out_by_time_is_newer_and_the_newest_tests(times):
    alone = [[row] for row in range(len(times))]
    splits = time_split(alone, times, calibration=0.1)
    when = torch.tensor(times)
    parts = [when[splits[name]] for name in ("train", "valid", "calibration", "test")]
    assert all(a.max() < b.min() for a, b in pairwise(parts))
    assert sum(map(len, parts)) == len(times)
    assert abs(len(parts[0]) - 0.7 * len(times)) <= 1


@pytest.mark.parametrize("split", ["random", "scaffold", "random_and_scaffold"])
def test_a_split_of_a_table_parts_no_molecule(split):
    smiles = [f"C1{'C' * n}1{end}" for n in range(2, 22) for end in ("O", "N")]
    smiles += [f"OC1{'C' * n}1.C1CC1" for n in range(2, 22)]
    rows, labels = torch.arange(60), (torch.arange(60) % 2).float()[:, None]
    for seed in range(5):
        splits = molecule_splits(
            *(smiles, split, seed), rows=rows, labels=labels, together=replicates(smiles)
        )
        of = {row: name for name, part in splits.items() for row in part.tolist()}
        assert all(of[2 * k] == of[40 + k] for k in range(20))
        assert len(of) == 60
