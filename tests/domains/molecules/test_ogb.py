import gzip
import shutil
import zipfile
from importlib.resources import files

import numpy as np
import pandas as pd
import pytest
import torch
from torch import Tensor

from molhpft.core.objectives import Multilabel, Squared
from molhpft.domains.molecules import ogb as datasets
from molhpft.domains.molecules.ogb import ogb_folder, ogb_names, ogb_task
from tests.marks import slow

SMILES = ("CCO", "c1ccccc1", "C", "C1CC1")


@pytest.fixture
def real(ogb_root, monkeypatch):
    monkeypatch.setenv("MOLHPFT_DATA", str(ogb_root))
    return ogb_root


@pytest.fixture
def root(tmp_path, monkeypatch):
    monkeypatch.setenv("MOLHPFT_DATA", str(tmp_path))
    return tmp_path


@pytest.fixture
def folder(root):
    """A data set of four molecules in OGB's layout, under the name of a real one."""
    folder = root / "ogbg_molbace"
    _write(
        folder / "mapping" / "mol.csv.gz",
        "Class,smiles,mol_id\n"
        + "".join(f"{k % 2},{smiles},m{k}\n" for k, smiles in enumerate(SMILES)),
    )
    _write(folder / "raw" / "num-node-list.csv.gz", "3\n6\n1\n3\n")
    _write(folder / "raw" / "num-edge-list.csv.gz", "2\n6\n0\n3\n")
    for split, rows in {"train": "0\n1\n", "valid": "2\n", "test": "3\n"}.items():
        _write(folder / "split" / "scaffold" / f"{split}.csv.gz", rows)
    return folder


@pytest.fixture
def offline(monkeypatch):
    def refuse(url, *_, **__):
        raise ConnectionError(f"{url} cannot be reached: no route to host")

    monkeypatch.setattr(datasets, "fetch_archive", refuse)


def _write(path, text):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(gzip.compress(text.encode()))


def _labels(root, name):
    return pd.read_csv(root / f"ogbg_mol{name}" / "raw" / "graph-label.csv.gz", header=None)


@pytest.mark.parametrize(
    ("name", "sizes", "objective"),
    [
        slow("tox21", [6264, 783, 784], Multilabel(metric="rocauc")),
        ("bace", [1210, 151, 152], Multilabel(metric="rocauc")),
        ("esol", [902, 113, 113], Squared()),
    ],
)
def test_a_real_data_set_has_ogbs_sizes_labels_and_objective(real, name, sizes, objective):
    task = ogb_task(f"ogbg-mol{name}")
    theirs = torch.tensor(_labels(real, name).to_numpy(np.float32))
    assert [len(task.splits[split]) for split in ("train", "valid", "test")] == sizes
    numbers = isinstance(task.objective, Squared)
    found = task.objective.values if numbers else Tensor.float
    ours = found(task.examples.targets).float()
    torch.testing.assert_close(ours, theirs, equal_nan=True, rtol=1e-5, atol=1e-5)
    assert task.outputs == theirs.shape[1] == len(task.target_names)
    assert sum(map(len, task.splits.values())) == len(task.examples) == sum(sizes)
    if name == "tox21":
        assert task.target_names[:2] == ("NR-AR", "NR-AR-LBD")
    assert type(task.objective) is type(objective) if numbers else task.objective == objective


def test_numbers_of_a_real_data_set_are_scored_as_ogb_does(real):
    from ogb.graphproppred.evaluate import Evaluator  # seconds to import

    task = ogb_task("ogbg-molesol")
    targets = task.examples.targets[task.rows("test")].float()
    logits = torch.randn(targets.shape, generator=torch.Generator().manual_seed(0))
    y = torch.tensor(_labels(real, "esol").to_numpy(np.float64))[task.rows("test")]
    given = {"y_true": y.numpy(), "y_pred": task.objective.values(logits).numpy()}
    expected = -Evaluator("ogbg-molesol").eval(given)["rmse"]
    assert task.objective.score(logits, targets) == pytest.approx(expected, rel=1e-5)


def test_out_of_distribution_are_ogbs_test_molecules_and_the_others_are_dealt(real):
    ogb, task = (ogb_task("ogbg-molbace", split=s) for s in ("scaffold", "random_and_scaffold"))
    sizes = {name: len(rows) for name, rows in task.splits.items()}
    assert torch.equal(task.splits["ood"], ogb.splits["test"])
    assert torch.cat(list(task.splits.values())).sort().values.tolist() == list(range(1513))
    assert sizes == {"train": 1089, "valid": 136, "test": 136, "ood": 152}
    assert task.fingerprint != ogb.fingerprint


@pytest.mark.parametrize("split", ["random", "random_and_scaffold"])
def test_a_drawn_split_of_a_real_data_set_follows_its_seed(real, split):
    once, again, other = (
        ogb_task("ogbg-molbace", split=split, split_seed=seed).fingerprint for seed in (1, 1, 2)
    )
    assert once == again != other


def test_a_split_that_ogbs_data_do_not_have_is_refused_before_fetching(root):
    with pytest.raises(ValueError, match=r"split_seed is for split random .* got split 'scaffold'"):
        ogb_task("ogbg-molhiv", split_seed=0)
    with pytest.raises(ValueError, match="scaffold, random or random_and_scaffold, got 'column'"):
        ogb_task("ogbg-molhiv", split="column")


