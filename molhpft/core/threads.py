"""How many threads PyTorch computes on."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch


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
def one_thread() -> Iterator[None]:
    """`threads(1)`, for small studies.

    On matrices this small, threads wait for one another longer than they compute, and on a machine
    that is busy otherwise fifty times as long. The numbers are then the same on any number of
    cores.
    """
    with threads(1):
        yield
