"""Molecules that an estimator sets aside to validate on."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from molhpft.core.objectives import Multilabel
from molhpft.domains.molecules.examples import molecule_task
from molhpft.domains.molecules.smiles import parse
from molhpft.domains.molecules.splits import scaffold
from molhpft.estimator.train import held_out, thin_notes

UNREADABLE = ("no molecule", "")
POOL = ["CCO", "CCN", "c1ccccc1", "Cc1ccccc1", "C1CC1C", "O=C1CCCC1", *UNREADABLE]
molecules = st.lists(st.sampled_from(POOL), max_size=40).map(lambda more: [*POOL, "CCC", *more])
SHARES = st.floats(0.2, 0.7)
BOTH = pytest.mark.parametrize("how", ["random", "scaffold"])


@BOTH
@settings(max_examples=25, deadline=None)
@given(smiles=molecules, share=SHARES, seed=st.integers(0, 99))
def test_every_readable_molecule_is_in_exactly_one_split(how, smiles, share, seed):
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


MANY = [f"{'C' * k}C1CC1" if k % 2 else f"C1{'C' * k}CN1" for k in range(1, 101)]


@BOTH
def test_molecules_enough_are_set_aside_for_calibration(how):
    found = held_out(MANY, how, share=0.1, seed=0)
    assert list(found) == ["train", "valid", "calibration"]
    assert torch.cat(list(found.values())).sort().values.tolist() == list(range(100))
    # a sixth: a tenth would be too few for sets worth having
    assert abs(len(found["calibration"]) - 100 / 6) <= 1


@pytest.mark.parametrize("sizes", [(119, 29), (40, 40, 40)])
def test_few_large_scaffolds_are_validated_on_and_calibrate_nothing(sizes):
    smiles = [f"C1{'C' * k}C1" for k, n in enumerate(sizes, 1) for _ in range(n)]
    found = held_out(smiles, "scaffold", share=0.1, seed=0)
    assert {split: len(rows) for split, rows in found.items()} == {
        "train": sum(sizes[:-1]),
        "valid": sizes[-1],
    }


def test_a_random_holdout_deals_both_classes_to_every_split():
    y = (torch.arange(100) < 4).float()[:, None]
    found = held_out(MANY, "random", share=0.1, seed=0, labels=y)
    assert [int(y[rows].sum()) for rows in found.values()] == [2, 1, 1]


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


def labelled(columns, names):
    """A task of 60 molecules, 40 to train on and 10 each to validate and test on."""
    smiles = ["C" * k for k in range(1, 61)]
    rows = torch.arange(60)
    return molecule_task(
        "thin",
        smiles=smiles,
        targets=torch.tensor(columns, dtype=torch.float32).T,
        target_names=names,
        splits={"train": rows[:40], "valid": rows[40:50], "test": rows[50:]},
        objective=Multilabel(),
    )


BALANCED = [float(k % 2) for k in range(60)]
FOUR = [1.0, 0.0, 1.0, 0.0, *[float("nan")] * 56]


def test_a_target_with_four_labels_is_marked_as_never_validated():
    assert thin_notes(labelled([BALANCED, FOUR], ("many", "four"))) == [
        "Never validated, for the valid split (10 molecules) lacks labels of both classes: four.",
        "Not scored, for the test split (10 molecules) lacks labels of both classes: four.",
    ]


def test_splits_with_both_classes_of_every_target_need_no_words():
    assert thin_notes(labelled([BALANCED], ("many",))) == []


def test_a_thousand_targets_are_a_summary():
    notes = thin_notes(labelled([BALANCED, *[FOUR] * 1_000], [f"t{k}" for k in range(1_001)]))
    assert len(notes) == 2
    assert all(note.endswith(": t1, t2, t3, t4, t5 and 995 more.") for note in notes)
