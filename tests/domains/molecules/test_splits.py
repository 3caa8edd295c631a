import re

import pandas as pd
import pytest
import torch
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st
from rdkit import Chem
from rdkit.Chem.Scaffolds import MurckoScaffold

from molhpft.domains.molecules import splits as splits_module
from molhpft.domains.molecules.calibration_split import (
    calibration_notes,
    calibration_share,
    with_calibration,
)
from molhpft.domains.molecules.smiles import parse
from molhpft.domains.molecules.splits import (
    cached_scaffold_split,
    check_choice,
    column_split,
    molecule_splits,
    random_split,
    scaffold,
    scaffold_split,
    shifted_split,
)
from tests.marks import slow

POOL = ["CCO", "CCN", "c1ccccc1", "Cc1ccccc1", "C1CC1C", "O=C1CCCC1", "c1ccc2ccccc2c1", "C1CCNCC1"]
REFUSED = "C[Al](C)(C)(C)(C)C"  # a valence RDKit refuses; OGB keeps such molecules
SPLITS = ("train", "valid", "test")
ALONE = [[row] for row in range(70)]

molecules = st.lists(st.sampled_from([*POOL, "not a molecule"]), max_size=40)
fractions = st.tuples(st.integers(1, 9), st.integers(0, 9), st.integers(0, 9)).map(
    lambda parts: tuple(part / sum(parts) for part in parts)
)


def _rows(splits):
    return torch.cat([splits[name] for name in SPLITS]).sort().values.tolist()


@pytest.mark.parametrize("name", ["bace", "esol", "freesolv", slow("tox21"), slow("hiv")])
def test_the_scaffold_split_is_that_of_ogb(ogb_root, name):
    folder = ogb_root / f"ogbg_mol{name}"
    smiles = pd.read_csv(folder / "mapping" / "mol.csv.gz", usecols=["smiles"])["smiles"]
    ours = scaffold_split(smiles.tolist())
    for split in SPLITS:
        rows = pd.read_csv(folder / "split" / "scaffold" / f"{split}.csv.gz", header=None)[0]
        assert ours[split].tolist() == rows.tolist()


def scaffolds(smiles, rows):
    return {scaffold(parse(smiles[i])) for i in rows.tolist()}


@settings(max_examples=60, deadline=None)
@given(molecules, fractions, st.sampled_from([0.0, 0.05, 0.3]))
def test_a_scaffold_split_deals_every_readable_molecule_once_and_shares_no_scaffold(
    smiles, shares, calibration
):
    assume(calibration < shares[0])
    splits = scaffold_split(smiles, shares, calibration=calibration)
    rows = torch.cat(list(splits.values())).sort().values.tolist()
    assert rows == [i for i, text in enumerate(smiles) if text != "not a molecule"]
    assert all(torch.equal(rows, rows.sort().values) for rows in splits.values())
    parts = [scaffolds(smiles, part) for part in splits.values()]
    assert sum(map(len, parts)) == len(set().union(*parts))
    assert calibration or len(splits["train"]) <= shares[0] * len(rows)


def test_a_raised_version_is_another_key_of_the_cache_and_so_is_another_share(
    tmp_path, monkeypatch
):
    monkeypatch.setenv("MOLHPFT_CACHE", str(tmp_path))

    def kept():
        return {path.name for path in tmp_path.rglob("*.safetensors")}

    cached_scaffold_split(POOL)
    cached_scaffold_split(POOL)
    assert len(kept()) == 1
    # shares that differ in the ninth digit, of large tables, deal other groups
    for share in (0.1, 0.1000000001):
        cached_scaffold_split(POOL, calibration=share)
    cached_scaffold_split(POOL, (0.6, 0.2, 0.2))
    assert len(kept()) == 4
    monkeypatch.setattr(splits_module, "_VERSION", splits_module._VERSION + 1)
    cached_scaffold_split(POOL)
    assert len(kept()) == 5


