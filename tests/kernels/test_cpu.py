"""The CPU kernels on several threads, and where their compiled form is kept."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from molhpft.kernels import ops
from tests.kernels.random_graphs import KINDS, RING, draw_leaves, gradients
from tests.kernels.test_normalisation import batch_norm

ROWS = torch.arange(600)[:, None] % 7


@pytest.fixture
def two_threads():
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(1)


def numbers(dtype=torch.float32):
    """Value and gradients of every fused operation, several parts of rows each."""
    torch.manual_seed(0)
    x, bond, root, table = draw_leaves((600, 33), (KINDS, 33), (33,), (7, 33))
    h = (ops.embed(ROWS, table) + ops.propagate(x, RING)).to(dtype)
    h = ops.convolve(h, bond, root, RING)
    h = ops.normalise(h, batch_norm(33), relu=True, dropout=0.5, training=True)
    return h.detach(), *gradients(h, [x, bond, root, table])


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_two_threads_give_the_numbers_of_one_and_of_another_time(two_threads, dtype):
    two, again = numbers(dtype), numbers(dtype)
    torch.set_num_threads(1)
    for one, *others in zip(numbers(dtype), two, again, strict=True):
        assert all(torch.equal(one, other) for other in others)


def test_pytorch_keeps_its_number_of_threads(two_threads):
    numbers()
    assert torch.get_num_threads() == 2
    torch.set_num_threads(1)
    numbers()
    assert torch.get_num_threads() == 1


def test_an_empty_graph_needs_no_thread(two_threads):
    assert ops.embed(ROWS[:0], torch.ones(7, 3)).shape == (0, 3)
    assert ops.propagate(torch.ones(600, 0), RING).shape == (600, 0)


RUN = """
import torch
from molhpft.kernels.ops import normalise
normalise(torch.ones(9, 3), torch.nn.BatchNorm1d(3), relu=True, dropout=0.5, training=True)
"""


def run(cache, **variables):
    """Files that a fresh process adds to a cache folder of compiled kernels, and its warnings."""
    before = set(Path(cache).rglob("*.nbc"))
    environment = {**os.environ, "NUMBA_CACHE_DIR": str(cache), "OMP_NUM_THREADS": "1", **variables}
    done = subprocess.run(
        [sys.executable, "-c", RUN], env=environment, check=True, capture_output=True, text=True
    )
    return set(Path(cache).rglob("*.nbc")) - before, done.stderr


def test_kernels_are_compiled_once_and_then_read_back(tmp_path):
    first, _ = run(tmp_path)
    second, _ = run(tmp_path)
    assert first
    assert not second


def test_forcing_the_reference_compiles_nothing(tmp_path):
    compiled, _ = run(tmp_path, MOLHPFT_KERNELS="reference")
    assert not compiled


def test_without_a_folder_to_keep_them_kernels_run_and_a_warning_says_so():
    code = """
import logging, torch
from numba.core.caching import CacheImpl
CacheImpl._locator_classes = []
from molhpft.kernels import cpu, cpu_loops
from molhpft.kernels.reference import Finish
x = torch.ones(2, 2)
print(cpu.activate(x, x[0], x[0], Finish(relu=True)).sum().item())
"""
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert done.stdout.split() == ["8.0"]
    assert "compiled anew in every process" in done.stderr
    assert "NUMBA_CACHE_DIR" in done.stderr
