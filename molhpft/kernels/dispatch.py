"""Which kernels serve which tensors."""

import logging
import os
from functools import cache
from typing import Protocol

import torch
from torch import Tensor
from torch.autograd import forward_ad

from molhpft.kernels.reference import Edges, Finish

VARIABLE = "MOLHPFT_KERNELS"
_CHOICES = ("auto", "reference")

_log = logging.getLogger(__name__)


class Kernels(Protocol):
    """What `cpu.py` and `gpu.py` offer; the meaning of each function is told in `cpu.py`."""

    def convolve(self, x: Tensor, bond: Tensor, root: Tensor, edges: Edges) -> Tensor:
        """One step of OGB's graph convolution."""

    def convolve_backward(
        self, g: Tensor, x: Tensor, bond: Tensor, root: Tensor, edges: Edges
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Its gradients."""

    def propagate(self, x: Tensor, edges: Edges) -> Tensor:
        """Product with the normalised adjacency matrix."""

    def embed_backward(self, g: Tensor, rows: Tensor, length: int) -> Tensor:
        """Gradient of a table whose rows were summed."""

    def moments(self, a: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and biased variance of columns."""

    def activate(self, a: Tensor, factor: Tensor, shift: Tensor, finish: Finish) -> Tensor:
        """A line for each column, then ReLU and dropout."""

    def activate_sums(
        self, g: Tensor, a: Tensor, factor: Tensor, shift: Tensor, finish: Finish, mean: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Sums that the gradient of batch norm needs."""

    def activate_backward(
        self,
        g: Tensor,
        a: Tensor,
        factor: Tensor,
        shift: Tensor,
        finish: Finish,
        slope: Tensor,
        offset: Tensor,
    ) -> Tensor:
        """Gradient of batch norm, ReLU and dropout."""


def kernels_for(*tensors: Tensor, rows: Tensor | None = None) -> Kernels | None:
    """Fused kernels for these tensors, None where the plain reference has to do.

    Kernels serve float32 on the CPU and, where triton can be imported, on GPUs, and `rows` of nodes
    that autocast has made bfloat16. The reference serves every other dtype and device, PyTorch's
    function transforms (`vmap`, `jvp`, `torch.func.grad`, dual numbers), which kernels cannot look
    into, and everything under `MOLHPFT_KERNELS=reference`.

    Args:
        tensors: whose dtype has to be float32.
        rows: of nodes, whose dtype may be bfloat16 as well.

    Raises:
        ValueError: the environment variable has another value.
    """
    device = tensors[0].device.type
    if _chosen() == "reference" or not all(_is_plain(t, device, torch.float32) for t in tensors):
        return None
    if rows is not None and not _is_plain(rows, device, torch.float32, torch.bfloat16):
        return None
    if device == "cpu":
        return _cpu()
    return _gpu() if device == "cuda" else None


def is_compiled_on(device: torch.device) -> bool:
    """Whether loops over whole numbers, which nothing differentiates, are compiled for a device.

    Raises:
        ValueError: the environment variable has another value.
    """
    return device.type == "cpu" and _chosen() != "reference"


def is_transformed(*tensors: Tensor) -> bool:
    """Whether PyTorch is transforming the computation on these tensors, instead of just doing it.

    The first derivative by `backward` or `autograd.grad` is no such transform; batches of
    gradients (`is_grads_batched`) are.
    """
    return torch._C._are_functorch_transforms_active() or any(
        torch._C._functorch.is_legacy_batchedtensor(t)
        or forward_ad.unpack_dual(t).tangent is not None  # type: ignore[no-untyped-call]
        for t in tensors
    )


def _is_plain(tensor: Tensor, device: str, *dtypes: torch.dtype) -> bool:
    return tensor.dtype in dtypes and tensor.device.type == device and not is_transformed(tensor)


def _chosen() -> str:
    value = os.environ.get(VARIABLE, "auto")
    if value not in _CHOICES:
        raise ValueError(f"{VARIABLE} should be {' or '.join(_CHOICES)}, got {value!r}")
    return value


@cache
def _cpu() -> Kernels:
    # where it is first used: numba takes a good part of a second to import
    from molhpft.kernels import cpu

    return cpu


@cache
def _gpu() -> Kernels | None:
    try:
        from molhpft.kernels import gpu
    except ImportError as error:
        _log.warning(
            "graph operations on the GPU are not fused, as triton cannot be imported (%s); "
            "install triton to have them fast",
            error,
        )
        return None
    return gpu