def test_the_largest_scaffold_trains_and_the_rarest_tests():
    splits = scaffold_split(["C1CC1", *["c1ccccc1"] * 8, "C1CCC1"])
    assert splits["train"].tolist() == list(range(1, 9))
    assert splits["valid"].tolist() == [9]
    assert splits["test"].tolist() == [0]


@pytest.mark.parametrize("smiles", POOL)
def test_the_scaffold_is_that_of_rdkit(smiles):
    mol = Chem.MolFromSmiles(smiles)
    assert scaffold(mol) == MurckoScaffold.MurckoScaffoldSmiles(mol=mol, includeChirality=True)


def test_a_molecule_that_rdkit_refuses_has_a_scaffold_too():
    assert Chem.MolFromSmiles(REFUSED) is None
    assert scaffold(parse(REFUSED)) == ""


def test_mirror_images_of_a_scaffold_are_two_scaffolds():
    left, right = (Chem.MolFromSmiles(f"C1CC[{tag}H]2OCC[{tag}H]2C1") for tag in ("C@", "C@@"))
    assert scaffold(left) != scaffold(right)


ALL = (*SPLITS, "calibration")


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 120), fractions, st.integers(0, 999), st.sampled_from([0.0, 0.02, 0.09]))
def test_a_random_split_deals_every_row_once_and_calibration_takes_from_training_alone(
    n, shares, seed, calibration
):
    assume(shares[0] > 0.1)
    splits = random_split(
        n, rng=torch.Generator().manual_seed(seed), fractions=shares, calibration=calibration
    )
    assert list(splits) == [*(ALL if calibration else SPLITS)]
    assert torch.cat(list(splits.values())).sort().values.tolist() == list(range(n))
    assert all(torch.equal(rows, rows.sort().values) for rows in splits.values())
    expected = (shares[0] - calibration, *shares[1:], calibration)
    for rows, share in zip(splits.values(), expected, strict=False):
        assert abs(len(rows) - share * n) <= 1 + 1e-9


labels = st.lists(
    st.tuples(*[st.sampled_from([0.0, 1.0, 1.0, float("nan")])] * 2), min_size=30, max_size=90
).map(torch.tensor)


@settings(max_examples=40, deadline=None)
@given(labels, st.integers(0, 999))
def test_a_stratified_split_deals_every_row_once_and_has_the_sizes_of_a_plain_one(y, seed):
    rng = torch.Generator()
    plain, dealt = (
        random_split(len(y), rng=rng.manual_seed(seed), calibration=0.1, labels=own)
        for own in (None, y)
    )
    assert torch.cat(list(dealt.values())).sort().values.tolist() == list(range(len(y)))
    assert all(len(dealt[name]) == len(plain[name]) for name in ALL)


@settings(max_examples=40, deadline=None)
@given(st.integers(10, 300), st.integers(1, 150), st.integers(0, 999))
def test_each_class_is_dealt_in_proportion(zeros, ones, seed):
    y = torch.tensor([0.0] * zeros + [1.0] * ones)[:, None]
    splits = random_split(
        len(y), rng=torch.Generator().manual_seed(seed), calibration=0.1, labels=y
    )
    for label in (0, 1):
        count = int((y == label).sum())
        for name, share in zip(ALL, (0.7, 0.1, 0.1, 0.1), strict=True):
            assert abs((y[splits[name]] == label).sum() - share * count) <= 3


@pytest.mark.parametrize(
    ("ones", "dealt"), [(1, [1, 0, 0, 0]), (2, [1, 1, 0, 0]), (4, [2, 1, 1, 0]), (7, [4, 1, 1, 1])]
)
def test_of_a_rare_class_training_has_most_and_validation_the_next(ones, dealt):
    y = torch.tensor([0.0] * 96 + [1.0] * ones)[:, None]
    splits = random_split(len(y), rng=torch.Generator().manual_seed(0), calibration=0.1, labels=y)
    assert [int(y[splits[name]].sum()) for name in ALL] == dealt


def test_the_rare_class_of_every_target_is_dealt_to_every_split():
    y = torch.zeros(400, 6)
    for k in range(6):
        y[10 * k : 10 * k + 12, k] = 1
    splits = random_split(400, rng=torch.Generator().manual_seed(0), calibration=0.1, labels=y)
    assert all((y[splits[name]].sum(0) >= 1).all() for name in ALL)


