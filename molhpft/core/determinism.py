"""What makes numbers repeatable: seeds for every purpose, one thread, sums of GPUs in one order."""

import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from threadpoolctl import threadpool_limits


def seed_for(seed: int, purpose: str) -> int:
    """A seed of its own for each purpose, so that none uses up another's random numbers."""
    digest = hashlib.sha256(f"{seed}/{purpose}".encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 2


def seed_dropout(seed: int, device: torch.device) -> None:
    """Seed the global generators that dropout on a device draws from.

    Seeded at every step from a generator of ours, they have no state of their own to save.
    """
    # not torch.manual_seed, which asks about every kind of device and takes 80 times as long
    torch.default_generator.manual_seed(seed)
    if device.type == "cuda":
        torch.cuda.manual_seed(seed)


@contextmanager
def deterministic_on_gpus() -> Iterator[None]:
    """GPUs add in a fixed order, so that what runs twice there has one result; also a decorator.

    Where PyTorch has no such way to compute an operation, it warns that the result may vary. On a
    machine without a GPU nothing changes.
    """
    if not torch.cuda.is_available():
        yield
        return
    deterministic: Any = torch.utils.deterministic  # its types do not know its attribute
    before = torch.get_deterministic_debug_mode(), deterministic.fill_uninitialized_memory
    # read when cuBLAS is first used: without it, products on several streams may vary
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.use_deterministic_algorithms(True, warn_only=True)
    deterministic.fill_uninitialized_memory = False  # which costs a twentieth of a training
    try:
        yield
    finally:
        torch.set_deterministic_debug_mode(before[0])
        deterministic.fill_uninitialized_memory = before[1]


@contextmanager
def threads(count: int) -> Iterator[None]:
    """PyTorch on so many threads, afterwards on as many as before."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@contextmanager
def half_the_threads() -> Iterator[None]:
    """PyTorch on half its threads, while processes that read molecules use the other half."""
    with threads(max(1, torch.get_num_threads() // 2)):
        yield


@contextmanager
def one_thread() -> Iterator[None]:
    """PyTorch, NumPy and SciPy on one thread, for what is small.

    On matrices this small, threads wait for one another longer than they compute, and on a busy
    machine fifty times as long. The numbers are then the same on any number of cores.
    """
    with threads(1), threadpool_limits(1, "blas"):
        yield
