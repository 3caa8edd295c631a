"""Fixtures every test may use: one thread, a cache of its own, and the real data where it lies."""

import os
import subprocess
from pathlib import Path

import numpy as np
import pytest
import torch
from rdkit import RDConfig

import tests.shapes  # noqa: F401 (before anything that it checks is imported)
from molhpft.config.registry import TASKS
from molhpft.config.schema import parse_config
from molhpft.domains.molecules.tables import csv_task
from tests.runs import SMALL

torch.set_num_threads(1)

# what another environment of Python needs of ours
ALONE = {k: v for k, v in os.environ.items() if not k.startswith(("PYTHON", "VIRTUAL_ENV"))}

if not torch.cuda.is_available():
    # read when triton is imported: its programs then run on the CPU, step by step
    os.environ["TRITON_INTERPRET"] = "1"


@pytest.fixture(scope="session", autouse=True)
def _cache_of_this_worker(tmp_path_factory):
    """Keeps the user's own cache out of the tests; one for all workers, whose writes are atomic."""
    folder = tmp_path_factory.getbasetemp()
    folder = folder.parent if "PYTEST_XDIST_WORKER" in os.environ else folder
    os.environ["MOLHPFT_CACHE"] = str(folder / "cache")


@pytest.fixture(scope="session")
def ogb_root():
    """Folder that holds the real `ogbg_mol*` folders."""
    root = Path(os.environ.get("MOLHPFT_DATA", "")).expanduser()
    if not (root / "ogbg_molbace").is_dir():
        pytest.skip("real data absent: set MOLHPFT_DATA to a folder that holds ogbg_molbace")
    return root


@pytest.fixture(scope="session")
def chemprop_says(tmp_path_factory):
    """What chemprop itself makes of molecules, in an environment of its own; see chemprop_own.py.

    A function of what is asked, SMILES and files, to the arrays of the answer.
    """
    python = os.environ.get("MOLHPFT_CHEMPROP")
    if not python:
        pytest.skip("set MOLHPFT_CHEMPROP to the python of an environment that has chemprop 2.3")
    script = Path(__file__).parent / "domains/molecules/chemprop_own.py"

    def says(what, smiles, *files):
        folder = tmp_path_factory.mktemp("chemprop")
        (folder / "smiles.txt").write_text("\n".join(smiles) + "\n")
        paths = [str(folder / "smiles.txt"), str(folder / "out.npz"), *map(str, files)]
        subprocess.run([python, "-W", "ignore", str(script), what, *paths], check=True, env=ALONE)
        return dict(np.load(folder / "out.npz"))

    return says


@pytest.fixture
def few_nci_molecules(tmp_path, monkeypatch):
    """The molecules that RDKit ships are their first 300, for those whom any will do."""
    own = Path(RDConfig.RDDataDir) / "NCI" / "first_5K.smi"
    fewer = tmp_path / "Data" / "NCI" / own.name
    fewer.parent.mkdir(parents=True)
    fewer.write_text("\n".join(own.read_text().splitlines()[:300]))
    monkeypatch.setattr(RDConfig, "RDDataDir", str(tmp_path / "Data"))


@pytest.fixture
def rng():
    return torch.Generator().manual_seed(0)


@pytest.fixture(scope="session")
def table(tmp_path_factory):
    """Chains and rings; whether there is a ring, and the number of atoms."""
    path = tmp_path_factory.mktemp("table") / "rings.csv"
    rows = ["smiles,ring,size"]
    for n in range(3, 33):
        rows += [f"{'C' * n}O,0,{n + 1}", f"C1{'C' * n}1N,1,{n + 2}"]
    path.write_text("\n".join(rows) + "\n")
    return path


@pytest.fixture(scope="session")
def small(table):
    def config(reader=None, **changes):
        raw = {**SMALL, **changes}
        task = {**raw["task"], "split": "random", "split_seed": 1, "path": str(table)}
        # a template: what one method has no use for, another has
        return parse_config({**raw, "task": task}, unused_are="dropped", reader=reader)

    return config


@pytest.fixture
def sizes(table, monkeypatch):
    """A task named sizes in the catalog: the number of atoms, which FLYP may go on serving."""
    task = csv_task(path=table, target_columns=["size"], split="random", split_seed=1)
    monkeypatch.setitem(TASKS, "sizes", lambda: task)