def test_calibration_scaffolds_are_as_rare_as_those_of_the_test_split():
    rare = [f"C1{'C' * k}C1" for k in range(1, 41)]
    smiles = [*["Cc1ccccc1"] * 120, *["CCO"] * 40, *rare]
    splits = scaffold_split(smiles, calibration=0.1)
    # the second largest trains too, beyond the share; the others have equal parts of what is left
    assert [len(splits[name]) for name in ALL] == [160, 13, 14, 13]
    # dealt, not cut: neither has the rows that come first
    assert splits["calibration"].min() < splits["test"].max()
    assert splits["test"].min() < splits["calibration"].max()


def test_a_scaffold_that_would_fill_what_is_held_out_trains():
    smiles = [*["CCO"] * 50, *["Cc1ccccc1"] * 24, *(f"C1{'C' * k}C1" for k in range(1, 27))]
    splits = scaffold_split(smiles, (0.9, 0.0, 0.1), calibration=0.2)
    assert set(range(74)) <= set(splits["train"].tolist())
    assert min(len(splits["test"]), len(splits["calibration"])) > 5


# rings of different sizes are different scaffolds
def series(sizes):
    """Molecules of as many scaffolds as there are sizes."""
    return [f"C1{'C' * k}C1" for k, size in enumerate(sizes, 1) for _ in range(size)]


def test_a_scaffold_that_trains_beyond_the_share_leaves_molecules_to_validate_on():
    smiles = series((60, 50, 15, 15, 10))
    found = scaffold_split(smiles, calibration=calibration_share(len(smiles)))
    assert [len(found[name]) for name in ALL] == [110, 10, 15, 15]


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.integers(1, 60), min_size=3, max_size=12),
    st.sampled_from([(0.8, 0.1, 0.1), (0.9, 0.0, 0.1)]),
)
@example((119, 29), (0.9, 0.0, 0.1))
@example((40, 40, 40), (0.9, 0.0, 0.1))
def test_calibration_empties_no_split_and_without_room_for_it_the_split_is_the_plain_one(
    sizes, shares
):
    smiles = series(sizes)
    splits = scaffold_split(smiles, shares, calibration=calibration_share(len(smiles)))
    plain = scaffold_split(smiles, shares)
    assert all(len(splits[name]) for name, rows in plain.items() if len(rows))
    assert len(splits.get("calibration", [0]))
    if "calibration" not in splits:
        assert all(torch.equal(splits[name], plain[name]) for name in plain)


@pytest.mark.parametrize(
    ("sizes", "given", "said"),
    [
        ({"train": 140, "valid": 10, "calibration": 20}, None, ()),
        ({"train": 40, "valid": 10}, None, ("that takes 60 molecules .* here they are 50",)),
        ({"train": 120, "valid": 15}, None, ("would leave another split empty",)),
        ({"train": 40, "valid": 19}, {"valid": 19}, ("20 or more, and here they are 19",)),
        (
            {"train": 40, "valid": 15, "calibration": 14},
            {"valid": 29},
            ("Of 29 given validation molecules, 15 validate and 14 calibrate",),
        ),
        ({"valid": 5, "calibration": 9}, {"valid": 5, "calibration": 9}, ()),
    ],
)
def test_why_molecules_calibrate_or_none_do_is_said(sizes, given, said):
    splits, drawn = (
        None if one is None else {name: torch.arange(n) for name, n in one.items()}
        for one in (sizes, given)
    )
    found = calibration_notes(splits, drawn)
    assert len(found) == len(said)
    assert all(re.search(words, text) for words, text in zip(said, found, strict=True))


@pytest.mark.parametrize(
    ("n", "size"), [(10, 0), (59, 0), (60, 10), (120, 20), (180, 30), (2_000, 200), (10**6, 5_000)]
)
def test_calibration_takes_a_tenth_or_what_a_quantile_is_worth(n, size):
    assert calibration_share(n) * n == pytest.approx(size)


