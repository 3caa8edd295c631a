"""Molecules that an estimator sets aside to validate on."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from molhpft.domains.molecules.featurize import parse
from molhpft.domains.molecules.splits import scaffold
from molhpft.estimator.holdout import held_out

UNREADABLE = ("no molecule", "")
POOL = ["CCO", "CCN", "c1ccccc1", "Cc1ccccc1", "C1CC1C", "O=C1CCCC1", *UNREADABLE]
molecules = st.lists(st.sampled_from(POOL), max_size=40).map(lambda more: [*POOL, "CCC", *more])
SHARES = st.floats(0.2, 0.7)
BOTH = pytest.mark.parametrize("how", ["random", "scaffold"])


@BOTH
@settings(max_examples=25, deadline=None)
@given(smiles=molecules, share=SHARES, seed=st.integers(0, 99))
def test_every_readable_molecule_is_in_exactly_one_of_two_splits(how, smiles, share, seed):
    found = held_out(smiles, how, share=share, seed=seed)
    assert list(found) == ["train", "valid"]
    rows = torch.cat(list(found.values())).sort().values.tolist()
    assert rows == [k for k, text in enumerate(smiles) if text not in UNREADABLE]


@settings(max_examples=25, deadline=None)
@given(smiles=molecules, share=SHARES, seed=st.integers(0, 99))
def test_a_random_holdout_has_its_share_and_a_seed_draws_it_again(smiles, share, seed):
    found = held_out(smiles, "random", share=share, seed=seed)
    readable = sum(map(len, found.values()))
    assert abs(len(found["valid"]) - share * readable) <= 0.5 + 1e-9
    again = held_out(smiles, "random", share=share, seed=seed)
    assert all(again[split].equal(rows) for split, rows in found.items())


def test_another_seed_draws_another_holdout():
    found = [held_out(["C" * k for k in range(1, 50)], "random", share=0.5, seed=s) for s in (0, 1)]
    assert not found[0]["valid"].equal(found[1]["valid"])


@settings(max_examples=25, deadline=None)
@given(smiles=molecules, share=SHARES)
def test_a_scaffold_is_never_in_both_splits(smiles, share):
    found = held_out(smiles, "scaffold", share=share, seed=0)
    train, valid = ({scaffold(parse(smiles[k])) for k in rows} for rows in found.values())
    assert not train & valid


@BOTH
@pytest.mark.parametrize("share", [0.0, 1.0, -0.1, 1.5, float("nan")])
def test_a_share_lies_between_0_and_1(how, share):
    with pytest.raises(ValueError, match="a share between 0 and 1, got"):
        held_out(POOL, how, share=share, seed=0)


@BOTH
@pytest.mark.parametrize("smiles", [[], ["CCO"], ["no molecule"], ["", "", "CC"]])
def test_what_leaves_a_split_empty_is_refused(how, smiles):
    with pytest.raises(ValueError, match=rf"{len(smiles)} molecules leave none to (train|valid)"):
        held_out(smiles, how, share=0.1, seed=0)
