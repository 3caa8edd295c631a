"""How many threads small studies compute on."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch


@contextmanager
def one_thread() -> Iterator[None]:
    """PyTorch on one thread, afterwards on as many as before.

    On matrices this small, threads wait for one another longer than they compute, and on a machine
    that is busy otherwise fifty times as long. The numbers are then the same on any number of
    cores.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)