def test_data_sets_are_those_of_ogbs_list_with_its_metrics_and_addresses():
    with files("ogb").joinpath("graphproppred", "master.csv").open() as file:
        master = pd.read_csv(file, index_col=0, dtype=str)
    names = [name for name in master.columns if name.startswith("ogbg-mol")]
    assert ogb_names() == names
    for name in names:
        ours, theirs = datasets._data_set(name), master[name]
        assert ours.targets == int(theirs["num tasks"])
        assert (ours.url, ours.archive) == (theirs["url"], theirs["download_name"])
        assert ours.objective.metric.removeprefix("neg_") == theirs["eval metric"]
        is_regression = isinstance(ours.objective, Squared)
        assert theirs["task type"] == ("regression" if is_regression else "binary classification")


def test_an_unknown_name_lists_the_known_ones():
    with pytest.raises(ValueError, match=r"'ogbg-molbase'; there are: ogbg-molbace, .*ogbg-molhiv"):
        ogb_task("ogbg-molbase")
    with pytest.raises(ValueError, match="no data set named"):
        ogb_folder("../elsewhere")


def test_offline_one_sentence_says_where_to_put_what(root, offline):
    with pytest.raises(FileNotFoundError) as caught:
        ogb_task("ogbg-molhiv")
    message = str(caught.value)
    for part in ("ogbg-molhiv", str(root / "ogbg_molhiv"), "hiv.zip", "MOLHPFT_DATA", "mapping"):
        assert part in message
    assert "\n" not in message
    assert ". " not in message
    assert list(root.iterdir()) == []


def test_an_absent_data_set_is_fetched_from_ogbs_address_once(folder, root, monkeypatch):
    archive, addresses = root / "bace.zip", []
    with zipfile.ZipFile(archive, "w") as file:
        for path in folder.rglob("*.gz"):
            file.write(path, f"bace/{path.relative_to(folder)}")
    shutil.rmtree(folder)
    fetch = datasets.fetch_archive

    def from_disk(url, *args, **options):
        addresses.append(url)
        fetch(archive.as_uri(), *args, **options)

    monkeypatch.setattr(datasets, "fetch_archive", from_disk)
    assert ogb_task("ogbg-molbace").fingerprint == ogb_task("ogbg-molbace").fingerprint
    assert addresses == [
        "http://snap.stanford.edu/ogb/data/graphproppred/csv_mol_download/bace.zip"
    ]


def test_a_small_data_set_is_read_as_it_is_written(folder):
    task = ogb_task("ogbg-molbace")
    assert task.examples.smiles == SMILES
    assert task.examples.targets.tolist() == [[0], [1], [0], [1]]
    assert {name: rows.tolist() for name, rows in task.splits.items()} == {
        "train": [0, 1],
        "valid": [2],
        "test": [3],
    }


def test_an_empty_label_is_unmeasured(folder):
    path = folder / "mapping" / "mol.csv.gz"
    _write(path, gzip.decompress(path.read_bytes()).decode().replace("0,C,", ",C,"))
    assert ogb_task("ogbg-molbace").examples.targets.isnan().flatten().tolist() == [
        False,
        False,
        True,
        False,
    ]


@pytest.mark.parametrize(("kind", "ours"), [("node", 6), ("edge", 6)])
def test_a_molecule_of_another_size_than_ogbs_is_named(folder, kind, ours):
    path = folder / "raw" / f"num-{kind}-list.csv.gz"
    _write(path, gzip.decompress(path.read_bytes()).decode().replace("6", "7"))
    with pytest.raises(ValueError, match=rf"row 1 \(c1ccccc1\) has {ours}, and 7 in .*{kind}"):
        ogb_task("ogbg-molbace")


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        ("raw/num-node-list", "3\n6\n1\n", "a row for each of 4 molecules, it has 3"),
        ("split/scaffold/test", "2\n", "each of its 4 molecules once; .* train 2, valid 1, test 1"),
        ("split/scaffold/test", "4\n", "each of its 4 molecules once"),
        ("mapping/mol", "a,b,smiles,mol_id\n1,0,C,x\n", "should have 1 tasks; .* has 2 columns"),
        ("mapping/mol", "Class,smiles,mol_id\nyes,C,x\n", "as OGB writes it, but: .*'yes'"),
        ("mapping/mol", "", "as OGB writes it, but: "),
        ("raw/num-edge-list", "two\n", "as OGB writes it, but: "),
    ],
)
def test_files_that_contradict_each_other_are_refused(folder, file, content, message):
    _write(folder / f"{file}.csv.gz", content)
    with pytest.raises(ValueError, match=message) as caught:
        ogb_task("ogbg-molbace")
    assert str(folder) in str(caught.value)


def test_a_file_that_is_not_compressed_is_refused(folder):
    (folder / "mapping" / "mol.csv.gz").write_text("Class,smiles,mol_id\n1,C,x\n")
    with pytest.raises(ValueError, match="as OGB writes it"):
        ogb_task("ogbg-molbace")


@pytest.mark.parametrize("file", ["mapping/mol", "raw/num-edge-list", "split/scaffold/valid"])
def test_a_missing_file_is_named(folder, file):
    path = folder / f"{file}.csv.gz"
    path.unlink()
    with pytest.raises(FileNotFoundError, match=f"{path} is absent"):
        ogb_task("ogbg-molbace")
