"""Fixtures every test may use: one thread, a cache of its own, and the real data where it lies."""

import os
from pathlib import Path

import pytest
import torch

torch.set_num_threads(1)

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


@pytest.fixture
def rng():
    return torch.Generator().manual_seed(0)