def test_half_of_what_somebody_validates_on_calibrates():
    y = (torch.arange(60) % 3 == 0).float()[:, None]
    given = {"train": torch.arange(30), "valid": torch.arange(30, 60)}
    found = with_calibration(given, rng=torch.Generator().manual_seed(0), together=ALONE, labels=y)
    halves = found["valid"], found["calibration"]
    assert torch.equal(torch.cat(halves).sort().values, given["valid"])
    assert [(len(rows), int(y[rows].sum())) for rows in halves] == [(15, 5), (15, 5)]
    assert torch.equal(found["train"], given["train"])


@pytest.mark.parametrize(("size", "taken"), [(3, 10), (12, 12), (40, 15), (None, 15)])
def test_calibration_takes_its_size_of_validation_but_no_more_than_half(size, taken):
    given = {"train": torch.arange(30), "valid": torch.arange(30, 60)}
    rng = torch.Generator().manual_seed(0)
    found = with_calibration(given, rng=rng, together=ALONE, size=size)
    assert (len(found["calibration"]), len(found["valid"])) == (taken, 30 - taken)


@pytest.mark.parametrize("more", [{"calibration": torch.arange(60, 70)}, {}])
def test_nobody_s_calibration_split_is_touched_and_few_are_not_halved(more):
    given = {"train": torch.arange(41), "valid": torch.arange(41, 60), **more}
    assert with_calibration(given, rng=torch.Generator(), together=ALONE) == given


@settings(max_examples=40, deadline=None)
@given(st.lists(st.integers(0, 30), min_size=20, max_size=80), st.integers(0, 2**31))
def test_rows_of_one_molecule_do_not_choose_and_calibrate(molecule, seed):
    groups = [[row for row, m in enumerate(molecule) if m == one] for one in sorted(set(molecule))]
    given = {"train": torch.tensor([], dtype=torch.long), "valid": torch.arange(len(molecule))}
    found = with_calibration(given, rng=torch.Generator().manual_seed(seed), together=groups)
    parts = [{molecule[row] for row in found[name].tolist()} for name in ("valid", "calibration")]
    assert not parts[0] & parts[1]
    assert sum(map(len, found.values())) == len(molecule)


@settings(max_examples=40, deadline=None)
@given(molecules, st.integers(0, 2**31))
def test_a_shifted_split_deals_every_readable_molecule_once_and_sets_scaffolds_apart(smiles, seed):
    splits = shifted_split(scaffold_split(smiles), rng=torch.Generator().manual_seed(seed))
    rows = torch.cat(list(splits.values())).sort().values.tolist()
    assert list(splits) == [*SPLITS, "ood"]
    assert rows == [i for i, text in enumerate(smiles) if text != "not a molecule"]
    assert all(torch.equal(rows, rows.sort().values) for rows in splits.values())
    inside = torch.cat([splits[name] for name in SPLITS])
    assert not scaffolds(smiles, inside) & scaffolds(smiles, splits["ood"])


def test_the_test_split_of_a_shifted_split_shares_scaffolds_with_training(rng):
    rare = ["C1CCC1", "C1CCCC1", "C1CCCCC1", "C1CCCCCC1"]
    smiles = [*["Cc1ccccc1"] * 32, *["C1CC1C"] * 4, *rare]
    splits = shifted_split(scaffold_split(smiles), rng=rng)
    train, test = ({scaffold(parse(smiles[i])) for i in splits[s].tolist()} for s in SPLITS[::2])
    assert train & test
    assert splits["ood"].tolist() == [36, 37, 38, 39]


PARTS = slice(0, 70), slice(70, 80), slice(80, 100)  # of 100 rows


def test_a_rare_class_is_validated_and_tested_on_in_a_shifted_split_too():
    y = torch.zeros(100, 1)
    y[:80:10] = 1
    scaffold = {name: torch.arange(100)[part] for name, part in zip(SPLITS, PARTS, strict=True)}
    for seed in range(5):
        splits = molecule_splits(
            ["C"] * 100,
            "random_and_scaffold",
            seed,
            rows=torch.arange(100),
            scaffold=lambda: scaffold,
            labels=y,
        )
        assert [int(y[splits[name]].sum()) for name in SPLITS] == [6, 1, 1]


