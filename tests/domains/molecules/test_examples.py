import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from molhpft.core.objectives import Multilabel, Squared
from molhpft.domains.molecules.examples import molecule_task
from molhpft.domains.molecules.graphs import pack

SMILES = ("CCO", "c1ccccc1", "no molecule", "C", "CC(=O)O", "C1CC1")
NAN = float("nan")
TARGETS = torch.tensor([[0, 1], [1, NAN], [1, 1], [NAN, 0], [1, 1], [0, NAN]])


def _task(**changes):
    given = {
        "smiles": SMILES,
        "targets": TARGETS,
        "target_names": ("active", "toxic"),
        "splits": {"train": torch.arange(4), "valid": torch.tensor([4]), "test": torch.tensor([5])},
        "objective": Multilabel(),
    }
    return molecule_task("six", **{**given, **changes})


@settings(max_examples=25, deadline=None)
@given(st.lists(st.integers(0, 5), min_size=1, max_size=8))
def test_a_batch_has_the_graphs_and_labels_of_its_rows_in_order(rows):
    index = torch.tensor(rows)
    batch = _task().examples.take(index)
    alone = pack([SMILES[row] for row in rows]).take(torch.arange(len(rows)))
    assert torch.equal(batch.inputs.atoms, alone.atoms)
    assert torch.equal(batch.inputs.offsets, alone.offsets)
    assert torch.equal(batch.targets.nan_to_num(7), TARGETS[index].nan_to_num(7))


def test_an_unreadable_molecule_keeps_its_row_and_leaves_its_split():
    task = _task()
    assert len(task.examples) == len(task.examples.store) == 6
    assert task.splits["train"].tolist() == [0, 1, 3]


def test_a_task_knows_its_outputs_and_their_names():
    task = _task()
    assert (task.outputs, task.target_names) == (2, ("active", "toxic"))
    assert task.examples.take(torch.arange(2)).targets.dtype == torch.float32


def test_moving_a_task_leaves_its_batches_alone():
    task = _task()
    there = next(task.to("cpu").batches("train", size=8))
    here = next(task.batches("train", size=8))
    assert torch.equal(there.inputs.atoms, here.inputs.atoms)


def test_the_same_content_has_the_same_fingerprint():
    quiet_nan = TARGETS.clone()
    quiet_nan[quiet_nan.isnan()] = -torch.tensor(NAN)
    assert _task().fingerprint == _task(smiles=list(SMILES), targets=quiet_nan).fingerprint
    assert len(_task().fingerprint) == 64


@pytest.mark.parametrize(
    "change",
    [
        {"smiles": (*SMILES[:5], "C1CCC1")},
        {"targets": torch.where(TARGETS.isnan(), 0, TARGETS)},
        {"objective": Multilabel(metric="ap")},
        {"objective": Squared()},
        {"splits": {"train": torch.arange(5), "valid": torch.tensor([5])}},
        {"splits": {"train": torch.arange(4), "valid": torch.tensor([4]), "x": torch.tensor([5])}},
    ],
    ids=lambda change: next(iter(change)),
)
def test_any_other_content_has_another_fingerprint(change):
    assert _task(**change).fingerprint != _task().fingerprint


def test_a_regression_needs_no_classes():
    targets = torch.full((6, 2), 2.5)
    assert torch.equal(_task(targets=targets, objective=Squared()).examples.targets, targets)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"smiles": ("nothing",) * 6}, "six should hold SMILES; none of its 6 can be read"),
        ({"targets": TARGETS * torch.tensor([1, NAN])}, "'toxic' of six should have labels; all 5"),
        (
            {"targets": TARGETS * torch.tensor([0, 1])},
            "'active' of six .* both classes.* has: 0: leave .* class; 1 of 6 mol",
        ),
        (
            {"targets": TARGETS * 2},
            "'active' of six should have labels of both .* 0, 2: leave .*; 1 of",
        ),
        (
            {"splits": {"train": torch.tensor([2])}},
            "split 'train' of six, of 6 .* is empty; give more",
        ),
    ],
)
def test_what_cannot_be_trained_on_is_one_sentence(change, message):
    with pytest.raises(ValueError, match=message):
        _task(**change)


def test_labels_of_unreadable_molecules_do_not_count():
    targets = torch.tensor([[0.0], [0.0], [1.0], [0.0], [0.0], [0.0]])
    with pytest.raises(ValueError, match="both classes") as caught:
        _task(targets=targets, target_names=("active",))
    left_out = (
        f"of the other class; 1 of 6 molecules cannot be read and was left out: {SMILES[2]!r}"
    )
    assert str(caught.value).endswith(left_out)


def test_standardised_targets_have_mean_0_and_deviation_1_over_the_training_split():
    targets = torch.tensor([[1.0, 5], [3, NAN], [9, 9], [8, 7], [4, 100], [2, 6]])
    task = _task(targets=targets, objective=Squared(), standardise=True)
    found = task.examples.targets
    train = found[task.splits["train"]]  # without the unreadable row
    torch.testing.assert_close(train.nanmean(0), torch.zeros(2), atol=1e-6, rtol=0)
    torch.testing.assert_close(train.square().nanmean(0), torch.ones(2))
    torch.testing.assert_close(task.objective.values(found).float(), targets, equal_nan=True)


def test_a_standardised_target_must_vary_over_the_training_split():
    constant = torch.tensor([[1.0, 2], [1, 2], [7, 3], [1, 4], [2, 5], [3, 6]])
    with pytest.raises(ValueError, match=r"'active' of six should differ .*all 3 are 1: leave"):
        _task(targets=constant, objective=Squared(), standardise=True)
    missing = torch.tensor([[NAN, 2], [NAN, 3], [7, 3], [NAN, 4], [2, 5], [3, 6]])
    with pytest.raises(ValueError, match=r"'active' of six should differ.*are missing: leave"):
        _task(targets=missing, objective=Squared(), standardise=True)
    with pytest.raises(ValueError, match=r"should differ .*all 3 are 1: nothing to learn from"):
        _task(targets=torch.ones(6, 2), objective=Squared(), standardise=True)