SCAFFOLD = {
    name: torch.tensor(rows)
    for name, rows in {"train": [*range(1, 60)], "valid": [0, 61], "test": [60, 62]}.items()
}


@pytest.mark.parametrize("split", ["random", "random_and_scaffold"])
def test_a_drawn_split_follows_its_seed_and_none_is_seed_zero(split):
    def train(seed):
        rows = torch.arange(63)
        return molecule_splits(["C"] * 63, split, seed, rows=rows, scaffold=lambda: SCAFFOLD)[
            "train"
        ].tolist()

    assert train(1) == train(1) != train(2)
    assert train(None) == train(0)


def test_a_random_split_deals_the_rows_it_is_given_and_asks_for_no_scaffold():
    rows = torch.tensor([2, 3, 5, 7, 11, 13, 17, 19, 23, 29])
    splits = molecule_splits(
        ["C"] * 30, "random", 0, rows=rows, scaffold=lambda: pytest.fail("asked for")
    )
    assert _rows(splits) == rows.tolist()
    assert [len(splits[name]) for name in SPLITS] == [8, 1, 1]


@pytest.mark.parametrize(
    ("split", "seed", "message"),
    [
        ("stratified", None, "should be scaffold, random or column, got 'stratified'"),
        ("scaffold", 0, "split_seed is for split random only; got split 'scaffold' and .* 0"),
        ("column", 7, "leave it out"),
    ],
)
def test_a_choice_without_a_meaning_is_refused(split, seed, message):
    with pytest.raises(ValueError, match=message):
        check_choice(split, seed, ("scaffold", "random", "column"))


@pytest.mark.parametrize("shares", [(0.8, 0.1, 0.2), (0.0, 0.5, 0.5), (1.2, -0.1, -0.1)])
def test_fractions_that_are_no_shares_are_refused(shares, rng):
    with pytest.raises(ValueError, match="sum to 1, got"):
        scaffold_split(["CCO"], shares)
    with pytest.raises(ValueError, match="sum to 1, got"):
        random_split(1, rng=rng, fractions=shares)


@pytest.mark.parametrize("share", [-0.1, 0.8, 1.0, float("nan")])
def test_calibration_that_leaves_nothing_to_train_on_is_refused(share, rng):
    with pytest.raises(ValueError, match=r"share below that of train, 0\.8, got"):
        random_split(100, rng=rng, calibration=share)


@settings(max_examples=40, deadline=None)
@given(st.lists(st.sampled_from([*SPLITS, "ood"]), max_size=30).map(lambda v: [*SPLITS, *v]))
def test_a_column_split_puts_each_row_where_its_value_says(values):
    splits = column_split(values)
    for name, rows in splits.items():
        assert rows.tolist() == [i for i, value in enumerate(values) if value == name]
    assert set(splits) == set(values)


def test_a_column_split_reads_common_spellings_and_orders_further_splits():
    splits = column_split(
        [" Training", "VAL", "validation", "dev", "test", "temporal", "OOD", "cal"]
    )
    assert [*splits] == ["train", "valid", "test", "calibration", "ood", "temporal"]
    assert [rows.tolist() for rows in splits.values()] == [[0], [1, 2, 3], [4], [7], [6], [5]]


def test_a_column_without_a_training_split_says_what_it_found():
    with pytest.raises(ValueError, match="no row of train, found: 0, test and valid; give another"):
        column_split(["0", "valid", "test"])


def test_a_row_without_a_split_is_named():
    values = ["train", "valid", " ", "test"]
    with pytest.raises(ValueError, match="of a table should name its split; row 2 names none"):
        column_split(values)
    with pytest.raises(ValueError, match=r"of a\.csv should name its split; line 7 names none"):
        column_split(values, source="a.csv", lines=(2, 5, 7, 8), unit="line")
